package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Grant makes the role that the server uses, or gives it this password, and lets it do what
// the server does and nothing else: insert and read events, and move the ends of chains. It
// owns nothing, so that it can neither change nor remove what is written, nor switch off
// what refuses that. The caller's role must be a superuser or may create roles.
func Grant(ctx context.Context, config *pgx.ConnConfig, role, password string) (err error) {
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
		// Roles belong to all databases, and another run may be at work in another one.
		if _, err := tx.Exec(ctx, "LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		var exists bool
		var schema, quotedPassword string
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), current_schema(), quote_literal($2)", role, password).
			Scan(&exists, &schema, &quotedPassword); err != nil {
			return err
		}
		name, in := pgx.Identifier{role}.Sanitize(), pgx.Identifier{schema}.Sanitize()
		verb := "ALTER"
		if !exists {
			verb = "CREATE"
		}
		for _, sql := range []string{
			verb + " ROLE " + name + " LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD " + quotedPassword,
			"GRANT USAGE ON SCHEMA " + in + " TO " + name,
			"GRANT SELECT, INSERT ON audit_events, audit_event_ids TO " + name,
			"GRANT SELECT, INSERT, UPDATE (length, last_hash) ON audit_chains TO " + name,
			"GRANT USAGE ON SEQUENCE audit_events_sequence TO " + name,
			"GRANT SELECT ON " + Table + " TO " + name,
			"GRANT EXECUTE ON FUNCTION audit_events_add_month(date) TO " + name,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
