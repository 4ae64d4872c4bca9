package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"kubernaut.ai/e2e/docker/internal/trace"
)

// answer writes err as the answer to a request and returns it with the log.
func answer(t *testing.T, ctx context.Context, err error) (*http.Response, map[string]any, string) {
	t.Helper()
	var log bytes.Buffer
	ctx = trace.With(ctx, "req-1", slog.New(slog.NewJSONHandler(&log, nil)))
	w := httptest.NewRecorder()
	Write(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/things?secret=1", nil), err)
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return w.Result(), doc, log.String()
}

func TestWrite(t *testing.T) {
	busy := New(http.StatusServiceUnavailable, "busy", "later").Because(errors.New("dial tcp 10.0.0.1"))
	busy.RetryAfter = 1100 * time.Millisecond
	denied := New(http.StatusUnauthorized, "unauthorized", "no token")
	denied.Header = http.Header{"Www-Authenticate": {"Bearer"}}
	index := New(http.StatusBadRequest, "invalid", "bad")
	index.Extensions = map[string]any{"index": 3, "status": 200}
	for name, c := range map[string]struct {
		err         error
		status      int
		slug, log   string
		header, val string
	}{
		"a problem as it stands":   {New(http.StatusNotFound, "not-found", "no such thing"), 404, "not-found", "", "", ""},
		"a problem in the chain":   {fmt.Errorf("storing: %w", busy), 503, "busy", "dial tcp 10.0.0.1", "Retry-After", "2"},
		"a problem with headers":   {denied, 401, "unauthorized", "", "Www-Authenticate", "Bearer"},
		"a problem with an index":  {index, 400, "invalid", "", "", ""},
		"an ended deadline":        {fmt.Errorf("get: %w", context.DeadlineExceeded), 504, "timeout", "deadline exceeded", "", ""},
		"a body beyond its limit":  {fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 10}), 413, "payload-too-large", "", "", ""},
		"anything else":            {errors.New("pq: password is hunter2"), 500, "internal", "hunter2", "", ""},
		"cancelled by the service": {context.Canceled, 500, "internal", "context canceled", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, doc, log := answer(t, t.Context(), c.err)
			if resp.StatusCode != c.status || doc["status"] != float64(c.status) || doc["type"] != TypeBase+c.slug {
				t.Errorf("got %d %v", resp.StatusCode, doc)
			}
			if resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got content type %q", resp.Header.Get("Content-Type"))
			}
			if doc["instance"] != "/api/v1/things" || doc["request_id"] != "req-1" || doc["title"] != http.StatusText(c.status) {
				t.Errorf("got %v", doc)
			}
			if c.header != "" && resp.Header.Get(c.header) != c.val {
				t.Errorf("got %s %q, want %q", c.header, resp.Header.Get(c.header), c.val)
			}
			if (c.log == "") != (log == "") || !strings.Contains(log, c.log) {
				t.Errorf("got log %q, want %q in it", log, c.log)
			}
			if text := fmt.Sprint(doc); strings.Contains(text, "hunter2") || strings.Contains(text, "10.0.0.1") {
				t.Errorf("internals answered: %v", doc)
			}
		})
	}
	if _, doc, _ := answer(t, t.Context(), index); doc["index"] != 3.0 {
		t.Errorf("got %v, want index 3", doc)
	}
}

func TestWriteToASenderThatWentAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if resp, _, log := answer(t, ctx, fmt.Errorf("query: %w", context.Canceled)); resp.StatusCode != statusClientGone || log != "" {
		t.Errorf("got %d, log %q", resp.StatusCode, log)
	}
}

// TestWriteWhenTheTimeIsOver, of which a call that was under way may say that it was canceled.
func TestWriteWhenTheTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if resp, _, _ := answer(t, ctx, fmt.Errorf("query: %w", context.Canceled)); resp.StatusCode != http.StatusGatewayTimeout || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestCauseIsInTheChain(t *testing.T) {
	err := New(http.StatusServiceUnavailable, "busy", "later").Because(context.DeadlineExceeded)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "later") {
		t.Errorf("got %v", err)
	}
}

func TestRouterHandlers(t *testing.T) {
	router := chi.NewRouter()
	router.NotFound(NotFound)
	router.MethodNotAllowed(MethodNotAllowed(router))
	nothing := func(http.ResponseWriter, *http.Request) {}
	router.Post("/things", nothing)
	router.Get("/things", nothing)
	for name, c := range map[string]struct {
		method, path, allow string
		status              int
	}{
		"an unknown path":  {http.MethodGet, "/nothing", "", 404},
		"a refused method": {http.MethodDelete, "/things", "GET, POST", 405},
		"an odd method":    {"BREW", "/things", "GET, POST", 405},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			router.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
			if w.Code != c.status || w.Header().Get("Allow") != c.allow {
				t.Errorf("got %d, Allow %q", w.Code, w.Header().Get("Allow"))
			}
			if w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %q", w.Body)
			}
		})
	}
}
