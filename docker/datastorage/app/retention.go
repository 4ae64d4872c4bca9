package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/settings"
)

// MinRetention is for how long events stay at least: as long as late ones may come into
// their month, and a day more.
const MinRetention = audit.MaxBack + 24*time.Hour

// Retain removes the months all of whose events are older than that, the oldest first. It
// writes to opts.Out what it removed. The configuration names the owner of the tables.
func Retain(ctx context.Context, opts Options, olderThan time.Duration) (err error) {
	if olderThan < MinRetention {
		return fmt.Errorf("older than %s: less than %s, in which late events may still come", olderThan, MinRetention)
	}
	s, err := settings.Load(opts.ConfigPath)
	if err != nil {
		return err
	}
	key, err := s.Checkpoints.Key()
	if err != nil {
		return err
	}
	pool, err := s.Database.Pool()
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, pool.ConnConfig)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return withQueue(opts, func(outside *queue.Queue) error {
		months, err := postgres.Months(ctx, conn)
		for _, month := range months {
			if err != nil || month.AddDate(0, 1, 0).After(time.Now().Add(-olderThan)) {
				break
			}
			err = retire(ctx, opts, conn, outside, key, month)
		}
		return err
	})
}

func retire(ctx context.Context, opts Options, conn *pgx.Conn, outside *queue.Queue, key audit.Key, month time.Time) error {
	newest, err := outside.Checkpoint(ctx)
	if err != nil {
		return err
	}
	removed, err := postgres.RemoveMonth(ctx, conn, key, newest, month)
	if err != nil {
		return err
	}
	if err := outside.KeepCheckpoint(ctx, removed); err != nil {
		return err
	}
	_, err = fmt.Fprintf(opts.Out, "%s removed, %d events, checkpoint %d\n", month.Format("2006-01"), removed.Events, removed.Number)
	return err
}
