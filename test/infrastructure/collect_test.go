package infrastructure_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/fake"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// open opens an environment that compiles for real and has a fake world besides.
func open(t *testing.T, w *fake.World, plan *infrastructure.Plan) *infrastructure.Environment {
	t.Helper()
	adapters := w.Adapters()
	adapters.Runner = command.Local{}
	env, err := infrastructure.OpenWith(t.Context(), plan, infrastructure.Screen{Out: io.Discard}, adapters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	})
	return env
}

// reopened opens another environment for what another process would do.
func reopened(t *testing.T, w *fake.World, plan *infrastructure.Plan, env *infrastructure.Environment) *infrastructure.Environment {
	t.Helper()
	if err := env.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, w, plan)
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: app}]}
`

// covered is a checkout with a small program, whose coverage image was built and
// deployed.
func covered(t *testing.T, config infrastructure.Config) (*fake.World, *infrastructure.Plan, *infrastructure.Environment) {
	t.Helper()
	root, catalog := checkedOut(t, deployment)
	for name, text := range map[string]string{
		"go.mod":                "module x\n\ngo 1.26\n\nrequire sigs.k8s.io/kind v0.33.0\n",
		"docker/app/Dockerfile": "FROM scratch\nCOPY app /app\n",
		"docker/app/main.go":    "package main\n\nimport \"os\"\n\nfunc main() {\n\tif len(os.Args) > 1 {\n\t\tprintln(1)\n\t\tprintln(2)\n\t}\n}\n",
	} {
		filetest.Put(t, root, name, text)
	}
	config.Variant = infrastructure.Coverage
	plan, err := infrastructure.NewPlan(root, catalog, config)
	if err != nil {
		t.Fatal(err)
	}
	w := &fake.World{Name: plan.ClusterName}
	env := open(t, w, plan)
	for _, phase := range plan.Phases() {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	return w, plan, env
}

// runPod runs the program as a pod, which ends in order, and shows it.
func runPod(ctx context.Context, plan *infrastructure.Plan, seen func(*corev1.Pod)) error {
	binary := filepath.Join(plan.Root, ".e2e", "build", plan.ClusterName, "bin", "app")
	dir := filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "raw", "app", "app-1")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	started := metav1.Now()
	if err := (command.Local{}).Run(ctx, command.Cmd{Args: []string{binary}, Env: []string{"GOCOVERDIR=" + dir}}); err != nil {
		return err
	}
	seen(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app-1"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "localhost/kubernaut-e2e/app:1", Env: []corev1.EnvVar{{Name: "GOCOVERDIR", Value: "/coverage"}},
		}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://1", StartedAt: started, FinishedAt: metav1.Now()},
		}}}},
	})
	return nil
}

func TestWhatWasCountedInARunBeforeIsOfNoInterest(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	if err := runPod(t.Context(), plan, func(*corev1.Pod) {}); err != nil {
		t.Fatal(err)
	}
	env = reopened(t, w, plan, env)
	for _, phase := range plan.Phases() {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	if calls := w.Calls(); !slices.Contains(calls, "end app") {
		t.Errorf("the pods of the run before were not ended: %q", calls)
	}
	left, err := os.ReadDir(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "raw", "app"))
	if err != nil || len(left) > 0 {
		t.Errorf("got %v and %v, want an empty folder", left, err)
	}
}

func TestInterruptedCollectingCanBeDoneAgain(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	interrupted := errors.New("interrupted")
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error {
		if err := runPod(ctx, plan, seen); err != nil {
			return err
		}
		return interrupted // while the second Deployment stopped
	}
	err := env.CollectCoverage(t.Context())
	if !errors.Is(err, interrupted) || !strings.Contains(err.Error(), "collect again: go tool mage coverage:collect") {
		t.Fatalf("got %v, want the interruption and what to do", err)
	}
	for _, there := range []bool{true, false} { // the cluster, which is kept or gone
		w.Stopping = nil
		if !there {
			w.StopNode()
		}
		env = reopened(t, w, plan, env)
		if err := env.CollectCoverage(t.Context()); err != nil {
			t.Fatalf("cluster there: %v: %v", there, err)
		}
		table, err := os.ReadFile(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "coverage.md"))
		if err != nil || !strings.Contains(string(table), "| **app** | 3 | 1 | 0 | 0 | 2 | **33.3** | **–** |") {
			t.Errorf("cluster there: %v: got %v and\n%s", there, err, table)
		}
	}
}

func TestPodThatLeftNoFolderFailsTheCollection(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error {
		return runPod(ctx, plan, func(pod *corev1.Pod) {
			seen(pod)
			pod.Name = "app-2"
			seen(pod)
		})
	}
	err := env.CollectCoverage(t.Context())
	if err == nil || !strings.Contains(err.Error(), "coverage of app: Pod app-2 (exit code 0): it has no folder") {
		t.Errorf("got %v, want app-2 to be named", err)
	}
}

func TestCoverageIsOfTheSourceThatIsThere(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error { return runPod(ctx, plan, seen) }
	if err := os.WriteFile(filepath.Join(plan.Root, "docker", "app", "more.go"), []byte("package main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := env.CollectCoverage(t.Context())
	if err == nil || !strings.Contains(err.Error(), "docker/: its source has changed since the images were built") {
		t.Errorf("got %v, want the changed source to be named", err)
	}
}

func TestMinimumIsAskedOfTheTestedService(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error { return runPod(ctx, plan, seen) }
	plan.CoverageMin = 90
	env = reopened(t, w, plan, env)
	if err := env.CollectCoverage(t.Context()); err != nil {
		t.Errorf("got %v although no suite of the service ran", err)
	}
	w.Stopping = nil
	record, err := coverage.OpenRecord(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := record.Tested("app"); err != nil {
		t.Fatal(err)
	}
	plan.CoverageMin, plan.StepSummary = 33.3, filepath.Join(t.TempDir(), "summary.md")
	env = reopened(t, w, plan, env)
	if err := env.CollectCoverage(t.Context()); err != nil {
		t.Errorf("got %v although as much as is asked is covered", err)
	}
	if table, err := os.ReadFile(plan.StepSummary); err != nil || !strings.Contains(string(table), "| **app** | 3 |") {
		t.Errorf("got %v and %q, want the table in the summary", err, table)
	}
	plan.CoverageMin = 33.4
	want := "coverage of app: 33.33 % of 3 statements end to end (go tool mage test:all would add the tests' part), E2E_COVERAGE_MIN asks for 33.4 %; what nothing reaches: .e2e/"
	if err := reopened(t, w, plan, env).CollectCoverage(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestCountersOfTestsAreMergedWhileTheyAreOfThisSource(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error { return runPod(ctx, plan, seen) }
	test := func(text string) {
		t.Helper()
		file := filepath.Join(plan.Root, "docker", "app", "main_test.go")
		if err := os.WriteFile(file, []byte("package main\n\nimport \"testing\"\n\nfunc TestArguments(t *testing.T) {\n\tmain()\n\t"+text+"\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(row string) {
		t.Helper()
		if err := env.CollectCoverage(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Stopping = nil // the pod has ended
		table, err := os.ReadFile(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "coverage.md"))
		if err != nil || !strings.Contains(string(table), row) {
			t.Errorf("got %v and\n%s\nwant %s", err, table, row)
		}
	}
	test("")
	want("| **app** | 3 | 1 | 0 | 0 | 2 | **33.3** | **–** |") // they have not run
	if err := infrastructure.UnitTests(t.Context(), plan, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	want("| **app** | 3 | 0 | 1 | 2 | 0 | **33.3** | **100.0** |")
	test("t.Log()")
	want("| **app** | 3 | 1 | 0 | 0 | 2 | **33.3** | **–** |") // they are others now
	test("t.Fail()")
	if err := infrastructure.UnitTests(t.Context(), plan, io.Discard, io.Discard); err == nil {
		t.Fatal("tests that fail passed")
	}
	want("| **app** | 3 | 1 | 0 | 0 | 2 | **33.3** | **–** |") // they failed
}
