package gather

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Logs collects the logs of all containers of a cluster: of the one that runs or
// ran last, and of the one before it.
type Logs struct {
	Kubeconfig string // path of a file
}

var _ Collector = Logs{}

// Name implements Collector.
func (Logs) Name() string { return "logs" }

// Collect implements Collector: it writes
// logs/<namespace>/<pod>/<container>.log and <container>.previous.log.
func (l Logs) Collect(ctx context.Context, dir string) error {
	clients, err := connect(l.Kubeconfig)
	if err != nil {
		return err
	}
	return clients.collectLogs(ctx, dir)
}

// logBytes bounds one log; a service that writes a line per request stays far below
// it in a whole run.
const logBytes = 32 << 20

func (c *clients) collectLogs(ctx context.Context, dir string) error {
	pods, err := c.typed.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var wanted []logOf
	for _, pod := range pods.Items {
		wanted = append(wanted, logsOf(&pod)...)
	}
	failures := make([]error, len(wanted))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, log := range wanted {
		group.Go(func() error {
			data, err := c.readLog(ctx, log, logBytes, nil)
			if apierrors.IsNotFound(err) { // the pod went while its log was asked for
				return nil
			}
			if err == nil {
				err = write(dir, "logs/"+log.file(), data)
			}
			if err != nil {
				failures[i] = fmt.Errorf("%s: %w", log.file(), err)
			}
			return nil
		})
	}
	_ = group.Wait() // its functions return no error
	return errors.Join(failures...)
}

// logOf names one log.
type logOf struct {
	namespace, pod, container string
	previous                  bool
}

func (l logOf) file() string {
	name := l.namespace + "/" + l.pod + "/" + l.container
	if l.previous {
		name += ".previous"
	}
	return name + ".log"
}

// logsOf returns the logs that a pod has: a container that never started has none.
func logsOf(pod *corev1.Pod) []logOf {
	var logs []logOf
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		log := logOf{namespace: pod.Namespace, pod: pod.Name, container: status.Name}
		if status.State.Running != nil || status.State.Terminated != nil || status.LastTerminationState.Terminated != nil {
			logs = append(logs, log)
		}
		if status.LastTerminationState.Terminated != nil {
			log.previous = true
			logs = append(logs, log)
		}
	}
	return logs
}

// readLog reads at most limit bytes, of the last lines when tail is not nil.
func (c *clients) readLog(ctx context.Context, log logOf, limit int64, tail *int64) ([]byte, error) {
	return c.typed.CoreV1().Pods(log.namespace).GetLogs(log.pod, &corev1.PodLogOptions{
		Container: log.container, Previous: log.previous, LimitBytes: &limit, TailLines: tail, Timestamps: tail == nil,
	}).DoRaw(ctx)
}
