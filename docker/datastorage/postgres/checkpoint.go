package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// checkpointLock is held while a checkpoint is taken. It is that of a schema, as drainLock is.
	checkpointLock = "hashtextextended('datastorage checkpoint ' || current_schema(), 0)"
	// checkpointEvents bounds what a checkpoint closes, and with it what this process holds
	// of the events: some 3 MB.
	checkpointEvents = 10_000
)

// Mark is the newest event of a moment, and which transactions were at work then.
type Mark struct {
	Sequence     int64
	oldest, next int64 // transaction ids: of the oldest at work, and of the next to come
}

// Settled reports whether all transactions that were at work at m have ended at later. No
// event with a sequence up to m's can appear any more then: whoever took such a number did
// so in one of these.
func (m Mark) Settled(later Mark) bool { return later.oldest >= m.next }

// Mark returns the mark of this moment.
func (s *Store) Mark(ctx context.Context) (m Mark, err error) {
	err = s.signs.call(ctx, "mark", func(ctx context.Context) error {
		return s.signs.QueryRow(ctx, `SELECT coalesce((SELECT sequence FROM audit_events ORDER BY sequence DESC LIMIT 1), 0),
			pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).
			Scan(&m.Sequence, &m.oldest, &m.next)
	})
	return m, err
}

// TakeCheckpoint closes the events with sequences up to the given one, which must be
// settled, and that no checkpoint closes yet; at most 10,000 of them, and more says whether
// others are left. It returns the newest checkpoint; the zero Checkpoint when there never was
// an event. When the newest checkpoint that is known outside of the database is not in it,
// or the newest in it is not signed, the error wraps audit.ErrTampered.
func (s *Store) TakeCheckpoint(ctx context.Context, key audit.Key, outside audit.Checkpoint, upto int64) (newest audit.Checkpoint, more bool, err error) {
	err = s.signs.call(ctx, "checkpoint", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.signs, func(tx pgx.Tx) error {
			if newest, err = lockCheckpoints(ctx, tx, key, outside); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, `SELECT sequence, event_date, correlation_id, chain_position, event_hash FROM audit_events
				WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence LIMIT $3`, newest.Upto, upto, checkpointEvents)
			if err != nil {
				return err
			}
			months, ends := map[time.Time]audit.Checkpoint{}, map[string]audit.Link{}
			var sequence, position int64
			var day time.Time
			var correlation string
			var hash []byte
			read, err := pgx.ForEachRow(rows, []any{&sequence, &day, &correlation, &position, &hash}, func() error {
				month := day.AddDate(0, 0, 1-day.Day())
				c := months[month]
				c.Events, c.Digest = c.Events+1, c.Digest.Extend(sequence, hashOf(hash))
				months[month] = c
				if position > ends[correlation].Position {
					ends[correlation] = audit.Link{Position: position, Hash: hashOf(hash)}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if more = read.RowsAffected() == checkpointEvents; more {
				upto = sequence
			}
			after := newest.Upto
			for _, month := range slices.SortedFunc(maps.Keys(months), time.Time.Compare) {
				c := months[month]
				c.Month, c.After, c.Upto = month, after, upto
				if newest, err = addCheckpoint(ctx, tx, key, newest, c); err != nil {
					return err
				}
			}
			return signEnds(ctx, tx, key, ends)
		})
	})
	return newest, more, err
}

// lockCheckpoints lets nobody else add one until the end of the transaction, and returns
// the newest, which must be that outside, or a later one.
func lockCheckpoints(ctx context.Context, tx pgx.Tx, key audit.Key, outside audit.Checkpoint) (newest audit.Checkpoint, err error) {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock("+checkpointLock+")"); err != nil {
		return newest, err
	}
	if newest, err = checkpoint(ctx, tx, "ORDER BY number DESC LIMIT 1"); err != nil {
		return newest, err
	}
	if newest.Number > 0 && key.Sign(&newest) != newest.MAC {
		return newest, fmt.Errorf("checkpoint %d is not signed with this key: %w", newest.Number, audit.ErrTampered)
	}
	kept, err := checkpoint(ctx, tx, "WHERE number = $1", outside.Number)
	if err == nil && kept.MAC != outside.MAC {
		err = fmt.Errorf("checkpoint %d, which was taken, is gone or another one: %w", outside.Number, audit.ErrTampered)
	}
	return newest, err
}

// addCheckpoint numbers c, signs it and stores it behind newest.
func addCheckpoint(ctx context.Context, tx pgx.Tx, key audit.Key, newest, c audit.Checkpoint) (audit.Checkpoint, error) {
	c.Number, c.Previous, c.At = newest.Number+1, newest.MAC, time.Now().UTC().Truncate(time.Microsecond)
	c.MAC = key.Sign(&c)
	_, err := tx.Exec(ctx, "INSERT INTO audit_checkpoints ("+checkpointColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		c.Number, c.At, c.Month, c.Removed, c.After, c.Upto, c.Events, c.Digest[:], c.Previous[:], c.MAC[:])
	return c, err
}

// signEnds stores where chains end. A position that was signed before is one that was
// tampered with, and stays.
func signEnds(ctx context.Context, tx pgx.Tx, key audit.Key, ends map[string]audit.Link) error {
	var correlations []string
	var lengths []int64
	var macs [][]byte
	for correlation, end := range ends {
		mac := key.SignEnd(correlation, end)
		correlations, lengths, macs = append(correlations, correlation), append(lengths, end.Position), append(macs, mac[:])
	}
	// Nobody else inserts at the same time. ON CONFLICT DO NOTHING takes twice as long.
	_, err := tx.Exec(ctx, `INSERT INTO audit_signed_ends (correlation_id, length, mac)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS signed (correlation_id, length, mac)
		WHERE NOT EXISTS (SELECT FROM audit_signed_ends AS before WHERE before.correlation_id = signed.correlation_id AND before.length = signed.length)
		ORDER BY correlation_id`, correlations, lengths, macs)
	return err
}

const checkpointColumns = "number, taken_at, month, removed, after_sequence, upto_sequence, events, digest, previous_mac, mac"

// checkpoint reads the first one that rest selects; the zero Checkpoint when there is none.
func checkpoint(ctx context.Context, tx pgx.Tx, rest string, args ...any) (c audit.Checkpoint, err error) {
	list, err := checkpoints(ctx, tx, rest, args...)
	if len(list) > 0 {
		c = list[0]
	}
	return c, err
}

func checkpoints(ctx context.Context, tx pgx.Tx, rest string, args ...any) ([]audit.Checkpoint, error) {
	rows, err := tx.Query(ctx, "SELECT "+checkpointColumns+" FROM audit_checkpoints "+rest, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c audit.Checkpoint, err error) {
		var digest, previous, mac []byte
		err = row.Scan(&c.Number, &c.At, &c.Month, &c.Removed, &c.After, &c.Upto, &c.Events, &digest, &previous, &mac)
		c.Digest, c.Previous, c.MAC = hashOf(digest), hashOf(previous), hashOf(mac)
		return c, err
	})
}

// removals returns the months that were removed by policy, and the checkpoints that say so.
func removals(ctx context.Context, tx pgx.Tx, key audit.Key) (map[time.Time]int64, error) {
	list, err := checkpoints(ctx, tx, "WHERE removed ORDER BY number")
	months := map[time.Time]int64{}
	for _, c := range list {
		if key.Sign(&c) == c.MAC {
			months[c.Month] = c.Number
		}
	}
	return months, err
}

// hashOf reads a hash. A row that was tampered with may hold anything; what does not fit
// differs from what is expected.
func hashOf(stored []byte) (h audit.Hash) {
	copy(h[:], stored)
	return h
}
