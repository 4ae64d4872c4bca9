package apply

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/dynamic"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// setOnce is how the API server refuses to change what can be set once only. It has no
// code for it, and each kind words it in its own way: a Job's template "is immutable", a
// Service's clusterIP "may not change once set", a RoleBinding "cannot change roleRef",
// "updates to statefulset spec for fields other than ... are forbidden".
var setOnce = regexp.MustCompile(`immutable|may not change|cannot change|can not be changed|updates to .* forbidden`)

// allocated is how a Service is refused whose node port or address another has.
var allocated = regexp.MustCompile(`already allocated`)

// immutable reports whether an object was refused because it would change what can be
// set once only, and for nothing else.
func immutable(err error) bool { return onlyCauses(err, setOnce) }

// onlyCauses reports whether an object was refused as invalid for causes of one sort alone.
func onlyCauses(err error, sort *regexp.Regexp) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	causes := status.Status().Details.Causes
	for _, cause := range causes {
		if !sort.MatchString(cause.Message) {
			return false
		}
	}
	return len(causes) > 0
}

// replace deletes an object with what it owns, waits until it is gone and makes it anew. One
// that would be refused is found before anything is deleted.
func (a *Applier) replace(ctx context.Context, resource dynamic.ResourceInterface, obj, current *unstructured.Unstructured) (Action, error) {
	_, err := resource.Create(ctx, obj, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: a.manager, FieldValidation: metav1.FieldValidationStrict,
	})
	// That its name, port or address is taken, by the one that is there, is the last objection.
	if err != nil && !apierrors.IsAlreadyExists(err) && !onlyCauses(err, allocated) {
		return "", err
	}
	if err := remove(ctx, resource, current); err != nil {
		return "", fmt.Errorf("deleting the one before: %w", err)
	}
	_, err = a.patch(ctx, resource, obj)
	return Replaced, err
}

// remove deletes an object with what it owns, a workload with its pods, and waits until
// it is gone. One of the same name that somebody makes meanwhile stays.
func remove(ctx context.Context, resource dynamic.ResourceInterface, obj *unstructured.Unstructured) error {
	uid, foreground := obj.GetUID(), metav1.DeletePropagationForeground
	err := resource.Delete(ctx, obj.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return err
	}
	named := fields.OneTermEqualSelector("metadata.name", obj.GetName()).String()
	source := kube.From(resource, func(options *metav1.ListOptions) { options.FieldSelector = named })
	err = kube.Until(ctx, source, nil, func(store []*unstructured.Unstructured) bool {
		for _, left := range store {
			if left.GetUID() == uid {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("it is still there: %w", err)
	}
	return nil
}
