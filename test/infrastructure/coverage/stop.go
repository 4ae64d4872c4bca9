package coverage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Follow shows seen every pod of a namespace, and every change of one, until ctx
// ends. A pod that comes and goes between two looks is seen as well.
func Follow(ctx context.Context, kubeconfig, namespace string, seen func(*corev1.Pod)) error {
	client, err := kube.Client(kubeconfig)
	if err != nil {
		return err
	}
	err = kube.Until(ctx, kube.From(client.CoreV1().Pods(namespace), nil),
		func(_ watch.EventType, pod *corev1.Pod) { seen(pod) },
		func([]*corev1.Pod) bool { return false })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Workload is what has a covered service's pods.
type Workload struct {
	Kind string // Deployment or StatefulSet
	Name string
}

// Stop scales the workloads to 0, one after the other, and waits, by watch, until their
// pods are gone: each ends in order and writes its counters. It shows seen every pod of the
// namespace, and those that end once more. A workload that is not there is stopped already;
// an API server that is not ready yet, as after a reboot, is waited for until ctx ends.
func Stop(ctx context.Context, kubeconfig, namespace string, workloads []Workload, seen func(*corev1.Pod)) error {
	client, err := serving(ctx, kubeconfig)
	if err != nil {
		return err
	}
	var pods *corev1.PodList
	err = kube.Retry(ctx, kube.Transient, func() (err error) {
		pods, err = client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		return err
	})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		seen(&pods.Items[i])
	}
	for _, workload := range workloads {
		if err := workload.end(ctx, client, namespace, nil, seen); err != nil {
			return err
		}
	}
	return nil
}

// End has the API server forget the pods of the workloads, whose kubelets end them within two
// seconds: what they have counted is of no interest. It does not wait for that.
func End(ctx context.Context, kubeconfig, namespace string, workloads []Workload) error {
	client, err := serving(ctx, kubeconfig)
	if err != nil {
		return err
	}
	now := int64(0)
	group, ctx := errgroup.WithContext(ctx)
	for _, workload := range workloads {
		group.Go(func() error { return workload.end(ctx, client, namespace, &now, func(*corev1.Pod) {}) })
	}
	return group.Wait()
}

// serving returns a client once the API server is ready.
func serving(ctx context.Context, kubeconfig string) (kube.Interface, error) {
	client, err := kube.Client(kubeconfig)
	if err != nil {
		return nil, err
	}
	return client, kube.Serves(ctx, client)
}

// end scales the workload to 0 and waits until its pods are gone. grace is how many seconds
// they get for it, 0 not to wait for them, nil for as long as they ask for.
func (w Workload) end(ctx context.Context, client kube.Interface, namespace string, grace *int64, seen func(*corev1.Pod)) error {
	var labels *metav1.LabelSelector
	err := kube.Retry(ctx, kube.Transient, func() (err error) {
		labels, err = w.scaleDown(ctx, client, namespace)
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	its := metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(labels)}
	if err == nil && grace != nil {
		err = client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: grace}, its)
	}
	if err == nil {
		err = gone(ctx, client, namespace, its.LabelSelector, seen)
	}
	if err != nil {
		return fmt.Errorf("%s/%s/%s: %w", w.Kind, namespace, w.Name, err)
	}
	return nil
}

// scaleDown asks for no pods, and returns the selector of those that there are. The next
// deployment of the component sets the number again.
func (w Workload) scaleDown(ctx context.Context, client kube.Interface, namespace string) (*metav1.LabelSelector, error) {
	none := []byte(`{"spec":{"replicas":0}}`)
	switch w.Kind {
	case "Deployment":
		scaled, err := client.AppsV1().Deployments(namespace).Patch(ctx, w.Name, types.MergePatchType, none, metav1.PatchOptions{})
		if err != nil {
			return nil, err
		}
		return scaled.Spec.Selector, nil
	case "StatefulSet":
		scaled, err := client.AppsV1().StatefulSets(namespace).Patch(ctx, w.Name, types.MergePatchType, none, metav1.PatchOptions{})
		if err != nil {
			return nil, err
		}
		return scaled.Spec.Selector, nil
	}
	return nil, fmt.Errorf("kind %s: only a Deployment or a StatefulSet can be covered", w.Kind)
}

// gone waits until no pod matches.
func gone(ctx context.Context, client kube.Interface, namespace, selector string, seen func(*corev1.Pod)) error {
	var left []string
	matching := kube.From(client.CoreV1().Pods(namespace), func(options *metav1.ListOptions) { options.LabelSelector = selector })
	err := kube.Until(ctx, matching,
		func(_ watch.EventType, pod *corev1.Pod) { seen(pod) },
		func(pods []*corev1.Pod) bool {
			left = nil
			for _, pod := range pods {
				left = append(left, pod.Name)
			}
			return len(left) == 0
		})
	if err != nil {
		slices.Sort(left)
		return fmt.Errorf("pods are still there: %s: %w", strings.Join(left, ", "), err)
	}
	return nil
}
