package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/gateway/metrics"
)

// store remembers what it accepted, and fails as it is told.
type store struct {
	mu      sync.Mutex
	writes  [][]Event
	failing error
	refuse  func(Event) bool
	hold    time.Duration
}

func (s *store) Write(ctx context.Context, events []Event) error {
	select {
	case <-time.After(s.hold):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return s.failing
	}
	if s.refuse != nil && slices.ContainsFunc(events, s.refuse) {
		return &RefusedError{Reason: "bad event"}
	}
	s.writes = append(s.writes, slices.Clone(events))
	return nil
}

// accepted returns the correlation ids of all accepted events in their order.
func (s *store) accepted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, write := range s.writes {
		for _, event := range write {
			ids = append(ids, event.CorrelationID)
		}
	}
	return ids
}

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
}

// fixture is a trail that runs, with what it says.
type fixture struct {
	*Trail
	store   *store
	log     *strings.Builder
	dropped map[metrics.Drop]int
	stop    func()
}

// start runs a trail within a synctest bubble.
func start(t *testing.T, s *store, size int) *fixture {
	t.Helper()
	f := &fixture{store: s, log: &strings.Builder{}, dropped: map[metrics.Drop]int{}}
	f.Trail = NewTrail(Options{
		Store: s, Log: slog.New(slog.NewJSONHandler(f.log, nil)),
		Dropped: func(reason metrics.Drop, n int) { f.dropped[reason] += n },
		Size:    size, BatchSize: 100, FlushInterval: time.Second,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// numbered returns events whose correlation ids are their numbers.
func numbered(from, to int) (events []Event) {
	for i := from; i < to; i++ {
		events = append(events, Event{ID: uuid.New(), Type: RequestCreated, CorrelationID: fmt.Sprint(i)})
	}
	return events
}

func ids(events []Event) (ids []string) {
	for _, event := range events {
		ids = append(ids, event.CorrelationID)
	}
	return ids
}

// in runs a test in a bubble, and ends its trail before the bubble does.
func in(t *testing.T, s *store, size int, test func(t *testing.T, f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, s, size)
		test(t, f)
		f.stop()
	})
}

func TestAFewEventsWaitForASecond(t *testing.T) {
	in(t, &store{}, 1000, func(t *testing.T, f *fixture) {
		events := numbered(0, 3)
		f.Record(events...)
		<-time.After(990 * time.Millisecond)
		synctest.Wait()
		if got := f.store.accepted(); len(got) != 0 {
			t.Errorf("got %v too early", got)
		}
		<-time.After(20 * time.Millisecond)
		synctest.Wait()
		if got := f.store.accepted(); !slices.Equal(got, ids(events)) || len(f.store.writes) != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestABatchIsSentAtOnce(t *testing.T) {
	in(t, &store{}, 1000, func(t *testing.T, f *fixture) {
		events := numbered(0, 250)
		f.Record(events...)
		synctest.Wait()
		if got := f.store.accepted(); !slices.Equal(got, ids(events)) {
			t.Errorf("got %d events", len(got))
		}
		for _, write := range f.store.writes {
			if len(write) > 100 {
				t.Errorf("a batch of %d", len(write))
			}
		}
	})
}

func TestAFailingStoreDelaysEvents(t *testing.T) {
	for name, failure := range map[string]error{
		"down":          errors.New("connection refused"),
		"not permitted": errors.New("DataStorage: status 403"),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, &store{failing: failure}, 1000, func(t *testing.T, f *fixture) {
				events := numbered(0, 150)
				for _, event := range events {
					f.Record(event)
					<-time.After(time.Minute)
				}
				f.store.fail(nil)
				<-time.After(2*maxBackOff + time.Second)
				synctest.Wait()
				if got := f.store.accepted(); !slices.Equal(got, ids(events)) || len(f.dropped) != 0 {
					t.Errorf("got %d events, dropped %v", len(got), f.dropped)
				}
				if n := strings.Count(f.log.String(), "audit events are delayed"); n != 1 {
					t.Errorf("told %d times, want once: %s", n, f.log)
				}
			})
		})
	}
}

func TestAFullBufferDropsTheNewest(t *testing.T) {
	in(t, &store{failing: errors.New("down")}, 10, func(t *testing.T, f *fixture) {
		f.BatchSize = 10
		f.Record(numbered(0, 15)...)
		f.Record(numbered(15, 20)...)
		synctest.Wait() // the trail logs as well: until it sleeps, the log is its own
		if f.dropped[metrics.BufferFull] != 10 || strings.Count(f.log.String(), "audit buffer is full") != 1 {
			t.Errorf("got %v, log %s", f.dropped, f.log)
		}
		f.store.fail(nil)
		<-time.After(2*maxBackOff + time.Second)
		synctest.Wait()
		if got := f.store.accepted(); !slices.Equal(got, ids(numbered(0, 10))) {
			t.Errorf("got %v", got)
		}
		f.Record(numbered(20, 21)...)
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got := f.store.accepted(); len(got) != 11 {
			t.Errorf("got %v after the buffer emptied", got)
		}
	})
}

func TestTheBufferIsBoundedInBytes(t *testing.T) {
	in(t, &store{failing: errors.New("down")}, 100_000, func(t *testing.T, f *fixture) {
		large := numbered(0, 1)[0]
		large.Data.OriginalPayload = strings.Repeat("x", 1<<20)
		for range 100 {
			f.Record(large)
		}
		if n := f.dropped[metrics.BufferFull]; n != 37 {
			t.Errorf("dropped %d of 100 MiB, want 37", n)
		}
		f.store.fail(nil)
		<-time.After(2*maxBackOff + time.Second)
		synctest.Wait()
		if got := f.store.accepted(); len(got) != 63 || f.bytes != 0 {
			t.Errorf("got %d events, %d bytes left", len(got), f.bytes)
		}
		for _, write := range f.store.writes {
			if len(write) > 2 {
				t.Errorf("a batch of %d MiB", len(write))
			}
		}
	})
}

func TestOnlyTheEventAtFaultIsDropped(t *testing.T) {
	bad := func(e Event) bool { return e.CorrelationID == "17" || e.CorrelationID == "63" }
	in(t, &store{refuse: bad}, 1000, func(t *testing.T, f *fixture) {
		f.Record(numbered(0, 100)...)
		synctest.Wait()
		want := slices.DeleteFunc(ids(numbered(0, 100)), func(id string) bool { return id == "17" || id == "63" })
		if got := f.store.accepted(); !slices.Equal(got, want) || f.dropped[metrics.Rejected] != 2 {
			t.Errorf("got %v, dropped %v", got, f.dropped)
		}
		if n := strings.Count(f.log.String(), "audit event dropped"); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
	})
}

func TestFlushSendsWhatIsLeft(t *testing.T) {
	in(t, &store{hold: 10 * time.Millisecond}, 1000, func(t *testing.T, f *fixture) {
		events := numbered(0, 320)
		f.Record(events...)
		<-time.After(15 * time.Millisecond) // the second batch is on its way
		f.stop()
		if err := f.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		got := f.store.accepted()
		slices.Sort(got)
		want := ids(events)
		slices.Sort(want)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("got %d events", len(got))
		}
	})
}

func TestFlushCountsWhatItGivesUp(t *testing.T) {
	in(t, &store{failing: errors.New("down")}, 1000, func(t *testing.T, f *fixture) {
		f.Record(numbered(0, 42)...)
		f.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := f.Flush(ctx); err == nil || !strings.Contains(err.Error(), "42 audit events not sent") {
			t.Errorf("got %v", err)
		}
		if f.dropped[metrics.Shutdown] != 42 {
			t.Errorf("got %v", f.dropped)
		}
	})
}
