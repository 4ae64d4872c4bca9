package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/history"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

// history is where the results of suites are remembered.
func (p *Plan) history() (history.Store, error) {
	if p.History == "" {
		dir, err := checkout.Cache("history")
		return history.Store{Dir: dir}, err
	}
	if filepath.IsAbs(p.History) {
		return history.Store{Dir: p.History}, nil
	}
	return history.Store{Dir: filepath.Join(p.Root, p.History)}, nil
}

// remember keeps what came of a suite whose report is in file, and leaves beside that how
// often those that failed did so before. No run fails for want of it. What a mutant does is no
// flake and kept nowhere.
func (e *Environment) remember(ctx context.Context, ran report.Suite, procs int, file string) {
	if e.Overlay != "" {
		return
	}
	content, err := e.content(ran.Name)
	run := history.Run{Variant: string(e.Variant), Commit: e.commit(ctx), Content: content, Procs: procs}.Add(ran)
	e.mu.Lock()
	e.ran = append(e.ran, run)
	e.mu.Unlock()
	if e.adapters.History == nil {
		return
	}
	store, storeErr := e.adapters.History()
	if err = errors.Join(err, storeErr); err == nil {
		var before []history.Run
		if ran.Failed > 0 {
			before, err = store.Runs(content)
		}
		err = errors.Join(err, ran.Recall(file, history.Past(before, run)), store.Add(run))
	}
	if err != nil {
		e.Timeline.Say("memory of flakes: %v", err)
	}
}

// content identifies a suite and what was deployed for it.
func (e *Environment) content(suite string) (string, error) {
	needed, err := e.Needed(Phase{RunSuite, suite})
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	inputs := fingerprint.New().Text("variant", string(e.Variant)).Text("engine", e.adapters.EngineName).Text("node", e.refs[e.Node])
	e.mu.Unlock()
	deployed := e.state.Deployed()
	for _, phase := range needed {
		if phase.Kind == DeployComponent {
			inputs.Text(phase.Name, deployed[phase.Name])
		}
	}
	program := e.suiteBinary(suite)
	return inputs.File(os.DirFS(filepath.Dir(program)), filepath.Base(program)).Sum()
}

// Flakes writes to out which specs failed and passed on the same content, of all runs that are
// remembered; what cannot be read of them, to problems.
func Flakes(plan *Plan, out, problems io.Writer) error {
	store, err := plan.history()
	if err != nil {
		return err
	}
	runs, err := store.Runs("")
	if err != nil {
		fmt.Fprintln(problems, err)
	}
	if len(runs) == 0 {
		return fmt.Errorf("%s: no run of a suite is remembered yet; run: %s", store.Dir, plan.command("e2e:all"))
	}
	return history.Print(out, runs, false)
}
