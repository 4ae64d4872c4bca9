package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// verifyPart is how many events are read at once while something is verified, so that ending
// early leaves little that is not read.
const verifyPart = 200

// verifyFor is how long a verification holds its connection, and the lock of a reader: others
// wait for the one, and the removal of a month for the other, with all writers behind it.
const verifyFor = lockWait / 2

// verify runs fn on what is stored at one moment. Fn should end, with what it has, when
// more is no longer true: after verifyFor.
func (s *Store) verify(ctx context.Context, what string, fn func(ctx context.Context, tx pgx.Tx, more func() bool) error) error {
	return s.verifies.call(ctx, what, func(ctx context.Context) error {
		options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
		return pgx.BeginTxFunc(ctx, s.verifies, options, func(tx pgx.Tx) error {
			// Before the moment is fixed: a month that is removed later would be gone without
			// the checkpoint that says so.
			if _, err := tx.Exec(ctx, "LOCK TABLE audit_events IN ACCESS SHARE MODE"); err != nil {
				return err
			}
			enough := time.Now().Add(verifyFor)
			return fn(ctx, tx, func() bool { return time.Now().Before(enough) })
		})
	})
}

// VerifyChain computes the chain of a correlation id again from what is stored, and
// compares it with its newest signed end. It goes on behind from; the zero Verified begins
// at the beginning. What takes too long for one call comes back incomplete.
func (s *Store) VerifyChain(ctx context.Context, key audit.Key, correlation string, from audit.Verified) (found audit.Verified, err error) {
	err = s.verify(ctx, "verify chain", func(ctx context.Context, tx pgx.Tx, more func() bool) error {
		ends, err := endsOf(ctx, tx, key, correlation)
		if err != nil {
			return err
		}
		verifier := audit.NewVerifier(from, ends)
		// The event at which the part before ended comes first, so that a second one at
		// its place is seen.
		last, sequence := from.Last.Position, int64(0)
		for {
			n, err := eachEvent(ctx, tx, `WHERE correlation_id = $1 AND (chain_position, sequence) > ($2, $3)
				ORDER BY chain_position, sequence LIMIT $4`, func(event *audit.Stored, at int64) {
				last, sequence = event.Position, at
				verifier.Next(event)
			}, correlation, last, sequence, verifyPart)
			switch {
			case err != nil:
				return err
			case n < verifyPart:
				found = verifier.Result()
				return nil
			case !more():
				found = verifier.SoFar()
				return nil
			}
		}
	})
	return found, err
}

// eachEvent calls fn with each event that rest selects, and its sequence; it returns how
// many there were.
func eachEvent(ctx context.Context, tx pgx.Tx, rest string, fn func(event *audit.Stored, sequence int64), args ...any) (n int, err error) {
	rows, err := tx.Query(ctx, "SELECT "+columns+", sequence FROM audit_events "+rest, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var sequence int64
		event, err := scan(rows, &sequence)
		if err != nil {
			return n, err
		}
		fn(&event, sequence)
	}
	return n, rows.Err()
}

// endsOf reads what is known of a chain beside its events.
func endsOf(ctx context.Context, tx pgx.Tx, key audit.Key, correlation string) (ends audit.Ends, err error) {
	var hash, mac []byte
	err = tx.QueryRow(ctx, "SELECT length, last_hash FROM audit_chains WHERE correlation_id = $1", correlation).Scan(&ends.Written.Position, &hash)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return ends, err
	}
	ends.Written.Hash = hashOf(hash)
	err = tx.QueryRow(ctx, "SELECT length, mac FROM audit_signed_ends WHERE correlation_id = $1 ORDER BY length DESC LIMIT 1", correlation).Scan(&ends.Signed, &mac)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return ends, err
	}
	ends.Valid = func(end audit.Link) bool { return hashOf(mac) == key.SignEnd(correlation, end) }
	ends.Removed, err = runsOf(ctx, tx, key, correlation)
	return ends, err
}

// runsOf reads which parts of a chain were removed by policy, in their order. One that is not
// signed is none.
func runsOf(ctx context.Context, tx pgx.Tx, key audit.Key, correlation string) (runs []audit.Run, err error) {
	rows, err := tx.Query(ctx, "SELECT first_position, last_position, last_hash, mac FROM audit_removed_runs WHERE correlation_id = $1 ORDER BY first_position", correlation)
	if err != nil {
		return nil, err
	}
	var run audit.Run
	var hash, mac []byte
	_, err = pgx.ForEachRow(rows, []any{&run.First, &run.Last.Position, &hash, &mac}, func() error {
		if run.Last.Hash = hashOf(hash); key.SignRun(correlation, run) == hashOf(mac) {
			runs = append(runs, run)
		}
		return nil
	})
	return runs, err
}

// VerifyAll compares all events that are signed, in the order in which they were inserted,
// with the checkpoints that close them. Outside is the newest checkpoint as it is known
// outside of the database; the zero Checkpoint when none is. It goes on at from; the zero
// Place begins at the beginning. What takes too long for one call comes back incomplete.
func (s *Store) VerifyAll(ctx context.Context, key audit.Key, outside audit.Checkpoint, from audit.Place) (found audit.Report, err error) {
	err = s.verify(ctx, "verify", func(ctx context.Context, tx pgx.Tx, more func() bool) error {
		found = audit.Report{Place: from}
		removed, err := removals(ctx, tx, key)
		if err != nil {
			return err
		}
		last, err := checkpoint(ctx, tx, "WHERE number = $1", from.Checkpoint)
		for err == nil && !found.Complete && found.Broken == nil {
			var list []audit.Checkpoint
			if list, err = checkpoints(ctx, tx, "WHERE number > $1 ORDER BY number LIMIT $2", found.Checkpoint, verifyPart); err != nil {
				return err
			}
			reason := ""
			if found.Complete = len(list) == 0; found.Complete && found.Checkpoint < outside.Number {
				reason = audit.Missing
			}
			for i := range list {
				if reason = doubt(key, &last, &list[i], &outside); reason != "" {
					list = list[:i]
					break
				}
				last = list[i]
			}
			for len(list) > 0 {
				n, kept := together(list, removed)
				if kept {
					err = verifyClosed(ctx, tx, list[:n], &found, more)
				} else {
					found.Place = audit.Place{Checkpoint: list[0].Number, Total: found.Total}
				}
				if err != nil || found.Broken != nil || !more() {
					return err
				}
				list = list[n:]
			}
			if reason != "" {
				found.Broken = &audit.Break{Position: found.Checkpoint + 1, Reason: reason}
			}
		}
		return err
	})
	return found, err
}

// doubt is why a checkpoint is not the one that was taken after last; empty when it is.
func doubt(key audit.Key, last, c, outside *audit.Checkpoint) (reason string) {
	switch {
	case c.Number != last.Number+1:
		return audit.Missing
	case key.Sign(c) != c.MAC, c.Previous != last.MAC, c.Number == outside.Number && c.MAC != outside.MAC:
		return audit.Changed
	}
	return ""
}

// together is how many of the first checkpoints close events that are read as one: of one
// month, each behind those of the one before. Kept is false when there is one, whose events
// were removed by policy or are none.
func together(list []audit.Checkpoint, removed map[time.Time]int64) (n int, kept bool) {
	for ; n < len(list); n++ {
		c := &list[n]
		there := !c.Removed && c.Number > removed[c.Month]
		if n == 0 && !there {
			return 1, false
		}
		if n > 0 && (!there || c.Month != list[0].Month || c.After != list[n-1].Upto) {
			break
		}
	}
	return n, true
}

// verifyClosed compares the events that checkpoints close with them, up to the end, a break,
// or where there is no more time.
func verifyClosed(ctx context.Context, tx pgx.Tx, list []audit.Checkpoint, found *audit.Report, more func() bool) error {
	broken := func(reason string, event uuid.UUID) {
		if found.Broken == nil {
			found.Broken = &audit.Break{Position: list[0].Number, EventID: event, Reason: reason}
		}
	}
	// closes ends the first checkpoint, and goes on with the next.
	closes := func() {
		c := &list[0]
		switch {
		case found.Events < c.Events:
			broken(audit.Missing, uuid.Nil)
		case found.Events > c.Events:
			broken(audit.Unknown, uuid.Nil)
		case found.Digest != c.Digest:
			broken(audit.Changed, uuid.Nil)
		default:
			found.Place, list = audit.Place{Checkpoint: c.Number, Total: found.Total}, list[1:]
		}
	}
	after, upto, month := max(found.Sequence, list[0].After), list[len(list)-1].Upto, list[0].Month
	for n := verifyPart; n == verifyPart; {
		var err error
		n, err = eachEvent(ctx, tx, `WHERE sequence > $1 AND sequence <= $2 AND event_date >= $3 AND event_date < $4
			ORDER BY sequence LIMIT $5`, func(event *audit.Stored, sequence int64) {
			for found.Broken == nil && sequence > list[0].Upto {
				closes()
			}
			if found.Broken != nil {
				return
			}
			if !event.Whole() {
				broken(audit.Changed, event.ID)
			}
			found.Sequence, found.Digest = sequence, found.Digest.Extend(sequence, event.Hash)
			found.Events++
			found.Total++
			after = sequence
		}, after, upto, month, month.AddDate(0, 1, 0), verifyPart)
		if err != nil || found.Broken != nil || n == verifyPart && !more() {
			return err
		}
	}
	for found.Broken == nil && len(list) > 0 {
		closes()
	}
	return nil
}
