// Package monitor watches what a run uses: the machine, as its kernel counts, and the apps
// in the cluster, as the nodes' kubelets do. At the end it asks what the cluster warned of.
// What cannot be read is left out: the run is about something else.
package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/kube"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

const (
	// usualPeriod is how often the machine is looked at, which costs a fraction of a millisecond.
	usualPeriod = 2 * time.Second
	// podPeriods is how many periods lie between two looks at the pods: a kubelet counts
	// anew about every ten seconds.
	podPeriods = 5
	// answerTimeout bounds a question to an API server, which a spec may have frozen.
	answerTimeout = 3 * time.Second
)

// Options say what is watched.
type Options struct {
	Period     time.Duration // how often; 0 means two seconds
	Proc       string        // where the kernel's figures are, /proc
	Kubeconfig string        // path of a file that may come later
	Namespaces []string      // whose pods are watched: those of suites break on purpose
	// Connect returns a client of the cluster; nil means by Kubeconfig.
	Connect func() (kube.Interface, error)
}

// Monitor watches until it is stopped.
type Monitor struct {
	opts   Options
	record *timeline.Recorder
	stop   context.CancelFunc
	done   sync.WaitGroup

	client  kube.Interface // nil until there is a cluster
	machine sample
	pods    map[string]sample // by namespace and name
}

// sample is CPU time at a moment.
type sample struct {
	at   time.Time
	used time.Duration
}

// cores is how many cores were used since a sample before; false if that is not known.
func (s sample) cores(before sample) (float64, bool) {
	took := s.at.Sub(before.at)
	if before.at.IsZero() || took <= 0 || s.used < before.used {
		return 0, false
	}
	return float64(s.used-before.used) / float64(took), true
}

// Start begins to watch, and records what it sees.
func Start(ctx context.Context, opts Options, record *timeline.Recorder) *Monitor {
	if opts.Connect == nil {
		opts.Connect = func() (kube.Interface, error) { return kube.Client(opts.Kubeconfig) }
	}
	ctx, cancel := context.WithCancel(kube.Quiet(ctx))
	m := &Monitor{opts: opts, record: record, stop: cancel, pods: map[string]sample{}}
	m.done.Go(func() { m.watch(ctx) })
	return m
}

func (m *Monitor) watch(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(m.opts.Period, usualPeriod))
	defer tick.Stop()
	for i := 0; ; i++ {
		m.lookAtMachine()
		if i%podPeriods == 0 {
			m.lookAtPods(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Stop ends the watch and notes what the cluster warned of, and which containers were
// started again, unless ctx has ended. A nil monitor watches nothing.
func (m *Monitor) Stop(ctx context.Context) {
	if m == nil {
		return
	}
	m.stop()
	m.done.Wait()
	if ctx.Err() == nil && m.connected() {
		m.record.Note(m.warnings(kube.Quiet(ctx))...)
	}
}

// Machine is what the usage of the whole machine is recorded as.
const Machine = "machine"

func (m *Monitor) lookAtMachine() {
	proc, err := procfs.NewFS(m.opts.Proc)
	if err != nil {
		return // another system
	}
	stat, err := proc.Stat()
	if err != nil {
		return
	}
	memory, err := proc.Meminfo()
	if err != nil || memory.MemTotal == nil || memory.MemAvailable == nil {
		return
	}
	// Waiting for a disk is waiting.
	cpu := stat.CPUTotal
	now := sample{time.Now(), time.Duration((cpu.User + cpu.Nice + cpu.System + cpu.IRQ + cpu.SoftIRQ + cpu.Steal) * float64(time.Second))}
	if cores, known := now.cores(m.machine); known {
		m.record.Measure(timeline.Usage{At: now.at, Of: Machine, Cores: cores, Bytes: int64(*memory.MemTotal-*memory.MemAvailable) << 10})
	}
	m.machine = now
}

func (m *Monitor) connected() bool {
	if m.client == nil {
		m.client, _ = m.opts.Connect() // there is no cluster yet
	}
	return m.client != nil
}

// summary is the part of a kubelet's statistics that is read here, see
// https://pkg.go.dev/k8s.io/kubelet/pkg/apis/stats/v1alpha1#Summary.
type summary struct {
	Pods []struct {
		PodRef struct{ Name, Namespace string }
		CPU    struct {
			Time                 time.Time
			UsageCoreNanoSeconds int64
		}
		Memory struct{ WorkingSetBytes int64 }
	}
}

// lookAtPods asks each node's kubelet what pods use, and adds those of an app up.
func (m *Monitor) lookAtPods(ctx context.Context) {
	if !m.connected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	nodes, err := m.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		m.client = nil // the cluster may be made anew, at another address
		return
	}
	apps := map[string]timeline.Usage{}
	for _, node := range nodes.Items {
		data, err := m.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node.Name).SubResource("proxy").Suffix("stats/summary").DoRaw(ctx)
		var found summary
		if err != nil || json.Unmarshal(data, &found) != nil {
			continue
		}
		for _, pod := range found.Pods {
			if !slices.Contains(m.opts.Namespaces, pod.PodRef.Namespace) {
				continue
			}
			key := pod.PodRef.Namespace + "/" + pod.PodRef.Name
			now := sample{pod.CPU.Time, time.Duration(pod.CPU.UsageCoreNanoSeconds)}
			cores, _ := now.cores(m.pods[key])
			m.pods[key] = now
			app := app(pod.PodRef.Name)
			sum := apps[app]
			apps[app] = timeline.Usage{At: now.at, Of: app, Cores: sum.Cores + cores, Bytes: sum.Bytes + pod.Memory.WorkingSetBytes}
		}
	}
	for _, usage := range apps {
		m.record.Measure(usage)
	}
}

// generated is what Deployments and Jobs, and StatefulSets, add to their pods' names.
var generated = regexp.MustCompile(`(-[a-z0-9]{6,10})?-[a-z0-9]{5}$|-\d+$`)

// app is what a pod is one of.
func app(pod string) string { return generated.ReplaceAllString(pod, "") }

// warnings are the events that are warnings, and the last start anew of each container.
func (m *Monitor) warnings(ctx context.Context) []timeline.Event {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var found []timeline.Event
	for _, namespace := range m.opts.Namespaces {
		events, err := m.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=" + corev1.EventTypeWarning, ResourceVersion: "0"})
		if err != nil {
			return found
		}
		for _, event := range events.Items {
			found = append(found, timeline.Event{
				Kind: "warning", Name: event.InvolvedObject.Kind + "/" + event.InvolvedObject.Name, Start: kube.EventTime(event),
				Detail: fmt.Sprintf("%s: %s", event.Reason, kube.OneLine(event.Message)),
			})
		}
		pods, err := m.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return found
		}
		for _, pod := range pods.Items {
			for _, status := range pod.Status.ContainerStatuses {
				if last := status.LastTerminationState.Terminated; last != nil {
					found = append(found, timeline.Event{
						Kind: "restart", Name: "Pod/" + pod.Name, Start: last.FinishedAt.Time,
						Detail: fmt.Sprintf("%s ended with %d (%s), started again %d times", status.Name, last.ExitCode, last.Reason, status.RestartCount),
					})
				}
			}
		}
	}
	return found
}
