package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

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
	return startIn(t, s, size, "")
}

// startIn runs a trail that writes down what waits.
func startIn(t *testing.T, s *store, size int, dir string) *fixture {
	t.Helper()
	f := &fixture{store: s, log: &strings.Builder{}, dropped: map[metrics.Drop]int{}}
	var err error
	f.Trail, err = NewTrail(Options{
		Store: s, Log: slog.New(slog.NewJSONHandler(f.log, nil)),
		Dropped: func(reason metrics.Drop, n int) { f.dropped[reason] += n },
		Size:    size, BatchSize: 100, FlushInterval: time.Second, Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
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
	in(t, &store{failing: errors.New("down")}, 12, func(t *testing.T, f *fixture) { // of which one sender gets ten
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
		large.Type = SignalReceived
		large.Data.OriginalPayload = strings.Repeat("x", 1<<20)
		for i := range 10_000 {
			large.Actor = fmt.Sprint(i % 50)
			f.Record(large)
		}
		if n := f.total.bytes; n > maxBytes || n < maxBytes*9/10 || f.dropped[metrics.BufferFull] == 0 {
			t.Errorf("got %d bytes, dropped %v", n, f.dropped)
		}
		f.store.fail(nil)
		<-time.After(2*maxBackOff + time.Second)
		synctest.Wait()
		if f.total != (share{}) || len(f.held) != 0 {
			t.Errorf("left: %+v, %v", f.total, f.held)
		}
		for _, write := range f.store.writes {
			bytes := 0
			for _, event := range write {
				bytes += event.size()
			}
			if bytes > maxBatchBytes {
				t.Errorf("a batch of %d bytes", bytes)
			}
		}
	})
}

// TestOneSenderDoesNotTakeTheBuffer: also the many large events of one leave room for the
// small ones of others.
func TestOneSenderDoesNotTakeTheBuffer(t *testing.T) {
	in(t, &store{failing: errors.New("down")}, 1000, func(t *testing.T, f *fixture) {
		for name, payload := range map[string]int{"many": 10, "large": maxPayload} {
			greedy := numbered(0, 1)[0]
			greedy.Actor, greedy.Type, greedy.Data.OriginalPayload = name, SignalReceived, strings.Repeat("x", payload)
			f.Record(slices.Repeat([]Event{greedy}, 10_000)...)
		}
		before := f.dropped[metrics.BufferFull]
		for i := range 30 {
			other := numbered(i, i+1)
			other[0].Actor = fmt.Sprint("other-", i%10)
			f.Record(other...)
		}
		if n := f.dropped[metrics.BufferFull] - before; n != 0 {
			t.Errorf("%d of 30 events of others are dropped", n)
		}
		f.store.fail(nil)
	})
}

func TestEventsAreCut(t *testing.T) {
	event := Event{Type: SignalReceived, Data: Data{
		OriginalPayload: strings.Repeat("ä", 1<<20), ErrorDetails: strings.Repeat("x", 1<<20),
		SignalLabels:      map[string]string{"a": "kept", "b": strings.Repeat("x", 1<<20), "c": "no room"},
		SignalAnnotations: map[string]string{"a": "kept"},
	}}
	got := event.cut()
	if n := got.size(); n > 30<<10 {
		t.Errorf("got %d bytes", n)
	}
	if d := got.Data; !utf8.ValidString(d.OriginalPayload) || !strings.HasSuffix(d.OriginalPayload, cutMark) || d.SignalLabels["a"] != "kept" ||
		!strings.HasSuffix(d.SignalLabels["b"], cutMark) || d.SignalLabels["c"] != "" || d.SignalAnnotations["a"] != "kept" {
		t.Errorf("got %v, %v", d.SignalLabels["c"], d.SignalAnnotations)
	}
	if len(event.Data.SignalLabels["b"]) != 1<<20 {
		t.Error("the signal's own labels were cut")
	}
	event.Type = RequestCreated
	if got := event.cut(); got.Data.OriginalPayload != "" {
		t.Error("the payload is in both events of a new problem")
	}
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

// TestAKilledProcessLosesNothing: what it had recorded is sent by the next one in the
// same place, once for each event, and in its order.
func TestAKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	events := numbered(0, 5000)
	for i := range events {
		events[i].Type, events[i].Data.OriginalPayload = SignalDeduplicated, strings.Repeat("x", 3000)
	}
	in(t, &store{}, 10_000, func(t *testing.T, f *fixture) {
		f.stop() // it is killed below: nothing that ends a trail is called
		down := &store{failing: errors.New("down")}
		killed := startIn(t, down, 10_000, dir)
		killed.Record(events[:4000]...)
		synctest.Wait()
		killed.stop()
		if n := len(files(t, dir)); n < 3 {
			t.Errorf("got %d files", n)
		}
		torn(t, dir)

		next := startIn(t, &store{}, 10_000, dir)
		next.Record(events[4000:]...)
		<-time.After(3 * time.Second)
		synctest.Wait()
		next.stop()
		if got := next.store.accepted(); !slices.Equal(got, ids(events)) {
			t.Errorf("got %d events, want %d in their order", len(got), len(events))
		}
		if !strings.Contains(next.log.String(), `"waiting":4000`) {
			t.Errorf("got log %s", next.log)
		}
		if err := next.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// files returns the files of a spool.
func files(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// torn ends the newest file of a spool in the middle of an event, as a machine that fails does.
func torn(t *testing.T, dir string) {
	t.Helper()
	paths := files(t, dir)
	file, err := os.OpenFile(paths[len(paths)-1], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"ID":"x`); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasAcceptedIsRemoved: the files do not grow while events are accepted.
func TestWhatWasAcceptedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := startIn(t, &store{}, 1000, dir)
		for i := range 50 {
			f.Record(numbered(i*100, i*100+100)...)
			synctest.Wait()
		}
		var bytes int64
		for _, path := range files(t, dir) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			bytes += info.Size()
		}
		if bytes != 0 {
			t.Errorf("got %d bytes", bytes)
		}
		f.stop()
	})
}

func TestADirectoryThatIsNotThere(t *testing.T) {
	if _, err := NewTrail(Options{Dir: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "audit spool") {
		t.Errorf("got %v", err)
	}
}
