//go:build integration

package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/kubetest"
)

var cluster *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, func(cfg *rest.Config) { cluster = cfg })) }

// replica returns a book with a client and a breaker of its own, as another process
// has them.
func replica(t *testing.T, namespace string) *Book {
	t.Helper()
	return NewBook(kube.Guarded(kubetest.Client(t, cluster), kube.NewGuard(kube.OpenFor, nil)), namespace, 15*time.Second)
}

// requests returns the requests of a fingerprint.
func requests(t *testing.T, c client.Client, namespace, fingerprint string) []v1alpha1.RemediationRequest {
	t.Helper()
	list := &v1alpha1.RemediationRequestList{}
	err := c.List(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"spec.signalFingerprint": fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestConcurrentFirstReports(t *testing.T) {
	for _, c := range []struct{ replicas, fingerprints, each int }{
		{2, 1, 100}, {3, 1, 67}, {2, 50, 5}, {8, 3, 10},
	} {
		t.Run(fmt.Sprintf("%d replicas, %d fingerprints, %d reports each", c.replicas, c.fingerprints, c.each), func(t *testing.T) {
			reader := kubetest.Client(t, cluster)
			namespace := kubetest.Namespace(t, reader, nil)
			var books []*Book
			for range c.replicas {
				books = append(books, replica(t, namespace))
			}
			created := make([]atomic.Int64, c.fingerprints)
			counts := make([]sync.Map, c.fingerprints)
			var slowest atomic.Int64
			var wg sync.WaitGroup
			for f := range c.fingerprints {
				for r := range c.replicas * c.each {
					wg.Go(func() {
						start := time.Now()
						outcome, err := books[r%c.replicas].Register(t.Context(), report(fmt.Sprint("web-", f)))
						if err != nil {
							t.Errorf("got %v", err)
							return
						}
						for took := int64(time.Since(start)); took > slowest.Load(); {
							slowest.Store(took)
						}
						if outcome.Created {
							created[f].Add(1)
						}
						if _, twice := counts[f].LoadOrStore(outcome.Count, true); twice {
							t.Errorf("count %d was given twice", outcome.Count)
						}
					})
				}
			}
			wg.Wait()
			t.Logf("slowest %s", time.Duration(slowest.Load()))
			for f := range c.fingerprints {
				got := requests(t, reader, namespace, report(fmt.Sprint("web-", f)).Fingerprint)
				if len(got) != 1 || created[f].Load() != 1 {
					t.Fatalf("fingerprint %d: got %d requests, %d times created", f, len(got), created[f].Load())
				}
				if n, want := got[0].Status.Deduplication.OccurrenceCount, int64(c.replicas*c.each); n != want {
					t.Errorf("fingerprint %d: got count %d, want %d", f, n, want)
				}
				if !strings.HasSuffix(got[0].Name, "-1") {
					t.Errorf("got name %s", got[0].Name)
				}
			}
		})
	}
}

// TestNoMoreThanTheQuota applies the quota of the manifests, and is the controller that counts
// what it is about.
func TestNoMoreThanTheQuota(t *testing.T) {
	c := kubetest.Any(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	manifest, err := os.ReadFile("../../../manifests/cluster/base/quota.yaml")
	if err != nil {
		t.Fatal(err)
	}
	quota := &corev1.ResourceQuota{}
	if err := yaml.UnmarshalStrict(manifest, quota); err != nil {
		t.Fatal(err)
	}
	book := replica(t, namespace)
	known := report("known")
	if _, err := book.Register(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	quota.Namespace = namespace
	if err := c.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	refuses := func(why string, used corev1.ResourceList) {
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: used}
		if err := c.Status().Update(t.Context(), quota); err != nil {
			t.Fatal(err)
		}
		for n := 0; t.Context().Err() == nil; n++ { // the API server notices a moment later
			if _, err := book.Register(t.Context(), report(fmt.Sprint(why, n))); err != nil && strings.Contains(err.Error(), why) {
				if !errors.Is(err, ErrQuota) {
					t.Errorf("got %v", err)
				}
				return
			}
		}
	}
	refuses("status unknown", nil)
	refuses("exceeded quota", quota.Spec.Hard)
	if got, err := book.Register(t.Context(), known); err != nil || got.Created || got.Count != 2 {
		t.Errorf("what is known: got %+v, %v", got, err)
	}
}

func TestCountsWhileAControllerWrites(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	books := []*Book{replica(t, namespace), replica(t, namespace)}
	first, err := books[0].Register(t.Context(), report("web"))
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var controller, senders sync.WaitGroup
	controller.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			rr := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: first.Name}}
			patch := fmt.Sprintf(`{"status":{"overallPhase":"Analyzing","message":"step %d"}}`, i)
			if err := c.Status().Patch(context.WithoutCancel(t.Context()), rr, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
				t.Errorf("controller: %v", err)
				return
			}
		}
	})
	for i := range 60 {
		senders.Go(func() {
			if o, err := books[i%2].Register(t.Context(), report("web")); err != nil || o.Created {
				t.Errorf("got %+v, %v", o, err)
			}
		})
	}
	senders.Wait()
	close(stop)
	controller.Wait()
	got := requests(t, c, namespace, report("web").Fingerprint)
	if len(got) != 1 || got[0].Status.Deduplication.OccurrenceCount != 61 || got[0].Status.OverallPhase != v1alpha1.PhaseAnalyzing {
		t.Errorf("got %d requests, first %+v", len(got), got[0].Status)
	}
}

// What the API server keeps of the owners of single fields it goes through several times at
// every write: with the fields of the spec among them a count cost it half as much again.
func TestOwnersOfSingleFieldsAreNotKept(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	book := replica(t, namespace)
	for range 2 {
		if _, err := book.Register(t.Context(), report("web")); err != nil {
			t.Fatal(err)
		}
	}
	for _, owner := range requests(t, c, namespace, report("web").Fingerprint)[0].ManagedFields {
		var fields struct {
			Spec   map[string]any            `json:"f:spec"`
			Status map[string]map[string]any `json:"f:status"`
		}
		if err := json.Unmarshal(owner.FieldsV1.GetRawBytes(), &fields); err != nil {
			t.Fatal(err)
		}
		if len(fields.Spec) > 0 || len(fields.Status["f:deduplication"]) > 0 {
			t.Errorf("%s %q: %s", owner.Manager, owner.Subresource, owner.FieldsV1.GetRawBytes())
		}
	}
}

func TestPhasesEndToEnd(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	book := replica(t, namespace)
	for i, phase := range []v1alpha1.Phase{v1alpha1.PhaseCompleted, v1alpha1.PhaseFailed, v1alpha1.PhaseTimedOut, v1alpha1.PhaseSkipped, v1alpha1.PhaseCancelled} {
		outcome, err := book.Register(t.Context(), report("web"))
		if want := fmt.Sprintf("%s%d", Prefix(report("web").Fingerprint), i+1); err != nil || !outcome.Created || outcome.Name != want {
			t.Fatalf("before %s: got %+v, %v, want a new %s", phase, outcome, err, want)
		}
		rr := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: outcome.Name}}
		patch := fmt.Sprintf(`{"status":{"overallPhase":%q}}`, phase)
		if err := c.Status().Patch(t.Context(), rr, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALostAnswerIsRecognised(t *testing.T) {
	namespace := kubetest.Namespace(t, kubetest.Client(t, cluster), nil)
	lost := false
	losing := interceptor.NewClient(kubetest.Client(t, cluster), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			err := c.Create(ctx, obj.DeepCopyObject().(client.Object), opts...)
			if err == nil && !lost {
				lost = true
				return &url.Error{Op: "Post", URL: "https://api", Err: syscall.ECONNRESET}
			}
			return err
		},
	})
	book := NewBook(kube.Guarded(losing, kube.NewGuard(kube.OpenFor, nil)), namespace, 15*time.Second)
	outcome, err := book.Register(t.Context(), report("web"))
	if err != nil || !outcome.Created || outcome.Count != 1 || !lost {
		t.Errorf("got %+v, %v", outcome, err)
	}
	got := requests(t, kubetest.Client(t, cluster), namespace, report("web").Fingerprint)
	if len(got) != 1 || got[0].Status.Deduplication == nil || got[0].Status.Deduplication.OccurrenceCount != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestACrashBeforeTheFirstCount(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	rr, err := build(report("web"), namespace, Prefix(report("web").Fingerprint)+"1", "gone", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), rr); err != nil {
		t.Fatal(err)
	}
	outcome, err := replica(t, namespace).Register(t.Context(), report("web"))
	if err != nil || outcome.Created || outcome.Count != 2 {
		t.Errorf("got %+v, %v, want the second report", outcome, err)
	}
	got := requests(t, c, namespace, rr.Spec.SignalFingerprint)
	if len(got) != 1 || !got[0].Status.Deduplication.FirstSeenAt.Equal(&rr.Spec.ReceivedTime) {
		t.Errorf("got %+v", got)
	}
}

func TestTheDefinition(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	create := func(name string, change func(*v1alpha1.RemediationRequest)) error {
		rr, err := build(report("web"), namespace, name, "id", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		rr.Spec.ClusterID = "east"
		if change != nil {
			change(rr)
		}
		return c.Create(t.Context(), rr)
	}
	if err := create("good", nil); err != nil {
		t.Fatal(err)
	}
	t.Run("the spec is immutable", func(t *testing.T) {
		for name, patch := range map[string]string{
			"changed": `{"spec":{"severity":"low"}}`, "added": `{"spec":{"signalLabels":{"a":"b"}}}`, "removed": `{"spec":{"clusterID":null}}`,
		} {
			rr := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "good"}}
			err := c.Patch(t.Context(), rr, client.RawPatch("application/merge-patch+json", []byte(patch)))
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec is immutable") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		rr := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "good"}}
		if err := c.Patch(t.Context(), rr, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))); err != nil {
			t.Errorf("labels: got %v", err)
		}
	})
	t.Run("fields can be selected by", func(t *testing.T) {
		for field, value := range map[string]string{
			"spec.signalFingerprint": report("web").Fingerprint, "spec.signalType": "alert", "spec.severity": "critical", "spec.clusterID": "east",
		} {
			for value, want := range map[string]int{value: 1, "other": 0} {
				list := &v1alpha1.RemediationRequestList{}
				if err := c.List(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{field: value}); err != nil || len(list.Items) != want {
					t.Errorf("%s=%s: got %d, %v, want %d", field, value, len(list.Items), err, want)
				}
			}
		}
	})
	t.Run("what cannot be is refused", func(t *testing.T) {
		for name, change := range map[string]func(*v1alpha1.RemediationRequest){
			"a fingerprint in capitals": func(rr *v1alpha1.RemediationRequest) { rr.Spec.SignalFingerprint = strings.Repeat("A", 64) },
			"a short fingerprint":       func(rr *v1alpha1.RemediationRequest) { rr.Spec.SignalFingerprint = "ab" },
			"no name":                   func(rr *v1alpha1.RemediationRequest) { rr.Spec.SignalName = "" },
			"a name of 254":             func(rr *v1alpha1.RemediationRequest) { rr.Spec.SignalName = strings.Repeat("n", 254) },
			"a severity of 51":          func(rr *v1alpha1.RemediationRequest) { rr.Spec.Severity = strings.Repeat("s", 51) },
			"an unknown target type":    func(rr *v1alpha1.RemediationRequest) { rr.Spec.TargetType = "mainframe" },
			"no target":                 func(rr *v1alpha1.RemediationRequest) { rr.Spec.TargetResource = v1alpha1.TargetResource{} },
			"a source of 64":            func(rr *v1alpha1.RemediationRequest) { rr.Spec.SignalSource = strings.Repeat("s", 64) },
			"a cluster of 254":          func(rr *v1alpha1.RemediationRequest) { rr.Spec.ClusterID = strings.Repeat("c", 254) },
		} {
			if err := create("bad", change); !apierrors.IsInvalid(err) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
	t.Run("the status is a resource of its own", func(t *testing.T) {
		rr := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "good"}}
		if err := c.Patch(t.Context(), rr, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"overallPhase":"Failed"}}`))); err != nil || rr.Status.OverallPhase != "" {
			t.Errorf("got %q, %v", rr.Status.OverallPhase, err)
		}
	})
}

// TestLargePayloads holds the limit of bodies to what the API server and etcd store.
// JSON writes an angle bracket in six bytes, so a body of nothing else is refused: as
// too large, which is the sender's fault and not the API server's.
func TestLargePayloads(t *testing.T) {
	c := kubetest.Client(t, cluster)
	book := replica(t, kubetest.Namespace(t, c, nil))
	for name, c := range map[string]struct {
		filler string
		bytes  int
		stored bool
	}{
		"letters":                      {"x", 256 << 10, true},
		"quotes":                       {`\"`, 240 << 10, true},
		"angle brackets":               {"<", 256 << 10, false},
		"fewer angle brackets":         {"<", 180 << 10, false},
		"a page of markup in an alert": {"<", 64 << 10, true},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			defer func() { t.Logf("took %s", time.Since(start)) }()
			large := report("web-" + strings.ReplaceAll(name, " ", "-"))
			large.Payload = strings.Repeat(c.filler, c.bytes/len(c.filler))
			large.Labels = map[string]string{"l": strings.ReplaceAll(large.Payload, `\"`, `"`)}
			outcome, err := book.Register(t.Context(), large)
			if c.stored && (err != nil || !outcome.Created) || !c.stored && !apierrors.IsRequestEntityTooLargeError(err) {
				t.Errorf("got %+v, %v", outcome, err)
			}
		})
	}
}

// TestNamesNeverComeBack: the correlation id of audit events is the name, so that of a
// request that was deleted is not given again, however many replicas there are.
func TestNamesNeverComeBack(t *testing.T) {
	c := kubetest.Client(t, cluster)
	namespace := kubetest.Namespace(t, c, nil)
	for i := range 3 {
		books := []*Book{replica(t, namespace), replica(t, namespace)} // as after a restart
		var wg sync.WaitGroup
		var created atomic.Int64
		for n := range 20 {
			wg.Go(func() {
				outcome, err := books[n%2].Register(t.Context(), report("web"))
				if want := fmt.Sprintf("%s%d", Prefix(report("web").Fingerprint), i+1); err != nil || outcome.Name != want {
					t.Errorf("got %+v, %v, want %s", outcome, err, want)
				}
				if outcome.Created {
					created.Add(1)
				}
			})
		}
		wg.Wait()
		got := requests(t, c, namespace, report("web").Fingerprint)
		if len(got) != 1 || created.Load() != 1 || got[0].Status.Deduplication.OccurrenceCount != 20 {
			t.Fatalf("round %d: got %d requests, %d times created", i, len(got), created.Load())
		}
		if err := c.DeleteAllOf(t.Context(), &v1alpha1.RemediationRequest{}, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
	}
}
