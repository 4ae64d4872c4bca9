// Package request gives every HTTP request an id, a logger, the security headers,
// one line in the access log, and a proper answer when its handler panics.
package request

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/trace"
)

// ID returns the id of the request that ctx belongs to, or "".
func ID(ctx context.Context) string { return trace.ID(ctx) }

// Log returns the logger of the request that ctx belongs to; it writes the id on
// every line. Outside a request it is slog's default logger.
func Log(ctx context.Context) *slog.Logger { return trace.Log(ctx) }

// Middleware must be the outermost one. The id is a fresh UUID in the context and
// in X-Request-ID, whatever the sender sent. Probes and scrapes are logged at
// debug level: at one a second they would drown the rest.
func Middleware(log *slog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			id := uuid.NewString()
			r = r.WithContext(trace.With(r.Context(), id, log))
			setHeaders(w.Header(), id)
			answer := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
			defer logAccess(answer, r, start)
			defer recoverPanic(answer, r)
			next.ServeHTTP(answer, r)
		})
	}
}

// setHeaders sets what every answer carries. The services answer data and never a
// page, so a browser may do nothing with it.
func setHeaders(header http.Header, id string) {
	header.Set("X-Request-ID", id)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Content-Security-Policy", "default-src 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	header.Set("X-XSS-Protection", "1; mode=block")
}

// recoverPanic answers 500 when the handler panicked before it answered, and cuts
// the connection when it had begun to: half an answer must not look like a whole.
func recoverPanic(w middleware.WrapResponseWriter, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause)
	}
	err := fmt.Errorf("handler panicked: %v\n%s", cause, debug.Stack())
	if w.Status() != 0 {
		Log(r.Context()).Error("request failed after the answer began", "error", err)
		panic(http.ErrAbortHandler)
	}
	problem.Write(w, r, err)
}

// logAccess writes one line about a request that was answered. The query is left
// out, as are headers and body: any of them may hold what a log must not.
func logAccess(w middleware.WrapResponseWriter, r *http.Request, start time.Time) {
	status := w.Status()
	if status == 0 {
		status = http.StatusOK
	}
	level := slog.LevelInfo
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		level = slog.LevelDebug
	}
	Log(r.Context()).LogAttrs(r.Context(), level, "request",
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", status),
		slog.Int("bytes", w.BytesWritten()),
		slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000),
		slog.String("remote_addr", r.RemoteAddr),
	)
}
