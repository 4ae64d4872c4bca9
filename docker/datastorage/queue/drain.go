package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// batchEntries and batchBytes bound what a transaction stores, and what of the queue
	// is in memory. An average event has a thousand bytes.
	batchEntries = 500
	batchBytes   = 1 << 20
	// idleInterval is how often an empty queue is looked at: what other instances
	// added, and what they left behind, is found in that time.
	idleInterval = time.Second
	// A store that does not answer is tried again soon, because events wait for
	// it, and at most every second, because each attempt costs it something.
	firstRetry = 250 * time.Millisecond
	lastRetry  = time.Second
	// lastTry is when one is set aside even though the store took nothing else meanwhile.
	lastTry = 5
	// mostTries is how often an entry that takes too long is tried before it is set
	// aside: more than one stall of a disk or a node.
	mostTries = 2
	// slowInRow is how many different entries may take too long one after the other
	// before it is the store that is slow.
	slowInRow = 2
)

// store is where drained events go.
type store interface {
	// WriteLate stores events, all or none, with a deadline that suits events for which
	// nobody waits. Only an error with audit.ErrRejected in its chain is final; one with
	// audit.ErrTooSlow may be the event's fault or the store's.
	WriteLate(ctx context.Context, events []audit.Event) ([]audit.Receipt, error)
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
	soon     time.Duration

	held    map[string]held // entries that were tried in vain, by their id
	drained int             // entries stored so far
}

// held is an entry that took too long, or that found no room in the dead stream. Those
// behind it overtake it, but for those of its correlation id.
type held struct {
	entry
	tries   int
	drained int   // what was stored when it was tried last
	reason  error // final when dead is set
	dead    bool
}

// NewDrainer returns a Drainer; Run it. Soon is how long an entry may take while others
// wait behind it; what takes longer is tried again with the store's own deadline when
// nothing else waits.
func NewDrainer(q *Queue, s store, observer Observer, log *slog.Logger, soon time.Duration) *Drainer {
	return &Drainer{queue: q, store: s, observer: observer, log: log, soon: soon, held: map[string]held{}}
}

// Run drains the queue whenever something waits, until ctx ends; it finishes the
// batch in hand and returns nil then. Only one instance drains at a time, which keeps
// the order of each correlation id.
func (d *Drainer) Run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		d.watch(ctx)
	}()
	defer func() { <-watching }()
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

// watch reports the state of the queue, whatever the drain does meanwhile.
func (d *Drainer) watch(ctx context.Context) {
	for {
		d.observe(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(idleInterval):
		}
	}
}

// observe reports the state of the queue. When Redis does not answer, nothing new is known.
func (d *Drainer) observe(ctx context.Context) {
	if state, err := d.queue.State(ctx); err == nil {
		d.observer.Observed(state)
	}
}

// pass stores everything that waits now.
func (d *Drainer) pass(ctx context.Context) error {
	state, err := d.queue.State(ctx)
	if err != nil || state.Depth == 0 {
		return err
	}
	_, err = d.store.Exclusive(ctx, func(ctx context.Context) error {
		if err := d.walk(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		return d.again(ctx)
	})
	d.observe(context.WithoutCancel(ctx))
	return err
}

// walk goes over the queue once and stores what is not held.
func (d *Drainer) walk(ctx context.Context) error {
	present := map[string]bool{} // of what is held
	slow, alone := 0, 0          // alone counts what is left of a batch that took too long
	for after := "0-0"; ctx.Err() == nil; {
		size := batchEntries
		if alone > 0 {
			size, alone = 1, alone-1
		}
		// A batch that was begun is finished; the calls in it have their own bounds.
		working := context.WithoutCancel(ctx)
		entries, err := d.queue.read(working, after, size, batchBytes)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			maps.DeleteFunc(d.held, func(id string, _ held) bool { return !present[id] })
			return nil
		}
		var free []entry
		for _, e := range entries {
			if _, ok := d.held[e.id]; ok {
				present[e.id] = true
			} else if !d.waits(e) {
				free = append(free, e)
			}
		}
		soon, cancel := context.WithTimeout(working, d.soon)
		err = d.save(soon, free)
		cancel()
		switch {
		case errors.Is(err, audit.ErrTooSlow) && len(entries) > 1:
			alone = len(entries) // which of them is it?
			continue
		case errors.Is(err, audit.ErrTooSlow):
			d.hold(free[0], err)
			present[free[0].id] = true
			if slow++; slow == slowInRow {
				return err
			}
		case err != nil:
			return err
		default:
			if len(free) > 0 {
				slow = 0
			}
		}
		after = entries[len(entries)-1].id
	}
	return nil
}

// waits reports whether an older entry of the same correlation id is held.
func (d *Drainer) waits(e entry) bool {
	for _, h := range d.held {
		if h.chain == e.chain && e.err == nil && !h.dead {
			return true
		}
	}
	return false
}

// hold sets an entry back behind the others.
func (d *Drainer) hold(e entry, reason error) {
	h := d.held[e.id]
	d.held[e.id] = held{entry: e, tries: h.tries + 1, drained: d.drained, reason: reason}
}

// again tries what is held, now that everything else is stored. What takes too long again
// is set aside when the store took others meanwhile, or there are none.
func (d *Drainer) again(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(d.held)) {
		if ctx.Err() != nil {
			return nil
		}
		working, h := context.WithoutCancel(ctx), d.held[id]
		if !h.dead {
			err := d.save(working, []entry{h.entry})
			if err == nil {
				delete(d.held, id)
				continue
			}
			if !errors.Is(err, audit.ErrTooSlow) {
				return err
			}
			others := d.drained > h.drained || len(d.held) == 1
			d.hold(h.entry, err)
			if h = d.held[id]; h.tries < mostTries || !others && h.tries < lastTry {
				continue
			}
		}
		if err := d.bury(working, h.entry, h.reason); err != nil {
			return err
		}
	}
	return nil
}

// save stores entries, until the deadline of ctx if it has one, and removes them from the
// queue; what can never be stored is buried. After an error, what is left of them is still in the queue.
func (d *Drainer) save(ctx context.Context, entries []entry) error {
	good := make([]entry, 0, len(entries))
	events := make([]audit.Event, 0, len(entries))
	for _, e := range entries {
		if e.err != nil {
			if err := d.bury(ctx, e, e.err); err != nil {
				return err
			}
			continue
		}
		good, events = append(good, e), append(events, e.event)
	}
	if len(good) == 0 {
		return nil
	}
	until := ctx
	_, err := d.store.WriteLate(until, events)
	ctx = context.WithoutCancel(ctx) // the deadline was the store's
	switch {
	case err == nil:
	case errors.Is(err, audit.ErrRejected) && len(good) == 1:
		return d.bury(ctx, good[0], err)
	case errors.Is(err, audit.ErrRejected):
		// One of them is at fault. Half of them shows which half.
		half := len(good) / 2
		if err := d.save(until, good[:half]); err != nil {
			return err
		}
		return d.save(until, good[half:])
	default:
		return err
	}
	if err := d.queue.remove(ctx, good); err != nil {
		return fmt.Errorf("%d events are stored and will be stored again, to no effect: %w", len(good), err)
	}
	d.drained += len(good)
	d.observer.Drained(len(good))
	return nil
}

// bury sets an entry aside, or holds it when there is no room for it.
func (d *Drainer) bury(ctx context.Context, e entry, reason error) error {
	err := d.queue.bury(ctx, e, reason)
	if errors.Is(err, ErrDeadFull) {
		if _, ok := d.held[e.id]; !ok {
			d.log.Error("an event cannot be stored, nor set aside", "entry", e.id, "event_id", e.event.ID, "reason", reason, "error", err)
		}
		d.held[e.id] = held{entry: e, reason: reason, dead: true}
		return nil
	}
	if err != nil {
		return err
	}
	delete(d.held, e.id)
	d.log.Error("an event is set aside; see: datastorage dead list", "entry", e.id, "event_id", e.event.ID, "error", reason)
	d.observer.Buried(1)
	return nil
}
