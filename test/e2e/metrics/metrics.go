// Package metrics reads what a service counts, from its Prometheus endpoint.
package metrics

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Snapshot is everything one scrape returned.
type Snapshot map[string]*dto.MetricFamily

// Scrape reads http://<address>/metrics.
func Scrape(ctx context.Context, client *http.Client, address string) (Snapshot, error) {
	url := "http://" + address + "/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return families, nil
}

// Has says whether a family has at least one series.
func (s Snapshot) Has(name string) bool { return len(s[name].GetMetric()) > 0 }

// Value adds up the series of a family that carry the given label values: counters and
// gauges by value, histograms by count. Labels are name and value in turn.
func (s Snapshot) Value(name string, labels ...string) float64 {
	sum := 0.0
	for _, metric := range s[name].GetMetric() {
		if !carries(metric, labels) {
			continue
		}
		switch {
		case metric.Counter != nil:
			sum += metric.GetCounter().GetValue()
		case metric.Gauge != nil:
			sum += metric.GetGauge().GetValue()
		case metric.Histogram != nil:
			sum += float64(metric.GetHistogram().GetSampleCount())
		case metric.Untyped != nil:
			sum += metric.GetUntyped().GetValue()
		}
	}
	return sum
}

// LabelValues returns every value that any series carries for any label, sorted.
func (s Snapshot) LabelValues() []string {
	values := map[string]bool{}
	for _, family := range s {
		for _, metric := range family.GetMetric() {
			for _, pair := range metric.GetLabel() {
				values[pair.GetValue()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(values))
}

func carries(metric *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if !slices.ContainsFunc(metric.GetLabel(), func(pair *dto.LabelPair) bool {
			return pair.GetName() == labels[i] && pair.GetValue() == labels[i+1]
		}) {
			return false
		}
	}
	return true
}
