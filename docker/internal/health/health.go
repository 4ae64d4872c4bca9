// Package health says whether the process lives (/healthz), whether what it depends on
// answers (/readyz), and whether it may take the place of another (/startupz). The
// dependencies are probed in the background; a request is answered from the last probes,
// and only /startupz waits, for the first ones.
package health

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
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
	// Refuses reports whether an error of Probe says that the dependency is there and will
	// not have this process as it is, which waiting does not mend: a wrong password, a
	// missing permission. Nil for none. A certificate of an authority that is not trusted, or
	// for another name, is that in any case.
	Refuses func(err error) bool
}

func (c Check) refuses(err error) bool {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &authority) || errors.As(err, &name) || c.Refuses != nil && c.Refuses(err)
}

// condition is what is known of a check.
type condition int

const (
	unknown condition = iota // not probed yet
	passing
	failing
	refused // failing too
)

// Health knows the state of a process. It is safe for concurrent use.
type Health struct {
	log    *slog.Logger
	checks []Check

	mu       sync.Mutex
	known    []condition // by check
	unprobed int         // how many checks
	stopping bool

	probed chan struct{} // closed once every check has been probed
}

// New returns a Health that is not ready before each check has passed once. The
// order of checks matters: the first that fails gives the reason.
func New(log *slog.Logger, checks ...Check) *Health {
	h := &Health{log: log, checks: checks, known: make([]condition, len(checks)), unprobed: len(checks), probed: make(chan struct{})}
	if len(checks) == 0 {
		close(h.probed)
	}
	return h
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
			if check.refuses(err) {
				now = refused
			}
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
	if h.known[i] == unknown {
		if h.unprobed--; h.unprobed == 0 {
			close(h.probed)
		}
	}
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
	return i >= 0 && h.known[i] >= failing
}

// Handler serves /healthz, /readyz and /startupz.
func (h *Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, state{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", h.Ready)
	mux.HandleFunc("GET /startupz", h.started)
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

// started answers 200 when no dependency refuses this process, and 503 with the reason
// otherwise. One that is away does not matter: what is to be done without it has to be done
// by a new process, too. It waits until every check has been probed once.
func (h *Health) started(w http.ResponseWriter, r *http.Request) {
	select {
	case <-h.probed:
	case <-r.Context().Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, known := range h.known {
		if known == unknown || known == refused {
			write(w, http.StatusServiceUnavailable, state{Status: "not_started", Reason: h.checks[i].Reason})
			return
		}
	}
	write(w, http.StatusOK, state{Status: "started"})
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
