package apply

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// restart deletes the pods of a workload that a node holds back, so that they
// start over now, when what they lacked may be there.
func (a *Applier) restart(ctx context.Context, workload *unstructured.Unstructured) (Action, error) {
	switch workload.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet":
	default:
		return Unchanged, nil
	}
	held, err := a.heldBack(ctx, workload)
	if err != nil || len(held) == 0 {
		return Unchanged, err
	}
	for _, pod := range held {
		err := a.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
	}
	return Restarted, nil
}

// heldBack returns the pods of a workload that have crashed or lack their image or
// configuration, so that the node waits longer and longer before it tries again.
func (a *Applier) heldBack(ctx context.Context, workload *unstructured.Unstructured) ([]corev1.Pod, error) {
	field, _, err := unstructured.NestedMap(workload.Object, "spec", "selector")
	if err != nil {
		return nil, err
	}
	var labels metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(field, &labels); err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(&labels)
	if err != nil {
		return nil, err
	}
	pods, err := a.client.CoreV1().Pods(workload.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	var held []corev1.Pod
	for _, pod := range pods.Items {
		for _, symptom := range podSymptoms(&pod) {
			if symptom.held {
				held = append(held, pod)
				break
			}
		}
	}
	return held, nil
}
