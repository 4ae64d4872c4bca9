package intake

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

const (
	// lanes is how many transactions of small requests are on their way at once. While
	// one waits for the disk another works.
	lanes = 2
	// largeLanes is the same for large requests, which are joined with no other.
	largeLanes = 2
	// joinedEvents and joinedBytes bound a joined transaction, so that it takes some
	// milliseconds. A request that has more is large.
	joinedEvents = 500
	joinedBytes  = 1 << 20
)

// writeFunc stores events, all or none.
type writeFunc func(ctx context.Context, events []audit.Event) ([]audit.Receipt, error)

// joiner stores the events of requests that come together in one transaction: the commit,
// which waits for the disk, is the dearest part of a small one. A request that comes when
// nothing is on its way is not delayed.
type joiner struct {
	// one stores what belongs together in one transaction.
	one   writeFunc
	large chan struct{}

	mu      sync.Mutex
	busy    int // lanes in use
	waiting []*part
}

// part is what one request wants stored.
type part struct {
	ctx      context.Context //nolint:containedctx // of the request that waits for done
	events   []audit.Event
	bytes    int
	deadline time.Time
	done     chan struct{}
	receipts []audit.Receipt
	err      error
}

func newJoiner(write writeFunc) *joiner {
	return &joiner{one: guarded(write), large: make(chan struct{}, largeLanes)}
}

// guarded turns a panic, which would end the process outside of a request, into an error.
func guarded(write writeFunc) writeFunc {
	return func(ctx context.Context, events []audit.Event) (receipts []audit.Receipt, err error) {
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		return write(ctx, events)
	}
}

// write stores events, all or none, until the deadline.
func (j *joiner) write(ctx context.Context, events []audit.Event, deadline time.Time) ([]audit.Receipt, error) {
	p := &part{ctx: ctx, events: events, deadline: deadline, done: make(chan struct{})}
	for i := range events {
		p.bytes += len(events[i].Data)
	}
	if p.bytes > joinedBytes || len(events) > joinedEvents {
		return j.writeLarge(p)
	}
	j.mu.Lock()
	j.waiting = append(j.waiting, p)
	lead := j.busy < lanes
	if lead {
		j.busy++
	}
	j.mu.Unlock()
	if lead {
		// Not in this request's own goroutine, which may answer before the last group.
		go j.run()
	}
	<-p.done
	return p.receipts, p.err
}

func (j *joiner) writeLarge(p *part) ([]audit.Receipt, error) {
	ctx, cancel := context.WithDeadline(p.ctx, p.deadline)
	defer cancel()
	select {
	case j.large <- struct{}{}:
		defer func() { <-j.large }()
	case <-ctx.Done():
		return nil, errors.Join(audit.ErrUnavailable, audit.ErrTooSlow)
	}
	return j.one(ctx, p.events)
}

// run stores group after group until nothing waits.
func (j *joiner) run() {
	for {
		group := j.next()
		if group == nil {
			return
		}
		j.store(group)
	}
}

// next takes what waits, up to the bounds of a transaction; nil gives the lane back.
func (j *joiner) next() []*part {
	j.mu.Lock()
	defer j.mu.Unlock()
	events, bytes, n := 0, 0, 0
	for _, p := range j.waiting {
		if n > 0 && (events+len(p.events) > joinedEvents || bytes+p.bytes > joinedBytes) {
			break
		}
		events, bytes, n = events+len(p.events), bytes+p.bytes, n+1
	}
	if n == 0 {
		j.busy--
		return nil
	}
	group := j.waiting[:n:n]
	if j.waiting = j.waiting[n:]; len(j.waiting) == 0 {
		j.waiting = nil
	}
	return group
}

// store stores the parts of a group together. When that fails by the fault of one of them,
// or because one has to wait, each gets a transaction of its own.
func (j *joiner) store(group []*part) {
	if len(group) == 1 {
		j.alone(group[0])
		return
	}
	var events []audit.Event
	deadline := group[0].deadline // the earliest: they wait in the order in which they came
	for _, p := range group {
		events = append(events, p.events...)
	}
	ctx, cancel := context.WithDeadline(group[0].ctx, deadline)
	receipts, err := j.one(ctx, events)
	cancel()
	if errors.Is(err, audit.ErrRejected) || errors.Is(err, errBehind) {
		for _, p := range group {
			j.alone(p)
		}
		return
	}
	for _, p := range group {
		if p.err = err; err == nil {
			p.receipts, receipts = receipts[:len(p.events)], receipts[len(p.events):]
		}
		close(p.done)
	}
}

func (j *joiner) alone(p *part) {
	ctx, cancel := context.WithDeadline(p.ctx, p.deadline)
	defer cancel()
	p.receipts, p.err = j.one(ctx, p.events)
	close(p.done)
}
