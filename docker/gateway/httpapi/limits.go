package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/internal/problem"
)

const (
	// MaxBodyBytes is the largest body that is read: a thousand alerts, as the rules of
	// kube-prometheus write them, are about 1.5 MB.
	MaxBodyBytes = 2 << 20

	// maxAlerts is what a sender whose group is too large is told to set. A thousand
	// alerts with the labels and annotations of kube-prometheus fit the largest body.
	maxAlerts = 1000

	// smallBody is the largest body that uses the lane of the small ones: some ten
	// alerts. So one storm does not hold up everybody's single alerts.
	smallBody = 16 << 10

	// heapPerByte is how much memory one byte of a body may take until it is stored: the
	// body itself, what is decoded from it, and what of it is under way to the API server
	// and to the audit trail. See TestTheWorstBodiesFitTheirBudget.
	heapPerByte = 20

	// heapPerRequest is what a request takes besides its body: its goroutines and
	// buffers, and the objects that are read for it.
	heapPerRequest = 32 << 10

	// MinBodyMemory is the least that bodies may take together: the largest one has to
	// fit the larger lane.
	MinBodyMemory = (MaxBodyBytes*heapPerByte + heapPerRequest) * 3 / 2

	// bodyPatience is how long a body waits until others have been worked off. Nothing
	// of it is read meanwhile.
	bodyPatience = 2 * time.Second

	// busyRetryAfter is what a sender beyond a limit is told: most requests take
	// some ten milliseconds.
	busyRetryAfter = time.Second
)

// budget bounds the memory that bodies take together. It is taken before a body is read,
// by what the body says of its length, in two lanes.
type budget struct {
	small, large *semaphore.Weighted
}

func newBudget(bytes int64) *budget {
	return &budget{small: semaphore.NewWeighted(bytes / 3), large: semaphore.NewWeighted(bytes - bytes/3)}
}

// take waits for room for a body of that length; -1 is an unknown one, which may be the
// largest. What it returns gives the room back.
func (b *budget) take(ctx context.Context, length int64) (free func(), err error) {
	if length < 0 {
		length = MaxBodyBytes
	}
	lane := b.large
	if length <= smallBody {
		lane = b.small
	}
	weight := length*heapPerByte + heapPerRequest
	ctx, cancel := context.WithTimeout(ctx, bodyPatience)
	defer cancel()
	if err := lane.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { lane.Release(weight) }, nil
}

// limit refuses a request when too many are being worked on, those included whose
// senders have gone. It does not queue.
func (a *api) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case a.slots <- struct{}{}:
			ctx, done := coalesce.Keep(r.Context(), func() { <-a.slots })
			defer done()
			next.ServeHTTP(w, r.WithContext(ctx))
		default:
			problem.Write(w, r, overloaded(r, "too many requests at once"))
		}
	})
}

// overloaded tells a sender to come back. Alertmanager drops a notification that is
// answered 429 and sends one that is answered 503 again within seconds.
func overloaded(r *http.Request, why string) *problem.Problem {
	p := problem.New(http.StatusTooManyRequests, "too-many-requests", why+"; try again")
	if r.URL.Path == metrics.EndpointPrometheus {
		p = problem.New(http.StatusServiceUnavailable, "overloaded", why+"; try again")
	}
	p.RetryAfter = busyRetryAfter
	return p
}

// tooLarge tells the sender of a body beyond the limit what to do, or returns nil.
func tooLarge(r *http.Request, err error) error {
	var limit *http.MaxBytesError
	if !errors.As(err, &limit) {
		return nil
	}
	detail := fmt.Sprintf("the body is larger than %d bytes", limit.Limit)
	if r.URL.Path == metrics.EndpointPrometheus {
		detail += fmt.Sprintf("; set max_alerts: %d in Alertmanager's webhook_configs", maxAlerts)
	}
	return problem.New(http.StatusRequestEntityTooLarge, "payload-too-large", detail).Because(err)
}

type senderKey struct{}

// deadline bounds the work on a request. A sender that leaves does not end it: what
// was accepted is done, and the limits bound it until then.
func (a *api) deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender := r.Context()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(sender), a.Timeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, senderKey{}, sender)))
	})
}

// waits reports whether the sender is still there.
func waits(ctx context.Context) bool {
	sender, ok := ctx.Value(senderKey{}).(context.Context)
	return !ok || sender.Err() == nil
}
