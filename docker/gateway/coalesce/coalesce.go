// Package coalesce answers many callers of one key with one piece of work. It is an
// optimisation only: the work has to be right without it, as other processes do the
// same work at the same time.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kubernaut.ai/e2e/docker/internal/panics"
)

// ErrNotBegun is in the error of a call whose context ended before its work began: then
// nothing was done for it, and nothing will be.
var ErrNotBegun = errors.New("not begun")

// Result is what one caller gets.
type Result[Out any] struct {
	Value Out
	Err   error
}

// Group does one piece of work per key at a time. Calls that come while the work of
// their key is under way wait for it to end and then share the next one. So nobody
// is answered from a state older than their call. Different keys never wait for each
// other. It is safe for concurrent use.
type Group[Key comparable, In, Out any] struct {
	work    func(ctx context.Context, key Key, in []In) []Result[Out]
	timeout time.Duration
	flights sync.WaitGroup

	mu    sync.Mutex
	queue map[Key]*flight[In, Out] // has an entry while work of the key is under way; nil until somebody waits
}

// flight is one piece of work and those who wait for it.
type flight[In, Out any] struct {
	ctx   context.Context
	calls []*call[In, Out]
	begun bool // what is in calls is being worked on
}

// call is one caller of Do.
type call[In, Out any] struct {
	in   In
	left bool // its caller went before the work began
	free func()
	out  chan Result[Out]
}

// NewGroup returns a group that calls work with the inputs of one key in the order
// of their calls; it must return one result for each. Its context carries the values
// of the first caller's, ends after timeout, and does not end with any caller. Work that
// panics ends in an error of its callers.
func NewGroup[Key comparable, In, Out any](timeout time.Duration, work func(ctx context.Context, key Key, in []In) []Result[Out]) *Group[Key, In, Out] {
	return &Group[Key, In, Out]{work: work, timeout: timeout, queue: map[Key]*flight[In, Out]{}}
}

// Do returns the result of a piece of work that begins after this call. When ctx
// ends first its error is returned: with ErrNotBegun the work will never be done for
// this caller, without it the work goes on, and may be done or not.
func (g *Group[Key, In, Out]) Do(ctx context.Context, key Key, in In) (Out, error) {
	f, c := g.join(ctx, key, in)
	select {
	case result := <-c.out:
		return result.Value, result.Err
	case <-ctx.Done():
		var none Out
		if g.leave(f, c) {
			return none, fmt.Errorf("%w: %w", ErrNotBegun, ctx.Err())
		}
		return none, ctx.Err()
	}
}

// Wait returns when no work is under way, or when ctx ends. There must be no calls of Do
// at the same time.
func (g *Group[Key, In, Out]) Wait(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		g.flights.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join adds a caller to the next flight of the key, and starts it if none is in the air.
func (g *Group[Key, In, Out]) join(ctx context.Context, key Key, in In) (*flight[In, Out], *call[In, Out]) {
	c := &call[In, Out]{in: in, free: keep(ctx), out: make(chan Result[Out], 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	next, busy := g.queue[key]
	if next == nil {
		next = &flight[In, Out]{ctx: context.WithoutCancel(ctx)}
	}
	next.calls = append(next.calls, c)
	if busy {
		g.queue[key] = next
		return next, c
	}
	g.queue[key] = nil
	next.begun = true
	g.flights.Go(func() { g.fly(key, next) })
	return next, c
}

// leave takes a caller out of a flight that has not begun, and reports whether it could.
func (g *Group[Key, In, Out]) leave(f *flight[In, Out], c *call[In, Out]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.begun {
		return false
	}
	c.left = true
	c.free()
	return true
}

// fly works off one flight and those that have gathered meanwhile.
func (g *Group[Key, In, Out]) fly(key Key, f *flight[In, Out]) {
	for f != nil {
		var in []In
		var calls []*call[In, Out]
		for _, c := range f.calls {
			if !c.left {
				in, calls = append(in, c.in), append(calls, c)
			}
		}
		if len(in) > 0 {
			for i, result := range g.results(f.ctx, key, in) {
				calls[i].free()
				calls[i].out <- result
			}
		}
		f = g.next(key)
	}
}

// results does the work once.
func (g *Group[Key, In, Out]) results(ctx context.Context, key Key, in []In) (out []Result[Out]) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	err := panics.Catch(func() error {
		out = g.work(ctx, key, in)
		if len(out) != len(in) {
			return fmt.Errorf("%d results for %d calls", len(out), len(in))
		}
		return nil
	})
	if err != nil {
		out = make([]Result[Out], len(in))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

// next takes the flight that has gathered, or nil and marks the key as idle.
func (g *Group[Key, In, Out]) next(key Key) *flight[In, Out] {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.queue[key]
	if f == nil {
		delete(g.queue, key)
		return nil
	}
	g.queue[key] = nil
	f.begun = true
	return f
}
