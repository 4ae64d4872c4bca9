package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Render builds the kustomization in dir and replaces the image names of all
// containers by the references that images maps them to. A name that images does
// not have is an error: the cluster would look for an image that nobody loaded.
// The objects come in the order in which Apply applies them, the same for the same
// input. Errors do not name dir: the caller knows how its reader calls it.
func Render(dir string, images map[string]string) ([]*unstructured.Unstructured, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	var objs []*unstructured.Unstructured
	for _, resource := range resources.Resources() {
		data, err := resource.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(data); err != nil {
			return nil, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
		if err := replaceImages(obj.Object, images); err != nil {
			return nil, fmt.Errorf("%s: %w", RefOf(obj), err)
		}
		objs = append(objs, obj)
	}
	return slices.Concat(ranks(objs)...), nil
}

// replaceImages replaces the image names below node.
func replaceImages(node any, images map[string]string) error {
	return eachContainer(node, func(container map[string]any) error {
		name, ok := container["image"].(string)
		if !ok {
			return nil
		}
		reference, ok := images[name]
		if !ok {
			return fmt.Errorf("container %v: image %q: not in the catalog; there are: %s",
				container["name"], name, strings.Join(slices.Sorted(maps.Keys(images)), ", "))
		}
		container["image"] = reference
		return nil
	})
}

// eachContainer calls each with every container below node. It finds pod specs by
// their shape, so that it also knows kinds that wrap a pod template in a field of
// their own.
func eachContainer(node any, each func(container map[string]any) error) error {
	switch node := node.(type) {
	case []any:
		for _, item := range node {
			if err := eachContainer(item, each); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			if key == "containers" || key == "initContainers" || key == "ephemeralContainers" {
				list, _ := node[key].([]any)
				for _, item := range list {
					if container, ok := item.(map[string]any); ok {
						if err := each(container); err != nil {
							return err
						}
					}
				}
			}
			if err := eachContainer(node[key], each); err != nil {
				return err
			}
		}
	}
	return nil
}
