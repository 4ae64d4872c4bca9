package orderings

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/procfs"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// machine says what the results are of.
func machine(ctx context.Context, engine string) (string, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return "", err
	}
	cores, err := proc.CPUInfo()
	if err != nil {
		return "", err
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return "", err
	}
	kernel, err := command.Output(ctx, command.Local{}, "uname", "-sr")
	if err != nil {
		return "", err
	}
	version, err := command.Output(ctx, command.Local{}, engine, "--version")
	return fmt.Sprintf("%d cores of %s, %.0f GiB, %s, %s", len(cores), cores[0].ModelName, float64(*memory.MemTotal)/(1<<20), kernel, version), err
}

// seconds and cores are what a sample took.
func seconds(s Sample) float64 { return s.Seconds }
func cores(s Sample) float64   { return s.CPU }

// sorted are figures of samples, the smallest first.
func sorted(samples []Sample, figure func(Sample) float64) []float64 {
	figures := make([]float64, len(samples))
	for i, sample := range samples {
		figures[i] = figure(sample)
	}
	slices.Sort(figures)
	return figures
}

// median is that of sorted figures; 0 of none.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	return (figures[(len(figures)-1)/2] + figures[len(figures)/2]) / 2
}

// claims are of the document by which the hybrid ordering was chosen, and which leaves the
// measurement pending.
const claims = `| claimed for the hybrid ordering | |
|---|---|
| standard: cluster 10-15 s, builds 2-3 min while it idles, deployment 50-70 s | about 5.5 min |
| hybrid: the same, the builds first | 4-5 min, "about 1 minute, 18 % faster" |
`

const definitions = `From the plan to the last component that is ready, all of the system, without suites; third-party images are in the engine's store.

- **standard**: the cluster first, idle while the services are built; **hybrid**: every image before the cluster; **overlapped**:
  builds beside the creation; **restored**: hybrid, on a parked cluster that is restored.
- **empty**: the services with all that they import, and the standard library, are compiled, as in a build without caches; modules
  are downloaded. **cold**: the services' packages in this repository are compiled, what they import is there. Both without an image of a
  service. **changed**: one line of the Gateway's main package is another. **warm**: programs and images are there. The parked cluster
  is of warm.
- Nothing is removed but what was made for a sample: its cluster, its build cache, the images of its programs, which no other run has.
- Interleaved, each round beginning with another. Seconds are the median, with the least and the most; core seconds are the median
  of what the whole machine used.
`

// markdown is the report.
func (r *Results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Orderings of building and creating\n\nCommit %s, on %s. Written by `go tool mage bench:orderings`.\n\n%s\n![seconds](orderings.svg)\n", r.Commit, r.Machine, definitions)
	fmt.Fprintf(&b, "\n## What was measured\n\n| | samples | seconds | core seconds | waited for |\n|---|---|---|---|---|\n")
	all, _ := cells("")
	for _, cell := range all {
		samples := r.of(cell)
		if len(samples) == 0 {
			continue
		}
		took := sorted(samples, seconds)
		fmt.Fprintf(&b, "| %s | %d | **%.1f** (%.1f-%.1f) | %.1f | %s |\n", cell, len(samples), median(took), took[0], took[len(took)-1],
			median(sorted(samples, cores)), waited(samples))
	}
	fmt.Fprintf(&b, "\n## Does hybrid win?\n\n%s\nMeasured here, hybrid against the others, pair by pair of the same round:\n\n", claims)
	fmt.Fprintf(&b, "| | against | hybrid takes | of it | is faster in |\n|---|---|---|---|---|\n")
	for _, cell := range all {
		if against := r.compare(cell); against != "" {
			fmt.Fprintln(&b, against)
		}
	}
	fmt.Fprintf(&b, "\n## What to use\n\n")
	best := map[string][]string{}
	for _, cell := range all {
		if cell.Ordering == kinds[0] {
			if name := r.best(cell); name != "" {
				best[name] = append(best[name], strings.TrimSuffix(cell.String(), " "+cell.Ordering))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(best)) {
		fmt.Fprintf(&b, "- %s has the least median of those that were measured: %s\n", name, strings.Join(best[name], ", "))
	}
	return b.String()
}

// waited is the critical path of the sample in the middle, but for what took no time.
func waited(samples []Sample) string {
	slices.SortFunc(samples, func(a, b Sample) int { return int(1000 * (a.Seconds - b.Seconds)) })
	middle := samples[(len(samples)-1)/2]
	var steps []string
	for _, step := range middle.Path {
		if step.Seconds >= 0.1 {
			steps = append(steps, fmt.Sprintf("%s %.1f", step.Name, step.Seconds))
		}
	}
	return strings.Join(steps, ", ")
}

// compare is a row on the hybrid ordering in place of a cell's; empty if there is none.
func (r *Results) compare(cell Cell) string {
	own := r.of(Cell{cell.Variant, cell.State, hybrid})
	others := r.of(cell)
	pairs := min(len(own), len(others))
	if cell.Ordering == hybrid || pairs == 0 {
		return ""
	}
	var more []float64
	faster := 0
	for i := range pairs {
		more = append(more, own[i].Seconds-others[i].Seconds)
		if more[i] < 0 {
			faster++
		}
	}
	slices.Sort(more)
	return fmt.Sprintf("| %s | %s | %+.1f s (%+.1f to %+.1f) | %+.0f %% | %d of %d |", strings.TrimSuffix(cell.String(), " "+cell.Ordering), cell.Ordering,
		median(more), more[0], more[pairs-1], 100*median(more)/median(sorted(others, seconds)), faster, pairs)
}

// best is the ordering with the least median in a cell's variant and state; empty of none.
func (r *Results) best(cell Cell) (name string) {
	least := 0.0
	for _, cell.Ordering = range kinds {
		if took := median(sorted(r.of(cell), seconds)); took > 0 && (name == "" || took < least) {
			name, least = cell.Ordering, took
		}
	}
	return name
}

// picture draws a bar a cell, with a line from the least to the most.
func (r *Results) picture() string {
	const row, left, width = 18, 190, 520
	all, _ := cells("")
	all = slices.DeleteFunc(all, func(cell Cell) bool { return len(r.of(cell)) == 0 })
	most := 1.0
	for _, sample := range r.Samples {
		most = max(most, sample.Seconds)
	}
	var b strings.Builder
	height := row * (len(all) + 1)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", left+width+60, height)
	colors := map[string]string{kinds[0]: "#9aa5b1", hybrid: "#3b7dd8", kinds[2]: "#e0a030", restored: "#3a9d6a"}
	for i, cell := range all {
		took := sorted(r.of(cell), seconds)
		at := func(seconds float64) float64 { return left + seconds/most*width }
		y := row*i + row/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="12" fill="%s"/>`+
			`<path d="M%.1f %dH%.1f" stroke="#222"/><text x="%.1f" y="%d">%.1f s</text>`+"\n",
			left-6, y+10, cell, left, y, at(median(took))-left, colors[cell.Ordering], at(took[0]), y+6, at(took[len(took)-1]), at(took[len(took)-1])+6, y+10, median(took))
	}
	return b.String() + "</svg>\n"
}
