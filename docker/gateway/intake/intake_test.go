package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kubernaut.ai/e2e/docker/gateway/audit"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/scope"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

var (
	now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pod = resource.Ref{APIVersion: "v1", Kind: "Pod", Namespace: "demo", Name: "web-1"}
	web = resource.Ref{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "demo", Name: "web"}
)

// parts are the collaborators of an Intake as functions, and what they were told.
type parts struct {
	resolve  func() (owner.Lineage, error)
	check    func() (*scope.Rejection, error)
	register func() (remediation.Outcome, error)

	remembers bool // the lineage, unless it is asked for afresh
	report    remediation.Report

	mu     sync.Mutex
	events []audit.Event
}

func (p *parts) Resolve(_ context.Context, _ resource.Ref, fresh bool) (owner.Lineage, bool, error) {
	lineage, err := p.resolve()
	return lineage, p.remembers && !fresh, err
}

func (p *parts) Check(context.Context, owner.Lineage) (*scope.Rejection, error) { return p.check() }

func (p *parts) Register(_ context.Context, report remediation.Report) (remediation.Outcome, error) {
	p.report = report
	outcome, err := p.register()
	report.Settled(outcome, err)
	return outcome, err
}

func (p *parts) Record(events ...audit.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, events...)
}

// well is a world in which everything succeeds.
func well() *parts {
	return &parts{
		resolve: func() (owner.Lineage, error) { return owner.Lineage{{Ref: pod}, {Ref: web}}, nil },
		check:   func() (*scope.Rejection, error) { return nil, nil },
		register: func() (remediation.Outcome, error) {
			return remediation.Outcome{Created: true, Name: "rr-1", Namespace: "ns", Count: 1}, nil
		},
	}
}

// take sends a signal through and returns the metrics as text.
func take(t *testing.T, p *parts, s signal.Signal) (Receipt, string, error) {
	t.Helper()
	set := metrics.New()
	receipt, err := (&Intake{Owners: p, Scope: p, Book: p, Trail: p, Metrics: set}).Take(t.Context(), s)
	w := httptest.NewRecorder()
	set.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return receipt, w.Body.String(), err
}

// types names the events that were recorded.
func (p *parts) types() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var types []string
	for _, event := range p.events {
		types = append(types, string(event.Type))
	}
	return strings.Join(types, " ")
}

func given() signal.Signal {
	return signal.Signal{
		Source: signal.Prometheus, Name: "A", Severity: "critical", Namespace: "demo", Cluster: "east", Target: pod, Received: now,
		Labels: map[string]string{"l": "v"}, Annotations: map[string]string{"a": "v"}, Payload: "{}",
	}
}

func TestTake(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no"))
	for name, c := range map[string]struct {
		change func(*parts, *signal.Signal)
		status Status // empty: an error
		events string
		lines  []string // of the metrics
	}{
		"a new problem": {func(*parts, *signal.Signal) {}, Created, "gateway.signal.received gateway.crd.created", []string{
			`gateway_signals_received_total{severity="critical",source_type="prometheus"} 1`,
			`gateway_crds_created_total{source_type="prometheus",status="created"} 1`,
			`gateway_owner_resolution_total{kind="Pod",outcome="resolved"} 1`,
		}},
		"a known problem": {func(p *parts, _ *signal.Signal) {
			p.register = func() (remediation.Outcome, error) { return remediation.Outcome{Name: "rr-1", Count: 9}, nil }
		}, Duplicate, "gateway.signal.deduplicated", []string{`gateway_signals_deduplicated_total 1`}},
		"resolved": {func(p *parts, s *signal.Signal) {
			s.Resolved, s.Target = true, resource.Ref{}
		}, Resolved, "", []string{`gateway_signals_received_total{severity="critical",source_type="prometheus"} 1`}},
		"unmanaged": {func(p *parts, _ *signal.Signal) {
			p.check = func() (*scope.Rejection, error) { return &scope.Rejection{}, nil }
		}, Rejected, "", []string{`gateway_signals_rejected_total{reason="unmanaged_resource"} 1`}},
		"an object that is not there": {func(p *parts, _ *signal.Signal) {
			p.resolve = func() (owner.Lineage, error) { return nil, &owner.NotFoundError{Ref: pod} }
		}, "", "", []string{`gateway_owner_resolution_total{kind="Pod",outcome="not_found"} 1`, `gateway_crd_creation_errors_total{error_type="refused"} 0`}},
		"no owner to be had": {func(p *parts, _ *signal.Signal) {
			p.resolve = func() (owner.Lineage, error) { return nil, context.DeadlineExceeded }
		}, "", "gateway.crd.failed", []string{
			`gateway_owner_resolution_total{kind="Pod",outcome="error"} 1`, `gateway_crd_creation_errors_total{error_type="timeout"} 1`,
		}},
		"no scope to be had": {func(p *parts, _ *signal.Signal) {
			p.check = func() (*scope.Rejection, error) { return nil, fmt.Errorf("namespace: %w", forbidden) }
		}, "", "gateway.crd.failed", []string{`gateway_crd_creation_errors_total{error_type="forbidden"} 1`}},
		"not stored": {func(p *parts, _ *signal.Signal) {
			p.register = func() (remediation.Outcome, error) { return remediation.Outcome{}, errors.New("boom") }
		}, "", "gateway.crd.failed", []string{
			`gateway_crd_creation_errors_total{error_type="refused"} 1`, `gateway_crds_created_total{source_type="prometheus",status="failed"} 1`,
		}},
		"over the quota": {func(p *parts, _ *signal.Signal) {
			p.register = func() (remediation.Outcome, error) {
				return remediation.Outcome{}, fmt.Errorf("%w: %w", remediation.ErrQuota, forbidden)
			}
		}, "", "gateway.crd.failed", []string{`gateway_crd_creation_errors_total{error_type="quota"} 1`}},
		"a severity that nobody knows": {func(_ *parts, s *signal.Signal) { s.Severity = "P1" }, Created, "gateway.signal.received gateway.crd.created", []string{
			`gateway_signals_received_total{severity="other",source_type="prometheus"} 1`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := well(), given()
			c.change(p, &s)
			receipt, text, err := take(t, p, s)
			if receipt.Status != c.status || (err != nil) != (c.status == "") {
				t.Errorf("got %+v, %v", receipt, err)
			}
			if got := p.types(); got != c.events {
				t.Errorf("got events %q, want %q", got, c.events)
			}
			for _, line := range c.lines {
				if !strings.Contains(text, line+"\n") {
					t.Errorf("no line %s", line)
				}
			}
		})
	}
}

func TestTakeReportsTheWorkload(t *testing.T) {
	p := well()
	receipt, _, err := take(t, p, given())
	if want := signal.Fingerprint("east", web); err != nil || receipt.Fingerprint != want || p.report.Fingerprint != want || p.report.Workload != web || p.report.Target != pod {
		t.Errorf("got %+v, %v, reported %+v", receipt, err, p.report)
	}
}

func TestEvents(t *testing.T) {
	p := well()
	if _, _, err := take(t, p, given()); err != nil {
		t.Fatal(err)
	}
	first, second := p.events[0], p.events[1]
	if first.ID == second.ID || first.CorrelationID != "rr-1" || !first.Time.Equal(now) || first.Namespace != "demo" || first.Cluster != "east" || first.Severity != "critical" {
		t.Errorf("got %+v and %+v", first, second)
	}
	d := second.Data
	if d.SignalType != "alert" || d.SignalName != "A" || d.Namespace != "demo" || d.Fingerprint != signal.Fingerprint("east", web) || d.Severity != "critical" ||
		d.ResourceKind != "Pod" || d.ResourceName != "web-1" || d.RemediationRequest != "rr-1" || d.DeduplicationStatus != "new" || d.OccurrenceCount != 1 ||
		d.OriginalPayload != "{}" || d.SignalLabels["l"] != "v" || d.SignalAnnotations["a"] != "v" || d.ErrorDetails != "" {
		t.Errorf("got %+v", d)
	}

	p = well()
	p.register = func() (remediation.Outcome, error) { return remediation.Outcome{}, errors.New("boom") }
	if _, _, err := take(t, p, given()); err == nil {
		t.Fatal("got no error")
	}
	failed := p.events[0]
	if failed.CorrelationID != "rr-"+signal.Fingerprint("east", web)[:12] || failed.Data.ErrorDetails != "boom" || failed.Data.DeduplicationStatus != "failed" {
		t.Errorf("got %+v", failed)
	}
}

func TestNobodyIsTurnedAwayForWhatIsRemembered(t *testing.T) {
	for _, managed := range []bool{true, false} {
		p, asked := well(), 0
		p.remembers = true
		p.check = func() (*scope.Rejection, error) {
			if asked++; asked == 1 || !managed {
				return &scope.Rejection{Reason: scope.ReasonUnmanaged}, nil
			}
			return nil, nil
		}
		receipt, text, err := take(t, p, signal.Signal{Name: "Down", Target: pod})
		want := Created
		if !managed {
			want = Rejected
		}
		if err != nil || receipt.Status != want || asked != 2 {
			t.Errorf("managed by now: %v: got %+v, %v after %d looks", managed, receipt, err, asked)
		}
		if strings.Contains(text, `gateway_signals_rejected_total{reason="unmanaged_resource"} 1`) == managed {
			t.Errorf("managed by now: %v: got %s", managed, text)
		}
	}
}
