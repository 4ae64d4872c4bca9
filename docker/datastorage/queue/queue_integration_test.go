//go:build integration

package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

// store remembers what is written and fails as it is told.
type store struct {
	mu      sync.Mutex
	events  []audit.Event
	fail    func(events []audit.Event) error // nil never fails
	busy    bool                             // another instance drains
	changed chan struct{}                    // a token for each call
}

func newStore() *store { return &store{changed: make(chan struct{}, 1000)} }

func (s *store) WriteLate(_ context.Context, events []audit.Event) ([]audit.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.changed <- struct{}{} }()
	if s.fail != nil {
		if err := s.fail(events); err != nil {
			return nil, err
		}
	}
	s.events = append(s.events, events...)
	return make([]audit.Receipt, len(events)), nil
}

func (s *store) Exclusive(ctx context.Context, fn func(context.Context) error) (bool, error) {
	s.mu.Lock()
	busy := s.busy
	s.mu.Unlock()
	if busy {
		s.changed <- struct{}{}
		return false, nil
	}
	return true, fn(ctx)
}

func (s *store) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// observer adds up.
type observer struct {
	mu              sync.Mutex
	drained, buried int
	state           queue.State
}

func (o *observer) Drained(n int) { o.mu.Lock(); defer o.mu.Unlock(); o.drained += n }
func (o *observer) Buried(n int)  { o.mu.Lock(); defer o.mu.Unlock(); o.buried += n }
func (o *observer) Observed(s queue.State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = s
}

// drain runs a drainer in the background; end stops it.
func drain(t *testing.T, q *queue.Queue, s interface {
	WriteLate(context.Context, []audit.Event) ([]audit.Receipt, error)
	Exclusive(context.Context, func(context.Context) error) (bool, error)
}) (o *observer, end func()) {
	t.Helper()
	o = &observer{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- queue.NewDrainer(q, s, o, slog.New(slog.DiscardHandler), 10*time.Second).Run(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(end)
	return o, end
}

// empty waits until nothing waits in the queue.
func empty(t *testing.T, q *queue.Queue) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for {
		state, err := q.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if state.Depth == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still %d in the queue", state.Depth)
		case <-ticker.C:
		}
	}
}

func add(t *testing.T, q *queue.Queue, n int, correlations ...string) []audit.Event {
	t.Helper()
	var events []audit.Event
	for i := range n {
		events = append(events, testenv.Event(t, correlations[i%len(correlations)], nil))
	}
	if err := q.Add(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	return events
}

func sameIDs(t *testing.T, got, want []audit.Event) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b audit.Event) bool { return a.ID == b.ID }) {
		t.Errorf("got %d events, want %d in the order in which they were added", len(got), len(want))
	}
}

func TestStateTellsDepthAndAge(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	if state, err := q.State(t.Context()); err != nil || state != (queue.State{}) {
		t.Errorf("empty: got %+v, %v", state, err)
	}
	add(t, q, 3, "c-1")
	state, err := q.State(t.Context())
	if err != nil || state.Depth != 3 || time.Since(state.Oldest) > time.Minute {
		t.Errorf("got %+v, %v", state, err)
	}
}

func TestDrainKeepsTheOrderAcrossFailures(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	s := newStore()
	failures := 3
	s.fail = func([]audit.Event) error {
		if failures--; failures >= 0 {
			return fmt.Errorf("down: %w", audit.ErrUnavailable)
		}
		return nil
	}
	want := add(t, q, 250, "c-1", "c-2")
	o, end := drain(t, q, s)
	empty(t, q)
	end()
	sameIDs(t, s.events, want)
	if o.drained != 250 || o.buried != 0 || o.state.Depth != 0 {
		t.Errorf("got %+v", o)
	}
}

func TestDrainFinishesWhatADeadInstanceBegan(t *testing.T) {
	client, q, opts := testenv.Redis(t)
	want := add(t, q, 10, "c-1")
	// Versions before this one read by a group, whose entries stay with a dead consumer.
	if err := client.XGroupCreateMkStream(t.Context(), opts.Stream, "datastorage", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "datastorage", Consumer: "dead", Streams: []string{opts.Stream, ">"}, Count: 4}).Err(); err != nil {
		t.Fatal(err)
	}
	s := newStore()
	drain(t, q, s)
	empty(t, q)
	sameIDs(t, s.events, want)
}

func TestTheQueueKnowsWhichChainsWait(t *testing.T) {
	client, q, opts := testenv.Redis(t)
	waiting := func(want bool, correlations ...string) {
		t.Helper()
		if got, err := q.Waiting(t.Context(), correlations); err != nil || got != want {
			t.Errorf("%v: got %v, %v", correlations, got, err)
		}
	}
	waiting(false, "c-1")
	add(t, q, 2, "c-1")
	waiting(true, "c-0", "c-1")
	waiting(false, "c-0")
	s := newStore()
	drain(t, q, s)
	empty(t, q)
	waiting(false, "c-1")
	if keys, err := client.Exists(t.Context(), opts.Keys()[1]).Result(); err != nil || keys != 0 {
		t.Errorf("something is left: %d, %v", keys, err)
	}
}

// TestWhatTakesTooLongIsOvertaken has one entry that is always too slow, first of all, and
// one of the same chain behind it.
func TestWhatTakesTooLongIsOvertaken(t *testing.T) {
	client, q, opts := testenv.Redis(t)
	events := add(t, q, 50, "c-1", "c-2")
	s := newStore()
	s.fail = func(batch []audit.Event) error {
		if slices.ContainsFunc(batch, func(e audit.Event) bool { return e.ID == events[0].ID }) {
			return fmt.Errorf("%w: %w", audit.ErrUnavailable, audit.ErrTooSlow)
		}
		return nil
	}
	o, end := drain(t, q, s)
	empty(t, q)
	end()
	var one, two []audit.Event
	for i, e := range events[1:] {
		if i%2 == 0 {
			two = append(two, e)
		} else {
			one = append(one, e)
		}
	}
	// Those behind it in its chain wait until it is set aside.
	sameIDs(t, s.events, append(two, one...))
	if o.drained != 49 || o.buried != 1 {
		t.Errorf("got %+v", o)
	}
	var dead []queue.Dead
	if err := q.ListDead(t.Context(), func(d queue.Dead) error { dead = append(dead, d); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(dead) != 1 || dead[0].EventID != events[0].ID || dead[0].CorrelationID != "c-1" || !strings.Contains(dead[0].Reason, "longer") || dead[0].Bytes == 0 {
		t.Fatalf("got %+v", dead)
	}
	s.fail = nil
	if found, err := q.Retry(t.Context(), dead[0].Entry); !found || err != nil {
		t.Fatalf("got %v, %v", found, err)
	}
	if found, err := q.Retry(t.Context(), dead[0].Entry); found || err != nil {
		t.Errorf("again: got %v, %v", found, err)
	}
	drain(t, queue.New(opts), s)
	empty(t, q)
	sameIDs(t, s.events[len(s.events)-1:], events[:1])
	_ = client
}

func TestASlowStoreSetsNothingAside(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	events := add(t, q, 20, "c-1", "c-2", "c-3")
	s := newStore()
	failures := 12
	s.fail = func([]audit.Event) error {
		if failures--; failures >= 0 {
			return fmt.Errorf("%w: %w", audit.ErrUnavailable, audit.ErrTooSlow)
		}
		return nil
	}
	o, end := drain(t, q, s)
	empty(t, q)
	end()
	if o.buried != 0 || len(s.events) != len(events) {
		t.Errorf("got %d stored, %d set aside", len(s.events), o.buried)
	}
}

func TestDrainReadsByBytes(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	add(t, q, 300, "c-1")
	large := []byte(`{"text":"` + strings.Repeat("x", 1200_000) + `"}`)
	for range 4 {
		if err := q.Add(t.Context(), []audit.Event{testenv.Event(t, "c-1", func(e *audit.Event) { e.Data = large })}); err != nil {
			t.Fatal(err)
		}
	}
	s := newStore()
	most := 0
	s.fail = func(batch []audit.Event) error {
		bytes := 0
		for _, e := range batch {
			bytes += len(e.Data)
		}
		most = max(most, bytes)
		return nil
	}
	_, end := drain(t, q, s)
	empty(t, q)
	end()
	if most > 1300_000 || len(s.events) != 304 {
		t.Errorf("a batch has %d bytes; %d stored", most, len(s.events))
	}
}

// TestDeadLettersAreBounded has room for one of three.
func TestDeadLettersAreBounded(t *testing.T) {
	_, _, opts := testenv.Redis(t)
	opts.DeadBytes = 1 << 20
	q := queue.New(opts)
	large := []byte(`{"text":"` + strings.Repeat("x", 700_000) + `"}`)
	var bad []audit.Event
	for range 3 {
		bad = append(bad, testenv.Event(t, "c-1", func(e *audit.Event) { e.Data = large }))
	}
	if err := q.Add(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	good := add(t, q, 10, "c-1")
	s := newStore()
	s.fail = func(batch []audit.Event) error {
		if slices.ContainsFunc(batch, func(e audit.Event) bool { return len(e.Data) > 1000 }) {
			return fmt.Errorf("%w: value too long", audit.ErrRejected)
		}
		return nil
	}
	o, end := drain(t, q, s)
	until := time.After(20 * time.Second)
	for stored := 0; stored < len(good); {
		select {
		case <-s.changed:
		case <-until:
			t.Fatalf("%d stored", stored)
		}
		s.set(func() { stored = len(s.events) })
	}
	end()
	sameIDs(t, s.events, good)
	state, err := q.State(t.Context())
	if err != nil || state.Dead != 1 || state.Depth != 2 || o.buried != 1 {
		t.Errorf("got %+v, %v, %+v", state, err, o)
	}
}

func TestDrainWaitsForTheInstanceThatDrains(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	s := newStore()
	s.busy = true
	want := add(t, q, 5, "c-1")
	drain(t, q, s)
	<-s.changed
	s.set(func() { s.busy = false })
	empty(t, q)
	sameIDs(t, s.events, want)
}

func TestDrainBuriesWhatCanNeverBeStored(t *testing.T) {
	client, q, opts := testenv.Redis(t)
	events := add(t, q, 10, "c-1")
	if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: opts.Stream, Values: []string{"event", "no event at all"}}).Err(); err != nil {
		t.Fatal(err)
	}
	s := newStore()
	s.fail = func(batch []audit.Event) error {
		if slices.ContainsFunc(batch, func(e audit.Event) bool { return e.ID == events[4].ID }) {
			return fmt.Errorf("%w: value too long", audit.ErrRejected)
		}
		return nil
	}
	o, end := drain(t, q, s)
	empty(t, q)
	end()
	sameIDs(t, s.events, slices.Delete(slices.Clone(events), 4, 5))
	if o.drained != 9 || o.buried != 2 || o.state.Dead != 2 {
		t.Errorf("got %+v", o)
	}
	dead, err := client.XRange(t.Context(), opts.DeadStream, "-", "+").Result()
	if err != nil || len(dead) != 2 {
		t.Fatalf("got %v, %v", dead, err)
	}
	if dead[0].Values["event"] != "no event at all" || !strings.Contains(fmt.Sprint(dead[0].Values["reason"]), "not an event") ||
		!strings.Contains(fmt.Sprint(dead[1].Values["reason"]), "value too long") || !strings.Contains(fmt.Sprint(dead[1].Values["event"]), events[4].ID.String()) {
		t.Errorf("got %v", dead)
	}
}

func TestDrainFinishesTheBatchInHandWhenItEnds(t *testing.T) {
	_, q, _ := testenv.Redis(t)
	want := add(t, q, 520, "c-1")
	s := newStore()
	var end func()
	inHand, release := make(chan struct{}), make(chan struct{})
	s.fail = func([]audit.Event) error {
		close(inHand)
		<-release
		return nil
	}
	_, end = drain(t, q, s)
	<-inHand
	go end()
	close(release)
	end()
	sameIDs(t, s.events, want[:500])
	if state, err := q.State(t.Context()); err != nil || state.Depth != 20 {
		t.Errorf("got %+v, %v; want 20 left", state, err)
	}
}

func TestDrainSurvivesTheLossOfTheStream(t *testing.T) {
	client, q, opts := testenv.Redis(t)
	s := newStore()
	drain(t, q, s)
	first := add(t, q, 1, "c-1")
	empty(t, q)
	if err := client.Del(t.Context(), opts.Stream).Err(); err != nil {
		t.Fatal(err)
	}
	second := add(t, q, 1, "c-1")
	empty(t, q)
	sameIDs(t, s.events, append(first, second...))
}

// TestDrainIntoPostgres drains with two instances into a real database in which some
// of the events are stored already.
func TestDrainIntoPostgres(t *testing.T) {
	config := testenv.Migrated(t)
	db, err := postgres.Open(config, postgres.Timeouts{Write: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	_, q, opts := testenv.Redis(t)
	events := add(t, q, 300, "c-1", "c-2", "c-3")
	// The answer to this write was lost, so that it was queued too.
	if _, err := db.Write(t.Context(), events[:30]); err != nil {
		t.Fatal(err)
	}
	drain(t, q, db)
	drain(t, queue.New(opts), db)
	empty(t, q)
	page, err := db.Find(t.Context(), postgres.Query{Limit: 1000})
	if err != nil || page.Total != 300 {
		t.Fatalf("got %d events, %v", page.Total, err)
	}
	for c, correlation := range []string{"c-1", "c-2", "c-3"} {
		if got, err := db.VerifyChain(t.Context(), nil, correlation, audit.Verified{}); got.Length != 100 || got.Broken != nil || err != nil {
			t.Errorf("%s: got %+v, %v", correlation, got, err)
		}
		page, err := db.Find(t.Context(), postgres.Query{CorrelationID: correlation, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if want := events[(int(e.Position)-1)*3+c].ID; e.ID != want {
				t.Errorf("%s: position %d holds %s, want %s", correlation, e.Position, e.ID, want)
			}
		}
	}
}

func TestOnlyOneDrainsAtATime(t *testing.T) {
	db, err := postgres.Open(testenv.Migrated(t), postgres.Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	boom := errors.New("boom")
	ran, err := db.Exclusive(t.Context(), func(ctx context.Context) error {
		inner, err := db.Exclusive(ctx, func(context.Context) error { return nil })
		if inner || err != nil {
			t.Errorf("a second one: got %v, %v", inner, err)
		}
		return boom
	})
	if !ran || !errors.Is(err, boom) {
		t.Errorf("got %v, %v", ran, err)
	}
	if ran, err := db.Exclusive(t.Context(), func(context.Context) error { return nil }); !ran || err != nil {
		t.Errorf("afterwards: got %v, %v", ran, err)
	}
}

func TestAQueueThatIsAwaySaysSo(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	q := queue.New(queue.Options{Client: client, Timeout: 5 * time.Second})
	if err := q.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "queue: ping: dial tcp 127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if err := q.Add(t.Context(), []audit.Event{testenv.Event(t, "c-1", nil)}); err == nil {
		t.Error("added to nothing")
	}
}

// TestItIsTold: a password that is wrong from a Redis that is away.
func TestItIsTold(t *testing.T) {
	working, _, _ := testenv.Redis(t)
	for addr, refused := range map[string]bool{working.Options().Addr: true, "127.0.0.1:1": false} {
		client := redis.NewClient(&redis.Options{Addr: addr, Username: "nobody", Password: "wrong", MaxRetries: -1, DialerRetries: 1})
		err := queue.New(queue.Options{Client: client, Timeout: 5 * time.Second}).Ping(t.Context())
		if err == nil || queue.Refuses(err) != refused {
			t.Errorf("%s: got %v, want refused: %t", addr, err, refused)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}
