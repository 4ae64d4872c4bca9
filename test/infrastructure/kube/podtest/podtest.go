// Package podtest makes the pods that tests of troubled pods are about.
package podtest

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Running is the state of a container that runs.
var Running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

// Waiting is the state of a container that does not run yet.
func Waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

// Terminated is the state of a container whose program has ended.
func Terminated(code int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
}

// Pod is apps/web-1.
func Pod(status corev1.PodStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "apps", UID: "pod-1"},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways},
		Status:     status,
	}
}

// Container is the status of a pod with one container, web.
func Container(state, last corev1.ContainerState, restarts int32) corev1.PodStatus {
	return corev1.PodStatus{
		Phase:             corev1.PodRunning,
		ContainerStatuses: []corev1.ContainerStatus{{Name: "web", State: state, LastTerminationState: last, RestartCount: restarts}},
	}
}
