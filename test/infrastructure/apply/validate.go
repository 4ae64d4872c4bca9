package apply

import (
	"errors"
	"fmt"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// Validate checks objects without a cluster: the built-in kinds may hold no field
// that is unknown, misspelt, given twice or of another type, and what the
// annotations of this package ask for must make sense. Custom resources are not
// checked. Every problem of every object is reported, one line each.
func Validate(objs []*unstructured.Unstructured) error {
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), apiextensions.AddToScheme(known)); err != nil {
		return err
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, known, known, json.SerializerOptions{Strict: true})
	var problems []error
	for _, obj := range objs {
		for _, problem := range append(decode(strict, known, obj), checkAnnotations(obj)...) {
			problems = append(problems, fmt.Errorf("%s: %w", RefOf(obj), problem))
		}
	}
	return errors.Join(problems...)
}

// decode returns what the strict decoder has against an object.
func decode(strict runtime.Decoder, known *runtime.Scheme, obj *unstructured.Unstructured) []error {
	kind := obj.GroupVersionKind()
	if !known.Recognizes(kind) {
		if known.IsGroupRegistered(kind.Group) {
			return []error{fmt.Errorf("kind %q: not in %s", kind.Kind, kind.GroupVersion())}
		}
		return nil
	}
	data, err := obj.MarshalJSON()
	if err != nil {
		return []error{err}
	}
	_, _, err = strict.Decode(data, nil, nil)
	if refused, ok := runtime.AsStrictDecodingError(err); ok {
		return refused.Errors()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}
