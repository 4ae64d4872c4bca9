package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Objects collects the objects of a cluster, one YAML file per kind that has any, and its
// events in the order of time. Of Secrets it keeps the names of the keys and the
// sizes of the values.
type Objects struct {
	Kubeconfig string // path of a file
}

var _ Collector = Objects{}

// Name implements Collector.
func (Objects) Name() string { return "objects" }

// Collect implements Collector: it writes objects/<resource>.yaml and
// objects/events.txt.
func (o Objects) Collect(ctx context.Context, dir string) error {
	clients, err := connect(o.Kubeconfig)
	if err != nil {
		return err
	}
	return clients.collectObjects(ctx, dir)
}

// builtIn are the kinds that tell how a workload fares; what defines custom kinds
// is asked for the others.
var builtIn = []schema.GroupVersionResource{
	{Version: "v1", Resource: "namespaces"},
	{Version: "v1", Resource: "nodes"},
	{Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "services"},
	{Version: "v1", Resource: "configmaps"},
	{Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "serviceaccounts"},
	{Version: "v1", Resource: "persistentvolumeclaims"},
	{Version: "v1", Resource: "persistentvolumes"},
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "batch", Version: "v1", Resource: "jobs"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func (c *clients) collectObjects(ctx context.Context, dir string) error {
	// Also the question whether the API server answers at all, asked once.
	customKinds, err := c.customKinds(ctx)
	if err != nil {
		return err
	}
	resources := slices.Concat(builtIn, customKinds)
	failures := make([]error, len(resources)+1)
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, resource := range resources {
		group.Go(func() error { failures[i] = c.collectResource(ctx, dir, resource); return nil })
	}
	group.Go(func() error { failures[len(resources)] = c.collectEvents(ctx, dir); return nil })
	_ = group.Wait() // its functions return no error
	return errors.Join(failures...)
}

// customKinds returns the resources that custom resource definitions serve.
func (c *clients) customKinds(ctx context.Context) ([]schema.GroupVersionResource, error) {
	list, err := c.dynamic.Resource(definitions).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var resources []schema.GroupVersionResource
	for _, definition := range list.Items {
		group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
		versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
		for _, item := range versions {
			version, _ := item.(map[string]any)
			name, _ := version["name"].(string)
			if served, _ := version["served"].(bool); served {
				resources = append(resources, schema.GroupVersionResource{Group: group, Version: name, Resource: plural})
				break
			}
		}
	}
	return resources, nil
}

func (c *clients) collectResource(ctx context.Context, dir string, resource schema.GroupVersionResource) error {
	list, err := c.dynamic.Resource(resource).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("%s: %w", resource.GroupResource(), err)
	}
	if len(list.Items) == 0 {
		return nil
	}
	var out bytes.Buffer
	for _, item := range list.Items {
		item.SetManagedFields(nil)
		if resource.Resource == "secrets" && resource.Group == "" {
			hideValues(&item)
		}
		data, err := yaml.Marshal(item.Object)
		if err != nil {
			return fmt.Errorf("%s: %s/%s: %w", resource.GroupResource(), item.GetNamespace(), item.GetName(), err)
		}
		fmt.Fprintf(&out, "---\n%s", data)
	}
	return write(dir, "objects/"+resource.GroupResource().String()+".yaml", out.Bytes())
}

// hideValues replaces the values of a Secret by their sizes. Annotations go too:
// kubectl keeps a copy of the object in one.
func hideValues(secret *unstructured.Unstructured) {
	secret.SetAnnotations(nil)
	for _, field := range []string{"data", "stringData"} {
		values, _, _ := unstructured.NestedMap(secret.Object, field)
		for key, value := range values {
			values[key] = fmt.Sprintf("(%d characters)", len(fmt.Sprint(value)))
		}
		if len(values) > 0 {
			_ = unstructured.SetNestedMap(secret.Object, values, field) // only fails on a path through a non-map
		}
	}
}

func (c *clients) collectEvents(ctx context.Context, dir string) error {
	events, err := c.events(ctx)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	var out bytes.Buffer
	for _, event := range events {
		fmt.Fprintln(&out, describe(event))
	}
	return write(dir, "objects/events.txt", out.Bytes())
}

// events returns all events, the oldest first.
func (c *clients) events(ctx context.Context) ([]corev1.Event, error) {
	list, err := c.typed.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return kube.EventTime(a).Compare(kube.EventTime(b)) })
	return list.Items, nil
}

// describe returns an event as one line.
func describe(event corev1.Event) string {
	object := event.InvolvedObject
	name := object.Kind + "/" + object.Name
	if object.Namespace != "" {
		name = object.Kind + "/" + object.Namespace + "/" + object.Name
	}
	line := fmt.Sprintf("%s %s %s: %s: %s", kube.EventTime(event).UTC().Format(time.RFC3339), event.Type, name, event.Reason, kube.OneLine(event.Message))
	if count := max(event.Count, seen(event)); count > 1 {
		line += fmt.Sprintf(" (%d times)", count)
	}
	return line
}

func seen(event corev1.Event) int32 {
	if event.Series == nil {
		return 0
	}
	return event.Series.Count
}
