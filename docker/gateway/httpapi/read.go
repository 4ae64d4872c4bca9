package httpapi

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/problem"
)

// timestampHeader tells when a sender sent, in Unix seconds.
const timestampHeader = "X-Timestamp"

// timestamp reads and judges the header. It returns the zero time when there is none.
func timestamp(header http.Header, now time.Time) (time.Time, error) {
	values := header.Values(timestampHeader)
	if len(values) == 0 {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || seconds < 0 || len(values) > 1 {
		return time.Time{}, &signal.Stale{Field: timestampHeader, Reason: "must be one number of Unix seconds"}
	}
	// Compared as numbers: a time that far away would overflow a duration.
	if seconds < now.Add(-signal.MaxAge).Unix() {
		return time.Time{}, &signal.Stale{Field: timestampHeader, Reason: fmt.Sprintf("older than %s", signal.MaxAge)}
	}
	if seconds > now.Add(signal.MaxAhead).Unix() {
		return time.Time{}, &signal.Stale{Field: timestampHeader, Reason: fmt.Sprintf("more than %s in the future", signal.MaxAhead)}
	}
	return time.Unix(seconds, 0), nil
}

// acceptable refuses a body for what its headers say, before any of it is read.
func acceptable(r *http.Request) error {
	if content := r.Header.Get("Content-Type"); content != "" {
		if kind, _, err := mime.ParseMediaType(content); err != nil || kind != "application/json" {
			return unsupported("the body must be application/json", "Accept", "application/json")
		}
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return unsupported("the body must not be compressed", "Accept-Encoding", "identity")
	}
	if r.ContentLength > MaxBodyBytes {
		return tooLarge(r, &http.MaxBytesError{Limit: MaxBodyBytes})
	}
	return nil
}

// read returns the body of a request.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength >= 0 { // in one piece: growing would take several times as much
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, &bodyError{err}
		}
		return body, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	if large := tooLarge(r, err); large != nil {
		return nil, large
	}
	if err != nil {
		return nil, &bodyError{err}
	}
	return body, nil
}

// unsupported says what the body should have been, in words and in a header.
func unsupported(detail, name, value string) *problem.Problem {
	p := problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", detail)
	p.Header = http.Header{name: {value}}
	return p
}

// bodyError is a body that could not be read to its end.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }
