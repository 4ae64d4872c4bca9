package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/target"
)

// App is a workload whose pods carry the label app.kubernetes.io/name with its name.
type App struct {
	Namespace string // empty means the services'
	Name      string
	Stateful  bool   // a StatefulSet, else a Deployment
	Label     string // the pods' label; empty means app.kubernetes.io/name=<Name>
}

// Scale sets the number of replicas and does not wait.
func (i *Injector) Scale(ctx context.Context, app App, replicas int32) error {
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	scale.Name, scale.Namespace = app.Name, i.namespace(app)
	if err := i.Cluster.API.SubResource("scale").Update(ctx, i.object(app), client.WithSubResourceBody(scale)); err != nil {
		return fmt.Errorf("%s: scale to %d: %w", app.Name, replicas, err)
	}
	return nil
}

// Down takes an app away: no replicas, its processes killed, its pods gone. The function it
// returns brings as many back as there were and waits until they are ready; it is never nil.
func (i *Injector) Down(ctx context.Context, app App) (up func(context.Context) error, err error) {
	scale := &autoscalingv1.Scale{}
	if err := i.Cluster.API.SubResource("scale").Get(ctx, i.object(app), scale); err != nil {
		return func(context.Context) error { return nil }, fmt.Errorf("%s: scale: %w", app.Name, err)
	}
	up = i.lasting(app.Name+" is away", func(ctx context.Context) error { return i.Up(ctx, app, max(1, scale.Spec.Replicas)) })
	pods, err := i.Pods(ctx, app)
	if err != nil {
		return up, err
	}
	if err := i.Scale(ctx, app, 0); err != nil {
		return up, err
	}
	// Killed once they are to go, not before: the kubelet starts again what ends before it
	// knows, and a process that has just been started hears no SIGTERM, so that the pod
	// would stay for its whole grace period. A process that has ended by itself in between
	// cannot be killed, which is as good.
	if err := i.AwaitPods(ctx, app, doomed); err != nil {
		return up, err
	}
	killed := i.signalAll(ctx, pods, "SIGKILL")
	if err := i.AwaitPods(ctx, app, func(pods []corev1.Pod) bool { return len(pods) == 0 }); err != nil {
		return up, errors.Join(err, killed)
	}
	return up, nil
}

// Up brings an app to this many replicas and waits until exactly these are ready.
func (i *Injector) Up(ctx context.Context, app App, replicas int32) error {
	if err := i.Scale(ctx, app, replicas); err != nil {
		return err
	}
	return i.AwaitReady(ctx, app)
}

// Restart replaces an app's pods as `kubectl rollout restart` does, and waits until the
// new ones are ready and the old ones gone.
func (i *Injector) Restart(ctx context.Context, app App) error {
	i.tell(target.Fault, app.Name+" is restarted")
	stamp := time.Now().Format(time.RFC3339Nano)
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, stamp)
	if err := i.Cluster.API.Patch(ctx, i.object(app), client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return fmt.Errorf("%s: restart: %w", app.Name, err)
	}
	return i.AwaitReady(ctx, app)
}

// Delete deletes an app's pods in order, as an eviction does, and does not wait. It
// returns the pods as they were.
func (i *Injector) Delete(ctx context.Context, app App) ([]corev1.Pod, error) {
	pods, err := i.Pods(ctx, app)
	if err != nil {
		return nil, err
	}
	i.tell(target.Fault, app.Name+"'s pods are deleted")
	for n := range pods {
		if err := i.Cluster.API.Delete(ctx, &pods[n]); err != nil {
			return nil, fmt.Errorf("Pod/%s: delete: %w", pods[n].Name, err)
		}
	}
	return pods, nil
}

// Pods returns an app's pods that are not about to go.
func (i *Injector) Pods(ctx context.Context, app App) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := i.Cluster.API.List(ctx, &list, i.where(app)...); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil }), nil
}

// AwaitReady returns when the app's controller has done what it was last told: as many
// ready pods as wanted, all of the latest template, and no other.
func (i *Injector) AwaitReady(ctx context.Context, app App) error {
	var wanted int
	var err error
	if app.Stateful {
		set := &appsv1.StatefulSet{ObjectMeta: i.meta(app)}
		err = cluster.Await(ctx, i.Cluster, set, func(set *appsv1.StatefulSet) (bool, string) {
			s, replicas := set.Status, *set.Spec.Replicas
			wanted = int(replicas)
			return s.ObservedGeneration >= set.Generation && s.ReadyReplicas == replicas && s.UpdatedReplicas == replicas && s.Replicas == replicas,
				fmt.Sprintf("%d of %d ready, %d current", s.ReadyReplicas, replicas, s.UpdatedReplicas)
		})
	} else {
		deployment := &appsv1.Deployment{ObjectMeta: i.meta(app)}
		err = cluster.Await(ctx, i.Cluster, deployment, func(d *appsv1.Deployment) (bool, string) {
			s, replicas := d.Status, *d.Spec.Replicas
			wanted = int(replicas)
			return s.ObservedGeneration >= d.Generation && s.ReadyReplicas == replicas && s.UpdatedReplicas == replicas && s.Replicas == replicas,
				fmt.Sprintf("%d of %d ready, %d current, %d in all", s.ReadyReplicas, replicas, s.UpdatedReplicas, s.Replicas)
		})
	}
	if err != nil {
		return err
	}
	return i.AwaitPods(ctx, app, func(pods []corev1.Pod) bool {
		return len(pods) == wanted && !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return !ready(&pod) })
	})
}

// AwaitRestart returns when each of these pods of an app has had its process started
// again since, and is ready; one that is gone is not waited for.
func (i *Injector) AwaitRestart(ctx context.Context, app App, before []corev1.Pod) error {
	return i.AwaitPods(ctx, app, func(now []corev1.Pod) bool {
		return !slices.ContainsFunc(now, func(pod corev1.Pod) bool {
			return slices.ContainsFunc(before, func(old corev1.Pod) bool {
				return old.UID == pod.UID && (restarts(&pod) == restarts(&old) || !ready(&pod))
			})
		})
	})
}

// AwaitPods returns when done says that the app's pods, those about to go included, are
// as they should be.
func (i *Injector) AwaitPods(ctx context.Context, app App, done func([]corev1.Pod) bool) error {
	for {
		finished, seen, err := i.followPods(ctx, app, done)
		switch {
		case err != nil && !apierrors.IsResourceExpired(err):
			return fmt.Errorf("%s: pods: %s: %w", app.Name, seen, err)
		case finished:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: pods: %s: %w", app.Name, seen, context.Cause(ctx))
		}
	}
}

func (i *Injector) followPods(ctx context.Context, app App, done func([]corev1.Pod) bool) (bool, string, error) {
	var list corev1.PodList
	if err := i.Cluster.API.List(ctx, &list, i.where(app)...); err != nil {
		return false, "", err
	}
	pods := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		pods[pod.Name] = pod
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}}
	changes, err := i.Cluster.API.Watch(ctx, &corev1.PodList{}, append(i.where(app), from)...)
	if err != nil {
		return false, describe(pods), err
	}
	defer changes.Stop()
	for !done(slices.Collect(maps.Values(pods))) {
		select {
		case <-ctx.Done():
			return false, describe(pods), nil
		case change, open := <-changes.ResultChan():
			if !open {
				return false, describe(pods), nil
			}
			if change.Type == watch.Error {
				return false, describe(pods), apierrors.FromObject(change.Object)
			}
			pod, ok := change.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			if change.Type == watch.Deleted {
				delete(pods, pod.Name)
			} else {
				pods[pod.Name] = *pod
			}
		}
	}
	return true, "", nil
}

// ExitCode waits until the container that runs in this pod has ended and returns its
// code, also when the kubelet has started another in its place or the pod is deleted.
func (i *Injector) ExitCode(ctx context.Context, pod corev1.Pod) (int32, error) {
	id, err := containerID(&pod)
	if err != nil {
		return 0, err
	}
	var code int32
	watched := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	err = cluster.Await(ctx, i.Cluster, watched, func(pod *corev1.Pod) (bool, string) {
		for _, status := range pod.Status.ContainerStatuses {
			for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
				if ended != nil && strings.HasSuffix(ended.ContainerID, id) {
					code = ended.ExitCode
					return true, ""
				}
			}
		}
		return false, "its container has not ended"
	})
	return code, err
}

func (i *Injector) namespace(app App) string {
	if app.Namespace != "" {
		return app.Namespace
	}
	return i.Cluster.Target.Namespace
}

func (i *Injector) meta(app App) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: i.namespace(app), Name: app.Name}
}

func (i *Injector) object(app App) client.Object {
	if app.Stateful {
		return &appsv1.StatefulSet{ObjectMeta: i.meta(app)}
	}
	return &appsv1.Deployment{ObjectMeta: i.meta(app)}
}

func (i *Injector) where(app App) []client.ListOption {
	name, value := "app.kubernetes.io/name", app.Name
	if label, labelled, found := strings.Cut(app.Label, "="); found {
		name, value = label, labelled
	}
	return []client.ListOption{client.InNamespace(i.namespace(app)), client.MatchingLabels{name: value}}
}

// doomed reports whether all pods are about to go.
func doomed(pods []corev1.Pod) bool {
	return !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.DeletionTimestamp == nil })
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, status := range pod.Status.ContainerStatuses {
		n += status.RestartCount
	}
	return n
}

func describe(pods map[string]corev1.Pod) string {
	var parts []string
	for name, pod := range pods {
		parts = append(parts, fmt.Sprintf("%s %s ready=%t", name, pod.Status.Phase, ready(&pod)))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
