package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"kubernaut.ai/e2e/test/infrastructure/history"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Soak runs suites so many times on the cluster as it is, in another
// order each time, and then writes what came of them to the results. Failed specs are counted
// and do not end it; anything else does, and so does ctx. It fails if any round did.
func (e *Environment) Soak(ctx context.Context, rounds int, suites []Phase) (err error) {
	if e.Load {
		defer burn(ctx)()
	}
	var runs []history.Run
	done, red := 0, 0
	for done < rounds && ctx.Err() == nil && err == nil {
		roundErr := e.Timeline.Step(ctx, "soak", fmt.Sprintf("%03d", done+1), func(ctx context.Context, step *timeline.Step) error {
			ran, err := e.round(ctx, step, done, suites)
			runs = append(runs, ran...)
			return err
		})
		if ctx.Err() != nil {
			break
		}
		done++
		if roundErr != nil {
			red++
		}
		var specs *SuiteError
		if roundErr != nil && !errors.As(roundErr, &specs) {
			err = roundErr
		}
	}
	if done > 0 {
		fmt.Fprintf(e.results, "%d rounds, %d red: %s of rounds\n\n", done, red, history.Rate(red, done))
		err = errors.Join(err, history.Print(e.results, runs, true))
	}
	if ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	if red > 0 {
		err = errors.Join(fmt.Errorf("soak: %d of %d rounds failed", red, done), err)
	}
	return err
}

// round runs the suites once, with evidence of their own, of which only what is small is left
// when they pass.
func (e *Environment) round(ctx context.Context, step *timeline.Step, done int, suites []Phase) ([]history.Run, error) {
	env, err := e.Variation(filepath.Join(e.Evidence, "soak", fmt.Sprintf("%03d", done+1)), func(plan *Plan) {
		if plan.Config.Suite.Seed != 0 {
			plan.Config.Suite.Seed += int64(done)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, suite := range suites {
		if ctx.Err() != nil {
			break
		}
		step.Status("%s", suite.Name)
		err = errors.Join(err, env.Do(ctx, suite))
	}
	if err = env.Diagnose(ctx, err); err == nil {
		for _, name := range []string{"log", "junit", report.PageFile, report.TraceFile} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(env.Evidence, name)))
		}
	}
	doc := env.Timeline.Document()
	step.Detail("%.1f s in suites", doc.SuiteSeconds)
	return env.ran, err
}

// burn keeps all cores busy until it is stopped, as another build on the machine would.
func burn(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var busy sync.WaitGroup
	for range runtime.NumCPU() {
		busy.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	return func() {
		cancel()
		busy.Wait()
	}
}
