package access

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// maxReviews is how many reviews of one lane are made at once. A review takes the API
	// server a few milliseconds, so this is about a thousand a second.
	maxReviews = 8
	// maxWaiting is how many more may wait in a lane. Those behind them would be told
	// to come back anyway, only later.
	maxWaiting = 256
)

// errBusy says that too many reviews are under way.
var errBusy = errors.New("too many reviews at once")

// lane lets a few reviews through at once.
type lane struct {
	places  *semaphore.Weighted
	waiting atomic.Int64
}

func newLane() *lane { return &lane{places: semaphore.NewWeighted(maxReviews)} }

// enter waits for a place until ctx ends. The caller calls leave.
func (l *lane) enter(ctx context.Context) (leave func(), err error) {
	if l.waiting.Add(1) > maxReviews+maxWaiting {
		l.waiting.Add(-1)
		return nil, errBusy
	}
	if err := l.places.Acquire(ctx, 1); err != nil {
		l.waiting.Add(-1)
		return nil, errors.Join(errBusy, err)
	}
	return func() {
		l.places.Release(1)
		l.waiting.Add(-1)
	}, nil
}
