package apply

import (
	"cmp"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// view is what the watches show at one moment.
type view struct {
	objects     map[Ref]*unstructured.Unstructured // what is waited for
	replicaSets []*unstructured.Unstructured
	pods        []*corev1.Pod
	slices      []*discoveryv1.EndpointSlice
}

// finding is what a look at one object says.
type finding struct {
	object   Ref
	ready    bool
	reason   string         // what the object lacks, in its own words
	symptoms []kube.Symptom // what may be the cause, the gravest first
}

const (
	deadlineExceeded   = "ProgressDeadlineExceeded"
	revisionAnnotation = "deployment.kubernetes.io/revision"
	// templateGenerationLabel is on the pods of a DaemonSet; k8s.io/api has no name for it.
	templateGenerationLabel = "pod-template-generation"
	// finalJobFailures is how many pods of a Job may fail before the Job is taken for
	// failed, though its own limit may be higher: it waits 10 s before the second.
	finalJobFailures = 2
)

// look says whether an object is ready and, if not, why.
func (v *view) look(ref Ref) finding {
	obj := v.objects[ref]
	if obj == nil {
		return finding{object: ref, reason: "not found"}
	}
	var found finding
	pods := v.podsOf(obj)
	switch ref.GroupKind() {
	case schema.GroupKind{Group: batchv1.GroupName, Kind: "Job"}:
		found = lookAtJob(obj, pods)
	case schema.GroupKind{Kind: "Service"}:
		found = v.lookAtService(obj)
	case schema.GroupKind{Kind: "Pod"}:
		found = lookAtPod(obj)
	default:
		found = lookAtStatus(obj)
	}
	found.object = ref
	if found.ready {
		if waiting := v.notYet(obj, pods); waiting != "" {
			found.ready, found.reason = false, waiting
		}
	}
	if found.ready {
		return found
	}
	for _, pod := range pods {
		found.symptoms = append(found.symptoms, kube.PodSymptoms(pod)...)
	}
	slices.SortStableFunc(found.symptoms, func(a, b kube.Symptom) int { return cmp.Compare(a.Weight(), b.Weight()) })
	return found
}

// lookAtStatus judges by the conventions that all kinds share.
func lookAtStatus(obj *unstructured.Unstructured) finding {
	result, err := status.Compute(obj)
	if err != nil {
		return finding{reason: err.Error()}
	}
	found := finding{ready: result.Status == status.CurrentStatus, reason: result.Message}
	if found.ready {
		return found
	}
	if result.Status == status.FailedStatus {
		failure := kube.Symptom{Class: kube.ClassFailed, Reason: "failed", Message: result.Message}
		for _, condition := range result.Conditions {
			if condition.Reason == deadlineExceeded {
				failure.Reason, failure.Message = deadlineExceeded, condition.Message
			}
		}
		found.symptoms = append(found.symptoms, failure)
	}
	conditions, _ := status.GetObjectWithConditions(obj.Object)
	if conditions == nil {
		return found
	}
	for _, condition := range conditions.Status.Conditions {
		if condition.Type == string(appsv1.DeploymentReplicaFailure) && condition.Status == corev1.ConditionTrue {
			found.symptoms = append(found.symptoms, kube.Symptom{
				Class: kube.ClassRefused, Reason: condition.Reason, Message: condition.Message, Patience: kube.RefusedPatience,
			})
		}
	}
	return found
}

// notYet says that fewer of a workload's pods are ready than it wants, though its status
// counts them: after a restart of the node that status stands until its controller runs
// again. Empty is well.
func (v *view) notYet(obj *unstructured.Unstructured, pods []*corev1.Pod) string {
	wanted, counted := replicas(obj)
	if !counted {
		return ""
	}
	if obj.GetKind() == "StatefulSet" { // an update may be meant for some of its pods only
		pods = filter(v.pods, func(pod *corev1.Pod) bool { return metav1.IsControlledBy(pod, obj) })
	}
	ready := int64(len(filter(pods, kube.IsReady)))
	if ready >= wanted {
		return ""
	}
	return fmt.Sprintf("%d of %d pods ready", ready, wanted)
}

// replicas is how many pods a workload wants, if it is of a kind that says so.
func replicas(obj *unstructured.Unstructured) (wanted int64, counted bool) {
	if obj.GroupVersionKind().Group != appsv1.GroupName {
		return 0, false
	}
	switch obj.GetKind() {
	case "Deployment", "StatefulSet", "ReplicaSet":
	case "DaemonSet":
		wanted, _, _ := unstructured.NestedInt64(obj.Object, "status", "desiredNumberScheduled")
		return wanted, true
	default:
		return 0, false
	}
	wanted, given, _ := unstructured.NestedInt64(obj.Object, "spec", "replicas")
	if !given {
		wanted = 1
	}
	return wanted, true
}

// lookAtJob takes only a Job that is done for ready: kstatus takes a running one.
func lookAtJob(obj *unstructured.Unstructured, pods []*corev1.Pod) finding {
	var job batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &job); err != nil {
		return finding{reason: err.Error()}
	}
	found := finding{reason: fmt.Sprintf("%d pods active, %d failed", job.Status.Active, job.Status.Failed)}
	for _, condition := range job.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			continue
		}
		switch condition.Type {
		case batchv1.JobComplete:
			return finding{ready: true}
		case batchv1.JobFailed:
			found.symptoms = append(found.symptoms, kube.Symptom{Class: kube.ClassFailed, Reason: condition.Reason, Message: condition.Message})
		}
	}
	if len(found.symptoms) == 0 && succeeded(&job, pods) {
		return finding{ready: true}
	}
	if len(found.symptoms) == 0 && job.Status.Failed >= finalJobFailures {
		found.symptoms = append(found.symptoms, kube.Symptom{Class: kube.ClassFailed, Reason: fmt.Sprintf("%d pods failed", job.Status.Failed)})
	}
	return found
}

// succeeded tells whether so many of a Job's pods have done their work as it takes. Its
// controller gathers what they tell for a second before it says that it is complete. Where it
// matters which pods did, or it is not said how many must, the controller decides.
func succeeded(job *batchv1.Job, pods []*corev1.Pod) bool {
	indexed := job.Spec.CompletionMode != nil && *job.Spec.CompletionMode != batchv1.NonIndexedCompletion
	if job.Spec.Completions == nil || job.Spec.SuccessPolicy != nil || indexed {
		return false
	}
	return len(filter(pods, done)) >= int(*job.Spec.Completions)
}

// done tells whether a Job's pod has done its work: it has succeeded, or all of its containers
// have ended well, for good. The kubelet tells of these in milliseconds, and of the pod a
// second later, once it has taken down what they ran in (1.37).
func done(pod *corev1.Pod) bool {
	switch {
	case pod.Status.Phase == corev1.PodSucceeded:
		return true
	case pod.Status.Phase == corev1.PodFailed, pod.DeletionTimestamp != nil:
		return false
	}
	restartable := slices.ContainsFunc(pod.Spec.Containers, func(container corev1.Container) bool { return container.RestartPolicy != nil })
	well := filter(pod.Status.ContainerStatuses, func(status corev1.ContainerStatus) bool {
		return status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
	})
	return !restartable && len(well) > 0 && len(well) == len(pod.Spec.Containers)
}

// lookAtService takes a Service that selects pods for ready when it has an address
// to send to, that of a pod which is ready now, or when nobody asked for pods.
func (v *view) lookAtService(obj *unstructured.Unstructured) finding {
	found := lookAtStatus(obj)
	selector, _, _ := unstructured.NestedMap(obj.Object, "spec", "selector")
	kind, _, _ := unstructured.NestedString(obj.Object, "spec", "type")
	if !found.ready || len(selector) == 0 || kind == string(corev1.ServiceTypeExternalName) {
		return found
	}
	early, _, _ := unstructured.NestedBool(obj.Object, "spec", "publishNotReadyAddresses")
	for _, slice := range v.slices {
		if slice.Namespace != obj.GetNamespace() || slice.Labels[discoveryv1.LabelServiceName] != obj.GetName() {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) && v.serves(endpoint, slice.Namespace, early) {
				return found
			}
		}
	}
	if v.nobodyWanted(obj.GetNamespace(), selector) {
		return found
	}
	return finding{reason: "no ready address"}
}

// serves tells whether an endpoint is that of a pod which has its address and is ready
// now, or need not be. An endpoint of anything else is believed.
func (v *view) serves(endpoint discoveryv1.Endpoint, namespace string, early bool) bool {
	target := endpoint.TargetRef
	if target == nil || target.Kind != "Pod" {
		return true
	}
	return slices.ContainsFunc(v.pods, func(pod *corev1.Pod) bool {
		return pod.Namespace == namespace && pod.UID == target.UID && (early || kube.IsReady(pod)) && slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool {
			return slices.Contains(endpoint.Addresses, ip.IP)
		})
	})
}

// nobodyWanted tells whether the workloads whose pods a selector takes, of those that are
// waited for, want no pods. There is at least one: a selector that takes nothing is a
// mistake.
func (v *view) nobodyWanted(namespace string, selector map[string]any) bool {
	found := false
	for _, obj := range v.objects {
		if obj == nil || obj.GetNamespace() != namespace {
			continue
		}
		wanted, counted := replicas(obj)
		labels, _, _ := unstructured.NestedMap(obj.Object, "spec", "template", "metadata", "labels")
		if !counted || !contains(labels, selector) {
			continue
		}
		if wanted > 0 {
			return false
		}
		found = true
	}
	return found
}

func contains(labels, selector map[string]any) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// lookAtPod takes a failed Pod for failed: kstatus takes it for done.
func lookAtPod(obj *unstructured.Unstructured) finding {
	found := lookAtStatus(obj)
	phase, _, _ := unstructured.NestedString(obj.Object, "status", "phase")
	if phase == string(corev1.PodFailed) {
		return finding{reason: "failed", symptoms: []kube.Symptom{{Class: kube.ClassFailed, Reason: "failed"}}}
	}
	// The pod's own symptoms say more, and have their own patience.
	found.symptoms = nil
	return found
}

// podsOf returns the pods that an object's readiness depends on: those of its
// current template. Pods of the template before are not to blame for a rollout,
// and as long as the controller has not seen the object's last change, no pod is.
func (v *view) podsOf(obj *unstructured.Unstructured) []*corev1.Pod {
	generation := obj.GetGeneration()
	observed, _, _ := unstructured.NestedInt64(obj.Object, "status", "observedGeneration")
	owner, label, value := obj.GetUID(), "", ""
	switch obj.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		return filter(v.pods, func(pod *corev1.Pod) bool { return pod.UID == obj.GetUID() })
	case schema.GroupKind{Group: batchv1.GroupName, Kind: "Job"}:
		observed = generation // Jobs do not tell, and cannot be changed
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "ReplicaSet"}:
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "Deployment"}:
		owner = v.newestReplicaSet(obj)
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "StatefulSet"}:
		label = appsv1.ControllerRevisionHashLabelKey
		value, _, _ = unstructured.NestedString(obj.Object, "status", "updateRevision")
	case schema.GroupKind{Group: appsv1.GroupName, Kind: "DaemonSet"}:
		label, value = templateGenerationLabel, obj.GetAnnotations()[appsv1.DeprecatedTemplateGeneration]
	default:
		return nil
	}
	if observed < generation || owner == "" {
		return nil
	}
	return filter(v.pods, func(pod *corev1.Pod) bool {
		return metav1.GetControllerOf(pod) != nil && metav1.GetControllerOf(pod).UID == owner && pod.Labels[label] == value
	})
}

// newestReplicaSet returns the UID of the ReplicaSet that a Deployment rolls out,
// empty when it is not there yet.
func (v *view) newestReplicaSet(deployment *unstructured.Unstructured) types.UID {
	revision := deployment.GetAnnotations()[revisionAnnotation]
	for _, set := range v.replicaSets {
		controller := metav1.GetControllerOf(set)
		if controller != nil && controller.UID == deployment.GetUID() && revision != "" && set.GetAnnotations()[revisionAnnotation] == revision {
			return set.GetUID()
		}
	}
	return ""
}

func filter[T any](items []T, keep func(T) bool) []T {
	var kept []T
	for _, item := range items {
		if keep(item) {
			kept = append(kept, item)
		}
	}
	return kept
}
