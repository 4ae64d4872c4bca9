// Package journal remembers what a spec said to a service and what came back, so
// that a failure can show it. It never keeps a credential.
package journal

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// kept is how many exchanges are remembered: the ones around a failure. A spec that
// sends hundreds of requests would otherwise fill the report.
const kept = 8

// shownBytes is how much of a body is shown. Problems and results are shorter; only
// payloads at a size limit are cut.
const shownBytes = 2048

// Exchange is one request and its answer.
type Exchange struct {
	Method, URL string
	Body        string // the request's, cut after 2 KiB
	Started     time.Time
	Took        time.Duration
	Status      int // 0 when no answer came
	RequestID   string
	Header      http.Header // the answer's
	Answer      string      // the answer's body, cut after 2 KiB
	Err         error       // why no answer came
}

// String is the exchange as a failure report shows it.
func (e *Exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s at %s, %s\n%s\n", e.Method, e.URL, e.Started.Format(time.RFC3339Nano), e.Took.Round(time.Millisecond), e.Body)
	if e.Err != nil {
		fmt.Fprintf(&b, "no answer: %v\n", e.Err)
		return b.String()
	}
	fmt.Fprintf(&b, "-> %d, request id %q, %s %s\n%s\n", e.Status, e.RequestID, e.Header.Get("Content-Type"), e.Header.Get("Retry-After"), e.Answer)
	return b.String()
}

// Journal remembers the last exchanges. It is safe for concurrent use; the zero value
// is ready.
type Journal struct {
	mu        sync.Mutex
	exchanges []*Exchange
}

// Reset forgets everything; a suite calls it before each spec.
func (j *Journal) Reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.exchanges = nil
}

// Exchanges returns the last exchanges, oldest first.
func (j *Journal) Exchanges() []*Exchange {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.exchanges)
}

// Transport sends by next and remembers what it saw.
func (j *Journal) Transport(next http.RoundTripper) http.RoundTripper {
	return transport{journal: j, next: next}
}

type transport struct {
	journal *Journal
	next    http.RoundTripper
}

// CloseIdleConnections has http.Client's method of that name reach the transport that has them.
func (t transport) CloseIdleConnections() {
	(&http.Client{Transport: t.next}).CloseIdleConnections()
}

// RoundTrip implements http.RoundTripper. The answer's body is read whole, so that
// how long it took is known and the report holds it.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	e := &Exchange{Method: r.Method, URL: r.URL.String(), Started: time.Now()}
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			e.Body = cut(body)
		}
	}
	response, err := t.next.RoundTrip(r)
	e.Took = time.Since(e.Started)
	if err != nil {
		e.Err = err
		t.journal.add(e)
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	e.Took = time.Since(e.Started)
	e.Status, e.Header, e.RequestID = response.StatusCode, response.Header, response.Header.Get("X-Request-ID")
	e.Answer, e.Err = cut(bytes.NewReader(body)), err
	t.journal.add(e)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s %s: %w", r.Method, r.URL, err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

func (j *Journal) add(e *Exchange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.exchanges = append(j.exchanges, e)
	if over := len(j.exchanges) - kept; over > 0 {
		j.exchanges = slices.Delete(j.exchanges, 0, over)
	}
}

func cut(r io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(r, shownBytes+1))
	if len(data) > shownBytes {
		return string(data[:shownBytes]) + "... (cut)"
	}
	return string(data)
}
