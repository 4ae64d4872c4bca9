// Package health says whether the process lives (/healthz) and whether what it
// depends on answers (/readyz). The dependencies are probed in the background; a
// request is answered from the last probes and never waits for one.
package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"kubernaut.ai/e2e/docker/internal/panics"
)

// What is between the starts of two probes of a check.
const (
	// passingPeriod matches the period of the kubelet's probes: looking more
	// seldom would answer stale, looking more often would tell nobody.
	passingPeriod = time.Second
	// failingPeriod is shorter, because requests are refused or queued until what
	// is away is seen to be back.
	failingPeriod = 250 * time.Millisecond
)

// probeTimeout bounds one probe. It leaves a loaded machine time to answer; it is also
// how long a dependency that hangs is still called ready.
const probeTimeout = 2 * time.Second

// shuttingDown is the reason of a service that is about to end.
const shuttingDown = "shutting_down"

// Check is one condition of being ready.
type Check struct {
	// Reason is answered while the check fails: database_unreachable, for example.
	Reason string
	// Probe returns nil when the condition holds. It must end when ctx does.
	// It is called every second while it holds, every 250 ms while it does not, and ctx
	// ends after 2 s.
	Probe func(ctx context.Context) error
}

// condition is what is known of a check.
type condition int

const (
	unknown condition = iota // not probed yet
	passing
	failing
)

// Health knows the state of a process. It is safe for concurrent use.
type Health struct {
	log    *slog.Logger
	checks []Check

	mu       sync.Mutex
	known    []condition // by check
	stopping bool
}

// New returns a Health that is not ready before each check has passed once. The
// order of checks matters: the first that fails gives the reason.
func New(log *slog.Logger, checks ...Check) *Health {
	return &Health{log: log, checks: checks, known: make([]condition, len(checks))}
}

// Run probes until ctx ends, and returns nil then.
func (h *Health) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i := range h.checks {
		wg.Go(func() { h.watch(ctx, i) })
	}
	wg.Wait()
	return nil
}

// watch probes one check again and again. It logs changes, not every result.
func (h *Health) watch(ctx context.Context, i int) {
	check := h.checks[i]
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		start := time.Now()
		probing, cancel := context.WithTimeout(ctx, probeTimeout)
		err := panics.Catch(func() error { return check.Probe(probing) })
		cancel()
		if ctx.Err() != nil {
			return
		}
		now, period := passing, passingPeriod
		if err != nil {
			now, period = failing, failingPeriod
		}
		if h.set(i, now) {
			if err != nil {
				h.log.Warn("dependency is not ready", "reason", check.Reason, "error", err)
			} else {
				h.log.Info("dependency is ready", "reason_gone", check.Reason)
			}
		}
		next.Reset(time.Until(start.Add(period)))
	}
}

// set records what a probe found and reports whether it is something new.
func (h *Health) set(i int, now condition) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = h.known[i] != now
	h.known[i] = now
	return changed
}

// ShutDown makes the process not ready, for good.
func (h *Health) ShutDown() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Reason says why the process is not ready, or "" when it is.
func (h *Health) Reason() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return shuttingDown
	}
	for i, known := range h.known {
		if known != passing {
			return h.checks[i].Reason
		}
	}
	return ""
}

// Failed reports whether the last probe of the check with this reason failed; before the
// first it has not.
func (h *Health) Failed(reason string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.checks, func(c Check) bool { return c.Reason == reason })
	return i >= 0 && h.known[i] == failing
}

// Handler serves /healthz and /readyz.
func (h *Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, state{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", h.Ready)
	return mux
}

// Ready answers 200 when every check passed when it was last probed, and 503 with
// the reason otherwise.
func (h *Health) Ready(w http.ResponseWriter, _ *http.Request) {
	if reason := h.Reason(); reason != "" {
		write(w, http.StatusServiceUnavailable, state{Status: "not_ready", Reason: reason})
		return
	}
	write(w, http.StatusOK, state{Status: "ready"})
}

type state struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func write(w http.ResponseWriter, status int, s state) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(s) // the prober is gone; the next one asks again
}
