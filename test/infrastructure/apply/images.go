package apply

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Images returns the image names of all containers of objs, each once, in order.
func Images(objs []*unstructured.Unstructured) []string {
	found := map[string]bool{}
	for _, obj := range objs {
		_ = eachContainer(obj.Object, func(container map[string]any) error {
			if name, ok := container["image"].(string); ok {
				found[name] = true
			}
			return nil
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// WithImages returns copies of objs in which the image names of all containers are
// replaced by the references that images maps them to. A name that images does not
// have is an error, as it is for Render.
func WithImages(objs []*unstructured.Unstructured, images map[string]string) ([]*unstructured.Unstructured, error) {
	copies := make([]*unstructured.Unstructured, len(objs))
	for i, obj := range objs {
		copies[i] = obj.DeepCopy()
		if err := replaceImages(copies[i].Object, images); err != nil {
			return nil, fmt.Errorf("%s: %w", RefOf(obj), err)
		}
	}
	return copies, nil
}
