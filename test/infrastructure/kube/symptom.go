package kube

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Symptom is one thing that keeps an object from being ready.
type Symptom struct {
	Pod, Container string // empty when it is not about one
	Class          Class
	Reason         string
	Message        string
	Patience       time.Duration // how long it may last before it counts as final; Never means for ever
	Previous       bool          // the log that explains it is that of the container before
	Held           bool          // a new pod would be tried sooner than this one
	Restarts       int32         // of a container that has just crashed again; 0 for any other
}

// Class tells kinds of trouble apart whose reason changes while it lasts: an image
// that cannot be pulled alternates between two reasons.
type Class string

// The classes.
const (
	ClassImage       Class = "image"
	ClassConfig      Class = "config"
	ClassCrash       Class = "crash"
	ClassUnscheduled Class = "unscheduled"
	ClassRefused     Class = "refused" // the controller may not create pods
	ClassFailed      Class = "failed"  // the object itself says that it failed
	ClassEvicted     Class = "evicted"
	ClassWaiting     Class = "waiting"
)

const (
	// Never is the patience with what may last for ever.
	Never = time.Duration(-1)

	// ImagePatience covers the moment in which a kubelet has not yet seen an image
	// that was just imported, or a Secret that was just applied.
	ImagePatience = 2 * time.Second
	// SchedulePatience covers a node that becomes Ready while the pod waits.
	SchedulePatience = 5 * time.Second
	// RefusedPatience covers a ServiceAccount or quota that is a moment late: the
	// controller tries again within a second.
	RefusedPatience = 5 * time.Second
	// CrashPatience lets a container survive crashes while a dependency comes up, however
	// often it is restarted meanwhile. Longer would delay the report of a crash loop
	// beyond 20 s.
	CrashPatience = 15 * time.Second
	// FinalCrashes is the number of restarts after which another crash is taken for
	// the last one, whatever the time, once nothing else that it may need is coming up.
	FinalCrashes = 2
)

// imageReasons and configReasons are the reasons for which a kubelet does not start
// a container, by what is at fault.
var (
	imageReasons  = []string{"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable"}
	configReasons = []string{"CreateContainerConfigError", "CreateContainerError"}
	// startReasons are those of a container whose program could not be started at all.
	startReasons = []string{"StartError", "ContainerCannotRun"}
)

const crashLoop = "CrashLoopBackOff"

// Key identifies a symptom while it lasts.
func (s Symptom) Key() string { return s.Pod + "/" + s.Container + "/" + string(s.Class) }

// String returns, for example, "Pod gateway-7d9f: CrashLoopBackOff: exit 1".
func (s Symptom) String() string {
	text := s.Reason
	if s.Message != "" {
		text += ": " + s.Message
	}
	if s.Pod != "" {
		text = "Pod " + s.Pod + ": " + text
	}
	return text
}

// PodSymptoms returns what keeps a pod from being ready, the gravest first. A pod
// that is ready, has done its work or is being deleted has none.
func PodSymptoms(pod *corev1.Pod) []Symptom {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || IsReady(pod) {
		return nil
	}
	var found []Symptom
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		found = append(found, Symptom{Class: ClassEvicted, Reason: pod.Status.Reason, Message: pod.Status.Message, Patience: Never})
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			found = append(found, unscheduled(condition))
		}
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if symptom, ok := containerSymptom(pod, status); ok {
			found = append(found, symptom)
		}
	}
	if len(found) == 0 {
		found = append(found, Symptom{Class: ClassWaiting, Reason: cmp.Or(string(pod.Status.Phase), "not seen by a node"), Patience: Never})
	}
	for i := range found {
		found[i].Pod = pod.Name
	}
	slices.SortStableFunc(found, func(a, b Symptom) int { return cmp.Compare(a.Weight(), b.Weight()) })
	return found
}

// Weight orders symptoms: those that end a wait soonest come first.
func (s Symptom) Weight() time.Duration {
	if s.Restarts >= FinalCrashes {
		return 0
	}
	if s.Patience == Never {
		return math.MaxInt64 - 1
	}
	return s.Patience
}

// IsReady tells whether a pod says that it is ready.
func IsReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func unscheduled(condition corev1.PodCondition) Symptom {
	found := Symptom{Class: ClassUnscheduled, Reason: condition.Reason, Message: condition.Message, Patience: Never}
	if condition.Reason == corev1.PodReasonUnschedulable {
		found.Patience = SchedulePatience
	}
	return found
}

// containerSymptom returns what is wrong with one container of a pod that is not
// ready.
func containerSymptom(pod *corev1.Pod, status corev1.ContainerStatus) (Symptom, bool) {
	found := Symptom{Container: status.Name, Patience: Never}
	last := status.LastTerminationState.Terminated
	switch state := status.State; {
	case state.Waiting != nil && slices.Contains(imageReasons, state.Waiting.Reason):
		found.Class, found.Reason, found.Message = ClassImage, state.Waiting.Reason, state.Waiting.Message
		found.Patience, found.Held = ImagePatience, true
	case state.Waiting != nil && slices.Contains(configReasons, state.Waiting.Reason):
		found.Class, found.Reason, found.Message = ClassConfig, state.Waiting.Reason, state.Waiting.Message
		found.Patience, found.Held = ImagePatience, true
	case state.Waiting != nil && (state.Waiting.Reason == crashLoop || failed(last)):
		found.crash(pod, status, last)
		found.Reason, found.Previous = state.Waiting.Reason, true
	case failed(state.Terminated):
		found.crash(pod, status, state.Terminated)
		found.Reason = cmp.Or(state.Terminated.Reason, "Error")
		found.Message = strings.Replace(found.Message, " ("+found.Reason+")", "", 1)
	case state.Running != nil && !status.Ready && failed(last):
		// It may come up this time, and the time of its crashes goes on counting.
		found.crash(pod, status, last)
		found.Reason, found.Previous = fmt.Sprintf("not ready after %d restarts", status.RestartCount), true
		found.Patience = Never
	case state.Running != nil && !status.Ready:
		found.Class, found.Reason = ClassWaiting, "container "+status.Name+" is running, not ready"
	case state.Waiting != nil:
		found.Class, found.Reason, found.Message = ClassWaiting, state.Waiting.Reason, state.Waiting.Message
	default:
		return Symptom{}, false
	}
	return found, true
}

// crash makes s the symptom of a container that ended as end says.
func (s *Symptom) crash(pod *corev1.Pod, status corev1.ContainerStatus, end *corev1.ContainerStateTerminated) {
	s.Class, s.Message = ClassCrash, exit(end)
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return // a Job's pod that is not restarted is the Job's to judge
	}
	s.Held = true
	s.Patience = CrashPatience
	looping := status.State.Terminated != nil || status.State.Waiting != nil && status.State.Waiting.Reason == crashLoop
	switch {
	case end != nil && slices.Contains(startReasons, end.Reason):
		s.Patience = ImagePatience
	case looping:
		s.Restarts = status.RestartCount
	}
}

func failed(state *corev1.ContainerStateTerminated) bool {
	return state != nil && (state.ExitCode != 0 || state.Signal != 0)
}

// exit says how a container ended: "exit 1", "exit 137 (OOMKilled)".
func exit(state *corev1.ContainerStateTerminated) string {
	if state == nil {
		return ""
	}
	text := fmt.Sprintf("exit %d", state.ExitCode)
	if state.Reason != "" && state.Reason != "Error" && state.Reason != "Completed" {
		text += " (" + state.Reason + ")"
	}
	if state.Message != "" {
		text += ": " + OneLine(state.Message)
	}
	return text
}
