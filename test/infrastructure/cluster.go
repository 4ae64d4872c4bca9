package infrastructure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// made is what a cluster was made of, kept beside the evidence. It is written when
// a creation has come to its end, so a cluster without it is a half-made one.
type made struct {
	Identity cluster.Identity `json:"identity"`
	Nodes    []string         `json:"nodes"`
}

func (e *Environment) madeFile() string { return filepath.Join(e.Dir, "cluster.json") }

// CreateCluster makes the cluster, or finds it made of the same image and ports,
// and applies the catalog's first component: namespace and custom resource
// definitions. A cluster that is half-made, stopped or made of something else is
// removed first: it is this checkout's own.
func (e *Environment) CreateCluster(ctx context.Context) error {
	err := e.step(ctx, "cluster", "create", e.Timeouts.Cluster, func(ctx context.Context, step *timeline.Step) error {
		spec, err := e.clusterSpec()
		if err != nil {
			return err
		}
		identity, err := spec.Identity(e.EngineName)
		if err != nil {
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
		if err := e.Cluster.Delete(ctx); err != nil {
			return err
		}
		if err := os.Remove(e.madeFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if e.Variant == Coverage {
			if err := e.resetCoverage(); err != nil {
				return err
			}
		}
		if err := e.Cluster.Create(ctx, spec, func(err error) { step.Status("trying once more: %v", err) }); err != nil {
			return err
		}
		if err := e.Cluster.Ready(ctx); err != nil {
			return err
		}
		nodes, err := e.Cluster.Nodes(ctx)
		if err != nil {
			return err
		}
		step.Detail("%s", e.ClusterName)
		if broken != nil {
			step.Detail("%s, anew: %s", e.ClusterName, broken.Reason)
		}
		return writeJSON(e.madeFile(), made{Identity: identity, Nodes: nodes})
	})
	if err != nil {
		return err
	}
	if e.Variant == Coverage {
		e.followPods()
	}
	return e.Deploy(ctx, e.Components[0].Name, e.Components[0].Name)
}

// reuse prepares a cluster that is used again.
func (e *Environment) reuse(ctx context.Context) error {
	if e.Variant != Coverage {
		return nil
	}
	if _, err := e.stopPods(ctx); err != nil {
		return err
	}
	return e.resetCoverage()
}

func (e *Environment) clusterSpec() (cluster.Spec, error) {
	ref, err := e.Ref(e.Node)
	if err != nil {
		return cluster.Spec{}, err
	}
	e.mu.Lock()
	own := e.own[e.Node]
	e.mu.Unlock()
	spec := cluster.Spec{
		Image: ref, OwnCNI: own, CgroupV1: host.CgroupV1(os.DirFS("/")),
		Patches: filepath.Join(e.Root, "docker", e.Node, "patches"),
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
	all, err := e.Cluster.All(ctx)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", errNone
	}
	var was made
	data, err := os.ReadFile(e.madeFile())
	if errors.Is(err, os.ErrNotExist) {
		return "", &cluster.Broken{Reason: "it was not made to the end"}
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(data, &was); err != nil || was.Identity == nil {
		return "", &cluster.Broken{Reason: "its record is damaged"}
	}
	if reason := want.Differs(was.Identity); reason != "" {
		return "", &cluster.Broken{Reason: reason}
	}
	return e.Cluster.Mend(ctx, was.Nodes, status)
}

// DeleteCluster removes the cluster; one that is not there is removed already. The
// evidence stays.
func (e *Environment) DeleteCluster(ctx context.Context) error {
	return e.Timeline.Step(ctx, "teardown", "cluster", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Delete, fmt.Errorf("not done after %s", e.Timeouts.Delete))
		defer cancel()
		all, err := e.Cluster.All(ctx)
		if err != nil {
			return err
		}
		if err := e.Cluster.Delete(ctx); err != nil {
			return err
		}
		if len(all) == 0 {
			step.Skipped("there is no cluster %s", e.ClusterName)
		} else {
			step.Detail("%s", e.ClusterName)
		}
		for _, file := range []string{e.madeFile(), e.targetFile()} {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
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
