package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// serve answers one request with handler behind the middleware and returns the
// answer and the lines of the log.
func serve(t *testing.T, path string, handler http.HandlerFunc) (*httptest.ResponseRecorder, []map[string]any) {
	t.Helper()
	var log bytes.Buffer
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("payload-x"))
	r.Header.Set("Authorization", "Bearer token-x")
	r.Header.Set("X-Request-ID", "chosen-by-sender")
	w := httptest.NewRecorder()
	defer func() {
		if strings.Contains(log.String(), "token-x") || strings.Contains(log.String(), "payload-x") || strings.Contains(log.String(), "query-x") {
			t.Errorf("log holds what it must not: %s", &log)
		}
	}()
	Middleware(slog.New(slog.NewJSONHandler(&log, nil)))(handler).ServeHTTP(w, r)
	var lines []map[string]any
	for dec := json.NewDecoder(bytes.NewReader(log.Bytes())); dec.More(); {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return w, lines
}

func TestMiddlewareSetsIDHeadersAndAccessLine(t *testing.T) {
	var id string
	w, lines := serve(t, "/things?q=query-x", func(w http.ResponseWriter, r *http.Request) {
		id = ID(r.Context())
		Log(r.Context()).Info("inside")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("ok"))
	})
	if _, err := uuid.Parse(id); err != nil || w.Header().Get("X-Request-ID") != id {
		t.Errorf("got id %q and header %q", id, w.Header().Get("X-Request-ID"))
	}
	for key, want := range map[string]string{
		"X-Content-Type-Options":    "nosniff",
		"X-Frame-Options":           "DENY",
		"Content-Security-Policy":   "default-src 'none'",
		"Referrer-Policy":           "no-referrer",
		"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
		"X-XSS-Protection":          "1; mode=block",
	} {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if len(lines) != 2 || lines[0]["msg"] != "inside" || lines[0]["request_id"] != id {
		t.Fatalf("got %v", lines)
	}
	access := lines[1]
	if access["request_id"] != id || access["status"] != 201.0 || access["bytes"] != 2.0 || access["path"] != "/things" || access["method"] != "POST" {
		t.Errorf("got %v", access)
	}
}

func TestMiddlewareKeepsProbesOutOfTheLog(t *testing.T) {
	if _, lines := serve(t, "/readyz", func(http.ResponseWriter, *http.Request) {}); len(lines) != 0 {
		t.Errorf("got %v", lines)
	}
}

func TestMiddlewareAnswersAPanic(t *testing.T) {
	w, lines := serve(t, "/things", func(http.ResponseWriter, *http.Request) { panic("boom") })
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "boom") ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if len(lines) != 2 || !strings.Contains(fmt.Sprint(lines[0]["error"]), "boom") || lines[1]["status"] != 500.0 {
		t.Errorf("got %v", lines)
	}
}

func TestMiddlewareCutsAHalfAnswer(t *testing.T) {
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Error("the connection was not cut")
		}
	}()
	serve(t, "/things", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half"))
		panic("boom")
	})
}

func TestOutsideARequest(t *testing.T) {
	if ID(t.Context()) != "" || Log(t.Context()) != slog.Default() {
		t.Error("got an id or a logger from nowhere")
	}
}
