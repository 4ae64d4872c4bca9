package migrations

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/text/secure/precis"
)

// roleTries is more than the runs that there are at once.
const roleTries = 10

// Grant makes the role that the server uses, or gives it this password, and lets it do what
// the server does and nothing else: insert and read events and checkpoints, and move the
// ends of chains. It owns nothing, so that it can neither change nor remove what is written,
// nor switch off what refuses that. The caller's role must own the tables and may create
// roles.
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
	if err := makeRole(ctx, conn, role, password); err != nil {
		return err
	}
	return Again(ctx, func() error { return grant(ctx, conn, role) })
}

// grant lets a role do what the server does.
func grant(ctx context.Context, conn *pgx.Conn, role string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Two runs that grant the same at once would refuse each other.
		var schema string
		if err := tx.QueryRow(ctx, fmt.Sprintf("SELECT current_schema() FROM pg_advisory_xact_lock(%d)", checksumLock)).Scan(&schema); err != nil {
			return err
		}
		name := pgx.Identifier{role}.Sanitize()
		for _, privilege := range []string{
			"USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize(),
			"SELECT, INSERT ON audit_events, audit_event_ids, audit_checkpoints, audit_signed_ends",
			"SELECT, INSERT, UPDATE (length, last_hash) ON audit_chains",
			"SELECT ON audit_removed_runs",
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

// makeRole makes a role, or gives it this password. Roles belong to all databases, and
// another run may be at work in another one: what loses against it is done again.
func makeRole(ctx context.Context, conn *pgx.Conn, role, password string) error {
	hashed, err := verifier(password)
	if err != nil {
		return err
	}
	return Again(ctx, func() error {
		var exists bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
		if err == nil {
			verb := "ALTER"
			if !exists {
				verb = "CREATE"
			}
			_, err = conn.Exec(ctx, verb+" ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN PASSWORD '"+hashed+"'")
		}
		return err
	})
}

// verifier is what PostgreSQL keeps of a password, by which nobody can log in: it logs a
// statement that fails or takes long, with whatever stands in it. RFC 5803, with as many
// iterations and as much salt as PostgreSQL has, of the password as pgx prepares it.
func verifier(password string) (string, error) {
	const iterations = 4096
	if prepared, err := precis.OpaqueString.String(password); err == nil {
		password = prepared
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	sign := func(what string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(what))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encode(salt), encode(stored[:]), encode(sign("Server Key"))), nil
}

// Again does a change of the catalog again that lost against another one of the same role or
// table in the same moment: 42710 and 23505 say that it has been made, XX000 that the "tuple
// [was] concurrently updated", for which PostgreSQL has no state of its own.
func Again(ctx context.Context, change func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := change()
		var refused *pgconn.PgError
		if err != nil && !(errors.As(err, &refused) && (refused.Code == "42710" || refused.Code == "23505" || refused.Code == "XX000")) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(roleTries))
	return err
}
