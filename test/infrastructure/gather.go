package infrastructure

import (
	"context"
	"os"
	"slices"

	"kubernaut.ai/e2e/test/infrastructure/gather"
)

// namespaces are those that the manifests fill.
func (e *Environment) namespaces() []string {
	found := []string{e.Namespace}
	for _, obj := range e.objects() {
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
		collectors = append(collectors, gather.Node{Runner: e.Runner, Engine: e.EngineName, Node: node})
	}
	if _, err := os.Stat(e.kubeconfig()); err == nil {
		collectors = append(collectors, gather.Summary{Kubeconfig: e.kubeconfig(), Namespaces: e.namespaces(), Cause: cause.Error()}, gather.Objects{Kubeconfig: e.kubeconfig()}, gather.Logs{Kubeconfig: e.kubeconfig()})
	}
	return gather.All(ctx, dir, collectors...)
}
