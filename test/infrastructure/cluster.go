package infrastructure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// made is what a cluster was made of, kept beside the evidence. It is written when
// a creation has come to its end, so a cluster without it is a half-made one.
type made struct {
	Image string   `json:"image"`
	Ports []int32  `json:"ports"`
	Nodes []string `json:"nodes"`
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
		if why != "none" {
			step.Status("removing the cluster that is there: %s", why)
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
		// What this machine lacks shows up as something else, minutes later.
		lacks := host.Preflight(ctx, host.Options{Engine: e.EngineName, Checkout: e.Root}).Err()
		if err := e.Cluster.Create(ctx, spec, func(err error) { step.Status("trying once more: %v", err) }); err != nil {
			return errors.Join(err, lacks)
		}
		if err := e.Cluster.Ready(ctx); err != nil {
			return errors.Join(err, lacks)
		}
		nodes, err := e.Cluster.Nodes(ctx)
		if err != nil {
			return err
		}
		step.Detail("%s", e.ClusterName)
		return writeJSON(e.madeFile(), made{Image: spec.Image, Ports: spec.Ports, Nodes: nodes})
	})
	if err != nil {
		return err
	}
	if e.Variant == Coverage {
		e.followPods()
	}
	return e.Deploy(ctx, e.Components[0].Name, e.Components[0].Name)
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
		spec.Ports = append(spec.Ports, port.NodePort)
	}
	slices.Sort(spec.Ports)
	return spec, nil
}

// outdated says why the cluster cannot be used as it is: "none" if there is none,
// empty if it can.
func (e *Environment) outdated(ctx context.Context, spec cluster.Spec) (string, error) {
	all, err := e.Cluster.All(ctx)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "none", nil
	}
	var was made
	data, err := os.ReadFile(e.madeFile())
	if errors.Is(err, os.ErrNotExist) {
		return "it was not made to the end", nil
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(data, &was); err != nil {
		return "its record is damaged", nil
	}
	running, err := e.Cluster.Nodes(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case was.Image != spec.Image:
		return "its node image is another: " + was.Image, nil
	case !slices.Equal(was.Ports, spec.Ports):
		return "its node ports are others", nil
	case !slices.Equal(was.Nodes, running):
		return "its nodes do not run: " + strings.Join(was.Nodes, ", "), nil
	}
	if _, err := os.Stat(e.kubeconfig()); err != nil {
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
