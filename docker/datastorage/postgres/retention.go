package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// lockWait is how long the removal of a month waits for the lock of the whole table. All
// writers wait behind it.
const lockWait = time.Second

// Months returns the first days of the months that have a partition, the oldest first.
func Months(ctx context.Context, conn *pgx.Conn) ([]time.Time, error) {
	rows, err := conn.Query(ctx, `SELECT to_date(right(relname, 7), 'YYYY_MM') AS month FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
		WHERE inhparent = 'audit_events'::regclass ORDER BY month`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[time.Time])
}

// RemoveMonth removes the events of a month, with a checkpoint that says so, which it
// returns, and then their ids. The connection must be that of the tables' owner. A month in
// which something was removed or added that checkpoints do not know stays: what is there
// is evidence.
func RemoveMonth(ctx context.Context, conn *pgx.Conn, key audit.Key, outside audit.Checkpoint, month time.Time) (removed audit.Checkpoint, err error) {
	partition := pgx.Identifier{"audit_events_" + month.Format("2006_01")}.Sanitize()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		newest, err := lockCheckpoints(ctx, tx, key, outside)
		if err != nil {
			return err
		}
		// As everybody else it locks the table before a partition of it: who locks the whole table
		// has the first and waits for the second. Readers and writers do not wait for this.
		if _, err := tx.Exec(ctx, "LOCK TABLE ONLY audit_events IN ACCESS SHARE MODE"); err != nil {
			return err
		}
		var stored, signed int64
		if err := tx.QueryRow(ctx, "SELECT (SELECT count(*) FROM "+partition+`), (SELECT coalesce(sum(events), 0) FROM audit_checkpoints WHERE month = $1
			AND NOT removed AND number > (SELECT coalesce(max(number), 0) FROM audit_checkpoints WHERE month = $1 AND removed))`, month).Scan(&stored, &signed); err != nil {
			return err
		}
		if stored != signed {
			return fmt.Errorf("%d events are stored and %d are signed, so it stays; verify the audit trail: %w", stored, signed, audit.ErrTampered)
		}
		if _, err := tx.Exec(ctx, fmt.Sprint("SET LOCAL lock_timeout = ", lockWait.Milliseconds())); err != nil {
			return err
		}
		if err := signRuns(ctx, tx, key, partition); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DROP TABLE "+partition); err != nil {
			return err
		}
		removed, err = addCheckpoint(ctx, tx, key, newest, audit.Checkpoint{Month: month, Removed: true, After: newest.Upto, Upto: newest.Upto, Events: stored})
		return err
	})
	if err == nil {
		_, err = conn.Exec(ctx, "DELETE FROM audit_event_ids WHERE event_timestamp >= $1 AND event_timestamp < $2", month, month.AddDate(0, 1, 0))
	}
	if err != nil {
		err = fmt.Errorf("month %s: %w", month.Format("2006-01"), err)
	}
	return removed, err
}

// runsPage is how many runs are signed at once: some 3 MB.
const runsPage = 10_000

// signRuns stores which parts of chains a partition holds, before it is removed.
func signRuns(ctx context.Context, tx pgx.Tx, key audit.Key, partition string) error {
	_, err := tx.Exec(ctx, `CREATE TEMPORARY TABLE runs ON COMMIT DROP AS SELECT row_number() OVER () AS number, correlation_id,
		min(chain_position) AS first, max(chain_position) AS last, (array_agg(event_hash ORDER BY chain_position DESC))[1] AS hash
		FROM (SELECT correlation_id, chain_position, event_hash, chain_position - row_number() OVER (PARTITION BY correlation_id ORDER BY chain_position) AS run
			FROM `+partition+`) AS events GROUP BY correlation_id, run`)
	if err != nil {
		return err
	}
	type removed struct {
		correlation string
		audit.Run
	}
	for after := 0; ; after += runsPage {
		rows, err := tx.Query(ctx, "SELECT correlation_id, first, last, hash FROM runs WHERE number > $1 AND number <= $2", after, after+runsPage)
		if err != nil {
			return err
		}
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r removed, err error) {
			var hash []byte
			err = row.Scan(&r.correlation, &r.First, &r.Last.Position, &hash)
			r.Last.Hash = hashOf(hash)
			return r, err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"audit_removed_runs"}, []string{"correlation_id", "first_position", "last_position", "last_hash", "mac"},
			pgx.CopyFromSlice(len(page), func(i int) ([]any, error) {
				r := page[i]
				mac := key.SignRun(r.correlation, r.Run)
				return []any{r.correlation, r.First, r.Last.Position, r.Last.Hash[:], mac[:]}, nil
			}))
		if err != nil {
			return err
		}
	}
}
