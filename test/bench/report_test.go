package bench

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/bench/load"
	"kubernaut.ai/e2e/test/bench/usage"
)

// measured is a scenario of two seconds whose calls took 1 to 200 ms.
func measured(name string, goals ...bound) Scenario {
	result := load.Result{Window: 2 * time.Second, Calls: 200, PerSecond: []int{90, 110}, Sent: 250, Failures: map[string]int{"503 busy": 3}}
	for i := range 200 {
		result.Latencies = append(result.Latencies, time.Duration(i+1)*time.Millisecond)
	}
	s := newScenario(scenario{name: name, unit: "events", perCall: 100, plan: load.Plan{Workers: 4}, goals: goals}, result)
	s.use(map[string]float64{"gateway": 0.25, "postgres": 1, elsewhere: 0.65}, 1.9, map[string]float64{"gateway": 40, "datastorage": 97})
	return s
}

func TestScenarioCountsUnitsAndPercentiles(t *testing.T) {
	s := measured("batches", bound{what: rate, least: 3000, unit: "/s"}, bound{what: p99, most: 100, unit: "ms"})
	if s.UnitsPerSecond != 10_000 {
		t.Errorf("got %v events/s, want 100 calls of 100 each second", s.UnitsPerSecond)
	}
	if want := (Millis{Mean: 100.5, P50: 100, P90: 180, P95: 190, P99: 198, P999: 200, Max: 200}); s.Millis != want {
		t.Errorf("got %+v, want %+v", s.Millis, want)
	}
	if s.CPUMillisOfCall != 12.5 {
		t.Errorf("got %v ms a call, want 1.25 cores for 100 calls a second, without the rest of the machine", s.CPUMillisOfCall)
	}
	if !s.Goals[0].Met || s.Goals[1].Met || s.Goals[1].Got != 198 {
		t.Errorf("got goals %v", s.Goals)
	}
}

func TestGoalSaysWhetherItWasMet(t *testing.T) {
	for name, c := range map[string]struct {
		bound bound
		got   float64
		want  string
	}{
		"enough":       {bound{what: rate, least: 300, unit: "/s"}, 300, "rate 300 >= 300 /s: met"},
		"too few":      {bound{what: rate, least: 300, unit: "/s"}, 299.4, "rate 299 >= 300 /s: MISSED"},
		"fast enough":  {bound{what: p99, most: 100, unit: "ms"}, 12, "p99 12 <= 100 ms: met"},
		"too slow":     {bound{what: p99, most: 100, unit: "ms"}, 101, "p99 101 <= 100 ms: MISSED"},
		"nothing done": {bound{what: rate, least: 300, unit: "/s"}, 0, "rate 0 >= 300 /s: MISSED"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.bound.judge(c.got).String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLimitTellsCPUFromWaiting(t *testing.T) {
	s := measured("batches")
	if got, want := s.limit(2), "CPU: postgres 53 %, other 34 %, gateway 13 %"; got != want {
		t.Errorf("busy: got %q, want %q", got, want)
	}
	if got, want := s.limit(4), "waiting: 52 % of the CPUs idle"; got != want {
		t.Errorf("half idle: got %q, want %q", got, want)
	}
}

func TestJudgeTakesTheHighestMemory(t *testing.T) {
	small, large := measured("small"), measured("large")
	small.ResidentMiB = map[string]float64{"gateway": 30, "datastorage": 50}
	r := &Report{Scenarios: []Scenario{large, small}}
	r.judge()
	if got, want := sentence(r.Memory), "gateway memory 40 <= 64 MiB: met; datastorage memory 97 <= 96 MiB: MISSED"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := r.summary(), "1 of 2 goals met"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	none := &Report{}
	none.judge()
	if len(none.Memory) != 0 {
		t.Errorf("without scenarios: got %v", none.Memory)
	}
}

func TestPrint(t *testing.T) {
	r := &Report{
		Cluster: "e2e-1", Variant: "standard", CPUs: 2, BusyBefore: 0.254, ResidentBeforeMiB: map[string]float64{"gateway": 30, "datastorage": 38},
		Scenarios: []Scenario{measured("batches", bound{what: rate, least: 3000, unit: "/s"})}, Problems: []string{"batches: 7 events are missing"},
	}
	r.judge()
	const want = `
cluster e2e-1, variant standard, 2 CPUs, 0.25 of them busy before

latency of a call in ms  workers  calls  per second    p50    p90    p99    p99.9  max    failed  goals
batches                  4        200    10000 events  100.0  180.0  198.0  200.0  200.0  3       rate 10000 >= 3000 /s: met
batches: failed 3 times: 503 busy

CPU in cores  gateway  datastorage  kube-apiserver  etcd  postgres  redis-server  node  load  other  all   ms a call  limit
batches       0.25     0.00         0.00            0.00  1.00      0.00          0.00  0.00  0.65   1.90  12.5       CPU: postgres 53 %, other 34 %, gateway 13 %

highest resident memory in MiB  datastorage  gateway
before                          38.0         30.0
batches                         97.0         40.0
gateway memory 40 <= 64 MiB: met
datastorage memory 97 <= 96 MiB: MISSED
NOT STORED AS ANSWERED: batches: 7 events are missing
`
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + out.String(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

// broken is a screen that is gone.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestPrintReturnsTheWritersError(t *testing.T) {
	gone := errors.New("broken pipe")
	if err := (&Report{}).Print(broken{gone}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestWriteCanBeRead(t *testing.T) {
	r := &Report{Cluster: "e2e-1", Scenarios: []Scenario{measured("batches", bound{what: rate, least: 3000, unit: "/s"})}}
	r.judge()
	file := filepath.Join(t.TempDir(), "bench.json")
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	if read.Scenarios[0].Millis.P99 != 198 || !read.Scenarios[0].Goals[0].Met || read.Memory[1].Met {
		t.Errorf("got %+v", read)
	}
}

func TestSinceSharesOutTheMachine(t *testing.T) {
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func(seconds, apiserver, kubelet, gateway, self, busy time.Duration, start float64) moment {
		return moment{
			node: usage.Node{Uptime: seconds * time.Second, CPUs: 2, Busy: busy * time.Second, Programs: map[string]time.Duration{
				"kube-apiserver": apiserver * time.Second, "kubelet": kubelet * time.Second, "gateway": gateway * time.Second,
			}},
			services: map[string]usage.Service{"gateway": {At: at.Add(seconds * time.Second), CPU: gateway * time.Second, Start: start}},
			self:     self * time.Second, at: at.Add(seconds * time.Second),
		}
	}
	before, after := look(100, 10, 20, 30, 40, 150, 1), look(110, 16, 22, 33, 41, 168, 1)
	cores, busy, err := after.since(before)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"kube-apiserver": 0.6, theNode: 0.2, "gateway": 0.3, generator: 0.1, elsewhere: 0.6}
	for party, n := range want {
		if got := cores[party]; got < n-1e-9 || got > n+1e-9 {
			t.Errorf("%s: got %v, want %v", party, got, n)
		}
	}
	if busy != 1.8 {
		t.Errorf("busy: got %v, want 1.8", busy)
	}
	if _, _, err := look(110, 16, 22, 1, 41, 168, 2).since(before); err == nil || !strings.Contains(err.Error(), "gateway: was started") {
		t.Errorf("a restart: got %v", err)
	}
}
