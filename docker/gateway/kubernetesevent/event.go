// Package kubernetesevent understands Kubernetes events, of core/v1 and of
// events.k8s.io/v1, as the API server serves them and forwarders pass them on.
package kubernetesevent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/docker/gateway/jsonbody"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
)

// Parser understands events. It is safe for concurrent use.
type Parser struct {
	Clusters target.Clusters
}

// wanted says what a body has to be.
const wanted = "wanted: one Kubernetes Event as the API server serves it, a JSON object with involvedObject (core/v1) or regarding (events.k8s.io/v1)"

// reference names the object that an event is about.
type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// event is what the Gateway reads of an Event, of both APIs. Times may be null.
type event struct {
	Metadata struct {
		Namespace         string            `json:"namespace"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp string            `json:"creationTimestamp"`
	} `json:"metadata"`
	Type           string     `json:"type"`
	Reason         string     `json:"reason"`
	Message        string     `json:"message"`
	Note           string     `json:"note"`
	InvolvedObject *reference `json:"involvedObject"`
	Regarding      *reference `json:"regarding"`
	Source         struct {
		Component string `json:"component"`
	} `json:"source"`
	DeprecatedSource struct {
		Component string `json:"component"`
	} `json:"deprecatedSource"`
	ReportingComponent  string `json:"reportingComponent"`
	ReportingController string `json:"reportingController"`
	FirstTimestamp      string `json:"firstTimestamp"`
	LastTimestamp       string `json:"lastTimestamp"`
	DeprecatedFirst     string `json:"deprecatedFirstTimestamp"`
	DeprecatedLast      string `json:"deprecatedLastTimestamp"`
	EventTime           string `json:"eventTime"`
	Series              struct {
		LastObservedTime string `json:"lastObservedTime"`
	} `json:"series"`
	ClusterName string `json:"clusterName"` // written by an exporter that serves several clusters
}

// Parse reads an event. The newest time that it gives must lie in the window; only a
// sender that told the time of sending otherwise (dated) may leave all of them out.
// Errors are *signal.Invalid, *signal.Stale, or *signal.Rejected for a cluster that is
// not taken.
//
// The target may be of a kind that resource.Find does not know, if the event names its
// apiVersion: then the cluster has to be asked whether there is one.
func (p *Parser) Parse(body []byte, dated bool, now time.Time) (signal.Signal, error) {
	e, err := decode(body)
	if err != nil {
		return signal.Signal{}, err
	}
	s, err := e.signal()
	if err != nil {
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
		return signal.Signal{}, &signal.Stale{Field: "lastTimestamp", Reason: "required, or another of an event's times"}
	}
	s.Firing, s.Received = seen, now
	s.Payload = strings.ToValidUTF8(string(body), "\uFFFD")
	var taken bool
	if s.Cluster, taken = p.Clusters.Of(e.ClusterName); !taken {
		return s, &signal.Rejected{Reason: signal.ForeignCluster, Message: fmt.Sprintf("cluster %.253q is not one whose events are taken", e.ClusterName)}
	}
	return s, s.Validate()
}

// decode reads a body that has an event's shape. What has another is refused by what
// it is: members of an envelope may have an event's names and other types.
func decode(body []byte) (event, error) {
	var e event
	err := jsonbody.Decode(body, &e, nil)
	var invalid *signal.Invalid
	if errors.As(err, &invalid) && invalid.Field == "" && !bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		return e, err // malformed
	}
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) && json.Valid(body) {
		return e, &signal.Invalid{Field: "body", Reason: "an array; " + wanted}
	}
	if e.InvolvedObject == nil && e.Regarding == nil && (invalid == nil || !strings.HasPrefix(invalid.Field, "involvedObject") && !strings.HasPrefix(invalid.Field, "regarding")) {
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) == nil {
			return e, shape(members)
		}
	}
	return e, err
}

// maxShown is how many members of a body that is no event are named.
const maxShown = 12

// shape says what is wrong with a body that is no event.
func shape(members map[string]json.RawMessage) error {
	names := slices.Sorted(maps.Keys(members))
	var shown []string
	for _, name := range names[:min(len(names), maxShown)] {
		shown = append(shown, fmt.Sprintf("%.40q", name))
	}
	there := "no members"
	if len(shown) > 0 {
		there = strings.Join(shown, ", ")
	}
	if kind := members["kind"]; len(kind) > 0 && len(kind) < 80 {
		there += " and is of kind " + strings.ToValidUTF8(string(kind), "?")
	}
	return &signal.Invalid{Field: "involvedObject", Reason: "required, or regarding; the body has " + there + "; " + wanted}
}

// seen returns the newest time that the event gives, and the field that gave it.
// Recorders of the events.k8s.io API write when something first happened into
// eventTime, and repeat it in the series; null, nothing and Go's zero time say nothing.
func (e event) seen() (field string, newest time.Time, err error) {
	for _, given := range []struct{ field, text string }{
		{"lastTimestamp", e.LastTimestamp}, {"deprecatedLastTimestamp", e.DeprecatedLast},
		{"series.lastObservedTime", e.Series.LastObservedTime}, {"eventTime", e.EventTime},
		{"firstTimestamp", e.FirstTimestamp}, {"deprecatedFirstTimestamp", e.DeprecatedFirst},
		{"metadata.creationTimestamp", e.Metadata.CreationTimestamp},
	} {
		if given.text == "" || given.field == "metadata.creationTimestamp" && !newest.IsZero() {
			continue
		}
		at, err := time.Parse(time.RFC3339, given.text)
		if err != nil {
			return given.field, time.Time{}, &signal.Invalid{Field: given.field, Reason: fmt.Sprintf("%.40q is no RFC 3339 time", given.text)}
		}
		if at.Year() > 1 && at.After(newest) {
			field, newest = given.field, at.UTC()
		}
	}
	return field, newest, nil
}

// about returns the object that the event is about, and its field.
func (e event) about() (field string, object reference) {
	if e.InvolvedObject != nil {
		return "involvedObject", *e.InvolvedObject
	}
	return "regarding", *e.Regarding
}

// signal makes a signal of the event.
func (e event) signal() (signal.Signal, error) {
	field, object := e.about()
	switch {
	case e.Type != "Warning" && e.Type != "Error":
		return signal.Signal{}, &signal.Invalid{Field: "type", Reason: "must be Warning or Error"}
	case e.Reason == "":
		return signal.Signal{}, &signal.Invalid{Field: "reason", Reason: "required"}
	case object.Kind == "":
		return signal.Signal{}, &signal.Invalid{Field: field + ".kind", Reason: "required"}
	case object.Name == "":
		return signal.Signal{}, &signal.Invalid{Field: field + ".name", Reason: "required"}
	}
	namespace := cmp.Or(object.Namespace, e.Metadata.Namespace)
	target := resource.Ref{APIVersion: object.APIVersion, Kind: object.Kind, Namespace: namespace, Name: object.Name}
	kind, known := resource.Find(object.APIVersion, object.Kind)
	switch {
	case known && kind.Namespaced && namespace == "":
		return signal.Signal{}, &signal.Invalid{Field: field + ".namespace", Reason: "required for a " + kind.Kind + ", or metadata.namespace"}
	case known:
		target = kind.Ref(namespace, object.Name)
	case object.APIVersion == "":
		return signal.Signal{}, &signal.Invalid{Field: field + ".kind",
			Reason: fmt.Sprintf("%.63q without an apiVersion is not a kind that the Gateway follows", object.Kind)}
	}
	return signal.Signal{
		Source:       signal.KubernetesEvents,
		Name:         e.Reason,
		Severity:     strings.ToLower(e.Type),
		Namespace:    namespace,
		Target:       target,
		TargetReason: "event/" + field + ": the event is about it",
		Labels:       e.labels(),
		Annotations:  e.annotations(),
	}, nil
}

// labels returns the event's own labels and what else a consumer may select by.
func (e event) labels() map[string]string {
	labels := maps.Clone(e.Metadata.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels["type"] = e.Type
	labels["reason"] = e.Reason
	if component := cmp.Or(e.Source.Component, e.DeprecatedSource.Component, e.ReportingComponent, e.ReportingController); component != "" {
		labels["component"] = component
	}
	return labels
}

// annotations returns the event's own annotations and its message.
func (e event) annotations() map[string]string {
	annotations := maps.Clone(e.Metadata.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	if message := cmp.Or(e.Message, e.Note); message != "" {
		annotations["message"] = message
	}
	return annotations
}
