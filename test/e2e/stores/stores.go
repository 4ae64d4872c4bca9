// Package stores reaches PostgreSQL and Redis directly, past DataStorage: to look at what
// is really there, and to forge it.
package stores

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
)

// Postgres connects to a database as the superuser; empty means the one of DataStorage. The
// caller closes the connection.
func Postgres(ctx context.Context, c *cluster.Cluster, database string) (*pgx.Conn, error) {
	address, err := c.Target.Address("postgresql", "postgresql")
	if err != nil {
		return nil, err
	}
	password, err := password(ctx, c, "postgresql-superuser-credentials")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig("sslmode=require") // how is said below
	if err != nil {
		return nil, err
	}
	if config.TLSConfig, err = c.TLS(ctx, "postgresql"); err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	config.Host, config.Port, config.User, config.Password, config.Database = host, uint16(number), "postgres", password, "datastorage"
	if database != "" {
		config.Database = database
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL at %s: %w", address, err)
	}
	return conn, nil
}

// Redis returns a client; the caller closes it.
func Redis(ctx context.Context, c *cluster.Cluster) (*redis.Client, error) {
	address, err := c.Target.Address("redis", "redis")
	if err != nil {
		return nil, err
	}
	password, err := password(ctx, c, "redis-credentials")
	if err != nil {
		return nil, err
	}
	secure, err := c.TLS(ctx, "redis")
	if err != nil {
		return nil, err
	}
	// One attempt is one: who looks whether Redis is there wants to know it of now. What
	// goes wrong is returned, and the library's own lines would only say it again.
	logging.Disable()
	return redis.NewClient(&redis.Options{Addr: address, Password: password, TLSConfig: secure, DialerRetries: 1}), nil
}

// Both connects to PostgreSQL and Redis, which answer. close ends what was opened, also when
// there is an error; it is never nil.
func Both(ctx context.Context, c *cluster.Cluster) (db *pgx.Conn, rdb *redis.Client, closeBoth func(context.Context) error, err error) {
	closeBoth = func(context.Context) error { return nil }
	if db, err = Postgres(ctx, c, ""); err != nil {
		return nil, nil, closeBoth, err
	}
	closeBoth = db.Close
	if rdb, err = Redis(ctx, c); err != nil {
		return nil, nil, closeBoth, err
	}
	closeBoth = func(ctx context.Context) error { return errors.Join(db.Close(ctx), rdb.Close()) }
	if err := rdb.Ping(ctx).Err(); err != nil {
		return nil, nil, closeBoth, fmt.Errorf("redis: %w", err)
	}
	return db, rdb, closeBoth, nil
}

// AsOwner runs a transaction in which the triggers that keep events as they are do not fire,
// as whoever owns the database can.
func AsOwner(ctx context.Context, db *pgx.Conn, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica"); err != nil {
			return err
		}
		return do(tx)
	})
}

// Empty removes every audit event, what was signed of them and what waits in Redis.
// DataStorage must be down: it remembers what it has stored, and makes the queue when it
// starts.
func Empty(ctx context.Context, c *cluster.Cluster) (err error) {
	db, rdb, closeBoth, err := Both(ctx, c)
	defer func() { err = errors.Join(err, closeBoth(ctx)) }()
	if err != nil {
		return err
	}
	if err := rdb.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	err = AsOwner(ctx, db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT quote_ident(relname) FROM pg_class
			WHERE relname LIKE 'audit\_%' AND relkind IN ('r', 'p') AND NOT relispartition`)
		if err != nil {
			return err
		}
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "TRUNCATE "+strings.Join(tables, ", "))
		return err
	})
	if err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	return nil
}

func password(ctx context.Context, c *cluster.Cluster, name string) (string, error) {
	secret := &corev1.Secret{}
	if err := c.API.Get(ctx, client.ObjectKey{Namespace: c.Target.Namespace, Name: name}, secret); err != nil {
		return "", fmt.Errorf("Secret/%s: %w", name, err)
	}
	return string(secret.Data["password"]), nil
}
