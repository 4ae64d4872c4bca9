package coverage

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"k8s.io/klog/v2"
)

// Follow shows seen every pod of a namespace, and every change of one, until ctx
// ends. A pod that comes and goes between two looks is seen as well.
func Follow(ctx context.Context, kubeconfig, namespace string, seen func(*corev1.Pod)) error {
	client, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	err = follow(ctx, client, namespace, labels.Everything(), nil, func(_ watch.EventType, pod *corev1.Pod) bool {
		seen(pod)
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Stop scales the Deployments to 0 and waits, by watch, until their pods are gone:
// each ends in order and writes its counters. It shows seen every pod of the
// namespace, and those that end once more. A Deployment that is not there is
// stopped already.
func Stop(ctx context.Context, kubeconfig, namespace string, deployments []string, seen func(*corev1.Pod)) error {
	client, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		seen(&pods.Items[i])
	}
	for _, name := range deployments {
		deployment, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
		if err != nil {
			return err
		}
		// The next deployment of the component sets the number again.
		_, err = client.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{})
		if err != nil {
			return err
		}
		if err := gone(ctx, client, namespace, selector, seen); err != nil {
			return fmt.Errorf("Deployment/%s/%s: %w", namespace, name, err)
		}
	}
	return nil
}

// gone waits until no pod matches.
func gone(ctx context.Context, client kubernetes.Interface, namespace string, selector labels.Selector, seen func(*corev1.Pod)) error {
	left := map[string]bool{}
	none := func(store cache.Store) (bool, error) {
		for _, key := range store.ListKeys() {
			_, name, _ := strings.Cut(key, "/")
			left[name] = true
		}
		return len(left) == 0, nil
	}
	err := follow(ctx, client, namespace, selector, none, func(event watch.EventType, pod *corev1.Pod) bool {
		seen(pod)
		if event == watch.Deleted {
			delete(left, pod.Name)
		} else {
			left[pod.Name] = true
		}
		return len(left) == 0
	})
	if err != nil {
		return errors.Join(fmt.Errorf("pods are still there: %s", strings.Join(slices.Sorted(maps.Keys(left)), ", ")), context.Cause(ctx))
	}
	return nil
}

// follow calls each with every pod that matches and every change of one, until each
// says that it is enough, or precondition does so of those that are there first.
func follow(ctx context.Context, client kubernetes.Interface, namespace string, selector labels.Selector, precondition watchtools.PreconditionFunc, each func(watch.EventType, *corev1.Pod) bool) error {
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
	// What goes wrong on the way is retried, and would be said on standard error.
	ctx = klog.NewContext(ctx, klog.Logger{})
	_, err := watchtools.UntilWithSync(ctx, pods, &corev1.Pod{}, precondition, func(event watch.Event) (bool, error) {
		pod, ok := event.Object.(*corev1.Pod)
		return ok && each(event.Type, pod), nil
	})
	return err
}

func connect(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
