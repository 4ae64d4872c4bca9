// Package alertmanager drives a real Alertmanager: it posts alerts as Prometheus does, and
// reads from Alertmanager itself what it has sent.
package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/metrics"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// Alertmanager is one that runs. It is safe for concurrent use.
type Alertmanager struct {
	Address string // host:port
	Client  *http.Client
}

// Sent is what Alertmanager counts of one receiver.
type Sent struct {
	Notifications int // begun; one is tried until it is delivered or given up
	Failed        int // given up
	Requests      int // tries that have ended
	Refused       int // tries that were not answered with 2xx
}

// Delivered is how many notifications have been answered with 2xx.
func (s Sent) Delivered() int { return s.Requests - s.Refused }

// Since is what has been sent after before was.
func (s Sent) Since(before Sent) Sent {
	return Sent{s.Notifications - before.Notifications, s.Failed - before.Failed, s.Requests - before.Requests, s.Refused - before.Refused}
}

// Sent reads the counters of a receiver. Alertmanager tells them apart only with its
// feature receiver-name-in-metrics.
func (a *Alertmanager) Sent(ctx context.Context, receiver string) (Sent, error) {
	counted, err := metrics.Scrape(ctx, a.Client, a.Address)
	if err != nil {
		return Sent{}, err
	}
	value := func(name string) int { return int(counted.Value("alertmanager_"+name, "receiver_name", receiver)) }
	return Sent{
		Notifications: value("notifications_total"), Failed: value("notifications_failed_total"),
		Requests: value("notification_requests_total"), Refused: value("notification_requests_failed_total"),
	}, nil
}

// posted is an alert as Prometheus posts it.
type posted struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt,omitzero"`
	EndsAt       time.Time         `json:"endsAt,omitzero"` // in the past, the alert is resolved; absent, it is in five minutes
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// Post tells Alertmanager about alerts, all in one request.
func (a *Alertmanager) Post(ctx context.Context, alerts ...signals.Alert) error {
	all := make([]posted, len(alerts))
	for i, alert := range alerts {
		all[i] = posted{alert.Labels, alert.Annotations, alert.StartsAt, alert.EndsAt, alert.GeneratorURL}
	}
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	_, err = a.do(ctx, http.MethodPost, "/api/v2/alerts", body)
	return err
}

// Silence has Alertmanager notify nobody, for an hour, of alerts of which a label has a
// value: not of their ends either.
func (a *Alertmanager) Silence(ctx context.Context, label, value string) error {
	now := time.Now().UTC()
	body, err := json.Marshal(map[string]any{
		"matchers": []map[string]any{{"name": label, "value": value, "isRegex": false}},
		"startsAt": now, "endsAt": now.Add(time.Hour), "createdBy": "e2e", "comment": "a spec that is over",
	})
	if err != nil {
		return err
	}
	_, err = a.do(ctx, http.MethodPost, "/api/v2/silences", body)
	return err
}

// Alert is one that Alertmanager holds as firing.
type Alert struct {
	Labels    map[string]string       `json:"labels"`
	StartsAt  time.Time               `json:"startsAt"`
	Receivers []struct{ Name string } `json:"receivers"`
}

// Alerts lists the alerts that fire, of which a label has a value.
func (a *Alertmanager) Alerts(ctx context.Context, label, value string) ([]Alert, error) {
	query := url.Values{"filter": {fmt.Sprintf("%s=%q", label, value)}}
	got, err := a.do(ctx, http.MethodGet, "/api/v2/alerts?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	var alerts []Alert
	return alerts, got.Decode(&alerts)
}

func (a *Alertmanager) do(ctx context.Context, method, path string, body []byte) (*answer.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	got, err := answer.Send(a.Client, request)
	if err != nil {
		return nil, err
	}
	if got.Code != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", method, path, got)
	}
	return got, nil
}
