// Package prometheus understands the webhook that Alertmanager sends (version 4).
package prometheus

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"kubernaut.ai/e2e/docker/gateway/jsonbody"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

// Alert is one alert of a webhook: a signal, or why it is none.
type Alert struct {
	Signal signal.Signal
	Err    error // a *signal.Invalid; the other alerts are not touched by it
}

// webhook is what the Gateway reads of Alertmanager's message.
type webhook struct {
	GroupKey          string            `json:"groupKey"`
	Status            string            `json:"status"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	Alerts            []alert           `json:"alerts"`
}

type alert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
}

// Parse reads a webhook into its alerts, at least one. A sender that told the time
// of sending otherwise is dated; one that did not (Alertmanager cannot) is judged by
// the newest startsAt: that must exist and not lie ahead, but may be old, because
// long alerts are sent again. Errors are *signal.Invalid or *signal.Stale.
func Parse(body []byte, dated bool, now time.Time) ([]Alert, error) {
	var hook webhook
	if err := jsonbody.Decode(body, &hook); err != nil {
		return nil, err
	}
	if len(hook.Alerts) == 0 {
		return nil, &signal.Invalid{Field: "alerts", Reason: "at least one is required"}
	}
	starts := make([]time.Time, len(hook.Alerts))
	var newest time.Time
	for i, alert := range hook.Alerts {
		start, err := parseStart(alert.StartsAt)
		if err != nil {
			return nil, &signal.Invalid{Field: fmt.Sprintf("alerts[%d].startsAt", i), Reason: err.Error()}
		}
		if starts[i] = start; start.After(newest) {
			newest = start
		}
	}
	if !dated {
		if newest.IsZero() {
			return nil, &signal.Stale{Field: "startsAt", Reason: "required when there is no X-Timestamp header"}
		}
		if err := signal.CheckAhead("startsAt", newest, now); err != nil {
			return nil, err
		}
	}
	payloads, err := payloads(body, len(hook.Alerts))
	if err != nil {
		return nil, err
	}
	alerts := make([]Alert, len(hook.Alerts))
	for i := range hook.Alerts {
		s, err := read(hook, i)
		s.Firing, s.Received, s.Payload = starts[i], now, payloads[i]
		if err == nil && !s.Resolved {
			err = s.Validate()
		}
		alerts[i] = Alert{s, err}
	}
	return alerts, nil
}

// parseStart reads a startsAt. Alertmanager writes Go's zero time for none.
func parseStart(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	start, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is no RFC 3339 time", text)
	}
	if start.Year() <= 1 {
		return time.Time{}, nil
	}
	return start.UTC(), nil
}

// payloads returns for each alert the webhook as it came, without the other alerts.
func payloads(body []byte, n int) ([]string, error) {
	if n == 1 {
		return []string{strings.ToValidUTF8(string(body), "\uFFFD")}, nil
	}
	// The members of a body are matched without regard to case, so the same decoder
	// has to find the alerts that found the signals.
	var raw struct {
		Alerts []json.RawMessage `json:"alerts"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, &signal.Invalid{Reason: err.Error()}
	}
	var message map[string]json.RawMessage
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, &signal.Invalid{Reason: err.Error()}
	}
	maps.DeleteFunc(message, func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, "alerts") })
	texts := make([]string, n)
	for i, one := range raw.Alerts {
		message["alerts"] = json.RawMessage("[" + string(one) + "]")
		text, err := json.Marshal(message)
		if err != nil {
			return nil, &signal.Invalid{Field: fmt.Sprintf("alerts[%d]", i), Reason: err.Error()}
		}
		texts[i] = string(text)
	}
	return texts, nil
}

// read makes a signal of one alert.
func read(hook webhook, i int) (signal.Signal, error) {
	alert := hook.Alerts[i]
	labels := overlay(alert.Labels, hook.CommonLabels)
	s := signal.Signal{
		Source:      signal.Prometheus,
		Name:        labels["alertname"],
		Severity:    firstOf(labels["severity"], "unknown"),
		Cluster:     hook.CommonLabels["cluster"],
		Namespace:   firstOf(labels["exported_namespace"], labels["namespace"], "default"),
		Labels:      labels,
		Annotations: overlay(alert.Annotations, hook.CommonAnnotations),
		Group:       hook.GroupKey,
	}
	if s.Name == "" {
		return s, &signal.Invalid{Field: fmt.Sprintf("alerts[%d].labels.alertname", i), Reason: "required"}
	}
	switch firstOf(alert.Status, hook.Status, "firing") {
	case "firing":
	case "resolved":
		s.Resolved = true
	default:
		return s, &signal.Invalid{Field: fmt.Sprintf("alerts[%d].status", i), Reason: "must be firing or resolved"}
	}
	target, found := Target(labels, s.Namespace)
	if !found && !s.Resolved {
		return s, &signal.Invalid{Field: fmt.Sprintf("alerts[%d].labels", i), Reason: "none names a Kubernetes object, such as pod, deployment or node"}
	}
	s.Target = target
	return s, nil
}

// Target finds the object that an alert is about by the labels that name a kind.
// The label job is none of them: it is Prometheus's name of the scrape, and neither
// are instance, endpoint, container and namespace.
//
// Where exported_namespace is present, Prometheus has renamed the labels of what was
// measured and kept the plain ones for the exporter. So exported_pod wins over pod,
// and the exporter's own pod and service are the last resort.
func Target(labels map[string]string, namespace string) (resource.Ref, bool) {
	var exporter []resource.Ref
	for _, kind := range resource.Kinds() {
		if kind.Label == "" {
			continue
		}
		if name := labels["exported_"+kind.Label]; name != "" {
			return kind.Ref(namespace, name), true
		}
		name := labels[kind.Label]
		if name == "" {
			continue
		}
		if labels["exported_namespace"] != "" && (kind.Label == "pod" || kind.Label == "service") {
			exporter = append(exporter, kind.Ref(namespace, name))
			continue
		}
		return kind.Ref(namespace, name), true
	}
	if len(exporter) > 0 {
		return exporter[0], true
	}
	return resource.Ref{}, false
}

// overlay returns base with the entries of over written on top.
func overlay(base, over map[string]string) map[string]string {
	if len(base)+len(over) == 0 {
		return nil
	}
	merged := make(map[string]string, len(base)+len(over))
	maps.Copy(merged, base)
	maps.Copy(merged, over)
	return merged
}

// firstOf returns the first text that is not empty.
func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
