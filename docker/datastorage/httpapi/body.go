package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"golang.org/x/sync/semaphore"

	"kubernaut.ai/e2e/docker/internal/problem"
)

// limitBody reads the body of a request that may have one, refuses other types, more
// than limit bytes, and what is not JSON. All bodies that are being handled together
// have no more than limit bytes either, further ones wait: a body takes up to fifteen
// times its size in memory until it is stored, and the pod has little. One that is
// still being received takes only what has come, and holds up nobody.
func limitBody(limit int64) func(http.Handler) http.Handler {
	inHand := semaphore.NewWeighted(limit)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				next.ServeHTTP(w, r)
				return
			}
			if err := checkType(r); err != nil {
				problem.Write(w, r, err)
				return
			}
			if r.ContentLength > limit {
				problem.Write(w, r, &http.MaxBytesError{Limit: limit})
				return
			}
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
			if err != nil {
				problem.Write(w, r, unreadable(err))
				return
			}
			weight := int64(len(body))
			if err := inHand.Acquire(r.Context(), weight); err != nil {
				problem.Write(w, r, r.Context().Err())
				return
			}
			defer inHand.Release(weight)
			if err := checkSyntax(body); err != nil {
				problem.Write(w, r, err)
				return
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			next.ServeHTTP(w, r)
		})
	}
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

// checkSyntax says where the body stops being JSON.
func checkSyntax(body []byte) error {
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return problem.New(http.StatusBadRequest, "malformed-body", fmt.Sprintf("the body is not JSON: %v, at byte %d", syntax, syntax.Offset))
	}
	return problem.New(http.StatusBadRequest, "malformed-body", "the body is not JSON").Because(err)
}
