//go:build mage

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/fake"
	"kubernaut.ai/e2e/test/infrastructure/targets"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// openFake makes the targets of a variant work on a world that does nothing. A variant's
// name of its own gives each test a checkout of its own; what ends in coverage is the
// coverage variant.
func openFake(t *testing.T, variant string, fail func(call string) error) (*fake.World, *infrastructure.Environment, targets.Targets) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	config := infrastructure.Config{ImagePolicy: infrastructure.ImagesAuto, Keep: infrastructure.KeepNever, Variant: infrastructure.Standard}
	if strings.HasSuffix(variant, string(infrastructure.Coverage)) {
		config.Variant = infrastructure.Coverage
	}
	plan, err := infrastructure.NewPlan(root, infrastructure.Kubernaut(), config)
	if err != nil {
		t.Fatal(err)
	}
	plan.Root, plan.ClusterName = t.TempDir(), "test"
	for _, name := range []string{"docker", "go.mod"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(plan.Root, name)); err != nil {
			t.Fatal(err)
		}
	}
	world := &fake.World{Name: plan.ClusterName}
	if fail != nil {
		world.Fail = func(_ context.Context, call string) error { return fail(call) }
	}
	env, err := infrastructure.OpenWith(t.Context(), plan, infrastructure.Screen{Out: io.Discard}, world.Adapters())
	if err != nil {
		t.Fatal(err)
	}
	project := targets.Of(infrastructure.Kubernaut()).In(config.Variant)
	project.Root = root
	project.Open = func(context.Context, *infrastructure.Plan, infrastructure.Screen) (*infrastructure.Environment, error) {
		return env, nil
	}
	return world, env, project
}

// use puts targets in place of the real ones until the test ends.
func use(t *testing.T, standard, coverage targets.Targets) {
	t.Helper()
	before, coveredBefore := kubernaut, covered
	t.Cleanup(func() { kubernaut, covered = before, coveredBefore })
	kubernaut, covered = standard, coverage
}

func steps(env *infrastructure.Environment, phase string) []timeline.Entry {
	var found []timeline.Entry
	for _, entry := range env.Timeline.Document().Steps {
		if entry.Phase == phase {
			found = append(found, entry)
		}
	}
	return found
}

func one(t *testing.T, env *infrastructure.Environment, phase, name string) timeline.Entry {
	t.Helper()
	for _, entry := range steps(env, phase) {
		if entry.Name == name {
			return entry
		}
	}
	t.Fatalf("no step %s/%s", phase, name)
	return timeline.Entry{}
}

func TestEveryBuildEndsBeforeTheClusterStarts(t *testing.T) {
	for _, variant := range []string{"order", "order-coverage"} {
		t.Run(variant, func(t *testing.T) {
			_, env, project := openFake(t, variant, nil)
			err := project.EndToEnd(t.Context(), "gateway")
			if env.Variant == infrastructure.Coverage {
				// No pod ran, so none left counters, and that must be an error.
				if err == nil || !strings.Contains(err.Error(), "coverage of gateway: no pod ran") {
					t.Fatalf("got %v, want coverage to be missed", err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			start := one(t, env, "cluster", "create").Start
			builds := steps(env, "build")
			if want := len(env.Images) + 2; len(builds) != want {
				t.Errorf("got %d builds, want %d: every image, the compilation and a suite", len(builds), want)
			}
			for _, build := range builds {
				if build.End.After(start) {
					t.Errorf("build/%s ended %v after cluster/create started", build.Name, build.End.Sub(start))
				}
			}
			after := func(later, earlier timeline.Entry) {
				t.Helper()
				if later.Start.Before(earlier.End) {
					t.Errorf("%s/%s started before %s/%s ended", later.Phase, later.Name, earlier.Phase, earlier.Name)
				}
			}
			for _, load := range steps(env, "load") {
				after(load, one(t, env, "cluster", "create"))
			}
			after(one(t, env, "deploy", "infra"), one(t, env, "load", "postgres"))
			after(one(t, env, "deploy", "infra"), one(t, env, "load", "redis"))
			after(one(t, env, "deploy", "migrations"), one(t, env, "deploy", "infra"))
			after(one(t, env, "deploy", "migrations"), one(t, env, "load", "datastorage"))
			after(one(t, env, "suite", "gateway"), one(t, env, "deploy", "migrations"))
			after(one(t, env, "suite", "gateway"), one(t, env, "deploy", "datastorage"))
			after(one(t, env, "deploy", "gateway"), one(t, env, "load", "gateway"))
			after(one(t, env, "deploy", "alertmanager"), one(t, env, "load", "alertmanager"))
			after(one(t, env, "suite", "gateway"), one(t, env, "deploy", "alertmanager"))
			after(one(t, env, "suite", "gateway"), one(t, env, "deploy", "gateway"))
			after(one(t, env, "teardown", "cluster"), one(t, env, "suite", "gateway"))
		})
	}
}

func TestLoadsRunBesideTheInfrastructure(t *testing.T) {
	const variant = "beside"
	loading, deployed := make(chan struct{}), make(chan struct{})
	var infra string // the first of its objects
	_, env, project := openFake(t, variant, func(call string) error {
		switch {
		case strings.HasPrefix(call, "import gateway/"):
			close(loading)
			<-deployed // ends only if deploy:infra does not wait for it
		case call == "wait "+infra:
			<-loading
			close(deployed)
		}
		return nil
	})
	infra = apply.RefOf(env.Objects["infra"][0]).String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := project.EndToEnd(ctx, "gateway"); err != nil {
		t.Fatal(err)
	}
}

func TestFailingBuildCreatesNoCluster(t *testing.T) {
	const variant = "broken"
	f, env, project := openFake(t, variant, func(call string) error {
		if strings.HasPrefix(call, "build localhost/kubernaut-e2e/gateway:") {
			return errors.New("COPY gateway: no space left on device")
		}
		return nil
	})
	err := project.EndToEnd(t.Context(), "gateway")
	if err == nil || !strings.HasPrefix(err.Error(), "build/gateway: docker/gateway/Dockerfile: COPY gateway: no space left on device") {
		t.Errorf("got %v, want the build's failure first", err)
	}
	if f.Called("create") || len(steps(env, "cluster")) != 0 {
		t.Error("a cluster was created although a build failed")
	}
}

func TestFailingLoadStopsItsBranchAndCancelsTheOthers(t *testing.T) {
	const variant = "badload"
	f, env, project := openFake(t, variant, func(call string) error {
		if strings.HasPrefix(call, "save localhost/kubernaut-e2e/gateway:") {
			return errors.New("unexpected EOF")
		}
		return nil
	})
	err := project.EndToEnd(t.Context(), "gateway")
	if err == nil || !strings.HasPrefix(err.Error(), "load/gateway: unexpected EOF") {
		t.Errorf("got %v, want the load's failure first", err)
	}
	for _, deploy := range steps(env, "deploy") {
		if deploy.Name == "gateway" {
			t.Error("the gateway was deployed although its image was not loaded")
		}
	}
	if len(steps(env, "suite")) != 0 {
		t.Error("the suite ran although a load failed")
	}
	if !f.Called("delete") {
		t.Error("E2E_KEEP=never left the cluster")
	}
}

func TestBothVariantsRunInFullInOneProcess(t *testing.T) {
	standard, plain, project := openFake(t, string(infrastructure.Standard), nil)
	instrumented, covered, coverageProject := openFake(t, string(infrastructure.Coverage), nil)
	use(t, project, coverageProject)
	if err := (E2e{}).Gateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (E2e{}).GatewayCoverage(t.Context()); err == nil || !strings.Contains(err.Error(), "coverage of gateway: no pod ran") {
		t.Fatalf("got %v, want coverage to be missed and nothing else", err)
	}
	for _, env := range []*infrastructure.Environment{plain, covered} {
		for phase, want := range map[string]int{"build": len(env.Images) + 2, "cluster": 1, "load": 5, "deploy": 6, "suite": 1, "teardown": 1} {
			if got := len(steps(env, phase)); got != want {
				t.Errorf("%s: got %d steps of phase %s, want %d", env.Variant, got, phase, want)
			}
		}
	}
	if detail := one(t, plain, "build", "gateway").Detail; detail == one(t, covered, "build", "gateway").Detail {
		t.Errorf("both variants have the image %s", detail)
	}
	if !standard.Called("run go build") || standard.Called("stop") {
		t.Error("the standard chain did not compile, or it collected coverage")
	}
	if stop := instrumented.Find("stop "); !regexp.MustCompile(`\bgateway\b.*\bdatastorage\b`).MatchString(stop) {
		t.Errorf("got %q, want the pods to be stopped, the dependent ones first", stop)
	}
	record, err := os.ReadFile(filepath.Join(covered.Root, ".e2e", covered.ClusterName, "coverage", "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var run struct{ Services, Suites []string }
	if err := json.Unmarshal(record, &run); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(run.Services, []string{"datastorage", "gateway"}) || !slices.Equal(run.Suites, []string{"gateway"}) {
		t.Errorf("got %+v, want what was deployed and tested", run)
	}
}

func TestWhatNeedsNoComponentLeavesTheClusterAlone(t *testing.T) {
	f, env, project := openFake(t, "alone", nil)
	use(t, project, project)
	if err := f.Adapters().Cluster.Create(t.Context(), cluster.Spec{}, cluster.Progress{Prepared: func() {}}); err != nil {
		t.Fatal(err)
	}
	if err := (Bench{}).Orderings(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(steps(env, "orderings")) != 1 || len(steps(env, "cluster")) != 0 || f.Called("delete") || f.Called("stop") {
		t.Errorf("got %q, want the program and nothing else", f.Calls())
	}
}

func TestASoakRunsBothSuitesOnOneCluster(t *testing.T) {
	f, env, project := openFake(t, "soak", nil)
	use(t, project, project)
	if err := (E2e{}).Soak(t.Context(), 0); err == nil || f.Called("create") {
		t.Errorf("got %v, want no soak of no rounds", err)
	}
	if err := (E2e{}).Soak(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"gateway", "datastorage"} {
		if got := strings.Count(strings.Join(f.Calls(), "\n"), "--json-report="+suite+".json"); got != 3 {
			t.Errorf("%s ran %d times", suite, got)
		}
	}
	if got := len(steps(env, "soak")); got != 3 || len(steps(env, "cluster")) != 1 || len(steps(env, "teardown")) != 1 {
		t.Errorf("got %d rounds, %d creations and %d removals of the cluster", got, len(steps(env, "cluster")), len(steps(env, "teardown")))
	}
}

func TestCoverageVariableSelectsTheCoverageChain(t *testing.T) {
	t.Setenv("E2E_COVERAGE", "true")
	variant := infrastructure.Variant("")
	project := targets.Of(infrastructure.Kubernaut())
	project.Root = ".."
	stop := errors.New("opened")
	project.Open = func(_ context.Context, plan *infrastructure.Plan, _ infrastructure.Screen) (*infrastructure.Environment, error) {
		variant = plan.Variant
		return nil, stop
	}
	if err := project.EndToEnd(t.Context(), "gateway"); !errors.Is(err, stop) || variant != infrastructure.Coverage {
		t.Errorf("got %q and %v, want the variant of e2e:gatewayCoverage", variant, err)
	}
}

func TestCoverageIsAskedOfWhatWasDeployed(t *testing.T) {
	const variant = "alone-coverage"
	_, _, project := openFake(t, variant, nil)
	err := project.EndToEnd(t.Context(), "datastorage")
	if err == nil || !strings.Contains(err.Error(), "coverage of datastorage: no pod ran") || strings.Contains(err.Error(), "coverage of gateway") {
		t.Errorf("got %v, want coverage of the data storage to be missed, and of it only", err)
	}
}
