package history

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"kubernaut.ai/e2e/test/infrastructure/report"
)

// Past says of each spec that failed in the run how often it did so in the runs of the same
// content, of which before are those that were before; nothing when there were none.
func Past(before []Run, run Run) map[string]string {
	past := map[string]string{}
	for name, t := range tallies(append(slices.Clone(before), run)) {
		if len(t.all) > 1 && len(t.failed) > 0 {
			past[name] = fmt.Sprintf("failed %d of %d runs of this content, first on %s", len(t.failed), len(t.all), t.failed[0].when())
		}
	}
	return past
}

func (r Run) when() string { return r.Start.UTC().Format("2006-01-02 15:04") }

// tally are the runs in which a spec ran, and those of them in which it failed.
type tally struct {
	name        string
	node        bool
	all, failed []*Run
}

// tallies are those of all specs of a suite, by name. What several processes do, or specs of
// one name, is one.
func tallies(runs []Run) map[string]*tally {
	byName := map[string]*tally{}
	add := func(to *[]*Run, run *Run) {
		if len(*to) == 0 || (*to)[len(*to)-1] != run {
			*to = append(*to, run)
		}
	}
	for i := range runs {
		for _, spec := range runs[i].Specs {
			t := byName[spec.Name]
			if t == nil {
				t = &tally{name: spec.Name, node: spec.Node}
				byName[spec.Name] = t
			}
			add(&t.all, &runs[i])
			if spec.Failed {
				add(&t.failed, &runs[i])
			}
		}
	}
	return byName
}

// forgive leaves out the runs of contents on which the spec failed each time: there it, or
// what it tests, was broken.
func (t *tally) forgive() {
	passed := map[string]int{}
	for _, run := range t.all {
		passed[run.Content]++
	}
	for _, run := range t.failed {
		passed[run.Content]--
	}
	broken := func(run *Run) bool { return passed[run.Content] == 0 }
	t.all, t.failed = slices.DeleteFunc(t.all, broken), slices.DeleteFunc(t.failed, broken)
}

// Wilson returns the bounds between which a rate lies, with 95 %, when k of n were seen. It
// holds for few runs and near 0, too: https://doi.org/10.1080/01621459.1927.10502953.
func Wilson(k, n int) (low, high float64) {
	const z = 1.96
	all := float64(n)
	p := float64(k) / all
	middle, width := p+z*z/(2*all), z*math.Sqrt(p*(1-p)/all+z*z/(4*all*all))
	return (middle - width) / (1 + z*z/all), (middle + width) / (1 + z*z/all)
}

// Rate is in words how often it is to be expected of what was seen k times of n, with 95 %:
// what was never seen, less often than 3/n, by the rule of three.
func Rate(k, n int) string {
	if k == 0 {
		return fmt.Sprintf("< %.1f %%", 100*min(1, 3/float64(n)))
	}
	low, high := Wilson(k, n)
	return fmt.Sprintf("%.1f - %.1f %%", 100*low, 100*high)
}

// Print tells what came of runs: a line for each suite; then of each spec that failed how
// often, since when, beside what, and how to provoke it; and what is known of those that never
// did. Of contents on which a spec failed each time only those tell that are asked for.
func Print(out io.Writer, runs []Run, broken bool) error {
	type key struct{ suite, variant string }
	suites := map[key][]Run{}
	for _, run := range runs {
		suites[key{run.Suite, run.Variant}] = append(suites[key{run.Suite, run.Variant}], run)
	}
	keys := slices.SortedFunc(maps.Keys(suites), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.suite, b.suite), cmp.Compare(b.variant, a.variant))
	})
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SUITE\tVARIANT\tRUNS\tRED\tRATE OF RED (95 %)\tMEDIAN\tMAX\t")
	for _, key := range keys {
		runs := suites[key]
		// How long it takes tell those that ran most of it.
		least := slices.MinFunc(runs, func(a, b Run) int { return cmp.Compare(a.Left, b.Left) }).Left
		red, took := 0, []float64{}
		for _, run := range runs {
			if slices.ContainsFunc(run.Specs, func(spec Spec) bool { return spec.Failed }) {
				red++
			}
			if run.Left == least {
				took = append(took, run.Seconds)
			}
		}
		slices.Sort(took)
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%.1f s\t%.1f s\t\n", key.suite, key.variant, len(runs), red, Rate(red, len(runs)), took[len(took)/2], took[len(took)-1])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, key := range keys {
		if _, err := fmt.Fprint(out, specs(suites[key], broken)); err != nil {
			return err
		}
	}
	return nil
}

// specs tells of those of a suite.
func specs(runs []Run, broken bool) string {
	var b strings.Builder
	suite := runs[0].Suite + " (" + runs[0].Variant + ")"
	never, fewest, most := 0, 0, 0
	for _, t := range slices.SortedFunc(maps.Values(tallies(runs)), func(a, b *tally) int {
		return cmp.Or(cmp.Compare(len(b.failed), len(a.failed)), cmp.Compare(a.name, b.name))
	}) {
		if !broken {
			t.forgive()
		}
		n, k := len(t.all), len(t.failed)
		switch {
		case n == 0 || k == 0 && t.node:
		case k == 0:
			if never++; never == 1 || n < fewest {
				fewest = n
			}
			most = max(most, n)
		default:
			first, last := t.failed[0], t.failed[k-1]
			fmt.Fprintf(&b, "\n%s: %s\n  failed %d of %d runs: %s; first %s at %s", suite, t.name, k, n, Rate(k, n), first.when(), first.at())
			if k > 1 {
				fmt.Fprintf(&b, ", last %s at %s", last.when(), last.at())
			}
			fmt.Fprintf(&b, "; passed since: %d\n", n-1-slices.Index(t.all, last))
			var beside []neighbour
			if !t.node {
				beside = t.beside()
			}
			for _, other := range beside {
				fmt.Fprintf(&b, "  beside %s: in %d of %d failed runs, in %d of %d others\n", other.name, other.failed, k, other.passed, n-k)
			}
			fmt.Fprintf(&b, "  provoke: %s\n", t.provoke(beside))
		}
	}
	if never > 0 {
		fmt.Fprintf(&b, "\n%s: %d specs never failed in %d runs: each %s", suite, never, most, Rate(0, most))
		if fewest < most {
			fmt.Fprintf(&b, " (those that ran least, %d runs: %s)", fewest, Rate(0, fewest))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r Run) at() string { return cmp.Or(r.Commit, "no commit") }

// neighbour is a spec that ran at the same time as another.
type neighbour struct {
	name           string
	failed, passed int // runs of the other
}

// shownBeside is how many neighbours of a spec are told of.
const shownBeside = 3

// beside are the specs that ran at the same time more often when this one failed than when it
// passed, by more than chance explains; the most conspicuous first.
func (t *tally) beside() []neighbour {
	byName := map[string]*neighbour{}
	for _, run := range t.all {
		for name := range run.beside(t.name) {
			if byName[name] == nil {
				byName[name] = &neighbour{name: name}
			}
			if slices.Contains(t.failed, run) {
				byName[name].failed++
			} else {
				byName[name].passed++
			}
		}
	}
	excess := func(n neighbour) float64 {
		low, _ := Wilson(n.failed, len(t.failed))
		return low - float64(n.passed)/float64(max(1, len(t.all)-len(t.failed)))
	}
	var found []neighbour
	for _, n := range byName {
		if excess(*n) > 0 {
			found = append(found, *n)
		}
	}
	slices.SortFunc(found, func(a, b neighbour) int {
		return cmp.Or(cmp.Compare(excess(b), excess(a)), cmp.Compare(a.name, b.name))
	})
	return found[:min(len(found), shownBeside)]
}

// beside are the names of the specs that ran at the same time as one, in other processes: those
// of its own come after each other, however their times are rounded.
func (r *Run) beside(name string) map[string]bool {
	names := map[string]bool{}
	for _, spec := range r.Specs {
		for _, other := range r.Specs {
			if spec.Name == name && other.Name != name && other.Process != spec.Process && !other.Node && other.At < spec.At+spec.Seconds && spec.At < other.At+other.Seconds {
				names[other.Name] = true
			}
		}
	}
	return names
}

// provoke is the command that runs the spec, with what was beside it, as when it failed last.
func (t *tally) provoke(beside []neighbour) string {
	last := t.failed[len(t.failed)-1]
	command := fmt.Sprintf("E2E_SEED=%d E2E_PROCS=%d %s", last.Seed, last.Procs, report.Command(last.Variant == "coverage", "e2e:soak 20"))
	if t.node {
		return command
	}
	names := []string{t.name}
	for _, other := range beside {
		names = append(names, other.name)
	}
	return "E2E_FOCUS=" + report.Quote(report.Focus(last.Title, names...)) + " " + command
}
