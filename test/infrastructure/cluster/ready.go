package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
)

// Ready waits, by watch, until every node of the cluster is Ready. kind's own wait
// is not used: it spins, and its timeout prints a warning and returns success.
func (k Kind) Ready(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", k.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	nodes := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Nodes().List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Nodes().Watch(ctx, options)
		},
	}
	waiting := map[string]string{}
	look := func(node *corev1.Node) {
		if reason := notReady(node); reason != "" {
			waiting[node.Name] = reason
		} else {
			delete(waiting, node.Name)
		}
	}
	all := func(store cache.Store) (bool, error) {
		for _, obj := range store.List() {
			if node, ok := obj.(*corev1.Node); ok {
				look(node)
			}
		}
		return len(store.List()) > 0 && len(waiting) == 0, nil
	}
	_, err = watchtools.UntilWithSync(ctx, nodes, &corev1.Node{}, all, func(event watch.Event) (bool, error) {
		if node, ok := event.Object.(*corev1.Node); ok && event.Type != watch.Deleted {
			look(node)
			return len(waiting) == 0, nil
		}
		return false, nil
	})
	if err == nil {
		return nil
	}
	var reasons []string
	for name, reason := range waiting {
		reasons = append(reasons, fmt.Sprintf("Node/%s: not ready: %s", name, reason))
	}
	if len(reasons) == 0 {
		reasons = []string{"cluster " + k.Name + ": its API server shows no node"}
	}
	slices.Sort(reasons)
	return errors.Join(errors.New(strings.Join(reasons, "\n")), context.Cause(ctx))
}

// notReady is why a node is not Ready, or empty.
func notReady(node *corev1.Node) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return ""
			}
			return condition.Message
		}
	}
	return "its kubelet has not reported yet"
}
