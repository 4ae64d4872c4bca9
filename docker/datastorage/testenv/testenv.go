//go:build integration

// Package testenv gives integration tests a PostgreSQL schema and Redis streams of
// their own on the servers that the environment names.
package testenv

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
	"kubernaut.ai/e2e/docker/datastorage/queue"
)

// cleanupTimeout bounds what a test leaves to do when its context has ended.
const cleanupTimeout = 10 * time.Second

// require returns a variable of the environment.
func require(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run: go tool mage test:integration", name)
	}
	return value
}

// Schema makes an empty schema and returns the configuration of connections that see
// nothing else. The schema goes with the test.
func Schema(t testing.TB) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig(require(t, "E2E_TEST_POSTGRES_DSN"))
	if err != nil {
		t.Fatal(err)
	}
	schema := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	Exec(t, config, "CREATE SCHEMA "+schema)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), cleanupTimeout)
		defer cancel()
		plain := config.ConnConfig.Copy()
		delete(plain.RuntimeParams, "search_path")
		delete(plain.RuntimeParams, "statement_timeout")
		conn, err := pgx.ConnectConfig(ctx, plain)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(ctx) }()
		if _, err := conn.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.MaxConns = 10
	return config
}

// Migrated is Schema with the tables of the service.
func Migrated(t testing.TB) *pgxpool.Config {
	t.Helper()
	config := Schema(t)
	if _, err := migrations.Up(t.Context(), config.ConnConfig.Copy(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return config
}

// Exec runs SQL, which may be several statements.
func Exec(t testing.TB, config *pgxpool.Config, sql string) {
	t.Helper()
	if err := TryExec(t, config, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TryExec is Exec for SQL that may be refused.
func TryExec(t testing.TB, config *pgxpool.Config, sql string) error {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// Begin begins a transaction with SQL, which may be several statements. What the test does
// not commit goes with it.
func Begin(t testing.TB, config *pgxpool.Config, sql string) pgx.Tx {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	return tx
}

// Waits returns when something waits for a lock that the transaction has, or has ended.
func Waits(t testing.TB, tx pgx.Tx, ended <-chan error) {
	t.Helper()
	until(t, tx, ended, "pg_backend_pid() = ANY(pg_blocking_pids(pid))")
}

// WaitsItself returns when a connection waits for a lock, or what it does has ended. It is asked
// in another transaction.
func WaitsItself(t testing.TB, tx pgx.Tx, conn *pgx.Conn, ended <-chan error) {
	t.Helper()
	until(t, tx, ended, "pid = $1", conn.PgConn().PID())
}

// until returns when somebody of whom a condition is true waits for a lock, or has ended.
func until(t testing.TB, tx pgx.Tx, ended <-chan error, condition string, args ...any) {
	t.Helper()
	for waits := false; !waits && len(ended) == 0; {
		if err := tx.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND "+condition+")", args...).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
}

// Redis returns a client, and a queue on streams that go with the test.
func Redis(t testing.TB) (*redis.Client, *queue.Queue, queue.Options) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: require(t, "E2E_TEST_REDIS_ADDR"), ContextTimeoutEnabled: true})
	opts := queue.Options{
		Client: client, Timeout: 5 * time.Second,
		Stream: "test:" + uuid.NewString(), DeadStream: "test:dead:" + uuid.NewString(),
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), cleanupTimeout)
		defer cancel()
		if err := client.Del(ctx, opts.Keys()...).Err(); err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client, queue.New(opts), opts
}

// Event returns a normalized event of the given chain; change may be nil.
func Event(t testing.TB, correlation string, change func(*audit.Event)) audit.Event {
	t.Helper()
	e := audit.Event{
		ID: uuid.New(), Version: "1.0", Type: "test.event", Timestamp: time.Now(), Category: "test", Action: "create",
		Outcome: "success", CorrelationID: correlation, Data: []byte(`{"z":1.50,"a":{"list":[1e2,-0.0,"<&>"],"nothing":null}}`),
	}
	if change != nil {
		change(&e)
	}
	if err := e.Normalize(time.Now()); err != nil {
		t.Fatal(err)
	}
	return e
}
