package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// ChecksumTable holds the SHA-256 of each step's file as it was applied.
const ChecksumTable = "migration_checksums"

// checksumLock is the key of the advisory lock under which the table is made, and privileges
// are granted: two runs that do that at once would refuse each other.
const checksumLock = 0x6b75626572

// compare refuses a step whose file is not what was applied: the database would lack what was
// changed, and nothing would say so until a query misses it. With record, steps that have no
// checksum yet get that of their file.
func compare(ctx context.Context, db *sql.DB, sources []*goose.Source, record bool) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("migrations: checksums: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing is left to undo after the commit
	for _, statement := range []string{
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", checksumLock),
		"CREATE TABLE IF NOT EXISTS " + ChecksumTable + " (version bigint PRIMARY KEY, sha256 text NOT NULL)",
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("migrations: checksums: %w", err)
		}
	}
	for _, source := range sources {
		data, err := fs.ReadFile(files, source.Path)
		if err != nil {
			return fmt.Errorf("migrations: checksums: %w", err)
		}
		sum := sha256.Sum256(data)
		now := hex.EncodeToString(sum[:])
		if record {
			_, err := tx.ExecContext(ctx, "INSERT INTO "+ChecksumTable+" VALUES ($1, $2) ON CONFLICT DO NOTHING", source.Version, now)
			if err != nil {
				return fmt.Errorf("migrations: checksums: %w", err)
			}
		}
		var applied string
		err = tx.QueryRowContext(ctx, "SELECT coalesce(max(sha256), '') FROM "+ChecksumTable+" WHERE version = $1", source.Version).Scan(&applied)
		if err != nil {
			return fmt.Errorf("migrations: checksums: %w", err)
		}
		if applied != "" && applied != now {
			return fmt.Errorf("migrations: %s: differs from what was applied to this database; undo the change and add a new file, or begin with an empty database", source.Path)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("migrations: checksums: %w", err)
	}
	return nil
}
