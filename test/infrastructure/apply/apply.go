package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// parallel is how many objects of one rank are sent at once. Components have a
// dozen objects; more would only queue in an API server on two cores.
const parallel = 16

// Apply makes the objects exist as they are written, by server-side apply: fields
// of others are kept, conflicting ones are taken over, and unknown fields are
// refused. Kinds go in the order that their dependencies need; the API server serves what
// new custom resource definitions define before an object of such a kind is sent, and
// before it returns.
//
// It converges: applying twice changes nothing, a Job that failed and whatever differs in
// what can be set once only is made anew, with its pods, and pods that a node holds back
// after crashes start over. What the manifests no longer have is Prune's. Failures
// that pass are retried until ctx ends. An error names every object that was
// refused; the ChangeSet holds what was done before it.
func (a *Applier) Apply(ctx context.Context, objs []*unstructured.Unstructured) (ChangeSet, error) {
	var changes ChangeSet
	unserved := objs
	for _, row := range ranks(objs) {
		if rank(row[0]) == len(order) {
			if err := a.serve(ctx, unserved); err != nil {
				return changes, err
			}
			unserved = nil
		}
		done, err := a.applyRow(ctx, row)
		changes = append(changes, done...)
		if err != nil {
			return changes, err
		}
	}
	return changes, a.serve(ctx, unserved)
}

// applyRow applies objects that do not depend on each other. One that is refused
// does not stop the others: all refusals are reported at once.
func (a *Applier) applyRow(ctx context.Context, objs []*unstructured.Unstructured) (ChangeSet, error) {
	return inParallel(objs, func(obj *unstructured.Unstructured) (action Action, err error) {
		err = kube.Retry(ctx, kube.Transient, func() error {
			action, err = a.applyOne(ctx, obj)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("%s: apply: %w", RefOf(obj), err)
		}
		return action, nil
	})
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
	filled, err := a.fill(ctx, a.labelled(obj), current)
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
	if current != nil && immutable(err) {
		if !a.made(current) {
			return "", fmt.Errorf("%w; what is there was made by others: remove it or choose another name", err)
		}
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

// serve waits until the API server serves the kinds that the custom resource definitions among
// objs define.
func (a *Applier) serve(ctx context.Context, objs []*unstructured.Unstructured) error {
	definitions := filter(objs, func(obj *unstructured.Unstructured) bool { return obj.GetKind() == "CustomResourceDefinition" })
	var changes ChangeSet
	for _, definition := range definitions {
		changes = append(changes, Change{Object: RefOf(definition)})
	}
	if err := a.Wait(ctx, changes); err != nil {
		return err
	}
	for _, definition := range definitions {
		group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
		if err := a.discover(ctx, schema.GroupKind{Group: group, Kind: kind}); err != nil {
			return fmt.Errorf("%s: %w", RefOf(definition), err)
		}
	}
	return nil
}

// discover waits until the API server lists a kind, which it does a moment after
// the definition is established.
func (a *Applier) discover(ctx context.Context, kind schema.GroupKind) error {
	again := func(err error) bool { return meta.IsNoMatchError(err) || kube.Transient(err) }
	return kube.Retry(ctx, again, func() error {
		_, err := a.mapper.RESTMappingWithContext(kube.Quiet(ctx), kind)
		if meta.IsNoMatchError(err) { // of what it remembers
			a.mapper.ResetWithContext(kube.Quiet(ctx))
			_, err = a.mapper.RESTMappingWithContext(kube.Quiet(ctx), kind)
		}
		return err
	})
}
