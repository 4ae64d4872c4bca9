package testservers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgconn"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// postgresUser is the superuser of the server.
const postgresUser = "e2e"

// settings make the server quick to write and deaf to all but 127.0.0.1. Its data
// need not outlive it. Tests run in many processes, each with a pool.
const settings = `
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
`

func (s *Servers) startPostgres(ctx context.Context, opts Options) (string, error) {
	path, err := opts.host.find("postgres")
	if err != nil {
		return s.containedPostgres(ctx, opts, err)
	}
	// initdb and pg_ctl lie beside the program, if not beside its name in PATH.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	bin := filepath.Dir(path)
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %s", startTimeout))
	defer cancel()
	account, err := opts.host.account()
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	dir, err := account.folder(opts.Dir, "postgres")
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	data, password := filepath.Join(dir, "data"), rand.Text()
	remove := func() error { return os.RemoveAll(dir) }
	if err := initDB(ctx, opts.Runner, account, bin, dir, data, password); err != nil {
		return "", errors.Join(fmt.Errorf("postgres: %w", err), remove())
	}
	var dsn string
	err = onFreePort(ctx, func(port string) error {
		server, err := start(ctx, opts.Runner, filepath.Join(opts.Dir, "postgres.log"),
			command.Cmd{Args: account.command(filepath.Join(bin, "postgres"), "-D", data, "-p", port), Dir: dir})
		if err != nil {
			return err
		}
		dsn = postgresDSN(password, "127.0.0.1:"+port)
		if err := server.ready(ctx, func(ctx context.Context) error { return opts.host.postgres(ctx, dsn) }); err != nil {
			return errors.Join(err, server.stop(context.WithoutCancel(ctx)))
		}
		s.onStop(func(ctx context.Context) error {
			// SIGTERM alone would wait for clients to leave.
			err := opts.Runner.Run(ctx, command.Cmd{Args: account.command(filepath.Join(bin, "pg_ctl"), "stop", "-D", data, "-m", "immediate"), Dir: dir})
			return errors.Join(err, server.stop(ctx), remove())
		})
		return nil
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("postgres: %w", err), remove())
	}
	return dsn, nil
}

// initDB makes the data folder. initdb takes a password from a file only: one in a
// folder that nobody else can enter, gone when it ends.
func initDB(ctx context.Context, runner command.Runner, account account, bin, dir, data, password string) error {
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		return err
	}
	err := account.own(file)
	if err == nil {
		err = runner.Run(ctx, command.Cmd{Dir: dir, Args: account.command(filepath.Join(bin, "initdb"), "--pgdata", data,
			"--username", postgresUser, "--pwfile", file, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync")})
	}
	if err := errors.Join(err, os.Remove(file)); err != nil {
		return err
	}
	config, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = config.WriteString(settings)
	return errors.Join(err, config.Close())
}

// findProgram finds a program in PATH, or outside of it where Debian's packages put
// PostgreSQL: the highest version there is.
func findProgram(program string) (string, error) {
	path, err := command.Find(program)
	if err == nil {
		return path, nil
	}
	found, globErr := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if globErr != nil || len(found) == 0 {
		return "", err
	}
	return found[len(found)-1], nil // versions have two digits, so they are in order
}

func postgresDSN(password, address string) string {
	dsn := url.URL{Scheme: "postgres", User: url.UserPassword(postgresUser, password), Host: address, Path: "/postgres", RawQuery: "sslmode=disable"}
	return dsn.String()
}

func pingPostgres(ctx context.Context, dsn string) error {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}
