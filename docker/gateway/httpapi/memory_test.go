package httpapi

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec" //nolint:depguard // this test's own program, in a process of its own
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
)

// size is that of the bodies whose memory is measured: a fourth of the largest, which
// takes as much for each byte, and a fourth of the time.
const size = MaxBodyBytes / 4

// TestTheWorstBodiesFitTheirBudget holds what a body takes, from its reading to its
// answer, to what the budget counts for it.
//
// A process of its own measures, in which everybody waits while the collector works, as
// soon as the heap has grown by a tenth. One that works beside the request leaves what the
// request drops meanwhile: on a busy machine as much again as was in use. GODEBUG is read
// when a process starts.
func TestTheWorstBodiesFitTheirBudget(t *testing.T) {
	const stopped = "gcstoptheworld=2"
	if os.Getenv("GODEBUG") != stopped {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), "GODEBUG="+stopped)
		out, err := c.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	// fill repeats unit so that the body has that size.
	fill := func(head, unit, tail string) string {
		n := (size - len(head) - len(tail)) / len(unit)
		return head + strings.TrimSuffix(strings.Repeat(unit, n), ",") + tail
	}
	many := func(label string) string { // label i gets its number
		var b strings.Builder
		for i := 0; b.Len() < size-200; i++ {
			fmt.Fprintf(&b, label, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	for name, body := range map[string]string{
		"one large text":     `{"alerts":[{"labels":{"alertname":"A","pod":"web"},"annotations":{"d":"` + strings.Repeat("x", size-200) + `"},"startsAt":"2026-03-01T11:00:00Z"}]}`,
		"escaped characters": fill(`{"alerts":[{"labels":{"alertname":"A","pod":"web"},"annotations":{"d":"`, `\u00e4`, `"},"startsAt":"2026-03-01T11:00:00Z"}]}`),
		"many labels":        `{"alerts":[{"labels":{"alertname":"A","pod":"web",` + many(`"%x":"",`) + `},"startsAt":"2026-03-01T11:00:00Z"}]}`,
		"many numbers":       fill(`{"x":[`, `1,`, `1],"alerts":[]}`),
		"many objects":       fill(`{"x":[`, `{"":{}},`, `{}],"alerts":[]}`),
		"many keys":          `{"x":{` + many(`"%x":0,`) + `},"alerts":[]}`,
		"deep nesting":       fill(`{"x":`, `[`, ``),
		"all in common":      `{"commonLabels":{"alertname":"A","pod":"web",` + few(250) + `},"alerts":[` + strings.Repeat(`{},`, 1999) + `{"startsAt":"2026-03-01T11:00:00Z"}]}`,
		"a thousand alerts":  storm(t, 400),
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(created, func(o *Options) { o.Log = slog.New(slog.DiscardHandler) })
			used := peak(func() {
				w := httptest.NewRecorder()
				f.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, prometheusPath, strings.NewReader(body)))
				if w.Code >= http.StatusInternalServerError {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			})
			t.Logf("%d bytes took %d, %.1f a byte", len(body), used, float64(used)/float64(len(body)))
			alerts := min(strings.Count(body, `"startsAt"`)+strings.Count(body, `{},`), 2000)
			if budget := uint64(len(body)*heapPerByte + heapPerRequest + alerts*heapPerAlert); used > budget {
				t.Errorf("took %d bytes, %.1f for each of the body's %d; the budget has %d", used, float64(used)/float64(len(body)), len(body), budget)
			}
		})
	}
}

// few returns n labels.
func few(n int) string {
	labels := make([]string, n)
	for i := range labels {
		labels[i] = fmt.Sprintf(`"l%d":""`, i)
	}
	return strings.Join(labels, ",")
}

// storm is a webhook of n alerts with the labels and annotations that the rules of
// kube-prometheus give them.
func storm(t *testing.T, n int) string {
	t.Helper()
	alerts := make([]map[string]any, n)
	for i := range alerts {
		alerts[i] = map[string]any{
			"status": "firing", "startsAt": "2026-03-01T11:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": fmt.Sprintf("%016x", i),
			"generatorURL": "https://prometheus.example.org/graph?g0.expr=" + strings.Repeat("x", 200),
			"labels": map[string]string{
				"alertname": "KubePodCrashLooping", "container": "kube-state-metrics", "endpoint": "http", "instance": "10.0.0.1:8080", "job": "kube-state-metrics",
				"namespace": "demo", "pod": fmt.Sprintf("web-%d", i), "prometheus": "monitoring/k8s", "reason": "CrashLoopBackOff", "service": "kube-state-metrics",
				"severity": "warning", "uid": "7f1f0c5e-0000-4000-8000-000000000001",
			},
			"annotations": map[string]string{"summary": "Pod is crash looping.", "description": strings.Repeat("x", 250), "runbook_url": "https://runbooks.example.org/" + strings.Repeat("x", 60)},
		}
	}
	body, err := json.Marshal(map[string]any{"version": "4", "groupKey": "{}", "alerts": alerts})
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > n*MaxBodyBytes/1000 || len(body) < n*900 { // a thousand of them have to fit
		t.Fatalf("got a storm of %d bytes", len(body))
	}
	return string(body)
}

// peak returns how much more memory is in use at the worst moment of call.
func peak(call func()) uint64 {
	inUse := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC()
	before := inUse()
	var most atomic.Uint64
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-ended:
				return
			default:
				if now := inUse(); now > most.Load() {
					most.Store(now)
				}
				runtime.Gosched()
			}
		}
	}()
	call()
	close(ended)
	<-watched
	if most.Load() < before {
		return 0
	}
	return most.Load() - before
}
