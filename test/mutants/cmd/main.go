// Command cmd tries the mutants that E2E_MUTANTS matches on the environment that
// E2E_TARGET names, whose suites have been compiled, and keeps its evidence below the
// folder that is its argument. The target test:mutants runs it, and holds the cluster's
// lock.
package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/mutants"
)

func main() { target.Program(run) }

func run(ctx context.Context, t *target.Target, evidence string) error {
	config, err := infrastructure.ReadConfig(os.Environ())
	if err != nil {
		return err
	}
	config.Variant = infrastructure.Variant(t.Variant)
	plan, err := infrastructure.NewPlan(".", infrastructure.Kubernaut(), config)
	if err != nil {
		return err
	}
	plan.Evidence = filepath.Join(evidence, "mutants")
	env, err := infrastructure.OpenWith(ctx, plan, infrastructure.Screen{Out: os.Stderr}, infrastructure.RealAdapters(plan, t.Engine))
	if err != nil {
		return err
	}
	// They are there: this finds out what they are called.
	for _, phase := range plan.Phases() {
		if phase.Kind == infrastructure.CompileServices || phase.Kind == infrastructure.BuildImage {
			if err := env.Do(ctx, phase); err != nil {
				return errors.Join(err, env.Close())
			}
		}
	}
	return errors.Join(mutants.Run(ctx, env, t, os.Stdout), env.Close())
}
