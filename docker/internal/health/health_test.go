package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// dependency passes or fails its probe as it is told.
type dependency struct {
	down, hangs atomic.Bool
	probes      atomic.Int64
}

func (d *dependency) probe(ctx context.Context) error {
	d.probes.Add(1)
	if d.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if d.down.Load() {
		return errors.New("connection refused")
	}
	return nil
}

func ask(h *Health, path string) string {
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return http.StatusText(w.Code) + " " + strings.TrimSpace(w.Body.String())
}

const (
	ready        = `OK {"status":"ready"}`
	databaseDown = `Service Unavailable {"status":"not_ready","reason":"database_unreachable"}`
	redisDown    = `Service Unavailable {"status":"not_ready","reason":"redis_unreachable"}`
	ending       = `Service Unavailable {"status":"not_ready","reason":"shutting_down"}`
)

func TestReadinessFollowsItsDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		database, redis := &dependency{}, &dependency{}
		h := New(slog.New(slog.NewTextHandler(&log, nil)),
			Check{Reason: "database_unreachable", Probe: database.probe},
			Check{Reason: "redis_unreachable", Probe: redis.probe})
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := ask(h, "/readyz"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := ask(h, "/healthz"); got != `OK {"status":"ok"}` {
				t.Errorf("healthz: got %s", got)
			}
		}
		expect(databaseDown)
		if h.Failed("database_unreachable") {
			t.Error("a check that was never probed has failed")
		}

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.Run(ctx) }()
		expect(ready)

		redis.down.Store(true)
		expect(ready)
		<-time.After(time.Second)
		expect(redisDown)
		if h.Failed("database_unreachable") || !h.Failed("redis_unreachable") || h.Failed("unknown") {
			t.Error("not only Redis has failed")
		}
		database.down.Store(true)
		<-time.After(time.Second)
		expect(databaseDown)
		<-time.After(10 * time.Second)
		if n := strings.Count(log.String(), "not ready"); n != 2 {
			t.Errorf("got %d lines about two changes:\n%s", n, &log)
		}

		database.down.Store(false)
		redis.down.Store(false)
		<-time.After(failingPeriod)
		expect(ready)
		database.hangs.Store(true)
		<-time.After(3 * time.Second)
		expect(databaseDown)
		database.hangs.Store(false)
		<-time.After(3 * time.Second)
		expect(ready)

		h.ShutDown()
		expect(ending)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		expect(ending)
	})
}

func TestAnAnswerNeverWaitsForAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &dependency{}
		slow.hangs.Store(true)
		h := New(slog.New(slog.DiscardHandler), Check{Reason: "redis_unreachable", Probe: slow.probe})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.Run(ctx) }()
		synctest.Wait()
		start := time.Now()
		if got := ask(h, "/readyz"); got != redisDown || time.Since(start) != 0 {
			t.Errorf("got %s after %s", got, time.Since(start))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAProbeThatPanicsIsOneThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calm atomic.Bool
		h := New(slog.New(slog.DiscardHandler), Check{Reason: "database_unreachable", Probe: func(context.Context) error {
			if !calm.Load() {
				panic("boom")
			}
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = h.Run(ctx) }()
		synctest.Wait()
		if got := ask(h, "/readyz"); got != databaseDown {
			t.Errorf("got %s", got)
		}
		calm.Store(true)
		<-time.After(failingPeriod)
		synctest.Wait()
		if got := ask(h, "/readyz"); got != ready {
			t.Errorf("afterwards: got %s", got)
		}
	})
}

// TestItMayTakeAnothersPlace: unless it is refused. What is away might come.
func TestItMayTakeAnothersPlace(t *testing.T) {
	denied := errors.New("denied")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"with all that it needs": {nil, `OK {"status":"started"}`},
		"without a database":     {errors.New("connection refused"), `OK {"status":"started"}`},
		"when it is not let in":  {fmt.Errorf("ping: %w", denied), `Service Unavailable {"status":"not_started","reason":"database_unreachable"}`},
		"when it does not trust": {
			&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, `Service Unavailable {"status":"not_started","reason":"database_unreachable"}`,
		},
		"when it meets another":     {x509.HostnameError{Certificate: &x509.Certificate{}}, `Service Unavailable {"status":"not_started","reason":"database_unreachable"}`},
		"when what it meets is old": {x509.CertificateInvalidError{Reason: x509.Expired}, `OK {"status":"started"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow, fast := make(chan error), &dependency{}
				h := New(slog.New(slog.DiscardHandler), Check{Reason: "redis_unreachable", Probe: fast.probe}, Check{
					Reason: "database_unreachable", Probe: func(context.Context) error { return <-slow },
					Refuses: func(err error) bool { return errors.Is(err, denied) },
				})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { _ = h.Run(ctx) }()
				answer := make(chan string)
				go func() { answer <- ask(h, "/startupz") }()
				<-time.After(time.Second)
				select {
				case got := <-answer:
					t.Errorf("before all is known: got %s", got)
				default:
				}
				slow <- c.err
				if got := <-answer; got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				if failed := h.Failed("database_unreachable"); failed != (c.err != nil) {
					t.Errorf("failed: %t after %v", failed, c.err)
				}
				cancel()
				close(slow)
			})
		})
	}
}

func TestWithoutChecksItIsReady(t *testing.T) {
	if got := ask(New(slog.New(slog.DiscardHandler)), "/readyz"); got != ready {
		t.Errorf("got %s", got)
	}
	if got := ask(New(slog.New(slog.DiscardHandler)), "/startupz"); got != `OK {"status":"started"}` {
		t.Errorf("got %s", got)
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	h := New(slog.New(slog.DiscardHandler))
	if got := ask(h, "/metrics"); !strings.HasPrefix(got, "Not Found") {
		t.Errorf("got %s", got)
	}
}
