// Package owner finds the workload behind an object: the one that a person would
// say is broken when one of its pods is.
package owner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/resource"
)

// maxLevels bounds the way up. Pod to CronJob is two levels, operators add one or
// two; a longer chain is more likely a loop.
const maxLevels = 5

// Object is one object on the way from what a signal named to its workload.
type Object struct {
	resource.Ref
	Labels map[string]string // nil for one that the Gateway may not read
}

// Lineage is the way from the object that a signal named, its first entry, to the
// workload at its top, its last.
type Lineage []Object

// Workload returns the object at the top.
func (l Lineage) Workload() resource.Ref { return l[len(l)-1].Ref }

// NotFoundError says that the object that a signal named does not exist.
type NotFoundError struct{ resource.Ref }

// Error names the object.
func (e *NotFoundError) Error() string { return e.String() + ": not found" }

// UnknownKindError says that the cluster has no kind that a signal named.
type UnknownKindError struct{ resource.Ref }

// Error names the kind.
func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("kind %s of %s: this cluster has none", e.Kind, e.APIVersion)
}

// Kinds knows the kinds of the cluster beyond resource.Kinds. Get's error is Forbidden
// where the Gateway may not read objects of a kind.
type Kinds interface {
	Find(ctx context.Context, apiVersion, name string) (kind resource.Kind, found bool, err error)
	Get(ctx context.Context, kind resource.Kind, namespace, name string) (*metav1.PartialObjectMetadata, error)
}

// Resolver follows controller references. It is safe for concurrent use.
type Resolver struct {
	reader client.Reader
	kinds  Kinds
	group  *coalesce.Group[resource.Ref, struct{}, Lineage]

	// known holds what was found, for memory. An alert that keeps firing costs the API
	// server a read for every level otherwise, each time.
	known *expirable.LRU[resource.Ref, Lineage]
}

const (
	// memory is for how long a change of an object's labels or owners may go unseen.
	memory = 2 * time.Second
	// maxSelector is the longest selector, in bytes, by which pods are looked for: it goes
	// into the request's line, and beyond a megabyte the client cannot send that. Pods with
	// so many labels do not exist; the service is then its own workload.
	maxSelector = 16 << 10
	// maxKnown bounds what is remembered, at about 1 KB each.
	maxKnown = 4096
)

// NewResolver returns a resolver that reads through reader, which should have no
// cache: an alert may come before a cache has seen its pod. Objects of other kinds
// than resource.Kinds are read through kinds. Work on one object ends after timeout.
func NewResolver(reader client.Reader, kinds Kinds, timeout time.Duration) *Resolver {
	r := &Resolver{reader: reader, kinds: kinds, known: expirable.NewLRU[resource.Ref, Lineage](maxKnown, nil, memory)}
	r.group = coalesce.NewGroup(timeout, func(ctx context.Context, ref resource.Ref, in []struct{}) []coalesce.Result[Lineage] {
		lineage, err := r.climb(ctx, ref)
		if err == nil {
			r.known.Add(ref, lineage)
		}
		return slices.Repeat([]coalesce.Result[Lineage]{{Value: lineage, Err: err}}, len(in))
	})
	return r
}

// Resolve returns the way from ref to its workload, and whether it was remembered,
// which fresh forbids. It begins with the object itself, as the cluster names it. A
// service leads to the workload of its pods. The way ends below an owner that is gone
// or cluster-scoped, and at one that may not be read or that is five levels up. A
// *NotFoundError says that ref itself does not exist, an *UnknownKindError that its
// kind does not; other errors are the reader's.
func (r *Resolver) Resolve(ctx context.Context, ref resource.Ref, fresh bool) (lineage Lineage, remembered bool, err error) {
	if lineage, found := r.known.Get(ref); found && !fresh {
		return lineage, true, nil
	}
	lineage, err = r.group.Do(ctx, ref, struct{}{})
	return lineage, false, err
}

// climb does the work of Resolve.
func (r *Resolver) climb(ctx context.Context, ref resource.Ref) (Lineage, error) {
	kind, ref, err := r.locate(ctx, ref)
	if err != nil {
		return nil, err
	}
	object, err := r.first(ctx, kind, ref)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &NotFoundError{ref}
	case apierrors.IsForbidden(err) && !ref.Known():
		return Lineage{{Ref: ref}}, nil // the sender's word for it is all there is
	case err != nil:
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	lineage := Lineage{{ref, object.GetLabels()}}
	if service, ok := object.(*corev1.Service); ok {
		pod, err := r.podOf(ctx, service)
		if err != nil {
			return nil, fmt.Errorf("pods of %s: %w", ref, err)
		}
		if pod == nil {
			return lineage, nil
		}
		podRef, _ := resource.Find("v1", "Pod")
		lineage = append(lineage, Object{podRef.Ref(pod.Namespace, pod.Name), pod.Labels})
		object = pod
	}
	for range maxLevels {
		reference := metav1.GetControllerOf(object)
		if reference == nil {
			break
		}
		kind, found, err := r.find(ctx, reference.APIVersion, reference.Kind)
		if err != nil {
			return nil, fmt.Errorf("owner of %s: kind %s of %s: %w", ref, reference.Kind, reference.APIVersion, err)
		}
		if !found || !kind.Namespaced {
			// Nothing is what it says, or a static pod's node: no pod's workload, and every
			// static pod would be one problem.
			break
		}
		owner := kind.Ref(ref.Namespace, reference.Name)
		metadata, err := r.metadata(ctx, kind, owner)
		if apierrors.IsForbidden(err) && !owner.Known() {
			// The reference is proof enough that it exists, and it is what stays the same
			// when its replica sets and pods are replaced.
			return append(lineage, Object{Ref: owner}), nil
		}
		if apierrors.IsNotFound(err) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s, owner of %s: %w", owner, ref, err)
		}
		if metadata.UID != reference.UID {
			break // another object has taken the name of the owner that is gone
		}
		lineage = append(lineage, Object{owner, metadata.Labels})
		object = metadata
	}
	return lineage, nil
}

// locate returns the kind of what a signal named, and the object by its own name.
func (r *Resolver) locate(ctx context.Context, ref resource.Ref) (resource.Kind, resource.Ref, error) {
	if ref.HostOf != "" {
		pod := &corev1.Pod{}
		err := r.reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.HostOf}, pod)
		if apierrors.IsNotFound(err) || err == nil && pod.Spec.NodeName == "" {
			return resource.Kind{}, ref, &NotFoundError{ref}
		}
		if err != nil {
			return resource.Kind{}, ref, fmt.Errorf("%s: %w", ref, err)
		}
		node, _ := resource.Find("v1", "Node")
		return node, node.Ref("", pod.Spec.NodeName), nil
	}
	kind, found, err := r.find(ctx, ref.APIVersion, ref.Kind)
	if err != nil {
		return kind, ref, fmt.Errorf("kind %s of %s: %w", ref.Kind, ref.APIVersion, err)
	}
	if !found {
		return kind, ref, &UnknownKindError{ref}
	}
	located := kind.Ref(ref.Namespace, ref.Name)
	if kind.Namespaced && located.Namespace == "" {
		return kind, located, &NotFoundError{located}
	}
	return kind, located, nil
}

// find returns a kind, of which the cluster is asked only if it is not known.
func (r *Resolver) find(ctx context.Context, apiVersion, name string) (resource.Kind, bool, error) {
	if kind, known := resource.Find(apiVersion, name); known {
		return kind, true, nil
	}
	return r.kinds.Find(ctx, apiVersion, name)
}

// first reads the object that a signal named. Services are read whole: their
// selector is needed.
func (r *Resolver) first(ctx context.Context, kind resource.Kind, ref resource.Ref) (client.Object, error) {
	if ref.Kind != "Service" || !ref.Known() {
		return r.metadata(ctx, kind, ref)
	}
	service := &corev1.Service{}
	return service, r.reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, service)
}

// metadata reads what is in every kind of object.
func (r *Resolver) metadata(ctx context.Context, kind resource.Kind, ref resource.Ref) (*metav1.PartialObjectMetadata, error) {
	if !ref.Known() {
		return r.kinds.Get(ctx, kind, ref.Namespace, ref.Name)
	}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(kind.GroupVersionKind)
	return object, r.reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, object)
}

// podOf returns the pod that stands for a service's pods: the oldest that a
// controller owns, else the oldest, so that the same service leads to the same
// workload. It returns nil if there is none.
func (r *Resolver) podOf(ctx context.Context, service *corev1.Service) (*metav1.PartialObjectMetadata, error) {
	selector := labels.SelectorFromSet(service.Spec.Selector)
	if len(service.Spec.Selector) == 0 || len(selector.String()) > maxSelector {
		return nil, nil
	}
	pods := &metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err := r.reader.List(ctx, pods, client.InNamespace(service.Namespace),
		client.MatchingLabelsSelector{Selector: selector})
	if err != nil || len(pods.Items) == 0 {
		return nil, err
	}
	oldest := slices.MinFunc(pods.Items, func(a, b metav1.PartialObjectMetadata) int {
		if owned, other := metav1.GetControllerOf(&a) != nil, metav1.GetControllerOf(&b) != nil; owned != other {
			if owned {
				return -1
			}
			return 1
		}
		if order := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); order != 0 {
			return order
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return &oldest, nil
}
