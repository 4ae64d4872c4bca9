// Package postgres keeps audit events in PostgreSQL: written in transactions that
// extend the chains of their correlation ids, never changed afterwards. Errors wrap
// audit.ErrUnavailable when the database, and audit.ErrRejected when the event is at
// fault.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
)

// Store is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	timeout time.Duration // of each call
}

// Open returns a Store on a pool of connections that are made when they are needed:
// a database that does not answer is not an error here. Each call of the Store is
// bounded by timeout. The caller closes the Store.
func Open(config *pgxpool.Config, timeout time.Duration) (*Store, error) {
	// A statement whose caller has given up must not go on holding locks.
	config.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint((timeout + time.Second).Milliseconds())
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint((timeout + time.Second).Milliseconds())
	// NewWithConfig connects in the background, if at all; its context only
	// bounds that.
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	return &Store{pool: pool, timeout: timeout}, nil
}

// Close ends all connections; it waits for the calls in hand.
func (s *Store) Close() { s.pool.Close() }

// Ping returns nil when the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.call(ctx, "ping", func(ctx context.Context) error { return s.pool.Ping(ctx) })
}

// CheckSchema returns nil when the schema is at least the one that this binary was
// written for.
func (s *Store) CheckSchema(ctx context.Context) error {
	return s.call(ctx, "schema version", func(ctx context.Context) error {
		var version int64
		err := s.pool.QueryRow(ctx, "SELECT max(version_id) FROM "+migrations.Table+" WHERE is_applied").Scan(&version)
		if err != nil {
			return err
		}
		if version < migrations.Version {
			return fmt.Errorf("%d is older than %d; run: datastorage migrate", version, migrations.Version)
		}
		return nil
	})
}

// call bounds fn and says in the error what was done and whose fault it is.
func (s *Store) call(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := fn(ctx)
	switch {
	case err == nil:
		return nil
	case eventAtFault(err):
		return fmt.Errorf("database: %s: %w: %w", what, audit.ErrRejected, err)
	case errors.Is(err, audit.ErrNotFound) || errors.Is(err, context.Canceled):
		return fmt.Errorf("database: %s: %w", what, err)
	default:
		return fmt.Errorf("database: %s: %w: %w", what, audit.ErrUnavailable, err)
	}
}

// eventAtFault reports whether PostgreSQL refused what it was given, so that trying
// again is useless: classes 22 (data exception) and 23 (integrity violation), except
// for a month that has no partition yet. Everything else, an older schema included,
// can get well.
func eventAtFault(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || noPartition(err) {
		return false
	}
	return strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23")
}

// noPartition reports whether a row fell into a month without a partition. That is a
// check violation like others, but of no constraint; the text cannot be relied on,
// because servers translate it.
func noPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}

// withTx runs fn in a transaction that is committed when fn returns nil.
func (s *Store) withTx(ctx context.Context, options pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, options, fn)
}
