// Package lifecycle runs the servers and background tasks of a service and ends
// them in the order in which nothing that was accepted is lost.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"kubernaut.ai/e2e/docker/internal/panics"
)

// defaultShutdownTimeout bounds each part of the end. With the drain delay before
// it, it must fit the pod's grace period.
const defaultShutdownTimeout = 15 * time.Second

// Task is something that runs besides the servers. Run returns nil when its context
// ends; returning earlier with an error ends the service.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Hook is something to do once nothing new can arrive: to send what is buffered, to
// close a pool.
type Hook struct {
	Name string
	Run  func(ctx context.Context) error
}

// Service is what Run runs.
type Service struct {
	Log *slog.Logger
	// NotReady is called first when the service is to end; readiness must fail
	// from then on.
	NotReady func()
	// Servers answer callers. They are drained.
	Servers []*Server
	// Ops answer probes and scrapes; they are closed last, so that the end can be
	// watched.
	Ops []*Server
	// Tasks run until the servers are drained.
	Tasks []Task
	// DrainDelay is how long the servers go on after NotReady, so that endpoints
	// can move to other pods. While callers keep coming they have not moved: then the
	// servers go on until none has come, and none waited, for half a second, for at most
	// ten seconds more. Zero skips it.
	DrainDelay time.Duration
	// ShutdownTimeout bounds, each for itself, the requests in hand, the end of
	// the tasks, and the hooks together; zero means 15 s.
	ShutdownTimeout time.Duration
	// Hooks run in their order after the tasks ended.
	Hooks []Hook
}

// Run serves until ctx ends and returns nil after a clean end: not ready at once,
// serving for DrainDelay, requests in hand answered, tasks ended, hooks run, ops
// closed. When a server or a task fails it ends the rest without the delay and
// returns that error, with those of the end joined to it.
func Run(ctx context.Context, s Service) error {
	if s.ShutdownTimeout == 0 {
		s.ShutdownTimeout = defaultShutdownTimeout
	}
	taskCtx, stopTasks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTasks()
	failed := make(chan error, len(s.Servers)+len(s.Ops)+len(s.Tasks))
	var serving, tasks sync.WaitGroup
	for _, server := range append(append([]*Server{}, s.Ops...), s.Servers...) {
		s.Log.Info("serving", "server", server.name, "addr", server.Addr())
		serving.Go(func() {
			if err := server.serve(); err != nil {
				failed <- err
			}
		})
	}
	for _, task := range s.Tasks {
		tasks.Go(func() {
			// A task that panics ends the service as one that fails: in order.
			if err := panics.Catch(func() error { return task.Run(taskCtx) }); err != nil && taskCtx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", task.Name, err)
			}
		})
	}

	var errs []error
	select {
	case <-ctx.Done():
		s.Log.Info("shutting down", "drain_delay", s.DrainDelay.String())
		s.NotReady()
		for _, server := range s.Servers {
			server.draining.Store(true)
		}
		if err := s.drain(failed); err != nil {
			errs = append(errs, err)
		}
	case err := <-failed:
		s.NotReady()
		errs = append(errs, err)
	}
	errs = append(errs, s.stop(ctx, &tasks, stopTasks)...)
	serving.Wait()
	return errors.Join(errs...)
}

const (
	// quiet is how long no caller has been there when endpoints have moved.
	quiet = 500 * time.Millisecond
	// maxLinger is how much longer than the drain delay it may take. Nothing tells a pod that
	// endpoints have been moved, and where pods come and go they are moved late: Kubernetes'
	// controller of EndpointSlices tries again after one second, two more and four more while
	// its cache is behind its own writes (defaultSyncBackOff in k8s.io/kubernetes,
	// pkg/controller/endpointslice), and kube-proxy follows.
	maxLinger = 10 * time.Second
	// maxWait is how much longer those are waited for who have not been answered, if nobody
	// else comes. They may be slow themselves.
	maxWait = 2 * time.Second
)

// drain waits until the callers are gone, or a server or task has failed.
func (s Service) drain(failed <-chan error) error {
	begun := time.Now()
	timer := time.NewTimer(s.DrainDelay)
	defer timer.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case now := <-timer.C:
			var last time.Time
			waits := false
			for _, server := range s.Servers {
				at, waiting := server.lastHeard(now)
				if at.After(last) {
					last = at
				}
				waits = waits || waiting
			}
			wait := linger(s.DrainDelay, now.Sub(begun), now.Sub(last), waits)
			if wait <= 0 {
				s.Log.Info("drained, accepting no more connections", "duration_ms", now.Sub(begun).Milliseconds())
				return nil
			}
			timer.Reset(wait)
		}
	}
}

// linger is how much longer to serve, so long after draining began and after a caller was
// last there, while somebody waits or nobody.
func linger(delay, draining, silence time.Duration, waits bool) time.Duration {
	still := min(quiet, delay)
	more := min(still-silence, delay+maxLinger-draining)
	if waits {
		more = max(more, min(still, delay+maxWait-draining))
	}
	return more
}

// stop is the part of Run after the drain delay.
func (s Service) stop(ctx context.Context, tasks *sync.WaitGroup, stopTasks context.CancelFunc) []error {
	// ctx has ended; what is left to do must not end with it.
	ctx = context.WithoutCancel(ctx)
	errs := s.shutdown(ctx, s.Servers)

	stopTasks()
	tasksCtx, cancel := context.WithTimeout(ctx, s.ShutdownTimeout)
	defer cancel()
	if !ends(tasksCtx, tasks) {
		errs = append(errs, fmt.Errorf("background tasks: not ended after %s", s.ShutdownTimeout))
	}

	hookCtx, cancel := context.WithTimeout(ctx, s.ShutdownTimeout)
	defer cancel()
	for _, hook := range s.Hooks {
		if err := hook.Run(hookCtx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", hook.Name, err))
		}
	}
	return append(errs, s.shutdown(ctx, s.Ops)...)
}

// ends reports whether everything that wg counts ends before ctx does.
func ends(ctx context.Context, wg *sync.WaitGroup) bool {
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// shutdown ends servers side by side.
func (s Service) shutdown(ctx context.Context, servers []*Server) []error {
	ctx, cancel := context.WithTimeout(ctx, s.ShutdownTimeout)
	defer cancel()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { errs[i] = server.shutdown(ctx) })
	}
	wg.Wait()
	return errs
}
