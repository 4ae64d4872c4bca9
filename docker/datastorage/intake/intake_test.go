package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

type fakeStore struct {
	err        error
	duplicates map[uuid.UUID]bool
}

func (s fakeStore) Write(_ context.Context, events []audit.Event) ([]audit.Receipt, error) {
	if s.err != nil {
		return nil, s.err
	}
	receipts := make([]audit.Receipt, len(events))
	for i, e := range events {
		receipts[i] = audit.Receipt{ID: e.ID, Timestamp: e.Timestamp, Duplicate: s.duplicates[e.ID]}
	}
	return receipts, nil
}

type fakeQueue struct {
	err     error
	added   []audit.Event
	waiting string // correlation id
}

func (q *fakeQueue) Waiting(_ context.Context, correlations []string) (bool, error) {
	return slices.Contains(correlations, q.waiting), q.err
}

func (q *fakeQueue) Add(_ context.Context, events []audit.Event) error {
	if q.err == nil {
		q.added = append(q.added, events...)
	}
	return q.err
}

type counts struct{ stored, duplicate, queued, refused int }

func (c *counts) Stored(n int)    { c.stored += n }
func (c *counts) Duplicate(n int) { c.duplicate += n }
func (c *counts) Queued(n int)    { c.queued += n }
func (c *counts) Refused(n int)   { c.refused += n }

func TestAccept(t *testing.T) {
	first, second := uuid.New(), uuid.New()
	events := []audit.Event{{ID: first, Timestamp: time.Unix(1, 0), CorrelationID: "c-1"}, {ID: second, Timestamp: time.Unix(2, 0), CorrelationID: "c-2"}}
	down := fmt.Errorf("write: %w: connection refused", audit.ErrUnavailable)
	rejected := fmt.Errorf("write: %w: too long", audit.ErrRejected)
	for name, c := range map[string]struct {
		store  fakeStore
		away   bool
		queue  fakeQueue
		queued bool
		err    error
		counts counts
	}{
		"stored":                   {fakeStore{}, false, fakeQueue{}, false, nil, counts{stored: 2}},
		"stored before":            {fakeStore{duplicates: map[uuid.UUID]bool{first: true}}, false, fakeQueue{}, false, nil, counts{stored: 1, duplicate: 1}},
		"the store is down":        {fakeStore{err: down}, false, fakeQueue{}, true, nil, counts{queued: 2}},
		"the store was down":       {fakeStore{}, true, fakeQueue{}, true, nil, counts{queued: 2}},
		"older ones wait":          {fakeStore{}, false, fakeQueue{waiting: "c-2"}, true, nil, counts{queued: 2}},
		"others wait":              {fakeStore{}, false, fakeQueue{waiting: "c-3"}, false, nil, counts{stored: 2}},
		"nobody knows what waits":  {fakeStore{}, false, fakeQueue{waiting: "c-1", err: errors.New("no route")}, false, nil, counts{stored: 2}},
		"both are down":            {fakeStore{err: down}, false, fakeQueue{err: errors.New("no route")}, false, ErrRefused, counts{refused: 2}},
		"the event is at fault":    {fakeStore{err: rejected}, false, fakeQueue{}, false, audit.ErrRejected, counts{refused: 2}},
		"nobody knows whose fault": {fakeStore{err: context.Canceled}, false, fakeQueue{}, false, context.Canceled, counts{refused: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			var got counts
			receipts, queued, err := New(Options{
				Store: c.store, Queue: &c.queue, Observer: &got, Timeout: time.Minute,
				Away: func() bool { return c.away }, QueueAway: func() bool { return false },
			}).Accept(t.Context(), events)
			if queued != c.queued || !errors.Is(err, c.err) || got != c.counts {
				t.Errorf("got queued %v, error %v, counts %+v", queued, err, got)
			}
			if (len(c.queue.added) == 2) != c.queued {
				t.Errorf("got %d events in the queue", len(c.queue.added))
			}
			if err == nil && (len(receipts) != 2 || receipts[0].ID != first || receipts[1].ID != second || receipts[1].Timestamp != time.Unix(2, 0)) {
				t.Errorf("got %+v", receipts)
			}
		})
	}
}
