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
)

const (
	// defaultPeriod matches the period of the kubelet's probes: looking more
	// seldom would answer stale, looking more often would tell nobody.
	defaultPeriod = time.Second
	// defaultTimeout leaves a loaded machine time to answer; it also bounds how
	// long a dependency that hangs is still called ready.
	defaultTimeout = 2 * time.Second
)

// shuttingDown is the reason of a service that is about to end.
const shuttingDown = "shutting_down"

// Check is one condition of being ready.
type Check struct {
	// Reason is answered while the check fails: database_unreachable, for example.
	Reason string
	// Probe returns nil when the condition holds. It must end when ctx does.
	Probe func(ctx context.Context) error
	// Period is the time between the start of two probes; zero means 1 s.
	Period time.Duration
	// Timeout bounds one probe; zero means 2 s.
	Timeout time.Duration
}

// Health knows the state of a process. It is safe for concurrent use.
type Health struct {
	log    *slog.Logger
	checks []Check

	mu       sync.Mutex
	failing  []bool // by check; what was never probed counts as failing
	probed   []bool // by check
	stopping bool
}

// New returns a Health that is not ready before each check has passed once. The
// order of checks matters: the first that fails gives the reason.
func New(log *slog.Logger, checks ...Check) *Health {
	failing := make([]bool, len(checks))
	for i := range failing {
		failing[i] = true
	}
	return &Health{log: log, checks: checks, failing: failing, probed: make([]bool, len(checks))}
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
	period, timeout := check.Period, check.Timeout
	if period == 0 {
		period = defaultPeriod
	}
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for first := true; ctx.Err() == nil; first = false {
		probing, cancel := context.WithTimeout(ctx, timeout)
		err := check.Probe(probing)
		cancel()
		if ctx.Err() != nil {
			return
		}
		changed := h.set(i, err != nil)
		switch {
		case err != nil && (changed || first):
			h.log.Warn("dependency is not ready", "reason", check.Reason, "error", err)
		case err == nil && changed:
			h.log.Info("dependency is ready", "reason_gone", check.Reason)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// set records the result of a probe and reports whether it is a new one.
func (h *Health) set(i int, failing bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := h.failing[i] != failing
	h.failing[i] = failing
	h.probed[i] = true
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
	for i, failing := range h.failing {
		if failing {
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
	return i >= 0 && h.probed[i] && h.failing[i]
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
