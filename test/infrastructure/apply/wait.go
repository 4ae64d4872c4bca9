package apply

import (
	"context"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// passive kinds have nothing to wait for: where they exist, they hold.
var passive = []string{
	"Namespace", "ServiceAccount", "PriorityClass", "RuntimeClass", "StorageClass", "ResourceQuota", "LimitRange",
	"ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding", "Secret", "ConfigMap", "PersistentVolume",
	"NetworkPolicy", "PodDisruptionBudget",
}

var (
	podsResource        = corev1.SchemeGroupVersion.WithResource("pods")
	replicaSetsResource = appsv1.SchemeGroupVersion.WithResource("replicasets")
	slicesResource      = discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
)

// Wait watches the changed objects, all at once, until each is ready: workloads
// have rolled out, Jobs are done, Services have an address to send to, custom
// resource definitions are established. Pods are asked themselves: the status of what
// they belong to may be older than the last restart of their node.
//
// It ends with a *NotReadyError when ctx ends, or earlier, when an object can no
// longer become ready: its image is not on the node, it crashes again and again,
// no node takes it, its Job has failed. That error names every object that is not
// ready and wraps the cause of ctx, if it was that.
func (a *Applier) Wait(ctx context.Context, changes ChangeSet) error {
	started := time.Now()
	var refs []Ref
	for _, change := range changes {
		if !slices.Contains(passive, change.Object.Kind) {
			refs = append(refs, change.Object)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	watching, stop := context.WithCancel(ctx)
	w := &watcher{changed: make(chan struct{}, 1), informers: map[source]cache.SharedIndexInformer{}, ended: map[Ref]*unstructured.Unstructured{}}
	defer w.running.Wait()
	defer stop()
	err := kube.Retry(ctx, kube.Transient, func() error { return a.watch(watching, w, refs) })
	if err != nil {
		return err
	}
	var patience patience
	for {
		var laggards []finding
		var again <-chan time.Time
		if w.synced() {
			laggards = w.laggards(refs)
			if len(laggards) == 0 {
				return nil
			}
			final, after := patience.judge(laggards, time.Now())
			if final {
				return a.notReady(ctx, laggards, time.Since(started))
			}
			if after > 0 {
				again = time.After(after)
			}
		}
		select {
		case <-w.changed:
		case <-again:
		case <-ctx.Done():
			if laggards == nil {
				laggards = w.unseen(refs)
			}
			return a.notReady(ctx, laggards, time.Since(started))
		}
	}
}

// source is what one watch covers.
type source struct {
	schema.GroupVersionResource
	namespace string // empty for all
}

// watcher keeps copies of the objects that a wait depends on.
type watcher struct {
	changed   chan struct{} // holds one value when something changed
	running   sync.WaitGroup
	informers map[source]cache.SharedIndexInformer
	kinds     map[Ref]source

	mu      sync.Mutex
	lastErr error                              // what kept a watch from working, last
	ended   map[Ref]*unstructured.Unstructured // Jobs that were deleted after their end
}

// watch starts what is needed to judge refs, unless it runs already.
func (a *Applier) watch(ctx context.Context, w *watcher, refs []Ref) error {
	w.kinds = map[Ref]source{}
	needed := map[source]bool{}
	for _, ref := range refs {
		_, resource, err := a.resource(ctx, ref)
		if err != nil {
			return err
		}
		w.kinds[ref] = source{resource, ref.Namespace}
		needed[w.kinds[ref]] = true
		switch ref.Kind {
		case "Service":
			needed[source{slicesResource, ref.Namespace}] = true
			needed[source{podsResource, ref.Namespace}] = true
		case "Deployment":
			needed[source{replicaSetsResource, ref.Namespace}] = true
			needed[source{podsResource, ref.Namespace}] = true
		case "StatefulSet", "DaemonSet", "ReplicaSet", "Job":
			needed[source{podsResource, ref.Namespace}] = true
		}
	}
	for source := range needed {
		// Not dynamicinformer, which comes with the informers and listers of all kinds, a
		// hundred packages.
		client := a.dynamic.Resource(source.GroupVersionResource).Namespace(source.namespace)
		informer := cache.NewSharedIndexInformer(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return client.List(ctx, options)
			},
			WatchFuncWithContext: client.Watch,
		}, &unstructured.Unstructured{}, 0, nil)
		if err := w.start(ctx, informer); err != nil {
			return err
		}
		w.informers[source] = informer
	}
	return nil
}

// start runs an informer until ctx ends.
func (w *watcher) start(ctx context.Context, informer cache.SharedIndexInformer) error {
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		w.mu.Lock()
		w.lastErr = err
		w.mu.Unlock()
	})
	if err != nil {
		return err
	}
	poke := func() {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(any, any) { poke() },
		DeleteFunc: func(last any) { w.deleted(last); poke() },
	})
	if err != nil {
		return err
	}
	w.running.Go(func() { informer.RunWithContext(kube.Quiet(ctx)) })
	w.running.Go(func() {
		// An empty list is an answer too, but no event.
		if cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			poke()
		}
	})
	return nil
}

// deleted remembers a Job that was deleted after its end, as one is that has
// ttlSecondsAfterFinished: what it did counts.
func (w *watcher) deleted(last any) {
	if unknown, ok := last.(cache.DeletedFinalStateUnknown); ok {
		last = unknown.Obj
	}
	job, ok := last.(*unstructured.Unstructured)
	if !ok || !isJob(job) || jobEnd(job) == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended[RefOf(job)] = job
}

func (w *watcher) synced() bool {
	for _, informer := range w.informers {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

// laggards returns the findings on those of refs that are not ready.
func (w *watcher) laggards(refs []Ref) []finding {
	v := w.view(refs)
	var laggards []finding
	for _, ref := range refs {
		if found := v.look(ref); !found.ready {
			laggards = append(laggards, found)
		}
	}
	return laggards
}

// unseen returns the findings for a cluster that never answered.
func (w *watcher) unseen(refs []Ref) []finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	reason := "the API server has not answered"
	if w.lastErr != nil {
		reason += ": " + w.lastErr.Error()
	}
	laggards := make([]finding, len(refs))
	for i, ref := range refs {
		laggards[i] = finding{object: ref, reason: reason}
	}
	return laggards
}

func (w *watcher) end(ref Ref) *unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended[ref]
}

func (w *watcher) view(refs []Ref) *view {
	v := &view{objects: map[Ref]*unstructured.Unstructured{}}
	for _, ref := range refs {
		key := cache.NewObjectName(w.kinds[ref].namespace, ref.Name).String()
		if item, ok, _ := w.informers[w.kinds[ref]].GetStore().GetByKey(key); ok {
			v.objects[ref], _ = item.(*unstructured.Unstructured)
		} else if job := w.end(ref); job != nil {
			v.objects[ref] = job
		}
	}
	for source, informer := range w.informers {
		items := informer.GetStore().List()
		switch source.GroupVersionResource {
		case podsResource:
			v.pods = append(v.pods, typed[corev1.Pod](items)...)
		case slicesResource:
			v.slices = append(v.slices, typed[discoveryv1.EndpointSlice](items)...)
		case replicaSetsResource:
			for _, item := range items {
				if set, ok := item.(*unstructured.Unstructured); ok {
					v.replicaSets = append(v.replicaSets, set)
				}
			}
		}
	}
	return v
}

// typed converts what an informer holds; the API server sends nothing that cannot
// be converted.
func typed[T any](items []any) []*T {
	var converted []*T
	for _, item := range items {
		obj, ok := item.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		into := new(T)
		if runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into) == nil {
			converted = append(converted, into)
		}
	}
	return converted
}
