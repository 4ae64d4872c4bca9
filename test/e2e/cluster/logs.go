package cluster

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// logLines is how far back logs are read: what a service writes in some minutes of a
// suite at its busiest.
const logLines = 20000

// Logs returns the log lines of an app's pods in the services' namespace, of the running
// containers only.
func (c *Cluster) Logs(ctx context.Context, app string) ([]string, error) {
	var pods corev1.PodList
	if err := c.API.List(ctx, &pods, client.InNamespace(c.Target.Namespace), client.MatchingLabels{"app.kubernetes.io/name": app}); err != nil {
		return nil, err
	}
	var lines []string
	tail := int64(logLines)
	for _, pod := range pods.Items {
		raw, err := c.Kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &tail}).DoRaw(ctx)
		if err != nil {
			return lines, fmt.Errorf("Pod/%s: log: %w", pod.Name, err)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(string(raw)), "\n")...)
	}
	return lines, nil
}
