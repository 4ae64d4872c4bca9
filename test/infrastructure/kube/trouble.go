package kube

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SickNodes says which conditions of nodes are not as they should be, one line each: a
// node that is not Ready, a full disk.
func SickNodes(ctx context.Context, client Interface) ([]string, error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var sick []string
	for _, node := range nodes.Items {
		for _, condition := range node.Status.Conditions {
			good := corev1.ConditionFalse
			if condition.Type == corev1.NodeReady {
				good = corev1.ConditionTrue
			}
			if condition.Status != good {
				sick = append(sick, fmt.Sprintf("Node/%s: %s is %s: %s", node.Name, condition.Type, condition.Status, OneLine(condition.Message)))
			}
		}
	}
	return sick, nil
}

// EventTime is when an event was last seen; which field says so depends on who wrote it.
func EventTime(event corev1.Event) time.Time {
	times := []time.Time{event.CreationTimestamp.Time, event.LastTimestamp.Time, event.EventTime.Time}
	if event.Series != nil {
		times = append(times, event.Series.LastObservedTime.Time)
	}
	return slices.MaxFunc(times, time.Time.Compare)
}

// LogTail returns the last lines of a container's log without the empty ones, read from
// its last limit bytes.
func LogTail(ctx context.Context, client Interface, namespace, pod, container string, previous bool, lines, limit int64) ([]string, error) {
	data, err := client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: container, Previous: previous, TailLines: &lines, LimitBytes: &limit,
	}).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var kept []string
	for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			kept = append(kept, line)
		}
	}
	return kept, nil
}

// OneLine joins the lines and words of a text by single spaces.
func OneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
