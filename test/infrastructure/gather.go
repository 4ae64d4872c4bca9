package infrastructure

import (
	"context"
	"os"

	"kubernaut.ai/e2e/test/infrastructure/gather"
)

// gather collects what the cluster and its nodes can tell. Without an API server
// the nodes still tell something.
func (e *Environment) gather(ctx context.Context, dir string, nodes []string) error {
	var collectors []gather.Collector
	for _, node := range nodes {
		collectors = append(collectors, gather.Node{Runner: e.adapters.Runner, Engine: e.adapters.EngineName, Node: node})
	}
	if _, err := os.Stat(e.state.Kubeconfig()); err == nil {
		collectors = append(collectors, gather.Summary{Kubeconfig: e.state.Kubeconfig()}, gather.Objects{Kubeconfig: e.state.Kubeconfig()}, gather.Logs{Kubeconfig: e.state.Kubeconfig()})
	}
	return gather.All(ctx, dir, collectors...)
}
