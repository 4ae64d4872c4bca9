package coverage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"kubernaut.ai/e2e/test/infrastructure/coverage"
)

// apiServer answers as one that has just come up after a reboot: 503 at first, and then as
// one that does not know its roles yet. It holds the StatefulSet store, without pods.
type apiServer struct {
	asked   atomic.Int32
	patched []string // one request at a time
	deleted []string // of which pods, and in how many seconds
}

func (s *apiServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	answer := func(code int, body any) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(code)
		_ = json.NewEncoder(rw).Encode(body)
	}
	status := func(code int32, reason metav1.StatusReason) metav1.Status {
		return metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason}
	}
	switch asked := s.asked.Add(1); {
	case asked <= 2:
		answer(http.StatusServiceUnavailable, status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable))
		return
	case asked <= 4:
		answer(http.StatusForbidden, status(http.StatusForbidden, metav1.StatusReasonForbidden))
		return
	}
	switch {
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/statefulsets/store"):
		body, _ := io.ReadAll(r.Body)
		s.patched = append(s.patched, string(body))
		answer(http.StatusOK, appsv1.StatefulSet{
			TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
			Spec:     appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "store"}}},
		})
	case r.Method == http.MethodDelete:
		body, _ := io.ReadAll(r.Body)
		var message runtime.Unknown // client-go writes protobuf
		var options metav1.DeleteOptions
		if err := errors.Join(message.Unmarshal(bytes.TrimPrefix(body, []byte("k8s\x00"))), options.Unmarshal(message.Raw)); err != nil || options.GracePeriodSeconds == nil {
			answer(http.StatusBadRequest, status(http.StatusBadRequest, metav1.StatusReasonBadRequest))
			return
		}
		s.deleted = append(s.deleted, fmt.Sprintf("%s %s %d", r.URL.Path, r.URL.Query().Get("labelSelector"), *options.GracePeriodSeconds))
		answer(http.StatusOK, status(0, ""))
	case r.Method == http.MethodPatch:
		answer(http.StatusNotFound, status(http.StatusNotFound, metav1.StatusReasonNotFound))
	case r.URL.Query().Get("labelSelector") == "app=store":
		answer(http.StatusOK, corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}})
	default:
		answer(http.StatusOK, corev1.PodList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "store-0"}}},
		})
	}
}

// serve returns the kubeconfig of the server.
func (s *apiServer) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

var workloads = []coverage.Workload{{Kind: "Deployment", Name: "gone"}, {Kind: "StatefulSet", Name: "store"}}

func TestStopEndsStatefulSetsOnAnAPIServerThatComesUp(t *testing.T) {
	api := &apiServer{}
	var seen []string
	err := coverage.Stop(t.Context(), api.serve(t), "apps", workloads, func(pod *corev1.Pod) { seen = append(seen, pod.Name) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`{"spec":{"replicas":0}}`}; !slices.Equal(api.patched, want) {
		t.Errorf("patched the StatefulSet with %q, want %q", api.patched, want)
	}
	if want := []string{"store-0"}; !slices.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
	if len(api.deleted) > 0 {
		t.Errorf("deleted %q; the pods get the time that they ask for", api.deleted)
	}
}

func TestEndGivesPodsNoTime(t *testing.T) {
	api := &apiServer{}
	if err := coverage.End(t.Context(), api.serve(t), "apps", workloads); err != nil {
		t.Fatal(err)
	}
	if want := []string{`{"spec":{"replicas":0}}`}; !slices.Equal(api.patched, want) {
		t.Errorf("patched the StatefulSet with %q, want %q", api.patched, want)
	}
	if want := []string{"/api/v1/namespaces/apps/pods app=store 0"}; !slices.Equal(api.deleted, want) {
		t.Errorf("deleted %q, want %q", api.deleted, want)
	}
}
