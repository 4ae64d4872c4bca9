//go:build integration

package migrations_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/migrations"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

func TestAStepThatWasChangedAfterwardsIsRefused(t *testing.T) {
	config := testenv.Migrated(t)
	up := func() (int, error) {
		return migrations.Up(t.Context(), config.ConnConfig.Copy(), slog.New(slog.DiscardHandler))
	}
	if n, err := up(); n != 0 || err != nil {
		t.Fatalf("the same steps again: got %d, %v", n, err)
	}
	// As if the first file had been another when it was applied.
	testenv.Exec(t, config, "UPDATE "+migrations.ChecksumTable+" SET sha256 = 'another' WHERE version = 1")
	_, err := up()
	for _, want := range []string{"00001_audit_events.sql: differs from what was applied", "add a new file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestADatabaseFromBeforeChecksumsGetsThem(t *testing.T) {
	config := testenv.Migrated(t)
	testenv.Exec(t, config, "DROP TABLE "+migrations.ChecksumTable)
	if _, err := migrations.Up(t.Context(), config.ConnConfig.Copy(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, config, "DO $$ BEGIN IF (SELECT count(*) FROM "+migrations.ChecksumTable+") = 0 THEN RAISE 'none'; END IF; END $$")
}

// TestGrantIsDoneAgain when it loses against another change of a table's rights.
func TestGrantIsDoneAgain(t *testing.T) {
	config := testenv.Migrated(t)
	tx := testenv.Begin(t, config, "GRANT SELECT ON audit_events TO CURRENT_USER")
	const role = "granted_again"
	done := make(chan error, 1)
	go func() { done <- migrations.Grant(t.Context(), config.ConnConfig.Copy(), role, "secret") }()
	testenv.Waits(t, tx, done)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	testenv.Exec(t, config, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}

// TestNoStatementHasThePassword because PostgreSQL logs one that fails or takes long.
func TestNoStatementHasThePassword(t *testing.T) {
	config := testenv.Migrated(t)
	const role = "without_words"
	for _, password := range []string{"plain 'and\" quoted", "p\u00e4sswort\u2168"} {
		said := &statements{}
		traced := config.ConnConfig.Copy()
		traced.Tracer = said
		if err := migrations.Grant(t.Context(), traced, role, password); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(said.sql, "\n"); !strings.Contains(all, role) || strings.Contains(all, password) {
			t.Errorf("got %s", all)
		}
		as := config.ConnConfig.Copy()
		as.User, as.Password = role, password
		if conn, err := pgx.ConnectConfig(t.Context(), as); err != nil {
			t.Errorf("log in with %q: %v", password, err)
		} else if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	testenv.Exec(t, config, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}

type statements struct{ sql []string }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.sql = append(s.sql, data.SQL, fmt.Sprint(data.Args...))
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
