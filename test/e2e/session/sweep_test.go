package session_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/session"
	"kubernaut.ai/e2e/test/e2e/target"
)

// TestSweepRemovesWhatInterruptedRunsLeft is about a kept cluster: the next run removes
// its own things only at its end.
func TestSweepRemovesWhatInterruptedRunsLeft(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	meta := func(namespace, name, run string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: namespace, Name: name}
		if run != "" {
			m.Labels = map[string]string{cluster.LabelRun: run}
		}
		return m
	}
	request := func(name, about string) *v1alpha1.RemediationRequest {
		r := &v1alpha1.RemediationRequest{ObjectMeta: meta("system", name, "")}
		r.Spec.TargetResource.Namespace = about
		return r
	}
	for alone, want := range map[string]string{
		"":     "[Namespace/e2e-now-a Namespace/e2e-old-a Namespace/system RemediationRequest/now RemediationRequest/old RemediationRequest/users ServiceAccount/mine ServiceAccount/now ServiceAccount/old]",
		"true": "[Namespace/e2e-now-a Namespace/system RemediationRequest/now RemediationRequest/users ServiceAccount/mine ServiceAccount/now]",
	} {
		api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(
			&corev1.Namespace{ObjectMeta: meta("", "system", "")},
			&corev1.Namespace{ObjectMeta: meta("", "e2e-old-a", "old")},
			&corev1.Namespace{ObjectMeta: meta("", "e2e-now-a", "now")},
			&corev1.ServiceAccount{ObjectMeta: meta("system", "old", "old")},
			&corev1.ServiceAccount{ObjectMeta: meta("system", "now", "now")},
			&corev1.ServiceAccount{ObjectMeta: meta("system", "mine", "")},
			request("old", "e2e-old-a"), request("now", "e2e-now-a"), request("users", "shop"),
		).Build()
		where := &target.Target{Namespace: "system"}
		world := &cluster.Cluster{Target: where, API: api}
		if err := (&session.Session{Target: where, Run: "now"}).Sweep(t.Context(), world, func(string) string { return alone }); err != nil {
			t.Fatal(err)
		}
		var left []string
		for kind, list := range map[string]client.ObjectList{
			"Namespace": &corev1.NamespaceList{}, "ServiceAccount": &corev1.ServiceAccountList{}, "RemediationRequest": &v1alpha1.RemediationRequestList{},
		} {
			if err := api.List(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			switch list := list.(type) {
			case *corev1.NamespaceList:
				for _, item := range list.Items {
					left = append(left, kind+"/"+item.Name)
				}
			case *corev1.ServiceAccountList:
				for _, item := range list.Items {
					left = append(left, kind+"/"+item.Name)
				}
			case *v1alpha1.RemediationRequestList:
				for _, item := range list.Items {
					left = append(left, kind+"/"+item.Name)
				}
			}
		}
		slices.Sort(left)
		if got := fmt.Sprint(left); got != want {
			t.Errorf("alone %q: left are %s, want %s", alone, got, want)
		}
	}
}
