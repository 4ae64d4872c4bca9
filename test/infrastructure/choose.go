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

// chooseEngine returns the engine for a run, and says when it is another than the last
// time. The one whose cluster runs is known to work and is not probed.
func chooseEngine(ctx context.Context, plan *Plan, say func(format string, args ...any)) (string, error) {
	last := plan.cluster().Engine()
	if !slices.Contains(engineNames, last) {
		last = ""
	}
	if last != "" && (plan.Config.Engine == "" || plan.Config.Engine == last) {
		if nodes, err := RealAdapters(plan, last).Cluster.Nodes(ctx); err == nil && len(nodes) > 0 {
			return last, nil
		}
	}
	options := host.Options{Runner: command.Local{}, Engine: plan.Config.Engine, Checkout: plan.Root, Say: say}
	if options.Engine == "" && last != "" {
		// That of the last time first: what it holds is not to be made twice.
		options.Engine = last
		_, err := host.Choose(ctx, options)
		if err == nil {
			return last, nil
		}
		say("%s, which was used the last time, does not work now: %v", last, err)
		options.Engine = ""
	}
	name, err := host.Choose(ctx, options)
	if err == nil && last != "" && name != last {
		say("engine %s: the last time it was %s", name, last)
	}
	return name, err
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
