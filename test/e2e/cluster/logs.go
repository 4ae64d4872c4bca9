package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// logLines is how far back logs are read: what a service writes in some minutes of a
// suite at its busiest.
const logLines = 20000

// Logs returns the log lines of an app's ready pods in the services' namespace, of the running
// containers only.
func (c *Cluster) Logs(ctx context.Context, app string) ([]string, error) {
	return c.logs(ctx, ofApp(app), false)
}

// AllLogs is Logs of all pods, with the lines of the containers that ran before in the same
// pods, as far as the kubelet keeps them: those that were killed.
func (c *Cluster) AllLogs(ctx context.Context, app string) ([]string, error) {
	return c.logs(ctx, ofApp(app), true)
}

// LogsOf is AllLogs of the pods with these labels.
func (c *Cluster) LogsOf(ctx context.Context, labels client.MatchingLabels) ([]string, error) {
	return c.logs(ctx, labels, true)
}

func ofApp(name string) client.MatchingLabels {
	return client.MatchingLabels{"app.kubernetes.io/name": name}
}

func (c *Cluster) logs(ctx context.Context, labels client.MatchingLabels, ended bool) ([]string, error) {
	var pods corev1.PodList
	if err := c.API.List(ctx, &pods, client.InNamespace(c.Target.Namespace), labels); err != nil {
		return nil, err
	}
	var lines []string
	var errs []error
	tail := int64(logLines)
	for _, pod := range pods.Items {
		if !ended && !ready(&pod) {
			continue // one that does not start may be gone before it is read
		}
		for _, previous := range []bool{true, false} {
			if previous && (!ended || !restarted(&pod)) {
				continue
			}
			raw, err := c.Kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &tail, Previous: previous}).DoRaw(ctx)
			if err != nil {
				errs = append(errs, fmt.Errorf("Pod/%s: log: %w", pod.Name, err))
				continue
			}
			lines = append(lines, strings.Split(strings.TrimSpace(string(raw)), "\n")...)
		}
	}
	return lines, errors.Join(errs...)
}

// AwaitLog returns when a pod's log has a line that contains text, one that it has or
// gets, and fails when the log ends before.
func (c *Cluster) AwaitLog(ctx context.Context, pod *corev1.Pod, text string) error {
	tail := int64(logLines)
	log, err := c.Kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &tail, Follow: true}).Stream(ctx)
	if err != nil {
		return fmt.Errorf("Pod/%s: log: %w", pod.Name, err)
	}
	defer func() { _ = log.Close() }()
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, text) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("Pod/%s: log ended without %q: %w", pod.Name, text, err)
		}
	}
}

func ready(pod *corev1.Pod) bool {
	return len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].Ready
}

func restarted(pod *corev1.Pod) bool {
	return len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].RestartCount > 0
}
