package owner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/resource"
)

// meta returns the metadata of an object in the namespace demo, with an owner when
// one is given as "apiVersion Kind name".
func meta(name, controller string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "demo", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"own": name}}
	if controller != "" {
		of := strings.Fields(controller)
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "no-controller", UID: "x"},
			{APIVersion: of[0], Kind: of[1], Name: of[2], UID: types.UID("uid-" + of[2]), Controller: &yes},
		}
	}
	return m
}

func pod(name, controller string, labels map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta(name, controller)}
	if labels != nil {
		p.Labels = labels
	}
	return p
}

func service(name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(name, ""), Spec: corev1.ServiceSpec{Selector: selector}}
}

func reader(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.Reader {
	t.Helper()
	scheme, err := kube.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
}

// ref returns the reference of a kind in the namespace demo.
func ref(t *testing.T, kind, name string) resource.Ref {
	t.Helper()
	k, found := resource.Find("", kind)
	if !found {
		t.Fatalf("no kind %s", kind)
	}
	return k.Ref("demo", name)
}

func TestResolve(t *testing.T) {
	app := map[string]string{"app": "web"}
	older := pod("z-older", "apps/v1 ReplicaSet web-1", app)
	older.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	newer := pod("a-newer", "apps/v1 StatefulSet db", app)
	newer.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	oldest := pod("b-unowned", "", app)
	oldest.CreationTimestamp = metav1.NewTime(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	loop := make([]client.Object, 0, 10)
	for i := range 10 {
		loop = append(loop, &appsv1.ReplicaSet{ObjectMeta: meta(fmt.Sprint("loop-", i), fmt.Sprint("apps/v1 ReplicaSet loop-", i+1))})
	}
	endless := map[string]string{}
	for i := range 1000 {
		endless[fmt.Sprintf("label-%0*d", 40, i)] = "x"
	}
	objects := append(loop,
		service("endless", endless), pod("labelled", "", endless),
		pod("web-1-x", "apps/v1 ReplicaSet web-1", nil),
		&appsv1.ReplicaSet{ObjectMeta: meta("web-1", "apps/v1 Deployment web")},
		&appsv1.Deployment{ObjectMeta: meta("web", "")},
		pod("db-0", "apps/v1 StatefulSet db", nil), &appsv1.StatefulSet{ObjectMeta: meta("db", "")},
		pod("run-x", "batch/v1 Job run", nil), &batchv1.Job{ObjectMeta: meta("run", "batch/v1 CronJob nightly")},
		&batchv1.CronJob{ObjectMeta: meta("nightly", "")},
		pod("alone", "", nil),
		pod("left-behind", "apps/v1 ReplicaSet gone", nil),
		pod("impostor-x", "apps/v1 ReplicaSet impostor", nil),
		&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "impostor", UID: "another"}},
		pod("canary-x", "apps/v1 ReplicaSet canary-1", nil),
		&appsv1.ReplicaSet{ObjectMeta: meta("canary-1", "argoproj.io/v1alpha1 Rollout canary")},
		pod("cloned-x", "argoproj.io/v1alpha1 Rollout gone", nil), pod("claimed-x", "argoproj.io/v1alpha1 Rollout canary", nil),
		pod("made-up-x", "example.com/v1 Deployment web", nil), pod("secretive-x", "example.com/v1 Hidden one", nil),
		pod("etcd-node", "v1 Node node", nil), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "uid-node"}},
		older, newer, oldest,
		service("front", app), service("bare", map[string]string{"app": "none"}), service("headless", nil),
		service("solo", map[string]string{"own": "alone"}),
	)
	for _, object := range objects {
		if object.GetName() == "claimed-x" {
			object.SetOwnerReferences([]metav1.OwnerReference{func() metav1.OwnerReference {
				reference := *metav1.GetControllerOf(object)
				reference.UID = "another"
				return reference
			}()})
		}
	}
	cluster := kinds{"Rollout": {"demo/canary": meta("canary", "")}, "Hidden": nil}
	r := NewResolver(reader(t, interceptor.Funcs{}, objects...), cluster, time.Minute)
	for name, c := range map[string]struct{ kind, object, want string }{
		"a pod of a deployment":         {"Pod", "web-1-x", "Pod/demo/web-1-x ReplicaSet/demo/web-1 Deployment/demo/web"},
		"a replica set":                 {"ReplicaSet", "web-1", "ReplicaSet/demo/web-1 Deployment/demo/web"},
		"a deployment":                  {"Deployment", "web", "Deployment/demo/web"},
		"a pod of a stateful set":       {"Pod", "db-0", "Pod/demo/db-0 StatefulSet/demo/db"},
		"a pod of a cron job":           {"Pod", "run-x", "Pod/demo/run-x Job/demo/run CronJob/demo/nightly"},
		"a pod alone":                   {"Pod", "alone", "Pod/demo/alone"},
		"an owner that is gone":         {"Pod", "left-behind", "Pod/demo/left-behind"},
		"an owner's name, taken":        {"Pod", "impostor-x", "Pod/demo/impostor-x"},
		"an owner of another API":       {"Pod", "canary-x", "Pod/demo/canary-x ReplicaSet/demo/canary-1 Rollout/demo/canary"},
		"an owner of another API, gone": {"Pod", "cloned-x", "Pod/demo/cloned-x"},
		"its name, taken":               {"Pod", "claimed-x", "Pod/demo/claimed-x"},
		"an owner of no kind":           {"Pod", "made-up-x", "Pod/demo/made-up-x"},
		"an owner that cannot be read":  {"Pod", "secretive-x", "Pod/demo/secretive-x Hidden/demo/one"},
		"a static pod":                  {"Pod", "etcd-node", "Pod/demo/etcd-node"},
		"a node":                        {"Node", "node", "Node/node"},
		"a service leads by the oldest": {"Service", "front", "Service/demo/front Pod/demo/z-older ReplicaSet/demo/web-1 Deployment/demo/web"},
		"a service of a pod alone":      {"Service", "solo", "Service/demo/solo Pod/demo/alone"},
		"a service without pods":        {"Service", "bare", "Service/demo/bare"},
		"an endless selector":           {"Service", "endless", "Service/demo/endless"},
		"a service without a selector":  {"Service", "headless", "Service/demo/headless"},
		"a long chain": {"ReplicaSet", "loop-0", "ReplicaSet/demo/loop-0 ReplicaSet/demo/loop-1 ReplicaSet/demo/loop-2 " +
			"ReplicaSet/demo/loop-3 ReplicaSet/demo/loop-4 ReplicaSet/demo/loop-5"},
	} {
		t.Run(name, func(t *testing.T) {
			lineage, _, err := r.Resolve(t.Context(), ref(t, c.kind, c.object), false)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, object := range lineage {
				got = append(got, object.String())
			}
			if strings.Join(got, " ") != c.want || lineage.Workload().String() != got[len(got)-1] {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
	lineage, _, err := r.Resolve(t.Context(), ref(t, "Pod", "web-1-x"), false)
	if err != nil || lineage[0].Labels["own"] != "web-1-x" || lineage[2].Labels["own"] != "web" {
		t.Errorf("got %+v, %v, want each object's labels", lineage, err)
	}
}

// kinds are kinds of a cluster, with their objects by namespace/name; nil for a kind
// whose objects may not be read. Kinds whose names begin with Cluster have no namespace.
type kinds map[string]map[string]metav1.ObjectMeta

func (k kinds) Find(_ context.Context, apiVersion, name string) (resource.Kind, bool, error) {
	_, found := k[name]
	gvk := schema.FromAPIVersionAndKind(apiVersion, name)
	return resource.Kind{GroupVersionKind: gvk, Plural: strings.ToLower(name), Namespaced: !strings.HasPrefix(name, "Cluster")}, found, nil
}

func (k kinds) Get(_ context.Context, kind resource.Kind, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	objects := k[kind.Kind]
	if objects == nil {
		return nil, apierrors.NewForbidden(schema.GroupResource{}, name, errors.New("no"))
	}
	object, found := objects[namespace+"/"+name]
	if !found {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: object}, nil
}

func TestResolveKindsOfTheCluster(t *testing.T) {
	cluster := kinds{
		"Rollout": {"demo/canary": meta("canary", "")}, "Hidden": nil, "ClusterHidden": nil,
		"ClusterThing": {"/one": metav1.ObjectMeta{Name: "one", Labels: map[string]string{"own": "one"}}},
	}
	r := NewResolver(reader(t, interceptor.Funcs{}), cluster, time.Minute)
	of := func(kind, name string) resource.Ref {
		return resource.Ref{APIVersion: "argoproj.io/v1alpha1", Kind: kind, Namespace: "demo", Name: name}
	}
	for name, c := range map[string]struct {
		ref  resource.Ref
		want string // the object at the bottom and its label, or the error
	}{
		"one that is there":                    {of("Rollout", "canary"), "Rollout/demo/canary canary"},
		"one that is gone":                     {of("Rollout", "none"), "Rollout/demo/none: not found"},
		"one that may not be read":             {of("Hidden", "x"), "Hidden/demo/x "},
		"a cluster-scoped one":                 {of("ClusterThing", "one"), "ClusterThing/one one"},
		"a cluster-scoped one, not to be read": {of("ClusterHidden", "x"), "ClusterHidden/x "},
		"a kind that is not there":             {of("Dragon", "x"), "kind Dragon of argoproj.io/v1alpha1: this cluster has none"},
		"one without its namespace":            {resource.Ref{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "canary"}, "Rollout/canary: not found"},
	} {
		t.Run(name, func(t *testing.T) {
			lineage, _, err := r.Resolve(t.Context(), c.ref, false)
			got := fmt.Sprint(err)
			if err == nil {
				got = lineage[0].String() + " " + lineage[0].Labels["own"]
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestResolveTheNodeOfAPod(t *testing.T) {
	on := pod("exporter-1", "", nil)
	on.Spec.NodeName = "worker"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker", Labels: map[string]string{"own": "worker"}}}
	r := NewResolver(reader(t, interceptor.Funcs{}, on, pod("waiting", "", nil), node), nil, time.Minute)
	lineage, _, err := r.Resolve(t.Context(), resource.HostOf("demo", "exporter-1"), false)
	if err != nil || len(lineage) != 1 || lineage[0].String() != "Node/worker" || lineage[0].Labels["own"] != "worker" || lineage[0].HostOf != "" {
		t.Errorf("got %+v, %v", lineage, err)
	}
	for _, name := range []string{"none", "waiting"} {
		_, _, err := r.Resolve(t.Context(), resource.HostOf("demo", name), false)
		var missing *NotFoundError
		if !errors.As(err, &missing) || err.Error() != "Node of Pod/demo/"+name+": not found" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestResolveNotFound(t *testing.T) {
	r := NewResolver(reader(t, interceptor.Funcs{}), nil, time.Minute)
	for _, kind := range []string{"Pod", "Deployment", "Node", "Service"} {
		_, _, err := r.Resolve(t.Context(), ref(t, kind, "none"), false)
		var missing *NotFoundError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), "none: not found") || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s: got %v", kind, err)
		}
	}
}

func TestTroubleIsNotNotFound(t *testing.T) {
	for _, at := range []string{"web-1-x", "web-1"} {
		trouble := apierrors.NewServiceUnavailable("etcd")
		r := NewResolver(reader(t, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
				if key.Name == at {
					return trouble
				}
				return c.Get(ctx, key, obj, opts...)
			},
		}, pod("web-1-x", "apps/v1 ReplicaSet web-1", nil)), nil, time.Minute)
		_, _, err := r.Resolve(t.Context(), ref(t, "Pod", "web-1-x"), false)
		var missing *NotFoundError
		if !apierrors.IsServiceUnavailable(err) || errors.As(err, &missing) {
			t.Errorf("at %s: got %v", at, err)
		}
	}
}

func TestResolveRemembersWhatItFoundAndNothingElse(t *testing.T) {
	reads := 0
	objects := reader(t, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			reads++
			return c.Get(ctx, key, obj, opts...)
		},
	}, pod("alone", "", nil))
	r := NewResolver(objects, nil, time.Minute)
	for _, step := range []struct {
		name       string
		fresh      bool
		remembered bool
		reads      int
	}{
		{"alone", false, false, 1}, {"alone", false, true, 1}, {"alone", true, false, 2}, {"alone", false, true, 2},
		{"none", false, false, 3}, {"none", false, false, 4},
	} {
		lineage, remembered, err := r.Resolve(t.Context(), ref(t, "Pod", step.name), step.fresh)
		if (err == nil) != (step.name == "alone") || err == nil && len(lineage) != 1 {
			t.Fatalf("%+v: got %v, %v", step, lineage, err)
		}
		if remembered != step.remembered || reads != step.reads {
			t.Errorf("%+v: got remembered %v after %d reads", step, remembered, reads)
		}
	}
}
