package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// tell tells of a run that ended with outcome: by the page and, on GitHub, in the summary of
// the job and as annotations.
func (e *Environment) tell(ctx context.Context, outcome error) {
	run := e.page(ctx, outcome)
	if run == nil { // it ended before its first step, or what it left cannot be read
		run = &report.Run{Document: e.Timeline.Document()}
	}
	var err error
	if e.StepSummary != "" {
		err = appendFile(e.StepSummary, run.Markdown())
	}
	if e.Annotate {
		_, writing := io.WriteString(e.results, run.Annotations())
		err = errors.Join(err, writing)
	}
	if err != nil {
		e.Timeline.Say("summary: %v", err)
	}
}

// page notes how the run ended and writes its page, with what belongs to it, in the folder
// of the evidence. It returns the run as its evidence tells of it; nil if it left none.
func (e *Environment) page(ctx context.Context, outcome error) *report.Run {
	result, failure := timeline.Passed, ""
	if outcome != nil {
		result, failure = timeline.Broken, outcome.Error()
	}
	if ctx.Err() != nil {
		result = timeline.Interrupted
	}
	err := e.Timeline.End(result, failure, e.facts(context.WithoutCancel(ctx)))
	if e.Evidence == "" {
		return nil
	}
	var run *report.Run
	if err == nil {
		run, err = report.Read(e.Evidence)
	}
	if err == nil {
		err = run.Write()
	}
	if err != nil {
		e.Timeline.Say("page: %v", err)
	}
	return run
}

// withinBudget fails when a part of the run took longer than E2E_BUDGET allows.
func (e *Environment) withinBudget() error {
	if len(e.Budgets) == 0 || e.Evidence == "" {
		return nil
	}
	run, err := report.Read(e.Evidence)
	if err != nil {
		return err
	}
	return run.Over(e.Budgets)
}

// factTimeout bounds asking for the commit: git may have a large index to look at.
const factTimeout = 2 * time.Second

// facts are what took part in the run.
func (e *Environment) facts(ctx context.Context) map[string]string {
	facts := map[string]string{
		"machine": fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), "go": runtime.Version(),
		"engine": e.adapters.EngineName, "kind": e.KindVersion, "kubernetes": e.Kubernetes, "selected": e.Config.Suite.String(), "job": e.Job,
	}
	facts["commit"] = e.commit(ctx)
	for name, fact := range facts {
		if fact == "" {
			delete(facts, name)
		}
	}
	return facts
}

// commit is the checkout's, -dirty if it has changed since; empty without git.
func (e *Environment) commit(ctx context.Context) string {
	if e.adapters.Runner == nil {
		return ""
	}
	ctx, cancel := context.WithTimeoutCause(ctx, factTimeout, fmt.Errorf("git: no answer within %s", factTimeout))
	defer cancel()
	commit, _ := command.Output(ctx, e.adapters.Runner, "git", "-C", e.Root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
	return commit
}

func appendFile(path, text string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// Report makes the page of the newest run again, from the evidence alone, writes its path
// to out, and opens it if there is something that does.
func Report(ctx context.Context, plan *Plan, out io.Writer, opener string) error {
	dir, err := filepath.EvalSymlinks(plan.cluster().Last())
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: there is no run yet; run: %s", plan.relative(plan.cluster().Last()), plan.command("e2e:all"))
	}
	if err != nil {
		return err
	}
	run, err := report.Read(dir)
	if err != nil {
		return err
	}
	if err := run.Write(); err != nil {
		return err
	}
	page := filepath.Join(dir, report.PageFile)
	if _, err := fmt.Fprintln(out, page); err != nil || opener == "" {
		return err
	}
	return command.Local{}.Run(ctx, command.Cmd{Args: []string{opener, page}})
}

// allowed refuses a budget for what the plan does not have.
func (p *Plan) allowed(budgets report.Budgets) error {
	known := []string{report.Setup, report.Total}
	for _, phase := range p.graph.phases {
		known = append(known, strings.TrimPrefix(phase.String(), string(RunSuite)+"/"))
	}
	return budgets.Known(known)
}
