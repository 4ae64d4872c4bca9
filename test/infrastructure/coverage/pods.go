package coverage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Pod is a pod that ran a service, as far as the API server told.
type Pod struct {
	Name       string             `json:"name"`
	Service    string             `json:"service"`             // by its catalog name
	Folder     string             `json:"folder,omitempty"`    // value of GOCOVERDIR; empty when it is not set
	Starts     int                `json:"starts"`              // of its container, those that nobody saw included
	Containers map[string]Process `json:"containers,omitzero"` // by the runtime's id
}

// Process is one run of a pod's container. The times are the kubelet's, whole seconds.
type Process struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"` // zero while it runs
	Exit    int32     `json:"exit"`
	Reason  string    `json:"reason,omitempty"` // e.g. OOMKilled
}

// Observe returns what a pod tells about the services that it runs. service is the
// service of an image, empty for any other image.
func Observe(pod *corev1.Pod, service func(image string) string) []Pod {
	var found []Pod
	for _, container := range pod.Spec.Containers {
		name := service(container.Image)
		if name == "" {
			continue
		}
		seen := Pod{Name: pod.Name, Service: name, Containers: map[string]Process{}}
		for _, env := range container.Env {
			if env.Name == "GOCOVERDIR" {
				seen.Folder = env.Value
			}
		}
		for _, status := range pod.Status.ContainerStatuses {
			if status.Name == container.Name {
				seen.observe(status)
			}
		}
		found = append(found, seen)
	}
	return found
}

func (p *Pod) observe(status corev1.ContainerStatus) {
	if running := status.State.Running; running != nil {
		p.Containers[status.ContainerID] = Process{Started: running.StartedAt.Time}
	}
	for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
		// One that the kubelet lost track of has neither times nor an id.
		if ended != nil && ended.ContainerID != "" {
			p.Containers[ended.ContainerID] = Process{
				Started: ended.StartedAt.Time, Ended: ended.FinishedAt.Time, Exit: ended.ExitCode, Reason: ended.Reason,
			}
		}
	}
	if len(p.Containers) > 0 {
		p.Starts = int(status.RestartCount) + 1
	}
}

// merge adds what was seen later.
func (p Pod) merge(later Pod) Pod {
	containers := maps.Clone(p.Containers)
	if containers == nil {
		containers = map[string]Process{}
	}
	for id, process := range later.Containers {
		if containers[id].Ended.IsZero() {
			containers[id] = process
		}
	}
	later.Starts, later.Containers = max(p.Starts, later.Starts), containers
	return later
}

// processes are those that were seen, the earliest first. A container that could not
// be started ran none; the kubelet's time of its start is 0.
func (p Pod) processes() []Process {
	all := slices.SortedFunc(maps.Values(p.Containers), func(a, b Process) int {
		if order := a.Started.Compare(b.Started); order != 0 {
			return order
		}
		return a.Ended.Compare(b.Ended)
	})
	return slices.DeleteFunc(all, func(process Process) bool { return process.Started.Unix() <= 0 })
}

// ran is how many processes there were, seen or not.
func (p Pod) ran() int { return p.Starts - len(p.Containers) + len(p.processes()) }

// before tells whether the pod has run before a time, to the second: such a pod of a
// Job stays there when a cluster is used again.
func (p Pod) before(when time.Time) bool {
	processes := p.processes()
	return len(processes) > 0 && processes[0].Started.Before(when.Truncate(time.Second))
}

// end says how the last process of the pod ended.
func (p Pod) end() string {
	processes := p.processes()
	if len(processes) == 0 {
		return "how it ended is not known"
	}
	return processes[len(processes)-1].String()
}

// String says how the process ended.
func (p Process) String() string {
	if p.Ended.IsZero() {
		return "its end was not seen"
	}
	text := fmt.Sprintf("exit code %d", p.Exit)
	if p.Exit == 137 {
		text += ", SIGKILL"
	}
	if p.Reason != "" && p.Reason != "Error" && p.Reason != "Completed" {
		text += ", " + p.Reason
	}
	return text
}

// restarts says that a pod ran more than one process, else nothing.
func (p Pod) restarts() string {
	if p.Starts < 2 {
		return ""
	}
	return fmt.Sprintf("restarted %d×, ", p.Starts-1)
}

// key tells a pod's services apart.
func (p Pod) key() string { return strings.Join([]string{p.Service, p.Name}, "/") }
