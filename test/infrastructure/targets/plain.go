package targets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// What follows needs no manifest, and so works while one is broken.

// CreateCluster makes the cluster with its base component.
func (t Targets) CreateCluster(ctx context.Context) error {
	if t.Catalog.Base == "" {
		return t.phases(ctx, infrastructure.CreateCluster, nil)
	}
	return t.Deploy(ctx, t.Catalog.Base)
}

// DeleteCluster removes the cluster, parked or not; the evidence stays.
func (t Targets) DeleteCluster(ctx context.Context) error {
	return t.reopened(ctx, (*infrastructure.Environment).DeleteCluster)
}

// ParkCluster stops the cluster and resets it to the state that was kept of it, else to what
// it is now. The next run begins from there.
func (t Targets) ParkCluster(ctx context.Context) error {
	return t.reopened(ctx, (*infrastructure.Environment).ParkCluster)
}

// ResetCluster restores the state that was kept of the cluster.
func (t Targets) ResetCluster(ctx context.Context) error {
	return t.reopened(ctx, func(env *infrastructure.Environment, ctx context.Context) error {
		return env.Diagnose(ctx, env.ResetCluster(ctx))
	})
}

func (t Targets) reopened(ctx context.Context, do func(*infrastructure.Environment, context.Context) error) error {
	plan, err := t.plan(infrastructure.Outline)
	if err != nil {
		return err
	}
	env, err := infrastructure.Reopen(ctx, plan, shown())
	if err != nil {
		return err
	}
	return errors.Join(do(env, ctx), env.Close())
}

// Plan prints what a run of all suites would do now, phase by phase, and why.
func (t Targets) Plan(ctx context.Context) error {
	plan, err := t.plan(infrastructure.NewPlan)
	if err != nil {
		return err
	}
	if plan.Goals, err = plan.Goal(infrastructure.RunSuite); err != nil {
		return err
	}
	adapters, err := infrastructure.Look(ctx, plan)
	if err != nil {
		return err
	}
	forecasts, err := infrastructure.Explain(ctx, plan, adapters)
	if err != nil {
		return err
	}
	return infrastructure.Print(plan, forecasts, os.Stdout, screen.Color(os.Stdout, os.Getenv))
}

// Status prints what of the environment is there.
func (t Targets) Status(ctx context.Context) error {
	plan, err := t.plan(infrastructure.Outline)
	if err != nil {
		return err
	}
	adapters, err := infrastructure.Look(ctx, plan)
	if err != nil {
		return err
	}
	return infrastructure.Status(ctx, plan, adapters, os.Stdout)
}

// Report makes the page of the newest run again, prints its path and opens it where there is
// a screen.
func (t Targets) Report(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error {
		return infrastructure.Report(ctx, plan, os.Stdout, opener(os.Getenv))
	})
}

// Flakes prints which specs failed and passed on the same content.
func (t Targets) Flakes(context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error { return infrastructure.Flakes(plan, os.Stdout, os.Stderr) })
}

// opener is the program that opens a page on this desktop; empty if there is none.
func opener(getenv func(string) string) string {
	switch {
	case runtime.GOOS == "darwin":
		return "open"
	case getenv("DISPLAY") != "" || getenv("WAYLAND_DISPLAY") != "":
		return "xdg-open"
	}
	return ""
}

// CollectCoverage makes the coverage report once more, of what is there.
func (t Targets) CollectCoverage(ctx context.Context) error {
	plan, err := t.In(infrastructure.Coverage).plan(infrastructure.NewPlan)
	if err != nil {
		return err
	}
	env, err := infrastructure.Reopen(ctx, plan, shown())
	if err != nil {
		return err
	}
	return errors.Join(env.CollectCoverage(ctx), env.Close())
}

// Clean removes this checkout's clusters, its evidence and what it built; with
// E2E_CLEAN=all also what checkouts share.
func (t Targets) Clean(ctx context.Context) error {
	var plan *infrastructure.Plan
	for _, variant := range []infrastructure.Variant{infrastructure.Coverage, infrastructure.Standard} {
		if err := t.In(variant).DeleteCluster(ctx); err != nil {
			return err
		}
		var err error
		if plan, err = t.In(variant).plan(infrastructure.Outline); err != nil {
			return err
		}
	}
	adapters, err := infrastructure.Look(ctx, plan)
	if err != nil {
		return err
	}
	return infrastructure.Clean(ctx, plan, adapters, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
}

// Doctor shows what this machine has and lacks.
func (t Targets) Doctor(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error {
		return infrastructure.Doctor(ctx, plan, os.Stdout, screen.Color(os.Stdout, os.Getenv))
	})
}

// Setup installs what is missing on this machine, where it may.
func (t Targets) Setup(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error { return infrastructure.Setup(ctx, plan, os.Stderr) })
}

// Lint checks the code and that generated files are current.
func (t Targets) Lint(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error { return infrastructure.Lint(ctx, plan, os.Stdout, os.Stderr) })
}

// Generate makes the generated files anew.
func (t Targets) Generate(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error { return infrastructure.Generate(ctx, plan, os.Stderr) })
}

// UnitTests runs every test that needs nothing but Go.
func (t Targets) UnitTests(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error {
		return infrastructure.UnitTests(ctx, plan, os.Stdout, os.Stderr)
	})
}

// IntegrationTests runs the tests against real servers.
func (t Targets) IntegrationTests(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error {
		return infrastructure.IntegrationTests(ctx, plan, os.Stdout, os.Stderr)
	})
}

// BrowserTests look at the page of a run in a browser.
func (t Targets) BrowserTests(ctx context.Context) error {
	return t.outlined(func(plan *infrastructure.Plan) error {
		return infrastructure.BrowserTests(ctx, plan, os.Stdout, os.Stderr)
	})
}

func (t Targets) outlined(do func(*infrastructure.Plan) error) error {
	plan, err := t.plan(infrastructure.Outline)
	if err != nil {
		return err
	}
	return do(plan)
}
