package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// setKernel makes the kernel's settings in every node.
func (k Kind) setKernel(ctx context.Context) error {
	nodes, err := k.Nodes(ctx)
	for _, node := range nodes {
		args := []string{k.Engine, "exec", node, "sysctl", "--quiet", "--write"}
		for _, name := range slices.Sorted(maps.Keys(kernelSettings)) {
			args = append(args, name+"="+kernelSettings[name])
		}
		err = errors.Join(err, k.Runner.Run(ctx, command.Cmd{Args: args}))
	}
	return err
}

// resetKernel makes the kernel's settings again where a node that was started since a time
// has lost them, and returns which ones.
func (k Kind) resetKernel(ctx context.Context, nodes []container, since time.Time) ([]string, error) {
	for _, node := range nodes {
		if node.started.Before(since) {
			continue
		}
		lost, err := k.lostKernel(ctx, node.name)
		if err != nil {
			return nil, err
		}
		if len(lost) > 0 {
			return lost, k.setKernel(ctx)
		}
	}
	return nil, nil
}

// lostKernel returns the names of settings that a node does not have.
func (k Kind) lostKernel(ctx context.Context, node string) ([]string, error) {
	names := slices.Sorted(maps.Keys(kernelSettings))
	out, err := command.Output(ctx, k.Runner, append([]string{k.Engine, "exec", node, "sysctl", "--values"}, names...)...)
	if err != nil {
		return nil, err
	}
	values := strings.Split(strings.TrimSpace(out), "\n")
	var lost []string
	for i, name := range names {
		if i >= len(values) || strings.TrimSpace(values[i]) != kernelSettings[name] {
			lost = append(lost, name)
		}
	}
	return lost, nil
}
