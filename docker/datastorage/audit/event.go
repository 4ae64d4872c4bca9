// Package audit is what the service is about: events, what they must look like, the
// form in which they are hashed, and the chains that they form. It knows neither
// HTTP nor SQL.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// An event may lie this far from now: clocks run apart, and senders that were cut
// off deliver late.
const (
	MaxAhead = 60 * time.Minute
	MaxBack  = 7 * 24 * time.Hour
)

// Event is what a sender recorded. Texts that were not given are empty. The order of
// the fields and their JSON names are part of the canonical form: changing them
// breaks every chain that is stored.
type Event struct {
	ID            uuid.UUID       `json:"event_id"`
	Version       string          `json:"version"`
	Type          string          `json:"event_type"`
	Timestamp     time.Time       `json:"event_timestamp"` // UTC, whole microseconds
	Category      string          `json:"event_category"`
	Action        string          `json:"event_action"`
	Outcome       string          `json:"event_outcome"`
	CorrelationID string          `json:"correlation_id"`
	ActorType     string          `json:"actor_type,omitempty"`
	ActorID       string          `json:"actor_id,omitempty"`
	ResourceType  string          `json:"resource_type,omitempty"`
	ResourceID    string          `json:"resource_id,omitempty"`
	Namespace     string          `json:"namespace,omitempty"`
	ClusterID     string          `json:"cluster_id,omitempty"`
	Severity      string          `json:"severity,omitempty"`
	DurationMS    *int64          `json:"duration_ms,omitempty"`
	ErrorCode     string          `json:"error_code,omitempty"`
	ErrorMessage  string          `json:"error_message,omitempty"`
	ParentID      *uuid.UUID      `json:"parent_event_id,omitempty"`
	RecordedBy    string          `json:"recorded_by,omitempty"` // who the writer proved to be; never taken from what he sent
	Data          json.RawMessage `json:"event_data"`            // canonical once normalized
}

// Link is an event's place in the chain of its correlation_id.
type Link struct {
	Position int64 // from 1
	Previous Hash  // the hash of the event before; zero for the first
	Hash     Hash
}

// Stored is an event as it is kept.
type Stored struct {
	Event
	Link
}

// Receipt says what became of one written event.
type Receipt struct {
	ID        uuid.UUID
	Timestamp time.Time // of the event that is stored under this id
	Duplicate bool      // an event with this id was stored before
}

// InvalidError is an event that cannot be stored as it is.
type InvalidError struct {
	Path   string // of the value at fault, such as event_data.items[3]
	Reason string
}

// Error names the value and the reason.
func (e *InvalidError) Error() string { return e.Path + ": " + e.Reason }

// Normalize brings an event into the one form in which it is stored and hashed: an
// id when it has none, UTC and microseconds, canonical data. It returns an
// *InvalidError when the event's time lies too far from now or a value holds what
// PostgreSQL cannot. An id that the service makes begins with its time, so that the
// index of ids grows at one end.
func (e *Event) Normalize(now time.Time) error {
	if err := e.Complete(now); err != nil {
		return err
	}
	return e.normalizeData()
}

// Complete is Normalize for an event whose data is canonical already.
func (e *Event) Complete(now time.Time) error {
	if e.ID == uuid.Nil {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("event_id: %w", err)
		}
		e.ID = id
	}
	// Whole microseconds: what PostgreSQL keeps of a time.
	e.Timestamp = e.Timestamp.UTC().Truncate(time.Microsecond)
	if e.Timestamp.After(now.Add(MaxAhead)) {
		return &InvalidError{"event_timestamp", fmt.Sprintf("lies more than %d minutes ahead", int(MaxAhead.Minutes()))}
	}
	if e.Timestamp.Before(now.Add(-MaxBack)) {
		return &InvalidError{"event_timestamp", fmt.Sprintf("lies more than %d days back", int(MaxBack.Hours()/24))}
	}
	return e.checkTexts()
}

// TextFields are the members of an event that hold text.
var TextFields = []struct {
	Name string // in JSON
	Of   func(*Event) *string
}{
	{"version", func(e *Event) *string { return &e.Version }},
	{"event_type", func(e *Event) *string { return &e.Type }},
	{"event_category", func(e *Event) *string { return &e.Category }},
	{"event_action", func(e *Event) *string { return &e.Action }},
	{"event_outcome", func(e *Event) *string { return &e.Outcome }},
	{"correlation_id", func(e *Event) *string { return &e.CorrelationID }},
	{"actor_type", func(e *Event) *string { return &e.ActorType }},
	{"actor_id", func(e *Event) *string { return &e.ActorID }},
	{"resource_type", func(e *Event) *string { return &e.ResourceType }},
	{"resource_id", func(e *Event) *string { return &e.ResourceID }},
	{"namespace", func(e *Event) *string { return &e.Namespace }},
	{"cluster_id", func(e *Event) *string { return &e.ClusterID }},
	{"severity", func(e *Event) *string { return &e.Severity }},
	{"error_code", func(e *Event) *string { return &e.ErrorCode }},
	{"error_message", func(e *Event) *string { return &e.ErrorMessage }},
	{"recorded_by", func(e *Event) *string { return &e.RecordedBy }},
}

// checkTexts refuses the NUL character, which JSON can express and PostgreSQL cannot
// keep.
func (e *Event) checkTexts() error {
	for _, field := range TextFields {
		if strings.IndexByte(*field.Of(e), 0) >= 0 {
			return &InvalidError{field.Name, `holds the character \u0000`}
		}
	}
	return nil
}

// ErrUnavailable is in the chain of an error that says nothing about the events: the
// store does not answer, and the same write may succeed later.
var ErrUnavailable = errors.New("the store does not answer")

// ErrRejected is in the chain of an error about an event that the store can never
// take, however often it is tried.
var ErrRejected = errors.New("the store does not take the event")

// ErrTooSlow is in the chain of an error about what did not end in time although the store
// answers.
var ErrTooSlow = errors.New("it took longer than it may")

// ConflictError is an event whose id is that of another one.
type ConflictError struct {
	ID    uuid.UUID
	Index int // among the events that were written together
}

// Error names the id.
func (e *ConflictError) Error() string {
	return "event_id " + e.ID.String() + " is that of an event that says something else"
}

// ErrNotFound is in the chain of an error about an event that is not stored.
var ErrNotFound = errors.New("no such event")

// ErrTampered is in the chain of an error about what is stored and cannot be what was
// written.
var ErrTampered = errors.New("the audit trail is not what was written")
