// Package metrics holds the Gateway's counters. Every label value comes from a
// closed set, and every counter exists at zero from the start: nothing that a sender
// writes becomes a label.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

// Other is the label value of what is in no closed set.
const Other = "other"

// Rejection is why a signal was refused for good.
type Rejection string

// The reasons of rejection.
const (
	Unmanaged      Rejection = "unmanaged_resource"
	Invalid        Rejection = "invalid"
	NotFound       Rejection = "resource_not_found"
	NoObject       Rejection = Rejection(signal.NoObject)
	ForeignCluster Rejection = Rejection(signal.ForeignCluster)
	Replay         Rejection = "outside_window"
	TooLarge       Rejection = "too_large"
	ContentType    Rejection = "content_type"
)

// Failure is why a request for remediation could not be stored.
type Failure string

// The kinds of failure.
const (
	APIServer   Failure = "api_server"
	CircuitOpen Failure = "circuit_open"
	Timeout     Failure = "timeout"
	Forbidden   Failure = "forbidden"
	Refused     Failure = "refused"
	Quota       Failure = "quota"
	Unknown     Failure = "unknown" // the API server never said whether it was stored
)

// Resolution is how the search for an owner ended.
type Resolution string

// The ends of a search.
const (
	Resolved   Resolution = "resolved"
	NoSuch     Resolution = "not_found"
	Unresolved Resolution = "error"
)

// Drop is why an audit event was given up.
type Drop string

// The reasons of giving up.
const (
	BufferFull Drop = "buffer_full"
	Rejected   Drop = "rejected"
	Shutdown   Drop = "shutdown"
)

// Endpoints that the duration of requests is told for; all others are Other.
const (
	EndpointPrometheus = "/api/v1/signals/prometheus"
	EndpointEvent      = "/api/v1/signals/kubernetes-event"
)

// The status of created requests in the counter.
const (
	created = "created"
	failed  = "failed"
)

// Metrics is the Gateway's set. It is safe for concurrent use.
type Metrics struct {
	registry     *prometheus.Registry
	received     *prometheus.CounterVec
	deduplicated prometheus.Counter
	rejected     *prometheus.CounterVec
	truncated    prometheus.Counter
	created      *prometheus.CounterVec
	failures     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	breaker      *prometheus.GaugeVec
	owners       *prometheus.CounterVec
	dropped      *prometheus.CounterVec
}

// New returns a set of its own, with Go's and the process's collectors.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_signals_received_total", Help: "Signals that were understood, whatever became of them.",
		}, []string{"source_type", "severity"}),
		deduplicated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_signals_deduplicated_total", Help: "Signals counted on a remediation request that was open.",
		}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_signals_rejected_total", Help: "Signals and bodies that were refused for good.",
		}, []string{"reason"}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_alerts_truncated_total", Help: "Alerts that senders have left out of their webhooks (max_alerts), and that nobody looks at.",
		}),
		created: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_crds_created_total", Help: "Remediation requests created, and those that should have been.",
		}, []string{"source_type", "status"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_crd_creation_errors_total", Help: "Signals that could not be stored.",
		}, []string{"error_type"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_http_request_duration_seconds", Help: "Duration of requests to the API.",
			Buckets: prometheus.DefBuckets,
		}, []string{"endpoint", "method", "status"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gateway_circuit_breaker_state", Help: "0 closed, 1 half open, 2 open.",
		}, []string{"name"}),
		owners: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_owner_resolution_total", Help: "Searches for the workload of an object.",
		}, []string{"kind", "outcome"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "audit_events_dropped_total", Help: "Audit events that were given up.",
		}, []string{"reason"}),
	}
	m.registry.MustRegister(m.received, m.deduplicated, m.rejected, m.truncated, m.created, m.failures, m.durations, m.breaker, m.owners, m.dropped,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.zero()
	return m
}

// zero makes every series exist, so that a rate over the first event is one.
func (m *Metrics) zero() {
	for _, source := range signal.Sources() {
		for _, severity := range severities() {
			m.received.WithLabelValues(string(source), severity)
		}
		m.created.WithLabelValues(string(source), created)
		m.created.WithLabelValues(string(source), failed)
	}
	for _, reason := range []Rejection{Unmanaged, Invalid, NotFound, NoObject, ForeignCluster, Replay, TooLarge, ContentType} {
		m.rejected.WithLabelValues(string(reason))
	}
	for _, kind := range []Failure{APIServer, CircuitOpen, Timeout, Forbidden, Refused, Quota, Unknown} {
		m.failures.WithLabelValues(string(kind))
	}
	for _, endpoint := range []string{EndpointPrometheus, EndpointEvent} {
		m.durations.WithLabelValues(endpoint, http.MethodPost, strconv.Itoa(http.StatusCreated))
		m.durations.WithLabelValues(endpoint, http.MethodPost, strconv.Itoa(http.StatusAccepted))
	}
	m.breaker.WithLabelValues(kube.BreakerName)
	for _, kind := range kinds() {
		for _, outcome := range []Resolution{Resolved, NoSuch, Unresolved} {
			m.owners.WithLabelValues(kind, string(outcome))
		}
	}
	for _, reason := range []Drop{BufferFull, Rejected, Shutdown} {
		m.dropped.WithLabelValues(string(reason))
	}
}

// severities are the severities that are told apart: those in common use.
func severities() []string {
	return []string{"critical", "high", "error", "warning", "medium", "low", "info", "none", "unknown", Other}
}

// Handler serves the set in Prometheus's text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Received counts a signal that was understood.
func (m *Metrics) Received(source signal.Source, severity string) {
	m.received.WithLabelValues(string(source), oneOf(severity, severities())).Inc()
}

// Deduplicated counts a signal that was counted on an open request.
func (m *Metrics) Deduplicated() { m.deduplicated.Inc() }

// Rejected counts a signal or body that was refused.
func (m *Metrics) Rejected(reason Rejection) { m.rejected.WithLabelValues(string(reason)).Inc() }

// Truncated counts alerts that a sender has left out.
func (m *Metrics) Truncated(n uint64) { m.truncated.Add(float64(n)) }

// Created counts a request that was created.
func (m *Metrics) Created(source signal.Source) {
	m.created.WithLabelValues(string(source), created).Inc()
}

// Failed counts a signal that could not be stored.
func (m *Metrics) Failed(source signal.Source, kind Failure) {
	m.created.WithLabelValues(string(source), failed).Inc()
	m.failures.WithLabelValues(string(kind)).Inc()
}

// Request records an answered request. An endpoint or method that is not one of the
// API's becomes Other.
func (m *Metrics) Request(endpoint, method string, status int, took time.Duration) {
	endpoint = oneOf(endpoint, []string{EndpointPrometheus, EndpointEvent, Other})
	method = oneOf(method, []string{http.MethodPost, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, Other})
	m.durations.WithLabelValues(endpoint, method, strconv.Itoa(status)).Observe(took.Seconds())
}

// Breaker records the circuit breaker's new state.
func (m *Metrics) Breaker(state kube.State) {
	m.breaker.WithLabelValues(kube.BreakerName).Set(float64(state))
}

// kinds are the kinds that searches are counted for; all others are Other.
func kinds() []string {
	var names []string
	for _, kind := range resource.Kinds() {
		names = append(names, kind.Kind)
	}
	return append(names, Other)
}

// Owner counts a search for the workload of an object of that kind.
func (m *Metrics) Owner(kind string, outcome Resolution) {
	m.owners.WithLabelValues(oneOf(kind, kinds()), string(outcome)).Inc()
}

// Dropped counts audit events that were given up.
func (m *Metrics) Dropped(reason Drop, n int) {
	m.dropped.WithLabelValues(string(reason)).Add(float64(n))
}

// oneOf returns text if it is in the set, whose last entry it otherwise returns.
func oneOf(text string, set []string) string {
	for _, known := range set {
		if text == known {
			return text
		}
	}
	return set[len(set)-1]
}
