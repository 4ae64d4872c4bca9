package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/docker/gateway/metrics"
)

const (
	// maxBytes bounds the buffer besides its number of events: ten thousand events
	// with the largest payload would be 2.5 GB in a pod that may use 256 MiB.
	maxBytes = 64 << 20
	// maxBatchBytes stays below the 5 MiB that DataStorage takes, with room for
	// what JSON adds.
	maxBatchBytes = 2 << 20

	initialBackOff = 100 * time.Millisecond
	// maxBackOff is how long events may lie although DataStorage is well again.
	maxBackOff = 2 * time.Second
)

// Store takes events. Write stores all or none of them and is safe to repeat. A
// *RefusedError says that the events themselves are at fault; any other error is
// worth another try.
type Store interface {
	Write(ctx context.Context, events []Event) error
}

// RefusedError says that a batch holds an event that will never be accepted.
type RefusedError struct{ Reason string }

// Error returns the store's reason.
func (e *RefusedError) Error() string { return "refused: " + e.Reason }

// Options configures a Trail.
type Options struct {
	Store         Store
	Log           *slog.Logger
	Dropped       func(reason metrics.Drop, n int) // told of every event that is given up
	Size          int                              // events that may wait; more are dropped
	BatchSize     int                              // events sent at once, at most
	FlushInterval time.Duration                    // how long an event waits for others
}

// Trail buffers events and sends them in their order. It is safe for concurrent use.
type Trail struct {
	Options

	mu    sync.Mutex
	queue []Event
	bytes int
	full  bool // the last event found no room
	ripe  chan struct{}
}

// NewTrail returns a trail that holds nothing. Run sends what it gets.
func NewTrail(opts Options) *Trail {
	return &Trail{Options: opts, ripe: make(chan struct{}, 1)}
}

// Record takes events, and never blocks. When there is no room they are dropped:
// what waits is older, and belongs to requests whose beginning would be missing.
func (t *Trail) Record(events ...Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, event := range events {
		if len(t.queue) >= t.Size || t.bytes+event.size() > maxBytes {
			t.Dropped(metrics.BufferFull, 1)
			if !t.full {
				t.Log.Error("audit buffer is full, events are dropped", "waiting", len(t.queue), "bytes", t.bytes)
			}
			t.full = true
			continue
		}
		t.full = false
		t.queue = append(t.queue, event)
		t.bytes += event.size()
	}
	if len(t.queue) >= t.BatchSize {
		t.signal()
	}
}

// signal says that there is a batch to send.
func (t *Trail) signal() {
	select {
	case t.ripe <- struct{}{}:
	default:
	}
}

// Run sends events until ctx ends, and returns nil then. What is left is Flush's.
func (t *Trail) Run(ctx context.Context) error {
	ticker := time.NewTicker(t.FlushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-t.ripe:
		}
		if err := t.sendAll(ctx); err != nil {
			return nil // ctx has ended
		}
	}
}

// Flush sends what is left. When ctx ends first the rest is given up, counted, and
// told in the error. Run must have returned.
func (t *Trail) Flush(ctx context.Context) error {
	err := t.sendAll(ctx)
	if err == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Dropped(metrics.Shutdown, len(t.queue))
	return fmt.Errorf("%d audit events not sent: %w", len(t.queue), err)
}

// sendAll sends until the buffer is empty. Its only error is the end of ctx.
func (t *Trail) sendAll(ctx context.Context) error {
	for {
		batch := t.head()
		if len(batch) == 0 {
			return nil
		}
		if err := t.send(ctx, batch); err != nil {
			return err
		}
		t.remove(len(batch))
	}
}

// head returns the oldest events that fit one batch. They stay in the buffer until
// they are accepted.
func (t *Trail) head() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, bytes := 0, 0
	for n < len(t.queue) && n < t.BatchSize {
		bytes += t.queue[n].size()
		if n > 0 && bytes > maxBatchBytes {
			break
		}
		n++
	}
	return t.queue[:n:n]
}

// remove takes the n oldest events out of the buffer.
func (t *Trail) remove(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range n {
		t.bytes -= t.queue[i].size()
		t.queue[i] = Event{} // lets go of the payload while the array lives on
	}
	t.queue = t.queue[n:]
	if len(t.queue) == 0 {
		t.queue = nil
	}
}

// send makes the store accept a batch, however long that takes. A batch that is
// refused is halved until the event at fault stands alone; that one is dropped.
func (t *Trail) send(ctx context.Context, batch []Event) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = initialBackOff, maxBackOff
	tries := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		tries++
		err := t.Store.Write(ctx, batch)
		var refused *RefusedError
		if errors.As(err, &refused) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		if tries == 1 {
			t.Log.Warn("audit events are delayed", "waiting", t.waiting(), "error", err)
		}
	}))
	var refused *RefusedError
	switch {
	case err == nil:
		if tries > 1 {
			t.Log.Info("audit events are accepted again", "tries", tries)
		}
		return nil
	case !errors.As(err, &refused):
		return err
	case len(batch) == 1:
		t.Dropped(metrics.Rejected, 1)
		t.Log.Error("audit event dropped", "event_id", batch[0].ID, "event_type", batch[0].Type,
			"correlation_id", batch[0].CorrelationID, "error", err)
		return nil
	}
	half := len(batch) / 2
	if err := t.send(ctx, batch[:half]); err != nil {
		return err
	}
	return t.send(ctx, batch[half:])
}

// waiting returns the number of buffered events.
func (t *Trail) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}
