package orderings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// plan is what a run of the cell would do, on a cluster that belongs to the benchmark: one
// for what is restored, which stays parked meanwhile, and one for all else.
func (b *bench) plan(cell Cell) (*infrastructure.Plan, error) {
	config := b.config
	config.Variant, config.Keep, config.Park = infrastructure.Variant(cell.Variant), infrastructure.KeepNever, infrastructure.ParkNever
	name := "-bench"
	switch cell.Ordering {
	case restored:
		config.Park, name = infrastructure.ParkAlways, "-bench-parked"
	case hybrid:
	default:
		config.Ordering = infrastructure.Ordering(cell.Ordering)
	}
	plan, err := infrastructure.NewPlan(".", infrastructure.Kubernaut(), config)
	if err == nil {
		plan.ClusterName += name
	}
	return plan, err
}

// overlay has go build see another line at the end of one file each of the packages that a
// state says are new, and returns what tells it so. The programs lie beside it, and those that
// do not change stay there.
func overlay(ctx context.Context, plan *infrastructure.Plan, state, line string) (string, error) {
	folder := plan.BuildFolder(state)
	if state != changed {
		if err := os.RemoveAll(folder); err != nil {
			return "", err
		}
	}
	list := []string{"go", "list", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}/{{index $.GoFiles 0}}{{end}}{{end}}"}
	if state == cold {
		list = append(list, "-deps")
	}
	for _, image := range plan.Images {
		if image.Package != "" && (state != changed || image.Name == changedService) {
			list = append(list, image.Package)
		}
	}
	files, err := command.Output(ctx, command.Local{}, list...)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for i, file := range strings.Fields(files) {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		replace[file] = filepath.Join(folder, fmt.Sprint(i), filepath.Base(file))
		if err := os.MkdirAll(filepath.Dir(replace[file]), 0o755); err != nil {
			return "", err
		}
		// Exported: what imports the package is compiled again, too.
		if err := os.WriteFile(replace[file], fmt.Appendf(text, "\nconst OrderingsLine = %q\n", line), 0o644); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	to := filepath.Join(folder, "overlay.json")
	return to, errors.Join(err, os.WriteFile(to, data, 0o644))
}

// uncached runs the go command with an empty build cache. Modules are there.
type uncached struct {
	command.Runner
	cache string
}

func (u uncached) Run(ctx context.Context, cmd command.Cmd) error {
	if cmd.Args[0] == "go" {
		cmd.Env = append(slices.Clone(cmd.Env), "GOCACHE="+u.cache)
	}
	return u.Runner.Run(ctx, cmd)
}

// emptyCache is the folder of Go's build cache in the empty state.
const emptyCache = "empty-cache"

// measure takes one sample of a cell. Its evidence is in a folder of the name.
func (b *bench) measure(ctx context.Context, cell Cell, name string) (sample Sample, err error) {
	extra := ""
	plan, err := b.plan(cell)
	if err == nil && cell.State != warm {
		extra, err = overlay(ctx, plan, cell.State, fmt.Sprint(b.run, name))
	}
	if err != nil {
		return sample, err
	}
	if cell.State == empty {
		cache := plan.BuildFolder(emptyCache)
		defer func() { err = errors.Join(err, os.RemoveAll(cache)) }()
		if err := os.RemoveAll(cache); err != nil {
			return sample, err
		}
	}
	busy, begun := usage(), time.Now()
	env, err := b.open(ctx, cell, name, func(plan *infrastructure.Plan) (err error) {
		plan.Overlay = extra
		// As of a run: what it needs is loaded while the cluster is made.
		plan.Goals, err = plan.Goal(infrastructure.DeployComponent)
		return err
	})
	if err != nil {
		return sample, err
	}
	err = concurrently(ctx, env, env.Goals)
	sample = Sample{cell, time.Since(begun).Seconds(), usage() - busy, path(env.Plan, env.Timeline.Document().Steps)}
	return sample, errors.Join(err, b.tidy(ctx, env, cell), env.Close())
}

// tidy removes what a sample has made: its cluster, or parks it as it was, and the images of
// services that nobody will want again.
func (b *bench) tidy(ctx context.Context, env *infrastructure.Environment, cell Cell) (err error) {
	ctx = context.WithoutCancel(ctx)
	if cell.Ordering == restored {
		err = env.ParkCluster(ctx)
	} else {
		err = env.DeleteCluster(ctx)
	}
	for _, image := range env.Images {
		if image.Package != "" && cell.State != warm && (cell.State != changed || image.Name == changedService) {
			err = errors.Join(err, env.Discard(ctx, image.Name))
		}
	}
	return err
}

// concurrently carries out phases with all that they need, each as soon as what comes before
// it is done.
func concurrently(ctx context.Context, env *infrastructure.Environment, goals []infrastructure.Phase) error {
	needed, err := env.Needed(goals...)
	if err != nil {
		return err
	}
	done := map[infrastructure.Phase]chan struct{}{}
	for _, phase := range needed {
		done[phase] = make(chan struct{})
	}
	group, running := errgroup.WithContext(ctx)
	for _, phase := range needed {
		group.Go(func() error {
			for _, before := range env.Before(phase) {
				select {
				case <-done[before]:
				case <-running.Done():
					return nil // another has failed
				}
			}
			err := env.Do(running, phase)
			if err == nil {
				close(done[phase])
			}
			return err
		})
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// path is what the end of a run had to wait for: backwards from the step that ended last, of
// those before each the one that ended last.
func path(plan *infrastructure.Plan, entries []timeline.Entry) (steps []Step) {
	ended := map[string]timeline.Entry{}
	var last infrastructure.Phase
	for _, entry := range entries {
		ended[entry.Title()] = entry
	}
	latest := func(phases []infrastructure.Phase) (last infrastructure.Phase) {
		for _, phase := range phases {
			if entry, ran := ended[phase.String()]; ran && !entry.End.Before(ended[last.String()].End) {
				last = phase
			}
		}
		return last
	}
	for last = latest(plan.Phases()); last.Kind != ""; last = latest(plan.Before(last)) {
		entry := ended[last.String()]
		steps = append(steps, Step{last.String(), entry.End.Sub(entry.Start).Seconds()})
	}
	slices.Reverse(steps)
	return steps
}

// prepare takes a sample of what each variant begins with and throws it away: programs,
// images and the parked cluster are there from then on, and files in memory. It returns how
// many seconds the longest took.
func (b *bench) prepare(ctx context.Context, todo []Cell) (usual float64, err error) {
	done := map[Cell]bool{}
	for _, cell := range todo {
		first := Cell{cell.Variant, warm, hybrid}
		if cell.Ordering == restored {
			first.Ordering = restored
		}
		if !done[first] {
			b.say("%s, which does not count", first)
			sample, err := b.measure(ctx, first, "first "+first.String())
			if err != nil {
				return 0, fmt.Errorf("%s: %w", first, err)
			}
			usual, done[first] = max(usual, sample.Seconds), true
		}
		if first.State = changed; cell.State == changed && !done[first] {
			if err := b.compile(ctx, cell); err != nil {
				return 0, err
			}
			done[first] = true
		}
	}
	return usual, nil
}

// compile makes the programs of a cell in which some will change.
func (b *bench) compile(ctx context.Context, cell Cell) error {
	env, err := b.open(ctx, cell, "compile "+cell.String(), func(plan *infrastructure.Plan) (err error) {
		plan.Overlay, err = overlay(ctx, plan, cell.State, "before")
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(env.Do(ctx, infrastructure.Phase{Kind: infrastructure.CompileServices}), env.Close())
}

// open opens an environment of the cell, whose plan differs by what change does to it.
func (b *bench) open(ctx context.Context, cell Cell, name string, change func(*infrastructure.Plan) error) (*infrastructure.Environment, error) {
	plan, err := b.plan(cell)
	if err == nil {
		err = change(plan)
	}
	if err != nil {
		return nil, err
	}
	plan.Evidence = filepath.Join(b.evidence, "orderings", strings.ReplaceAll(name, " ", "-"))
	adapters := infrastructure.RealAdapters(plan, b.engine)
	if cell.State == empty {
		adapters.Runner = uncached{adapters.Runner, plan.BuildFolder(emptyCache)}
	}
	return infrastructure.OpenWith(ctx, plan, infrastructure.Screen{Out: io.Discard}, adapters)
}

// remove removes the benchmark's clusters of the variants.
func (b *bench) remove(ctx context.Context, todo []Cell) (err error) {
	done := map[Cell]bool{}
	for _, cell := range todo {
		for _, ordering := range []string{hybrid, restored} {
			cell := Cell{cell.Variant, warm, ordering}
			if done[cell] {
				continue
			}
			done[cell] = true
			env, opening := b.open(context.WithoutCancel(ctx), cell, "remove", func(*infrastructure.Plan) error { return nil })
			if opening != nil {
				return errors.Join(err, opening)
			}
			err = errors.Join(err, env.DeleteCluster(context.WithoutCancel(ctx)), env.Close())
		}
	}
	return err
}

// usage is how many core seconds this machine was busy since it started.
func usage() float64 {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	stat, err := proc.Stat()
	if err != nil {
		return 0
	}
	cpu := stat.CPUTotal
	return cpu.User + cpu.Nice + cpu.System + cpu.IRQ + cpu.SoftIRQ
}
