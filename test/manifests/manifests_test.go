// Package manifests_test says what must be true of the manifests before any cluster has
// them: of base, which a real cluster applies, and of what Kind needs besides.
package manifests_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"kubernaut.ai/e2e/test/infrastructure/apply"
)

const root = "../../manifests"

// overlay renders all components that have a folder of this name.
func overlay(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "*", name))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("%s: %d components, %v", name, len(dirs), err)
	}
	var all []*unstructured.Unstructured
	for _, dir := range dirs {
		objs, err := apply.Render(dir, map[string]string{"gateway": "g", "datastorage": "d", "postgres": "p", "redis": "r", "alertmanager": "a"})
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		all = append(all, objs...)
	}
	return all
}

// kinds are the objects of one kind, typed.
func kinds[T any](t *testing.T, objs []*unstructured.Unstructured, kind string) []T {
	t.Helper()
	var found []T
	for _, obj := range objs {
		if obj.GetKind() != kind {
			continue
		}
		var typed T
		if err := json.Unmarshal(text(t, obj), &typed); err != nil {
			t.Fatalf("%s: %v", apply.RefOf(obj), err)
		}
		found = append(found, typed)
	}
	return found
}

func text(t *testing.T, obj *unstructured.Unstructured) []byte {
	t.Helper()
	data, err := obj.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pods are the templates of all pods.
func pods(t *testing.T, objs []*unstructured.Unstructured) []corev1.PodTemplateSpec {
	t.Helper()
	var all []corev1.PodTemplateSpec
	for _, d := range kinds[appsv1.Deployment](t, objs, "Deployment") {
		all = append(all, d.Spec.Template)
	}
	for _, s := range kinds[appsv1.StatefulSet](t, objs, "StatefulSet") {
		all = append(all, s.Spec.Template)
	}
	for _, j := range kinds[batchv1.Job](t, objs, "Job") {
		all = append(all, j.Spec.Template)
	}
	for _, c := range kinds[batchv1.CronJob](t, objs, "CronJob") {
		all = append(all, c.Spec.JobTemplate.Spec.Template)
	}
	return all
}

// TestNobodyButPostgreSQLHasItsSuperuser: neither services nor migrations need him, and only
// migrations and retention need the owner of the tables.
func TestNobodyButPostgreSQLHasItsSuperuser(t *testing.T) {
	who := map[string][]string{}
	for _, pod := range pods(t, overlay(t, "base")) {
		for _, volume := range pod.Spec.Volumes {
			secrets := []string{}
			if volume.Secret != nil {
				secrets = append(secrets, volume.Secret.SecretName)
			}
			if volume.Projected != nil {
				for _, source := range volume.Projected.Sources {
					if source.Secret != nil {
						secrets = append(secrets, source.Secret.Name)
					}
				}
			}
			for _, secret := range secrets {
				who[secret] = append(who[secret], pod.Spec.Containers[0].Name)
			}
		}
	}
	for secret, want := range map[string]string{
		"postgresql-superuser-credentials": "[postgresql]", "postgresql-credentials": "[postgresql migrations retention]",
		"data-storage-checkpoints": "[datastorage retention]",
	} {
		if got := fmt.Sprint(who[secret]); got != want {
			t.Errorf("%s: mounted by %s, want %s", secret, got, want)
		}
	}
}

func TestBaseIsForAnyCluster(t *testing.T) {
	for _, obj := range overlay(t, "base") {
		for _, alien := range []string{"hostPath", "nodePort", "NodePort", "e2e", "127.0.0.1:"} {
			if obj.GetKind() != "CustomResourceDefinition" && strings.Contains(string(text(t, obj)), alien) {
				t.Errorf("%s: has %s, which only kind/ may have", apply.RefOf(obj), alien)
			}
		}
		if obj.GetKind() == "Secret" {
			t.Errorf("%s: is for kind/ to make", apply.RefOf(obj))
		}
	}
}

// TestPodsAreRestricted: in base and on Kind, whose namespace enforces it. The coverage
// variant's pods leave files on the node, which the profile forbids.
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	profile := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, name := range []string{"base", "kind", "coverage"} {
		objs := overlay(t, name)
		found := pods(t, objs)
		if len(found) == 0 {
			t.Errorf("%s: no pod was found", name)
		}
		for _, pod := range found {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(profile, &pod.ObjectMeta, &pod.Spec))
			if result.Allowed == (name == "coverage") {
				t.Errorf("%s: %s: allowed: %t: %s", name, pod.Labels["app.kubernetes.io/name"], result.Allowed, result.ForbiddenDetail())
			}
		}
		for _, namespace := range kinds[corev1.Namespace](t, objs, "Namespace") {
			want := string(api.LevelRestricted)
			if name == "coverage" {
				want = string(api.LevelPrivileged)
			}
			if got := namespace.Labels[api.EnforceLevelLabel]; got != want {
				t.Errorf("%s: enforces %q, want %q", name, got, want)
			}
		}
	}
}

func TestServicesSurviveAnyOneNode(t *testing.T) {
	objs := overlay(t, "base")
	budgets := kinds[policyv1.PodDisruptionBudget](t, objs, "PodDisruptionBudget")
	for _, d := range kinds[appsv1.Deployment](t, objs, "Deployment") {
		labels := d.Spec.Template.Labels
		if *d.Spec.Replicas < 2 || d.Spec.MinReadySeconds == 0 || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
			t.Errorf("%s: %d replicas, ready for %d s, %s unavailable", d.Name, *d.Spec.Replicas, d.Spec.MinReadySeconds, d.Spec.Strategy.RollingUpdate.MaxUnavailable)
		}
		if !slices.ContainsFunc(budgets, func(b policyv1.PodDisruptionBudget) bool { return selects(t, b.Spec.Selector, labels) }) {
			t.Errorf("%s: no PodDisruptionBudget selects its pods", d.Name)
		}
		for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
			if !selects(t, spread.LabelSelector, labels) {
				t.Errorf("%s: the spread by %s is of other pods", d.Name, spread.TopologyKey)
			}
		}
		if len(d.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
			t.Errorf("%s: is not spread", d.Name)
		}
		for _, container := range d.Spec.Template.Spec.Containers {
			if container.StartupProbe == nil || container.StartupProbe.HTTPGet.Path != "/startupz" || container.ReadinessProbe == nil {
				t.Errorf("%s: its probes stop no bad rollout", d.Name)
			}
		}
	}
}

func selects(t *testing.T, by *metav1.LabelSelector, labels map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		t.Fatal(err)
	}
	return !selector.Empty() && selector.Matches(set(labels))
}

// TestMonitoring holds the optional component to the operator's own types, and its rules to
// metrics that there are.
func TestMonitoring(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "overlay")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(dir, here)
	if err != nil {
		t.Fatal(err)
	}
	kustomization := "resources: [REL/gateway/base, REL/datastorage/base]\ncomponents: [REL/monitoring]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(strings.ReplaceAll(kustomization, "REL", relative)), 0o600); err != nil {
		t.Fatal(err)
	}
	objs, err := apply.Render(dir, map[string]string{"gateway": "g", "datastorage": "d"})
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, service := range []string{"gateway", "datastorage"} {
		data, err := os.ReadFile(filepath.Join("../../docker", service, "metrics/metrics.go"))
		if err != nil {
			t.Fatal(err)
		}
		code.Write(data)
	}
	metric := regexp.MustCompile(`\b(?:gateway|datastorage|audit)_[a-z_]+`)
	rules, monitors := 0, 0
	for _, obj := range objs {
		switch obj.GetKind() {
		case "PrometheusRule":
			var rule monitoringv1.PrometheusRule
			if err := yaml.UnmarshalStrict(text(t, obj), &rule); err != nil {
				t.Error(err)
			}
			for _, group := range rule.Spec.Groups {
				for _, rule := range group.Rules {
					rules++
					for _, name := range metric.FindAllString(rule.Expr.String(), -1) {
						if !strings.Contains(code.String(), `"`+name+`"`) {
							t.Errorf("%s: no service has a metric %s", rule.Alert, name)
						}
					}
				}
			}
		case "ServiceMonitor":
			var monitor monitoringv1.ServiceMonitor
			if err := yaml.UnmarshalStrict(text(t, obj), &monitor); err != nil {
				t.Error(err)
			}
			for _, service := range kinds[corev1.Service](t, objs, "Service") {
				for _, port := range service.Spec.Ports {
					if port.Name == monitor.Spec.Endpoints[0].Port && selects(t, &monitor.Spec.Selector, service.Labels) {
						monitors++
					}
				}
			}
		}
	}
	if rules == 0 || monitors != 2 {
		t.Errorf("%d rules, and %d Services are scraped, want 2", rules, monitors)
	}
}
