//go:build integration

package migrations_test

import (
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
	other, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(t.Context()) }()
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "GRANT SELECT ON audit_events TO CURRENT_USER"); err != nil {
		t.Fatal(err)
	}
	const role = "granted_again"
	done := make(chan error, 1)
	go func() { done <- migrations.Grant(t.Context(), config.ConnConfig.Copy(), role, "secret") }()
	for waits := false; !waits && len(done) == 0; {
		if err := tx.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	testenv.Exec(t, config, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}
