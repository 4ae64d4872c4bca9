package gather

import (
	"time"

	"k8s.io/client-go/dynamic"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// requestTimeout bounds one request: an API server that is paused accepts
// connections and never answers.
const requestTimeout = 10 * time.Second

// parallel is how many requests or commands a collector has under way; the machine
// may be the two cores that just failed a run.
const parallel = 8

// clients reach one cluster.
type clients struct {
	typed   kube.Interface
	dynamic dynamic.Interface
}

func connect(kubeconfig string) (*clients, error) {
	config, err := kube.Config(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Timeout = requestTimeout
	typed, err := kube.ClientFor(config)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &clients{typed: typed, dynamic: untyped}, nil
}
