package scope

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metadatafake "k8s.io/client-go/metadata/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/resource"
)

// object returns an object of a lineage whose label has that value; "" for none.
func object(kind, name, label string) owner.Object {
	k, _ := resource.Find("", kind)
	o := owner.Object{Ref: k.Ref("demo", name)}
	if label != "" {
		o.Labels = map[string]string{Label: label}
	}
	return o
}

// namespace returns the metadata of the namespace demo whose label has that value.
func namespace(label string) *metav1.PartialObjectMetadata {
	ns := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}
	ns.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if label != "" {
		ns.Labels = map[string]string{Label: label}
	}
	return ns
}

// world is a cluster whose fresh reads and whose watch may disagree.
type world struct {
	reads int
	err   error
}

func (w *world) scope(t *testing.T, fresh, remembered string) *Scope {
	t.Helper()
	scheme, err := kube.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: namespace(fresh).ObjectMeta}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(ns).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			w.reads++
			if w.err != nil {
				return w.err
			}
			return c.Get(ctx, key, obj, opts...)
		},
	}).Build()
	var objects []runtime.Object
	if remembered != "-" {
		objects = append(objects, namespace(remembered))
	}
	s, err := New(reader, metadatafake.NewSimpleMetadataClient(scheme, objects...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		lineage   owner.Lineage
		namespace string
		action    string // empty: managed
	}{
		"nothing says anything":          {owner.Lineage{object("Pod", "web-1", ""), object("Deployment", "web", "")}, "", "kubectl label namespace demo kubernaut.ai/managed=true --overwrite"},
		"the namespace has opted in":     {owner.Lineage{object("Pod", "web-1", "")}, "true", ""},
		"the namespace has opted out":    {owner.Lineage{object("Pod", "web-1", "")}, "false", "kubectl label namespace demo kubernaut.ai/managed=true --overwrite"},
		"the object has opted in":        {owner.Lineage{object("Pod", "web-1", "true")}, "", ""},
		"in, in a namespace that is out": {owner.Lineage{object("Pod", "web-1", "true")}, "false", ""},
		"out, in a namespace that is in": {owner.Lineage{object("Deployment", "web", "false")}, "true", "kubectl label deployment web --namespace demo kubernaut.ai/managed=true --overwrite"},
		"the workload has opted in":      {owner.Lineage{object("Pod", "web-1", ""), object("Deployment", "web", "true")}, "", ""},
		"the workload has opted out":     {owner.Lineage{object("Pod", "web-1", ""), object("Deployment", "web", "false")}, "true", "kubectl label deployment web --namespace demo kubernaut.ai/managed=true --overwrite"},
		"an opt-out overrules an opt-in": {owner.Lineage{object("Service", "front", "true"), object("Pod", "web-1", ""), object("Deployment", "web", "false")}, "true", "kubectl label deployment web --namespace demo kubernaut.ai/managed=true --overwrite"},
		"a kind of another API":          {owner.Lineage{{Ref: resource.Ref{APIVersion: "x.io/v1", Kind: "Thing", Name: "one"}}}, "true", "kubectl label thing.x.io one kubernaut.ai/managed=true --overwrite"},
		"another value says nothing":     {owner.Lineage{object("Pod", "web-1", "yes")}, "True", "kubectl label namespace demo kubernaut.ai/managed=true --overwrite"},
		"a node":                         {owner.Lineage{object("Node", "worker", "")}, "true", "kubectl label node worker kubernaut.ai/managed=true --overwrite"},
		"a node that has opted in":       {owner.Lineage{object("Node", "worker", "true")}, "", ""},
		"a node that has opted out":      {owner.Lineage{object("Node", "worker", "false")}, "", "kubectl label node worker kubernaut.ai/managed=true --overwrite"},
	} {
		t.Run(name, func(t *testing.T) {
			rejection, err := new(world).scope(t, c.namespace, "-").Check(t.Context(), c.lineage)
			if err != nil {
				t.Fatal(err)
			}
			if c.action == "" {
				if rejection != nil {
					t.Errorf("got %+v, want managed", rejection)
				}
				return
			}
			if rejection == nil || rejection.Action != c.action || rejection.Reason != "unmanaged_resource" || rejection.Resource != c.lineage[0].String() || rejection.Message == "" {
				t.Errorf("got %+v, want %s", rejection, c.action)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	for name, c := range map[string]struct {
		fresh, remembered string
		managed           bool
		reads             int
	}{
		"a remembered yes is enough":        {"", "true", true, 0},
		"a remembered no is confirmed":      {"", "", false, 1},
		"a label of the moment before":      {"true", "", true, 1},
		"an opt-out that was taken back":    {"true", "false", true, 1},
		"a namespace of the moment before":  {"true", "-", true, 1},
		"a namespace that nobody has heard": {"", "-", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				s := w.scope(t, c.fresh, c.remembered)
				ctx, cancel := context.WithCancel(t.Context())
				go s.Run(ctx)
				for !s.namespaces.HasSynced() {
					<-time.After(100 * time.Millisecond)
				}
				rejection, err := s.Check(t.Context(), owner.Lineage{object("Pod", "web-1", "")})
				if err != nil || (rejection == nil) != c.managed || w.reads != c.reads {
					t.Errorf("got %+v, %v after %d reads", rejection, err, w.reads)
				}
				cancel()
				<-time.After(time.Minute) // client-go's goroutines end by their timers
			})
		})
	}
}

func TestTroubleIsNotUnmanaged(t *testing.T) {
	w := &world{err: apierrors.NewServiceUnavailable("etcd")}
	rejection, err := w.scope(t, "true", "-").Check(t.Context(), owner.Lineage{object("Pod", "web-1", "")})
	if rejection != nil || !apierrors.IsServiceUnavailable(err) {
		t.Errorf("got %+v, %v", rejection, err)
	}
	w.err = errors.New("boom")
	if _, err := w.scope(t, "true", "-").Check(t.Context(), owner.Lineage{object("Node", "worker", "true")}); err != nil {
		t.Errorf("a cluster-scoped object: got %v, want no read", err)
	}
}
