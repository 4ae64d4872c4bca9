// Package resource knows the kinds of Kubernetes objects that a signal may be
// about, and how to name one of them. It reads nothing.
package resource

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Kind is one kind of object that the Gateway can look up.
type Kind struct {
	schema.GroupVersionKind
	Plural     string // as in the API's paths and in RBAC rules
	Namespaced bool
	Label      string // the alert label that names an object of this kind; empty for none
}

// Kinds returns every kind that the Gateway follows. The order is that of
// preference among the labels of one alert: what is nearest to the fault comes
// first. A claim stands before the node because kubelet's volume alerts carry both;
// the service comes last because Prometheus also writes the scraped service there.
// Each kind needs the verb get in the Gateway's ClusterRole.
func Kinds() []Kind {
	return []Kind{
		namespaced("", "v1", "Pod", "pods", "pod"),
		namespaced("batch", "v1", "Job", "jobs", "job_name"),
		namespaced("batch", "v1", "CronJob", "cronjobs", "cronjob"),
		namespaced("apps", "v1", "Deployment", "deployments", "deployment"),
		namespaced("apps", "v1", "StatefulSet", "statefulsets", "statefulset"),
		namespaced("apps", "v1", "DaemonSet", "daemonsets", "daemonset"),
		namespaced("apps", "v1", "ReplicaSet", "replicasets", "replicaset"),
		namespaced("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller"),
		namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler"),
		namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget"),
		namespaced("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress"),
		namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim"),
		clusterScoped("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume"),
		clusterScoped("", "v1", "Node", "nodes", "node"),
		clusterScoped("", "v1", "Namespace", "namespaces", ""),
		namespaced("", "v1", "Service", "services", "service"),
	}
}

func namespaced(group, version, kind, plural, label string) Kind {
	gvk := schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	return Kind{GroupVersionKind: gvk, Plural: plural, Namespaced: true, Label: label}
}

func clusterScoped(group, version, kind, plural, label string) Kind {
	k := namespaced(group, version, kind, plural, label)
	k.Namespaced = false
	return k
}

// Find returns the kind of that name. apiVersion may be empty; when it is given,
// its group has to be the kind's: a Service of another API is another thing.
func Find(apiVersion, name string) (Kind, bool) {
	group := ""
	if before, _, found := strings.Cut(apiVersion, "/"); found {
		group = before
	}
	for _, kind := range Kinds() {
		if kind.Kind == name && (apiVersion == "" || kind.Group == group) {
			return kind, true
		}
	}
	return Kind{}, false
}

// Mapper returns a REST mapping of every kind, so that a client needs no discovery.
func Mapper() *meta.DefaultRESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range Kinds() {
		scope := meta.RESTScopeRoot
		if kind.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		plural := kind.GroupVersion().WithResource(kind.Plural)
		mapper.AddSpecific(kind.GroupVersionKind, plural, plural, scope)
	}
	return mapper
}

// Ref names one object.
type Ref struct {
	APIVersion string // for example apps/v1
	Kind       string
	Namespace  string // empty for a cluster-scoped object
	Name       string
}

// Ref returns the object of this kind with that name. The namespace is dropped for
// a cluster-scoped kind.
func (k Kind) Ref(namespace, name string) Ref {
	if !k.Namespaced {
		namespace = ""
	}
	return Ref{APIVersion: k.GroupVersion().String(), Kind: k.Kind, Namespace: namespace, Name: name}
}

// String returns Kind/namespace/name, or Kind/name for a cluster-scoped object.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// Validate says why no object can have this name, or nil. A name that passes is
// safe in an API path and in a shell line.
func (r Ref) Validate() error {
	if r.Namespace != "" && len(validation.IsDNS1123Label(r.Namespace)) > 0 {
		return fmt.Errorf("namespace %.80q: not a namespace's name", r.Namespace)
	}
	if len(validation.IsDNS1123Subdomain(r.Name)) > 0 {
		return fmt.Errorf("%s %.80q: not an object's name", r.Kind, r.Name)
	}
	return nil
}
