// Package intake accepts events: into the store, or into the queue when the store
// does not answer or older events of the same correlation id wait there.
package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/internal/trace"
)

// Why events are queued without a try.
var (
	errAway   = fmt.Errorf("%w: the last probe did not reach it", audit.ErrUnavailable)
	errBehind = errors.New("older events of the correlation id wait")
)

// ErrRefused is in the chain of the error when neither the store nor the queue has
// confirmed the events. An answer may have been late, so something may be kept.
var ErrRefused = errors.New("neither the store nor the queue answers")

// lookTimeout bounds the look at what waits. Where the queue does not answer, nothing new
// can be put there either, and the events are stored at once.
const lookTimeout = 250 * time.Millisecond

// store is where events go.
type store interface {
	// Write stores events, all or none. An error with audit.ErrUnavailable in its
	// chain is not the fault of the events.
	Write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error)
}

// queue is where they wait while the store does not answer.
type queue interface {
	Add(ctx context.Context, events []audit.Event) error
	Waiting(ctx context.Context, correlations []string) (bool, error)
}

// Observer is told what became of events.
type Observer interface {
	Stored(n int)
	Duplicate(n int)
	Queued(n int)
	Refused(n int)
}

// Options configures an Intake. All fields are required.
type Options struct {
	Store    store
	Queue    queue
	Observer Observer
	// Away says that the store was not reached when it was last probed. It is not tried
	// then: where nothing refuses the connection, each try would cost the sender the whole
	// timeout.
	Away func() bool
	// QueueAway says the same of the queue.
	QueueAway func() bool
	// Timeout is how long events may take into the store; after it they are queued.
	Timeout time.Duration
}

// Intake is safe for concurrent use.
type Intake struct {
	opts   Options
	joiner *joiner
}

// New returns an Intake.
func New(opts Options) *Intake {
	in := &Intake{opts: opts}
	in.joiner = newJoiner(in.store)
	return in
}

// Accept stores events that are normalized, all or none. When the store does not
// answer, or older events of one of their correlation ids wait in the queue, they are
// queued instead, and queued is true; the receipts then only repeat what was sent. When
// the queue does not answer either, the error wraps ErrRefused. It goes on when ctx is
// cancelled.
func (in *Intake) Accept(ctx context.Context, events []audit.Event) (receipts []audit.Receipt, queued bool, err error) {
	if err = errAway; !in.opts.Away() {
		receipts, err = in.joiner.write(context.WithoutCancel(ctx), events, time.Now().Add(in.opts.Timeout))
	}
	if err == nil {
		duplicates := 0
		for _, receipt := range receipts {
			if receipt.Duplicate {
				duplicates++
			}
		}
		in.opts.Observer.Stored(len(receipts) - duplicates)
		in.opts.Observer.Duplicate(duplicates)
		return receipts, false, nil
	}
	if !errors.Is(err, audit.ErrUnavailable) && !errors.Is(err, errBehind) {
		in.opts.Observer.Refused(len(events))
		return nil, false, err
	}
	// A write whose answer was lost may have been stored; the drain then finds the
	// ids taken.
	if failed := in.opts.Queue.Add(ctx, events); failed != nil {
		in.opts.Observer.Refused(len(events))
		return nil, false, fmt.Errorf("%w: %w", ErrRefused, errors.Join(err, failed))
	}
	trace.Log(ctx).Warn("events are queued", "count", len(events), "error", err)
	in.opts.Observer.Queued(len(events))
	receipts = make([]audit.Receipt, len(events))
	for i, event := range events {
		receipts[i] = audit.Receipt{ID: event.ID, Timestamp: event.Timestamp}
	}
	return receipts, true, nil
}

// store writes the events of several requests, unless older ones of their correlation ids
// wait in the queue: they would stand before them in their chain.
func (in *Intake) store(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
	if !in.opts.QueueAway() {
		looking, cancel := context.WithTimeout(ctx, lookTimeout)
		waiting, err := in.opts.Queue.Waiting(looking, correlations(events))
		cancel()
		if err == nil && waiting {
			return nil, errBehind
		}
	}
	return in.opts.Store.Write(ctx, events)
}

func correlations(events []audit.Event) []string {
	all := make([]string, len(events))
	for i := range events {
		all[i] = events[i].CorrelationID
	}
	slices.Sort(all)
	return slices.Compact(all)
}
