// Package orderings measures how long it takes from a checkout to a deployed system, on this
// machine: with the cluster made before the services are built, after, or meanwhile, and with
// a cluster that is restored; with services that have to be compiled, with all that they import or
// without, of which one has changed, or as they were. No suite is compiled or run.
package orderings

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// What is measured is each of these with each: a Cell.
var (
	variants = []infrastructure.Variant{infrastructure.Standard, infrastructure.Coverage}
	states   = []string{empty, cold, changed, warm}
	kinds    = []string{string(infrastructure.ClusterFirst), hybrid, string(infrastructure.Overlapped), restored}
)

const (
	// empty is an empty build cache of Go's, and no image of a service.
	empty = "empty"
	// cold is packages of this project that were never compiled as they are, and no image of a
	// service.
	cold = "cold"
	// changed is one line of one service's main package that was never built before.
	changed, changedService = "changed", "gateway"
	// warm is services as they were built before.
	warm = "warm"
	// hybrid is infrastructure.Hybrid, which is called nothing there: runs have it.
	hybrid = "hybrid"
	// restored is the hybrid ordering on a parked cluster, in which the services of warm run.
	restored = "restored"
)

// Cell is one thing that is measured.
type Cell struct{ Variant, State, Ordering string }

// String is the cell as E2E_FOCUS selects it.
func (c Cell) String() string {
	variant := "plain"
	if c.Variant == string(infrastructure.Coverage) {
		variant = c.Variant
	}
	return variant + " " + c.State + " " + c.Ordering
}

// Sample is one measurement of a cell.
type Sample struct {
	Cell
	Seconds float64 // from the plan to the last component that is ready
	CPU     float64 // core seconds of the whole machine meanwhile
	Path    []Step  // what was waited for, in order
}

// Step is a phase on the critical path.
type Step struct {
	Name    string
	Seconds float64
}

// Results are what was measured of one commit on one machine.
type Results struct {
	Commit, Machine string
	Samples         []Sample
}

// of are a cell's samples in the order in which they were taken.
func (r *Results) of(cell Cell) []Sample {
	return slices.DeleteFunc(slices.Clone(r.Samples), func(s Sample) bool { return s.Cell != cell })
}

// cells are those that a pattern selects.
func cells(pattern string) ([]Cell, error) {
	matches, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("E2E_FOCUS: %w", err)
	}
	var some []Cell
	for _, variant := range variants {
		for _, state := range states {
			for _, ordering := range kinds {
				if cell := (Cell{string(variant), state, ordering}); matches.MatchString(cell.String()) {
					some = append(some, cell)
				}
			}
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("E2E_FOCUS=%s: matches nothing as %q", pattern, Cell{"", cold, hybrid})
	}
	return some, nil
}

// left are the cells to measure until each has so many samples, interleaved: what the
// machine does meanwhile meets all alike. Each round begins with another.
func (r *Results) left(some []Cell, rounds int) []Cell {
	var todo []Cell
	for round := range rounds {
		for i := range some {
			cell := some[(i+round)%len(some)]
			if len(r.of(cell)) <= round {
				todo = append(todo, cell)
			}
		}
	}
	return todo
}

// bench is one run of the measurement.
type bench struct {
	config   infrastructure.Config
	engine   string
	evidence string
	say      func(format string, args ...any)
	run      int64 // tells what is built apart from what any other run has built
}

// Run measures what E2E_FOCUS selects until everything has E2E_BENCH_ROUNDS samples, with
// those of earlier runs at the same commit. After each it writes orderings.md and
// orderings.svg to the evidence folder, and in the end the first to out.
func Run(ctx context.Context, config infrastructure.Config, evidence string, out, progress io.Writer) (err error) {
	some, err := cells(config.Suite.Focus)
	if err != nil {
		return err
	}
	b := &bench{config: config, evidence: evidence, run: time.Now().UnixNano(), say: func(format string, args ...any) {
		fmt.Fprintf(progress, format+"\n", args...)
	}}
	plan, err := infrastructure.NewPlan(".", infrastructure.Kubernaut(), config)
	if err != nil {
		return err
	}
	adapters, err := infrastructure.Look(ctx, plan)
	if err != nil {
		return err
	}
	b.engine = adapters.EngineName
	results, err := known(ctx, plan, b.engine)
	if err != nil {
		return err
	}
	todo := results.left(some, config.Rounds)
	defer func() { err = errors.Join(err, b.remove(ctx, todo)) }()
	usual, err := b.prepare(ctx, todo)
	if err != nil {
		return err
	}
	for i, cell := range todo {
		b.say("%s; %d to go, about %.0f min", cell, len(todo)-i, results.estimate(todo[i:], usual)/60)
		sample, err := b.measure(ctx, cell, fmt.Sprintf("%s-%d", cell, len(results.of(cell))+1))
		if err != nil {
			return fmt.Errorf("%s: %w", cell, err)
		}
		b.say("%s: %.1f s, %.1f core seconds", cell, sample.Seconds, sample.CPU)
		results.Samples = append(results.Samples, sample)
		if err := results.write(plan, evidence); err != nil {
			return err
		}
	}
	if err := results.write(plan, evidence); err != nil {
		return err
	}
	_, err = io.WriteString(out, results.markdown())
	return err
}

// estimate is how many seconds cells take: as before, else as others of the same state did,
// else as usual.
func (r *Results) estimate(todo []Cell, usual float64) (seconds float64) {
	for _, cell := range todo {
		var same, alike []float64
		for _, sample := range r.Samples {
			if sample.Cell == cell {
				same = append(same, sample.Seconds)
			}
			if sample.State == cell.State && (sample.Ordering == restored) == (cell.Ordering == restored) {
				alike = append(alike, sample.Seconds)
			}
		}
		seconds += cmp.Or(median(same), median(alike), usual)
	}
	return seconds
}

// file is where results stay until the checkout is cleaned.
func file(plan *infrastructure.Plan) string { return plan.BuildFolder("orderings.json") }

// known are the results that are there of this commit and machine.
func known(ctx context.Context, plan *infrastructure.Plan, engine string) (*Results, error) {
	commit, err := command.Output(ctx, command.Local{}, "git", "-C", plan.Root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
	if err != nil {
		return nil, err
	}
	on, err := machine(ctx, engine)
	if err != nil {
		return nil, err
	}
	var before Results
	data, err := os.ReadFile(file(plan))
	if err == nil {
		err = json.Unmarshal(data, &before)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", file(plan), err)
	}
	if before.Commit != commit || before.Machine != on {
		return &Results{Commit: commit, Machine: on}, nil
	}
	return &before, nil
}

func (r *Results) write(plan *infrastructure.Plan, evidence string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file(plan)), 0o755)
	}
	for name, text := range map[string]string{
		file(plan): string(data), filepath.Join(evidence, "orderings.md"): r.markdown(), filepath.Join(evidence, "orderings.svg"): r.picture(),
	} {
		err = errors.Join(err, os.WriteFile(name, []byte(text), 0o644))
	}
	return err
}
