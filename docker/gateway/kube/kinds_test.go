package kube

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// lists serves the kinds of an API by its path, and counts the calls.
func lists(t *testing.T, calls *atomic.Int64, apis map[string][]metav1.APIResource) rest.Interface {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		resources, found := apis[r.URL.Path]
		if !found {
			status := apierrors.NewNotFound(schema.GroupResource{}, "y").Status()
			status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(status)
			return
		}
		_ = json.NewEncoder(w).Encode(metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, APIResources: resources})
	}))
	t.Cleanup(server.Close)
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client.RESTClient()
}

func TestKindsAreFoundAndRemembered(t *testing.T) {
	var calls atomic.Int64
	kinds := NewKinds(lists(t, &calls, map[string][]metav1.APIResource{
		"/apis/argoproj.io/v1alpha1": {
			{Name: "rollouts/status", Kind: "Rollout", Namespaced: false}, {Name: "rollouts", Kind: "Rollout", Namespaced: true},
			{Name: "clusterthings", Kind: "ClusterThing"},
		},
		"/api/v1": {{Name: "configmaps", Kind: "ConfigMap", Namespaced: true}},
	}), nil, NewGuard(OpenFor, nil))
	for range 3 { // the second and third time from memory, those that are not there too
		for _, c := range []struct {
			apiVersion, kind, plural string
			namespaced               bool
		}{
			{"argoproj.io/v1alpha1", "Rollout", "rollouts", true}, {"argoproj.io/v1alpha1", "ClusterThing", "clusterthings", false},
			{"v1", "ConfigMap", "configmaps", true}, {"argoproj.io/v1alpha1", "Dragon", "", false}, {"example.org/v1", "Dragon", "", false},
		} {
			kind, found, err := kinds.Find(t.Context(), c.apiVersion, c.kind)
			if err != nil || found != (c.plural != "") || kind.Plural != c.plural || kind.Namespaced != c.namespaced {
				t.Errorf("%s of %s: got %+v, %t, %v", c.kind, c.apiVersion, kind, found, err)
			}
		}
		if calls.Load() != 5 {
			t.Errorf("got %d calls", calls.Load())
		}
	}
}

func TestKindsTellTrouble(t *testing.T) {
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := NewKinds(client.RESTClient(), nil, NewGuard(OpenFor, nil)).Find(t.Context(), "x.io/v1", "Thing"); found || err == nil {
		t.Errorf("got %t, %v", found, err)
	}
}
