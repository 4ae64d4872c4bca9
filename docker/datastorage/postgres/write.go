package postgres

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// stripeClass and chainClass set the locks of stripes and of chains apart from other
	// advisory locks.
	stripeClass = 0x61756469
	chainClass  = 0x6175646a
	// lockStripes bounds how many locks a transaction with many chains takes, and maxChains
	// those of others: PostgreSQL keeps all locks of all sessions in one table, with room for
	// about 6,400 by default.
	lockStripes = 2048
	maxChains   = 256
)

// Write stores events in one transaction, all or none, and returns a receipt for each
// in their order. An event whose id is stored already, or stands in the list before,
// is not stored again; when it says something else, the error holds an
// *audit.ConflictError. Events of one correlation id are chained in their order. The
// events must be normalized. The write goes on when ctx is cancelled: an event that
// is half way in is better stored than in doubt. Its deadline holds.
func (s *Store) Write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
	return s.writes.write(ctx, events)
}

// WriteLate is Write with the longer deadline of events for which nobody waits.
func (s *Store) WriteLate(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
	return s.drains.write(ctx, events)
}

func (p pool) write(ctx context.Context, events []audit.Event) (receipts []audit.Receipt, err error) {
	working := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		working, cancel = context.WithDeadline(working, deadline)
		defer cancel()
	}
	err = p.call(working, "write", func(ctx context.Context) error {
		write := func() error {
			return p.AcquireFunc(ctx, func(conn *pgxpool.Conn) (err error) {
				receipts, err = writeAll(ctx, conn, events)
				return err
			})
		}
		err := write()
		var conflict *audit.ConflictError
		switch {
		case err == nil || eventAtFault(err) || errors.As(err, &conflict) || ctx.Err() != nil || code(err) == "57014":
			return err
		case !noPartition(err):
			// A connection that broke since it was last used is found by using it.
			return write()
		}
		for _, event := range events {
			if err := p.addMonth(ctx, event.Timestamp); err != nil {
				return err
			}
		}
		return write()
	})
	return receipts, err
}

// writeAll is one transaction: a round trip that begins it and reads, one that copies the
// rows, and one that writes where the chains end and commits. When it fails, the pool
// closes the connection, and the server rolls back.
//
// Transactions cannot wait for each other in a circle: each takes the locks of its stripes in
// ascending order, then those of its chains in theirs, and then inserts its ids in theirs.
func writeAll(ctx context.Context, conn *pgxpool.Conn, events []audit.Event) ([]audit.Receipt, error) {
	contents := make([]int64, len(events))
	for i := range events {
		contents[i] = events[i].Content()
	}
	fresh, ends, err := begin(ctx, conn, events, contents)
	if err != nil {
		return nil, err
	}
	known, err := stored(ctx, conn, events, fresh)
	if err != nil {
		return nil, err
	}
	receipts := make([]audit.Receipt, len(events))
	rows := make([]audit.Stored, 0, len(fresh))
	for i, event := range events {
		receipts[i] = audit.Receipt{ID: event.ID, Timestamp: event.Timestamp}
		if !fresh[event.ID] {
			receipts[i].Duplicate = true
			if before, ok := known[event.ID]; ok {
				receipts[i].Timestamp = before.at
				if before.content != nil && *before.content != contents[i] {
					return nil, &audit.ConflictError{ID: event.ID, Index: i}
				}
			}
			continue
		}
		delete(fresh, event.ID) // once: the next with this id is a duplicate
		known[event.ID] = earlier{event.Timestamp, &contents[i]}
		link := event.After(ends[event.CorrelationID])
		ends[event.CorrelationID] = link
		rows = append(rows, audit.Stored{Event: event, Link: link})
	}
	var batch pgx.Batch
	if len(rows) > 0 {
		if err := copyRows(ctx, conn.Conn(), rows); err != nil {
			return nil, err
		}
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
func begin(ctx context.Context, conn *pgxpool.Conn, events []audit.Event, contents []int64) (fresh map[uuid.UUID]bool, ends map[string]audit.Link, err error) {
	correlations := correlationsOf(events)
	byID := make([]int, len(events))
	for i := range byID {
		byID[i] = i
	}
	slices.SortFunc(byID, func(a, b int) int { return cmp.Or(bytes.Compare(events[a].ID[:], events[b].ID[:]), cmp.Compare(a, b)) })
	// Arrays, because pgx turns each uuid.UUID into text and back.
	ids, times, sums := make([][16]byte, len(byID)), make([]time.Time, len(byID)), make([]int64, len(byID))
	for i, at := range byID {
		ids[i], times[i], sums[i] = events[at].ID, events[at].Timestamp, contents[at]
	}

	var batch pgx.Batch
	batch.Queue("BEGIN")
	stripes, chains := locksOf(correlations)
	if len(correlations) > maxChains {
		batch.Queue("SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::int[]) AS stripe", stripeClass, stripes)
	} else {
		batch.Queue("SELECT pg_advisory_xact_lock_shared($1, stripe) FROM unnest($2::int[]) AS stripe", stripeClass, stripes)
		batch.Queue("SELECT pg_advisory_xact_lock($1, chain) FROM unnest($2::int[]) AS chain", chainClass, chains)
	}
	fresh = make(map[uuid.UUID]bool, len(ids))
	batch.Queue(`INSERT INTO audit_event_ids (event_id, event_timestamp, content) SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[])
		ON CONFLICT DO NOTHING RETURNING event_id`, ids, times, sums).Query(func(rows pgx.Rows) error {
		var id [16]byte
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

// locksOf returns the stripes that chains belong to, and the locks of the chains themselves,
// each in ascending order. A transaction with few chains shares its stripes with others and
// locks its chains; one with many has the stripes alone. Of two batches with fifty chains each,
// half would wait for a stripe that both have, did they not share it. Chains that happen to
// have the same lock only wait for each other.
func locksOf(correlations []string) (stripes, chains []int32) {
	for _, correlation := range correlations {
		sum := sha256.Sum256([]byte(correlation))
		stripes = append(stripes, int32(binary.BigEndian.Uint32(sum[:4])%lockStripes))
		chains = append(chains, int32(binary.BigEndian.Uint32(sum[4:8])))
	}
	slices.Sort(stripes)
	slices.Sort(chains)
	return slices.Compact(stripes), slices.Compact(chains)
}

// earlier is what is known of an event that is stored already. Content is nil of those
// that were stored before contents were kept.
type earlier struct {
	at      time.Time
	content *int64
}

// stored reads what is known of the events that are stored already. It asks the database
// only when there are any.
func stored(ctx context.Context, conn *pgxpool.Conn, events []audit.Event, fresh map[uuid.UUID]bool) (map[uuid.UUID]earlier, error) {
	known := make(map[uuid.UUID]earlier)
	var ids [][16]byte
	for i := range events {
		if !fresh[events[i].ID] {
			ids = append(ids, events[i].ID)
		}
	}
	if len(ids) == 0 {
		return known, nil
	}
	rows, err := conn.Query(ctx, "SELECT event_id, event_timestamp, content FROM audit_event_ids WHERE event_id = ANY($1)", ids)
	if err != nil {
		return nil, err
	}
	var id [16]byte
	var before earlier
	_, err = pgx.ForEachRow(rows, []any{&id, &before.at, &before.content}, func() error {
		known[id] = earlier{before.at.UTC(), before.content}
		before.content = nil
		return nil
	})
	return known, err
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
