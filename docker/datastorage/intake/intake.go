// Package intake accepts events: into the store, or into the queue when the store
// does not answer.
package intake

import (
	"context"
	"errors"
	"fmt"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/internal/trace"
)

// errAway is why events are queued without a try.
var errAway = fmt.Errorf("%w: the last probe did not reach it", audit.ErrUnavailable)

// ErrRefused is in the chain of the error when neither the store nor the queue took
// the events: nothing is kept of them.
var ErrRefused = errors.New("neither the store nor the queue answers")

// store is where events go.
type store interface {
	// Write stores events, all or none. An error with audit.ErrUnavailable in its
	// chain is not the fault of the events.
	Write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error)
}

// queue is where they wait while the store does not answer.
type queue interface {
	Add(ctx context.Context, events []audit.Event) error
}

// Observer is told what became of events.
type Observer interface {
	Stored(n int)
	Duplicate(n int)
	Queued(n int)
	Refused(n int)
}

// Intake is safe for concurrent use.
type Intake struct {
	store    store
	away     func() bool
	queue    queue
	observer Observer
}

// New returns an Intake. While away says that the store was not reached when it was last
// probed, the store is not tried: where nothing refuses the connection, each try would
// cost the sender the whole timeout.
func New(s store, away func() bool, q queue, observer Observer) *Intake {
	return &Intake{s, away, q, observer}
}

// Accept stores events that are normalized, all or none. When the store does not
// answer they are queued instead, and queued is true; the receipts then only repeat
// what was sent. When the queue does not answer either, the error wraps ErrRefused.
func (in *Intake) Accept(ctx context.Context, events []audit.Event) (receipts []audit.Receipt, queued bool, err error) {
	if err = errAway; !in.away() {
		receipts, err = in.store.Write(ctx, events)
	}
	if err == nil {
		duplicates := 0
		for _, receipt := range receipts {
			if receipt.Duplicate {
				duplicates++
			}
		}
		in.observer.Stored(len(receipts) - duplicates)
		in.observer.Duplicate(duplicates)
		return receipts, false, nil
	}
	if !errors.Is(err, audit.ErrUnavailable) {
		in.observer.Refused(len(events))
		return nil, false, err
	}
	// A write whose answer was lost may have been stored; the drain then finds the
	// ids taken.
	if failed := in.queue.Add(ctx, events); failed != nil {
		in.observer.Refused(len(events))
		return nil, false, fmt.Errorf("%w: %w", ErrRefused, errors.Join(err, failed))
	}
	trace.Log(ctx).Warn("events are queued", "count", len(events), "error", err)
	in.observer.Queued(len(events))
	receipts = make([]audit.Receipt, len(events))
	for i, event := range events {
		receipts[i] = audit.Receipt{ID: event.ID, Timestamp: event.Timestamp}
	}
	return receipts, true, nil
}
