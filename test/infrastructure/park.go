package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// A cluster is kept when it is first deployed, before anything works on it: its state is put
// aside. It is parked where it would be deleted, stopped with that state put back, and
// started for the next run, which then finds it as it was, with its ports and keys.

// parks tells whether states are kept and clusters parked.
func (p *Plan) parks() bool { return p.Park == ParkAlways || p.Park == ParkAuto && !p.CI }

// beginsClean tells whether the run wants a cluster that nothing has worked on. E2E_KEEP=always
// is for those who want it as they left it.
func (p *Plan) beginsClean() bool {
	return p.parks() && p.Keep != KeepAlways &&
		slices.ContainsFunc(p.Goals, func(goal Phase) bool { return goal.Kind == RunSuite || goal.Kind == RunProgram })
}

func (e *Environment) setClean() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clean = true
}

// keepClean keeps the state of a cluster that nothing has worked on, unless that was done and
// nothing was loaded since: what was would be loaded again for every run. A state that
// cannot be kept fails no run, which does not need it.
func (e *Environment) keepClean(ctx context.Context) error {
	e.mu.Lock()
	clean := e.clean
	e.clean = false
	e.mu.Unlock()
	if !clean || !e.parks() {
		return nil
	}
	record, err := e.state.Record()
	if err != nil {
		return err
	}
	loaded := slices.ContainsFunc(e.Timeline.Document().Steps, func(entry timeline.Entry) bool {
		return entry.Phase == string(LoadImage) && entry.Outcome == timeline.Done
	})
	if record.Kept != nil && !loaded {
		return nil
	}
	err = e.Timeline.Step(ctx, "cluster", "keep", func(ctx context.Context, step *timeline.Step) error {
		kept, err := e.keep(ctx, record)
		var broken *cluster.Broken
		switch {
		case err == nil:
			step.Detail("%s", megabytes(kept.Bytes))
		case ctx.Err() == nil && !errors.As(err, &broken):
			step.Skipped("%v", err)
			return nil
		}
		return err
	})
	if err != nil {
		e.fail(err)
	}
	return err
}

// keep puts the state of the cluster aside.
func (e *Environment) keep(ctx context.Context, record checkout.Record) (checkout.Kept, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Delete, fmt.Errorf("not done after %s", e.Timeouts.Delete))
	defer cancel()
	if len(record.Nodes) != 1 {
		return checkout.Kept{}, fmt.Errorf("cluster %s: has %d nodes; only the state of one can be kept", e.ClusterName, len(record.Nodes))
	}
	state, err := e.adapters.Cluster.Keep(ctx, record.Nodes[0])
	if err == nil && e.Variant == Coverage {
		err = e.keepCounters()
	}
	if err != nil {
		return checkout.Kept{}, err
	}
	kept := checkout.Kept{Sum: state.Sum, Bytes: state.Bytes, At: time.Now()}
	return kept, e.state.Keep(record, kept)
}

// restoreFor restores the cluster for a run, unless what it is founded on has changed since.
func (e *Environment) restoreFor(ctx context.Context, was checkout.Record, all []string, status func(format string, args ...any)) (string, error) {
	if was.Kept == nil {
		return "", &cluster.Broken{Reason: "its record is damaged"}
	}
	reason, err := e.outgrown(was.Kept)
	if err != nil {
		return "", err
	}
	if reason != "" {
		return "", &cluster.Broken{Reason: reason}
	}
	done, err := e.restore(ctx, was, all, status)
	if err == nil {
		e.setClean()
	}
	return done, err
}

// outgrown says why a state is of no use any more; empty if it is.
func (e *Environment) outgrown(kept *checkout.Kept) (string, error) {
	foundation, err := e.foundation()
	for _, part := range slices.Sorted(maps.Keys(foundation)) {
		if before, there := kept.Deployed[part]; there && before != foundation[part] {
			return fmt.Sprintf("%s is another than in the state that was kept", part), nil
		}
	}
	return "", err
}

// foundation is what a state that is kept must have been made of to be restored, by part:
// the components that run no service of this project, as far as their images are known, and
// the folders that decide about data. The services are rolled out on top.
func (e *Environment) foundation() (map[string]string, error) {
	e.mu.Lock()
	refs := maps.Clone(e.refs)
	e.mu.Unlock()
	parts := map[string]string{}
	for _, component := range e.Components {
		if component.Data != "" {
			sum, err := e.dataOf(component.Data)
			if err != nil {
				return nil, err
			}
			parts[component.Data] = sum
		}
		if slices.ContainsFunc(apply.Images(e.Objects[component.Name]), func(name string) bool {
			spec, err := e.image(name)
			return err != nil || spec.Package != "" || refs[name] == ""
		}) {
			continue
		}
		objs, err := apply.WithImages(e.Objects[component.Name], refs)
		if err != nil {
			return nil, err
		}
		if parts[component.Name], err = digestOf(objs); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// dataOf identifies what is in a folder of the checkout.
func (p *Plan) dataOf(folder string) (string, error) {
	return fingerprint.New().Dir(os.DirFS(filepath.Join(p.Root, folder)), ".", nil).Sum()
}

// restore puts the state back that was kept of the cluster and starts it, ready. An end in
// the middle leaves a cluster that is restored again. The error is a *cluster.Broken when
// the cluster must be made anew.
func (e *Environment) restore(ctx context.Context, was checkout.Record, all []string, status func(format string, args ...any)) (string, error) {
	if err := e.state.Rewind(was); err != nil {
		return "", err
	}
	status("restoring its state of %s", was.Kept.At.Local().Format(time.DateTime))
	failed := func(err error) error {
		if err != nil && ctx.Err() == nil {
			return &cluster.Broken{Reason: fmt.Sprintf("it cannot be restored: %v", err)}
		}
		return err
	}
	check, err := e.adapters.Cluster.Restore(ctx, was.Nodes[0], stateOf(was.Kept), cluster.Parked{Started: was.Filled})
	if err != nil {
		return "", failed(err)
	}
	var done string
	both, starting := errgroup.WithContext(ctx)
	both.Go(func() error { return failed(check(starting)) })
	both.Go(func() (err error) { done, err = e.mend(starting, was, all, true, status); return err })
	if err := both.Wait(); err != nil {
		return "", err
	}
	return fmt.Sprintf("restored as it was %s; %s", was.Kept.At.Local().Format(time.DateTime), done), e.state.Restored(was)
}

// stateOf is a state as the record has it.
func stateOf(kept *checkout.Kept) cluster.State {
	return cluster.State{Sum: kept.Sum, Bytes: kept.Bytes}
}

// ResetCluster restores the state that was kept of the cluster.
func (e *Environment) ResetCluster(ctx context.Context) error {
	return e.Timeline.Step(ctx, "cluster", "reset", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Cluster, fmt.Errorf("not done after %s", e.Timeouts.Cluster))
		defer cancel()
		record, err := e.state.Record()
		if err == nil && record.Kept == nil || errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cluster %s: no state of it is kept; an end-to-end run that makes the cluster keeps one, unless E2E_PARK is never", e.ClusterName)
		}
		if err != nil {
			return err
		}
		all, err := e.adapters.Cluster.All(ctx)
		if err != nil {
			return err
		}
		done, err := e.restore(ctx, record, all, step.Status)
		if err != nil {
			return fmt.Errorf("cluster %s: %w; the next run makes it anew", e.ClusterName, err)
		}
		step.Detail("%s: %s", e.ClusterName, done)
		return nil
	})
}

// ParkCluster stops the cluster and puts back the state that was kept of it, which the next
// run begins from; where none was, that is what the cluster is now.
func (e *Environment) ParkCluster(ctx context.Context) error {
	return e.Timeline.Step(ctx, "teardown", "cluster", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Delete, fmt.Errorf("not done after %s", e.Timeouts.Delete))
		defer cancel()
		record, err := e.state.Record()
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cluster %s: not there, or not made to the end", e.ClusterName)
		}
		if err == nil && record.Kept == nil {
			if _, err = e.keep(ctx, record); err == nil {
				record, err = e.state.Record()
			}
		}
		if err == nil {
			err = e.state.Rewind(record)
		}
		var parked cluster.Parked
		if err == nil {
			parked, err = e.adapters.Cluster.Park(ctx, record.Nodes[0], stateOf(record.Kept))
		}
		if err == nil {
			err = e.state.Park(record, parked.Started)
		}
		var broken *cluster.Broken
		if errors.As(err, &broken) {
			return fmt.Errorf("cluster %s: %w; the next run makes it anew", e.ClusterName, err)
		}
		if err != nil {
			return err
		}
		e.runs(nil)
		step.Detail("%s is parked, %s on %s's disk; remove it: %s", e.ClusterName, megabytes(parked.Bytes), e.adapters.EngineName, e.command("cluster:delete"))
		return nil
	})
}

// putAway parks the cluster, or removes it. A teardown that fails never turns a green run
// red: the next run, or cluster:delete, removes what is left.
func (e *Environment) putAway(ctx context.Context) {
	if record, err := e.state.Record(); err == nil && record.Kept != nil && e.parks() {
		err := e.ParkCluster(ctx)
		if err == nil {
			return
		}
		e.Timeline.Say("not parked: %v", err)
	}
	if err := e.DeleteCluster(ctx); err != nil {
		e.Timeline.Say("%v; run: %s", err, e.command("cluster:delete"))
	}
}

// megabytes is a size for reading.
func megabytes(bytes int64) string { return fmt.Sprintf("%d MB", bytes/1_000_000) }
