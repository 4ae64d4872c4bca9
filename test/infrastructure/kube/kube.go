// Package kube is what several parts of the harness need of a cluster's API: the way
// from a kubeconfig to a client, watches and tries that end with a reason, and what
// troubles a node, an event or a container's log tell.
package kube

import (
	"context"
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Config reads a kubeconfig file. Requests are not limited on this side: the API
// server's own priority and fairness protects it.
func Config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	config.QPS = -1
	return config, nil
}

// Client returns a client for the cluster that a kubeconfig file names. It sends
// nothing yet.
func Client(kubeconfig string) (kubernetes.Interface, error) {
	config, err := Config(kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// Quiet silences client-go's own log, which goes to standard error: what matters of
// it is in the errors.
func Quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, klog.Logger{})
}
