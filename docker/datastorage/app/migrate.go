package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/settings"
)

// Migrate brings the database to this binary's schema, makes the role that the server uses
// when one is configured, and makes the partitions for the months to come. It waits, with
// back-off, for a database that is not there yet, until ctx ends.
func Migrate(ctx context.Context, opts Options) error {
	s, err := settings.LoadDatabase(opts.ConfigPath)
	if err != nil {
		return err
	}
	log := NewLog(opts.Log, s.Logging.Level)
	pool, err := s.Database.Pool()
	if err != nil {
		return err
	}
	// The migrations get connections of their own, without the store's limits.
	connecting := pool.ConnConfig.Copy()
	store, err := postgres.Open(pool, postgres.Timeouts{Drain: s.Database.DrainTimeout})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := wait(ctx, store, log); err != nil {
		return err
	}
	applied, err := migrations.Up(ctx, connecting, log)
	if err != nil {
		return err
	}
	if role := s.Database.Server; role.User != "" {
		password, err := role.Password()
		if err != nil {
			return err
		}
		if err := migrations.Grant(ctx, connecting, role.User, password); err != nil {
			return err
		}
	}
	if err := addMonths(ctx, store, log); err != nil {
		return err
	}
	log.Info("schema is current", "version", migrations.Version, "applied", applied)
	return nil
}

// wait returns nil once the database answers.
func wait(ctx context.Context, store *postgres.Store, log *slog.Logger) error {
	if err := patiently(ctx, log, "connect", func() error { return store.Ping(ctx) }); err != nil {
		return fmt.Errorf("waiting for the database: %w", err)
	}
	return nil
}

// addMonths makes the partitions. A database that is slow has the time that migrations have,
// not only that of a server's call.
func addMonths(ctx context.Context, store *postgres.Store, log *slog.Logger) error {
	return patiently(ctx, log, "make partitions", func() error {
		err := store.AddMonths(ctx, time.Now())
		if err != nil && !errors.Is(err, audit.ErrTooSlow) {
			err = backoff.Permanent(err)
		}
		return err
	})
}

// patiently tries again, with back-off, until ctx ends, and says once what fails.
func patiently(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, MaxInterval: 2 * time.Second, Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	told := false
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		if err != nil && !told {
			log.Info("waiting for the database", "to", what, "error", err)
			told = true
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retry), backoff.WithMaxElapsedTime(0))
	return err
}
