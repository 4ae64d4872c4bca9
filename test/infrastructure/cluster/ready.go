package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Ready waits, by watch, until every node of the cluster is Ready. kind's own wait
// is not used: it spins, and its timeout prints a warning and returns success. When ctx
// ends first, the error says what each node lacks, or why the API server cannot be asked.
func (k Kind) Ready(ctx context.Context) error {
	client, err := kube.Client(k.Kubeconfig)
	if err != nil {
		return err
	}
	return k.nodesReady(ctx, client, nil)
}

// nodesReady waits until every node is Ready, and has said so since its container started,
// where that is known by the node's name.
func (k Kind) nodesReady(ctx context.Context, client kube.Interface, started map[string]time.Time) error {
	var reasons []string
	err := kube.Until(ctx, kube.From(client.CoreV1().Nodes(), nil), nil, func(nodes []*corev1.Node) bool {
		reasons = nil
		for _, node := range nodes {
			if reason := notReady(node, started[node.Name]); reason != "" {
				reasons = append(reasons, fmt.Sprintf("Node/%s: not ready: %s", node.Name, reason))
			}
		}
		return len(nodes) > 0 && len(reasons) == 0
	})
	return k.explain(err, reasons, "its API server shows no node")
}

// podsSeen waits until no pod's status is older than the start of its node's container: one
// that names a process which ran before that is what the kubelet has not yet looked at
// again, however ready it says the pod is. With ready it also waits until every pod is that
// has not come to its end, but for the control plane's, whose probes look every ten seconds:
// what they do shows in the others.
func (k Kind) podsSeen(ctx context.Context, client kube.Interface, started map[string]time.Time, ready bool) error {
	retries := retries{client: client, pending: map[types.UID]bool{}}
	defer retries.all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reasons []string
	err := kube.Until(ctx, kube.From(client.CoreV1().Pods(""), nil), nil, func(pods []*corev1.Pod) bool {
		reasons = nil
		for _, pod := range pods {
			if unread(pod) {
				retries.soon(ctx, pod)
			}
			if unseen(pod, started[pod.Spec.NodeName]) {
				reasons = append(reasons, fmt.Sprintf("Pod/%s/%s: its status is from before the restart", pod.Namespace, pod.Name))
			} else if ready && !kube.IsReady(pod) && !ended(pod) && pod.Annotations[corev1.MirrorPodAnnotationKey] == "" {
				reasons = append(reasons, fmt.Sprintf("Pod/%s/%s: is not ready again", pod.Namespace, pod.Name))
			}
		}
		return len(reasons) == 0
	})
	return k.explain(err, reasons, "its API server shows no pod")
}

// unread tells whether a container of the pod waits because its kubelet had not read the
// Services when it was to start it, as happens to one that was started before its API server.
// By itself the kubelet tries again after ten to fifteen seconds.
func unread(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses), func(status corev1.ContainerStatus) bool {
		waiting := status.State.Waiting
		return waiting != nil && waiting.Reason == "CreateContainerConfigError" && strings.HasPrefix(waiting.Message, "services have not yet been read")
	})
}

// retries have kubelets look at pods again: they do when a pod changes, whatever it is.
type retries struct {
	client  kube.Interface
	all     sync.WaitGroup
	mu      sync.Mutex
	pending map[types.UID]bool
}

// retryAnnotation holds when a pod was changed for that, last.
const retryAnnotation = "e2e.kubernaut.ai/retried"

// retryPause is what a kubelet gets to read the Services. What changes a pod shows the pod
// again, so that there is another try if it is still needed.
const retryPause = 200 * time.Millisecond

// soon changes the pod after a pause, unless that is about to be done. It does not block; an
// error is of no interest to anybody who waits for the pod.
func (r *retries) soon(ctx context.Context, pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[pod.UID] {
		return
	}
	r.pending[pod.UID] = true
	r.all.Go(func() {
		pause := time.NewTimer(retryPause)
		defer pause.Stop()
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		r.mu.Lock()
		r.pending[pod.UID] = false
		r.mu.Unlock()
		change := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, pod.UID, retryAnnotation, time.Now().Format(time.RFC3339Nano))
		_ = kube.Retry(ctx, kube.Transient, func() error {
			_, err := r.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, change, metav1.PatchOptions{})
			return err
		})
	})
}

// alive waits until every kubelet has renewed its lease since a time. It does so every ten
// seconds, and at once when it starts.
func (k Kind) alive(ctx context.Context, client kube.Interface, since time.Time) error {
	var reasons []string
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	err := kube.Until(ctx, kube.From(leases, nil), nil, func(leases []*coordinationv1.Lease) bool {
		reasons = nil
		for _, lease := range leases {
			if lease.Spec.RenewTime == nil || !lease.Spec.RenewTime.After(since) {
				reasons = append(reasons, fmt.Sprintf("Node/%s: its kubelet has not reported since it was continued", lease.Name))
			}
		}
		return len(leases) > 0 && len(reasons) == 0
	})
	return k.explain(err, reasons, "its API server shows no kubelet")
}

// reached waits until the API server's own Service leads to nodes that are there. Engines give
// a node that is started another address when theirs was taken meanwhile, and what runs in the
// pods would be sent to the one of before as well.
func (k Kind) reached(ctx context.Context, client kube.Interface) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			there[address.Address] = true
		}
	}
	var reasons []string
	ofAPIServer := func(o *metav1.ListOptions) { o.LabelSelector = discoveryv1.LabelServiceName + "=kubernetes" }
	slicesOf := kube.From(client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault), ofAPIServer)
	err = kube.Until(ctx, slicesOf, nil, func(endpoints []*discoveryv1.EndpointSlice) bool {
		reasons = nil
		for _, slice := range endpoints {
			for _, endpoint := range slice.Endpoints {
				for _, address := range endpoint.Addresses {
					if !there[address] {
						reasons = append(reasons, fmt.Sprintf("Service/%s/kubernetes: still leads to %s, which is no node's address", slice.Namespace, address))
					}
				}
			}
		}
		return len(endpoints) > 0 && len(reasons) == 0
	})
	return k.explain(err, reasons, "Service/default/kubernetes leads nowhere")
}

// explain adds to the end of a wait what was waited for.
func (k Kind) explain(err error, reasons []string, none string) error {
	if err == nil {
		return nil
	}
	if len(reasons) == 0 {
		reasons = []string{"cluster " + k.Name + ": " + none}
	}
	slices.Sort(reasons)
	return fmt.Errorf("%s: %w", strings.Join(reasons, "\n"), err)
}

// notReady is why a node is not Ready, or empty.
func notReady(node *corev1.Node, started time.Time) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		switch {
		case condition.Status != corev1.ConditionTrue:
			return condition.Message
		case condition.LastHeartbeatTime.Time.Before(started.Truncate(time.Second)): // the API's times are whole seconds
			return "its kubelet has not reported since it was started"
		}
		return ""
	}
	return "its kubelet has not reported yet"
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// unseen tells whether a pod's status is older than the start of its node's container.
func unseen(pod *corev1.Pod, started time.Time) bool {
	if started.IsZero() {
		return false
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if running := status.State.Running; running != nil && running.StartedAt.Time.Before(started.Truncate(time.Second)) {
			return true
		}
	}
	return false
}

// latest is the latest of the nodes' starts.
func latest(started map[string]time.Time) time.Time {
	return slices.MaxFunc(append(slices.Collect(maps.Values(started)), time.Time{}), time.Time.Compare)
}
