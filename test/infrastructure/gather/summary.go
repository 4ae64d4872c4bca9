package gather

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Summary collects the file to read first: what ended the run, what is not ready, the most
// likely cause first, with the last lines it logged, and the latest warnings. What suites
// made comes last: there pods crash and wait on purpose.
type Summary struct {
	Kubeconfig string // path of a file
	// Namespaces are those that the manifests fill. What lies in others, but for Kubernetes'
	// own, was made by a suite. Empty takes no pod for a suite's.
	Namespaces []string
	Cause      string // what ended the run; empty is left out
}

var _ Collector = Summary{}

// Name implements Collector.
func (Summary) Name() string { return "summary" }

// Collect implements Collector: it writes summary.txt.
func (s Summary) Collect(ctx context.Context, dir string) error {
	clients, err := connect(s.Kubeconfig)
	var text string
	if err == nil {
		text, err = clients.summarize(ctx, s.suites)
	}
	if err != nil {
		text = fmt.Sprintf("The API server does not answer: %v\nLook in node/*/kubelet.log, node/*/containerd.log and node/*/pods.log.\n", err)
	}
	if s.Cause != "" {
		text = fmt.Sprintf("What ended the run\n%s\n\n%s", indent(head(s.Cause, causeLines)), text)
	}
	return write(dir, SummaryFile, []byte(text))
}

const (
	summaryLines    = 15 // of each log: a stack trace's first frames fit
	summaryBytes    = 64 << 10
	summaryWarnings = 30
	suitePods       = 20 // they are in objects/pods.yaml, all of them
	causeLines      = 60 // many failed specs; the rest is in the run's own summary
)

// suites tells whether a namespace is one that a suite made.
func (s Summary) suites(namespace string) bool {
	return len(s.Namespaces) > 0 && namespace != "" && namespace != metav1.NamespaceDefault &&
		!strings.HasPrefix(namespace, "kube-") && !slices.Contains(s.Namespaces, namespace)
}

// head is a text cut after some lines, saying how many more there are.
func head(text string, limit int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) <= limit {
		return strings.Join(lines, "\n")
	}
	return fmt.Sprintf("%s\n... and %d more lines", strings.Join(lines[:limit], "\n"), len(lines)-limit)
}

// trouble is one pod that is not as it should be.
type trouble struct {
	rank int // lower is more likely the cause
	line string
	logs []logOf
}

func (c *clients) summarize(ctx context.Context, suites func(namespace string) bool) (string, error) {
	pods, err := c.typed.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	var troubles []trouble
	var onPurpose []string
	for _, pod := range pods.Items {
		found, ok := examine(&pod)
		switch {
		case ok && suites(pod.Namespace):
			onPurpose = append(onPurpose, found.line)
		case ok:
			troubles = append(troubles, found)
		}
	}
	slices.SortStableFunc(troubles, func(a, b trouble) int { return cmp.Compare(a.rank, b.rank) })
	if len(troubles) == 0 {
		fmt.Fprintf(&out, "All %d pods are well%s.\n", len(pods.Items)-len(onPurpose), but(len(onPurpose)))
	} else {
		fmt.Fprintf(&out, "Pods, the most likely cause first\n")
	}
	for _, trouble := range troubles {
		fmt.Fprintf(&out, "%s\n", indent(trouble.line))
		for _, log := range trouble.logs {
			tail := int64(summaryLines)
			data, err := c.readLog(ctx, log, summaryBytes, &tail)
			if err != nil {
				data = []byte(err.Error())
			}
			if text := strings.TrimSpace(string(data)); text != "" {
				fmt.Fprintf(&out, "%s\n", indent(indent("last lines of "+log.file()+":\n"+indent(text))))
			}
		}
	}
	c.summarizeNodes(ctx, &out)
	c.summarizeWarnings(ctx, &out, suites)
	if len(onPurpose) > 0 {
		fmt.Fprintf(&out, "\nPods that a suite made, perhaps to be like that\n%s\n", indent(head(strings.Join(onPurpose, "\n"), suitePods)))
	}
	return out.String(), nil
}

// but says how many pods of suites are not counted.
func but(suites int) string {
	if suites == 0 {
		return ""
	}
	return fmt.Sprintf(", but for %d that a suite made", suites)
}

func (c *clients) summarizeNodes(ctx context.Context, out *bytes.Buffer) {
	sick, err := kube.SickNodes(ctx, c.typed)
	if err != nil {
		sick = []string{err.Error()}
	}
	if len(sick) > 0 {
		fmt.Fprintf(out, "\nNodes\n%s\n", indent(strings.Join(sick, "\n")))
	}
}

func (c *clients) summarizeWarnings(ctx context.Context, out *bytes.Buffer, suites func(namespace string) bool) {
	events, err := c.events(ctx)
	if err != nil {
		fmt.Fprintf(out, "\nWarnings\n  %v\n", err)
		return
	}
	warnings := slices.DeleteFunc(events, func(event corev1.Event) bool {
		return event.Type != corev1.EventTypeWarning || suites(event.InvolvedObject.Namespace)
	})
	if len(warnings) == 0 {
		return
	}
	fmt.Fprintf(out, "\nWarnings, the latest first\n")
	slices.Reverse(warnings)
	for _, event := range warnings[:min(len(warnings), summaryWarnings)] {
		fmt.Fprintf(out, "  %s\n", describe(event))
	}
}

// The ranks of troubles. A container that does not run comes before a pod that
// nobody takes, and both before one that only waits, perhaps for the others.
const (
	rankBroken = iota
	rankUnscheduled
	rankWaiting
	rankRestarted
)

// harmless are the reasons to wait that every start goes through.
var harmless = []string{"ContainerCreating", "PodInitializing"}

// examine says what is wrong with a pod, if something is.
func examine(pod *corev1.Pod) (trouble, bool) {
	found := trouble{rank: rankRestarted}
	var parts []string
	note := func(rank int, format string, args ...any) {
		found.rank = min(found.rank, rank)
		parts = append(parts, fmt.Sprintf(format, args...))
	}
	if pod.Status.Phase == corev1.PodFailed {
		note(rankBroken, "Failed %s %s", pod.Status.Reason, pod.Status.Message)
	}
	ready := pod.Status.Phase == corev1.PodSucceeded
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			note(rankUnscheduled, "%s: %s", condition.Reason, condition.Message)
		}
		ready = ready || condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	}
	if !ready && pod.DeletionTimestamp == nil {
		note(rankWaiting, "not ready (%s)", cmp.Or(pod.Status.Phase, corev1.PodPending))
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		last, waiting := status.LastTerminationState.Terminated, status.State.Waiting
		if waiting != nil && !slices.Contains(harmless, waiting.Reason) {
			note(rankBroken, "container %s: %s: %s", status.Name, waiting.Reason, waiting.Message)
		}
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			note(rankBroken, "container %s: exit %d %s %s", status.Name, ended.ExitCode, ended.Reason, ended.Message)
		}
		if last != nil {
			note(rankRestarted, "container %s: restarted %d times, last after exit %d %s at %s", status.Name, status.RestartCount,
				last.ExitCode, last.Reason, last.FinishedAt.UTC().Format("15:04:05"))
		}
	}
	if len(parts) == 0 {
		return found, false
	}
	for i, part := range parts {
		parts[i] = strings.TrimRight(kube.OneLine(part), ": ")
	}
	found.line = fmt.Sprintf("Pod/%s/%s: %s", pod.Namespace, pod.Name, strings.Join(parts, "; "))
	found.logs = logsOf(pod)
	return found, true
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
