package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

// report returns a report about a deployment of that name.
func report(name string) Report {
	workload := resource.Ref{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "demo", Name: name}
	return Report{
		Signal: signal.Signal{
			Source: signal.Prometheus, Name: "HighMemory", Severity: "critical", Namespace: "demo",
			Target:  resource.Ref{APIVersion: "v1", Kind: "Pod", Namespace: "demo", Name: name + "-1"},
			Firing:  time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC),
			Labels:  map[string]string{"alertname": "HighMemory"},
			Payload: `{"alerts":[]}`, Received: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		},
		Workload:    workload,
		Fingerprint: signal.Fingerprint("", workload),
	}
}

// cluster with these requests. The fake's field index stands for the definition's
// selectable field; that the two agree is the integration test's business.
func fakeClient(t *testing.T, requests ...*v1alpha1.RemediationRequest) *fake.ClientBuilder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.RemediationRequest{}).
		WithIndex(&v1alpha1.RemediationRequest{}, "spec.signalFingerprint", func(o client.Object) []string {
			return []string{o.(*v1alpha1.RemediationRequest).Spec.SignalFingerprint}
		})
	for _, rr := range requests {
		builder.WithObjects(rr)
	}
	return builder
}

// existing returns a request of report("web") with that ordinal.
func existing(t *testing.T, n int, status v1alpha1.RemediationRequestStatus) *v1alpha1.RemediationRequest {
	t.Helper()
	rr, err := build(report("web"), "kubernaut-system", fmt.Sprintf("%s%d", Prefix(report("web").Fingerprint), n), "id", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	rr.Status = status
	return rr
}

func TestDeduplicationRules(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *v1alpha1.RoutingStatus {
		return &v1alpha1.RoutingStatus{NextAllowedExecution: &metav1.Time{Time: now.Add(d)}}
	}
	ended := func(outcome v1alpha1.Outcome) *v1alpha1.CompletionStatus {
		return &v1alpha1.CompletionStatus{Outcome: outcome}
	}
	type status = v1alpha1.RemediationRequestStatus
	for name, c := range map[string]struct {
		status    status
		duplicate bool
	}{
		"no phase":            {status{}, true},
		"Pending":             {status{OverallPhase: "Pending"}, true},
		"Processing":          {status{OverallPhase: "Processing"}, true},
		"Analyzing":           {status{OverallPhase: "Analyzing"}, true},
		"AwaitingApproval":    {status{OverallPhase: "AwaitingApproval"}, true},
		"Executing":           {status{OverallPhase: "Executing"}, true},
		"Verifying":           {status{OverallPhase: "Verifying"}, true},
		"Blocked":             {status{OverallPhase: "Blocked"}, true},
		"an unknown phase":    {status{OverallPhase: "Pondering"}, true},
		"Completed":           {status{OverallPhase: "Completed"}, false},
		"Failed":              {status{OverallPhase: "Failed"}, false},
		"TimedOut":            {status{OverallPhase: "TimedOut"}, false},
		"Skipped":             {status{OverallPhase: "Skipped"}, false},
		"Cancelled":           {status{OverallPhase: "Cancelled"}, false},
		"remediated":          {status{OverallPhase: "Completed", CompletionStatus: ended("Remediated")}, false},
		"for a person":        {status{OverallPhase: "Completed", CompletionStatus: ended("ManualReviewRequired")}, true},
		"failed for a person": {status{OverallPhase: "Failed", CompletionStatus: ended("ManualReviewRequired")}, true},
		"not yet again":       {status{OverallPhase: "Failed", RoutingStatus: at(time.Second)}, true},
		"again from now on":   {status{OverallPhase: "Failed", RoutingStatus: at(0)}, false},
		"again for long":      {status{OverallPhase: "Failed", RoutingStatus: at(-time.Hour)}, false},
		"held without a time": {status{OverallPhase: "Failed", RoutingStatus: &v1alpha1.RoutingStatus{BlockReason: "x"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.status.Deduplication = &v1alpha1.DeduplicationStatus{
				FirstSeenAt: metav1.NewTime(now.Add(-time.Hour)), LastSeenAt: metav1.NewTime(now.Add(-time.Minute)), OccurrenceCount: 4,
			}
			k := fakeClient(t, existing(t, 1, c.status)).Build()
			book := NewBook(k, "kubernaut-system", time.Minute)
			book.now = func() time.Time { return now }
			outcome, err := book.Register(t.Context(), report("web"))
			if err != nil || outcome.Created == c.duplicate {
				t.Fatalf("got %+v, %v", outcome, err)
			}
			if !c.duplicate {
				if !strings.HasSuffix(outcome.Name, "-2") || outcome.Count != 1 {
					t.Errorf("got %+v", outcome)
				}
				return
			}
			rr := &v1alpha1.RemediationRequest{}
			if err := k.Get(t.Context(), client.ObjectKey{Namespace: outcome.Namespace, Name: outcome.Name}, rr); err != nil {
				t.Fatal(err)
			}
			seen := rr.Status.Deduplication
			if outcome.Count != 5 || seen.OccurrenceCount != 5 || !seen.LastSeenAt.Time.Equal(now) || !seen.FirstSeenAt.Time.Equal(now.Add(-time.Hour)) {
				t.Errorf("got %+v, stored %+v", outcome, seen)
			}
			if rr.Status.OverallPhase != c.status.OverallPhase {
				t.Errorf("phase became %s", rr.Status.OverallPhase)
			}
		})
	}
}

func TestNewRequest(t *testing.T) {
	k := fakeClient(t).Build()
	r := report("web")
	r.Cluster = "east"
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), r)
	if err != nil || !outcome.Created || outcome.Name != "rr-"+r.Fingerprint[:12]+"-1" || outcome.Namespace != "kubernaut-system" {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	rr := &v1alpha1.RemediationRequest{}
	if err := k.Get(t.Context(), client.ObjectKey{Namespace: outcome.Namespace, Name: outcome.Name}, rr); err != nil {
		t.Fatal(err)
	}
	if rr.Labels["app.kubernetes.io/managed-by"] != "gateway-service" || rr.Labels["app.kubernetes.io/component"] != "remediation" || rr.Annotations[createdAt] == "" {
		t.Errorf("got labels %v, annotations %v", rr.Labels, rr.Annotations)
	}
	s := rr.Spec
	if s.SignalFingerprint != r.Fingerprint || s.SignalName != "HighMemory" || s.Severity != "critical" || s.SignalType != "alert" ||
		s.SignalSource != "prometheus" || s.TargetType != "kubernetes" || s.ClusterID != "east" || s.OriginalPayload != r.Payload ||
		!s.FiringTime.Time.Equal(r.Firing) || !s.ReceivedTime.Time.Equal(r.Received) || s.SignalLabels["alertname"] != "HighMemory" {
		t.Errorf("got %+v", s)
	}
	if want := (v1alpha1.TargetResource{Kind: "Pod", Name: "web-1", Namespace: "demo", APIVersion: "v1"}); s.TargetResource != want {
		t.Errorf("got target %+v", s.TargetResource)
	}
	if want := `{"namespace":"demo","owner":{"apiVersion":"apps/v1","kind":"Deployment","name":"web","namespace":"demo"},"resource":{"apiVersion":"v1","kind":"Pod","name":"web-1","namespace":"demo"}}`; s.ProviderData != want {
		t.Errorf("got provider data %s", s.ProviderData)
	}
	if seen := rr.Status.Deduplication; seen == nil || seen.OccurrenceCount != 1 || !seen.FirstSeenAt.Time.Equal(r.Received) {
		t.Errorf("got %+v", seen)
	}
}

func TestOrdinals(t *testing.T) {
	done := v1alpha1.RemediationRequestStatus{OverallPhase: v1alpha1.PhaseCompleted}
	foreign := existing(t, 9, done)
	foreign.Name = "by-hand"
	for name, c := range map[string]struct {
		present []*v1alpha1.RemediationRequest
		want    string
	}{
		"the first":                 {nil, "-1"},
		"after one":                 {[]*v1alpha1.RemediationRequest{existing(t, 1, done)}, "-2"},
		"numbers, not texts":        {[]*v1alpha1.RemediationRequest{existing(t, 9, done), existing(t, 10, done)}, "-11"},
		"the first was deleted":     {[]*v1alpha1.RemediationRequest{existing(t, 2, done)}, "-3"},
		"one of another's making":   {[]*v1alpha1.RemediationRequest{foreign}, "-1"},
		"both kinds":                {[]*v1alpha1.RemediationRequest{foreign, existing(t, 1, done)}, "-2"},
		"one that is being deleted": {[]*v1alpha1.RemediationRequest{deleting(existing(t, 1, v1alpha1.RemediationRequestStatus{}))}, "-2"},
	} {
		t.Run(name, func(t *testing.T) {
			outcome, err := NewBook(fakeClient(t, c.present...).Build(), "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
			if err != nil || !outcome.Created || !strings.HasSuffix(outcome.Name, c.want) {
				t.Errorf("got %+v, %v, want %s", outcome, err, c.want)
			}
		})
	}
}

// deleting marks a request as being deleted.
func deleting(rr *v1alpha1.RemediationRequest) *v1alpha1.RemediationRequest {
	rr.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	rr.Finalizers = []string{"test/hold"}
	return rr
}

func TestTheNewestOpenRequestCounts(t *testing.T) {
	k := fakeClient(t, existing(t, 2, v1alpha1.RemediationRequestStatus{}), existing(t, 10, v1alpha1.RemediationRequestStatus{})).Build()
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
	if err != nil || !strings.HasSuffix(outcome.Name, "-10") {
		t.Errorf("got %+v, %v", outcome, err)
	}
}

func TestANameThatAnotherFingerprintHas(t *testing.T) {
	other := existing(t, 1, v1alpha1.RemediationRequestStatus{})
	other.Spec.SignalFingerprint = other.Spec.SignalFingerprint[:12] + strings.Repeat("0", 52)
	outcome, err := NewBook(fakeClient(t, other).Build(), "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
	if err != nil || !outcome.Created || !strings.HasSuffix(outcome.Name, "-2") {
		t.Errorf("got %+v, %v", outcome, err)
	}
}

func TestAnotherReplicaWasFaster(t *testing.T) {
	raced := false
	k := fakeClient(t).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			if !raced {
				raced = true
				if err := c.Create(ctx, existing(t, 1, v1alpha1.RemediationRequestStatus{})); err != nil {
					return err
				}
			}
			return c.Create(ctx, obj, opts...)
		},
	}).Build()
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
	if err != nil || outcome.Created || outcome.Count != 2 {
		t.Errorf("got %+v, %v, want the second report", outcome, err)
	}
}

func TestConflictsAreRunAgain(t *testing.T) {
	conflicts := 3
	k := fakeClient(t, existing(t, 1, v1alpha1.RemediationRequestStatus{})).WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			if conflicts--; conflicts >= 0 {
				return apierrors.NewConflict(schema.GroupResource{}, obj.GetName(), errors.New("changed"))
			}
			return c.SubResource(name).Patch(ctx, obj, patch, opts...)
		},
	}).Build()
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
	if err != nil || outcome.Count != 2 || conflicts != -1 {
		t.Errorf("got %+v, %v, %d conflicts left", outcome, err, conflicts)
	}
}

func TestWhatIsRememberedIsProved(t *testing.T) {
	lists := 0
	k := fakeClient(t).WithInterceptorFuncs(interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			lists++
			return c.List(ctx, list, opts...)
		},
	}).Build()
	book := NewBook(k, "kubernaut-system", time.Minute)
	register := func(want string, count int64, looked int) {
		t.Helper()
		lists = 0
		outcome, err := book.Register(t.Context(), report("web"))
		if err != nil || !strings.HasSuffix(outcome.Name, want) || outcome.Count != count || lists != looked {
			t.Errorf("got %+v, %v after %d lists, want %s, count %d after %d", outcome, err, lists, want, count, looked)
		}
	}
	register("-1", 1, 1)
	register("-1", 2, 0)
	register("-1", 3, 0)

	rr := &v1alpha1.RemediationRequest{}
	key := client.ObjectKey{Namespace: "kubernaut-system", Name: Prefix(report("web").Fingerprint) + "1"}
	if err := k.Get(t.Context(), key, rr); err != nil {
		t.Fatal(err)
	}
	rr.Status.Message = "a controller was here"
	if err := k.Status().Update(t.Context(), rr); err != nil {
		t.Fatal(err)
	}
	register("-1", 4, 1)

	if err := k.Get(t.Context(), key, rr); err != nil {
		t.Fatal(err)
	}
	rr.Status.OverallPhase = v1alpha1.PhaseCompleted
	if err := k.Status().Update(t.Context(), rr); err != nil {
		t.Fatal(err)
	}
	register("-2", 1, 1)
	register("-2", 2, 0)

	if err := k.DeleteAllOf(t.Context(), rr, client.InNamespace("kubernaut-system")); err != nil {
		t.Fatal(err)
	}
	register("-3", 1, 2) // the names of those that were deleted are not given again
}

func TestWhatIsRememberedMayHoldNoLonger(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := fakeClient(t, existing(t, 1, v1alpha1.RemediationRequestStatus{
		OverallPhase: v1alpha1.PhaseFailed, RoutingStatus: &v1alpha1.RoutingStatus{NextAllowedExecution: &metav1.Time{Time: now.Add(time.Minute)}},
	})).Build()
	book := NewBook(k, "kubernaut-system", time.Minute)
	book.now = func() time.Time { return now }
	for i, want := range []string{"-1", "-1", "-2"} {
		outcome, err := book.Register(t.Context(), report("web"))
		if err != nil || !strings.HasSuffix(outcome.Name, want) {
			t.Errorf("%d: got %+v, %v, want %s", i, outcome, err, want)
		}
		now = now.Add(40 * time.Second)
	}
}

func TestReportsThatCameTogether(t *testing.T) {
	k := fakeClient(t).Build()
	var settled []string
	r := report("web")
	r.Settled = func(o Outcome, err error) { settled = append(settled, fmt.Sprintf("%d%v", o.Count, err)) }
	results := NewBook(k, "kubernaut-system", time.Minute).enter(t.Context(), r.Fingerprint, slices.Repeat([]Report{r}, 5))
	if got := strings.Join(settled, " "); got != "1<nil> 2<nil> 3<nil> 4<nil> 5<nil>" {
		t.Errorf("settled: got %s", got)
	}
	for i, result := range results {
		if result.Err != nil || result.Value.Created != (i == 0) || result.Value.Count != int64(i+1) {
			t.Errorf("report %d: got %+v, %v", i, result.Value, result.Err)
		}
	}
	if len(results) != 5 {
		t.Errorf("got %d results", len(results))
	}
}

func TestTheFirstReportIsSafeWhenTheCountFails(t *testing.T) {
	k := fakeClient(t).WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no"))
		},
	}).Build()
	results := NewBook(k, "kubernaut-system", time.Minute).enter(t.Context(), report("web").Fingerprint, slices.Repeat([]Report{report("web")}, 2))
	if results[0].Err != nil || !results[0].Value.Created {
		t.Errorf("the first: got %+v", results[0])
	}
	if !apierrors.IsForbidden(results[1].Err) {
		t.Errorf("the second: got %+v, want it not to be accepted", results[1])
	}
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("alone"))
	if err != nil || !outcome.Created {
		t.Errorf("alone: got %+v, %v", outcome, err)
	}
}

// cut is what client-go returns when a connection breaks.
var cut = &url.Error{Op: "Patch", URL: "https://api", Err: io.ErrUnexpectedEOF}

// TestALostAnswerCountsNobodyTwice: a status write that was done, but not answered, is
// recognised when it is made again, also after another Gateway has written.
func TestALostAnswerCountsNobodyTwice(t *testing.T) {
	for name, others := range map[string]int{"alone": 0, "beside another": 3} {
		t.Run(name, func(t *testing.T) {
			lose := true
			var other *Book
			k := fakeClient(t, existing(t, 1, v1alpha1.RemediationRequestStatus{})).WithInterceptorFuncs(interceptor.Funcs{
				SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
					err := c.SubResource(name).Patch(ctx, obj, patch, opts...)
					if lose && err == nil {
						lose = false
						for range others {
							if _, err := other.Register(t.Context(), report("web")); err != nil {
								t.Error(err)
							}
						}
						return cut
					}
					return err
				},
			}).Build()
			other = NewBook(k, "kubernaut-system", time.Minute)
			guarded := kube.Guarded(k, kube.NewGuard(kube.OpenFor, nil))
			outcome, err := NewBook(guarded, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
			if err != nil || outcome.Count != 2 || lose {
				t.Errorf("got %+v, %v", outcome, err)
			}
			rr := stored(t, k, outcome.Name)
			if n := rr.Status.Deduplication.OccurrenceCount; n != int64(2+others) {
				t.Errorf("got count %d, want %d", n, 2+others)
			}
		})
	}
}

func TestTheFirstCountIsWrittenOnceTheAPIServerAnswers(t *testing.T) {
	unanswered := 2
	k := fakeClient(t).WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			if unanswered--; unanswered >= 0 {
				return cut
			}
			return c.SubResource(name).Patch(ctx, obj, patch, opts...)
		},
	}).Build()
	outcome, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
	if err != nil || !outcome.Created {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	if seen := stored(t, k, outcome.Name).Status.Deduplication; seen == nil || seen.OccurrenceCount != 1 {
		t.Errorf("got %+v, want a count of 1", seen)
	}
}

// stored reads a request.
func stored(t *testing.T, k client.Client, name string) *v1alpha1.RemediationRequest {
	t.Helper()
	rr := &v1alpha1.RemediationRequest{}
	if err := k.Get(t.Context(), client.ObjectKey{Namespace: "kubernaut-system", Name: name}, rr); err != nil {
		t.Fatal(err)
	}
	return rr
}

// TestTheTruthOutlivesTheSender: whoever waits, what was stored is told as stored, and
// what was not as not stored, also when the API server answers too late.
func TestTheTruthOutlivesTheSender(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		for _, verb := range []string{"create", "count"} {
			t.Run(verb+" "+name, func(t *testing.T) {
				var requests []*v1alpha1.RemediationRequest
				if verb == "count" {
					requests = append(requests, existing(t, 1, v1alpha1.RemediationRequestStatus{}))
				}
				var writes int
				// late does a write whose answer comes only when nobody waits any more. The
				// cluster refuses what was not done when it is asked again.
				late := func(ctx context.Context, write func() error) error {
					if writes++; writes > 1 {
						if !done {
							return apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no"))
						}
						return write()
					}
					if done {
						if err := write(); err != nil {
							return err
						}
					}
					<-ctx.Done()
					return ctx.Err()
				}
				k := fakeClient(t, requests...).WithInterceptorFuncs(interceptor.Funcs{
					Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
						if _, ok := obj.(*v1alpha1.RemediationRequest); !ok {
							return c.Create(ctx, obj, opts...)
						}
						return late(ctx, func() error { return c.Create(ctx, obj, opts...) })
					},
					SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
						if verb == "create" {
							return c.SubResource(name).Patch(ctx, obj, patch, opts...)
						}
						return late(ctx, func() error { return c.SubResource(name).Patch(ctx, obj, patch, opts...) })
					},
				}).Build()
				book := NewBook(k, "kubernaut-system", 50*time.Millisecond)
				type end struct {
					Outcome
					err error
				}
				settled := make(chan end, 2)
				r := report("web")
				r.Settled = func(o Outcome, err error) { settled <- end{o, err} }
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if _, err := book.Register(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v", err)
				}
				if err := book.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				got := <-settled
				if (got.err == nil) != done || len(settled) != 0 {
					t.Fatalf("got %+v, want done: %t", got, done)
				}
				want := int64(1)
				if verb == "count" && done {
					want = 2
				}
				if done && (got.Created != (verb == "create") || got.Count != want) {
					t.Errorf("got %+v", got)
				}
				list := &v1alpha1.RemediationRequestList{}
				if err := k.List(t.Context(), list); err != nil {
					t.Fatal(err)
				}
				if n := len(list.Items); (n == 1) != (done || verb == "count") {
					t.Errorf("got %d requests", n)
				} else if n == 1 && deduplication(&list.Items[0]).OccurrenceCount != want {
					t.Errorf("got %+v, want count %d", list.Items[0].Status.Deduplication, want)
				}
			})
		}
	}
}

func TestWhatTheClusterRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		may     bool
		refused bool
	}{
		"a policy":             {apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("denied")), true, true},
		"a missing permission": {apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("cannot create")), false, false},
		"a webhook":            {&apierrors.StatusError{ErrStatus: metav1.Status{Code: 418}}, false, true},
		"no definition":        {apierrors.NewNotFound(schema.GroupResource{}, "x"), true, false},
		"its own trouble":      {apierrors.NewInternalError(errors.New("etcd")), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := fakeClient(t).WithInterceptorFuncs(interceptor.Funcs{
				Create: func(_ context.Context, _ client.WithWatch, obj client.Object, _ ...client.CreateOption) error {
					if review, ok := obj.(*authorizationv1.SelfSubjectAccessReview); ok {
						review.Status.Allowed = c.may
						return nil
					}
					return c.err
				},
			}).Build()
			_, err := NewBook(k, "kubernaut-system", time.Minute).Register(t.Context(), report("web"))
			var refused *RefusedError
			if !errors.Is(err, c.err) || errors.As(err, &refused) != c.refused {
				t.Errorf("got %v, want refused: %t", err, c.refused)
			}
		})
	}
}

func TestWhatIsRememberedIsSmall(t *testing.T) {
	rr := existing(t, 1, v1alpha1.RemediationRequestStatus{
		OverallPhase: v1alpha1.PhaseFailed, Message: strings.Repeat("x", 1<<15),
		Conditions:       []metav1.Condition{{Message: strings.Repeat("x", 1<<15)}},
		CompletionStatus: &v1alpha1.CompletionStatus{Outcome: v1alpha1.OutcomeManualReviewRequired},
		RoutingStatus:    &v1alpha1.RoutingStatus{BlockReason: strings.Repeat("x", 1<<15)},
	})
	rr.Spec.OriginalPayload = strings.Repeat("x", 1<<15)
	book := NewBook(fakeClient(t).Build(), "kubernaut-system", time.Minute)
	book.remember(rr)
	known, _ := book.known.Get(rr.Spec.SignalFingerprint)
	if wire, err := json.Marshal(known); err != nil || len(wire) > 1000 || !holds(known, time.Now()) {
		t.Errorf("got %d bytes, %v", len(wire), err)
	}
}

// TestNobodyWaitsBehindAWriteThatIsNotAnswered: while the API server is away, whoever comes
// is told so, and the write that is in doubt is settled once it is back.
func TestNobodyWaitsBehindAWriteThatIsNotAnswered(t *testing.T) {
	var away atomic.Bool
	var once sync.Once
	down := func(call func() error) error {
		if away.Load() {
			return &url.Error{Op: "Get", URL: "https://api", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
		}
		return call()
	}
	k := fakeClient(t, existing(t, 1, v1alpha1.RemediationRequestStatus{})).WithInterceptorFuncs(interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return down(func() error { return c.List(ctx, list, opts...) })
		},
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			return down(func() error { return c.Get(ctx, key, obj, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return down(func() error {
				err := c.SubResource(name).Patch(ctx, obj, patch, opts...)
				once.Do(func() { // it goes in the middle of the write
					away.Store(true)
					err = cut
				})
				return err
			})
		},
	}).Build()
	book := NewBook(kube.Guarded(k, kube.NewGuard(kube.OpenFor, nil)), "kubernaut-system", time.Minute)
	told := make(chan error, 10)
	r := report("web")
	r.Settled = func(_ Outcome, err error) { told <- err }
	start := time.Now()
	for i := range 3 {
		var unavailable *kube.UnavailableError
		if _, err := book.Register(t.Context(), r); !errors.As(err, &unavailable) {
			t.Errorf("report %d: got %v", i, err)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	away.Store(false)
	if err := book.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := deduplication(stored(t, k, Prefix(r.Fingerprint)+"1")).OccurrenceCount; n != 2 {
		t.Errorf("got count %d, want 2", n)
	}
	stored, not := 0, 0
	for range len(told) {
		if err := <-told; err == nil {
			stored++
		} else {
			not++
		}
	}
	if stored != 1 || not != 2 {
		t.Errorf("told of %d stored and %d not, want 1 and 2", stored, not)
	}
}
