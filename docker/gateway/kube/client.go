package kube

import (
	"context"
	"fmt"
	"net/http"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/resource"
)

// Scheme returns the types that the Gateway reads and writes.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, v1alpha1.AddToScheme(scheme)
}

// NewClient returns a client without a cache and without discovery: the kinds that
// the Gateway follows, and those that it writes, are all that it knows. httpClient
// may be shared with other clients of the same API server.
func NewClient(cfg *rest.Config, httpClient *http.Client) (client.WithWatch, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, fmt.Errorf("scheme: %w", err)
	}
	mapper := resource.Mapper()
	mapper.AddSpecific(v1alpha1.GroupVersion.WithKind("RemediationRequest"),
		v1alpha1.GroupVersion.WithResource("remediationrequests"),
		v1alpha1.GroupVersion.WithResource("remediationrequest"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	mapper.Add(authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), meta.RESTScopeRoot)
	return client.NewWithWatch(cfg, client.Options{Scheme: scheme, Mapper: mapper, HTTPClient: httpClient})
}

// Guarded returns a client that makes the calls that the Gateway uses (get, list,
// create, patch and patching a status) through guard.
func Guarded(inner client.WithWatch, guard *Guard) client.Client {
	return interceptor.NewClient(inner, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			return guard.Do(ctx, func(ctx context.Context) error { return c.Get(ctx, key, obj, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return guard.Do(ctx, func(ctx context.Context) error { return c.List(ctx, list, opts...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return guard.Do(ctx, func(ctx context.Context) error { return c.Create(ctx, obj, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return guard.Do(ctx, func(ctx context.Context) error { return c.Patch(ctx, obj, patch, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return guard.Do(ctx, func(ctx context.Context) error { return c.SubResource(name).Patch(ctx, obj, patch, opts...) })
		},
	})
}
