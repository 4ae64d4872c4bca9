package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"kubernaut.ai/e2e/docker/internal/trace"
)

// statusClientGone is written for the access log when the sender went away before
// the answer; nobody reads it. The number is the one that nginx made customary.
const statusClientGone = 499

// Write answers a request with err. A *Problem in the chain is answered as it
// stands, with instance, request id and Retry-After filled in; a body beyond its
// limit is 413, an ended deadline 504, and anything else is logged in full and
// answered with a 500 that says nothing about it. Problems of status 500 and above
// are logged with their cause.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	p := from(r, err)
	if p.Status >= http.StatusInternalServerError {
		level := slog.LevelWarn
		if p.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
		trace.Log(r.Context()).Log(r.Context(), level, "request failed", "status", p.Status, "error", err)
	}
	answer := *p
	if answer.Instance == "" {
		answer.Instance = r.URL.Path
	}
	if answer.RequestID == "" {
		answer.RequestID = trace.ID(r.Context())
	}
	body, err := json.Marshal(answer.document())
	if err != nil {
		trace.Log(r.Context()).Error("encoding a problem", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	header := w.Header()
	maps.Copy(header, answer.Header)
	if answer.RetryAfter > 0 {
		// Whole seconds, rounded up: a sender told 0 would come back at once.
		header.Set("Retry-After", strconv.FormatInt(int64((answer.RetryAfter+time.Second-1)/time.Second), 10))
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.Status)
	_, _ = w.Write(body) // the sender is gone; there is nobody to tell
}

// from finds or makes the problem that answers err.
func from(r *http.Request, err error) *Problem {
	var p *Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return New(http.StatusRequestEntityTooLarge, "payload-too-large",
			fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.Is(err, context.Canceled) && errors.Is(r.Context().Err(), context.Canceled):
		return New(statusClientGone, "client-gone", "the sender went away")
	// A call that ends with the request's time may say that it was canceled. A sender that is
	// still there would take 499 for final, as Alertmanager takes all of 4xx.
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		p := New(http.StatusGatewayTimeout, "timeout", "the request took too long")
		p.RetryAfter = time.Second // whatever was slow may be over at once
		return p
	default:
		return New(http.StatusInternalServerError, "internal", "the request could not be handled")
	}
}

// NotFound answers a path that nothing serves.
func NotFound(w http.ResponseWriter, r *http.Request) {
	Write(w, r, New(http.StatusNotFound, "not-found", "nothing is served at this path"))
}

// methods are those that an API may allow, in the order of the Allow header.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
	http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// MethodNotAllowed answers a method that the path does not serve, with the methods
// that routes does serve there in Allow.
func MethodNotAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		allow := slices.DeleteFunc(slices.Clone(methods), func(method string) bool {
			return !routes.Match(chi.NewRouteContext(), method, r.URL.Path)
		})
		p := New(http.StatusMethodNotAllowed, "method-not-allowed",
			fmt.Sprintf("%s is not served here; allowed: %s", r.Method, strings.Join(allow, ", ")))
		p.Header = http.Header{"Allow": {strings.Join(allow, ", ")}}
		Write(w, r, p)
	}
}
