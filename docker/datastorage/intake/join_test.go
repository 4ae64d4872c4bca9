package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// recorder stores events; each transaction takes a while.
type recorder struct {
	mu     sync.Mutex
	groups [][]audit.Event
	fail   func(events []audit.Event) error
}

func (r *recorder) write(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
	r.mu.Lock()
	r.groups = append(r.groups, events)
	r.mu.Unlock()
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		return nil, errors.Join(audit.ErrUnavailable, ctx.Err())
	}
	if r.fail != nil {
		if err := r.fail(events); err != nil {
			return nil, err
		}
	}
	receipts := make([]audit.Receipt, len(events))
	for i, e := range events {
		receipts[i].ID = e.ID
	}
	return receipts, nil
}

// send has n requests of one event each come together, and returns how long they took.
func send(t *testing.T, j *joiner, events []audit.Event, timeout time.Duration) []error {
	t.Helper()
	errs := make([]error, len(events))
	var wg sync.WaitGroup
	for i := range events {
		wg.Go(func() {
			receipts, err := j.write(t.Context(), events[i:i+1], time.Now().Add(timeout))
			if errs[i] = err; err == nil && receipts[0].ID != events[i].ID {
				t.Errorf("request %d got another's receipt", i)
			}
		})
	}
	wg.Wait()
	return errs
}

func some(n int) []audit.Event {
	events := make([]audit.Event, n)
	for i := range events {
		events[i].ID, events[i].CorrelationID = uuid.New(), fmt.Sprint("c-", i)
	}
	return events
}

func TestOneThatComesAloneIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		began := time.Now()
		if errs := send(t, newJoiner(r.write), some(1), time.Second); errs[0] != nil || time.Since(began) != 10*time.Millisecond {
			t.Errorf("got %v after %s", errs, time.Since(began))
		}
	})
}

func TestThoseThatComeTogetherShareTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		began := time.Now()
		for _, err := range send(t, newJoiner(r.write), some(100), time.Second) {
			if err != nil {
				t.Error(err)
			}
		}
		if len(r.groups) > 4 || time.Since(began) > 20*time.Millisecond {
			t.Errorf("got %d transactions in %s", len(r.groups), time.Since(began))
		}
	})
}

func TestTheFaultOfOneIsNotThatOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := some(30)
		r := &recorder{fail: func(group []audit.Event) error {
			for _, e := range group {
				if e.ID == events[17].ID {
					return fmt.Errorf("%w: too long", audit.ErrRejected)
				}
				if e.ID == events[5].ID {
					return errBehind
				}
			}
			return nil
		}}
		for i, err := range send(t, newJoiner(r.write), events, time.Second) {
			switch want := map[int]error{17: audit.ErrRejected, 5: errBehind}[i]; {
			case !errors.Is(err, want):
				t.Errorf("request %d: got %v, want %v", i, err, want)
			}
		}
	})
}

func TestAStoreThatHangsCostsNobodyMoreThanHisTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoiner(func(ctx context.Context, _ []audit.Event) ([]audit.Receipt, error) {
			<-ctx.Done()
			return nil, errors.Join(audit.ErrUnavailable, ctx.Err())
		})
		began := time.Now()
		for _, err := range send(t, j, some(50), 3*time.Second) {
			if !errors.Is(err, audit.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestLargeRequestsHoldUpNoSmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		j := newJoiner(func(ctx context.Context, events []audit.Event) ([]audit.Receipt, error) {
			if len(events[0].Data) > joinedBytes {
				time.Sleep(time.Minute) //nolint:forbidigo // the bubble's own clock
			}
			return r.write(ctx, events)
		})
		large := some(3)
		var wg sync.WaitGroup
		for i := range large {
			large[i].Data = make([]byte, joinedBytes+1)
			wg.Go(func() { _, _ = j.write(t.Context(), large[i:i+1], time.Now().Add(time.Hour)) })
		}
		synctest.Wait()
		began := time.Now()
		if errs := send(t, j, some(1), time.Second); errs[0] != nil || time.Since(began) > 20*time.Millisecond {
			t.Errorf("got %v after %s", errs, time.Since(began))
		}
		wg.Wait()
	})
}

func TestAPanicIsAnError(t *testing.T) {
	j := newJoiner(func(context.Context, []audit.Event) ([]audit.Receipt, error) { panic("a bug") })
	if errs := send(t, j, some(1), time.Second); errs[0] == nil {
		t.Error("got no error")
	}
}
