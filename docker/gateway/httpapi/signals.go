package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/scope"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/panics"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/request"
)

// maxParallel is how many alerts of one webhook are worked on at once, so that one
// large group does not keep everybody else from the API server.
const maxParallel = 10

// answer is a status with a body for it.
type answer struct {
	status int
	body   any
}

// write sends the answer, and reports whether it could be sent.
func (a answer) write(w http.ResponseWriter, r *http.Request) bool {
	body, err := json.Marshal(a.body)
	if err != nil {
		problem.Write(w, r, fmt.Errorf("encoding the answer: %w", err))
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, err = w.Write(body)
	return err == nil
}

// single is the answer to one signal.
type single struct {
	Status      intake.Status    `json:"status"`
	Message     string           `json:"message"`
	Fingerprint string           `json:"fingerprint,omitempty"`
	Duplicate   bool             `json:"duplicate"`
	Name        string           `json:"remediationRequestName,omitempty"`
	Namespace   string           `json:"remediationRequestNamespace,omitempty"`
	Target      string           `json:"targetReason,omitempty"` // why the object that it is about was chosen
	Metadata    *metadata        `json:"metadata,omitempty"`
	Rejection   *scope.Rejection `json:"rejection,omitempty"`
	Truncated   uint64           `json:"truncatedAlerts,omitempty"` // alerts that the sender has left out
}

// metadata says how often a problem was reported. Times are RFC 3339 in UTC, as in
// the remediation request.
type metadata struct {
	Count           int64  `json:"count"`
	FirstOccurrence string `json:"firstOccurrence"`
	LastOccurrence  string `json:"lastOccurrence"`
}

// batch is the answer to a webhook with several alerts.
type batch struct {
	Status    string   `json:"status"`
	Message   string   `json:"message"`
	Results   []result `json:"results"` // in the order of the alerts
	Summary   summary  `json:"summary"`
	Truncated uint64   `json:"truncatedAlerts,omitempty"` // alerts that the sender has left out
}

type result struct {
	Status      intake.Status `json:"status"`
	Fingerprint string        `json:"fingerprint,omitempty"`
	Message     string        `json:"message"`
	Error       string        `json:"error,omitempty"`
	Name        string        `json:"remediationRequestName,omitempty"`
	Target      string        `json:"targetReason,omitempty"`
	Reason      string        `json:"reason,omitempty"` // of a rejection
}

// summary counts results. Resolved alerts count in the total only.
type summary struct {
	Total        int `json:"total"`
	Created      int `json:"created"`
	Deduplicated int `json:"deduplicated"`
	Rejected     int `json:"rejected"`
	Failed       int `json:"failed"`
}

// failed is the status of an alert that no receipt was given for.
const failed intake.Status = "failed"

// event serves one Kubernetes event.
func (a *api) event(r *http.Request, body []byte, sent time.Time) (answer, error) {
	s, err := a.Events.Parse(body, !sent.IsZero(), a.Now())
	receipt, err := a.take(r.Context(), s, err)
	if err != nil {
		return answer{}, err
	}
	return one(s, receipt, 0), nil
}

// prometheus serves a webhook of Alertmanager.
func (a *api) prometheus(r *http.Request, body []byte, sent time.Time) (answer, error) {
	group, err := a.Alerts.Parse(body, !sent.IsZero(), a.Now())
	if err != nil {
		return answer{}, err
	}
	if group.Truncated > 0 {
		a.Metrics.Truncated(group.Truncated)
		request.Log(r.Context()).Warn("the sender has left alerts out; nobody looks at them",
			"truncated_alerts", group.Truncated, "alerts", group.Len(), "remedy", "raise max_alerts of the webhook, or group by more labels")
	}
	if group.Len() > 1 {
		return a.many(r, group)
	}
	s, err := group.Alert(0)
	receipt, err := a.take(r.Context(), s, err)
	if err != nil {
		return answer{}, err
	}
	return one(s, receipt, group.Truncated), nil
}

// take stores a signal, or says why nothing is made of it. invalid is what its parser
// said. A sender is told of a signal about nothing, or about what is gone, as of one
// about something that is not managed: it has done nothing wrong.
func (a *api) take(ctx context.Context, s signal.Signal, invalid error) (intake.Receipt, error) {
	var nothing *signal.Rejected
	if errors.As(invalid, &nothing) {
		a.Metrics.Received(s.Source, s.Severity)
		a.Metrics.Rejected(metrics.Rejection(nothing.Reason))
		return rejected(string(nothing.Reason), "", nothing.Message), nil
	}
	if invalid != nil {
		return intake.Receipt{}, invalid
	}
	receipt, err := a.Intake.Take(ctx, s)
	var gone *owner.NotFoundError
	if errors.As(err, &gone) {
		a.Metrics.Rejected(metrics.NotFound)
		return rejected(string(metrics.NotFound), gone.String(), gone.Error()), nil
	}
	return receipt, err
}

// rejected is the receipt of a signal that nothing is made of.
func rejected(reason, resource, message string) intake.Receipt {
	return intake.Receipt{Status: intake.Rejected, Rejection: &scope.Rejection{Reason: reason, Resource: resource, Message: message}}
}

// one answers what became of one signal.
func one(s signal.Signal, receipt intake.Receipt, truncated uint64) answer {
	status := http.StatusOK
	body := single{
		Status: receipt.Status, Message: message(receipt), Fingerprint: receipt.Fingerprint,
		Duplicate: receipt.Status == intake.Duplicate, Rejection: receipt.Rejection, Target: s.TargetReason, Truncated: truncated,
	}
	switch receipt.Status {
	case intake.Created:
		status = http.StatusCreated
	case intake.Duplicate:
		status = http.StatusAccepted
	}
	if o := receipt.Outcome; o.Name != "" {
		body.Name, body.Namespace = o.Name, o.Namespace
		body.Metadata = &metadata{
			Count:           o.Count,
			FirstOccurrence: o.First.UTC().Format(time.RFC3339),
			LastOccurrence:  o.Last.UTC().Format(time.RFC3339),
		}
	}
	return answer{status, body}
}

// message says in words what became of a signal.
func message(receipt intake.Receipt) string {
	switch receipt.Status {
	case intake.Created:
		return "remediation request created"
	case intake.Duplicate:
		return "counted on the open remediation request"
	case intake.Rejected:
		return receipt.Rejection.Message
	default:
		return "resolved alerts need no remediation"
	}
}

// many stores the alerts of one webhook, each for itself. An alert at fault does not
// touch the others; one that cannot be stored now fails the whole webhook, of which what
// is stored is then recognised when it comes again.
func (a *api) many(r *http.Request, alerts *prometheus.Group) (answer, error) {
	receipts := make([]intake.Receipt, alerts.Len())
	reasons := make([]string, alerts.Len())
	errs := make([]error, alerts.Len())
	var group errgroup.Group
	group.SetLimit(maxParallel)
	for i := range alerts.Len() {
		group.Go(func() error {
			errs[i] = panics.Catch(func() error {
				s, err := alerts.Alert(i)
				reasons[i] = s.TargetReason
				receipts[i], err = a.take(r.Context(), s, err)
				return err
			})
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs

	body := batch{Status: "processed", Results: make([]result, alerts.Len()), Summary: summary{Total: alerts.Len()}, Truncated: alerts.Truncated}
	var unstored error
	lost := 0
	anyStored := slices.ContainsFunc(receipts, func(r intake.Receipt) bool { return r.Outcome.Name != "" })
	for i := range body.Results {
		body.Results[i] = a.result(r, receipts[i], reasons[i], errs[i], &body.Summary)
		if errs[i] != nil && passing(errs[i], anyStored) {
			unstored = errs[i]
			lost++
		}
	}
	if unstored != nil {
		return answer{}, partly(unstored, lost, alerts.Len())
	}
	body.Message = fmt.Sprintf("%d alerts: %d created, %d deduplicated, %d rejected, %d failed",
		body.Summary.Total, body.Summary.Created, body.Summary.Deduplicated, body.Summary.Rejected, body.Summary.Failed)
	if body.Truncated > 0 {
		body.Message += fmt.Sprintf("; the sender has left %d out", body.Truncated)
	}
	return answer{http.StatusMultiStatus, body}, nil
}

// result words what became of one alert and adds it to the summary.
func (a *api) result(r *http.Request, receipt intake.Receipt, why string, err error, sum *summary) result {
	if err != nil {
		a.count(err)
		sum.Failed++
		text, _ := detail(err)
		request.Log(r.Context()).Info("alert not stored", "error", err)
		return result{Status: failed, Message: "not stored", Error: text}
	}
	told := result{Status: receipt.Status, Fingerprint: receipt.Fingerprint, Message: message(receipt), Name: receipt.Outcome.Name, Target: why}
	switch receipt.Status {
	case intake.Created:
		sum.Created++
	case intake.Duplicate:
		sum.Deduplicated++
	case intake.Rejected:
		sum.Rejected++
		told.Reason = receipt.Rejection.Reason
	}
	return told
}
