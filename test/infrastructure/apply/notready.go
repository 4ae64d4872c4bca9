package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// NotReadyError is a wait that ended before everything was ready.
type NotReadyError struct {
	After    time.Duration // how long the wait lasted
	Laggards []Laggard     // every object that was not ready
	Nodes    []string      // what is wrong with the nodes
	Err      error         // why ctx ended; nil when waiting on was useless
}

// Laggard is an object that was not ready.
type Laggard struct {
	Object  Ref
	Reason  string   // the most likely cause, in one line
	Details []string // more symptoms, log lines and warning events, each one line
}

// Error is complete: it names each object with its most likely cause, its pods'
// last log lines and its warning events.
func (e *NotReadyError) Error() string {
	var lines []string
	for _, laggard := range e.Laggards {
		lines = append(lines, fmt.Sprintf("%s: not ready after %s: %s", laggard.Object, e.After.Round(time.Second), laggard.Reason))
		for _, detail := range laggard.Details {
			lines = append(lines, "    "+detail)
		}
	}
	lines = append(lines, e.Nodes...)
	if e.Err != nil && e.Err.Error() != context.DeadlineExceeded.Error() { // the bare sentinel says no more than the time above
		lines = append(lines, "the wait ended: "+e.Err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns why the wait's context ended, nil when it did not.
func (e *NotReadyError) Unwrap() error { return e.Err }

const (
	// explainTimeout bounds the search for causes, which must also work when the
	// wait's own time is over; the API server answers in well under a second.
	explainTimeout = 5 * time.Second
	// logLines and logBytes bound what is read of a container's log: a Go panic with
	// its first stack fits.
	logLines = 20
	logBytes = 64 << 10
	// maxLogs and maxEvents keep an error readable when everything is broken.
	maxLogs   = 4
	maxEvents = 5
)

// notReady explains why objects are not ready, with a context of its own. When the
// wait was cancelled, nobody waits for an explanation and none is looked for.
func (a *Applier) notReady(ctx context.Context, findings []finding, after time.Duration) error {
	result := &NotReadyError{After: after, Err: context.Cause(ctx)}
	slices.SortStableFunc(findings, func(a, b finding) int { return cmp.Compare(a.weight(), b.weight()) })
	for _, found := range findings {
		result.Laggards = append(result.Laggards, Laggard{Object: found.object, Reason: found.headline()})
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return result
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), explainTimeout)
	defer cancel()
	var group errgroup.Group
	for i, found := range findings {
		laggard := &result.Laggards[i]
		group.Go(func() error { a.explain(ctx, found, laggard); return nil })
	}
	group.Go(func() error {
		var err error
		if result.Nodes, err = kube.SickNodes(ctx, a.client); err != nil {
			result.Nodes = []string{"nodes: " + err.Error()}
		}
		return nil
	})
	_ = group.Wait() // its functions return no error
	return result
}

// weight orders findings: those with a cause that ends a wait come first, then
// those with some cause.
func (f finding) weight() time.Duration {
	if len(f.symptoms) == 0 {
		return math.MaxInt64
	}
	return f.symptoms[0].weight()
}

func (f finding) headline() string {
	if len(f.symptoms) == 0 {
		return f.reason
	}
	text := f.symptoms[0].String()
	// That an object failed says little without what its pods did.
	if first := f.firstPod(); first > 0 && f.symptoms[0].pod == "" {
		text += ": " + f.symptoms[first].String()
	}
	return text
}

// firstPod is the index of the gravest symptom of a pod, -1 when no pod has any.
func (f finding) firstPod() int {
	return slices.IndexFunc(f.symptoms, func(s symptom) bool { return s.pod != "" })
}

// explain completes a laggard with logs and events.
func (a *Applier) explain(ctx context.Context, found finding, laggard *Laggard) {
	pods := map[string]bool{}
	logs := 0
	for i, symptom := range found.symptoms {
		pods[symptom.pod] = true
		if !strings.Contains(laggard.Reason, symptom.String()) {
			laggard.Details = append(laggard.Details, symptom.String())
		}
		if symptom.container == "" || symptom.class == classImage || symptom.class == classConfig || logs == maxLogs {
			continue
		}
		lines := a.logTail(ctx, found.object.Namespace, symptom)
		if len(lines) == 0 {
			continue
		}
		logs++
		if i == found.firstPod() {
			laggard.Reason += ": " + lines[len(lines)-1]
		}
		laggard.Details = append(laggard.Details, fmt.Sprintf("log of %s/%s:", symptom.pod, symptom.container))
		for _, line := range lines {
			laggard.Details = append(laggard.Details, "  "+line)
		}
	}
	for _, event := range a.warnings(ctx, found.object, pods) {
		if !strings.Contains(laggard.Reason, event.message) {
			laggard.Details = append(laggard.Details, "event: "+event.object+": "+event.reason+": "+event.message)
		}
	}
}

// logTail returns the last lines of the log that explains a symptom, none when it
// cannot be read.
func (a *Applier) logTail(ctx context.Context, namespace string, symptom symptom) []string {
	// The log of the container before is gone when the node has cleaned up.
	for _, previous := range slices.Compact([]bool{symptom.previous, false}) {
		lines, err := kube.LogTail(ctx, a.client, namespace, symptom.pod, symptom.container, previous, logLines, logBytes)
		if err != nil || len(lines) == 0 {
			continue
		}
		return lines
	}
	return nil
}

// warning is what a warning event says.
type warning struct{ object, reason, message string }

// warnings returns the latest warning events about an object, what it owns by name,
// or one of its pods; of those with the same reason the last one.
func (a *Applier) warnings(ctx context.Context, object Ref, pods map[string]bool) []warning {
	events, err := a.client.CoreV1().Events(object.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=" + corev1.EventTypeWarning})
	if err != nil {
		return []warning{{object.String(), "events", err.Error()}}
	}
	about := func(event corev1.Event) bool {
		involved := event.InvolvedObject
		return involved.Kind == object.Kind && involved.Name == object.Name ||
			involved.Kind == "Pod" && pods[involved.Name] ||
			involved.Kind == "ReplicaSet" && object.Kind == "Deployment" && strings.HasPrefix(involved.Name, object.Name+"-")
	}
	found := filter(events.Items, about)
	slices.SortStableFunc(found, func(a, b corev1.Event) int { return kube.EventTime(a).Compare(kube.EventTime(b)) })
	var warnings []warning
	for _, event := range found {
		said := warning{event.InvolvedObject.Kind + "/" + event.InvolvedObject.Name, event.Reason, kube.OneLine(event.Message)}
		warnings = slices.DeleteFunc(warnings, func(w warning) bool { return w.object == said.object && w.reason == said.reason })
		warnings = append(warnings, said)
	}
	return warnings[max(0, len(warnings)-maxEvents):]
}
