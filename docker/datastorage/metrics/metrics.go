// Package metrics counts what the service does. Every label value comes from a closed
// set, and every series is there, at zero, from the start.
package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kubernaut.ai/e2e/docker/datastorage/queue"
)

// other stands for what a sender made up.
const other = "other"

// Route is one thing the service serves, and the answers to expect from it.
type Route struct {
	Method   string
	Endpoint string // the pattern of the router
	Statuses []int
}

// Metrics is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	known    map[[2]string]bool // endpoint and method

	requests                           *prometheus.HistogramVec
	stored, duplicate, queued, refused prometheus.Counter
	drained, buried                    prometheus.Counter
	depth, dead                        prometheus.Gauge
	checkpoint, tampered               prometheus.Gauge

	mu     sync.Mutex
	oldest time.Time // when the oldest event in the queue was added; zero when there is none
}

// New returns Metrics with a registry of its own.
func New(routes []Route) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), known: map[[2]string]bool{}}
	m.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "datastorage_http_request_duration_seconds",
		Help:    "Time from a request's headers to the end of its answer.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"endpoint", "method", "status"})
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "datastorage_events_total",
		Help: "Events by what became of them: stored, duplicate (stored before), queued (in the dead-letter queue), refused.",
	}, []string{"result"})
	m.stored, m.duplicate = events.WithLabelValues("stored"), events.WithLabelValues("duplicate")
	m.queued, m.refused = events.WithLabelValues("queued"), events.WithLabelValues("refused")
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		m.registry.MustRegister(g)
		return g
	}
	m.drained = counter("datastorage_dlq_drained_total", "Events stored from the dead-letter queue.")
	m.buried = counter("datastorage_dlq_dead_total", "Events set aside in the dead-letter stream: they can never be stored, or took too long.")
	m.depth = gauge("datastorage_dlq_depth", "Events in the dead-letter queue.")
	// Asked for when it is scraped: what waits grows older while Redis is away, too.
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "datastorage_dlq_oldest_age_seconds", Help: "How long the oldest event in the dead-letter queue has waited.",
	}, m.age))
	m.dead = gauge("datastorage_dlq_dead", "Events in the dead-letter stream.")
	m.checkpoint = gauge("datastorage_checkpoint_number", "The newest checkpoint of the audit trail; it never becomes less.")
	m.tampered = gauge("datastorage_checkpoint_tampered", "1 while the database lacks a checkpoint that was taken, or has one that is not signed; none is taken then.")
	m.registry.MustRegister(m.requests, events, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, route := range routes {
		m.known[[2]string{route.Endpoint, route.Method}] = true
		for _, status := range route.Statuses {
			m.requests.WithLabelValues(route.Endpoint, route.Method, strconv.Itoa(status))
		}
	}
	return m
}

// Handler serves the metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Middleware times requests. It must run inside a chi router.
func (m *Metrics) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		answer := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			endpoint, method := chi.RouteContext(r.Context()).RoutePattern(), r.Method
			if !m.known[[2]string{endpoint, method}] {
				endpoint, method = other, other
			}
			status := answer.Status()
			if status == 0 {
				status = http.StatusOK
			}
			m.requests.WithLabelValues(endpoint, method, strconv.Itoa(status)).Observe(time.Since(start).Seconds())
		}()
		next.ServeHTTP(answer, r)
	})
}

// Stored counts events that were stored.
func (m *Metrics) Stored(n int) { m.stored.Add(float64(n)) }

// Duplicate counts events that had been stored before.
func (m *Metrics) Duplicate(n int) { m.duplicate.Add(float64(n)) }

// Queued counts events that went to the dead-letter queue.
func (m *Metrics) Queued(n int) { m.queued.Add(float64(n)) }

// Refused counts events of which nothing is kept.
func (m *Metrics) Refused(n int) { m.refused.Add(float64(n)) }

// Drained counts events stored from the dead-letter queue.
func (m *Metrics) Drained(n int) { m.drained.Add(float64(n)) }

// Buried counts events moved to the dead-letter stream.
func (m *Metrics) Buried(n int) { m.buried.Add(float64(n)) }

// Checkpoint records the newest checkpoint, and whether the database has what was taken.
func (m *Metrics) Checkpoint(number int64, tampered bool) {
	m.checkpoint.Set(float64(number))
	m.tampered.Set(0)
	if tampered {
		m.tampered.Set(1)
	}
}

// Observed records the state of the dead-letter queue.
func (m *Metrics) Observed(state queue.State) {
	m.depth.Set(float64(state.Depth))
	m.dead.Set(float64(state.Dead))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest = state.Oldest
}

func (m *Metrics) age() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(m.oldest).Seconds())
}
