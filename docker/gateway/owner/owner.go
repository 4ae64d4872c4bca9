// Package owner finds the workload behind an object: the one that a person would
// say is broken when one of its pods is.
package owner

import (
	"context"
	"errors"
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
	Labels map[string]string // nil for an owner of a kind that the Gateway does not follow
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

// Resolver follows controller references. It is safe for concurrent use.
type Resolver struct {
	reader client.Reader
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
// cache: an alert may come before a cache has seen its pod. Work on one object ends
// after timeout.
func NewResolver(reader client.Reader, timeout time.Duration) *Resolver {
	r := &Resolver{reader: reader, known: expirable.NewLRU[resource.Ref, Lineage](maxKnown, nil, memory)}
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
// which fresh forbids. A service leads to the workload of its pods. The way ends below
// an owner that is gone or cluster-scoped, and at one that is not a kind the Gateway
// follows or that is five levels up. A *NotFoundError says that ref itself does not
// exist; other errors are the reader's.
func (r *Resolver) Resolve(ctx context.Context, ref resource.Ref, fresh bool) (lineage Lineage, remembered bool, err error) {
	if lineage, found := r.known.Get(ref); found && !fresh {
		return lineage, true, nil
	}
	lineage, err = r.group.Do(ctx, ref, struct{}{})
	return lineage, false, err
}

// climb does the work of Resolve.
func (r *Resolver) climb(ctx context.Context, ref resource.Ref) (Lineage, error) {
	object, err := r.first(ctx, ref)
	if apierrors.IsNotFound(err) {
		return nil, &NotFoundError{ref}
	}
	if err != nil {
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
		kind, known := resource.Find(reference.APIVersion, reference.Kind)
		if !known {
			// The reference is proof enough that it exists, and it is what stays the
			// same when its replica sets and pods are replaced.
			return append(lineage, Object{Ref: resource.Ref{
				APIVersion: reference.APIVersion, Kind: reference.Kind, Namespace: ref.Namespace, Name: reference.Name,
			}}), nil
		}
		if !kind.Namespaced {
			break // a static pod's node: no pod's workload, and every static pod would be one problem
		}
		owner := kind.Ref(ref.Namespace, reference.Name)
		metadata, err := r.metadata(ctx, owner)
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

// first reads the object that a signal named. Services are read whole: their
// selector is needed.
func (r *Resolver) first(ctx context.Context, ref resource.Ref) (client.Object, error) {
	if ref.Kind != "Service" {
		return r.metadata(ctx, ref)
	}
	service := &corev1.Service{}
	return service, r.reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, service)
}

// metadata reads what is in every kind of object.
func (r *Resolver) metadata(ctx context.Context, ref resource.Ref) (*metav1.PartialObjectMetadata, error) {
	kind, known := resource.Find(ref.APIVersion, ref.Kind)
	if !known {
		return nil, errors.New("not a kind that the Gateway follows")
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
