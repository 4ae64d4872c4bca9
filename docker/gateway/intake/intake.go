// Package intake takes a signal from the moment it is understood to the moment it
// is stored: owner, fingerprint, scope, remediation request, audit.
package intake

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/audit"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/scope"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/access"
	"kubernaut.ai/e2e/docker/internal/request"
)

// Status says what became of a signal.
type Status string

// The ends that a signal can come to.
const (
	Created   Status = "created"
	Duplicate Status = "duplicate"
	Rejected  Status = "rejected"
	Resolved  Status = "resolved"
)

// Receipt is what the sender is told.
type Receipt struct {
	Status      Status
	Fingerprint string              // empty when the signal was resolved
	Outcome     remediation.Outcome // of a signal that was created or a duplicate
	Rejection   *scope.Rejection    // of one that was rejected
}

// Resolver finds the workload of an object. It may remember it for some seconds unless
// it is asked for what is true now.
type Resolver interface {
	Resolve(ctx context.Context, ref resource.Ref, fresh bool) (lineage owner.Lineage, remembered bool, err error)
}

// Checker decides whether an object is managed; nil means that it is.
type Checker interface {
	Check(ctx context.Context, lineage owner.Lineage) (*scope.Rejection, error)
}

// Registrar stores reports.
type Registrar interface {
	Register(ctx context.Context, report remediation.Report) (remediation.Outcome, error)
}

// Recorder takes audit events and never blocks.
type Recorder interface {
	Record(events ...audit.Event)
}

// Intake is the way of a signal. All fields are required. It is safe for concurrent use.
type Intake struct {
	Owners  Resolver
	Scope   Checker
	Book    Registrar
	Trail   Recorder
	Metrics *metrics.Metrics
}

// Take stores a signal, or says why not. An *owner.NotFoundError is the sender's
// fault; a *kube.UnavailableError and the end of ctx call for another try later.
//
// What becomes of it is counted and recorded where it is known, once, whether Take has
// returned or not: a request that exists is never recorded as failed. A signal of a
// delivery (see Memory) that was stored in an earlier attempt is not stored again.
func (i *Intake) Take(ctx context.Context, s signal.Signal) (Receipt, error) {
	i.Metrics.Received(s.Source, s.Severity)
	if s.Resolved {
		return Receipt{Status: Resolved}, nil
	}
	settle := func(Receipt, error) {}
	if delivery, ok := ctx.Value(deliveryKey{}).(*Delivery); ok {
		if k, named := keyOf(s); named {
			receipt, stored, err := delivery.again(ctx, k)
			if stored || err != nil {
				return receipt, err
			}
			settle = delivery.watch(k).settle
		}
	}
	report := remediation.Report{Signal: s}
	rejection, remembered, err := i.place(ctx, &report, false)
	if rejection != nil && remembered { // nobody is turned away for what was true a moment ago
		rejection, _, err = i.place(ctx, &report, true)
	}
	if err != nil {
		settle(Receipt{}, err)
		var gone *owner.NotFoundError
		var unknown *owner.UnknownKindError
		if !errors.As(err, &gone) && !errors.As(err, &unknown) {
			i.failed(ctx, report, err)
		}
		return Receipt{}, err
	}
	if rejection != nil {
		settle(Receipt{}, errRejected)
		i.Metrics.Rejected(metrics.Unmanaged)
		return Receipt{Status: Rejected, Fingerprint: report.Fingerprint, Rejection: rejection}, nil
	}
	told := report
	report.Settled = func(outcome remediation.Outcome, err error) {
		if err != nil {
			i.failed(ctx, told, err)
			settle(Receipt{}, err)
			return
		}
		settle(i.stored(ctx, told, outcome), nil)
	}
	outcome, err := i.Book.Register(ctx, report)
	if err != nil {
		return Receipt{}, err
	}
	return receiptOf(report, outcome), nil
}

// receiptOf is what the sender of a stored report is told.
func receiptOf(report remediation.Report, outcome remediation.Outcome) Receipt {
	status := Duplicate
	if outcome.Created {
		status = Created
	}
	return Receipt{Status: status, Fingerprint: report.Fingerprint, Outcome: outcome}
}

// place fills in the workload and the fingerprint, and says why the target is not
// managed, if it is not, and whether that was concluded from what was remembered.
func (i *Intake) place(ctx context.Context, report *remediation.Report, fresh bool) (rejection *scope.Rejection, remembered bool, err error) {
	lineage, remembered, err := i.Owners.Resolve(ctx, report.Target, fresh)
	i.Metrics.Owner(report.Target.Kind, resolution(err))
	if err != nil {
		return nil, false, err
	}
	report.Target = lineage[0].Ref // which the cluster may know better: a pod's node, the scope of a kind
	report.Workload = lineage.Workload()
	report.Fingerprint = signal.Fingerprint(report.Cluster, report.Workload)
	rejection, err = i.Scope.Check(ctx, lineage)
	return rejection, remembered, err
}

// resolution sorts the end of a search for the counter.
func resolution(err error) metrics.Resolution {
	var gone *owner.NotFoundError
	var unknown *owner.UnknownKindError
	switch {
	case err == nil:
		return metrics.Resolved
	case errors.As(err, &gone), errors.As(err, &unknown):
		return metrics.NoSuch
	default:
		return metrics.Unresolved
	}
}

// stored counts and audits a report that is in the cluster.
func (i *Intake) stored(ctx context.Context, report remediation.Report, outcome remediation.Outcome) Receipt {
	event := newEvent(ctx, report)
	event.CorrelationID = outcome.Name
	event.Data.RemediationRequest = outcome.Name
	event.Data.OccurrenceCount = outcome.Count
	if outcome.Created {
		i.Metrics.Created(report.Source)
		event.Data.DeduplicationStatus = audit.StatusNew
		i.Trail.Record(typed(event, audit.SignalReceived), typed(event, audit.RequestCreated))
	} else {
		i.Metrics.Deduplicated()
		event.Data.DeduplicationStatus = audit.StatusDuplicate
		i.Trail.Record(typed(event, audit.SignalDeduplicated))
	}
	return receiptOf(report, outcome)
}

// failed counts and audits a report that was not stored.
func (i *Intake) failed(ctx context.Context, report remediation.Report, err error) {
	i.Metrics.Failed(report.Source, failure(err))
	if errors.Is(err, remediation.ErrUnknown) {
		// An event that says "failed" of a request that may exist would be worse than none.
		request.Log(ctx).Error("what became of a signal is not in the audit trail", "fingerprint", report.Fingerprint, "error", err)
		return
	}
	event := newEvent(ctx, report)
	// There may be no request to name: the events of one problem then have the
	// beginning of its name in common, or at least the request that brought it.
	event.CorrelationID = request.ID(ctx)
	if report.Fingerprint != "" {
		event.CorrelationID = strings.TrimSuffix(remediation.Prefix(report.Fingerprint), "-")
	}
	event.Data.DeduplicationStatus = audit.StatusFailed
	event.Data.ErrorDetails = err.Error()
	i.Trail.Record(typed(event, audit.RequestFailed))
}

// failure sorts an error for the counter.
func failure(err error) metrics.Failure {
	var unavailable *kube.UnavailableError
	var refused *remediation.RefusedError
	switch {
	case errors.Is(err, remediation.ErrUnknown):
		return metrics.Unknown
	case errors.As(err, &unavailable) && unavailable.CircuitOpen:
		return metrics.CircuitOpen
	case errors.As(err, &unavailable):
		return metrics.APIServer
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return metrics.Timeout
	case errors.Is(err, remediation.ErrQuota):
		return metrics.Quota
	case errors.As(err, &refused):
		return metrics.Refused
	case apierrors.IsForbidden(err):
		return metrics.Forbidden
	default:
		return metrics.Refused
	}
}

// newEvent returns what all events about a report have in common.
func newEvent(ctx context.Context, report remediation.Report) audit.Event {
	return audit.Event{
		Time:      report.Received.UTC(),
		Actor:     access.User(ctx),
		Cluster:   report.Cluster,
		Namespace: report.Namespace,
		Severity:  report.Severity,
		Data: audit.Data{
			SignalType:        v1alpha1.SignalTypeAlert,
			SignalName:        report.Name,
			Namespace:         report.Namespace,
			Fingerprint:       report.Fingerprint,
			Severity:          report.Severity,
			ResourceKind:      report.Target.Kind,
			ResourceName:      report.Target.Name,
			OriginalPayload:   report.Payload,
			SignalLabels:      report.Labels,
			SignalAnnotations: report.Annotations,
		},
	}
}

// typed returns the event with a type and an id of its own.
func typed(event audit.Event, t audit.Type) audit.Event {
	event.ID, event.Type = uuid.New(), t
	return event
}
