package coverage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
)

// Stop scales the Deployments to 0 and waits, by watch, until their pods are gone:
// each ends in order and writes its counters. It returns the exit codes of the pods
// that it saw end. A Deployment that is not there is stopped already.
func Stop(ctx context.Context, kubeconfig, namespace string, deployments []string) (map[string]int, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	exits := map[string]int{}
	for _, name := range deployments {
		deployment, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
		if err != nil {
			return nil, err
		}
		// The next deployment of the component sets the number again.
		_, err = client.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{})
		if err != nil {
			return nil, err
		}
		if err := gone(ctx, client, namespace, selector, exits); err != nil {
			return nil, fmt.Errorf("Deployment/%s/%s: %w", namespace, name, err)
		}
	}
	return exits, nil
}

// gone waits until no pod matches and notes how each one's container ended.
func gone(ctx context.Context, client kubernetes.Interface, namespace string, selector labels.Selector, exits map[string]int) error {
	pods := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector.String()
			return client.CoreV1().Pods(namespace).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector.String()
			return client.CoreV1().Pods(namespace).Watch(ctx, options)
		},
	}
	var left []string
	none := func(store cache.Store) (bool, error) {
		left = store.ListKeys()
		return len(left) == 0, nil
	}
	_, err := watchtools.UntilWithSync(ctx, pods, &corev1.Pod{}, none, func(event watch.Event) (bool, error) {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return false, nil
		}
		for _, status := range pod.Status.ContainerStatuses {
			if ended := status.State.Terminated; ended != nil {
				exits[pod.Name] = int(ended.ExitCode)
			}
		}
		if event.Type == watch.Deleted {
			left = slices.DeleteFunc(left, func(key string) bool { return strings.HasSuffix(key, "/"+pod.Name) })
		}
		return len(left) == 0, nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("pods are still there: %s", strings.Join(left, ", ")), context.Cause(ctx))
	}
	return nil
}
