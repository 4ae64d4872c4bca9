package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"kubernaut.ai/e2e/docker/datastorage/canonical"
	"kubernaut.ai/e2e/docker/internal/problem"
)

// What a body costs until its events are stored is known before it is read: itself, and
// canonical.CostFactor times as much while it is decoded. All bodies in hand take no more
// than 8*(3+8) MiB then, of the 256 MiB that the manifest gives the pod.
const (
	// smallBody is what goes through a lane of its own, so that large bodies hold up no
	// small ones. A batch of a hundred average events has 150,000 bytes.
	smallBody = 256 << 10
	// smallInHand is how many bytes of small bodies are in hand at once.
	smallInHand = 3 << 20
	// largeInHand is the same for large ones, and at least one of the largest.
	largeInHand = 8 << 20
	// verifyBody bounds a request to verify a chain, which is read by the generated
	// code: that takes some sixty times its size.
	verifyBody = 4 << 10
	// largeBodyTime is how long a large body may take to arrive, because it holds its
	// part of the budget for so long.
	largeBodyTime = 8 * time.Second
)

// The sum above holds while this compiles.
const _ = uint(8 - (1 + canonical.CostFactor))

// lanes are the budgets of the bodies in hand.
type lanes struct {
	limit        int64
	small, large *semaphore.Weighted
}

func newLanes(limit int64) *lanes {
	return &lanes{limit, semaphore.NewWeighted(smallInHand), semaphore.NewWeighted(max(largeInHand, limit))}
}

// body reads the body of r, which is JSON and has at most limit bytes, within the budget
// of its lane; done gives the budget back. What it costs is taken by its announced
// length, or as the largest when it announces none, before it is read.
func (l *lanes) body(w http.ResponseWriter, r *http.Request) (body []byte, done func(), err error) {
	if err := checkType(r); err != nil {
		return nil, nil, err
	}
	if r.ContentLength > l.limit {
		return nil, nil, &http.MaxBytesError{Limit: l.limit}
	}
	weight, lane := r.ContentLength, l.small
	if weight < 0 {
		weight = l.limit
	}
	if weight > smallBody {
		lane = l.large
	}
	if err := lane.Acquire(r.Context(), weight); err != nil {
		return nil, nil, overloaded(r.Context().Err())
	}
	done = func() { lane.Release(weight) }
	if lane == l.large {
		// A recorder in tests has no deadlines. It must not stand afterwards: the server
		// would take it for the sender's end.
		connection := http.NewResponseController(w)
		_ = connection.SetReadDeadline(time.Now().Add(largeBodyTime))
		defer func() { _ = connection.SetReadDeadline(time.Time{}) }()
	}
	buffer := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, l.limit)); err != nil {
		done()
		return nil, nil, unreadable(err)
	}
	return buffer.Bytes(), done, nil
}

// overloaded tells a sender whose body found no room in time to come back.
func overloaded(cause error) error {
	if errors.Is(cause, context.Canceled) {
		return cause // the sender is gone
	}
	p := problem.New(http.StatusServiceUnavailable, "overloaded", "too much is being written at once; nothing of this request was read")
	p.RetryAfter = retryAfter
	return p.Because(cause)
}

// limitVerify bounds the body of a request that is not a write.
func limitVerify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		if err := checkType(r); err != nil {
			problem.Write(w, r, err)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, verifyBody))
		if err != nil {
			problem.Write(w, r, unreadable(err))
			return
		}
		if err := checkSyntax(body); err != nil {
			problem.Write(w, r, err)
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		next.ServeHTTP(w, r)
	})
}

// checkType lets JSON through; a request that does not name its type means JSON.
func checkType(r *http.Request) error {
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "application/json" {
		return nil
	}
	p := problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", "the body must be application/json")
	p.Header = http.Header{"Accept": {"application/json"}}
	return p
}

// unreadable makes a body that broke off the sender's fault.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return problem.New(http.StatusBadRequest, "malformed-body", "the body could not be read to its end").Because(err)
}

// checkSyntax says where a body stops being JSON.
func checkSyntax(body []byte) error {
	r := canonical.NewReader(body)
	_, err := r.Value()
	var syntax *canonical.SyntaxError
	if err == nil {
		err = r.End()
	}
	if errors.As(err, &syntax) {
		return malformed(syntax)
	}
	return nil
}

// malformed is a body that is not JSON.
func malformed(err *canonical.SyntaxError) error {
	return problem.New(http.StatusBadRequest, "malformed-body", "the body is not JSON: "+err.Error())
}
