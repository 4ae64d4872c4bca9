// Package targets is the part of the magefiles that every repository shares: it has Mage
// carry out the phases of a plan, each after those that come before it, and ends a run in
// order. A repository's magefiles give its targets their names, one line each.
//
//	var project = targets.Of(infrastructure.Kubernaut())
//
//	// Gateway tests the Gateway end to end on a real cluster.
//	func (E2e) Gateway(ctx context.Context) error { return project.EndToEnd(ctx, "gateway") }
package targets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/signals"
)

// Targets are the targets of a catalog.
type Targets struct {
	Catalog infrastructure.Catalog
	Root    string // of the checkout; empty means the current folder, where Mage runs targets
	// Variant is what is run; empty means the one that E2E_COVERAGE selects.
	Variant infrastructure.Variant
	// Keep is whether the cluster is kept; empty means what E2E_KEEP says.
	Keep infrastructure.KeepPolicy
	// Open opens an environment; nil means infrastructure.Open. A test gives its own.
	Open func(context.Context, *infrastructure.Plan, infrastructure.Screen) (*infrastructure.Environment, error)
}

// Of returns the targets of a catalog, in the variant that E2E_COVERAGE selects.
func Of(catalog infrastructure.Catalog) Targets { return Targets{Catalog: catalog} }

// In returns the targets of one variant, whatever E2E_COVERAGE says.
func (t Targets) In(variant infrastructure.Variant) Targets {
	t.Variant = variant
	return t
}

// Build builds images, or obtains them; without names all.
func (t Targets) Build(ctx context.Context, images ...string) error {
	return t.phases(ctx, infrastructure.BuildImage, images)
}

// Load loads images into the nodes; without names all that components run.
func (t Targets) Load(ctx context.Context, images ...string) error {
	return t.phases(ctx, infrastructure.LoadImage, images)
}

// Deploy deploys components, until they are ready.
func (t Targets) Deploy(ctx context.Context, components ...string) error {
	return t.phases(ctx, infrastructure.DeployComponent, components)
}

// phases runs the phases of one kind, all or by name, and leaves the cluster as it is.
func (t Targets) phases(ctx context.Context, kind infrastructure.Kind, names []string) error {
	return t.run(ctx, kind, names, nil, (*infrastructure.Environment).Diagnose)
}

// EndToEnd takes the checkout to a proven system: it runs suites one after the other, in
// the catalog's order, and before them everything that they need. Without names it runs
// all. At the end the cluster is kept or removed as E2E_KEEP says.
func (t Targets) EndToEnd(ctx context.Context, suites ...string) error {
	return t.run(ctx, infrastructure.RunSuite, suites, nil, (*infrastructure.Environment).Finish)
}

// Soak is EndToEnd of all suites, so many times on one cluster. At the end it prints what
// came of them.
func (t Targets) Soak(ctx context.Context, rounds int) error {
	if rounds < 1 {
		return fmt.Errorf("e2e:soak %d: takes a number of rounds, from 1", rounds)
	}
	return t.run(ctx, infrastructure.RunSuite, nil, func(env *infrastructure.Environment, suites []infrastructure.Phase) error {
		return env.Soak(ctx, rounds, suites)
	}, (*infrastructure.Environment).Finish)
}

// Watch deploys what a suite needs and runs it whenever something has changed, until it is
// interrupted. The cluster is taken, and left, as it is.
func (t Targets) Watch(ctx context.Context, suite string) error {
	t.Keep = infrastructure.KeepAlways
	return t.run(ctx, infrastructure.RunSuite, []string{strings.ToLower(suite)}, func(env *infrastructure.Environment, suites []infrastructure.Phase) error {
		return env.Watch(ctx, suites[0])
	}, (*infrastructure.Environment).Finish)
}

// Program runs a program of the catalog on a deployed environment, and ends as EndToEnd
// does.
func (t Targets) Program(ctx context.Context, name string) error {
	return t.run(ctx, infrastructure.RunProgram, []string{name}, nil, (*infrastructure.Environment).Finish)
}

// ProgramAlone runs a program of the catalog that needs no component, and leaves the cluster
// as it is.
func (t Targets) ProgramAlone(ctx context.Context, name string) error {
	return t.run(ctx, infrastructure.RunProgram, []string{name}, nil, (*infrastructure.Environment).Diagnose)
}

// run carries out the phases of one kind, by name or all, with what they need, and ends
// the run. What is built is built
// first, all at once; suites and programs run one after the other, because each has specs
// that want the cluster for themselves. Failed specs of one do not keep the next from
// running; anything else does, because then the environment does nothing more. Where instead is
// given, it does what is to be done with suites that are ready to run.
func (t Targets) run(ctx context.Context, kind infrastructure.Kind, names []string, instead func(*infrastructure.Environment, []infrastructure.Phase) error, end func(*infrastructure.Environment, context.Context, error) error) error {
	plan, err := t.plan(infrastructure.NewPlan)
	if err != nil {
		return err
	}
	if plan.Goals, err = plan.Goal(kind, names...); err != nil {
		return err
	}
	needed, err := plan.Needed(plan.Goals...)
	if err != nil {
		return err
	}
	open := t.Open
	if open == nil {
		open = infrastructure.Open
	}
	env, err := open(ctx, plan, shown())
	if err != nil {
		return err
	}
	var builds, others, last []any
	run := &run{env: env, serial: serial.Add(1)}
	for _, p := range needed {
		switch phase := (phase{run, p}); {
		case p.Builds():
			builds = append(builds, phase)
		case p.Kind == infrastructure.RunSuite || p.Kind == infrastructure.RunProgram:
			last = append(last, phase)
		default:
			others = append(others, phase)
		}
	}
	err = deps(ctx, builds...)
	if err == nil {
		err = deps(ctx, others...)
	}
	switch {
	case err != nil:
	case instead != nil:
		err = instead(env, plan.Goals)
	default:
		for _, phase := range last {
			err = errors.Join(err, deps(ctx, phase))
		}
	}
	return errors.Join(end(env, ctx, err), env.Close())
}

// run is one run of an environment. Mage remembers what it has done by name and id; the
// serial number makes those of two runs in one process two.
type run struct {
	env    *infrastructure.Environment
	serial int64
}

var serial atomic.Int64

// phase is a phase as a dependency of Mage's.
type phase struct {
	*run
	infrastructure.Phase
}

// Name is what Mage shows with -v.
func (p phase) Name() string { return p.String() }

// ID tells the runs apart.
func (p phase) ID() string { return fmt.Sprintf("%d/%s/%s", p.serial, p.Kind, p.Phase.Name) }

// Run carries the phase out after what comes before it.
func (p phase) Run(ctx context.Context) error {
	before := p.env.Before(p.Phase)
	dependencies := make([]any, len(before))
	for i := range before {
		dependencies[i] = phase{p.run, before[i]}
	}
	mg.CtxDeps(ctx, dependencies...)
	return p.env.Do(ctx, p.Phase)
}

// deps is mg.CtxDeps with an error instead of a panic, so that a target can end in
// order after a dependency failed. Mage flattens errors to text; the environment keeps
// them as they are.
func deps(ctx context.Context, fns ...any) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = errors.New(fmt.Sprint(cause))
		}
	}()
	mg.CtxDeps(ctx, fns...)
	return nil
}

// plan makes a plan, by NewPlan or Outline, of this process's environment. Every target
// comes by here before it starts anything.
func (t Targets) plan(how func(string, infrastructure.Catalog, infrastructure.Config) (*infrastructure.Plan, error)) (*infrastructure.Plan, error) {
	signals.AsInterrupt(func(line string) { fmt.Fprintln(os.Stderr, line) })
	config, err := infrastructure.ReadConfig(os.Environ())
	if err != nil {
		return nil, err
	}
	config.Variant, config.Keep = cmp.Or(t.Variant, config.Variant), cmp.Or(t.Keep, config.Keep)
	plan, err := how(cmp.Or(t.Root, "."), t.Catalog, config)
	if err != nil {
		return nil, err
	}
	plan.Target = strings.Join(os.Args[1:], " ")
	return plan, nil
}

// shown is where a target's progress and results go.
func shown() infrastructure.Screen {
	return infrastructure.Screen{Out: os.Stderr, Results: os.Stdout, Terminal: screen.Terminal(os.Stderr, os.Getenv), Color: screen.Color(os.Stderr, os.Getenv), Verbose: mg.Verbose()}
}
