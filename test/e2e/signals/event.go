package signals

import "time"

// Event is a Kubernetes event as event exporters forward it. Times are absent when zero.
type Event struct {
	Metadata       map[string]any    `json:"metadata,omitempty"`
	Type           string            `json:"type,omitempty"`
	Reason         string            `json:"reason,omitempty"`
	Message        string            `json:"message,omitempty"`
	InvolvedObject Reference         `json:"involvedObject,omitzero"`
	Source         map[string]string `json:"source,omitempty"`
	Reporter       string            `json:"reportingComponent,omitempty"`
	FirstTimestamp time.Time         `json:"firstTimestamp,omitzero"`
	LastTimestamp  time.Time         `json:"lastTimestamp,omitzero"`
	EventTime      time.Time         `json:"eventTime,omitzero"`
	Series         *Series           `json:"series,omitempty"`
	Count          int               `json:"count,omitempty"`
}

// Series says how often a recorder of the events.k8s.io API has seen an event.
type Series struct {
	Count            int       `json:"count"`
	LastObservedTime time.Time `json:"lastObservedTime"`
}

// Reference names the object that an event is about.
type Reference struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
}

// Warning is an event of this very moment about an object.
func Warning(reason string, about Reference) Event {
	now := time.Now().UTC().Truncate(time.Second)
	return Event{
		Metadata: map[string]any{"name": about.Name + ".17d2f0e1", "namespace": about.Namespace},
		Type:     "Warning", Reason: reason, Message: reason + " of " + about.Name,
		InvolvedObject: about,
		Source:         map[string]string{"component": "kubelet", "host": "node"},
		FirstTimestamp: now.Add(-time.Minute), LastTimestamp: now, Count: 3,
	}
}
