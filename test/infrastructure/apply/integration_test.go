//go:build integration

package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// testConfig reaches the API server that all tests share.
var testConfig *rest.Config

func TestMain(m *testing.M) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "KUBEBUILDER_ASSETS is not set; run: go tool mage test:integration")
		os.Exit(1)
	}
	server := &envtest.Environment{}
	config, err := server.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		os.Exit(1)
	}
	testConfig = config
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the API server:", err)
	}
	os.Exit(code)
}

// connect returns an Applier and a namespace of the test's own.
func connect(t *testing.T) (*Applier, string) {
	t.Helper()
	a, err := New(testConfig, Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := a.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "apply-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a, namespace.Name
}

// objects parses YAML documents; NS stands for the namespace.
func objects(t *testing.T, namespace, text string) []*unstructured.Unstructured {
	t.Helper()
	var objs []*unstructured.Unstructured
	for doc := range strings.SplitSeq(strings.ReplaceAll(text, "NS", namespace), "\n---\n") {
		objs = append(objs, parse(t, doc))
	}
	return objs
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustApply(t *testing.T, a *Applier, objs []*unstructured.Unstructured) ChangeSet {
	t.Helper()
	changes, err := a.Apply(within(t, 30*time.Second), objs)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

const component = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec:
  selector: {app: web}
  ports: [{name: api, port: 80}]
---
apiVersion: v1
kind: Secret
metadata: {name: credentials, namespace: NS, annotations: {e2e.kubernaut.ai/random: password}}
stringData: {user: me}
---
apiVersion: v1
kind: Secret
metadata: {name: server-tls, namespace: NS, annotations: {e2e.kubernaut.ai/certificate: "web,127.0.0.1"}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: ConfigMap
metadata: {name: e2e-ca, namespace: NS, annotations: {e2e.kubernaut.ai/ca-bundle: "true"}}
---
apiVersion: v1
kind: Secret
metadata: {name: e2e-ca-key, namespace: NS, annotations: {e2e.kubernaut.ai/certificate-authority: "true"}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: NS}
`

func TestApplyConverges(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	objs := objects(t, namespace, component)

	first := mustApply(t, a, objs)
	if got, want := first.Summary(), "7 created"; got != want {
		t.Fatalf("got %q, want %q:\n%s", got, want, first)
	}
	if first[0].Object.Name != AuthoritySecret || first[1].Object.Kind != "ServiceAccount" || first[6].Object.Kind != "Deployment" {
		t.Errorf("applied in the wrong order:\n%s", first)
	}
	before, err := a.client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}

	second := mustApply(t, a, objs)
	if got, want := second.Summary(), "7 unchanged"; got != want {
		t.Errorf("applied again: got %q, want %q:\n%s", got, want, second)
	}
	after, err := a.client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range before.Items {
		for key, value := range before.Items[i].Data {
			if string(after.Items[i].Data[key]) != string(value) {
				t.Errorf("Secret %s: %s changed", before.Items[i].Name, key)
			}
		}
	}

	t.Run("a changed field is configured and a removed one removed", func(t *testing.T) {
		changed := objects(t, namespace, strings.ReplaceAll(component, "stringData: {user: me}", "stringData: {login: me}"))
		if got, want := mustApply(t, a, changed).Summary(), "1 configured, 6 unchanged"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		secret, err := a.client.CoreV1().Secrets(namespace).Get(t.Context(), "credentials", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := secret.Data["user"]; ok || string(secret.Data["login"]) != "me" || len(secret.Data["password"]) != 32 {
			t.Errorf("got keys of %d values, want login and password only", len(secret.Data))
		}
	})

	t.Run("fields of others are kept and conflicting ones taken over", func(t *testing.T) {
		_, err := a.client.AppsV1().Deployments(namespace).Patch(t.Context(), "web", types.StrategicMergePatchType,
			[]byte(`{"spec":{"replicas":3,"template":{"spec":{"containers":[{"name":"web","image":"other"}]}}}}`), metav1.PatchOptions{FieldManager: "kubectl"})
		if err != nil {
			t.Fatal(err)
		}
		mustApply(t, a, objs)
		web, err := a.client.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if *web.Spec.Replicas != 3 || web.Spec.Template.Spec.Containers[0].Image != "web" {
			t.Errorf("got %d replicas of %s, want 3 of web", *web.Spec.Replicas, web.Spec.Template.Spec.Containers[0].Image)
		}
	})
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	tests := []struct {
		name, objects string
		want          []string
	}{
		{"unknown fields, every object at once", `
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: NS}
dta: {x: y}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: good, namespace: NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: NS}
immutible: true
`, []string{"ConfigMap/NS/a: apply: ", ".dta", "ConfigMap/NS/b: apply: ", ".immutible"}},
		{"an object that lacks its namespace", `
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
`, []string{"ConfigMap/a: apply: metadata.namespace: ConfigMap needs one"}},
		{"a kind that nobody defined", `
apiVersion: example.dev/v1
kind: Nothing
metadata: {name: a, namespace: NS}
`, []string{"Nothing/NS/a: apply: no matches for kind"}},
		{"a certificate without an authority", `
apiVersion: v1
kind: Secret
metadata: {name: server-tls, namespace: NS, annotations: {e2e.kubernaut.ai/certificate: "web"}}
type: kubernetes.io/tls
`, []string{`Secret/NS/server-tls: apply: certificate authority: secrets "e2e-ca-key" not found`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			started := time.Now()
			changes, err := a.Apply(within(t, 20*time.Second), objects(t, namespace, test.objects))
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range test.want {
				if want := strings.ReplaceAll(want, "NS", namespace); !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to hold %q", err, want)
				}
			}
			if strings.Contains(test.objects, "good") && changes.String() != "ConfigMap/"+namespace+"/good created" {
				t.Errorf("got %q, want the good object applied", changes)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("took %v: it was retried", took)
			}
		})
	}
}

func TestApplyWaitsForTheNamespace(t *testing.T) {
	t.Parallel()
	a, _ := connect(t)
	late := fmt.Sprintf("late-%d", time.Now().UnixNano())
	ctx := context.WithoutCancel(t.Context())
	time.AfterFunc(700*time.Millisecond, func() {
		_, _ = a.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: late}}, metav1.CreateOptions{})
	})
	mustApply(t, a, objects(t, late, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS}"))
}

func TestApplyDefinitionThenResource(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	group := namespace + ".example.dev"
	objs := objects(t, namespace, strings.ReplaceAll(`
apiVersion: GROUP/v1
kind: Fleet
metadata: {name: fleet, namespace: NS}
spec: {ships: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Fleet, plural: fleets, singular: fleet, listKind: FleetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {ships: {type: integer}}}
`, "GROUP", group))
	if got, want := mustApply(t, a, objs).Summary(), "2 created"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := mustApply(t, a, objs).Summary(), "2 unchanged"; got != want {
		t.Errorf("applied again: got %q, want %q", got, want)
	}
	_ = unstructured.SetNestedField(objs[0].Object, int64(1), "spec", "shps")
	if _, err := a.Apply(within(t, 10*time.Second), objs); err == nil || !strings.Contains(err.Error(), "spec.shps") {
		t.Errorf("got %v, want the unknown field of a custom resource refused", err)
	}
}

const job = `
apiVersion: batch/v1
kind: Job
metadata: {name: migrations, namespace: NS}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: one}]
`

const statefulSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: postgresql, namespace: NS}
spec:
  serviceName: postgresql
  selector: {matchLabels: {app: postgresql}}
  template:
    metadata: {labels: {app: postgresql}}
    spec:
      containers: [{name: postgresql, image: postgresql}]
`

// collectGarbage stands in for the controller that the API server lacks here: it
// lets objects go whose deletion waits for their dependents.
func collectGarbage(t *testing.T, a *Applier, resource schema.GroupVersionResource, namespace string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	all := a.dynamic.Resource(resource).Namespace(namespace)
	events, err := all.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		for event := range events.ResultChan() {
			if obj, ok := event.Object.(*unstructured.Unstructured); ok && obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) > 0 {
				_, _ = all.Patch(ctx, obj.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
		}
	}()
}

func TestApplyReplacesJobs(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	collectGarbage(t, a, batchv1.SchemeGroupVersion.WithResource("jobs"), namespace)
	uid := func() types.UID {
		t.Helper()
		job, err := kubernetes.NewForConfigOrDie(testConfig).BatchV1().Jobs(namespace).Get(t.Context(), "migrations", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return job.UID
	}
	step := func(text, want string, replaced bool) {
		t.Helper()
		var before types.UID
		if want != "1 created" {
			before = uid()
		}
		if got := mustApply(t, a, objects(t, namespace, text)).Summary(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if (before != uid()) != replaced {
			t.Errorf("%s: replaced is %v, want %v", want, before != uid(), replaced)
		}
	}
	step(job, "1 created", true)
	step(job, "1 unchanged", false)
	step(strings.Replace(job, "image: one", "image: two", 1), "1 replaced", true)

	started := metav1.Now()
	setStatus(t, a, namespace, "jobs", "migrations", batchv1.JobStatus{StartTime: &started, Failed: 1, Conditions: []batchv1.JobCondition{
		{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, LastTransitionTime: started},
		{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: started},
	}})
	step(strings.Replace(job, "image: one", "image: two", 1), "1 replaced", true)
	step(strings.Replace(job, "image: one", "image: two", 1), "1 unchanged", false)

	// What it prepares changes.
	prepares := strings.Replace(job, "name: migrations,", "name: migrations, annotations: {e2e.kubernaut.ai/prepares: postgresql},", 1)
	_, err := a.Apply(within(t, 20*time.Second), objects(t, namespace, prepares))
	if want := `annotation e2e.kubernaut.ai/prepares: statefulsets.apps "postgresql" not found`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	mustApply(t, a, objects(t, namespace, statefulSet))
	setStatus(t, a, namespace, "statefulsets", "postgresql", appsv1.StatefulSetStatus{UpdateRevision: "postgresql-1"})
	step(prepares, "1 replaced", true)
	step(prepares, "1 unchanged", false)
	setStatus(t, a, namespace, "statefulsets", "postgresql", appsv1.StatefulSetStatus{UpdateRevision: "postgresql-2"})
	step(prepares, "1 replaced", true)
}

// setStatus plays the controllers that the API server lacks here.
func setStatus(t *testing.T, a *Applier, namespace, resource, name string, status any) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		t.Fatal(err)
	}
	group := appsv1.SchemeGroupVersion
	switch resource {
	case "jobs":
		group = batchv1.SchemeGroupVersion
	case "pods":
		group = corev1.SchemeGroupVersion
	}
	_, err = a.dynamic.Resource(group.WithResource(resource)).Namespace(namespace).Patch(
		context.WithoutCancel(t.Context()), name, types.MergePatchType, data, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// rollOut plays the Deployment controller up to a pod with the given status, and
// returns the pod's name.
func rollOut(t *testing.T, a *Applier, namespace, revision string, status corev1.PodStatus) string {
	t.Helper()
	ctx := t.Context()
	web, err := a.client.AppsV1().Deployments(namespace).Patch(ctx, "web", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"deployment.kubernetes.io/revision":"`+revision+`"}}}`), metav1.PatchOptions{FieldManager: "controller"})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "web", "revision": revision}
	set, err := a.client.AppsV1().ReplicaSets(namespace).Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-" + revision, Annotations: map[string]string{revisionAnnotation: revision},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(web, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: web.Spec.Template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod, err := a.client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: set.Name + "-", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: web.Spec.Template.Spec,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	setStatus(t, a, namespace, "pods", pod.Name, status)
	setStatus(t, a, namespace, "deployments", "web", appsv1.DeploymentStatus{ObservedGeneration: web.Generation, Replicas: 1, UpdatedReplicas: 1})
	return pod.Name
}

// becomeReady plays the controllers of a Deployment whose pods are ready.
func becomeReady(t *testing.T, a *Applier, namespace string) {
	t.Helper()
	name := rollOut(t, a, namespace, "1", corev1.PodStatus{
		PodIP: "10.1.1.1", PodIPs: []corev1.PodIP{{IP: "10.1.1.1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	})
	pod, err := a.client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	web, err := a.client.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	setStatus(t, a, namespace, "deployments", "web", appsv1.DeploymentStatus{
		ObservedGeneration: web.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1,
		Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue},
			{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "NewReplicaSetAvailable"},
		},
	})
	_, err = kubernetes.NewForConfigOrDie(testConfig).DiscoveryV1().EndpointSlices(namespace).Create(context.WithoutCancel(t.Context()), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: "web-", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"10.1.1.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", UID: pod.UID},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Error(err)
	}
}

// waitFor starts a wait and returns what it will return.
func waitFor(ctx context.Context, a *Applier, changes ChangeSet) <-chan error {
	result := make(chan error, 1)
	go func() { result <- a.Wait(ctx, changes) }()
	return result
}

func TestWaitUntilReady(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	changes := mustApply(t, a, objects(t, namespace, component))
	result := waitFor(within(t, 30*time.Second), a, changes)
	select {
	case err := <-result:
		t.Fatalf("ended before anything was ready: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	becomeReady(t, a, namespace)
	if err := <-result; err != nil {
		t.Error(err)
	}
	// Again, from a state that is ready already.
	if err := a.Wait(within(t, 10*time.Second), changes); err != nil {
		t.Error(err)
	}
}

func TestWaitNamesEveryLaggardWhenTimeIsOver(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	changes := mustApply(t, a, objects(t, namespace, component+"---"+job))
	cause := errors.New("deploy: 1s are over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
	defer cancel()
	err := a.Wait(ctx, changes)
	var notReady *NotReadyError
	if !errors.As(err, &notReady) || !errors.Is(err, cause) {
		t.Fatalf("got %v, want a *NotReadyError that wraps the cause", err)
	}
	var got []string
	for _, laggard := range notReady.Laggards {
		got = append(got, strings.ReplaceAll(laggard.Object.String()+": "+laggard.Reason, namespace, "NS"))
	}
	slices.Sort(got)
	want := []string{"Deployment/NS/web: Replicas: 0/1", "Job/NS/migrations: 0 pods active, 0 failed", "Service/NS/web: no ready address"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWaitEndsEarly(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	changes := mustApply(t, a, objects(t, namespace, component))
	stuck := container(waiting("ErrImageNeverPull"), corev1.ContainerState{}, 0)
	rollOut(t, a, namespace, "1", container(waiting(crashLoop), terminated(1), 9))

	t.Run("when a pod of the new template cannot start, and blames no other", func(t *testing.T) {
		pod := rollOut(t, a, namespace, "2", stuck)
		started := time.Now()
		err := a.Wait(within(t, time.Minute), changes)
		var notReady *NotReadyError
		if !errors.As(err, &notReady) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a *NotReadyError before the deadline", err)
		}
		if took := time.Since(started); took < kube.ImagePatience || took > 10*time.Second {
			t.Errorf("took %v, want a little more than %v", took, kube.ImagePatience)
		}
		if got, want := notReady.Laggards[0].Reason, "Pod "+pod+": ErrImageNeverPull"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if strings.Contains(err.Error(), "web-1") {
			t.Errorf("blames a pod of the template before: %v", err)
		}
	})

	t.Run("and applying again starts the pods over", func(t *testing.T) {
		changes := mustApply(t, a, objects(t, namespace, component))
		if got, want := changes.Summary(), "1 restarted, 6 unchanged"; got != want {
			t.Errorf("got %q, want %q:\n%s", got, want, changes)
		}
		pods, err := a.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp == nil {
				t.Errorf("pod %s was not deleted", pod.Name)
			}
		}
	})
}

func TestWaitForJobs(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	changes := mustApply(t, a, objects(t, namespace, job))
	started := metav1.Now()

	result := waitFor(within(t, 30*time.Second), a, changes)
	setStatus(t, a, namespace, "jobs", "migrations", batchv1.JobStatus{StartTime: &started})
	select {
	case err := <-result:
		t.Fatalf("took a running Job for done: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	setStatus(t, a, namespace, "jobs", "migrations", batchv1.JobStatus{StartTime: &started, Failed: 1, Conditions: []batchv1.JobCondition{
		{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, LastTransitionTime: started},
		{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "reached", LastTransitionTime: started},
	}})
	err := <-result
	want := "Job/" + namespace + "/migrations: not ready after "
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "BackoffLimitExceeded: reached") {
		t.Errorf("got %v, want %q... BackoffLimitExceeded", err, want)
	}
}

func TestWaitForAJobThatIsDeletedAtItsEnd(t *testing.T) {
	t.Parallel()
	a, namespace := connect(t)
	first := strings.Replace(job, "spec:\n", "spec:\n  ttlSecondsAfterFinished: 0\n", 1)
	changes := mustApply(t, a, objects(t, namespace, first+"---\n"+strings.ReplaceAll(job, "migrations", "later")))
	started := metav1.Now()
	for _, name := range []string{"migrations", "later"} {
		setStatus(t, a, namespace, "jobs", name, batchv1.JobStatus{StartTime: &started})
	}

	result := waitFor(within(t, 20*time.Second), a, changes)
	select {
	case err := <-result:
		t.Fatalf("took a running Job for done: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	done := batchv1.JobStatus{StartTime: &started, CompletionTime: &started, Succeeded: 1, Conditions: []batchv1.JobCondition{
		{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: started},
		{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: started},
	}}
	setStatus(t, a, namespace, "jobs", "migrations", done)
	background := metav1.DeletePropagationBackground
	if err := kubernetes.NewForConfigOrDie(testConfig).BatchV1().Jobs(namespace).Delete(t.Context(), "migrations", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	setStatus(t, a, namespace, "jobs", "later", done)
	if err := <-result; err != nil {
		t.Errorf("got %v, want success: it was complete before it was deleted", err)
	}
}

func TestWaitForAClusterThatIsGone(t *testing.T) {
	t.Parallel()
	config := rest.CopyConfig(testConfig)
	config.Host = "https://127.0.0.1:1"
	a, err := New(config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	changes := ChangeSet{{Object: Ref{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Namespace: "apps", Name: "web"}}}
	started := time.Now()
	err = a.Wait(within(t, time.Second), changes)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want the deadline and the reason", err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %v, want about the second it had", took)
	}
}
