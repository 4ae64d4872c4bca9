package infrastructure

import (
	"context"
	"os"
	"slices"

	"kubernaut.ai/e2e/test/infrastructure/gather"
)

// namespaces are those that the manifests fill.
func (p *Plan) namespaces() []string {
	found := []string{p.Namespace}
	for _, obj := range p.objects() {
		if namespace := obj.GetNamespace(); namespace != "" && !slices.Contains(found, namespace) {
			found = append(found, namespace)
		}
	}
	return found
}

// gather collects what the cluster and its nodes can tell. Without an API server
// the nodes still tell something.
func (e *Environment) gather(ctx context.Context, dir string, nodes []string, cause error) error {
	var collectors []gather.Collector
	for _, node := range nodes {
		collectors = append(collectors, gather.Node{Runner: e.adapters.Runner, Engine: e.adapters.EngineName, Node: node})
	}
	if key := e.state.Kubeconfig(); exists(key) {
		collectors = append(collectors, gather.Summary{Kubeconfig: key, Namespaces: e.namespaces(), Cause: cause.Error()},
			gather.Objects{Kubeconfig: key}, gather.Logs{Kubeconfig: key})
	}
	return gather.All(ctx, dir, collectors...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
