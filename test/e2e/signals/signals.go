// Package signals sends what the Gateway takes: Alertmanager webhooks and Kubernetes
// events, as their senders write them.
package signals

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"kubernaut.ai/e2e/test/e2e/answer"
)

// The Gateway's two routes.
const (
	PrometheusPath = "/api/v1/signals/prometheus"
	EventPath      = "/api/v1/signals/kubernetes-event"
)

// Sender is one client of the Gateway. It is safe for concurrent use.
type Sender struct {
	URL    string // https://host:port
	Token  string // bearer token; empty sends none
	Client *http.Client
}

// As is the same sender with another token.
func (s Sender) As(token string) *Sender {
	s.Token = token
	return &s
}

// Option changes a request before it is sent.
type Option func(*http.Request)

// Header sets a header; an empty value removes it.
func Header(name, value string) Option {
	return func(r *http.Request) {
		if value == "" {
			r.Header.Del(name)
			return
		}
		r.Header.Set(name, value)
	}
}

// Chunked sends a body without telling its length.
func Chunked(r *http.Request) { r.ContentLength = -1 }

// Timestamp sets X-Timestamp to the moment that lies this far from now.
func Timestamp(offset time.Duration) Option {
	return Header("X-Timestamp", fmt.Sprint(time.Now().Add(offset).Unix()))
}

// Response is the Gateway's answer; Result is empty when it is a problem.
type Response struct {
	*answer.Answer
	Result
}

// Result is the body of a success.
type Result struct {
	Status      string     `json:"status"`
	Message     string     `json:"message"`
	Fingerprint string     `json:"fingerprint"`
	Duplicate   bool       `json:"duplicate"`
	Name        string     `json:"remediationRequestName"`
	Target      string     `json:"targetReason"`
	Truncated   int        `json:"truncatedAlerts"`
	Namespace   string     `json:"remediationRequestNamespace"`
	Metadata    *Metadata  `json:"metadata"`
	Rejection   *Rejection `json:"rejection"`
	Results     []Item     `json:"results"` // of a batch
	Summary     *Summary   `json:"summary"` // of a batch
}

// Metadata is what the Gateway knows of the problem's occurrences.
type Metadata struct {
	Count           int       `json:"count"`
	FirstOccurrence time.Time `json:"firstOccurrence"`
	LastOccurrence  time.Time `json:"lastOccurrence"`
}

// Rejection says why a signal made nothing.
type Rejection struct {
	Reason   string `json:"reason"`
	Resource string `json:"resource"`
	Message  string `json:"message"`
	Action   string `json:"action"`
}

// Item is the result of one alert of a batch.
type Item struct {
	Status      string `json:"status"`
	Fingerprint string `json:"fingerprint"`
	Message     string `json:"message"`
	Reason      string `json:"reason"` // of a rejection
	Target      string `json:"targetReason"`
	Error       any    `json:"error"`
}

// Summary counts the results of a batch.
type Summary struct {
	Total        int `json:"total"`
	Created      int `json:"created"`
	Deduplicated int `json:"deduplicated"`
	Rejected     int `json:"rejected"`
	Failed       int `json:"failed"`
}

// Alerts sends alerts in one webhook.
func (s *Sender) Alerts(ctx context.Context, alerts ...Alert) (*Response, error) {
	return s.Webhook(ctx, Notify(alerts...))
}

// Webhook sends an Alertmanager webhook.
func (s *Sender) Webhook(ctx context.Context, webhook Webhook, options ...Option) (*Response, error) {
	return s.JSON(ctx, PrometheusPath, webhook, options...)
}

// Event sends a Kubernetes event.
func (s *Sender) Event(ctx context.Context, event Event, options ...Option) (*Response, error) {
	return s.JSON(ctx, EventPath, event, options...)
}

// JSON posts any value as JSON.
func (s *Sender) JSON(ctx context.Context, path string, value any, options ...Option) (*Response, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return s.Post(ctx, path, body, options...)
}

// Post posts a body as it stands.
func (s *Sender) Post(ctx context.Context, path string, body []byte, options ...Option) (*Response, error) {
	return s.Do(ctx, http.MethodPost, path, body, options...)
}

// Do sends any request. The error says that no answer came; an answer that refuses the
// request is no error.
func (s *Sender) Do(ctx context.Context, method, path string, body []byte, options ...Option) (*Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if s.Token != "" {
		request.Header.Set("Authorization", "Bearer "+s.Token)
	}
	for _, option := range options {
		option(request)
	}
	got, err := answer.Send(s.Client, request)
	if err != nil {
		return nil, err
	}
	response := &Response{Answer: got}
	if got.Code < http.StatusMultipleChoices && len(got.Body) > 0 {
		if err := got.Decode(&response.Result); err != nil {
			return nil, err
		}
	}
	return response, nil
}
