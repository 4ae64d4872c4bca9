package infrastructure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// createCluster makes the cluster, or finds it made of the same things. A cluster that is
// half-made, stopped or made of something else is removed first: it is this checkout's
// own.
func (e *Environment) createCluster(ctx context.Context, p Phase) error {
	err := e.step(ctx, p, e.Timeouts.Cluster, func(ctx context.Context, step *timeline.Step) error {
		spec, err := e.clusterSpec()
		if err != nil {
			return err
		}
		identity, err := spec.Identity(e.adapters.EngineName)
		if err != nil {
			return err
		}
		// Mounted into the node, which does not start without it.
		if err := os.MkdirAll(spec.Archives, 0o755); err != nil {
			return err
		}
		done, err := e.found(ctx, identity, step.Status)
		var broken *cluster.Broken
		switch {
		case err == nil && done != "":
			step.Detail("%s: %s", e.ClusterName, done)
			return e.reuse(ctx)
		case err == nil:
			step.Cached("%s", e.ClusterName)
			return e.reuse(ctx)
		case errors.Is(err, errNone):
		case errors.As(err, &broken):
			step.Status("removing the cluster that is there: %s", broken.Reason)
		default:
			return err
		}
		if err := e.removeCluster(ctx); err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.resetCoverage(); err != nil {
				return err
			}
		}
		if e.adapters.Register != nil {
			e.adapters.Register()
		}
		// What this machine lacks shows up as something else, minutes later.
		var lacks error
		if e.adapters.Preflight != nil {
			lacks = e.adapters.Preflight(ctx)
		}
		if lacks != nil {
			e.Timeline.Say("this machine may be too small: %v", lacks)
		}
		made := spec
		made.Image = e.stocked(ctx, step, spec.Image)
		var loads sync.WaitGroup
		creating, created := context.WithCancel(ctx)
		err = e.adapters.Cluster.Create(ctx, made, cluster.Progress{
			Retried:  func(err error) { step.Status("trying once more: %v", err) },
			Prepared: func() { loads.Go(func() { e.preload(ctx, creating) }) },
		})
		created()
		loads.Wait()
		if err != nil {
			return errors.Join(err, lacks)
		}
		if err := e.adapters.Cluster.Ready(ctx); err != nil {
			return errors.Join(err, lacks)
		}
		nodes, err := e.adapters.Cluster.Nodes(ctx)
		if err != nil {
			return err
		}
		e.runs(nodes)
		e.setClean()
		step.Detail("%s", e.ClusterName)
		if broken != nil {
			step.Detail("%s, anew: %s", e.ClusterName, broken.Reason)
		}
		if err := e.state.Made(checkout.Record{
			Spec: identity, Engine: e.adapters.EngineName, Nodes: nodes, Made: time.Now(), By: e.Target,
		}); err != nil {
			return err
		}
		// What is new holds nothing that the manifests have no more: nothing need be looked for.
		sum, err := digestOf(e.objects())
		if err != nil {
			return err
		}
		return e.noteDeployed(everything, sum)
	})
	if err == nil && e.Variant == Coverage {
		e.followPods()
	}
	return err
}

// removeCluster removes the cluster from this engine, and from another that it was made
// with, and then what describes it.
func (e *Environment) removeCluster(ctx context.Context) error {
	if was := e.state.Engine(); was != "" && was != e.adapters.EngineName {
		// An engine that has been removed from the machine has taken its containers along.
		if err := e.adapters.Elsewhere(was).Delete(ctx); err != nil && !errors.Is(err, command.ErrNotFound) {
			return fmt.Errorf("cluster %s: it was made with %s, where it cannot be removed: %w", e.ClusterName, was, err)
		}
	}
	if err := e.adapters.Cluster.Delete(ctx); err != nil {
		return err
	}
	e.runs(nil)
	return errors.Join(os.RemoveAll(filepath.Join(e.coverageDir(), keptFolder)), e.state.Forget())
}

// reuse prepares a cluster that is used again: what its services have counted so far is of
// another run. It comes after all is back: a kubelet that starts is not sure to end what is
// deleted meanwhile.
func (e *Environment) reuse(ctx context.Context) error {
	if e.Variant != Coverage {
		return nil
	}
	if err := e.resetCoverage(); err != nil {
		return err
	}
	return e.adapters.End(ctx, e.state.Kubeconfig(), e.Namespace, e.workloads())
}

// clusterSpec is the cluster to make of the node image. One that was built from packages
// brings its own network.
func (e *Environment) clusterSpec() (cluster.Spec, error) {
	ref, err := e.Ref(e.Node)
	if err != nil {
		return cluster.Spec{}, err
	}
	e.mu.Lock()
	packaged := e.packaged[e.Node]
	e.mu.Unlock()
	spec := cluster.Spec{
		Image: ref, OwnCNI: packaged, CgroupV1: host.CgroupV1(os.DirFS("/")),
		Patches: filepath.Join(e.Root, "docker", e.Node, "patches"), Archives: e.archives(),
	}
	if e.Variant == Coverage {
		spec.Mounts = map[string]string{e.rawDir(): coverageMount}
	}
	for _, port := range e.NodePorts {
		spec.Ports = append(spec.Ports, cluster.Port{Number: port.NodePort, Protocol: port.Protocol})
	}
	slices.SortFunc(spec.Ports, func(a, b cluster.Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
	})
	return spec, nil
}

// errNone is that there is no cluster.
var errNone = errors.New("there is no cluster")

// found brings the cluster that is there to what it was made as, and says what that took.
// The error is errNone, a *cluster.Broken when it must be made anew, or that this could not
// be found out.
func (e *Environment) found(ctx context.Context, want cluster.Identity, status func(format string, args ...any)) (done string, err error) {
	was, recordErr := e.state.Record()
	if recordErr == nil && was.Engine != e.adapters.EngineName {
		return "", &cluster.Broken{Reason: "it is in " + was.Engine}
	}
	all, err := e.adapters.Cluster.All(ctx)
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return "", errNone
	case errors.Is(recordErr, fs.ErrNotExist):
		return "", &cluster.Broken{Reason: "it was not made to the end"}
	case recordErr != nil || was.Spec == nil:
		return "", &cluster.Broken{Reason: "its record is damaged"}
	}
	if reason := want.Differs(was.Spec); reason != "" {
		return "", &cluster.Broken{Reason: reason}
	}
	if age := time.Since(was.Made); age > certified {
		return "", &cluster.Broken{Reason: fmt.Sprintf("its certificates end after a year, and it was made %.0f days ago", age.Hours()/24)}
	}
	if was.Parked || was.Kept != nil && e.beginsClean() {
		return e.restoreFor(ctx, was, all, status)
	}
	return e.mend(ctx, was, all, false, status)
}

// certified is how long kubeadm's certificates hold, but for a day.
const certified = 364 * 24 * time.Hour

// mend brings the cluster's nodes back to what they were when it was made.
func (e *Environment) mend(ctx context.Context, was checkout.Record, all []string, ready bool, status func(format string, args ...any)) (done string, err error) {
	done, err = e.adapters.Cluster.Mend(ctx, all, cluster.Made{Nodes: was.Nodes, At: was.Made, Ready: ready}, status)
	if err == nil {
		e.runs(was.Nodes)
	}
	return done, err
}

// DeleteCluster removes the cluster; one that is not there is removed already. The
// evidence stays.
func (e *Environment) DeleteCluster(ctx context.Context) error {
	return e.Timeline.Step(ctx, "teardown", "cluster", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Delete, fmt.Errorf("not done after %s", e.Timeouts.Delete))
		defer cancel()
		all, err := e.adapters.Cluster.All(ctx)
		if err == nil {
			err = e.removeCluster(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w; is %s running? The cluster stays until it can be asked", err, e.adapters.EngineName)
		}
		if len(all) == 0 {
			step.Skipped("there is no cluster %s", e.ClusterName)
		} else {
			step.Detail("%s", e.ClusterName)
		}
		return nil
	})
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o644)
}
