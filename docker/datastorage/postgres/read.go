package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// columns is what scan reads, in its order.
const columns = `event_id, version, event_type, event_timestamp, event_category, event_action, event_outcome, correlation_id,
	coalesce(actor_type, ''), coalesce(actor_id, ''), coalesce(resource_type, ''), coalesce(resource_id, ''),
	coalesce(namespace, ''), coalesce(cluster_id, ''), coalesce(severity, ''), duration_ms,
	coalesce(error_code, ''), coalesce(error_message, ''), parent_event_id, coalesce(recorded_by, ''), event_data, chain_position, previous_hash, event_hash`

// scan reads columns into an event; more follow them.
func scan(row pgx.Row, more ...any) (audit.Stored, error) {
	var e audit.Stored
	var previous, hash []byte
	err := row.Scan(append([]any{
		&e.ID, &e.Version, &e.Type, &e.Timestamp, &e.Category, &e.Action, &e.Outcome, &e.CorrelationID,
		&e.ActorType, &e.ActorID, &e.ResourceType, &e.ResourceID,
		&e.Namespace, &e.ClusterID, &e.Severity, &e.DurationMS,
		&e.ErrorCode, &e.ErrorMessage, &e.ParentID, &e.RecordedBy, (*[]byte)(&e.Data), &e.Position, &previous, &hash,
	}, more...)...)
	if err != nil {
		return e, err
	}
	e.Timestamp = e.Timestamp.UTC()
	// A row that was tampered with may hold anything here; what does not fit
	// stays zero and breaks the chain.
	e.Previous, e.Hash = hashOf(previous), hashOf(hash)
	return e, nil
}

// Get returns one event. The error wraps audit.ErrNotFound when there is none.
func (s *Store) Get(ctx context.Context, id uuid.UUID) (audit.Stored, error) {
	var event audit.Stored
	err := s.reads.call(ctx, "event "+id.String(), func(ctx context.Context) error {
		// The timestamp names the partition and is what its index begins with.
		var err error
		event, err = scan(s.reads.QueryRow(ctx, "SELECT "+columns+` FROM audit_events WHERE event_id = $1 AND
			event_timestamp = (SELECT event_timestamp FROM audit_event_ids WHERE event_id = $1) AND
			event_date = (SELECT (event_timestamp AT TIME ZONE 'UTC')::date FROM audit_event_ids WHERE event_id = $1)`, id))
		if errors.Is(err, pgx.ErrNoRows) {
			return audit.ErrNotFound
		}
		return err
	})
	return event, err
}

// Cursor is a place in the order in which events are listed.
type Cursor struct {
	Timestamp time.Time
	Sequence  int64
}

// Query selects events. Zero values select all.
type Query struct {
	CorrelationID, Type, Category, Outcome, Severity string

	Since, Until time.Time // both included
	After        *Cursor   // only what comes after this place, in the listing's order
	Limit        int       // at least 1
	Offset       int
}

// Page is a part of what a Query selects, newest first.
type Page struct {
	Events []audit.Stored
	Total  int64   // what the filters select, not counting After; at most MaxTotal
	More   bool    // the filters select more than Total
	Next   *Cursor // the place of the last event; nil when nothing follows it
}

const (
	// MaxTotal is how far what is selected is counted.
	MaxTotal = 10_000
	// pageBytes is where a page ends before its limit: with the event that goes
	// beyond it.
	pageBytes = 1 << 20
	// eventBytes is what an event takes beside its data, about.
	eventBytes = 500
)

// Find lists events, newest first; events of the same microsecond in the order in
// which they were stored, the last first. A page of large events ends before its limit.
func (s *Store) Find(ctx context.Context, q Query) (Page, error) {
	var page Page
	err := s.reads.call(ctx, "query", func(ctx context.Context) error {
		count, list := q.sql()
		conn, err := s.reads.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		if err := conn.QueryRow(ctx, count.text, count.args...).Scan(&page.Total); err != nil {
			return err
		}
		if page.More = page.Total > MaxTotal; page.More {
			page.Total = MaxTotal
		}
		// What is left of a page that ends early is not read but cancelled.
		listing, enough := context.WithCancel(ctx)
		defer enough()
		rows, err := conn.Query(listing, list.text, list.args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		var place Cursor
		for size := 0; rows.Next(); {
			if len(page.Events) == q.Limit || size >= pageBytes {
				page.Next = &place
				enough()
				return nil
			}
			event, err := scan(rows, &place.Sequence)
			if err != nil {
				return err
			}
			place.Timestamp = event.Timestamp
			size += eventBytes + len(event.Data)
			page.Events = append(page.Events, event)
		}
		return rows.Err()
	})
	return page, err
}

// statement is SQL and its arguments.
type statement struct {
	text string
	args []any
}

// sql returns the statements that count what the filters select and that list one
// event more than the limit.
func (q Query) sql() (count, list statement) {
	var conditions []string
	var args []any
	where := func(condition string, values ...any) {
		for _, value := range values {
			args = append(args, value)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		conditions = append(conditions, condition)
	}
	text := func() string {
		if len(conditions) == 0 {
			return ""
		}
		return " WHERE " + strings.Join(conditions, " AND ")
	}
	// In a fixed order, so that equal filters are one prepared statement.
	for _, filter := range []struct{ column, value string }{
		{"correlation_id", q.CorrelationID}, {"event_type", q.Type}, {"event_category", q.Category},
		{"event_outcome", q.Outcome}, {"severity", q.Severity},
	} {
		if filter.value != "" {
			where(filter.column+" = ?", filter.value)
		}
	}
	// The dates say the same again for the planner, which then leaves out the
	// months that cannot match.
	if !q.Since.IsZero() {
		where("event_timestamp >= ? AND event_date >= ?", q.Since, date(q.Since))
	}
	if !q.Until.IsZero() {
		where("event_timestamp <= ? AND event_date <= ?", q.Until, date(q.Until))
	}
	count = statement{fmt.Sprintf("SELECT count(*) FROM (SELECT FROM audit_events%s LIMIT %d) AS selected", text(), MaxTotal+1), args[:len(args):len(args)]}
	if q.After != nil {
		where("(event_timestamp, sequence) < (?, ?) AND event_date <= ?", q.After.Timestamp, q.After.Sequence, date(q.After.Timestamp))
	}
	list = statement{fmt.Sprintf("SELECT %s, sequence FROM audit_events%s ORDER BY event_timestamp DESC, sequence DESC LIMIT %d OFFSET %d",
		columns, text(), q.Limit+1, q.Offset), args}
	return count, list
}

// date returns the UTC date of a time.
func date(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }
