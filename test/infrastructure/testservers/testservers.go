// Package testservers runs what the integration tests talk to: a PostgreSQL and a
// Redis on free ports of 127.0.0.1, empty and for one run, and it tells where the
// programs of a Kubernetes API server lie. Installed programs are used where there
// are some, else containers. It never touches a server that it did not start.
package testservers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Options are where things are and go.
type Options struct {
	Runner    command.Runner
	APIServer string // folder with kube-apiserver and etcd; empty leaves them out
	Dir       string // folder that gets the servers' logs; made if missing; one run at a time uses it

	// Container returns an engine and an image in its store for "postgres" or
	// "redis". It is called only where the program is not installed. Nil makes that
	// an error.
	Container func(ctx context.Context, name string) (engine, ref string, err error)

	host host
}

// host is what tests replace of the outside world.
type host struct {
	find     func(program string) (string, error)
	account  func() (account, error)
	postgres func(ctx context.Context, dsn string) error // nil when it answers
	redis    func(ctx context.Context, addr string) error
}

// Servers are running servers. Whoever started them stops them.
type Servers struct {
	apiServer string
	dsn       string
	addr      string
	temp      string       // the tests' temporary files
	release   func() error // gives up the folder

	tidied sync.Once // containers that a killed run left are gone

	mu   sync.Mutex
	stop []func(context.Context) error
}

// startTimeout bounds the start of one server, which takes a second or two on two
// busy cores. An image to be pulled or built before comes on top.
const startTimeout = time.Minute

// Start starts the servers and returns when both answer. They run until Stop, even
// if ctx ends before. Programs end with this process if it is killed; what else such
// a run leaves, containers, data and the API servers of its tests, is ended and removed by
// the next Start with its Dir. When one server does not start, none is left running.
func Start(ctx context.Context, opts Options) (*Servers, error) {
	opts = opts.withDefaults()
	s := &Servers{}
	var err error
	if opts.Dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, err
	}
	if opts.APIServer != "" {
		for _, program := range []string{"kube-apiserver", "etcd"} {
			if _, err := os.Stat(filepath.Join(opts.APIServer, program)); err != nil {
				return nil, fmt.Errorf("API server for tests: %w", err)
			}
		}
		if s.apiServer, err = filepath.Abs(opts.APIServer); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, err
	}
	if s.release, err = hold(opts.Dir); err != nil {
		return nil, err
	}
	if err := errors.Join(endOrphans(s.apiServer), removeFolders(opts.Dir)); err != nil {
		return nil, errors.Join(err, s.release())
	}
	if s.temp, err = os.MkdirTemp("", FolderPrefix+identity(opts.Dir)+"-tests-"); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.onStop(func(context.Context) error { return errors.Join(endOrphans(s.apiServer), os.RemoveAll(s.temp)) })
	// Not an errgroup: the context of one would end with it, and which of two failures
	// came first helps nobody.
	var group sync.WaitGroup
	var postgres, redis error
	group.Go(func() { s.dsn, postgres = s.startPostgres(ctx, opts) })
	group.Go(func() { s.addr, redis = s.startRedis(ctx, opts) })
	group.Wait()
	if err := errors.Join(postgres, redis); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// Env returns how the tests find the servers, as KEY=value pairs. The password of
// PostgreSQL is among them: it is not to be logged.
func (s *Servers) Env() []string {
	env := []string{"E2E_TEST_POSTGRES_DSN=" + s.dsn, "E2E_TEST_REDIS_ADDR=" + s.addr, "TMPDIR=" + s.temp}
	if s.apiServer != "" {
		env = append(env, "KUBEBUILDER_ASSETS="+s.apiServer)
	}
	return env
}

// stopTimeout bounds Stop: Mage leaves an interrupted target five seconds in all.
const stopTimeout = 4 * time.Second

// Stop ends the servers and removes their data. Calling it again does nothing.
func (s *Servers) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, fmt.Errorf("not stopped after %s", stopTimeout))
	defer cancel()
	s.mu.Lock()
	stops := s.stop
	s.stop = nil
	s.mu.Unlock()
	errs := make([]error, len(stops))
	var group sync.WaitGroup
	for i, stop := range stops {
		group.Go(func() { errs[i] = stop(ctx) })
	}
	group.Wait()
	if s.release != nil {
		errs = append(errs, s.release())
		s.release = nil
	}
	return errors.Join(errs...)
}

// onStop has Stop call fn, at once with all others.
func (s *Servers) onStop(fn func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = append(s.stop, fn)
}

func (o Options) withDefaults() Options {
	if o.host.find == nil {
		o.host = host{find: findProgram, account: findAccount, postgres: pingPostgres, redis: pingRedis}
	}
	return o
}

// answers calls ping until it succeeds, every few hundredths of a second. It gives
// up when ctx ends, and its error is then why, and what ping said last.
func answers(ctx context.Context, ping func(context.Context) error) error {
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = ping(ctx)
		return struct{}{}, last
	}, backoff.WithBackOff(backoff.NewConstantBackOff(30*time.Millisecond)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(last, cause) {
		return fmt.Errorf("%w; last: %w", cause, last)
	}
	return last
}

// freePort is a port of 127.0.0.1 that nobody listened on a moment ago.
func freePort(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}
