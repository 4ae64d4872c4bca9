package infrastructure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		why, err := e.outdated(ctx, spec)
		if err != nil {
			return err
		}
		if why == "" {
			step.Cached("%s", e.ClusterName)
			if e.Variant == Coverage {
				if _, err := e.stopPods(ctx); err != nil {
					return err
				}
				return e.resetCoverage()
			}
			return nil
		}
		if why != none {
			step.Status("removing the cluster that is there: %s", why)
		}
		if err := e.removeCluster(ctx); err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.resetCoverage(); err != nil {
				return err
			}
		}
		e.state.Register(e.adapters.EngineName, time.Now())
		if err := e.adapters.Cluster.Create(ctx, spec, func(err error) { step.Status("trying once more: %v", err) }); err != nil {
			return err
		}
		if err := e.adapters.Cluster.Ready(ctx); err != nil {
			return err
		}
		nodes, err := e.adapters.Cluster.Nodes(ctx)
		if err != nil {
			return err
		}
		step.Detail("%s", e.ClusterName)
		return e.state.Made(checkout.Record{
			Spec: identity(spec), Engine: e.adapters.EngineName, Nodes: nodes, Made: time.Now(), By: e.Target,
		})
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
	return e.state.Forget()
}

// identity is what a cluster was made of, by subject.
func identity(spec cluster.Spec) map[string]string {
	return map[string]string{"image": spec.Image, "ports": fmt.Sprint(spec.Ports)}
}

func (e *Environment) clusterSpec() (cluster.Spec, error) {
	ref, err := e.Ref(e.Node)
	if err != nil {
		return cluster.Spec{}, err
	}
	e.mu.Lock()
	packaged := e.packaged[e.Node]
	e.mu.Unlock()
	return e.Plan.clusterSpec(ref, packaged), nil
}

// clusterSpec is the cluster to make of a node image. One that was built from packages
// brings its own network.
func (p *Plan) clusterSpec(image string, packaged bool) cluster.Spec {
	spec := cluster.Spec{
		Image: image, OwnCNI: packaged, CgroupV1: host.CgroupV1(os.DirFS("/")),
		Patches: filepath.Join(p.Root, "docker", p.Node, "patches"),
	}
	if p.Variant == Coverage {
		spec.Mounts = map[string]string{p.rawDir(): coverageMount}
	}
	for _, port := range p.NodePorts {
		spec.Ports = append(spec.Ports, port.NodePort)
	}
	slices.Sort(spec.Ports)
	return spec
}

// none is why a cluster is made that is not there.
const none = "none"

// outdated says why the cluster cannot be used as it is: none if there is none, empty if
// it can.
func (e *Environment) outdated(ctx context.Context, spec cluster.Spec) (string, error) {
	was, err := e.state.Record()
	switch {
	case err == nil && was.Engine != e.adapters.EngineName:
		return "it is in " + was.Engine, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "its record is damaged", nil
	}
	all, listErr := e.adapters.Cluster.All(ctx)
	switch {
	case listErr != nil:
		return "", listErr
	case len(all) == 0:
		return none, nil
	case err != nil:
		return "it was not made to the end", nil
	}
	running, err := e.adapters.Cluster.Nodes(ctx)
	if err != nil {
		return "", err
	}
	now := identity(spec)
	switch {
	case was.Spec["image"] != now["image"]:
		return "its node image is another: " + was.Spec["image"], nil
	case was.Spec["ports"] != now["ports"]:
		return "its node ports are others", nil
	case !slices.Equal(was.Nodes, running):
		return "its nodes do not run: " + strings.Join(was.Nodes, ", "), nil
	}
	if _, err := os.Stat(e.state.Kubeconfig()); err != nil {
		return "its kubeconfig is gone", nil
	}
	return "", nil
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
