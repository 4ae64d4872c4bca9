package signals

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"time"
)

// Webhook is Alertmanager's webhook message, version 4.
type Webhook struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []Alert           `json:"alerts"`
}

// Alert is one alert of a webhook.
type Alert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// exporter returns the labels that every alert about something that kube-state-metrics
// measured carries where the most used chart (kube-prometheus-stack) scrapes it. None
// of them names the thing that is ill: they are those of the exporter, but where the
// metric has one of the same name.
func exporter() map[string]string {
	return map[string]string{
		"job": "kube-state-metrics", "instance": "10.244.0.7:8080", "endpoint": "http", "container": "kube-state-metrics",
		"namespace": "monitoring", "service": "kube-prometheus-stack-kube-state-metrics",
		"pod":        "kube-prometheus-stack-kube-state-metrics-56d4bd7fc7-hj9gw",
		"prometheus": "monitoring/kube-prometheus-stack-prometheus",
	}
}

// Firing is a critical alert that began a minute ago, as an exporter's rules make it.
// Labels are name and value in turn, and win over the exporter's; an empty value
// removes one.
func Firing(name string, labels ...string) Alert {
	alert := Bare(name)
	maps.Copy(alert.Labels, exporter())
	return alert.With(labels...)
}

// Bare is Firing without any label of a scrape: an alert of which an aggregation has
// left nothing else than these labels.
func Bare(name string, labels ...string) Alert {
	alert := Alert{
		Status:       "firing",
		Labels:       map[string]string{"alertname": name, "severity": "critical"},
		Annotations:  map[string]string{"summary": name + " is firing", "runbook_url": "https://runbooks.example.org/" + name},
		StartsAt:     time.Now().UTC().Add(-time.Minute).Truncate(time.Millisecond),
		GeneratorURL: "http://prometheus.example.org/graph?g0.expr=up",
		Fingerprint:  "5ef77f1f8a3ecfaf",
	}
	return alert.With(labels...)
}

// With is a copy of the alert with more labels; an empty value removes one.
func (a Alert) With(labels ...string) Alert {
	a.Labels = maps.Clone(a.Labels)
	for i := 0; i+1 < len(labels); i += 2 {
		a.Labels[labels[i]] = labels[i+1]
		if labels[i+1] == "" {
			delete(a.Labels, labels[i])
		}
	}
	return a
}

// Resolved is the alert as Alertmanager reports its end.
func (a Alert) Resolved() Alert {
	a.Status, a.EndsAt = "resolved", time.Now().UTC().Truncate(time.Millisecond)
	return a
}

// Began is the alert with another start.
func (a Alert) Began(at time.Time) Alert {
	a.StartsAt = at.UTC()
	return a
}

// Notify groups alerts as Alertmanager does: what all have in common is said once more.
func Notify(alerts ...Alert) Webhook {
	webhook := Webhook{
		Version: "4", GroupKey: `{}:{alertname="group"}`, Status: "resolved", Receiver: "kubernaut",
		GroupLabels: map[string]string{}, ExternalURL: "http://alertmanager.example.org", Alerts: alerts,
		CommonLabels: map[string]string{}, CommonAnnotations: map[string]string{},
	}
	for i, alert := range alerts {
		if alert.Status == "firing" {
			webhook.Status = "firing"
		}
		if i == 0 {
			webhook.CommonLabels, webhook.CommonAnnotations = maps.Clone(alert.Labels), maps.Clone(alert.Annotations)
			continue
		}
		keepCommon(webhook.CommonLabels, alert.Labels)
		keepCommon(webhook.CommonAnnotations, alert.Annotations)
	}
	return webhook
}

func keepCommon(common, other map[string]string) {
	maps.DeleteFunc(common, func(name, value string) bool { return other[name] != value })
}

// Load reads a webhook that was written down, and moves it into this test: every label
// namespace is replaced, and every time moves so that the newest start is a minute ago.
func Load(files fs.FS, name, namespace string) (Webhook, error) {
	var webhook Webhook
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return webhook, err
	}
	if err := json.Unmarshal(data, &webhook); err != nil {
		return webhook, fmt.Errorf("%s: %w", name, err)
	}
	var newest time.Time
	for _, alert := range webhook.Alerts {
		if alert.StartsAt.After(newest) {
			newest = alert.StartsAt
		}
	}
	shift := time.Since(newest) - time.Minute
	for i := range webhook.Alerts {
		alert := &webhook.Alerts[i]
		alert.StartsAt = alert.StartsAt.Add(shift)
		if !alert.EndsAt.IsZero() {
			alert.EndsAt = alert.EndsAt.Add(shift)
		}
		replaceNamespace(alert.Labels, namespace)
	}
	replaceNamespace(webhook.CommonLabels, namespace)
	replaceNamespace(webhook.GroupLabels, namespace)
	return webhook, nil
}

func replaceNamespace(labels map[string]string, namespace string) {
	if _, ok := labels["namespace"]; ok {
		labels["namespace"] = namespace
	}
}
