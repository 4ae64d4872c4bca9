//go:build integration

package apply

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// alone returns an Applier that shares what it has made with no other test.
func alone(t *testing.T) (*Applier, string) {
	t.Helper()
	_, namespace := connect(t)
	a, err := New(testConfig, Options{FieldManager: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return a, namespace
}

const port = `
apiVersion: v1
kind: Service
metadata: {name: SERVICE, namespace: NS}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: api, port: 80, nodePort: 31987}]
`

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-1, namespace: NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-web}
rules: []
`

func TestPruneRemovesWhatTheManifestsHaveNoMore(t *testing.T) {
	t.Parallel()
	a, namespace := alone(t)
	collectGarbage(t, a, appsv1.SchemeGroupVersion.WithResource("deployments"), namespace)
	collectGarbage(t, a, corev1.SchemeGroupVersion.WithResource("services"), namespace)
	collectGarbage(t, a, corev1.SchemeGroupVersion.WithResource("configmaps"), namespace)
	collectGarbage(t, a, rbacv1.SchemeGroupVersion.WithResource("clusterroles"), "")
	before := objects(t, namespace, strings.ReplaceAll(port, "SERVICE", "old")+"---\n"+web)
	mustApply(t, a, before)
	if changes, err := a.Prune(within(t, 20*time.Second), before); err != nil || len(changes) > 0 {
		t.Fatalf("got %v, %v, want nothing to prune", changes, err)
	}

	// Of others: what somebody made, a copy of what was applied, and what a controller made
	// of it with its labels.
	mine := map[string]string{ManagedLabel: namespace}
	for _, name := range []string{"theirs", "copied"} {
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if name == "copied" {
			configMap.Labels = mine
		}
		if _, err := a.client.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	// The Service is renamed and keeps its node port, the ConfigMap has another hash in its
	// name, the Deployment and the ClusterRole are gone.
	after := objects(t, namespace, strings.ReplaceAll(port, "SERVICE", "new")+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-2, namespace: NS}
`)
	changes, err := a.Prune(within(t, 20*time.Second), after)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, change := range changes {
		got = append(got, strings.ReplaceAll(change.String(), namespace, "NS"))
	}
	want := []string{"Deployment/NS/web removed", "ConfigMap/NS/web-1 removed", "Service/NS/old removed", "ClusterRole/NS-web removed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	mustApply(t, a, after) // the node port is free
	for _, name := range []string{"theirs", "copied"} {
		if _, err := a.client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("made by others: %v", err)
		}
	}
}

const store = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: NS}
spec:
  serviceName: one
  replicas: 0
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      containers: [{name: store, image: store}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`

func TestApplyReplacesWhatDiffersInWhatCanBeSetOnce(t *testing.T) {
	t.Parallel()
	a, namespace := alone(t)
	kinds := []struct {
		name, from, to string
		resource       string // that has dependents and needs a garbage collector
		object         string
	}{
		{"StatefulSet", "serviceName: one", "serviceName: two", "statefulsets", store},
		{"StatefulSet's claims", "storage: 1Gi", "storage: 2Gi", "statefulsets", strings.ReplaceAll(store, "store", "claims")},
		{"Deployment", "app: one", "app: two", "deployments", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: one}}
  template:
    metadata: {labels: {app: one}}
    spec:
      containers: [{name: web, image: web}]
`},
		// The first sixteen addresses are given to nobody who asks for none.
		{"Service", "clusterIP: 10.0.0.7,", "clusterIP: 10.0.0.8,", "services", `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {clusterIP: 10.0.0.7, selector: {app: web}, ports: [{port: 80}]}
`},
		{"RoleBinding", "name: reader}", "name: writer}", "rolebindings", `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
`},
		{"Secret", "type: one", "type: two", "secrets", `
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: NS}
type: one
`},
		{"ConfigMap", "a: one", "a: two", "configmaps", `
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: NS}
immutable: true
data: {a: one}
`},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			objs := objects(t, namespace, kind.object)
			_, resource, err := a.resource(t.Context(), RefOf(objs[0]))
			if err != nil {
				t.Fatal(err)
			}
			collectGarbage(t, a, resource, namespace)
			mustApply(t, a, objs)
			changed := objects(t, namespace, strings.ReplaceAll(kind.object, kind.from, kind.to))
			if got, want := mustApply(t, a, changed).Summary(), "1 replaced"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := mustApply(t, a, changed).Summary(), "1 unchanged"; got != want {
				t.Errorf("again: got %q, want %q", got, want)
			}
		})
	}

	t.Run("but not for another fault", func(t *testing.T) {
		wrong := objects(t, namespace, strings.ReplaceAll(kinds[0].object, "serviceName: one", "serviceName: three\n  podManagementPolicy: Wrong"))
		if _, err := a.Apply(within(t, 10*time.Second), wrong); err == nil || !strings.Contains(err.Error(), "podManagementPolicy") {
			t.Errorf("got %v, want what is wrong besides", err)
		}
		if _, err := a.client.AppsV1().StatefulSets(namespace).Get(t.Context(), "store", metav1.GetOptions{}); err != nil {
			t.Errorf("removed what was there for an object that is refused: %v", err)
		}
	})
	t.Run("and not what others made", func(t *testing.T) {
		yes := true
		_, err := a.client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Immutable: &yes, Data: map[string]string{"a": "one"},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		mine := objects(t, namespace, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs, namespace: NS}\ndata: {a: two}\n")
		if _, err = a.Apply(within(t, 10*time.Second), mine); err == nil || !strings.Contains(err.Error(), "made by others") {
			t.Errorf("got %v, want that it was made by others", err)
		}
	})
}
