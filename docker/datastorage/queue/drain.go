package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// A transaction stores few entries at first and more while they are small: a
	// hundred of the largest events would not fit into the pod's memory.
	firstBatch = 4
	lastBatch  = 100
	// batchBytes is what a batch should stay below. An average event has a
	// thousand bytes.
	batchBytes = 1 << 20
	// idleInterval is how often an empty queue is looked at: what other instances
	// added, and what they left behind, is found in that time.
	idleInterval = time.Second
	// A store that does not answer is tried again soon, because events wait for
	// it, and at most every second, because each attempt costs it something.
	firstRetry = 250 * time.Millisecond
	lastRetry  = time.Second
)

// store is where drained events go.
type store interface {
	// Write stores events, all or none. Only an error with audit.ErrRejected in its
	// chain is final.
	Write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error)
	// Exclusive runs fn unless another instance does.
	Exclusive(ctx context.Context, fn func(ctx context.Context) error) (bool, error)
}

// Observer is told what the drain does. Its methods must be quick.
type Observer interface {
	Drained(n int)
	Buried(n int)
	Observed(State)
}

// Drainer stores what waits in a queue.
type Drainer struct {
	queue    *Queue
	store    store
	observer Observer
	log      *slog.Logger
}

// NewDrainer returns a Drainer; Run it.
func NewDrainer(q *Queue, s store, observer Observer, log *slog.Logger) *Drainer {
	return &Drainer{q, s, observer, log}
}

// Run drains the queue whenever something waits, until ctx ends; it finishes the
// batch in hand and returns nil then. Only one instance drains at a time, which keeps
// the order of each correlation id.
func (d *Drainer) Run(ctx context.Context) error {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, MaxInterval: lastRetry, Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	retry.Reset()
	told := false
	for {
		wait := idleInterval
		if err := d.pass(ctx); err != nil && ctx.Err() == nil {
			wait = retry.NextBackOff()
			if !told {
				d.log.Warn("queue is not drained", "error", err)
			}
			told = true
		} else {
			retry.Reset()
			if told && ctx.Err() == nil {
				d.log.Info("queue is drained again")
			}
			told = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// pass stores everything that waits now.
func (d *Drainer) pass(ctx context.Context) error {
	if state, err := d.observe(ctx); err != nil || state.Depth == 0 {
		return err
	}
	_, err := d.store.Exclusive(ctx, func(ctx context.Context) error {
		for size := firstBatch; ctx.Err() == nil; {
			// A batch that was begun is finished; the calls in it have their own
			// bounds.
			bytes, err := d.batch(context.WithoutCancel(ctx), size)
			if err != nil || bytes == 0 {
				return err
			}
			if bytes < batchBytes {
				size = min(2*size, lastBatch)
			} else {
				size = max(size/2, 1)
			}
		}
		return nil
	})
	_, observing := d.observe(context.WithoutCancel(ctx))
	return errors.Join(err, observing)
}

// observe reports the state of the queue.
func (d *Drainer) observe(ctx context.Context) (State, error) {
	state, err := d.queue.State(ctx, time.Now())
	if err == nil {
		d.observer.Observed(state)
	}
	return state, err
}

// batch stores or buries up to n of the oldest entries and returns how many bytes they
// had; zero means that nothing waits. After an error, what is left of them is read
// again by the next batch.
func (d *Drainer) batch(ctx context.Context, n int) (bytes int, err error) {
	entries, err := d.queue.read(ctx, n)
	if err != nil || len(entries) == 0 {
		return 0, err
	}
	for _, e := range entries {
		bytes += 1 + len(e.text)
	}
	var good []entry
	for _, e := range entries {
		if e.err != nil {
			if err := d.bury(ctx, e, e.err); err != nil {
				return 0, err
			}
			continue
		}
		good = append(good, e)
	}
	err = d.save(ctx, good)
	if errors.Is(err, audit.ErrRejected) && len(good) > 1 {
		// One of them is at fault. One by one shows which.
		for _, e := range good {
			if err := d.save(ctx, []entry{e}); err != nil {
				return 0, err
			}
		}
		err = nil
	}
	return bytes, err
}

// save stores entries and removes them from the queue; a single one that can never be
// stored is buried.
func (d *Drainer) save(ctx context.Context, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	events := make([]audit.Event, len(entries))
	for i := range entries {
		events[i] = entries[i].event
	}
	_, err := d.store.Write(ctx, events)
	switch {
	case err == nil:
	case errors.Is(err, audit.ErrRejected) && len(entries) == 1:
		return d.bury(ctx, entries[0], err)
	default:
		return err
	}
	if err := d.queue.remove(ctx, entries); err != nil {
		return fmt.Errorf("%d events are stored and will be stored again, to no effect: %w", len(entries), err)
	}
	d.observer.Drained(len(entries))
	return nil
}

// bury gives an entry up.
func (d *Drainer) bury(ctx context.Context, e entry, reason error) error {
	if err := d.queue.bury(ctx, e, reason); err != nil {
		return err
	}
	d.log.Error("an event can never be stored", "entry", e.id, "event_id", e.event.ID, "error", reason)
	d.observer.Buried(1)
	return nil
}
