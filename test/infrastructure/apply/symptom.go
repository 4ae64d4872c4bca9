package apply

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// symptom is one thing that keeps an object from being ready.
type symptom struct {
	pod, container string // empty when it is not about one
	class          class
	reason         string
	message        string
	patience       time.Duration // how long it may last before it counts as final; never means for ever
	previous       bool          // the log that explains it is that of the container before
	held           bool          // a new pod would be tried sooner than this one
	restarts       int32         // of a container that has just crashed again; 0 for any other
}

// class tells kinds of trouble apart whose reason changes while it lasts: an image
// that cannot be pulled alternates between two reasons.
type class string

const (
	classImage       class = "image"
	classConfig      class = "config"
	classCrash       class = "crash"
	classUnscheduled class = "unscheduled"
	classRefused     class = "refused" // the controller may not create pods
	classFailed      class = "failed"  // the object itself says that it failed
	classEvicted     class = "evicted"
	classWaiting     class = "waiting"
)

const (
	never = time.Duration(-1)

	// imagePatience covers the moment in which a kubelet has not yet seen an image
	// that was just imported, or a Secret that was just applied.
	imagePatience = 2 * time.Second
	// schedulePatience covers a node that becomes Ready while the pod waits.
	schedulePatience = 5 * time.Second
	// refusedPatience covers a ServiceAccount or quota that is a moment late: the
	// controller tries again within a second.
	refusedPatience = 5 * time.Second
	// crashPatience lets a container survive crashes while a dependency comes up, however
	// often it is restarted meanwhile. Longer would delay the report of a crash loop
	// beyond 20 s.
	crashPatience = 15 * time.Second
	// finalCrashes is the number of restarts after which another crash is taken for
	// the last one, whatever the time, once nothing else that it may need is coming up.
	finalCrashes = 2
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

// key identifies a symptom while it lasts.
func (s symptom) key() string { return s.pod + "/" + s.container + "/" + string(s.class) }

// String returns, for example, "Pod gateway-7d9f: CrashLoopBackOff: exit 1".
func (s symptom) String() string {
	text := s.reason
	if s.message != "" {
		text += ": " + s.message
	}
	if s.pod != "" {
		text = "Pod " + s.pod + ": " + text
	}
	return text
}

// podSymptoms returns what keeps a pod from being ready, the gravest first. A pod
// that is ready, has done its work or is being deleted has none.
func podSymptoms(pod *corev1.Pod) []symptom {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || isReady(pod) {
		return nil
	}
	var found []symptom
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		found = append(found, symptom{class: classEvicted, reason: pod.Status.Reason, message: pod.Status.Message, patience: never})
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
		found = append(found, symptom{class: classWaiting, reason: cmp.Or(string(pod.Status.Phase), "not seen by a node"), patience: never})
	}
	for i := range found {
		found[i].pod = pod.Name
	}
	slices.SortStableFunc(found, func(a, b symptom) int { return cmp.Compare(a.weight(), b.weight()) })
	return found
}

// weight orders symptoms: those that end a wait soonest come first.
func (s symptom) weight() time.Duration {
	if s.restarts >= finalCrashes {
		return 0
	}
	if s.patience == never {
		return math.MaxInt64 - 1
	}
	return s.patience
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func unscheduled(condition corev1.PodCondition) symptom {
	found := symptom{class: classUnscheduled, reason: condition.Reason, message: condition.Message, patience: never}
	if condition.Reason == corev1.PodReasonUnschedulable {
		found.patience = schedulePatience
	}
	return found
}

// containerSymptom returns what is wrong with one container of a pod that is not
// ready.
func containerSymptom(pod *corev1.Pod, status corev1.ContainerStatus) (symptom, bool) {
	found := symptom{container: status.Name, patience: never}
	last := status.LastTerminationState.Terminated
	switch state := status.State; {
	case state.Waiting != nil && slices.Contains(imageReasons, state.Waiting.Reason):
		found.class, found.reason, found.message = classImage, state.Waiting.Reason, state.Waiting.Message
		found.patience, found.held = imagePatience, true
	case state.Waiting != nil && slices.Contains(configReasons, state.Waiting.Reason):
		found.class, found.reason, found.message = classConfig, state.Waiting.Reason, state.Waiting.Message
		found.patience, found.held = imagePatience, true
	case state.Waiting != nil && (state.Waiting.Reason == crashLoop || failed(last)):
		found.crash(pod, status, last)
		found.reason, found.previous = state.Waiting.Reason, true
	case failed(state.Terminated):
		found.crash(pod, status, state.Terminated)
		found.reason = cmp.Or(state.Terminated.Reason, "Error")
		found.message = strings.Replace(found.message, " ("+found.reason+")", "", 1)
	case state.Running != nil && !status.Ready && failed(last):
		// It may come up this time, and the time of its crashes goes on counting.
		found.crash(pod, status, last)
		found.reason, found.previous = fmt.Sprintf("not ready after %d restarts", status.RestartCount), true
		found.patience = never
	case state.Running != nil && !status.Ready:
		found.class, found.reason = classWaiting, "container "+status.Name+" is running, not ready"
	case state.Waiting != nil:
		found.class, found.reason, found.message = classWaiting, state.Waiting.Reason, state.Waiting.Message
	default:
		return symptom{}, false
	}
	return found, true
}

// crash makes s the symptom of a container that ended as end says.
func (s *symptom) crash(pod *corev1.Pod, status corev1.ContainerStatus, end *corev1.ContainerStateTerminated) {
	s.class, s.message = classCrash, exit(end)
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return // a Job's pod that is not restarted is the Job's to judge
	}
	s.held = true
	s.patience = crashPatience
	looping := status.State.Terminated != nil || status.State.Waiting != nil && status.State.Waiting.Reason == crashLoop
	switch {
	case end != nil && slices.Contains(startReasons, end.Reason):
		s.patience = imagePatience
	case looping:
		s.restarts = status.RestartCount
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
		text += ": " + kube.OneLine(state.Message)
	}
	return text
}
