package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// parallel is how many objects of one rank are sent at once. Components have a
// dozen objects; more would only queue in an API server on two cores.
const parallel = 16

// Apply makes the objects exist as they are written, by server-side apply: fields
// of others are kept, conflicting ones are taken over, and unknown fields are
// refused. Kinds go in the order that their dependencies need; new custom resource
// definitions are served before it goes on.
//
// It converges: applying twice changes nothing, a Job that failed or differs is
// made anew, and pods that a node holds back after crashes start over. Failures
// that pass are retried until ctx ends. An error names every object that was
// refused; the ChangeSet holds what was done before it.
func (a *Applier) Apply(ctx context.Context, objs []*unstructured.Unstructured) (ChangeSet, error) {
	var changes ChangeSet
	for _, row := range ranks(objs) {
		done, err := a.applyRow(ctx, row)
		changes = append(changes, done...)
		if err != nil {
			return changes, err
		}
		if err := a.serve(ctx, row); err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// applyRow applies objects that do not depend on each other. One that is refused
// does not stop the others: all refusals are reported at once.
func (a *Applier) applyRow(ctx context.Context, objs []*unstructured.Unstructured) (ChangeSet, error) {
	actions := make([]Action, len(objs))
	refused := make([]error, len(objs))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, obj := range objs {
		group.Go(func() error {
			err := retry(ctx, transient, func() (err error) {
				actions[i], err = a.applyOne(ctx, obj)
				return err
			})
			if err != nil {
				refused[i] = fmt.Errorf("%s: apply: %w", RefOf(obj), err)
			}
			return nil
		})
	}
	_ = group.Wait() // its functions return no error
	var changes ChangeSet
	for i, obj := range objs {
		if refused[i] == nil {
			changes = append(changes, Change{Object: RefOf(obj), Action: actions[i]})
		}
	}
	return changes, errors.Join(refused...)
}

// applyOne sends one object.
func (a *Applier) applyOne(ctx context.Context, obj *unstructured.Unstructured) (Action, error) {
	resource, _, err := a.resource(ctx, RefOf(obj))
	if err != nil {
		return "", err
	}
	current, err := resource.Get(ctx, obj.GetName(), getOptions)
	if apierrors.IsNotFound(err) {
		current, err = nil, nil
	}
	if err != nil {
		return "", err
	}
	filled, err := a.fill(ctx, obj, current)
	if err != nil {
		return "", err
	}
	if isJob(obj) && current != nil {
		useless, err := a.useless(ctx, current)
		if err != nil {
			return "", err
		}
		if useless {
			return a.replace(ctx, resource, filled, current)
		}
	}
	applied, err := a.patch(ctx, resource, filled)
	if isJob(obj) && current != nil && immutable(err) {
		return a.replace(ctx, resource, filled, current)
	}
	switch {
	case err != nil:
		return "", err
	case current == nil:
		return Created, nil
	case !same(current, applied):
		return Configured, nil
	}
	return a.restart(ctx, applied)
}

func (a *Applier) patch(ctx context.Context, resource dynamic.ResourceInterface, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	data, err := obj.MarshalJSON()
	if err != nil {
		return nil, err
	}
	force := true
	return resource.Patch(ctx, obj.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: a.manager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
}

// same reports whether an object is still what was asked for before. Its status, and
// a version that counts writes which changed nothing, do not matter: controllers
// write at any time, and the API server stores a Job again that it made itself.
func same(before, after *unstructured.Unstructured) bool {
	if before.GetResourceVersion() == after.GetResourceVersion() {
		return true
	}
	asked := func(obj *unstructured.Unstructured) map[string]any {
		obj = obj.DeepCopy()
		obj.SetManagedFields(nil)
		obj.SetResourceVersion("")
		delete(obj.Object, "status")
		return obj.Object
	}
	return equality.Semantic.DeepEqual(asked(before), asked(after))
}

func isJob(obj *unstructured.Unstructured) bool {
	return obj.GroupVersionKind().GroupKind() == schema.GroupKind{Group: batchv1.GroupName, Kind: "Job"}
}

// immutable reports whether an object was refused because it would change what
// can be set once only, as a Job's template.
func immutable(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	for _, cause := range status.Status().Details.Causes {
		if strings.Contains(cause.Message, "immutable") {
			return true
		}
	}
	return false
}

// useless reports whether Wait would take a Job for failed: it has, or its pods
// have, or are held back.
func (a *Applier) useless(ctx context.Context, obj *unstructured.Unstructured) (bool, error) {
	var job batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &job); err != nil {
		return false, err
	}
	for _, condition := range job.Status.Conditions {
		if condition.Status == corev1.ConditionTrue {
			switch condition.Type {
			case batchv1.JobFailed:
				return true, nil
			case batchv1.JobComplete:
				return false, nil
			}
		}
	}
	if job.Status.Failed >= finalJobFailures {
		return true, nil
	}
	held, err := a.heldBack(ctx, obj)
	return len(held) > 0, err
}

// replace deletes a Job with its pods, waits until it is gone and makes it anew.
func (a *Applier) replace(ctx context.Context, resource dynamic.ResourceInterface, obj, current *unstructured.Unstructured) (Action, error) {
	uid, foreground := current.GetUID(), metav1.DeletePropagationForeground
	err := resource.Delete(ctx, current.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return "", err
	}
	if err := gone(ctx, resource, current); err != nil {
		return "", fmt.Errorf("deleting the one before: %w", err)
	}
	_, err = a.patch(ctx, resource, obj)
	return Replaced, err
}

// gone watches an object until it, as told by its UID, is no more.
func gone(ctx context.Context, resource dynamic.ResourceInterface, obj *unstructured.Unstructured) error {
	only := fields.OneTermEqualSelector("metadata.name", obj.GetName()).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = only
			return resource.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = only
			return resource.Watch(ctx, options)
		},
	}
	absent := func(store cache.Store) (bool, error) {
		for _, item := range store.List() {
			if accessor, err := meta.Accessor(item); err == nil && accessor.GetUID() == obj.GetUID() {
				return false, nil
			}
		}
		return true, nil
	}
	deleted := func(event watch.Event) (bool, error) {
		accessor, err := meta.Accessor(event.Object)
		if err != nil {
			return false, nil
		}
		return event.Type == watch.Deleted || accessor.GetUID() != obj.GetUID(), nil
	}
	_, err := watchtools.UntilWithSync(quiet(ctx), source, &unstructured.Unstructured{}, absent, deleted)
	return err
}

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

// serve waits until the API server serves the kinds that row defines, so that the
// next row can use them.
func (a *Applier) serve(ctx context.Context, row []*unstructured.Unstructured) error {
	var definitions ChangeSet
	for _, obj := range row {
		if obj.GetKind() == "CustomResourceDefinition" {
			definitions = append(definitions, Change{Object: RefOf(obj)})
		}
	}
	if len(definitions) == 0 {
		return nil
	}
	if err := a.Wait(ctx, definitions); err != nil {
		return err
	}
	for _, obj := range row {
		group, _, _ := unstructured.NestedString(obj.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(obj.Object, "spec", "names", "kind")
		if err := a.discover(ctx, schema.GroupKind{Group: group, Kind: kind}); err != nil {
			return fmt.Errorf("%s: %w", RefOf(obj), err)
		}
	}
	return nil
}

// discover waits until the API server lists a kind, which it does a moment after
// the definition is established.
func (a *Applier) discover(ctx context.Context, kind schema.GroupKind) error {
	again := func(err error) bool { return meta.IsNoMatchError(err) || transient(err) }
	return retry(ctx, again, func() error {
		_, err := a.mapper.RESTMappingWithContext(quiet(ctx), kind)
		if meta.IsNoMatchError(err) {
			a.mapper.ResetWithContext(quiet(ctx))
		}
		return err
	})
}
