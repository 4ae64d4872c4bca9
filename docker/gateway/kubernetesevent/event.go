// Package kubernetesevent understands Kubernetes events (core/v1) as an event
// exporter forwards them.
package kubernetesevent

import (
	"fmt"
	"strings"
	"time"

	"kubernaut.ai/e2e/docker/gateway/jsonbody"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

// event is what the Gateway reads of an Event.
type event struct {
	Metadata struct {
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Type           string `json:"type"`
	Reason         string `json:"reason"`
	Message        string `json:"message"`
	InvolvedObject struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Namespace  string `json:"namespace"`
		Name       string `json:"name"`
	} `json:"involvedObject"`
	Source struct {
		Component string `json:"component"`
	} `json:"source"`
	ReportingComponent string `json:"reportingComponent"`
	FirstTimestamp     string `json:"firstTimestamp"`
	LastTimestamp      string `json:"lastTimestamp"`
	EventTime          string `json:"eventTime"`
}

// Parse reads an event. Its lastTimestamp, else its firstTimestamp, must lie in the
// window; recorders of the events.k8s.io API fill only eventTime, which then stands
// in. Only a sender that told the time of sending otherwise (dated) may leave all of
// them out. Errors are *signal.Invalid or *signal.Stale.
func Parse(body []byte, dated bool, now time.Time) (signal.Signal, error) {
	var e event
	if err := jsonbody.Decode(body, &e); err != nil {
		return signal.Signal{}, err
	}
	field, seen, err := e.seen()
	if err != nil {
		return signal.Signal{}, err
	}
	switch {
	case !seen.IsZero():
		if err := signal.CheckWindow(field, seen, now); err != nil {
			return signal.Signal{}, err
		}
	case !dated:
		return signal.Signal{}, &signal.Stale{Field: "lastTimestamp", Reason: "required, or firstTimestamp"}
	}
	s, err := e.signal()
	if err != nil {
		return signal.Signal{}, err
	}
	s.Firing, s.Received = seen, now
	s.Payload = strings.ToValidUTF8(string(body), "\uFFFD")
	return s, s.Validate()
}

// seen returns the latest time that the event gives, and the field that gave it.
func (e event) seen() (field string, at time.Time, err error) {
	for _, given := range []struct{ field, text string }{
		{"lastTimestamp", e.LastTimestamp}, {"firstTimestamp", e.FirstTimestamp}, {"eventTime", e.EventTime},
	} {
		if given.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, given.text)
		if err != nil {
			return given.field, time.Time{}, &signal.Invalid{Field: given.field, Reason: fmt.Sprintf("%.40q is no RFC 3339 time", given.text)}
		}
		return given.field, at.UTC(), nil
	}
	return "", time.Time{}, nil
}

// signal makes a signal of the event.
func (e event) signal() (signal.Signal, error) {
	switch {
	case e.Type != "Warning" && e.Type != "Error":
		return signal.Signal{}, &signal.Invalid{Field: "type", Reason: "must be Warning or Error"}
	case e.Reason == "":
		return signal.Signal{}, &signal.Invalid{Field: "reason", Reason: "required"}
	case e.InvolvedObject.Kind == "":
		return signal.Signal{}, &signal.Invalid{Field: "involvedObject.kind", Reason: "required"}
	case e.InvolvedObject.Name == "":
		return signal.Signal{}, &signal.Invalid{Field: "involvedObject.name", Reason: "required"}
	}
	kind, known := resource.Find(e.InvolvedObject.APIVersion, e.InvolvedObject.Kind)
	if !known {
		return signal.Signal{}, &signal.Invalid{Field: "involvedObject.kind",
			Reason: fmt.Sprintf("%.63q of %.80q is not a kind that the Gateway follows", e.InvolvedObject.Kind, e.InvolvedObject.APIVersion)}
	}
	namespace := e.InvolvedObject.Namespace
	if namespace == "" {
		namespace = e.Metadata.Namespace
	}
	if namespace == "" {
		namespace = "default"
	}
	return signal.Signal{
		Source:      signal.KubernetesEvents,
		Name:        e.Reason,
		Severity:    strings.ToLower(e.Type),
		Namespace:   namespace,
		Target:      kind.Ref(namespace, e.InvolvedObject.Name),
		Labels:      e.labels(),
		Annotations: e.annotations(),
	}, nil
}

// labels returns the event's own labels and what else a consumer may select by.
func (e event) labels() map[string]string {
	labels := map[string]string{}
	for key, text := range e.Metadata.Labels {
		labels[key] = text
	}
	labels["type"] = e.Type
	labels["reason"] = e.Reason
	component := e.Source.Component
	if component == "" {
		component = e.ReportingComponent
	}
	if component != "" {
		labels["component"] = component
	}
	return labels
}

// annotations returns the event's own annotations and its message.
func (e event) annotations() map[string]string {
	annotations := map[string]string{}
	for key, text := range e.Metadata.Annotations {
		annotations[key] = text
	}
	if e.Message != "" {
		annotations["message"] = e.Message
	}
	return annotations
}
