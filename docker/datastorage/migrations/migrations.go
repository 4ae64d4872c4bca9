// Package migrations brings a database to the schema that this binary expects. The
// steps are numbered SQL files inside the binary; a step that was released is never
// changed, a new one is added.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

const (
	// Table holds the versions that were applied.
	Table = "goose_db_version"
	// Version is the schema that this binary expects: the number of the last file.
	Version int64 = 5
)

// lockWait is how long a second run waits for the first: longer than any migration
// takes, shorter than a Job's deadline.
const lockWait = 4 * time.Minute

// Up applies what is missing, one run at a time: a run that finds another at work
// waits for it on an advisory lock. Running it again does nothing. A step whose file was
// changed after it was applied is refused. It returns the number of steps applied.
func Up(ctx context.Context, config *pgx.ConnConfig, log *slog.Logger) (applied int, err error) {
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }() // nothing is buffered in it
	provider, err := newProvider(db)
	if err != nil {
		return 0, err
	}
	if err := compare(ctx, db, provider.ListSources(), false); err != nil {
		return 0, err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	if err := compare(ctx, db, provider.ListSources(), true); err != nil {
		return 0, err
	}
	for _, result := range results {
		log.Info("migration applied", "version", result.Source.Version, "file", result.Source.Path, "duration_ms", result.Duration.Milliseconds())
	}
	return len(results), nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, uint64(lockWait/time.Second)))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker), goose.WithTableName(Table))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return provider, nil
}
