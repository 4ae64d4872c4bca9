package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"kubernaut.ai/e2e/docker/datastorage/queue"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func want(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestEverySeriesIsThereAtZero(t *testing.T) {
	text := scrape(t, New([]Route{{Method: "GET", Endpoint: "/things/{id}", Statuses: []int{200, 404}}}))
	want(t, text,
		`datastorage_events_total{result="stored"} 0`, `datastorage_events_total{result="duplicate"} 0`,
		`datastorage_events_total{result="queued"} 0`, `datastorage_events_total{result="refused"} 0`,
		"datastorage_dlq_depth 0", "datastorage_dlq_oldest_age_seconds 0", "datastorage_dlq_drained_total 0", "datastorage_dlq_dead_total 0", "datastorage_dlq_dead 0",
		"datastorage_checkpoint_number 0", "datastorage_checkpoint_tampered 0",
		`datastorage_http_request_duration_seconds_count{endpoint="/things/{id}",method="GET",status="200"} 0`,
		`datastorage_http_request_duration_seconds_count{endpoint="/things/{id}",method="GET",status="404"} 0`)
	for _, name := range []string{"go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
}

func TestCountersGrow(t *testing.T) {
	m := New(nil)
	m.Stored(3)
	m.Duplicate(1)
	m.Queued(2)
	m.Refused(4)
	m.Drained(5)
	m.Buried(6)
	m.Checkpoint(9, true)
	m.Observed(queue.State{Depth: 7, Oldest: time.Now().Add(-90 * time.Minute), Dead: 8})
	want(t, scrape(t, m),
		`datastorage_events_total{result="stored"} 3`, `datastorage_events_total{result="duplicate"} 1`,
		`datastorage_events_total{result="queued"} 2`, `datastorage_events_total{result="refused"} 4`,
		"datastorage_dlq_drained_total 5", "datastorage_dlq_dead_total 6", "datastorage_dlq_depth 7",
		"datastorage_dlq_dead 8", "datastorage_checkpoint_number 9", "datastorage_checkpoint_tampered 1")
	if m.Observed(queue.State{Oldest: time.Now().Add(-90 * time.Minute)}); m.age() < 5400 || m.age() > 5500 {
		t.Errorf("the oldest is %v s old", m.age())
	}
	if m.Observed(queue.State{}); m.age() != 0 {
		t.Errorf("of nothing the oldest is %v s old", m.age())
	}
}

func TestLabelsAreNotMadeBySenders(t *testing.T) {
	m := New([]Route{{Method: "GET", Endpoint: "/things/{id}", Statuses: []int{200}}})
	router := chi.NewRouter()
	router.Use(m.Middleware)
	router.Get("/things/{id}", func(http.ResponseWriter, *http.Request) {})
	for method, path := range map[string]string{"GET": "/things/sender-made", "POST": "/things/1", "BREW": "/sender-made"} {
		router.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	text := scrape(t, m)
	want(t, text,
		`datastorage_http_request_duration_seconds_count{endpoint="/things/{id}",method="GET",status="200"} 1`,
		`datastorage_http_request_duration_seconds_count{endpoint="other",method="other",status="405"} 2`)
	if strings.Contains(text, "sender-made") || strings.Contains(text, "BREW") {
		t.Error("a sender made a label")
	}
}
