package apply

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// moment is what a pod looks like a while after the wait began.
type moment struct {
	at     time.Duration
	status corev1.PodStatus
}

// endsAt plays moments to a patience the way Wait does, asking again when it is
// told to, and returns when the wait would end; never if it does not within the
// limit.
func endsAt(moments []moment, limit time.Duration) time.Duration {
	var p patience
	start := time.Unix(0, 0)
	for i, m := range moments {
		until := limit
		if i+1 < len(moments) {
			until = moments[i+1].at
		}
		found := []finding{{object: Ref{Name: "web"}, symptoms: podSymptoms(pod(m.status))}}
		for at := m.at; ; {
			final, again := p.judge(found, start.Add(at))
			if final {
				return at
			}
			if again == 0 || at+again >= until {
				break
			}
			at += again
		}
	}
	return never
}

func TestPatience(t *testing.T) {
	none := corev1.ContainerState{}
	starting := container(waiting("ContainerCreating"), none, 0)
	up := container(running, none, 0)
	crash := func(restarts int32) corev1.PodStatus { return container(terminated(1), none, restarts) }
	backOff := func(restarts int32) corev1.PodStatus { return container(waiting(crashLoop), terminated(1), restarts) }
	upAgain := func(restarts int32) corev1.PodStatus { return container(running, terminated(1), restarts) }
	const s = time.Second
	tests := []struct {
		name    string
		moments []moment
		want    time.Duration
	}{
		{"a slow start is waited for", []moment{{0, starting}, {9 * s, up}}, never},
		{"an image that comes a moment late is waited for", []moment{{0, starting}, {1 * s, container(waiting("ErrImagePull"), none, 0)}, {2 * s, up}}, never},
		{"a missing image ends it after two seconds, though its reason alternates", []moment{
			{1 * s, container(waiting("ErrImagePull"), none, 0)}, {2 * s, container(waiting("ImagePullBackOff"), none, 0)},
		}, 3 * s},
		{"crashes while a dependency comes up are survived", []moment{{1 * s, crash(0)}, {2 * s, crash(1)}, {3 * s, backOff(1)}, {13 * s, upAgain(2)}}, never},
		{"the third crash ends it", []moment{{1 * s, crash(0)}, {2 * s, crash(1)}, {3 * s, backOff(1)}, {13 * s, upAgain(2)}, {14 * s, crash(2)}}, 14 * s},
		{"a crash loop with long runs ends it before 20 seconds", []moment{{1 * s, crash(0)}, {2 * s, upAgain(1)}, {8 * s, crash(1)}, {9 * s, backOff(1)}}, 16 * s},
		{"a node with room a moment later is waited for", []moment{{0, unschedulable}, {4 * s, starting}}, never},
		{"an unschedulable pod ends it", []moment{{0, unschedulable}}, 5 * s},
		{"a crash loop from before the wait ends it at the next crash", []moment{{0, upAgain(5)}, {3 * s, crash(5)}}, 3 * s},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := endsAt(test.moments, time.Minute); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestCrashesAreExcusedWhileWhatTheyMayNeedComesUp(t *testing.T) {
	looping := func(restarts int32) finding {
		return finding{object: Ref{GroupVersionKind: deployments, Name: "web"}, symptoms: podSymptoms(pod(container(waiting(crashLoop), terminated(1), restarts)))}
	}
	store := finding{object: Ref{GroupVersionKind: deployments, Name: "store"}, symptoms: podSymptoms(pod(container(running, corev1.ContainerState{}, 0)))}
	service := finding{object: Ref{GroupVersionKind: schema.GroupVersionKind{Kind: "Service"}, Name: "web"}, reason: "no ready address"}
	crashed := finding{object: Ref{GroupVersionKind: deployments, Name: "store"}, symptoms: podSymptoms(pod(container(waiting(crashLoop), terminated(1), 1)))}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }

	t.Run("restarted each second, until the store is ready and after", func(t *testing.T) {
		var p patience
		for s := range 5 {
			if final, _ := p.judge([]finding{looping(int32(s)), service, store}, at(s)); final {
				t.Fatalf("ended after %d s, though the store is coming up", s)
			}
		}
		if final, _ := p.judge([]finding{looping(5), service}, at(5)); final {
			t.Error("ended before the container could see the store that it needs")
		}
		if final, _ := p.judge([]finding{looping(6), service}, at(6)); !final {
			t.Error("went on, though it has crashed twice beside a store that is ready")
		}
	})
	t.Run("not beside what crashes as well", func(t *testing.T) {
		var p patience
		if final, _ := p.judge([]finding{looping(2), crashed}, at(0)); !final {
			t.Error("went on, though nothing is coming up")
		}
	})
	t.Run("not for longer than a crash loop may last", func(t *testing.T) {
		var p patience
		p.judge([]finding{looping(0), store}, at(0))
		if final, _ := p.judge([]finding{looping(9), store}, at(15)); !final {
			t.Error("went on after 15 s")
		}
	})
}

var deployments = appsv1.SchemeGroupVersion.WithKind("Deployment")

var unschedulable = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
	{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable},
}}

func TestPatienceWithADeadlineFromAnEarlierTry(t *testing.T) {
	exceeded := []finding{{object: Ref{Name: "web"}, symptoms: []symptom{{class: classFailed, reason: deadlineExceeded}}}}
	var p patience
	if final, _ := p.judge(exceeded, time.Unix(0, 0)); final {
		t.Error("ended at once, though the condition is older than the wait")
	}
	if final, _ := p.judge(exceeded, time.Unix(1, 0)); final {
		t.Error("ended, though the condition is older than the wait")
	}
	p.judge([]finding{{object: Ref{Name: "web"}}}, time.Unix(2, 0))
	if final, _ := p.judge(exceeded, time.Unix(3, 0)); !final {
		t.Error("went on, though the deadline was exceeded during the wait")
	}
}
