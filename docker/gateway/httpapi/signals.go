package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
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
	Metadata    *metadata        `json:"metadata,omitempty"`
	Rejection   *scope.Rejection `json:"rejection,omitempty"`
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
	Status  string   `json:"status"`
	Message string   `json:"message"`
	Results []result `json:"results"` // in the order of the alerts
	Summary summary  `json:"summary"`
}

type result struct {
	Status      intake.Status `json:"status"`
	Fingerprint string        `json:"fingerprint,omitempty"`
	Message     string        `json:"message"`
	Error       string        `json:"error,omitempty"`
	Name        string        `json:"remediationRequestName,omitempty"`
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
	s, err := kubernetesevent.Parse(body, !sent.IsZero(), a.Now())
	if err != nil {
		return answer{}, err
	}
	return a.one(r, s)
}

// prometheus serves a webhook of Alertmanager.
func (a *api) prometheus(r *http.Request, body []byte, sent time.Time) (answer, error) {
	alerts, err := prometheus.Parse(body, !sent.IsZero(), a.Now())
	if err != nil {
		return answer{}, err
	}
	if len(alerts) > 1 {
		return a.many(r, alerts)
	}
	if alerts[0].Err != nil {
		return answer{}, alerts[0].Err
	}
	return a.one(r, alerts[0].Signal)
}

// one stores one signal.
func (a *api) one(r *http.Request, s signal.Signal) (answer, error) {
	receipt, err := a.Intake.Take(r.Context(), s)
	if err != nil {
		return answer{}, err
	}
	status := http.StatusOK
	body := single{
		Status: receipt.Status, Message: message(receipt), Fingerprint: receipt.Fingerprint,
		Duplicate: receipt.Status == intake.Duplicate, Rejection: receipt.Rejection,
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
	return answer{status, body}, nil
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
func (a *api) many(r *http.Request, alerts []prometheus.Alert) (answer, error) {
	receipts := make([]intake.Receipt, len(alerts))
	errs := make([]error, len(alerts))
	var group errgroup.Group
	group.SetLimit(maxParallel)
	for i, alert := range alerts {
		if alert.Err != nil {
			errs[i] = alert.Err
			continue
		}
		group.Go(func() error {
			errs[i] = panics.Catch(func() (err error) {
				receipts[i], err = a.Intake.Take(r.Context(), alert.Signal)
				return err
			})
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs

	body := batch{Status: "processed", Results: make([]result, len(alerts)), Summary: summary{Total: len(alerts)}}
	var unstored error
	lost := 0
	anyStored := slices.ContainsFunc(receipts, func(r intake.Receipt) bool { return r.Outcome.Name != "" })
	for i := range alerts {
		body.Results[i] = a.result(r, receipts[i], errs[i], &body.Summary)
		if errs[i] != nil && passing(errs[i], anyStored) {
			unstored = errs[i]
			lost++
		}
	}
	if unstored != nil {
		return answer{}, partly(unstored, lost, len(alerts))
	}
	body.Message = fmt.Sprintf("%d alerts: %d created, %d deduplicated, %d rejected, %d failed",
		body.Summary.Total, body.Summary.Created, body.Summary.Deduplicated, body.Summary.Rejected, body.Summary.Failed)
	return answer{http.StatusMultiStatus, body}, nil
}

// result words what became of one alert and adds it to the summary.
func (a *api) result(r *http.Request, receipt intake.Receipt, err error, sum *summary) result {
	if err != nil {
		a.count(err)
		sum.Failed++
		text, _ := detail(err)
		request.Log(r.Context()).Info("alert not stored", "error", err)
		return result{Status: failed, Message: "not stored", Error: text}
	}
	switch receipt.Status {
	case intake.Created:
		sum.Created++
	case intake.Duplicate:
		sum.Deduplicated++
	case intake.Rejected:
		sum.Rejected++
	}
	return result{Status: receipt.Status, Fingerprint: receipt.Fingerprint, Message: message(receipt), Name: receipt.Outcome.Name}
}
