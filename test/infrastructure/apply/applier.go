package apply

import (
	"cmp"
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Options are what an Applier may be told; the zero value is good.
type Options struct {
	// FieldManager owns the applied fields. Default: kubernaut-e2e.
	FieldManager string
}

// Applier applies objects to one cluster and waits for them. It is safe for
// concurrent use.
type Applier struct {
	manager string
	dynamic dynamic.Interface
	client  kube.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// New returns an Applier for the cluster that config reaches. It sends nothing
// yet. Requests are not limited on this side: the API server's own priority and
// fairness protects it.
func New(config *rest.Config, options Options) (*Applier, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kube.ClientFor(config)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Applier{
		manager: cmp.Or(options.FieldManager, "kubernaut-e2e"),
		dynamic: untyped,
		client:  client,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
	}, nil
}

// Open is New for the cluster that a kubeconfig file names.
func Open(kubeconfig string, options Options) (*Applier, error) {
	config, err := kube.Config(kubeconfig)
	if err != nil {
		return nil, err
	}
	return New(config, options)
}

var (
	secretsResource      = corev1.SchemeGroupVersion.WithResource("secrets")
	statefulSetsResource = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	getOptions           = metav1.GetOptions{}
)

// resource returns the door to the objects of ref's kind, in ref's namespace when
// the kind has namespaces.
func (a *Applier) resource(ctx context.Context, ref Ref) (dynamic.ResourceInterface, schema.GroupVersionResource, error) {
	mapping, err := a.mapper.RESTMappingWithContext(kube.Quiet(ctx), ref.GroupKind(), ref.Version)
	if err != nil {
		return nil, schema.GroupVersionResource{}, err
	}
	resource := a.dynamic.Resource(mapping.Resource)
	switch {
	case mapping.Scope.Name() == meta.RESTScopeNameRoot:
		return resource, mapping.Resource, nil
	case ref.Namespace == "":
		return nil, mapping.Resource, fmt.Errorf("metadata.namespace: %s needs one", ref.Kind)
	}
	return resource.Namespace(ref.Namespace), mapping.Resource, nil
}
