package intake

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

// counter is a Registrar that counts, and whose work goes on when nobody waits.
type counter struct {
	n    atomic.Int64
	slow time.Duration
	err  error
}

func (c *counter) Register(ctx context.Context, report remediation.Report) (remediation.Outcome, error) {
	ended, fails := make(chan remediation.Outcome, 1), c.err
	go func() {
		time.Sleep(c.slow) //nolint:forbidigo // the time of a synctest bubble
		if fails != nil {
			report.Settled(remediation.Outcome{}, fails)
			close(ended)
			return
		}
		n := c.n.Add(1)
		outcome := remediation.Outcome{Name: "rr-1", Count: n, Created: n == 1}
		report.Settled(outcome, nil)
		ended <- outcome
	}()
	select {
	case outcome := <-ended:
		return outcome, fails
	case <-ctx.Done():
		return remediation.Outcome{}, ctx.Err()
	}
}

// grouped is a signal as Alertmanager's group brings it.
func grouped() signal.Signal {
	s := given()
	s.Group, s.Firing = `{}:{alertname="A"}`, now
	return s
}

// TestWhatComesAgainIsCountedOnce: a notification whose sender was not told what became of
// it comes again, and is the same report. One that was answered and comes again is new.
func TestWhatComesAgainIsCountedOnce(t *testing.T) {
	other, unnamed, resolved := grouped(), grouped(), grouped()
	other.Labels = map[string]string{"l": "w"}
	unnamed.Group = ""
	resolved.Resolved = true
	later := grouped()
	later.Firing = now.Add(time.Minute)
	for name, c := range map[string]struct {
		first, second signal.Signal
		answered      bool
		want          int64
	}{
		"not answered":              {grouped(), grouped(), false, 1},
		"answered":                  {grouped(), grouped(), true, 2},
		"another alert":             {grouped(), other, false, 2},
		"the alert fired again":     {grouped(), later, false, 2},
		"a sender without a key":    {unnamed, unnamed, false, 2},
		"resolved in the meantime":  {grouped(), resolved, false, 1},
		"one that was never stored": {resolved, grouped(), false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, book, memory := well(), &counter{}, NewMemory()
			i := &Intake{Owners: p, Scope: p, Book: book, Trail: p, Metrics: metrics.New()}
			var receipts []Receipt
			for attempt, s := range []signal.Signal{c.first, c.second} {
				ctx, delivery := memory.Begin(t.Context())
				receipt, err := i.Take(ctx, s)
				if err != nil {
					t.Fatal(err)
				}
				receipts = append(receipts, receipt)
				delivery.End(c.answered || attempt == 1)
			}
			if book.n.Load() != c.want {
				t.Errorf("got count %d, want %d", book.n.Load(), c.want)
			}
			if c.want == 1 && !c.first.Resolved && !c.second.Resolved && receipts[0] != receipts[1] {
				t.Errorf("got %+v, want what was told at first", receipts)
			}
			if name != "not answered" {
				return
			}
			ctx, delivery := memory.Begin(t.Context())
			if _, err := i.Take(ctx, grouped()); err != nil {
				t.Fatal(err)
			}
			delivery.End(true)
			if book.n.Load() != 2 {
				t.Errorf("once it was answered: got count %d, want 2", book.n.Load())
			}
		})
	}
}

// TestARetryWaitsForTheWorkThatIsUnderWay: the sender's time ends before the work's.
func TestARetryWaitsForTheWorkThatIsUnderWay(t *testing.T) {
	for name, fails := range map[string]error{"is stored": nil, "fails": errors.New("boom")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, book, memory := well(), &counter{slow: 3 * time.Second, err: fails}, NewMemory()
				i := &Intake{Owners: p, Scope: p, Book: book, Trail: p, Metrics: metrics.New()}
				take := func(patience time.Duration) (Receipt, error) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					ctx, delivery := memory.Begin(ctx)
					receipt, err := i.Take(ctx, grouped())
					delivery.End(err == nil)
					return receipt, err
				}
				for range 2 { // the second attempt finds the first still under way
					if _, err := take(time.Second); !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("got %v", err)
					}
				}
				book.err = nil
				if fails != nil {
					time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
				}
				receipt, err := take(time.Minute)
				if err != nil || receipt.Outcome.Count != 1 || book.n.Load() != 1 {
					t.Errorf("got %+v, %v, count %d", receipt, err, book.n.Load())
				}
				synctest.Wait()
			})
		})
	}
}

// TestTheTrailTellsWhatWasDone: also when the sender has not waited for it.
func TestTheTrailTellsWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, book := well(), &counter{slow: 3 * time.Second}
		i := &Intake{Owners: p, Scope: p, Book: book, Trail: p, Metrics: metrics.New()}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := i.Take(ctx, given()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if got := p.types(); got != "" {
			t.Errorf("before it is known: got %q", got)
		}
		time.Sleep(3 * time.Second) //nolint:forbidigo // the time of a synctest bubble
		synctest.Wait()
		if got := p.types(); got != "gateway.signal.received gateway.crd.created" {
			t.Errorf("got %q", got)
		}
	})
}

// TestWhatNobodyKnowsIsNotTold: an event that says failed of a request that may exist
// would be worse than none.
func TestWhatNobodyKnowsIsNotTold(t *testing.T) {
	p := well()
	p.register = func() (remediation.Outcome, error) { return remediation.Outcome{}, remediation.ErrUnknown }
	_, text, err := take(t, p, given())
	if err == nil || p.types() != "" || !strings.Contains(text, `gateway_crd_creation_errors_total{error_type="unknown"} 1`) {
		t.Errorf("got %v, events %q", err, p.types())
	}
}
