package gather

import (
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
)

func pod(name string, status corev1.PodStatus) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}, Status: status}
}

func ready(status corev1.ConditionStatus) []corev1.PodCondition {
	return []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
}

var (
	running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	crashed = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", FinishedAt: metav1.Unix(0, 0)}}
)

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func containers(state, last corev1.ContainerState, restarts int32) []corev1.ContainerStatus {
	return []corev1.ContainerStatus{{Name: "main", State: state, LastTerminationState: last, RestartCount: restarts}}
}

func TestExamine(t *testing.T) {
	none := corev1.ContainerState{}
	tests := []struct {
		name   string
		status corev1.PodStatus
		want   string // empty: nothing is wrong
		rank   int
	}{
		{"ready", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: ready("True"), ContainerStatuses: containers(running, none, 0)}, "", 0},
		{"done", corev1.PodStatus{Phase: corev1.PodSucceeded, Conditions: ready("False")}, "", 0},
		{"starting", corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: containers(waiting("ContainerCreating", ""), none, 0)},
			"Pod/apps/p: not ready (Pending)", rankWaiting},
		{"image missing", corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: containers(waiting("ErrImageNeverPull", "not present"), none, 0)},
			"Pod/apps/p: not ready (Pending); container main: ErrImageNeverPull: not present", rankBroken},
		{"crash loop", corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: containers(waiting("CrashLoopBackOff", ""), crashed, 4)},
			"Pod/apps/p: not ready (Running); container main: CrashLoopBackOff; container main: restarted 4 times, last after exit 1 Error at 00:00:00", rankBroken},
		{"well again", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: ready("True"), ContainerStatuses: containers(running, crashed, 1)},
			"Pod/apps/p: container main: restarted 1 times, last after exit 1 Error at 00:00:00", rankRestarted},
		{"no room", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"}}},
			"Pod/apps/p: Unschedulable: 0/1 nodes; not ready (Pending)", rankUnscheduled},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on disk"},
			"Pod/apps/p: Failed Evicted low on disk; not ready (Failed)", rankBroken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, wrong := examine(pod("p", test.status))
			if wrong != (test.want != "") || found.line != test.want {
				t.Fatalf("got %q, want %q", found.line, test.want)
			}
			if wrong && found.rank != test.rank {
				t.Errorf("rank: got %d, want %d", found.rank, test.rank)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	event := func(name, kind, reason string, at int64) *corev1.Event {
		return &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}, Type: kind, Reason: reason, Message: "two\nlines", Count: 3,
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "apps", Name: "broken"}, LastTimestamp: metav1.Unix(at, 0),
		}
	}
	c := &clients{typed: fake.NewClientset(
		pod("a-waits", corev1.PodStatus{Phase: corev1.PodPending}),
		pod("broken", corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: containers(waiting("CrashLoopBackOff", ""), crashed, 2)}),
		pod("fine", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: ready("True")}),
		event("1", corev1.EventTypeWarning, "Early", 1), event("2", corev1.EventTypeWarning, "Late", 2), event("3", corev1.EventTypeNormal, "Pulled", 3),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, Message: "full"},
		}}},
	)}
	got, err := c.summarize(t.Context(), Summary{}.suites)
	if err != nil {
		t.Fatal(err)
	}
	want := `Pods, the most likely cause first
  Pod/apps/broken: not ready (Running); container main: CrashLoopBackOff; container main: restarted 2 times, last after exit 1 Error at 00:00:00
    last lines of apps/broken/main.log:
      fake logs
    last lines of apps/broken/main.previous.log:
      fake logs
  Pod/apps/a-waits: not ready (Pending)

Nodes
  Node/n: DiskPressure is True: full

Warnings, the latest first
  1970-01-01T00:00:02Z Warning Pod/apps/broken: Late: two lines (3 times)
  1970-01-01T00:00:01Z Warning Pod/apps/broken: Early: two lines (3 times)
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// A suite leaves pods unschedulable and crashes them on purpose; they are no cause.
func TestSummaryBeginsWithWhatEndedTheRun(t *testing.T) {
	waits := pod("waits", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes"},
	}})
	waits.Namespace = "e2e-1-shop"
	warning := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-1-shop", Name: "1"}, Type: corev1.EventTypeWarning, Reason: "FailedScheduling",
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "e2e-1-shop", Name: "waits"},
	}
	summary := Summary{Namespaces: []string{"apps"}}
	for _, test := range []struct {
		name string
		own  corev1.PodStatus
		want string
	}{
		{"while the system is well", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: ready("True")}, `All 1 pods are well, but for 1 that a suite made.

Pods that a suite made, perhaps to be like that
  Pod/e2e-1-shop/waits: Unschedulable: 0/1 nodes; not ready (Pending)
`},
		{"while the system only waits", corev1.PodStatus{Phase: corev1.PodPending}, `Pods, the most likely cause first
  Pod/apps/own: not ready (Pending)

Pods that a suite made, perhaps to be like that
  Pod/e2e-1-shop/waits: Unschedulable: 0/1 nodes; not ready (Pending)
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &clients{typed: fake.NewClientset(pod("own", test.own), waits, warning)}
			got, err := c.summarize(t.Context(), summary.suites)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}

	dir := t.TempDir()
	summary.Kubeconfig, summary.Cause = filepath.Join(dir, "none"), "build/gateway: main.go:1: undefined: x"
	if err := summary.Collect(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, dir, SummaryFile), "What ended the run\n  build/gateway: main.go:1: undefined: x\n\nThe API server does not answer"; !strings.HasPrefix(got, want) {
		t.Errorf("got:\n%s\nwant it to begin with:\n%s", got, want)
	}
}

func TestHideValues(t *testing.T) {
	secret := &unstructured.Unstructured{Object: map[string]any{
		"kind": "Secret",
		"metadata": map[string]any{
			"name": "s", "annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": `{"data":{"password":"aHVudGVyMg=="}}`},
		},
		"data": map[string]any{"password": "aHVudGVyMg=="},
	}}
	hideValues(secret)
	data, err := secret.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"data":{"password":"(12 characters)"},"kind":"Secret","metadata":{"name":"s"}}` + "\n"; string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
}
