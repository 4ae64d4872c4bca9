package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// ManagedLabel is on every object that Apply makes, with the field manager as its value,
// so that Prune finds what the manifests have no more.
const ManagedLabel = "e2e.kubernaut.ai/managed-by"

func (a *Applier) labelled(obj *unstructured.Unstructured) *unstructured.Unstructured {
	obj = obj.DeepCopy()
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[ManagedLabel] = a.manager
	obj.SetLabels(labels)
	return obj
}

// made tells whether an object is one that Apply made. The label alone does not say so:
// controllers copy a Service's labels to its EndpointSlices, and people copy objects.
func (a *Applier) made(obj *unstructured.Unstructured) bool {
	return metav1.GetControllerOf(obj) == nil && slices.ContainsFunc(obj.GetManagedFields(), func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == a.manager && entry.Operation == metav1.ManagedFieldsOperationApply
	})
}

// Prune removes what Apply has made, of any kind and in any namespace, and keep does not
// hold: the objects of all components, of which only kind, namespace and name matter. It
// waits until they are gone, those first that need the others, so that what they held,
// as a node port, is free. What others made stays. The ChangeSet holds what was removed.
func (a *Applier) Prune(ctx context.Context, keep []*unstructured.Unstructured) (ChangeSet, error) {
	kept := map[identity]bool{}
	for _, obj := range keep {
		kind := obj.GroupVersionKind().GroupKind()
		kept[identity{kind, obj.GetNamespace(), obj.GetName()}] = true
		kept[identity{kind, "", obj.GetName()}] = true // of a kind without namespaces, whatever the manifest says
	}
	found, err := a.managed(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for what the manifests have no more: %w", err)
	}
	found = slices.DeleteFunc(found, func(obj *unstructured.Unstructured) bool {
		return kept[identity{obj.GroupVersionKind().GroupKind(), obj.GetNamespace(), obj.GetName()}]
	})
	// The API server lists its kinds in an order that changes.
	slices.SortFunc(found, func(a, b *unstructured.Unstructured) int {
		return strings.Compare(RefOf(a).String(), RefOf(b).String())
	})
	var changes ChangeSet
	for _, row := range slices.Backward(ranks(found)) {
		done, err := inParallel(row, func(obj *unstructured.Unstructured) (Action, error) {
			err := kube.Retry(ctx, kube.Transient, func() error {
				resource, _, err := a.resource(ctx, RefOf(obj))
				if err != nil {
					return err
				}
				return remove(ctx, resource, obj)
			})
			if err != nil {
				return "", fmt.Errorf("%s: remove: %w", RefOf(obj), err)
			}
			return Removed, nil
		})
		changes = append(changes, done...)
		if err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// identity names an object in whatever version it is read.
type identity struct {
	schema.GroupKind
	namespace, name string
}

// managed returns every object that Apply has made.
func (a *Applier) managed(ctx context.Context) ([]*unstructured.Unstructured, error) {
	var served []*metav1.APIResourceList
	err := kube.Retry(ctx, kube.Transient, func() (err error) {
		served, err = a.client.Discovery().ServerPreferredResources()
		// An extension that does not answer is not where Apply has made something.
		if discovery.IsGroupDiscoveryFailedError(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	selector := metav1.ListOptions{LabelSelector: ManagedLabel + "=" + a.manager}
	var resources []schema.GroupVersionResource
	for _, list := range served {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if slices.Contains(resource.Verbs, "list") && slices.Contains(resource.Verbs, "delete") {
				resources = append(resources, version.WithResource(resource.Name))
			}
		}
	}
	lists := make([][]unstructured.Unstructured, len(resources))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, resource := range resources {
		group.Go(func() error {
			return kube.Retry(ctx, kube.Transient, func() error {
				list, err := a.dynamic.Resource(resource).List(ctx, selector)
				if err != nil {
					return fmt.Errorf("%s: %w", resource.GroupResource(), err)
				}
				lists[i] = list.Items
				return nil
			})
		})
	}
	err = group.Wait()
	var found []*unstructured.Unstructured
	for _, list := range lists {
		for i := range list {
			if a.made(&list[i]) {
				found = append(found, &list[i])
			}
		}
	}
	return found, err
}

// inParallel does one thing to objects that do not depend on each other. One that it
// fails for does not stop the others: all errors are reported at once.
func inParallel(objs []*unstructured.Unstructured, do func(*unstructured.Unstructured) (Action, error)) (ChangeSet, error) {
	actions := make([]Action, len(objs))
	failed := make([]error, len(objs))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, obj := range objs {
		group.Go(func() error {
			actions[i], failed[i] = do(obj)
			return nil
		})
	}
	_ = group.Wait() // its functions return no error
	var changes ChangeSet
	for i, obj := range objs {
		if failed[i] == nil {
			changes = append(changes, Change{Object: RefOf(obj), Action: actions[i]})
		}
	}
	return changes, errors.Join(failed...)
}
