package kube

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"kubernaut.ai/e2e/docker/gateway/resource"
)

const (
	// kindMemory is for how long it is remembered whether the cluster has a kind: a sender
	// that names kinds of its own invention costs the API server one call in that time.
	kindMemory = 30 * time.Second
	maxKinds   = 1024
)

// Kinds finds the kinds of the cluster that are not known beforehand, and reads their
// objects. It is safe for concurrent use.
type Kinds struct {
	api     rest.Interface
	objects metadata.Interface
	guard   *Guard
	known   *expirable.LRU[schema.GroupVersionKind, resource.Kind]
}

// NewKinds returns Kinds that calls through guard.
func NewKinds(api rest.Interface, objects metadata.Interface, guard *Guard) *Kinds {
	return &Kinds{api: api, objects: objects, guard: guard, known: expirable.NewLRU[schema.GroupVersionKind, resource.Kind](maxKinds, nil, kindMemory)}
}

// Find returns the kind of that name that the cluster serves in that version, and
// whether there is one. Errors are the API server's.
func (k *Kinds) Find(ctx context.Context, apiVersion, name string) (kind resource.Kind, found bool, err error) {
	gvk := schema.FromAPIVersionAndKind(apiVersion, name)
	if kind, remembered := k.known.Get(gvk); remembered {
		return kind, kind.Plural != "", nil
	}
	path := []string{"apis", gvk.Group, gvk.Version}
	if gvk.Group == "" {
		path = []string{"api", gvk.Version}
	}
	list := &metav1.APIResourceList{}
	err = k.guard.Do(ctx, func(ctx context.Context) error {
		err := k.api.Get().AbsPath(path...).Do(ctx).Into(list)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return kind, false, err
	}
	for _, served := range list.APIResources {
		if served.Kind == name && !strings.Contains(served.Name, "/") { // no subresource
			kind = resource.Kind{GroupVersionKind: gvk, Plural: served.Name, Namespaced: served.Namespaced}
		}
	}
	k.known.Add(gvk, kind)
	return kind, kind.Plural != "", nil
}

// Get reads the metadata of an object. Errors are the API server's; Forbidden says that
// nobody has let the Gateway read objects of this kind.
func (k *Kinds) Get(ctx context.Context, kind resource.Kind, namespace, name string) (object *metav1.PartialObjectMetadata, err error) {
	err = k.guard.Do(ctx, func(ctx context.Context) error {
		object, err = k.objects.Resource(kind.GroupVersion().WithResource(kind.Plural)).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return object, err
}
