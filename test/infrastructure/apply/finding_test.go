package apply

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return obj
}

func look(obj *unstructured.Unstructured, v view) finding {
	v.objects = map[Ref]*unstructured.Unstructured{RefOf(obj): obj}
	return v.look(RefOf(obj))
}

func TestLookByStatus(t *testing.T) {
	tests := []struct {
		name, object string
		ready        bool
		headline     string
	}{
		{"a Job that runs is not ready", `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: apps}
status: {startTime: "2026-01-01T00:00:00Z", active: 1}
`, false, "1 pods active, 0 failed"},
		{"a Job that is complete is ready", `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: apps}
status: {conditions: [{type: Complete, status: "True"}]}
`, true, ""},
		{"a Job that failed is final", `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: apps}
status: {conditions: [{type: Failed, status: "True", reason: BackoffLimitExceeded, message: too many}]}
`, false, "BackoffLimitExceeded: too many"},
		{"a Job of which two pods failed is final", `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: apps}
status: {failed: 2}
`, false, "2 pods failed"},
		{"a Deployment whose controller has not seen the change is not ready", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps, generation: 2}
spec: {replicas: 1}
status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, availableReplicas: 1, updatedReplicas: 1}
`, false, "Deployment generation is 2, but latest observed generation is 1"},
		{"a Deployment that may not create pods says why", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps, generation: 1}
spec: {replicas: 1}
status:
  observedGeneration: 1
  conditions: [{type: ReplicaFailure, status: "True", reason: FailedCreate, message: exceeded quota}]
`, false, "FailedCreate: exceeded quota"},
		{"a Deployment that made no progress is final", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps, generation: 1}
spec: {replicas: 1, progressDeadlineSeconds: 60}
status:
  observedGeneration: 1
  conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded, message: timed out}]
`, false, "ProgressDeadlineExceeded: timed out"},
		{"a definition that is established is ready", `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.example.dev}
status: {conditions: [{type: NamesAccepted, status: "True"}, {type: Established, status: "True"}]}
`, true, ""},
		{"a Pod that failed is final", `
apiVersion: v1
kind: Pod
metadata: {name: once, namespace: apps}
status: {phase: Failed}
`, false, "failed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found := look(parse(t, test.object), view{})
			if found.ready != test.ready {
				t.Errorf("ready: got %v, want %v", found.ready, test.ready)
			}
			if !test.ready && found.headline() != test.headline {
				t.Errorf("got %q, want %q", found.headline(), test.headline)
			}
		})
	}

	t.Run("an object that is not there is not ready", func(t *testing.T) {
		if found := (&view{}).look(Ref{Name: "none"}); found.ready || found.reason != "not found" {
			t.Errorf("got %+v, want not found", found)
		}
	})
}

// The API server fills in that one pod must succeed.
func TestAJobIsDoneWithItsPodsAndNotASecondLater(t *testing.T) {
	const job = `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: apps, uid: it}
status: {startTime: "2026-01-01T00:00:00Z", active: 1}
spec: `
	of := func(owner types.UID, phase corev1.PodPhase) *corev1.Pod {
		pod := pod(corev1.PodStatus{Phase: phase})
		controls := true
		pod.OwnerReferences = []metav1.OwnerReference{{UID: owner, Controller: &controls}}
		return pod
	}
	// What the kubelet tells of a pod for a second after its containers have ended.
	ended := func(codes ...int32) *corev1.Pod {
		pod := of("it", corev1.PodRunning)
		for _, code := range codes {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{})
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: code},
			}})
		}
		return pod
	}
	begun := ended(0, 0)
	begun.Status.ContainerStatuses = begun.Status.ContainerStatuses[:1]
	half := ended(0, 0)
	half.Status.ContainerStatuses[1].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	evicted := ended(0)
	evicted.Status.Phase = corev1.PodFailed
	removed := ended(0)
	removed.DeletionTimestamp = &metav1.Time{}
	again := ended(0)
	policy := corev1.ContainerRestartPolicyAlways
	again.Spec.Containers[0].RestartPolicy = &policy
	tests := []struct {
		name, spec string
		pods       []*corev1.Pod
		want       bool
	}{
		{"whose containers have ended", "{completions: 1}", []*corev1.Pod{ended(0, 0)}, true},
		{"one of whose containers has failed", "{completions: 1}", []*corev1.Pod{ended(0, 1)}, false},
		{"one of whose containers runs", "{completions: 1}", []*corev1.Pod{half}, false},
		{"one of whose containers is not there yet", "{completions: 1}", []*corev1.Pod{begun}, false},
		{"whose containers are started again", "{completions: 1}", []*corev1.Pod{again}, false},
		{"whose pod is evicted", "{completions: 1}", []*corev1.Pod{evicted}, false},
		{"whose pod is removed", "{completions: 1}", []*corev1.Pod{removed}, false},
		{"of which one has succeeded", "{completions: 1}", []*corev1.Pod{of("it", corev1.PodFailed), of("it", corev1.PodSucceeded)}, true},
		{"of which one runs", "{completions: 1}", []*corev1.Pod{of("it", corev1.PodRunning)}, false},
		{"of which one of two has", "{completions: 2}", []*corev1.Pod{of("it", corev1.PodSucceeded), of("it", corev1.PodRunning)}, false},
		{"beside one whose pod has", "{completions: 1}", []*corev1.Pod{of("another", corev1.PodSucceeded)}, false},
		{"whose pods decide together", "{parallelism: 1}", []*corev1.Pod{of("it", corev1.PodSucceeded)}, false},
		{"of which each has its part", "{completions: 1, completionMode: Indexed}", []*corev1.Pod{of("it", corev1.PodSucceeded)}, false},
		{"with a policy", "{completions: 1, successPolicy: {rules: [{succeededCount: 1}]}}", []*corev1.Pod{of("it", corev1.PodSucceeded)}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if found := look(parse(t, job+test.spec), view{pods: test.pods}); found.ready != test.want {
				t.Errorf("got ready=%v (%s), want %v", found.ready, found.reason, test.want)
			}
		})
	}
	failed := strings.Replace(job, "active: 1", `conditions: [{type: Failed, status: "True", reason: DeadlineExceeded}]`, 1) + "{completions: 1}"
	if found := look(parse(t, failed), view{pods: []*corev1.Pod{of("it", corev1.PodSucceeded)}}); found.ready {
		t.Error("one that its controller says failed is done")
	}
}

func TestLookAtService(t *testing.T) {
	service := parse(t, `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {clusterIP: 10.0.0.1, selector: {app: web}}
`)
	slice := func(name string, ready bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			Endpoints:  []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		}
	}
	tests := []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   bool
	}{
		{"without addresses", nil, false},
		{"with an address that is not ready", []*discoveryv1.EndpointSlice{slice("web", false)}, false},
		{"with another Service's address", []*discoveryv1.EndpointSlice{slice("web-2", true)}, false},
		{"with a ready address", []*discoveryv1.EndpointSlice{slice("web", false), slice("web", true)}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if found := look(service, view{slices: test.slices}); found.ready != test.want {
				t.Errorf("got ready=%v (%s), want %v", found.ready, found.reason, test.want)
			}
		})
	}
	t.Run("without a selector is ready", func(t *testing.T) {
		bare := service.DeepCopy()
		unstructured.RemoveNestedField(bare.Object, "spec", "selector")
		if found := look(bare, view{}); !found.ready {
			t.Errorf("got %s, want ready", found.reason)
		}
	})
}

// served returns an EndpointSlice of the Service web with one address, of a pod.
func served(uid, address string) *discoveryv1.EndpointSlice {
	yes := true
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", UID: types.UID(uid)},
		}},
	}
}

// listening returns a pod with an address, ready or not.
func listening(uid, address string, ready corev1.ConditionStatus) *corev1.Pod {
	pod := pod(corev1.PodStatus{
		PodIPs:     []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
	})
	pod.UID = types.UID(uid)
	return pod
}

// After a restart of the node the EndpointSlices and the status of workloads stay as they
// were until their controllers run again.
func TestStatusFromBeforeARestartIsNotBelieved(t *testing.T) {
	service := parse(t, `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {clusterIP: 10.0.0.1, selector: {app: web}}
`)
	early := service.DeepCopy()
	if err := unstructured.SetNestedField(early.Object, true, "spec", "publishNotReadyAddresses"); err != nil {
		t.Fatal(err)
	}
	slices := []*discoveryv1.EndpointSlice{served("a", "10.0.0.5")}
	for _, test := range []struct {
		name    string
		service *unstructured.Unstructured
		pods    []*corev1.Pod
		want    bool
	}{
		{"an address of a pod that is ready", service, []*corev1.Pod{listening("a", "10.0.0.5", corev1.ConditionTrue)}, true},
		{"an address of a pod that is not ready", service, []*corev1.Pod{listening("a", "10.0.0.5", corev1.ConditionFalse)}, false},
		{"an address that the pod has no more", service, []*corev1.Pod{listening("a", "10.0.0.9", corev1.ConditionTrue)}, false},
		{"an address of a pod that is gone", service, []*corev1.Pod{listening("b", "10.0.0.5", corev1.ConditionTrue)}, false},
		{"an address of a pod that need not be ready", early, []*corev1.Pod{listening("a", "10.0.0.5", corev1.ConditionFalse)}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if found := look(test.service, view{slices: slices, pods: test.pods}); found.ready != test.want {
				t.Errorf("got ready=%v (%s), want %v", found.ready, found.reason, test.want)
			}
		})
	}

	set := parse(t, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: apps, uid: stateful, generation: 1}
spec: {replicas: 1, updateStrategy: {type: RollingUpdate}}
status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, currentReplicas: 1, updatedReplicas: 1, currentRevision: b, updateRevision: b}
`)
	agents := parse(t, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: apps, uid: daemon, generation: 1, annotations: {deprecated.daemonset.template.generation: "1"}}
status: {observedGeneration: 1, desiredNumberScheduled: 1, currentNumberScheduled: 1, updatedNumberScheduled: 1, numberAvailable: 1, numberReady: 1}
`)
	for _, test := range []struct {
		name     string
		workload *unstructured.Unstructured
		labels   map[string]string
	}{
		{"StatefulSet", set, map[string]string{"controller-revision-hash": "b"}},
		{"DaemonSet", agents, map[string]string{"pod-template-generation": "1"}},
	} {
		t.Run("a "+test.name+" whose pod", func(t *testing.T) {
			pod := owned("it", test.workload.GetUID(), test.labels)
			found := look(test.workload, view{pods: []*corev1.Pod{pod}})
			if want := "Pod it: CrashLoopBackOff: exit 1"; found.ready || found.headline() != want {
				t.Errorf("crashes: got ready=%v (%s), want %s", found.ready, found.headline(), want)
			}
			pod.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
			if found := look(test.workload, view{pods: []*corev1.Pod{pod}}); !found.ready {
				t.Errorf("is ready: got %s", found.headline())
			}
			if found := look(test.workload, view{}); found.ready {
				t.Error("is not there: got ready")
			}
		})
	}
}

func TestServiceOfNoPodsIsReady(t *testing.T) {
	service := parse(t, `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {clusterIP: 10.0.0.1, selector: {app: web}}
`)
	workload := func(name, app string, replicas int64) *unstructured.Unstructured {
		obj := parse(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: apps}
spec: {template: {metadata: {labels: {tier: front}}}}
`)
		obj.SetName(name)
		_ = unstructured.SetNestedField(obj.Object, replicas, "spec", "replicas")
		_ = unstructured.SetNestedField(obj.Object, app, "spec", "template", "metadata", "labels", "app")
		return obj
	}
	for _, test := range []struct {
		name      string
		workloads []*unstructured.Unstructured
		want      bool
	}{
		{"of a Deployment of no replicas", []*unstructured.Unstructured{workload("web", "web", 0)}, true},
		{"of a Deployment of one", []*unstructured.Unstructured{workload("web", "web", 1)}, false},
		{"of two Deployments, one of none", []*unstructured.Unstructured{workload("web", "web", 0), workload("web-2", "web", 1)}, false},
		{"of nothing", []*unstructured.Unstructured{workload("other", "other", 0)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := view{objects: map[Ref]*unstructured.Unstructured{RefOf(service): service}}
			for _, workload := range test.workloads {
				v.objects[RefOf(workload)] = workload
			}
			if found := v.look(RefOf(service)); found.ready != test.want {
				t.Errorf("got ready=%v (%s), want %v", found.ready, found.reason, test.want)
			}
		})
	}
}

// owned returns a crash-looping pod of a controller.
func owned(name string, owner types.UID, labels map[string]string) *corev1.Pod {
	pod := pod(container(waiting(crashLoop), terminated(1), 3))
	yes := true
	pod.Name, pod.Labels = name, labels
	pod.OwnerReferences = []metav1.OwnerReference{{UID: owner, Controller: &yes}}
	return pod
}

func TestOnlyPodsOfTheNewTemplateAreBlamed(t *testing.T) {
	replicaSet := func(uid, owner, revision string) *unstructured.Unstructured {
		return parse(t, `
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-`+uid+`
  namespace: apps
  uid: `+uid+`
  annotations: {deployment.kubernetes.io/revision: "`+revision+`"}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: `+owner+`, controller: true}]
`)
	}
	deployment := `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps, uid: deployment, generation: 2, annotations: {deployment.kubernetes.io/revision: "2"}}
spec: {replicas: 1}
status: {observedGeneration: 2, replicas: 2, updatedReplicas: 1}
`
	unseen := `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps, uid: deployment, generation: 3, annotations: {deployment.kubernetes.io/revision: "2"}}
spec: {replicas: 1}
status: {observedGeneration: 2, replicas: 2, updatedReplicas: 1}
`
	statefulSet := `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: apps, uid: stateful, generation: 2}
spec: {replicas: 1}
status: {observedGeneration: 2, updateRevision: store-b}
`
	daemonSet := `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: apps, uid: daemon, generation: 2, annotations: {deprecated.daemonset.template.generation: "2"}}
status: {observedGeneration: 2, desiredNumberScheduled: 1}
`
	v := view{
		replicaSets: []*unstructured.Unstructured{replicaSet("old", "deployment", "1"), replicaSet("new", "deployment", "2"), replicaSet("other", "elsewhere", "2")},
		pods: []*corev1.Pod{
			owned("web-old", "old", nil), owned("web-new", "new", nil), owned("web-other", "other", nil),
			owned("store-old", "stateful", map[string]string{"controller-revision-hash": "store-a"}),
			owned("store-new", "stateful", map[string]string{"controller-revision-hash": "store-b"}),
			owned("agent-old", "daemon", map[string]string{"pod-template-generation": "1"}),
			owned("agent-new", "daemon", map[string]string{"pod-template-generation": "2"}),
		},
	}
	tests := []struct {
		name, object string
		want         []string
	}{
		{"of a Deployment", deployment, []string{"web-new"}},
		{"not before the controller has seen the change", unseen, nil},
		{"of a StatefulSet", statefulSet, []string{"store-new"}},
		{"of a DaemonSet", daemonSet, []string{"agent-new"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, symptom := range look(parse(t, test.object), v).symptoms {
				got = append(got, symptom.Pod)
			}
			if len(got) != len(test.want) || len(got) > 0 && got[0] != test.want[0] {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
