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
const lockWait = "1s"

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
		var stored, signed int64
		if err := tx.QueryRow(ctx, "SELECT (SELECT count(*) FROM "+partition+`), (SELECT coalesce(sum(events), 0) FROM audit_checkpoints WHERE month = $1
			AND NOT removed AND number > (SELECT coalesce(max(number), 0) FROM audit_checkpoints WHERE month = $1 AND removed))`, month).Scan(&stored, &signed); err != nil {
			return err
		}
		if stored != signed {
			return fmt.Errorf("%d events are stored and %d are signed, so it stays; verify the audit trail: %w", stored, signed, audit.ErrTampered)
		}
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockWait+"'"); err != nil {
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
