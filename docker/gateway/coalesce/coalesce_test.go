package coalesce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is work that takes a second and answers each input with itself.
type recorder struct {
	mu      sync.Mutex
	flights map[string][][]int
	err     error
}

func (r *recorder) work(ctx context.Context, key string, in []int) []Result[int] {
	r.mu.Lock()
	r.flights[key] = append(r.flights[key], slices.Clone(in))
	r.mu.Unlock()
	results := make([]Result[int], len(in))
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		for i := range results {
			results[i].Err = ctx.Err()
		}
		return results
	}
	for i := range results {
		results[i] = Result[int]{in[i], r.err}
	}
	return results
}

func TestCallsThatComeDuringTheWorkShareTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(time.Minute, r.work)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if got, err := g.Do(t.Context(), "a", i); got != i || err != nil {
					t.Errorf("got %d, %v, want %d", got, err, i)
				}
			})
			synctest.Wait() // so that the order of the calls is known
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %s, want 2s", took)
		}
		synctest.Wait() // the last flight has still to look for another
		flights := r.flights["a"]
		if len(flights) != 2 || !slices.Equal(flights[0], []int{0}) || !slices.Equal(flights[1], []int{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("got %v", flights)
		}
		if len(g.queue) != 0 {
			t.Errorf("%d keys are left behind", len(g.queue))
		}
	})
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(time.Minute, r.work)
		start := time.Now()
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "c"} {
			wg.Go(func() { _, _ = g.Do(t.Context(), key, 1) })
		}
		wg.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s, want 1s", took)
		}
	})
}

func TestACallerThatLeavesDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(time.Minute, r.work)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = g.Do(t.Context(), "a", 0) })
		synctest.Wait()
		wg.Go(func() {
			if _, err := g.Do(ctx, "a", 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := g.Do(t.Context(), "a", 2); got != 2 || err != nil {
				t.Errorf("got %d, %v", got, err)
			}
		})
		wg.Wait()
	})
}

func TestWorkEndsAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(100*time.Millisecond, r.work)
		if _, err := g.Do(t.Context(), "a", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
	})
}

func TestErrorsReachTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := errors.New("wrong")
		r := &recorder{flights: map[string][][]int{}, err: wrong}
		g := NewGroup(time.Minute, r.work)
		if _, err := g.Do(t.Context(), "a", 0); !errors.Is(err, wrong) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
	})
}

func TestNothingIsDoneForACallerThatLeftBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(time.Minute, r.work)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i, want := range []bool{false, true} { // the first is being worked on, the second waits
			wg.Go(func() {
				_, err := g.Do(ctx, "a", i)
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotBegun) != want {
					t.Errorf("call %d: got %v", i, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if err := g.Wait(t.Context()); err != nil {
			t.Errorf("got %v", err)
		}
		if flights := r.flights["a"]; len(flights) != 1 || !slices.Equal(flights[0], []int{0}) || len(g.queue) != 0 {
			t.Errorf("got %v, %d keys left behind", flights, len(g.queue))
		}
	})
}

func TestWorkThatPanicsIsAnErrorOfItsCallersOnly(t *testing.T) {
	g := NewGroup(time.Minute, func(_ context.Context, _ string, in []int) []Result[int] {
		if in[0] == 0 {
			panic("boom")
		}
		return make([]Result[int], len(in))
	})
	if _, err := g.Do(t.Context(), "a", 0); err == nil || !strings.Contains(err.Error(), "panicked: boom") {
		t.Errorf("got %v", err)
	}
	if _, err := g.Do(t.Context(), "a", 1); err != nil {
		t.Errorf("the next: got %v", err)
	}
}

// TestWhatACallerTookIsKeptUntilItsWorkEnds: a place among so many must bound the work,
// not those who wait for it.
func TestWhatACallerTookIsKeptUntilItsWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{flights: map[string][][]int{}}
		g := NewGroup(time.Minute, r.work)
		var released atomic.Int64
		ctx, done := Keep(t.Context(), func() { released.Add(1) })
		ctx, inner := Keep(ctx, func() { released.Add(10) })
		leaving, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := g.Do(leaving, "a", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		inner()
		done()
		if n := released.Load(); n != 0 {
			t.Errorf("released while the work goes on: %d", n)
		}
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := released.Load(); n != 11 {
			t.Errorf("got %d, want both released once", n)
		}
	})
}
