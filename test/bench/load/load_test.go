package load

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for name, c := range map[string]struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		"of nothing":                {nil, 50, 0},
		"of one":                    {[]time.Duration{7}, 99, 7},
		"the median of two":         {[]time.Duration{1, 9}, 50, 1},
		"just above the median":     {[]time.Duration{1, 9}, 50.1, 9},
		"the median of a hundred":   {hundred, 50, 50},
		"the 99th of a hundred":     {hundred, 99, 99},
		"the 99.9th of a hundred":   {hundred, 99.9, 100},
		"zero is the least":         {hundred, 0, 1},
		"a hundred is the greatest": {hundred, 100, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Percentile(c.sorted, c.p); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(offset, took time.Duration, err error) sample { return sample{began.Add(offset), took, err} }
	failed := errors.New("503")
	got := summarize([]sample{
		at(-2*time.Second, time.Second, nil),           // warm-up
		at(-time.Second, 1500*time.Millisecond, nil),   // began in the warm-up, ended in the window
		at(0, 200*time.Millisecond, nil),               // inside
		at(100*time.Millisecond, time.Second, nil),     // inside, in the next second
		at(1900*time.Millisecond, 10*time.Second, nil), // the slowest ends long after the window
		at(2500*time.Millisecond, time.Second, nil),    // after
		at(time.Second, time.Millisecond, failed),      // fast, and no success
	}, began, began.Add(2500*time.Millisecond))
	if want := []time.Duration{200 * time.Millisecond, time.Second, 10 * time.Second}; !slices.Equal(got.Latencies, want) {
		t.Errorf("latencies: got %v, want %v", got.Latencies, want)
	}
	if want := []int{2, 1}; !slices.Equal(got.PerSecond, want) {
		t.Errorf("per second: got %v, want %v", got.PerSecond, want)
	}
	if got.Calls != 3 || got.Sent != 7 || got.Failures["503"] != 1 {
		t.Errorf("got %d calls of %d, failures %v", got.Calls, got.Sent, got.Failures)
	}
	if got.Rate() != 3/2.5 {
		t.Errorf("rate: got %v, want 1.2", got.Rate())
	}
}

// takes is a call that is answered after d.
func takes(d time.Duration, err error) Call {
	return func(context.Context, int, int) error {
		<-time.After(d)
		return err
	}
}

func TestRun(t *testing.T) {
	plan := Plan{Workers: 4, WarmUp: 3 * time.Second, Duration: 15 * time.Second, MaxCalls: 1_000_000}
	t.Run("measures after the warm-up, and looks twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var looks []time.Duration
			got, err := Run(t.Context(), plan, takes(99*time.Millisecond, nil), func(context.Context) error {
				looks = append(looks, time.Since(start))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := []time.Duration{3 * time.Second, 18 * time.Second}; !slices.Equal(looks, want) {
				t.Errorf("looked at %v, want %v", looks, want)
			}
			if got.Window != 15*time.Second || got.Calls < 600 || got.Calls > 608 || len(got.PerSecond) != 15 {
				t.Errorf("got %d calls in %s, %v", got.Calls, got.Window, got.PerSecond)
			}
			if p := Percentile(got.Latencies, 99); p != 99*time.Millisecond || Mean(got.Latencies) != p {
				t.Errorf("p99: got %s, want 99ms", p)
			}
		})
	})
	t.Run("ends early when the calls are used up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			few := plan
			few.MaxCalls = 200 // at 40 a second
			got, err := Run(t.Context(), few, takes(100*time.Millisecond, nil), func(context.Context) error { return nil })
			if err != nil || got.Sent != 200 || got.Window != 2*time.Second {
				t.Errorf("got %d calls, a window of %s, error %v", got.Sent, got.Window, err)
			}
		})
	})
	t.Run("is an error when none is left for the window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			few := plan
			few.MaxCalls = 10
			_, err := Run(t.Context(), few, takes(time.Millisecond, nil), func(context.Context) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "no call is left after the warm-up") {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("gives up on what always fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got, err := Run(t.Context(), plan, takes(10*time.Millisecond, errors.New("503")), func(context.Context) error { return nil })
			if err == nil || got.Calls != 0 || got.Sent > maxFailures+plan.Workers {
				t.Errorf("got %d calls, %d succeeded, error %v", got.Sent, got.Calls, err)
			}
		})
	})
	t.Run("ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := Run(ctx, plan, takes(time.Millisecond, nil), func(context.Context) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("ends when looking fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			blind := errors.New("no such node")
			if _, err := Run(t.Context(), plan, takes(time.Millisecond, nil), func(context.Context) error { return blind }); !errors.Is(err, blind) {
				t.Errorf("got %v", err)
			}
		})
	})
}
