// Package scope decides whether the Gateway may act on an object: somebody has to
// have opted in with a label.
package scope

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/resource"
)

// Label is the label by which an object or a namespace opts in ("true") or out
// ("false"). Other values say nothing.
const Label = "kubernaut.ai/managed"

// ReasonUnmanaged is the reason of every rejection by scope.
const ReasonUnmanaged = "unmanaged_resource"

// Rejection says to the sender why nothing was made of a signal, and what to do.
type Rejection struct {
	Reason   string `json:"reason"`
	Resource string `json:"resource,omitempty"` // empty when there is none
	Message  string `json:"message"`
	Action   string `json:"action,omitempty"` // a kubectl line that opts in; empty when nothing would
}

// Scope looks labels up. It is safe for concurrent use.
type Scope struct {
	reader     client.Reader
	namespaces cache.SharedIndexInformer
}

// New returns a Scope that reads namespaces through reader, uncached, whenever what
// it remembers of them does not say that an object is managed.
func New(reader client.Reader, meta metadata.Interface) (*Scope, error) {
	informer := metadatainformer.NewFilteredMetadataInformer(meta, corev1.SchemeGroupVersion.WithResource("namespaces"),
		metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	// Labels are all that is looked at, and a cluster may have thousands of namespaces.
	err := informer.SetTransform(func(obj any) (any, error) {
		if namespace, ok := obj.(*metav1.PartialObjectMetadata); ok {
			namespace.ManagedFields = nil
			namespace.Annotations = nil
		}
		return obj, nil
	})
	if err != nil {
		return nil, fmt.Errorf("namespace informer: %w", err)
	}
	return &Scope{reader: reader, namespaces: informer}, nil
}

// Run fills the memory of namespaces and keeps it current until ctx ends. Without
// it, or while the API server cannot be watched, every look-up is a fresh one.
func (s *Scope) Run(ctx context.Context) { s.namespaces.RunWithContext(ctx) }

// Check returns nil when the object at the bottom of a lineage is managed. An opt-out
// anywhere in the lineage counts first: whoever may label a Service or a pod does not
// decide for the workload that has said no. Then an opt-in counts, then the label of
// the namespace, which a cluster-scoped object has not. Errors are the reader's.
func (s *Scope) Check(ctx context.Context, lineage owner.Lineage) (*Rejection, error) {
	target := lineage[0].Ref
	optedIn := false
	for _, object := range lineage {
		managed, said := value(object.Labels)
		if said && !managed {
			return reject(target, object.String()+" has opted out", command(object.Ref)), nil
		}
		optedIn = optedIn || managed
	}
	if optedIn {
		return nil, nil
	}
	if target.Namespace == "" {
		return reject(target, "it has no label "+Label+"=true", command(target)), nil
	}
	managed, err := s.namespace(ctx, target.Namespace)
	if err != nil {
		return nil, fmt.Errorf("Namespace/%s: %w", target.Namespace, err)
	}
	if managed {
		return nil, nil
	}
	namespace := resource.Ref{APIVersion: "v1", Kind: "Namespace", Name: target.Namespace}
	return reject(target, "neither it nor its namespace has the label "+Label+"=true", command(namespace)), nil
}

// namespace reports whether a namespace has opted in. A remembered yes is enough; a
// remembered no may be older than the label and is confirmed.
func (s *Scope) namespace(ctx context.Context, name string) (bool, error) {
	if s.namespaces.HasSynced() {
		if obj, found, err := s.namespaces.GetStore().GetByKey(name); err == nil && found {
			if known, ok := obj.(*metav1.PartialObjectMetadata); ok {
				if managed, _ := value(known.Labels); managed {
					return true, nil
				}
			}
		}
	}
	fresh := &metav1.PartialObjectMetadata{}
	fresh.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := s.reader.Get(ctx, client.ObjectKey{Name: name}, fresh); client.IgnoreNotFound(err) != nil {
		return false, err
	}
	managed, _ := value(fresh.Labels)
	return managed, nil
}

// value reads the label: what it says, and whether it says anything.
func value(labels map[string]string) (managed, said bool) {
	switch labels[Label] {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// reject words a rejection.
func reject(target resource.Ref, why, action string) *Rejection {
	return &Rejection{
		Reason:   ReasonUnmanaged,
		Resource: target.String(),
		Message:  target.String() + " is not managed: " + why,
		Action:   action,
	}
}

// command returns the line that opts an object in. Its names were validated, so the
// line can be pasted into a shell.
func command(object resource.Ref) string {
	namespace := ""
	if object.Namespace != "" {
		namespace = " --namespace " + object.Namespace
	}
	return fmt.Sprintf("kubectl label %s %s%s %s=true --overwrite", strings.ToLower(object.QualifiedKind()), object.Name, namespace, Label)
}
