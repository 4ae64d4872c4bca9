// Package coalesce answers many callers of one key with one piece of work. It is an
// optimisation only: the work has to be right without it, as other processes do the
// same work at the same time.
package coalesce

import (
	"context"
	"sync"
	"time"
)

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

	mu    sync.Mutex
	queue map[Key]*flight[In, Out] // has an entry while work of the key is under way; nil until somebody waits
}

// flight is one piece of work and those who wait for it.
type flight[In, Out any] struct {
	ctx  context.Context
	in   []In
	out  []Result[Out]
	done chan struct{}
}

// NewGroup returns a group that calls work with the inputs of one key in the order
// of their calls; it must return one result for each. Its context carries the values
// of the first caller's, ends after timeout, and does not end with any caller.
func NewGroup[Key comparable, In, Out any](timeout time.Duration, work func(ctx context.Context, key Key, in []In) []Result[Out]) *Group[Key, In, Out] {
	return &Group[Key, In, Out]{work: work, timeout: timeout, queue: map[Key]*flight[In, Out]{}}
}

// Do returns the result of a piece of work that begins after this call. When ctx
// ends first its error is returned, and the work goes on: it may be done or not.
func (g *Group[Key, In, Out]) Do(ctx context.Context, key Key, in In) (Out, error) {
	f, place := g.join(ctx, key, in)
	select {
	case <-f.done:
		return f.out[place].Value, f.out[place].Err
	case <-ctx.Done():
		var none Out
		return none, ctx.Err()
	}
}

// join adds a caller to the next flight of the key, and starts it if none is in the air.
func (g *Group[Key, In, Out]) join(ctx context.Context, key Key, in In) (f *flight[In, Out], place int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next, busy := g.queue[key]
	if next == nil {
		next = &flight[In, Out]{ctx: context.WithoutCancel(ctx), done: make(chan struct{})}
	}
	next.in = append(next.in, in)
	place = len(next.in) - 1
	if busy {
		g.queue[key] = next
		return next, place
	}
	g.queue[key] = nil
	go g.fly(key, next)
	return next, place
}

// fly works off one flight and those that have gathered meanwhile.
func (g *Group[Key, In, Out]) fly(key Key, f *flight[In, Out]) {
	for f != nil {
		ctx, cancel := context.WithTimeout(f.ctx, g.timeout)
		f.out = g.work(ctx, key, f.in)
		cancel()
		close(f.done)
		f = g.next(key)
	}
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
	return f
}
