package testservers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func (s *Servers) containedPostgres(ctx context.Context, opts Options, missing error) (string, error) {
	password := rand.Text()
	cmd := []string{"postgres"}
	for _, setting := range []string{"fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"} {
		cmd = append(cmd, "-c", setting)
	}
	addr, err := s.contain(ctx, opts, missing, container{
		name: "postgres", port: "5432/tcp", args: cmd,
		env: []string{"POSTGRES_USER=" + postgresUser, "POSTGRES_DB=postgres", "POSTGRES_PASSWORD=" + password},
		ping: func(ctx context.Context, addr string) error {
			return opts.host.postgres(ctx, postgresDSN(password, addr))
		},
	})
	return postgresDSN(password, addr), err
}

// containedRedis has Redis answer clients without a password that come from outside
// of its container. The port is published on 127.0.0.1 only.
func (s *Servers) containedRedis(ctx context.Context, opts Options, missing error) (string, error) {
	return s.contain(ctx, opts, missing, container{
		name: "redis", port: "6379/tcp", ping: opts.host.redis,
		args: append([]string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"}, inMemory...),
	})
}

// container is a server to run in one.
type container struct {
	name string
	port string
	args []string
	env  []string // KEY=value; the values appear in no command line
	ping func(ctx context.Context, addr string) error
}

// contain runs the container and returns where it answers.
func (s *Servers) contain(ctx context.Context, opts Options, missing error, c container) (string, error) {
	if opts.Container == nil {
		return "", fmt.Errorf("%w; run: go tool mage setup", missing)
	}
	engine, ref, err := opts.Container(ctx, c.name)
	if err != nil {
		return "", fmt.Errorf("%s in a container, because of %w: %w", c.name, missing, err)
	}
	s.tidied.Do(func() { err = removeContainers(ctx, opts.Runner, engine, opts.Dir) })
	if err != nil {
		return "", fmt.Errorf("containers of a run before: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %s", startTimeout))
	defer cancel()
	id := "e2e-test-" + c.name + "-" + strings.ToLower(rand.Text()[:10])
	args := []string{engine, "run", "--detach", "--name", id, "--label", Label + "=" + identity(opts.Dir), "--publish", "127.0.0.1::" + strings.TrimSuffix(c.port, "/tcp")}
	for _, pair := range c.env {
		key, _, _ := strings.Cut(pair, "=")
		args = append(args, "--env", key)
	}
	remove := func(ctx context.Context) error {
		return opts.Runner.Run(ctx, command.Cmd{Args: []string{engine, "rm", "--force", "--volumes", id}})
	}
	if err := opts.Runner.Run(ctx, command.Cmd{Args: append(append(args, ref), c.args...), Env: c.env}); err != nil {
		if ctx.Err() != nil { // it may be there all the same
			err = errors.Join(err, remove(context.WithoutCancel(ctx)))
		}
		return "", fmt.Errorf("%s: %w", c.name, err)
	}
	s.onStop(remove)
	addr, err := command.Output(ctx, opts.Runner, engine, "port", id, c.port)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.name, err)
	}
	addr, _, _ = strings.Cut(addr, "\n")
	if err := answers(ctx, func(ctx context.Context) error { return c.ping(ctx, addr) }); err != nil {
		return "", fmt.Errorf("%s: container %s: %w", c.name, id, err)
	}
	return addr, nil
}
