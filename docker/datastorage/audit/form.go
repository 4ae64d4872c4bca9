package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/canonical"
)

// Head appends the canonical form of the event up to its data: what encoding/json
// writes of it when it does not escape for HTML.
func (e *Event) Head(dst []byte) []byte {
	dst = append(dst, `{"event_id":"`...)
	id, _ := e.ID.MarshalText() // never an error
	dst = append(append(dst, id...), '"')
	text := func(name, value string, always bool) {
		if value != "" || always {
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = canonical.AppendString(dst, value)
		}
	}
	text("version", e.Version, true)
	text("event_type", e.Type, true)
	dst = append(dst, `,"event_timestamp":"`...)
	dst = append(e.Timestamp.AppendFormat(dst, time.RFC3339Nano), '"')
	text("event_category", e.Category, true)
	text("event_action", e.Action, true)
	text("event_outcome", e.Outcome, true)
	text("correlation_id", e.CorrelationID, true)
	text("actor_type", e.ActorType, false)
	text("actor_id", e.ActorID, false)
	text("resource_type", e.ResourceType, false)
	text("resource_id", e.ResourceID, false)
	text("namespace", e.Namespace, false)
	text("cluster_id", e.ClusterID, false)
	text("severity", e.Severity, false)
	if e.DurationMS != nil {
		dst = strconv.AppendInt(append(dst, `,"duration_ms":`...), *e.DurationMS, 10)
	}
	text("error_code", e.ErrorCode, false)
	text("error_message", e.ErrorMessage, false)
	if e.ParentID != nil {
		text("parent_event_id", e.ParentID.String(), true)
	}
	text("recorded_by", e.RecordedBy, false)
	return append(dst, `,"event_data":`...)
}

// Append appends the event as JSON, its canonical form; the event must be normalized.
func (e *Event) Append(dst []byte) []byte {
	return append(append(e.Head(dst), e.Data...), '}')
}

// Encode returns the event as JSON, for keeping it until Decode.
func (e *Event) Encode() []byte { return e.Append(make([]byte, 0, 1024+len(e.Data))) }

// Content returns a number by which two events with the same id are told apart when
// they say different things. It does not depend on who recorded them.
func (e *Event) Content() int64 {
	plain := *e
	plain.RecordedBy = ""
	var digest xxhash.Digest
	digest.Reset()
	_, _ = digest.Write(plain.Head(make([]byte, 0, 1024))) // never an error
	_, _ = digest.Write(e.Data)
	return int64(digest.Sum64())
}

// Decode returns the normalized event that Encode wrote. It does not look at the
// event's time: what was accepted once stays accepted.
func Decode(text []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("not an event: %w", err)
	}
	if e.ID == uuid.Nil || e.CorrelationID == "" {
		return e, errors.New("not an event: no event_id or no correlation_id")
	}
	if err := e.checkTexts(); err != nil {
		return e, err
	}
	e.Timestamp = e.Timestamp.UTC().Truncate(time.Microsecond)
	return e, e.normalizeData()
}

// normalizeData brings event_data into its canonical form.
func (e *Event) normalizeData() error {
	const path = "event_data"
	r := canonical.NewReader(e.Data)
	if r.Next() != '{' {
		return &InvalidError{path, "is not a JSON object"}
	}
	data, err := r.Value()
	if err == nil {
		err = r.End()
	}
	var at *canonical.ValueError
	switch {
	case errors.As(err, &at):
		return &InvalidError{path + at.Path, at.Reason}
	case err != nil:
		return &InvalidError{path, "is not one JSON object"}
	}
	e.Data = data
	return nil
}
