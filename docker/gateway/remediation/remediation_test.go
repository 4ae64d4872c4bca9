package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
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
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
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
	register("-1", 1, 1)
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
	results := NewBook(k, "kubernaut-system", time.Minute).enter(t.Context(), report("web").Fingerprint, slices.Repeat([]Report{report("web")}, 5))
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
