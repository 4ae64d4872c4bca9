package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Grant lets the role that the server uses do what the server does and nothing else: insert
// and read events and checkpoints, and move the ends of chains. It owns nothing, so that it can neither
// change nor remove what is written, nor switch off what refuses that. The role must be
// there; the caller's must own the tables, and needs no other right.
func Grant(ctx context.Context, config *pgx.ConnConfig, role string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("role %s: %w", role, err)
		}
	}()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var schema string
		if err := tx.QueryRow(ctx, "SELECT current_schema()").Scan(&schema); err != nil {
			return err
		}
		name := pgx.Identifier{role}.Sanitize()
		for _, privilege := range []string{
			"USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize(),
			"SELECT, INSERT ON audit_events, audit_event_ids, audit_checkpoints, audit_signed_ends",
			"SELECT, INSERT, UPDATE (length, last_hash) ON audit_chains",
			"USAGE ON SEQUENCE audit_events_sequence",
			"SELECT ON " + Table,
			"EXECUTE ON FUNCTION audit_events_add_month(date)",
		} {
			if _, err := tx.Exec(ctx, "GRANT "+privilege+" TO "+name); err != nil {
				return err
			}
		}
		return nil
	})
}
