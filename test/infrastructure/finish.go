package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/gather"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Finish ends an end-to-end run whose outcome is err: on a failure it gathers
// diagnostics while everything is still there, then it keeps or deletes the
// cluster as E2E_KEEP says, and tells where the evidence is. It returns the
// failure that came first, complete in its text. ctx may be canceled already: what
// is done here has its own, bounded time.
func (e *Environment) Finish(ctx context.Context, err error) error {
	err = e.diagnose(ctx, err)
	if e.Variant == Coverage && ctx.Err() == nil && e.suiteRan() {
		// After the diagnostics, because it stops the pods.
		err = errors.Join(err, e.CollectCoverage(ctx))
	}
	// An interrupted run has five seconds in all: what tells of it comes first.
	interrupted := ctx.Err() != nil
	if interrupted {
		e.tell(ctx, err)
	} else {
		err = errors.Join(err, e.withinBudget())
	}
	keep := e.Keep == KeepAlways || e.Keep == KeepFailure && err != nil
	fresh := context.WithoutCancel(ctx)
	switch all, listErr := e.present(fresh); {
	case listErr != nil:
		err = errors.Join(err, listErr)
	case len(all) == 0:
	case keep:
		e.Timeline.Say("cluster %s is kept; KUBECONFIG=%s; remove it: %s", e.ClusterName, e.relative(e.state.Kubeconfig()), e.command("cluster:delete"))
	default:
		e.putAway(fresh)
	}
	if !interrupted {
		e.tell(ctx, err)
	}
	doc := e.Timeline.Document()
	e.Timeline.Say("set-up %.1fs, suite %.1fs, total %.1fs; evidence in %s, see %s", doc.SetupSeconds, doc.SuiteSeconds, doc.TotalSeconds, e.relative(e.Evidence), report.PageFile)
	if err != nil {
		return fmt.Errorf("%w\nlook in %s", err, e.evidence())
	}
	return nil
}

// Diagnose ends a run of single phases whose outcome is err: on a failure it gathers
// diagnostics. It tells of the run as Finish does and leaves the cluster as it is.
func (e *Environment) Diagnose(ctx context.Context, err error) error {
	err = e.diagnose(ctx, err)
	e.tell(ctx, err)
	if err != nil {
		return fmt.Errorf("%w\nlook in %s", err, e.evidence())
	}
	return nil
}

// diagnose returns the first failure, after gathering what a cluster can tell.
func (e *Environment) diagnose(ctx context.Context, err error) error {
	err = e.outcome(err)
	e.unwatch(ctx)
	// An interrupted run has five seconds in all, and whoever interrupted it knows why.
	if err == nil || ctx.Err() != nil {
		return err
	}
	fresh := context.WithoutCancel(ctx)
	all, listErr := e.present(fresh)
	if listErr != nil || len(all) == 0 {
		return err
	}
	cause := err
	gatherErr := e.Timeline.Step(fresh, "gather", "diagnostics", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Gather, fmt.Errorf("not done after %s", e.Timeouts.Gather))
		defer cancel()
		dir := filepath.Join(e.Evidence, "gather")
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		step.Detail("%s", e.relative(dir))
		return e.gather(ctx, dir, all, cause)
	})
	if gatherErr != nil {
		e.Timeline.Say("%v", gatherErr)
	}
	return err
}

// answerTimeout bounds a question to the engine that is asked after the phases: one that
// hangs must not keep the run from its end.
const answerTimeout = 30 * time.Second

// present returns the containers of the cluster, running or not.
func (e *Environment) present(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%s: no answer within %s", e.adapters.EngineName, answerTimeout))
	defer cancel()
	return e.adapters.Cluster.All(ctx)
}

// evidence is where to look after a failure: the summary first, where there is one.
func (e *Environment) evidence() string {
	logs := e.relative(filepath.Join(e.Evidence, "log"))
	for _, entry := range e.Timeline.Document().Steps {
		if entry.Phase == "gather" {
			return e.relative(filepath.Join(e.Evidence, "gather", gather.SummaryFile)) + " and " + logs
		}
	}
	return logs
}

func (e *Environment) suiteRan() bool {
	return slices.ContainsFunc(e.Timeline.Document().Steps, func(entry timeline.Entry) bool { return entry.Phase == "suite" })
}

// command is a target as the user would call it for this variant.
func (p *Plan) command(target string) string {
	return report.Command(p.Variant == Coverage, target)
}
