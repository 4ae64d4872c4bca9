// Package postgres keeps audit events in PostgreSQL: written in transactions that
// extend the chains of their correlation ids, never changed afterwards. Errors wrap
// audit.ErrUnavailable when the database, and audit.ErrRejected when the event is at
// fault.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
)

// Timeouts bound the calls of a Store. A zero takes the default.
type Timeouts struct {
	Write  time.Duration // of a sender's write; 3s
	Drain  time.Duration // of a write for which nobody waits, and of a checkpoint; 10s
	Read   time.Duration // of a page; 5s
	Verify time.Duration // of a part of a verification, with the wait for its turn; 10s
}

// The connections of each kind of work. What one kind does to its own holds up no other.
// Fewer writers would leave a core of PostgreSQL idle during a commit; more would only
// wait for each other's locks.
const (
	writeConnections  = 6
	drainConnections  = 2 // the lock's, and the write's
	readConnections   = 4
	verifyConnections = 1 // who verifies takes a core of PostgreSQL and one of this process
	probeConnections  = 2 // a ping and a look at the schema
	signConnections   = 1
)

// Store is safe for concurrent use.
type Store struct {
	writes, drains, reads, verifies, probes, signs pool
}

// pool is a set of connections with a bound for each call.
type pool struct {
	*pgxpool.Pool
	timeout time.Duration
}

// Open returns a Store on pools of connections that are made when they are needed: a
// database that does not answer is not an error here. The caller closes the Store.
func Open(config *pgxpool.Config, timeouts Timeouts) (*Store, error) {
	store := &Store{}
	for _, p := range []struct {
		pool        *pool
		timeout     time.Duration
		connections int32
	}{
		{&store.writes, cmp.Or(timeouts.Write, 3*time.Second), writeConnections},
		{&store.drains, cmp.Or(timeouts.Drain, 10*time.Second), drainConnections},
		{&store.reads, cmp.Or(timeouts.Read, 5*time.Second), readConnections},
		{&store.verifies, cmp.Or(timeouts.Verify, 10*time.Second), verifyConnections},
		{&store.probes, 2 * time.Second, probeConnections},
		{&store.signs, cmp.Or(timeouts.Drain, 10*time.Second), signConnections},
	} {
		own := config.Copy()
		if p.pool == &store.reads || p.pool == &store.verifies {
			// A connection that has just broken is found out before a reader meets it. What a
			// writer brings goes to the queue then.
			own.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
		}
		if p.pool == &store.signs || p.pool == &store.verifies {
			// They read in the order of an index, some rows at a time. Without statistics the
			// planner rather reads all that there are, and sorts them, each time.
			own.ConnConfig.RuntimeParams["enable_bitmapscan"] = "off"
		}
		opened, err := openPool(own, p.timeout, p.connections)
		if err != nil {
			store.Close()
			return nil, err
		}
		*p.pool = pool{opened, p.timeout}
	}
	return store, nil
}

func openPool(config *pgxpool.Config, timeout time.Duration, connections int32) (*pgxpool.Pool, error) {
	config.MaxConns = connections
	// A statement whose caller has given up must not go on holding locks.
	config.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint((timeout + time.Second).Milliseconds())
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint((timeout + time.Second).Milliseconds())
	// Nor must it go on at all: the server is told as soon as the caller leaves.
	config.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelDelay}
	}
	// NewWithConfig connects in the background, if at all; its context only
	// bounds that.
	opened, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	return opened, nil
}

// cancelDelay is how long a server may take to confirm that it has ended a statement
// before the connection is cut.
const cancelDelay = 200 * time.Millisecond

// Close ends all connections; it waits for the calls in hand.
func (s *Store) Close() {
	for _, p := range []pool{s.writes, s.drains, s.reads, s.verifies, s.probes, s.signs} {
		if p.Pool != nil {
			p.Close()
		}
	}
}

// Ping returns nil when the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.probes.call(ctx, "ping", func(ctx context.Context) error { return s.probes.Ping(ctx) })
}

// errOutdated says that the database is not ready for this binary.
var errOutdated = errors.New("schema")

// Refuses reports whether an error says that the database will not serve this binary as it
// is: it does not let it in (class 28 of SQLSTATE), or has an older schema.
func Refuses(err error) bool {
	return strings.HasPrefix(code(err), "28") || errors.Is(err, errOutdated)
}

// CheckSchema returns nil when the schema is at least the one that this binary was
// written for.
func (s *Store) CheckSchema(ctx context.Context) error {
	return s.probes.call(ctx, "schema version", func(ctx context.Context) error {
		var version int64
		err := s.probes.QueryRow(ctx, "SELECT max(version_id) FROM "+migrations.Table+" WHERE is_applied").Scan(&version)
		if err != nil {
			return err
		}
		if version < migrations.Version {
			return fmt.Errorf("%w: %d is older than %d; run: datastorage migrate", errOutdated, version, migrations.Version)
		}
		return nil
	})
}

// call bounds fn and says in the error what was done and whose fault it is.
func (p pool) call(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err := fn(ctx)
	var conflict *audit.ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict) || eventAtFault(err):
		return fmt.Errorf("database: %s: %w: %w", what, audit.ErrRejected, err)
	case errors.Is(err, audit.ErrNotFound) || errors.Is(err, audit.ErrTampered) || errors.Is(err, context.Canceled):
		return fmt.Errorf("database: %s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded) || code(err) == "57014":
		return fmt.Errorf("database: %s: %w: %w (%s): %w", what, audit.ErrUnavailable, audit.ErrTooSlow, p.timeout, err)
	default:
		return fmt.Errorf("database: %s: %w: %w", what, audit.ErrUnavailable, err)
	}
}

// code is the SQLSTATE of an error; "" when it has none.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// eventAtFault reports whether PostgreSQL refused what it was given, so that trying
// again is useless: classes 22 (data exception), 23 (integrity violation), except for a
// month that has no partition yet, and 54 (more than PostgreSQL's own limits allow).
// Everything else, an older schema included, can get well.
func eventAtFault(err error) bool {
	state := code(err)
	return !noPartition(err) && (strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") || strings.HasPrefix(state, "54"))
}

// noPartition reports whether a row fell into a month without a partition. That is a
// check violation like others, but of no constraint; the text cannot be relied on,
// because servers translate it.
func noPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}
