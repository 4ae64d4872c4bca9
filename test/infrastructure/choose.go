package infrastructure

import (
	"context"
	"fmt"
	"slices"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/host"
)

// engineNames are the engines there are, the preferred first.
var engineNames = []string{"podman", "docker"}

// chooseEngine returns the engine for a run, and what there is to say about the choice.
// The one whose cluster runs is known to work and is not probed.
func chooseEngine(ctx context.Context, plan *Plan) (name, said string, err error) {
	last := plan.cluster().Engine()
	if slices.Contains(engineNames, last) && (plan.Config.Engine == "" || plan.Config.Engine == last) {
		if nodes, err := RealAdapters(plan, last).Cluster.Nodes(ctx); err == nil && len(nodes) > 0 {
			return last, "", nil
		}
	}
	wanted := plan.Config.Engine
	if wanted == "" && slices.Contains(engineNames, last) {
		// The one of the last time first: what it holds is not to be made twice.
		if _, err := host.Choose(ctx, command.Local{}, last); err == nil {
			return last, "", nil
		}
	}
	if name, err = host.Choose(ctx, command.Local{}, wanted); err != nil {
		return "", "", err
	}
	if last != "" && name != last {
		said = fmt.Sprintf("engine %s: the last time it was %s", name, last)
		if wanted == "" {
			said += ", which does not work now; go tool mage doctor says why"
		}
	}
	return name, said, nil
}

// engineOf returns the engine in which the plan's cluster is to be looked for: the one
// that it was made with; where nobody knows, the one that has it, else the one that is
// wanted, else the first that there is. None is probed: to look for a container is no
// reason to start one.
func engineOf(ctx context.Context, plan *Plan) (string, error) {
	if last := plan.cluster().Engine(); last != "" {
		return last, nil
	}
	var there []string
	for _, name := range engineNames {
		if plan.Config.Engine != "" && plan.Config.Engine != name {
			continue
		}
		if _, err := command.Find(name); err != nil {
			continue
		}
		there = append(there, name)
		if nodes, err := RealAdapters(plan, name).Cluster.All(ctx); err == nil && len(nodes) > 0 {
			return name, nil
		}
	}
	if len(there) == 0 {
		return "", fmt.Errorf("no container engine is installed here; run: go tool mage setup")
	}
	return there[0], nil
}
