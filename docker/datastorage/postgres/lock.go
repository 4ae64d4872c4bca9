package postgres

import (
	"context"
	"errors"
	"fmt"
)

// drainLock is held by the one instance that drains the dead-letter queue. It is that of a
// schema, because PostgreSQL's is that of a whole database, which others may use too.
const drainLock = "hashtextextended('datastorage drain ' || current_schema(), 0)"

// Exclusive runs fn unless another instance is running its own; it reports whether
// it did. The lock lives with a database connection: when that breaks, another
// instance may begin while fn still runs.
func (s *Store) Exclusive(ctx context.Context, fn func(ctx context.Context) error) (ran bool, err error) {
	var failed error
	err = s.drains.call(ctx, "drain lock", func(connecting context.Context) error {
		conn, err := s.drains.Acquire(connecting)
		if err != nil {
			return err
		}
		defer conn.Release()
		if err := conn.QueryRow(connecting, "SELECT pg_try_advisory_lock("+drainLock+")").Scan(&ran); err != nil || !ran {
			return err
		}
		// fn may take longer than one call.
		failed = fn(ctx)
		unlocking, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drains.timeout)
		defer cancel()
		if _, err := conn.Exec(unlocking, "SELECT pg_advisory_unlock("+drainLock+")"); err != nil {
			// The lock goes with the connection, which must not return to the pool.
			return errors.Join(fmt.Errorf("unlock: %w", err), conn.Conn().Close(unlocking))
		}
		return nil
	})
	if failed != nil {
		return ran, failed
	}
	return ran, err
}
