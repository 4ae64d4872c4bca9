package infrastructure_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

func TestReadConfig(t *testing.T) {
	for _, test := range []struct {
		name    string
		environ []string
		check   func(infrastructure.Config) bool
	}{
		{"nothing set", nil, func(c infrastructure.Config) bool {
			return c.Engine == "" && c.ImagePolicy == infrastructure.ImagesAuto && c.Keep == infrastructure.KeepFailure && c.Variant == infrastructure.Standard && !c.CI
		}},
		{"CI keeps nothing", []string{"CI=true"}, func(c infrastructure.Config) bool { return c.CI && c.Keep == infrastructure.KeepNever }},
		{"CI may be told to park", []string{"CI=true", "E2E_PARK=always"}, func(c infrastructure.Config) bool { return c.Park == infrastructure.ParkAlways }},
		{"CI may be told to keep", []string{"CI=true", "E2E_KEEP=always"}, func(c infrastructure.Config) bool { return c.Keep == infrastructure.KeepAlways }},
		{"coverage", []string{"E2E_COVERAGE=true"}, func(c infrastructure.Config) bool { return c.Variant == infrastructure.Coverage }},
		{"coverage off", []string{"E2E_COVERAGE=false"}, func(c infrastructure.Config) bool { return c.Variant == infrastructure.Standard }},
		{"least coverage", []string{"E2E_COVERAGE_MIN=92.5"}, func(c infrastructure.Config) bool {
			return c.CoverageMin == 92.5 && c.Variant == infrastructure.Standard
		}},
		{"empty counts as unset", []string{"E2E_ENGINE=", "E2E_IMAGES="}, func(c infrastructure.Config) bool { return c.ImagePolicy == infrastructure.ImagesAuto }},
		{"GitHub", []string{"GITHUB_ACTIONS=true", "GITHUB_STEP_SUMMARY=/tmp/summary", "GITHUB_SERVER_URL=https://github.com", "GITHUB_REPOSITORY=o/r", "GITHUB_RUN_ID=7"}, func(c infrastructure.Config) bool {
			return c.Annotate && c.StepSummary == "/tmp/summary" && c.Job == "https://github.com/o/r/actions/runs/7"
		}},
		{"budgets", []string{"E2E_BUDGET=setup=45s,gateway=100s"}, func(c infrastructure.Config) bool {
			return c.Budgets["setup"] == 45*time.Second && c.Budgets["gateway"] == 100*time.Second
		}},
		{"mutants", []string{"E2E_MUTANTS=^gateway-"}, func(c infrastructure.Config) bool {
			return c.Mutants == "^gateway-" && !c.Annotate && c.StepSummary == ""
		}},
		{"suite", []string{"E2E_FOCUS=a b", "E2E_PROCS=3", "E2E_SEED=7", "E2E_LABELS=!slow"}, func(c infrastructure.Config) bool {
			return c.Suite == infrastructure.SuiteConfig{Focus: "a b", Procs: 3, Seed: 7, Labels: "!slow"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := infrastructure.ReadConfig(test.environ)
			if err != nil {
				t.Fatal(err)
			}
			if !test.check(config) {
				t.Errorf("got %+v", config)
			}
		})
	}
}

func TestReadConfigRefusesAndNamesTheRemedy(t *testing.T) {
	for setting, want := range map[string]string{
		"E2E_ENGINE=nerdctl":   "E2E_ENGINE=nerdctl: unknown value; it takes podman or docker",
		"E2E_IMAGES=maybe":     "E2E_IMAGES=maybe: unknown value; it takes auto, pull or build",
		"E2E_KEEP=yes":         "E2E_KEEP=yes: unknown value; it takes failure, always or never",
		"E2E_COVERAGE=yes":     "E2E_COVERAGE=yes: is neither true nor false",
		"E2E_MUTANTS=(":        "E2E_MUTANTS=(: is no regular expression",
		"E2E_COVERAGE_MIN=101": "E2E_COVERAGE_MIN=101: is no number from 0 to 100",
		"E2E_COVERAGE_MIN=NaN": "E2E_COVERAGE_MIN=NaN: is no number from 0 to 100",
		"E2E_BUDGET=setup":     `E2E_BUDGET=setup: has "setup", which is no name=duration; it takes name=duration, with commas between`,
		"E2E_PROCS=0":          "E2E_PROCS=0: is no number from 1 to 64",
		"E2E_FOCUS=(":          "E2E_FOCUS=(: is no regular expression: missing closing ); it takes a regular expression of specs to run",
		"E2E_SKIP=[":           "E2E_SKIP=[: is no regular expression",
		"E2E_LOCK=no":          "E2E_LOCK=no: unknown value; it takes wait or fail",
		"E2E_CLEAN=none":       "E2E_CLEAN=none: unknown value; it takes own or all",
		"E2E_TIMEOUT_DEPLOY=5": "E2E_TIMEOUT_DEPLOY=5: is no duration above 0; it takes a duration, e.g. 90s or 5m",
		"E2E_TIMEOUT_DEPLOI=1": "E2E_TIMEOUT_DEPLOI: unknown variable; did you mean E2E_TIMEOUT_DEPLOY?",
		"E2E_IMAGE=auto":       "E2E_IMAGE: unknown variable; did you mean E2E_IMAGES?",
		"E2E_KEPE=never":       "E2E_KEPE: unknown variable; did you mean E2E_KEEP?",
		"E2E_SOMETHING=1":      "E2E_SOMETHING: unknown variable; there are: E2E_ALONE, E2E_BENCH_ROUNDS, E2E_BUDGET, E2E_CHANGED, ",
		"E2E_CHANGED=-1":       "E2E_CHANGED=-1: is no number from 0 to 100; it takes a number of runs",
		"E2E_SOAK_LOAD=yes":    "E2E_SOAK_LOAD=yes: unknown value; it takes 1 or 0",
		"E2E_SOMETHING_ELSE=":  "",
	} {
		_, err := infrastructure.ReadConfig([]string{setting})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: got %v", setting, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", setting, err, want)
		}
	}
	_, err := infrastructure.ReadConfig([]string{"E2E_ENGINE=a", "E2E_KEEP=b"})
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want both variables at fault, one a line", err)
	}
}

func config(variant infrastructure.Variant) infrastructure.Config {
	return infrastructure.Config{ImagePolicy: infrastructure.ImagesAuto, Keep: infrastructure.KeepFailure, Variant: variant}
}

func TestPlanOfThisCheckout(t *testing.T) {
	standard, err := infrastructure.NewPlan("../..", infrastructure.Kubernaut(), config(infrastructure.Standard))
	if err != nil {
		t.Fatal(err)
	}
	coverage, err := infrastructure.NewPlan("../..", infrastructure.Kubernaut(), config(infrastructure.Coverage))
	if err != nil {
		t.Fatal(err)
	}
	if standard.ClusterName == coverage.ClusterName {
		t.Error("both variants have one cluster, and so one evidence folder")
	}
	for plan, want := range map[*infrastructure.Plan]bool{standard: false, coverage: true} {
		told := slices.ContainsFunc(plan.Objects["gateway"], func(obj *unstructured.Unstructured) bool {
			return strings.Contains(fmt.Sprint(obj.Object), "GOCOVERDIR")
		})
		if told != want {
			t.Errorf("%s: the gateway's pods are told where counters go: %t, want %t", plan.Variant, told, want)
		}
	}
	if len(standard.NodePorts) == 0 {
		t.Error("no node port was found in the manifests")
	}
}

func TestPlanRefusesABudgetForWhatItDoesNotDo(t *testing.T) {
	settings := config(infrastructure.Standard)
	settings.Budgets = report.Budgets{"setup": time.Minute, "gateway": time.Minute, "cluster/create": time.Minute}
	if _, err := infrastructure.NewPlan("../..", infrastructure.Kubernaut(), settings); err != nil {
		t.Error(err)
	}
	settings.Budgets["gatway"] = time.Minute
	if _, err := infrastructure.NewPlan("../..", infrastructure.Kubernaut(), settings); err == nil || !strings.Contains(err.Error(), `E2E_BUDGET: "gatway" is no part of a run; there are: setup, total, build/`) {
		t.Errorf("got %v", err)
	}
}

func TestNodeImageHasTheMinorVersionOfTheKindLibrary(t *testing.T) {
	plan, err := infrastructure.NewPlan("../..", infrastructure.Kubernaut(), config(infrastructure.Standard))
	if err != nil {
		t.Fatal(err)
	}
	minor := plan.Kubernetes[:strings.LastIndex(plan.Kubernetes, ".")]
	if !strings.Contains(defaults.Image, ":"+minor+".") {
		t.Errorf("docker/kind-node builds Kubernetes %s, the kind library %s expects %s", plan.Kubernetes, plan.KindVersion, defaults.Image)
	}
}

func TestImageFromAModuleIsTheVersionThatIsPulled(t *testing.T) {
	for _, spec := range infrastructure.Kubernaut().Images {
		if spec.Name != "alertmanager" {
			continue
		}
		data, err := os.ReadFile("../../docker/alertmanager/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		_, tag, _ := strings.Cut(spec.Pull, ":")
		if want := "require github.com/prometheus/alertmanager " + tag + "\n"; !strings.Contains(string(data), want) {
			t.Errorf("the catalog pulls %s, docker/alertmanager builds another: want %q", spec.Pull, want)
		}
		return
	}
	t.Error("the catalog has no Alertmanager")
}

// checkedOut makes a checkout with one component whose manifests are given.
func checkedOut(t *testing.T, manifest string) (string, infrastructure.Catalog) {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{
		"go.mod":                                "module x\nrequire sigs.k8s.io/kind v0.33.0\n",
		"docker/node/go.mod":                    "module y\nrequire k8s.io/kubernetes v1.37.2\n",
		"manifests/app/base/app.yaml":           manifest,
		"manifests/app/base/kustomization.yaml": "resources: [app.yaml]\nnamespace: ns\n",
	} {
		filetest.Put(t, root, path, content)
	}
	return root, infrastructure.Catalog{
		Namespace: "ns", Node: "node", Images: []infrastructure.ImageSpec{{Name: "app", Package: "./docker/app"}, {Name: "node", Pull: "docker.io/node"}},
		Components: []infrastructure.Component{{Name: "app"}},
	}
}

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: app}
spec: {containers: [{name: app, image: app}]}
`

func TestPlanRefusesManifestsBeforeAnythingIsBuilt(t *testing.T) {
	service := func(name string) string {
		return "---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {type: NodePort, ports: [{name: api, port: 80, nodePort: 30080}]}\n"
	}
	for _, test := range []struct{ name, manifest, want string }{
		{"misspelt field", strings.Replace(pod, "containers:", "containrs:", 1), `unknown field "spec.containrs"`},
		{"image not in the catalog", strings.Replace(pod, "image: app", "image: ap", 1), `"ap"`},
		{"one node port twice", service("a") + service("b"), "Services a and b ask for the same node port 30080/TCP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, catalog := checkedOut(t, test.manifest)
			_, err := infrastructure.NewPlan(root, catalog, config(infrastructure.Standard))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "manifests/app/base") {
				t.Errorf("got %v, want the folder and %q", err, test.want)
			}
		})
	}
	root, catalog := checkedOut(t, pod)
	catalog.Components = append(catalog.Components, infrastructure.Component{Name: "gone"})
	_, err := infrastructure.NewPlan(root, catalog, config(infrastructure.Standard))
	if err == nil || !strings.Contains(err.Error(), "component gone: has no folder manifests/gone/base") {
		t.Errorf("got %v, want the missing component", err)
	}
	if err := os.Rename(root, root+":1"); err != nil {
		t.Fatal(err)
	}
	if _, err := infrastructure.NewPlan(root+":1", catalog, config(infrastructure.Standard)); err == nil || !strings.Contains(err.Error(), "has a colon in its path") {
		t.Errorf("got %v, want a path that no engine can mount to be refused", err)
	}
}

func TestTwoCheckoutsHaveTwoClusters(t *testing.T) {
	first, catalog := checkedOut(t, pod)
	second, _ := checkedOut(t, pod)
	a, err := infrastructure.NewPlan(first, catalog, config(infrastructure.Standard))
	if err != nil {
		t.Fatal(err)
	}
	b, err := infrastructure.NewPlan(second, catalog, config(infrastructure.Standard))
	if err != nil {
		t.Fatal(err)
	}
	if a.ClusterName == b.ClusterName {
		t.Errorf("both are called %s", a.ClusterName)
	}
}
