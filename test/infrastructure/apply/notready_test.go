package apply

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

func TestNotReadyErrorIsComplete(t *testing.T) {
	event := func(name, kind, object, reason string, at int64) *corev1.Event {
		return &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}, Type: corev1.EventTypeWarning,
			InvolvedObject: corev1.ObjectReference{Kind: kind, Name: object}, Reason: reason, Message: "why\nit is so",
			LastTimestamp: metav1.Time{Time: time.Unix(at, 0)},
		}
	}
	a := &Applier{client: fake.NewClientset(
		event("a", "Pod", "web-1", "Late", 2),
		event("b", "ReplicaSet", "web-7d9f", "Early", 1),
		event("c", "Pod", "stranger", "Unrelated", 3),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
			{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, Message: "kubelet has disk pressure"},
		}}},
	)}
	web := Ref{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Namespace: "apps", Name: "web"}
	service := Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"), Namespace: "apps", Name: "web"}
	findings := []finding{
		{object: service, reason: "no ready address"},
		{object: web, symptoms: kube.PodSymptoms(pod(container(waiting(crashLoop), terminated(1), 2)))},
	}

	err := a.notReady(t.Context(), findings, 12400*time.Millisecond)
	want := `Deployment/apps/web: not ready after 12s: Pod web-1: CrashLoopBackOff: exit 1: fake logs
    log of web-1/web:
      fake logs
    event: ReplicaSet/web-7d9f: Early: why it is so
    event: Pod/web-1: Late: why it is so
Service/apps/web: not ready after 12s: no ready address
Node/node-1: DiskPressure is True: kubelet has disk pressure`
	if err.Error() != want {
		t.Errorf("got:\n%s\nwant:\n%s", err, want)
	}

	t.Run("wraps what ended the wait and explains all the same", func(t *testing.T) {
		cause := errors.New("deploying took 2m0s")
		ctx, cancel := context.WithDeadlineCause(t.Context(), time.Unix(0, 0), cause)
		defer cancel()
		err := a.notReady(ctx, findings, time.Minute)
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "fake logs") || !strings.HasSuffix(err.Error(), "the wait ended: deploying took 2m0s") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("asks the cluster nothing when it was cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		client := fake.NewClientset()
		err := (&Applier{client: client}).notReady(ctx, findings, time.Second)
		if !errors.Is(err, context.Canceled) || len(client.Actions()) != 0 {
			t.Errorf("got %v after %d requests, want the cancellation after none", err, len(client.Actions()))
		}
	})
}
