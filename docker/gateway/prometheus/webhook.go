// Package prometheus understands the webhook that Alertmanager sends (version 4), and
// Grafana in the same form.
package prometheus

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"kubernaut.ai/e2e/docker/gateway/jsonbody"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
)

// The bounds of a webhook. What is beyond them is refused: the whole webhook for its
// number of alerts and what is common to them, one alert for what is its own.
const (
	// MaxAlerts is how many alerts one webhook may hold. A storm's group has some
	// hundreds; each alert is looked up in the cluster while its sender waits.
	MaxAlerts = 2000
	// maxEntries is how many labels an alert may have, and how many annotations. An alert
	// of a cluster has about twenty labels.
	maxEntries = 256
	// maxLabelBytes and maxAnnotationBytes bound one value. Annotations are texts.
	maxLabelBytes      = 4 << 10
	maxAnnotationBytes = 256 << 10
	// maxCommonBytes bounds the message without its alerts, which every request that is
	// made of one of several alerts holds, ten at a time.
	maxCommonBytes = 128 << 10
)

// Parser understands webhooks. It is safe for concurrent use.
type Parser struct {
	Targets  *target.Table
	Clusters target.Clusters
}

// Group is a webhook whose alerts are made into signals one by one: what they have in
// common is kept once, so that a group needs no more memory than its body.
type Group struct {
	// Truncated is how many alerts the sender has left out (max_alerts in Alertmanager).
	Truncated uint64

	parser *Parser
	hook   webhook
	whole  []byte // the body, when there is one alert
	common string // the message without its alerts, when there are several: {…}
	dated  bool
	now    time.Time
}

// webhook is what the Gateway reads of Alertmanager's message.
type webhook struct {
	GroupKey          string            `json:"groupKey"`
	Status            string            `json:"status"`
	TruncatedAlerts   uint64            `json:"truncatedAlerts"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	Alerts            []json.RawMessage `json:"alerts"`
}

type alert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
}

// Parse reads a webhook with at least one alert. dated says that the sender told the
// time of sending otherwise. Errors are *signal.Invalid.
func (p *Parser) Parse(body []byte, dated bool, now time.Time) (*Group, error) {
	g := &Group{parser: p, dated: dated, now: now}
	err := jsonbody.Decode(body, &g.hook, jsonbody.Arrays{"alerts": {Most: MaxAlerts, Of: alert{}}})
	var invalid *signal.Invalid
	switch {
	case errors.As(err, &invalid) && invalid.Field == "alerts" && strings.HasPrefix(invalid.Reason, "more than"):
		return nil, &signal.Invalid{Field: "alerts", Reason: fmt.Sprintf("more than %d; set max_alerts of the webhook to %d or less", MaxAlerts, MaxAlerts)}
	case err != nil:
		return nil, err
	case len(g.hook.Alerts) == 0:
		return nil, &signal.Invalid{Field: "alerts", Reason: "at least one is required"}
	}
	if err := bounded("commonLabels", g.hook.CommonLabels, maxLabelBytes); err != nil {
		return nil, err
	}
	if err := bounded("commonAnnotations", g.hook.CommonAnnotations, maxAnnotationBytes); err != nil {
		return nil, err
	}
	g.Truncated = g.hook.TruncatedAlerts
	if len(g.hook.Alerts) == 1 {
		g.whole = body
		return g, nil
	}
	if g.common, err = withoutAlerts(body); err != nil {
		return nil, err
	}
	if len(g.common) > maxCommonBytes {
		return nil, &signal.Invalid{Field: "commonAnnotations", Reason: fmt.Sprintf("with all but the alerts more than %d bytes, for several alerts", maxCommonBytes)}
	}
	return g, nil
}

// bounded refuses labels or annotations that are too many or too long.
func bounded(path string, entries map[string]string, maxBytes int) error {
	if len(entries) > maxEntries {
		return &signal.Invalid{Field: path, Reason: fmt.Sprintf("more than %d", maxEntries)}
	}
	for key, text := range entries {
		if len(key) > maxLabelBytes || len(text) > maxBytes {
			return &signal.Invalid{Field: path, Reason: fmt.Sprintf("%.80q holds more than %d bytes", key, maxBytes)}
		}
	}
	return nil
}

// withoutAlerts returns the message as it came but for its alerts.
func withoutAlerts(body []byte) (string, error) {
	var message map[string]json.RawMessage
	if err := json.Unmarshal(body, &message); err != nil {
		return "", &signal.Invalid{Reason: err.Error()}
	}
	// Members are matched in any case, as by the decoder that found the alerts.
	maps.DeleteFunc(message, func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, "alerts") })
	text, err := json.Marshal(message)
	if err != nil {
		return "", &signal.Invalid{Reason: err.Error()}
	}
	return string(text), nil
}

// Len returns how many alerts the group has.
func (g *Group) Len() int { return len(g.hook.Alerts) }

// Alert makes a signal of one alert, or says why it is none. The other alerts are not
// touched by it. Errors are *signal.Invalid, *signal.Stale for an alert whose start is
// missing or lies ahead of its time, and *signal.Rejected for one that is about no
// object or no cluster that is followed. A start may be old: long alerts are sent again.
func (g *Group) Alert(i int) (signal.Signal, error) {
	path := fmt.Sprintf("alerts[%d]", i)
	var one alert
	if err := jsonbody.Part(g.hook.Alerts[i], &one, path); err != nil {
		return signal.Signal{}, err
	}
	if err := bounded(path+".labels", one.Labels, maxLabelBytes); err != nil {
		return signal.Signal{}, err
	}
	if err := bounded(path+".annotations", one.Annotations, maxAnnotationBytes); err != nil {
		return signal.Signal{}, err
	}
	s, err := g.read(one, path)
	if err != nil {
		return s, err
	}
	s.Received, s.Payload = g.now, g.payload(i)
	if s.Resolved {
		return s, nil
	}
	return s, g.place(&s)
}

// read takes what the alert says of itself.
func (g *Group) read(one alert, path string) (signal.Signal, error) {
	labels := overlay(one.Labels, g.hook.CommonLabels)
	s := signal.Signal{
		Source:      signal.Prometheus,
		Name:        labels["alertname"],
		Severity:    cmp.Or(labels["severity"], "unknown"),
		Labels:      labels,
		Annotations: overlay(one.Annotations, g.hook.CommonAnnotations),
		Group:       g.hook.GroupKey,
	}
	if s.Name == "" {
		return s, &signal.Invalid{Field: path + ".labels.alertname", Reason: "required"}
	}
	switch cmp.Or(one.Status, g.hook.Status, "firing") {
	case "firing":
	case "resolved":
		s.Resolved = true
	default:
		return s, &signal.Invalid{Field: path + ".status", Reason: "must be firing or resolved"}
	}
	start, err := parseStart(one.StartsAt)
	switch {
	case err != nil:
		return s, &signal.Invalid{Field: path + ".startsAt", Reason: err.Error()}
	case g.dated:
	case start.IsZero():
		return s, &signal.Stale{Field: path + ".startsAt", Reason: "required when there is no X-Timestamp header"}
	default:
		if err := signal.CheckAhead(path+".startsAt", start, g.now); err != nil {
			return s, err
		}
	}
	s.Firing = start
	return s, nil
}

// place finds what the alert is about, and in which cluster. What cannot be understood
// is refused first, whatever the alert is about.
func (g *Group) place(s *signal.Signal) error {
	name := cmp.Or(s.Labels["cluster"], s.Labels["k8s_cluster_name"], s.Labels["k8s.cluster.name"])
	var taken bool
	s.Cluster, taken = g.parser.Clusters.Of(name)
	if err := s.Validate(); err != nil {
		return err
	}
	if !taken {
		return &signal.Rejected{Reason: signal.ForeignCluster, Message: fmt.Sprintf("cluster %.253q is not one whose alerts are taken", name)}
	}
	decision := g.parser.Targets.Decide(s.Labels)
	s.TargetReason = decision.String()
	if !decision.Found() {
		return &signal.Rejected{Reason: signal.NoObject, Message: "nothing to act on: " + decision.Reason}
	}
	s.Target = decision.Target
	s.Namespace = cmp.Or(s.Target.Namespace, target.Namespace(s.Labels))
	return s.Validate()
}

// Decide returns what an alert is about, for who only wants to know. It returns the
// labels, the cluster as it is taken, and the decision.
func (g *Group) Decide(i int) (cluster string, decision target.Decision, err error) {
	s, err := g.Alert(i)
	var rejected *signal.Rejected
	if err != nil && !errors.As(err, &rejected) {
		return "", target.Decision{}, err
	}
	if rejected != nil && rejected.Reason == signal.ForeignCluster {
		return s.Cluster, target.Decision{Row: "cluster", Reason: rejected.Message}, nil
	}
	return s.Cluster, g.parser.Targets.Decide(s.Labels), nil
}

// payload returns the webhook as it came, without the other alerts.
func (g *Group) payload(i int) string {
	if g.whole != nil {
		return strings.ToValidUTF8(string(g.whole), "\uFFFD")
	}
	one := strings.ToValidUTF8(string(g.hook.Alerts[i]), "\uFFFD")
	if g.common == "{}" {
		return `{"alerts":[` + one + `]}`
	}
	return `{"alerts":[` + one + `],` + g.common[1:]
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

// overlay returns base with the entries of over written on top.
func overlay(base, over map[string]string) map[string]string {
	if len(base)+len(over) == 0 {
		return nil
	}
	merged := make(map[string]string, max(len(base), len(over)))
	maps.Copy(merged, base)
	maps.Copy(merged, over)
	return merged
}
