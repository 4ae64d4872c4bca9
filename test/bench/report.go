package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"kubernaut.ai/e2e/test/bench/load"
)

const mebibyte = 1 << 20

// Report is bench.json.
type Report struct {
	Cluster    string    `json:"cluster"`
	Variant    string    `json:"variant"`
	Started    time.Time `json:"started"`
	CPUs       int       `json:"cpus"`
	BusyBefore float64   `json:"busyBefore"` // cores in use before there was any load

	ResidentBeforeMiB map[string]float64 `json:"residentBeforeMiB"` // of each service
	Scenarios         []Scenario         `json:"scenarios"`
	Memory            []Goal             `json:"memory"`
	Problems          []string           `json:"problems"` // what was answered and is not so; each fails the benchmark
}

// Scenario is what one scenario measured.
type Scenario struct {
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Workers int     `json:"workers"`
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"` // succeeded within that time
	// UnitsPerSecond is the rate of signals or events; a call may carry many.
	UnitsPerSecond float64        `json:"unitsPerSecond"`
	Millis         Millis         `json:"latencyMillis"` // of a call
	CallsOfSecond  []int          `json:"callsOfSecond"`
	Failures       map[string]int `json:"failures"` // of the warm-up too

	Cores map[string]float64 `json:"cores"` // CPU, by who used it
	Busy  float64            `json:"busy"`  // cores of the machine in use
	// CPUMillisOfCall is the CPU time that a call cost all parties but the rest of the
	// machine. It tells more than the rate when others use the machine, too.
	CPUMillisOfCall float64            `json:"cpuMillisOfCall"`
	ResidentMiB     map[string]float64 `json:"residentMiB"`
	Goals           []Goal             `json:"goals"`
}

// Millis are latencies in milliseconds.
type Millis struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// newScenario takes over what was measured.
func newScenario(s scenario, result load.Result) Scenario {
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	at := func(p float64) float64 { return millis(load.Percentile(result.Latencies, p)) }
	measured := Scenario{
		Name: s.name, Unit: s.unit, Workers: s.plan.Workers, Seconds: result.Window.Seconds(),
		Calls: result.Calls, UnitsPerSecond: result.Rate() * float64(s.perCall),
		Millis:        Millis{millis(load.Mean(result.Latencies)), at(50), at(90), at(95), at(99), at(99.9), at(100)},
		CallsOfSecond: result.PerSecond, Failures: result.Failures,
	}
	for _, goal := range s.goals {
		got := measured.UnitsPerSecond
		if goal.what == p99 {
			got = measured.Millis.P99
		}
		measured.Goals = append(measured.Goals, goal.judge(got))
	}
	return measured
}

// use takes over who used the machine.
func (s *Scenario) use(cores map[string]float64, busy float64, residentMiB map[string]float64) {
	s.Cores, s.Busy, s.ResidentMiB = cores, busy, residentMiB
	used := 0.0
	for party, n := range cores {
		if party != elsewhere {
			used += n
		}
	}
	if s.Calls > 0 {
		s.CPUMillisOfCall = 1000 * used * s.Seconds / float64(s.Calls)
	}
}

// brief is the scenario in a few words.
func (s Scenario) brief() string {
	return fmt.Sprintf("%.0f %s/s, p99 %.0f ms", s.UnitsPerSecond, s.Unit, s.Millis.P99)
}

// summary is the report in a few words.
func (r *Report) summary() string {
	met, all := 0, 0
	for _, goal := range r.goals() {
		all++
		if goal.Met {
			met++
		}
	}
	return fmt.Sprintf("%d of %d goals met", met, all)
}

func (r *Report) goals() []Goal {
	goals := slices.Clone(r.Memory)
	for _, s := range r.Scenarios {
		goals = append(goals, s.Goals...)
	}
	return goals
}

// write stores the report at path.
func (r *Report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Print writes the report as tables.
func (r *Report) Print(out io.Writer) error {
	w := &table{Writer: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	w.row(fmt.Sprintf("cluster %s, variant %s, %d CPUs, %.2f of them busy before", r.Cluster, r.Variant, r.CPUs, r.BusyBefore))
	r.printLoad(w)
	r.printCPU(w)
	r.printMemory(w)
	for _, problem := range r.Problems {
		w.row("NOT STORED AS ANSWERED: " + problem)
	}
	return w.Flush()
}

func (r *Report) printLoad(w *table) {
	w.row("")
	w.row("latency of a call in ms", "workers", "calls", "per second", "p50", "p90", "p99", "p99.9", "max", "failed", "goals")
	for _, s := range r.Scenarios {
		failed := 0
		for _, n := range s.Failures {
			failed += n
		}
		cells := []string{s.Name, fmt.Sprint(s.Workers), fmt.Sprint(s.Calls), fmt.Sprintf("%.0f %s", s.UnitsPerSecond, s.Unit)}
		for _, ms := range []float64{s.Millis.P50, s.Millis.P90, s.Millis.P99, s.Millis.P999, s.Millis.Max} {
			cells = append(cells, fmt.Sprintf("%.1f", ms))
		}
		w.row(append(cells, fmt.Sprint(failed), sentence(s.Goals))...)
	}
	for _, s := range r.Scenarios {
		for _, text := range slices.Sorted(maps.Keys(s.Failures)) {
			w.row(fmt.Sprintf("%s: failed %d times: %s", s.Name, s.Failures[text], text))
		}
	}
}

// columns are the parties in the order of the table.
var columns = append([]string{"gateway", "datastorage"}, append(slices.Clone(shown), theNode, generator, elsewhere)...)

func (r *Report) printCPU(w *table) {
	w.row("")
	w.row(append(append([]string{"CPU in cores"}, columns...), "all", "ms a call", "limit")...)
	for _, s := range r.Scenarios {
		cells := []string{s.Name}
		for _, party := range columns {
			cells = append(cells, fmt.Sprintf("%.2f", s.Cores[party]))
		}
		w.row(append(cells, fmt.Sprintf("%.2f", s.Busy), fmt.Sprintf("%.1f", s.CPUMillisOfCall), s.limit(r.CPUs))...)
	}
}

func (r *Report) printMemory(w *table) {
	services := slices.Sorted(maps.Keys(r.ResidentBeforeMiB))
	w.row("")
	w.row(append([]string{"highest resident memory in MiB"}, services...)...)
	cells := []string{"before"}
	for _, service := range services {
		cells = append(cells, fmt.Sprintf("%.1f", r.ResidentBeforeMiB[service]))
	}
	w.row(cells...)
	for _, s := range r.Scenarios {
		cells := []string{s.Name}
		for _, service := range services {
			cells = append(cells, fmt.Sprintf("%.1f", s.ResidentMiB[service]))
		}
		w.row(cells...)
	}
	for _, goal := range r.Memory {
		w.row(sentence([]Goal{goal}))
	}
}

// saturated is the share of the machine from which on it is what limits: the kernel
// needs some of it to switch, and a window has edges.
const saturated = 0.9

// limit says what held the load back, as far as the figures tell.
func (s Scenario) limit(cpus int) string {
	most := slices.SortedFunc(maps.Keys(s.Cores), func(a, b string) int {
		switch {
		case s.Cores[a] > s.Cores[b]:
			return -1
		case s.Cores[a] < s.Cores[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	if s.Busy < saturated*float64(cpus) {
		return fmt.Sprintf("waiting: %.0f %% of the CPUs idle", 100*(1-s.Busy/float64(cpus)))
	}
	var parts []string
	for _, party := range most[:min(3, len(most))] {
		parts = append(parts, fmt.Sprintf("%s %.0f %%", party, 100*s.Cores[party]/s.Busy))
	}
	return "CPU: " + strings.Join(parts, ", ")
}

// table writes cells in columns. The first error is returned by Flush.
type table struct {
	*tabwriter.Writer
	err error
}

func (t *table) row(cells ...string) {
	if _, err := fmt.Fprintln(t.Writer, strings.Join(cells, "\t")); err != nil && t.err == nil {
		t.err = err
	}
}

// Flush writes what waits for its column to be complete.
func (t *table) Flush() error {
	if t.err != nil {
		return t.err
	}
	return t.Writer.Flush()
}
