package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestScrape(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprint(w, `# TYPE signals_total counter
signals_total{source="alert",severity="info"} 2
signals_total{source="alert",severity="warning"} 3
signals_total{source="event",severity="warning"} 5
# TYPE seconds histogram
seconds_bucket{status="200",le="1"} 4
seconds_bucket{status="200",le="+Inf"} 7
seconds_sum{status="200"} 9.5
seconds_count{status="200"} 7
# TYPE depth gauge
depth 11
`)
	}))
	defer server.Close()
	got, err := Scrape(t.Context(), server.Client(), strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		metric string
		labels []string
		want   float64
	}{
		"a counter over all its series": {"signals_total", nil, 10},
		"a counter by one label":        {"signals_total", []string{"source", "alert"}, 5},
		"a counter by two labels":       {"signals_total", []string{"source", "alert", "severity", "warning"}, 3},
		"a histogram by its count":      {"seconds", []string{"status", "200"}, 7},
		"a gauge":                       {"depth", nil, 11},
		"what is not there":             {"nothing", nil, 0},
		"a label that is not there":     {"signals_total", []string{"source", "pigeon"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if value := got.Value(test.metric, test.labels...); value != test.want {
				t.Errorf("Value(%s, %v) = %v, want %v", test.metric, test.labels, value, test.want)
			}
		})
	}
	if !got.Has("depth") || got.Has("nothing") {
		t.Errorf("Has: depth %t, nothing %t, want true and false", got.Has("depth"), got.Has("nothing"))
	}
	if want := []string{"200", "alert", "event", "info", "warning"}; !slices.Equal(got.LabelValues(), want) {
		t.Errorf("LabelValues() = %v, want %v", got.LabelValues(), want)
	}
}
