// Package resource knows the kinds of Kubernetes objects that a signal may be
// about, and how to name one of them. It reads nothing.
package resource

import (
	"fmt"
	"net"
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
}

// Kinds returns every kind that is known without asking the cluster. Each needs the
// verb get in the Gateway's ClusterRole.
func Kinds() []Kind {
	return []Kind{
		namespaced("", "v1", "Pod", "pods"),
		namespaced("batch", "v1", "Job", "jobs"),
		namespaced("batch", "v1", "CronJob", "cronjobs"),
		namespaced("apps", "v1", "Deployment", "deployments"),
		namespaced("apps", "v1", "StatefulSet", "statefulsets"),
		namespaced("apps", "v1", "DaemonSet", "daemonsets"),
		namespaced("apps", "v1", "ReplicaSet", "replicasets"),
		namespaced("", "v1", "ReplicationController", "replicationcontrollers"),
		namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
		namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
		namespaced("networking.k8s.io", "v1", "Ingress", "ingresses"),
		namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
		namespaced("", "v1", "ResourceQuota", "resourcequotas"),
		namespaced("", "v1", "Service", "services"),
		clusterScoped("", "v1", "PersistentVolume", "persistentvolumes"),
		clusterScoped("", "v1", "Node", "nodes"),
		clusterScoped("", "v1", "Namespace", "namespaces"),
	}
}

func namespaced(group, version, kind, plural string) Kind {
	return Kind{GroupVersionKind: schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, Plural: plural, Namespaced: true}
}

func clusterScoped(group, version, kind, plural string) Kind {
	k := namespaced(group, version, kind, plural)
	k.Namespaced = false
	return k
}

// byName holds Kinds by their names, of which no two are the same.
var byName = func() map[string]Kind {
	kinds := map[string]Kind{}
	for _, kind := range Kinds() {
		kinds[kind.Kind] = kind
	}
	return kinds
}()

// Find returns the known kind of that name. apiVersion may be empty; when it is
// given, its group has to be the kind's: a Service of another API is another thing.
func Find(apiVersion, name string) (Kind, bool) {
	kind, known := byName[name]
	if !known || apiVersion != "" && kind.Group != group(apiVersion) {
		return Kind{}, false
	}
	return kind, true
}

// group returns the API group of an apiVersion, empty for the core group.
func group(apiVersion string) string {
	group, _, found := strings.Cut(apiVersion, "/")
	if !found {
		return ""
	}
	return group
}

// Mapper returns a REST mapping of every known kind, so that they need no discovery.
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
	Name       string // empty when HostOf is not

	// HostOf names a pod in Namespace: what is meant is the Node that it runs on. It is
	// empty for an object that is known by its own name.
	HostOf string
}

// Ref returns the object of this kind with that name. The namespace is dropped for
// a cluster-scoped kind.
func (k Kind) Ref(namespace, name string) Ref {
	if !k.Namespaced {
		namespace = ""
	}
	return Ref{APIVersion: k.GroupVersion().String(), Kind: k.Kind, Namespace: namespace, Name: name}
}

// HostOf returns the Node that a pod runs on, which has yet to be looked up.
func HostOf(namespace, pod string) Ref {
	return Ref{APIVersion: "v1", Kind: "Node", Namespace: namespace, HostOf: pod}
}

// Known reports whether the object's kind is one of Kinds; any other has to be
// looked up in the cluster, which also knows whether it has a namespace.
func (r Ref) Known() bool {
	_, known := Find(r.APIVersion, r.Kind)
	return known
}

// QualifiedKind returns the kind, with its API group behind a dot unless it is known:
// kinds of other groups may have the same name.
func (r Ref) QualifiedKind() string {
	if group := group(r.APIVersion); group != "" && !r.Known() {
		return r.Kind + "." + group
	}
	return r.Kind
}

// String returns Kind/namespace/name, or Kind/name for a cluster-scoped object.
func (r Ref) String() string {
	if r.HostOf != "" {
		return r.Kind + " of Pod/" + r.Namespace + "/" + r.HostOf
	}
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// Validate says why no object can have this name, or nil. A name that passes is
// safe in an API path and in a shell line.
func (r Ref) Validate() error {
	if r.Namespace != "" && !ValidName("Namespace", r.Namespace) {
		return fmt.Errorf("namespace %.80q: not a namespace's name", r.Namespace)
	}
	name := r.Name
	if r.HostOf != "" {
		name = r.HostOf
	}
	if !ValidName(r.Kind, name) {
		return fmt.Errorf("%.63s %.80q: not an object's name", r.Kind, name)
	}
	if !r.Known() && (len(validation.IsDNS1035Label(strings.ToLower(r.Kind))) > 0 || !validAPIVersion(r.APIVersion)) {
		return fmt.Errorf("%.80q of %.80q: not a kind's name", r.Kind, r.APIVersion)
	}
	return nil
}

// validAPIVersion reports whether a kind may have this apiVersion.
func validAPIVersion(text string) bool {
	group, version, found := strings.Cut(text, "/")
	if !found {
		return len(validation.IsDNS1035Label(text)) == 0
	}
	return len(validation.IsDNS1123Subdomain(group)) == 0 && len(validation.IsDNS1035Label(version)) == 0
}

// ValidName reports whether an object of a kind can have this name. Names of
// Namespaces and Services are one part of a host name, all others may have dots.
func ValidName(kind, name string) bool {
	switch kind {
	case "Namespace", "Service":
		return len(validation.IsDNS1123Label(name)) == 0
	}
	return len(validation.IsDNS1123Subdomain(name)) == 0
}

// IsAddress reports whether a text is an IP address. Nodes may be called so; what a
// scrape calls an instance is then not meant as a node's name.
func IsAddress(text string) bool { return net.ParseIP(text) != nil }
