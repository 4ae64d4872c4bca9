package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestEverythingIsThereFromTheStart(t *testing.T) {
	text := scrape(t, New())
	for _, line := range []string{
		`gateway_signals_received_total{severity="critical",source_type="prometheus"} 0`,
		`gateway_signals_received_total{severity="warning",source_type="kubernetes-events"} 0`,
		`gateway_signals_deduplicated_total 0`,
		`gateway_signals_rejected_total{reason="unmanaged_resource"} 0`,
		`gateway_crds_created_total{source_type="prometheus",status="created"} 0`,
		`gateway_crd_creation_errors_total{error_type="api_server"} 0`,
		`gateway_http_request_duration_seconds_count{endpoint="/api/v1/signals/prometheus",method="POST",status="201"} 0`,
		`gateway_circuit_breaker_state{name="kubernetes"} 0`,
		`gateway_owner_resolution_total{kind="Deployment",outcome="resolved"} 0`,
		`audit_events_dropped_total{reason="buffer_full"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
}

func TestLabelsComeFromClosedSets(t *testing.T) {
	m := New()
	before := strings.Count(scrape(t, m), "\n")
	for _, severity := range []string{"sev-1", "CRITICAL", "", "ünïcödé"} {
		m.Received(signal.Prometheus, severity)
	}
	m.Request("/api/v1/../etc/passwd", "BREW", http.StatusNotFound, time.Millisecond)
	m.Request("/x", "BREW2", http.StatusNotFound, time.Millisecond)
	m.Breaker(kube.Open)
	text := scrape(t, m)
	for _, line := range []string{
		`gateway_signals_received_total{severity="other",source_type="prometheus"} 4`,
		`gateway_http_request_duration_seconds_count{endpoint="other",method="other",status="404"} 2`,
		`gateway_circuit_breaker_state{name="kubernetes"} 2`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	// One new histogram, with its buckets, sum and count.
	if grown := strings.Count(text, "\n") - before; grown > 20 {
		t.Errorf("%d new lines", grown)
	}
}
