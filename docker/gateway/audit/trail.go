package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/internal/panics"
)

const (
	// maxBytes bounds the buffer besides its number of events. Ten thousand events of
	// alerts as kube-prometheus writes them are about 30 MB.
	maxBytes = 32 << 20
	// greed bounds what one sender may take of the buffer: so many times what is free. One
	// alone gets four fifths of it, and leaves others a fifth; of two each gets four ninths.
	// (Choudhury and Hahne's dynamic threshold for shared buffers.)
	greed = 4
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
	Dir           string                           // where what waits outlives the process; empty for memory only
}

// Trail buffers events and sends them in their order. It is safe for concurrent use.
type Trail struct {
	Options

	mu    sync.Mutex
	queue []entry
	total share
	held  map[string]share // by sender
	spool *spool           // nil without a directory
	full  bool             // the last event found no room
	torn  bool             // the last event could not be written down
	ripe  chan struct{}
}

// entry is an event that waits.
type entry struct {
	Event
	size int
	file *segment // that it is written down in, or nil
}

func newEntry(event Event, file *segment) entry { return entry{event, event.size(), file} }

// share is what of the buffer is taken.
type share struct{ events, bytes int }

func (s share) plus(events, bytes int) share { return share{s.events + events, s.bytes + bytes} }

// NewTrail returns a trail that holds what a process before this one left in
// opts.Dir. Run sends what it gets.
func NewTrail(opts Options) (*Trail, error) {
	t := &Trail{Options: opts, held: map[string]share{}, ripe: make(chan struct{}, 1)}
	if opts.Dir == "" {
		return t, nil
	}
	var left []entry
	var err error
	if t.spool, left, err = openSpool(opts.Dir); err != nil {
		return nil, err
	}
	for _, e := range left {
		t.put(e)
	}
	if len(left) > 0 {
		t.Log.Info("audit events of an earlier process are sent", "waiting", len(left))
		t.signal()
	}
	return t, nil
}

// Record takes events, and never waits for the store. When they are written down they
// outlive the process. When there is no room they are dropped: what waits is older, and
// belongs to requests whose beginning would be missing. No sender can take all of the
// room.
func (t *Trail) Record(events ...Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, event := range events {
		event = event.cut()
		e := newEntry(event, nil)
		if !t.fits(e) {
			t.Dropped(metrics.BufferFull, 1)
			if !t.full {
				t.Log.Error("audit buffer is full, events are dropped", "waiting", t.total.events, "bytes", t.total.bytes, "sender", event.Actor)
			}
			t.full = true
			continue
		}
		t.full = false
		if t.spool != nil {
			var err error
			if e.file, err = t.spool.add(event); (err != nil) != t.torn {
				t.torn = err != nil
				t.Log.Error("audit events wait in memory only", "now", t.torn, "error", err)
			}
		}
		t.put(e)
	}
	if len(t.queue) >= t.BatchSize {
		t.signal()
	}
}

// fits reports whether there is room for an event, and its sender may have it.
func (t *Trail) fits(e entry) bool {
	held := t.held[e.Actor]
	return t.total.events < t.Size && held.events < greed*(t.Size-t.total.events) &&
		t.total.bytes+e.size <= maxBytes && held.bytes < greed*(maxBytes-t.total.bytes)
}

// put appends an event.
func (t *Trail) put(e entry) {
	t.queue = append(t.queue, e)
	t.total = t.total.plus(1, e.size)
	t.held[e.Actor] = t.held[e.Actor].plus(1, e.size)
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
			t.sync()
		case <-t.ripe:
		}
		if err := t.sendAll(ctx); err != nil {
			return nil // ctx has ended
		}
	}
}

// sync makes what was written down outlive the machine as well.
func (t *Trail) sync() {
	if t.spool == nil {
		return
	}
	t.mu.Lock()
	file := t.spool.unsafe()
	t.mu.Unlock()
	if file == nil {
		return
	}
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // closed after it was synced
		t.Log.Warn("audit spool", "error", err)
	}
}

// Flush sends what is left. When ctx ends first the rest is given up, counted, and
// told in the error; what is written down is sent by the next process in the same place,
// if there is one. Run must have returned.
func (t *Trail) Flush(ctx context.Context) error {
	err := t.sendAll(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spool != nil {
		err = errors.Join(err, t.spool.close())
	}
	if len(t.queue) == 0 {
		return err
	}
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
	var batch []Event
	bytes := 0
	for _, e := range t.queue[:min(len(t.queue), t.BatchSize)] {
		if bytes += e.size; len(batch) > 0 && bytes > maxBatchBytes {
			break
		}
		batch = append(batch, e.Event)
	}
	return batch
}

// remove takes the n oldest events out of the buffer.
func (t *Trail) remove(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, e := range t.queue[:n] {
		t.total = t.total.plus(-1, -e.size)
		t.held[e.Actor] = t.held[e.Actor].plus(-1, -e.size)
		if t.held[e.Actor].events == 0 {
			delete(t.held, e.Actor)
		}
		if e.file != nil {
			if err := t.spool.done(e.file); err != nil {
				t.Log.Warn("audit spool", "error", err)
			}
		}
		t.queue[i] = entry{} // lets go of the payload while the array lives on
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
		err := panics.Catch(func() error { return t.Store.Write(ctx, batch) })
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
