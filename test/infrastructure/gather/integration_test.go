//go:build integration

package gather

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

func TestGatherFromAnAPIServer(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set; run: go tool mage test:integration")
	}
	server := &envtest.Environment{CRDInstallOptions: envtest.CRDInstallOptions{CRDs: []*apiextensions.CustomResourceDefinition{{
		ObjectMeta: metav1.ObjectMeta{Name: "fleets.example.dev"},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: "example.dev", Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{Kind: "Fleet", Plural: "fleets", Singular: "fleet", ListKind: "FleetList"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{Type: "object"}},
			}},
		},
	}}}}
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, server.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := connect(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, err = c.typed.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "credentials"}, StringData: map[string]string{"password": "hunter2"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.typed.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.dynamic.Resource(schema.GroupVersionResource{Group: "example.dev", Version: "v1", Resource: "fleets"}).Namespace("default").Create(ctx,
		&unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.dev/v1", "kind": "Fleet", "metadata": map[string]any{"name": "armada"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	if err := All(ctx, dir, Summary{Kubeconfig: kubeconfig}, Objects{kubeconfig}, Logs{kubeconfig}); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"objects/pods.yaml":               "name: web",
		"objects/fleets.example.dev.yaml": "name: armada",
		"objects/secrets.yaml":            "password: (12 characters)",
		"summary.txt":                     "Pod/default/web: not ready (Pending)",
	} {
		if got := read(t, dir, file); !strings.Contains(got, want) || strings.Contains(got, "managedFields") {
			t.Errorf("%s: got %s, want it to hold %q", file, got, want)
		}
	}
}
