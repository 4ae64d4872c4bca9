package monitor_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"kubernaut.ai/e2e/test/infrastructure/kube"
	"kubernaut.ai/e2e/test/infrastructure/monitor"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// recorder is one whose evidence lies in a folder of the test's.
func recorder(t *testing.T) *timeline.Recorder {
	dir := t.TempDir()
	return timeline.New(timeline.Options{Folder: func(bool) (string, error) { return dir, nil }, Screen: screen.New(io.Discard, nil)})
}

// proc writes what the kernel says after so many ticks of 10 ms of work.
func proc(t *testing.T, dir string, ticks int) {
	t.Helper()
	for name, text := range map[string]string{
		"stat":    fmt.Sprintf("cpu  %d 0 0 9000 500 0 0 0 0 0\ncpu0 %d 0 0 9000 500 0 0 0 0 0\n", ticks, ticks),
		"meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// cluster is an API server with one node and pods that use half a core each.
func cluster(t *testing.T, asked func(path string)) kube.Interface {
	t.Helper()
	var looks atomic.Int64
	started := time.Now()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked(r.URL.Path)
		var answer any
		switch {
		case r.URL.Path == "/api/v1/nodes":
			answer = map[string]any{"kind": "NodeList", "apiVersion": "v1", "items": []any{map[string]any{"metadata": map[string]any{"name": "node-1"}}}}
		case r.URL.Path == "/api/v1/nodes/node-1/proxy/stats/summary":
			look := looks.Add(1)
			var pods []any
			for _, name := range []string{"shop/gateway-5774d4cd67-p6tr9", "shop/gateway-5774d4cd67-abcde", "shop/postgresql-0", "shop/migrations-x7k2p", "suite-made/app-5774d4cd67-abcde"} {
				namespace, name, _ := strings.Cut(name, "/")
				pods = append(pods, map[string]any{"podRef": map[string]any{"name": name, "namespace": namespace},
					"cpu":    map[string]any{"time": started.Add(time.Duration(look) * 10 * time.Second), "usageCoreNanoSeconds": look * int64(5*time.Second)},
					"memory": map[string]any{"workingSetBytes": 1 << 20}})
			}
			answer = map[string]any{"pods": pods}
		case strings.HasSuffix(r.URL.Path, "/events"):
			if r.URL.Query().Get("fieldSelector") != "type=Warning" {
				t.Errorf("asks for all events: %s", r.URL)
			}
			answer = map[string]any{"kind": "EventList", "apiVersion": "v1", "items": []any{map[string]any{
				"metadata": map[string]any{"name": "e"}, "involvedObject": map[string]any{"kind": "Pod", "name": "gateway-1"}, "lastTimestamp": "2026-01-01T00:00:00Z", "reason": "Unhealthy", "message": "probe\nfailed"}}}
		case strings.HasSuffix(r.URL.Path, "/pods"):
			answer = map[string]any{"kind": "PodList", "apiVersion": "v1", "items": []any{map[string]any{"metadata": map[string]any{"name": "gateway-1"}, "status": map[string]any{"containerStatuses": []any{map[string]any{
				"name": "gateway", "restartCount": 2, "lastState": map[string]any{"terminated": map[string]any{"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-01T00:00:01Z"}}}}}}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	client, err := kube.ClientFor(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestMonitor(t *testing.T) {
	dir, record := t.TempDir(), recorder(t)
	proc(t, dir, 1000)
	var summaries atomic.Int64
	enough := make(chan struct{})
	client := cluster(t, func(path string) {
		if strings.HasSuffix(path, "/summary") {
			switch summaries.Add(1) {
			case 1:
				proc(t, dir, 1100) // a second of work since the look before
			case 3:
				close(enough)
			}
		}
	})
	m := monitor.Start(t.Context(), monitor.Options{
		Proc: dir, Namespaces: []string{"shop"}, Period: 20 * time.Millisecond, Connect: func() (kube.Interface, error) { return client, nil },
	}, record)
	<-enough
	m.Stop(t.Context())
	doc := record.Document()
	last := map[string]timeline.Usage{}
	worked := 0
	for _, usage := range doc.Usage {
		last[usage.Of] = usage
		if usage.Of == monitor.Machine && usage.Cores > 0 {
			worked++
		}
	}
	if last[monitor.Machine].Bytes != 400<<10 || worked != 1 {
		t.Errorf("got %+v, want work at one moment, and 400 KiB", doc.Usage)
	}
	for app, cores := range map[string]float64{"gateway": 1, "postgresql": 0.5, "migrations": 0.5} {
		if got := last[app]; got.Cores != cores || got.Bytes != int64(2*cores)<<20 {
			t.Errorf("%s: got %+v, want %g cores", app, got, cores)
		}
	}
	if len(last) != 4 {
		t.Errorf("got %v, want nothing of what a suite made", last)
	}
	var told []string
	for _, event := range doc.Events {
		told = append(told, fmt.Sprintf("%s %s %s %s", event.Kind, event.Name, event.Start.UTC().Format(time.TimeOnly), event.Detail))
	}
	if want := []string{"warning Pod/gateway-1 00:00:00 Unhealthy: probe failed", "restart Pod/gateway-1 00:00:01 gateway ended with 137 (Error), started again 2 times"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}

func TestWhatIsNotThereIsLeftOut(t *testing.T) {
	record := recorder(t)
	m := monitor.Start(t.Context(), monitor.Options{Proc: filepath.Join(t.TempDir(), "none"), Kubeconfig: filepath.Join(t.TempDir(), "none")}, record)
	m.Stop(t.Context())
	(*monitor.Monitor)(nil).Stop(t.Context())
	if doc := record.Document(); len(doc.Usage)+len(doc.Events) > 0 {
		t.Errorf("got %+v", doc)
	}
}
