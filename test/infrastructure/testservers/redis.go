package testservers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// inMemory keeps Redis from writing anything to a disk.
var inMemory = []string{"--save", "", "--appendonly", "no"}

func (s *Servers) startRedis(ctx context.Context, opts Options) (string, error) {
	path, err := opts.host.find("redis-server")
	if err != nil {
		return s.containedRedis(ctx, opts, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %s", startTimeout))
	defer cancel()
	account, err := opts.host.account()
	if err != nil {
		return "", fmt.Errorf("redis: %w", err)
	}
	dir, err := account.folder(opts.Dir, "redis")
	if err != nil {
		return "", fmt.Errorf("redis: %w", err)
	}
	remove := func() error { return os.RemoveAll(dir) }
	var addr string
	err = onFreePort(ctx, func(port string) error {
		args := append([]string{path, "--bind", "127.0.0.1", "--port", port, "--dir", dir}, inMemory...)
		server, err := start(ctx, opts.Runner, filepath.Join(opts.Dir, "redis.log"), command.Cmd{Args: account.command(args...), Dir: dir})
		if err != nil {
			return err
		}
		addr = net.JoinHostPort("127.0.0.1", port)
		if err := server.ready(ctx, func(ctx context.Context) error { return opts.host.redis(ctx, addr) }); err != nil {
			return errors.Join(err, server.stop(context.WithoutCancel(ctx)))
		}
		s.onStop(func(ctx context.Context) error { return errors.Join(server.stop(ctx), remove()) })
		return nil
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("redis: %w", err), remove())
	}
	return addr, nil
}

// pingRedis asks once: a client library would try again by itself, and log it.
func pingRedis(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		err = fmt.Errorf("answered %q to PING", answer)
	}
	return err
}
