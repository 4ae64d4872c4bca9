// Package workloads makes the things that signals are about: namespaces and real
// objects whose pods no node will ever take, so that nothing is pulled and nothing runs.
package workloads

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"kubernaut.ai/e2e/test/e2e/cluster"
)

// LabelManaged says whether the Gateway may act on an object or on what a namespace holds.
const LabelManaged = "kubernaut.ai/managed"

// Namespace is a namespace for specs. Everything in it is made by its methods.
type Namespace struct {
	Name    string
	App     string // name of the Deployment that signals are about; "app" unless Place made it
	cluster *cluster.Cluster
}

// NewNamespace makes a namespace with these labels, name and value in turn.
func NewNamespace(ctx context.Context, c *cluster.Cluster, name, run string, labels ...string) (*Namespace, error) {
	all := pairs(labels)
	all[cluster.LabelRun] = run
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all}}
	if err := c.API.Create(ctx, namespace); err != nil {
		return nil, fmt.Errorf("Namespace/%s: %w", name, err)
	}
	return In(c, name), nil
}

// Label sets labels of the namespace; an empty value removes one.
func (n *Namespace) Label(ctx context.Context, labels ...string) error {
	return n.label(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}, labels)
}

// LabelDeployment sets labels of a Deployment; an empty value removes one.
func (n *Namespace) LabelDeployment(ctx context.Context, name string, labels ...string) error {
	return n.label(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: n.Name, Name: name}}, labels)
}

func (n *Namespace) label(ctx context.Context, obj client.Object, labels []string) error {
	values := map[string]any{}
	for name, value := range pairs(labels) {
		values[name] = value
		if value == "" {
			values[name] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": values}})
	if err != nil {
		return err
	}
	return n.cluster.API.Patch(ctx, obj, client.RawPatch(types.MergePatchType, patch))
}

// Place makes a Deployment without replicas and returns the namespace with it as its App,
// for a spec that shares the namespace with others.
func (n *Namespace) Place(ctx context.Context, name string) (*Namespace, error) {
	if _, err := n.Deployment(ctx, name); err != nil {
		return nil, err
	}
	placed := In(n.cluster, n.Name)
	placed.App = name
	return placed, nil
}

// Deployment makes a Deployment without replicas: it exists, and costs nothing.
func (n *Namespace) Deployment(ctx context.Context, name string, labels ...string) (*appsv1.Deployment, error) {
	return made(ctx, n, n.deployment(name, 0, labels))
}

// DeploymentWithPod makes a Deployment with one replica and returns its pod, which the
// controllers have made through a ReplicaSet.
func (n *Namespace) DeploymentWithPod(ctx context.Context, name string) (*appsv1.Deployment, *corev1.Pod, error) {
	return withPod(ctx, n, n.deployment(name, 1, nil))
}

// StatefulSetWithPod makes a StatefulSet with one replica and returns its pod.
func (n *Namespace) StatefulSetWithPod(ctx context.Context, name string) (*appsv1.StatefulSet, *corev1.Pod, error) {
	return withPod(ctx, n, &appsv1.StatefulSet{
		ObjectMeta: n.meta(name, nil),
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(1)), Selector: selector(name), Template: template(name)},
	})
}

// StatefulSet makes a StatefulSet without replicas.
func (n *Namespace) StatefulSet(ctx context.Context, name string) (*appsv1.StatefulSet, error) {
	return made(ctx, n, &appsv1.StatefulSet{
		ObjectMeta: n.meta(name, nil),
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(0)), Selector: selector(name), Template: template(name)},
	})
}

// DaemonSet makes a DaemonSet that wants no node.
func (n *Namespace) DaemonSet(ctx context.Context, name string) (*appsv1.DaemonSet, error) {
	return made(ctx, n, &appsv1.DaemonSet{
		ObjectMeta: n.meta(name, nil),
		Spec:       appsv1.DaemonSetSpec{Selector: selector(name), Template: template(name)},
	})
}

// ReplicaSet makes a ReplicaSet without replicas that nobody owns.
func (n *Namespace) ReplicaSet(ctx context.Context, name string) (*appsv1.ReplicaSet, error) {
	return made(ctx, n, &appsv1.ReplicaSet{
		ObjectMeta: n.meta(name, nil),
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Selector: selector(name), Template: template(name)},
	})
}

// CronJob makes a CronJob that never runs by itself.
func (n *Namespace) CronJob(ctx context.Context, name string) (*batchv1.CronJob, error) {
	return made(ctx, n, &batchv1.CronJob{
		ObjectMeta: n.meta(name, nil),
		Spec:       batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: new(true), JobTemplate: batchv1.JobTemplateSpec{Spec: jobSpec(name)}},
	})
}

// JobWithPod makes a Job and returns its pod. The owner may be nil.
func (n *Namespace) JobWithPod(ctx context.Context, name string, owner client.Object) (*batchv1.Job, *corev1.Pod, error) {
	job := &batchv1.Job{ObjectMeta: n.meta(name, nil), Spec: jobSpec(name)}
	if owner != nil {
		if err := controllerutil.SetControllerReference(owner, job, n.cluster.API.Scheme()); err != nil {
			return nil, nil, err
		}
	}
	return withPod(ctx, n, job)
}

// Pod makes a pod that nobody owns.
func (n *Namespace) Pod(ctx context.Context, name string, labels ...string) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: n.meta(name, labels), Spec: template(name).Spec}
	return n.pod(ctx, pod)
}

// PodOf makes a pod whose controller is the owner, which may be gone: a finalizer keeps
// the garbage collector from removing the pod until Release.
func (n *Namespace) PodOf(ctx context.Context, name string, owner client.Object) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: n.meta(name, nil), Spec: template(name).Spec}
	pod.Finalizers = []string{finalizer}
	if err := controllerutil.SetControllerReference(owner, pod, n.cluster.API.Scheme()); err != nil {
		return nil, err
	}
	return n.pod(ctx, pod)
}

// Release lets a pod of PodOf go.
func (n *Namespace) Release(ctx context.Context, pod *corev1.Pod) error {
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	return client.IgnoreNotFound(n.cluster.API.Patch(ctx, pod, patch))
}

// Service makes a Service whose selector takes the pods labelled with this app; without
// one it has no selector.
func (n *Namespace) Service(ctx context.Context, name, app string) (*corev1.Service, error) {
	service := &corev1.Service{ObjectMeta: n.meta(name, nil), Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
	if app != "" {
		service.Spec.Selector = map[string]string{LabelApp: app}
	}
	return made(ctx, n, service)
}

// Claim makes a PersistentVolumeClaim that nothing fills.
func (n *Namespace) Claim(ctx context.Context, name string) (*corev1.PersistentVolumeClaim, error) {
	return made(ctx, n, &corev1.PersistentVolumeClaim{ObjectMeta: n.meta(name, nil), Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: new(""),
		Resources:        corev1.VolumeResourceRequirements{Requests: smallest()},
	}})
}

// NewVolume makes a PersistentVolume with these labels: the one cluster-scoped object
// that a spec can have for itself without a node or a controller noticing.
func NewVolume(ctx context.Context, c *cluster.Cluster, name, run string, labels ...string) (*corev1.PersistentVolume, error) {
	all := pairs(labels)
	all[cluster.LabelRun] = run
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all}, Spec: corev1.PersistentVolumeSpec{
		Capacity:                      smallest(),
		AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}},
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		StorageClassName:              "nobody",
	}}
	if err := c.API.Create(ctx, volume); err != nil {
		return nil, fmt.Errorf("PersistentVolume/%s: %w", name, err)
	}
	return volume, nil
}

// Label sets labels of any object; an empty value removes one.
func Label(ctx context.Context, c *cluster.Cluster, object client.Object, labels ...string) error {
	before := client.MergeFrom(object.DeepCopyObject().(client.Object))
	all := pairs(nil)
	for name, value := range object.GetLabels() {
		all[name] = value
	}
	for i := 0; i+1 < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
		if labels[i+1] == "" {
			delete(all, labels[i])
		}
	}
	object.SetLabels(all)
	return c.API.Patch(ctx, object, before)
}

func (n *Namespace) deployment(name string, replicas int32, labels []string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: n.meta(name, labels),
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(name), Template: template(name)},
	}
}

// pod makes a pod as soon as the namespace's default account lets it.
func (n *Namespace) pod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if err := n.account(ctx); err != nil {
		return nil, err
	}
	return made(ctx, n, pod)
}

// account makes the namespace's default ServiceAccount, as the controller is about to:
// a pod is refused until it is there.
func (n *Namespace) account(ctx context.Context) error {
	err := n.cluster.API.Create(ctx, &corev1.ServiceAccount{ObjectMeta: n.meta("default", nil)})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func made[T client.Object](ctx context.Context, n *Namespace, object T) (T, error) {
	if err := n.cluster.API.Create(ctx, object); err != nil {
		return object, fmt.Errorf("%T %s/%s: %w", object, object.GetNamespace(), object.GetName(), err)
	}
	return object, nil
}

// withPod makes a workload and waits for the pod that its controller makes.
func withPod[T client.Object](ctx context.Context, n *Namespace, workload T) (T, *corev1.Pod, error) {
	if err := n.account(ctx); err != nil {
		return workload, nil, err
	}
	if _, err := made(ctx, n, workload); err != nil {
		return workload, nil, err
	}
	list := &corev1.PodList{}
	changes, err := n.cluster.API.Watch(ctx, list, client.InNamespace(n.Name), client.MatchingLabels{LabelApp: label(workload.GetName())})
	if err != nil {
		return workload, nil, err
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return workload, nil, fmt.Errorf("%T %s/%s: no pod: %w", workload, n.Name, workload.GetName(), context.Cause(ctx))
		case change, open := <-changes.ResultChan():
			if pod, ok := change.Object.(*corev1.Pod); ok && metav1.GetControllerOf(pod) != nil {
				return workload, pod, nil
			}
			if !open {
				return workload, nil, fmt.Errorf("%T %s/%s: no pod: the watch ended", workload, n.Name, workload.GetName())
			}
		}
	}
}

// In is a namespace that exists already and is not the spec's own.
func In(c *cluster.Cluster, name string) *Namespace {
	return &Namespace{Name: name, App: "app", cluster: c}
}
