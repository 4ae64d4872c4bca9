// Package audit tells DataStorage what the Gateway did. A DataStorage that fails
// delays events, it does not lose them.
package audit

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Type is what an event tells.
type Type string

// The types of event that the Gateway sends.
const (
	SignalReceived     Type = "gateway.signal.received"
	SignalDeduplicated Type = "gateway.signal.deduplicated"
	RequestCreated     Type = "gateway.crd.created"
	RequestFailed      Type = "gateway.crd.failed"
)

// Action returns what was done, in a word.
func (t Type) Action() string {
	switch t {
	case SignalReceived:
		return "received"
	case SignalDeduplicated:
		return "deduplicated"
	case RequestCreated:
		return "created"
	default:
		return "failed"
	}
}

// Category is the category of all the Gateway's events.
const Category = "gateway"

// Event is one thing that happened.
type Event struct {
	ID            uuid.UUID // given by the sender, so that sending twice stores once
	Type          Type
	Time          time.Time
	CorrelationID string // the remediation request's name
	Actor         string // the authenticated user
	Cluster       string // empty for the Gateway's own
	Namespace     string
	Severity      string
	Data          Data
}

// Data is the event_data of every event.
type Data struct {
	SignalType          string            `json:"signal_type"`
	SignalName          string            `json:"signal_name"`
	Namespace           string            `json:"namespace"`
	Fingerprint         string            `json:"fingerprint"`
	Severity            string            `json:"severity"`
	ResourceKind        string            `json:"resource_kind"`
	ResourceName        string            `json:"resource_name"`
	RemediationRequest  string            `json:"remediation_request"`
	DeduplicationStatus string            `json:"deduplication_status"`
	OccurrenceCount     int64             `json:"occurrence_count"`
	OriginalPayload     string            `json:"original_payload"`
	SignalLabels        map[string]string `json:"signal_labels"`
	SignalAnnotations   map[string]string `json:"signal_annotations"`
	ErrorDetails        string            `json:"error_details,omitempty"`
}

// The deduplication_status of events.
const (
	StatusNew       = "new"
	StatusDuplicate = "duplicate"
	StatusFailed    = "failed"
)

const (
	// maxPayload is how much of a payload an event holds. The remediation request has
	// all of it.
	maxPayload = 8 << 10
	// maxTexts is how much of the labels, and of the annotations, an event holds.
	maxTexts = 8 << 10
	// cutMark ends what was cut.
	cutMark = "… (cut)"
)

// cut returns the event with its texts cut to what the trail needs. A new problem makes
// two events; the payload is in the first.
func (e Event) cut() Event {
	if e.Type == RequestCreated {
		e.Data.OriginalPayload = ""
	}
	e.Data.OriginalPayload = cut(e.Data.OriginalPayload, maxPayload)
	e.Data.ErrorDetails = cut(e.Data.ErrorDetails, maxPayload)
	e.Data.SignalLabels = cutAll(e.Data.SignalLabels)
	e.Data.SignalAnnotations = cutAll(e.Data.SignalAnnotations)
	return e
}

// cut returns at most n bytes of a text.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len(cutMark)], "") + cutMark
}

// cutAll returns texts of at most maxTexts together: whole ones in the order of their
// keys, then one that is cut.
func cutAll(texts map[string]string) map[string]string {
	n := 0
	for key, text := range texts {
		n += len(key) + len(text)
	}
	if n <= maxTexts {
		return texts
	}
	kept, left := map[string]string{}, maxTexts
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		room := left - len(key)
		if room < len(cutMark) {
			break
		}
		kept[key] = cut(texts[key], room)
		left = room - len(kept[key])
	}
	return kept
}

// size estimates the bytes that an event takes, in memory as well as on the way.
func (e Event) size() int {
	const fixed = 1024
	n := fixed + len(e.Data.OriginalPayload) + len(e.Data.ErrorDetails)
	for _, texts := range []map[string]string{e.Data.SignalLabels, e.Data.SignalAnnotations} {
		for key, text := range texts {
			n += len(key) + len(text)
		}
	}
	return n
}
