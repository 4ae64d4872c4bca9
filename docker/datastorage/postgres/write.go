package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// lockClass sets the locks of chains apart from other advisory locks.
	lockClass = 0x61756469
	// lockStripes bounds how many locks there can be: PostgreSQL keeps all locks
	// of all sessions in one table, with room for about 6,400 by default. Chains
	// that share a stripe only wait for each other.
	lockStripes = 2048
)

// Write stores events in one transaction, all or none, and returns a receipt for each
// in their order. An event whose id is stored already, or stands in the list before,
// is not stored again. Events of one correlation id are chained in their order. The
// events must be normalized. The write goes on when ctx is cancelled: an event that
// is half way in is better stored than in doubt.
func (s *Store) Write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
	var receipts []audit.Receipt
	err := s.call(context.WithoutCancel(ctx), "write", func(ctx context.Context) error {
		write := func() error {
			return s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) (err error) {
				receipts, err = writeAll(ctx, conn, events)
				return err
			})
		}
		err := write()
		switch {
		case err == nil || eventAtFault(err) || ctx.Err() != nil:
			return err
		case !noPartition(err):
			// A connection that broke since it was last used is found by using it.
			return write()
		}
		for _, event := range events {
			if err := s.addMonth(ctx, event.Timestamp); err != nil {
				return err
			}
		}
		return write()
	})
	return receipts, err
}

// writeAll is one transaction in two round trips: one that begins it and reads, one
// that writes and commits. When it fails, the pool closes the connection, and the
// server rolls back.
//
// Transactions cannot wait for each other in a circle: each takes the locks of its
// chains in ascending order and then inserts its ids in ascending order.
func writeAll(ctx context.Context, conn *pgxpool.Conn, events []audit.Event) ([]audit.Receipt, error) {
	fresh, ends, err := begin(ctx, conn, events)
	if err != nil {
		return nil, err
	}
	known, err := timestamps(ctx, conn, events, fresh)
	if err != nil {
		return nil, err
	}
	receipts := make([]audit.Receipt, len(events))
	stored := make([]audit.Stored, 0, len(fresh))
	for i, event := range events {
		receipts[i] = audit.Receipt{ID: event.ID, Timestamp: event.Timestamp}
		if !fresh[event.ID] {
			receipts[i].Duplicate = true
			if at, ok := known[event.ID]; ok {
				receipts[i].Timestamp = at
			}
			continue
		}
		delete(fresh, event.ID) // once: the next with this id is a duplicate
		known[event.ID] = event.Timestamp
		link, err := event.After(ends[event.CorrelationID])
		if err != nil {
			return nil, err
		}
		ends[event.CorrelationID] = link
		stored = append(stored, audit.Stored{Event: event, Link: link})
	}
	var batch pgx.Batch
	if len(stored) > 0 {
		queueInsert(&batch, stored)
		queueEnds(&batch, ends)
	}
	batch.Queue("COMMIT")
	return receipts, conn.SendBatch(ctx, &batch).Close()
}

// correlationsOf lists the chains that events belong to.
func correlationsOf(events []audit.Event) []string {
	correlations := make([]string, len(events))
	for i, event := range events {
		correlations[i] = event.CorrelationID
	}
	slices.Sort(correlations)
	return slices.Compact(correlations)
}

// begin begins a transaction, locks the chains of events, claims the ids that are new,
// and reads where the chains end. Each statement sees what was committed before the
// lock was given.
func begin(ctx context.Context, conn *pgxpool.Conn, events []audit.Event) (fresh map[uuid.UUID]bool, ends map[string]audit.Link, err error) {
	correlations := correlationsOf(events)
	byID := slices.SortedFunc(slices.Values(events), func(a, b audit.Event) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), a.Timestamp.Compare(b.Timestamp))
	})
	ids, times := make([]uuid.UUID, len(byID)), make([]time.Time, len(byID))
	for i, event := range byID {
		ids[i], times[i] = event.ID, event.Timestamp
	}

	var batch pgx.Batch
	batch.Queue("BEGIN")
	batch.Queue("SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::int[]) AS stripe", lockClass, stripes(correlations))
	fresh = make(map[uuid.UUID]bool, len(ids))
	batch.Queue(`INSERT INTO audit_event_ids (event_id, event_timestamp) SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
		ON CONFLICT DO NOTHING RETURNING event_id`, ids, times).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { fresh[id] = true; return nil })
		return err
	})
	ends = make(map[string]audit.Link, len(correlations))
	batch.Queue("SELECT correlation_id, length, last_hash FROM audit_chains WHERE correlation_id = ANY($1)", correlations).
		Query(func(rows pgx.Rows) error {
			var correlation string
			var length int64
			var hash []byte
			_, err := pgx.ForEachRow(rows, []any{&correlation, &length, &hash}, func() error {
				end := audit.Link{Position: length}
				copy(end.Hash[:], hash)
				ends[correlation] = end
				return nil
			})
			return err
		})
	return fresh, ends, conn.SendBatch(ctx, &batch).Close()
}

// stripes returns the locks of chains, in ascending order.
func stripes(correlations []string) []int32 {
	locks := make([]int32, len(correlations))
	for i, correlation := range correlations {
		sum := sha256.Sum256([]byte(correlation))
		locks[i] = int32(binary.BigEndian.Uint32(sum[:4]) % lockStripes)
	}
	slices.Sort(locks)
	return slices.Compact(locks)
}

// timestamps reads when the events that are stored already happened. It asks the
// database only when there are any.
func timestamps(ctx context.Context, conn *pgxpool.Conn, events []audit.Event, fresh map[uuid.UUID]bool) (map[uuid.UUID]time.Time, error) {
	known := make(map[uuid.UUID]time.Time)
	var ids []uuid.UUID
	for _, event := range events {
		if !fresh[event.ID] {
			ids = append(ids, event.ID)
		}
	}
	if len(ids) == 0 {
		return known, nil
	}
	rows, err := conn.Query(ctx, "SELECT event_id, event_timestamp FROM audit_event_ids WHERE event_id = ANY($1)", ids)
	if err != nil {
		return nil, err
	}
	var id uuid.UUID
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error { known[id] = at.UTC(); return nil })
	return known, err
}

// inserted are the columns of audit_events that a write fills, and where their values
// come from.
var inserted = []struct {
	column, kind string
	value        func(e *audit.Stored) any
}{
	{"event_date", "date", func(e *audit.Stored) any { return date(e.Timestamp) }},
	{"event_id", "uuid", func(e *audit.Stored) any { return e.ID }},
	{"version", "text", func(e *audit.Stored) any { return e.Version }},
	{"event_type", "text", func(e *audit.Stored) any { return e.Type }},
	{"event_timestamp", "timestamptz", func(e *audit.Stored) any { return e.Timestamp }},
	{"event_category", "text", func(e *audit.Stored) any { return e.Category }},
	{"event_action", "text", func(e *audit.Stored) any { return e.Action }},
	{"event_outcome", "text", func(e *audit.Stored) any { return e.Outcome }},
	{"correlation_id", "text", func(e *audit.Stored) any { return e.CorrelationID }},
	{"actor_type", "text", func(e *audit.Stored) any { return optional(e.ActorType) }},
	{"actor_id", "text", func(e *audit.Stored) any { return optional(e.ActorID) }},
	{"resource_type", "text", func(e *audit.Stored) any { return optional(e.ResourceType) }},
	{"resource_id", "text", func(e *audit.Stored) any { return optional(e.ResourceID) }},
	{"namespace", "text", func(e *audit.Stored) any { return optional(e.Namespace) }},
	{"cluster_id", "text", func(e *audit.Stored) any { return optional(e.ClusterID) }},
	{"severity", "text", func(e *audit.Stored) any { return optional(e.Severity) }},
	{"duration_ms", "bigint", func(e *audit.Stored) any { return e.DurationMS }},
	{"error_code", "text", func(e *audit.Stored) any { return optional(e.ErrorCode) }},
	{"error_message", "text", func(e *audit.Stored) any { return optional(e.ErrorMessage) }},
	{"parent_event_id", "uuid", func(e *audit.Stored) any { return e.ParentID }},
	{"event_data", "jsonb", func(e *audit.Stored) any { return string(e.Data) }},
	{"chain_position", "bigint", func(e *audit.Stored) any { return e.Position }},
	{"previous_hash", "bytea", func(e *audit.Stored) any { return e.Previous[:] }},
	{"event_hash", "bytea", func(e *audit.Stored) any { return e.Hash[:] }},
}

// insertSQL takes one array for each of the inserted columns.
var insertSQL = sync.OnceValue(func() string {
	var columns, arrays []string
	for i, c := range inserted {
		columns = append(columns, c.column)
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+1, c.kind))
	}
	return "INSERT INTO audit_events (" + strings.Join(columns, ", ") + ") SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ")"
})

// queueInsert writes the rows in their order, which is also that of their sequence.
func queueInsert(batch *pgx.Batch, events []audit.Stored) {
	arrays := make([]any, len(inserted))
	for i, c := range inserted {
		values := make(pgtype.FlatArray[any], len(events))
		for j := range events {
			values[j] = c.value(&events[j])
		}
		arrays[i] = values
	}
	batch.Queue(insertSQL(), arrays...)
}

// optional makes a text that was not given NULL.
func optional(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// queueEnds writes where the chains end now. It runs under their locks.
func queueEnds(batch *pgx.Batch, ends map[string]audit.Link) {
	var correlations []string
	var lengths []int64
	var hashes [][]byte
	for correlation, end := range ends {
		correlations = append(correlations, correlation)
		lengths = append(lengths, end.Position)
		hashes = append(hashes, end.Hash[:])
	}
	batch.Queue(`INSERT INTO audit_chains (correlation_id, length, last_hash)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])
		ON CONFLICT (correlation_id) DO UPDATE SET length = excluded.length, last_hash = excluded.last_hash`,
		correlations, lengths, hashes)
}
