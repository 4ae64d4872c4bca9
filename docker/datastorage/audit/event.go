// Package audit is what the service is about: events, what they must look like, the
// form in which they are hashed, and the chains that they form. It knows neither
// HTTP nor SQL.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
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
	Data          json.RawMessage `json:"event_data"` // canonical once normalized
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
// PostgreSQL cannot.
func (e *Event) Normalize(now time.Time) error {
	if e.ID == uuid.Nil {
		e.ID = uuid.New()
	}
	// Whole microseconds: what PostgreSQL keeps of a time.
	e.Timestamp = e.Timestamp.UTC().Truncate(time.Microsecond)
	if e.Timestamp.After(now.Add(MaxAhead)) {
		return &InvalidError{"event_timestamp", fmt.Sprintf("lies more than %d minutes ahead", int(MaxAhead.Minutes()))}
	}
	if e.Timestamp.Before(now.Add(-MaxBack)) {
		return &InvalidError{"event_timestamp", fmt.Sprintf("lies more than %d days back", int(MaxBack.Hours()/24))}
	}
	if err := e.checkTexts(); err != nil {
		return err
	}
	data, err := canonical(e.Data)
	if err != nil {
		return err
	}
	e.Data = data
	return nil
}

// checkTexts refuses the NUL character, which JSON can express and PostgreSQL cannot
// keep.
func (e *Event) checkTexts() error {
	value := reflect.ValueOf(*e)
	for i := range value.NumField() {
		if field := value.Field(i); field.Kind() == reflect.String && strings.ContainsRune(field.String(), 0) {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			return &InvalidError{name, nulReason}
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

// ErrNotFound is in the chain of an error about an event that is not stored.
var ErrNotFound = errors.New("no such event")
