package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/kube/podtest"
)

var waiting, terminated, running, pod, container = podtest.Waiting, podtest.Terminated, podtest.Running, podtest.Pod, podtest.Container

func TestPodSymptoms(t *testing.T) {
	none := corev1.ContainerState{}
	tests := []struct {
		name     string
		status   corev1.PodStatus
		policy   corev1.RestartPolicy
		want     string // empty: no symptom
		patience time.Duration
		held     bool
	}{
		{"ready", corev1.PodStatus{
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: container(running, terminated(1), 7).ContainerStatuses,
		}, "", "", 0, false},
		{"done", corev1.PodStatus{Phase: corev1.PodSucceeded}, "", "", 0, false},
		{"just made", corev1.PodStatus{}, "", "Pod web-1: not seen by a node", Never, false},
		{"being created", container(waiting("ContainerCreating"), none, 0), "", "Pod web-1: ContainerCreating", Never, false},
		{"running, not ready", container(running, none, 0), "", "Pod web-1: container web is running, not ready", Never, false},
		{"image not on the node", container(waiting("ErrImageNeverPull"), none, 0), "", "Pod web-1: ErrImageNeverPull", ImagePatience, true},
		{"image pull", container(waiting("ImagePullBackOff"), none, 0), "", "Pod web-1: ImagePullBackOff", ImagePatience, true},
		{"image name", container(waiting("InvalidImageName"), none, 0), "", "Pod web-1: InvalidImageName", ImagePatience, true},
		{"secret missing", container(waiting("CreateContainerConfigError"), none, 0), "", "Pod web-1: CreateContainerConfigError", ImagePatience, true},
		{"first crash", container(terminated(1), none, 0), "", "Pod web-1: Error: exit 1", CrashPatience, true},
		{"up again after a crash", container(running, terminated(1), 1), "", "Pod web-1: not ready after 1 restarts: exit 1", Never, true},
		{"second crash", container(waiting(crashLoop), terminated(1), 1), "", "Pod web-1: CrashLoopBackOff: exit 1", CrashPatience, true},
		{"third crash", container(waiting(crashLoop), terminated(2), 2), "", "Pod web-1: CrashLoopBackOff: exit 2", CrashPatience, true},
		{"third crash, seen at once", container(terminated(2), terminated(2), 2), "", "Pod web-1: Error: exit 2", CrashPatience, true},
		{"up again after many crashes", container(running, terminated(1), 9), "", "Pod web-1: not ready after 9 restarts: exit 1", Never, true},
		{"started anew by a rebooted node", container(waiting("ContainerCreating"), terminated(255), 3), "", "Pod web-1: ContainerCreating: exit 255", CrashPatience, true},
		{"no such program", container(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: "exec: not found"}}, none, 0), "",
			"Pod web-1: StartError: exit 128: exec: not found", ImagePatience, true},
		{"out of memory", container(waiting(crashLoop), corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}, 2), "",
			"Pod web-1: CrashLoopBackOff: exit 137 (OOMKilled)", CrashPatience, true},
		{"ends again and again without an error", container(waiting(crashLoop), terminated(0), 2), "", "Pod web-1: CrashLoopBackOff: exit 0", CrashPatience, true},
		{"failed once, left to its Job", container(terminated(1), none, 0), corev1.RestartPolicyNever, "Pod web-1: Error: exit 1", Never, false},
		{"unschedulable", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes are available"},
		}}, "", "Pod web-1: Unschedulable: 0/1 nodes are available", SchedulePatience, false},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on disk"}, "", "Pod web-1: Evicted: low on disk", Never, false},
		{"init container crashes", corev1.PodStatus{Phase: corev1.PodPending,
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "prepare", State: waiting(crashLoop), LastTerminationState: terminated(3), RestartCount: 2}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "web", State: waiting("PodInitializing")}},
		}, "", "Pod web-1: CrashLoopBackOff: exit 3", CrashPatience, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := pod(test.status)
			if test.policy != "" {
				pod.Spec.RestartPolicy = test.policy
			}
			found := PodSymptoms(pod)
			if test.want == "" {
				if len(found) != 0 {
					t.Errorf("got %v, want no symptom", found)
				}
				return
			}
			if len(found) == 0 {
				t.Fatalf("got no symptom, want %s", test.want)
			}
			if got := found[0].String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if found[0].Patience != test.patience {
				t.Errorf("patience: got %v, want %v", found[0].Patience, test.patience)
			}
			if found[0].Held != test.held {
				t.Errorf("held back: got %v, want %v", found[0].Held, test.held)
			}
		})
	}

	t.Run("being deleted", func(t *testing.T) {
		pod := pod(container(waiting(crashLoop), terminated(1), 9))
		pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		if found := PodSymptoms(pod); len(found) != 0 {
			t.Errorf("got %v, want no symptom", found)
		}
	})
}
