package infrastructure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/fake"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// small is a checkout with two services, of which the second is tested by two suites, and
// a catalog of it.
func small(t *testing.T) (string, infrastructure.Catalog) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	root := t.TempDir()
	for path, text := range map[string]string{
		"go.mod":                                 "module x\n\ngo 1.26\n\nrequire sigs.k8s.io/kind v0.33.0\n",
		"docker/node/go.mod":                     "module y\nrequire k8s.io/kubernetes v1.37.2\n",
		"docker/node/patches/none":               "",
		"docker/left/Dockerfile":                 "FROM scratch\n",
		"docker/right/Dockerfile":                "FROM scratch\n",
		"manifests/left/base/app.yaml":           strings.ReplaceAll(pod, "app", "left"),
		"manifests/left/base/kustomization.yaml": "resources: [app.yaml]\nnamespace: ns\n",
		"manifests/right/base/app.yaml": strings.ReplaceAll(pod, "app", "right") +
			"---\napiVersion: v1\nkind: Service\nmetadata: {name: right}\nspec: {type: NodePort, ports: [{name: api, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP, nodePort: 30080}]}\n",
		"manifests/right/base/kustomization.yaml": "resources: [app.yaml]\nnamespace: ns\n",
	} {
		filetest.Put(t, root, path, text)
	}
	return root, infrastructure.Catalog{
		Namespace: "ns", Node: "node",
		Images: []infrastructure.ImageSpec{
			{Name: "node", Pull: "docker.io/node"}, {Name: "left", Package: "./left/cmd/server"}, {Name: "right", Package: "./right/cmd/server"},
		},
		Components: []infrastructure.Component{{Name: "left"}, {Name: "right", After: []string{"left"}}},
		Suites:     []infrastructure.Suite{{Name: "first", Needs: []string{"right"}}, {Name: "second", Needs: []string{"right"}}},
	}
}

// rig is a small checkout whose world does nothing.
type rig struct {
	t     *testing.T
	plan  *infrastructure.Plan
	world *fake.World
}

func newRig(t *testing.T, environ ...string) *rig {
	t.Helper()
	root, catalog := small(t)
	return rigOf(t, root, catalog, environ...)
}

func rigOf(t *testing.T, root string, catalog infrastructure.Catalog, environ ...string) *rig {
	t.Helper()
	config, err := infrastructure.ReadConfig(environ)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := infrastructure.NewPlan(root, catalog, config)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, plan, &fake.World{Name: plan.ClusterName}}
}

func (r *rig) open() *infrastructure.Environment {
	r.t.Helper()
	env, err := infrastructure.OpenWith(r.t.Context(), r.plan, infrastructure.Screen{Out: io.Discard}, r.world.Adapters())
	if err != nil {
		r.t.Fatal(err)
	}
	return env
}

// run carries out what goals need as a process of its own does, up to the first failure.
func (r *rig) run(goals ...infrastructure.Phase) error {
	r.t.Helper()
	r.plan.Goals = goals
	needed, err := r.plan.Needed(goals...)
	if err != nil {
		r.t.Fatal(err)
	}
	env := r.open()
	for _, phase := range needed {
		if doErr := env.Do(r.t.Context(), phase); doErr != nil {
			var specs *infrastructure.SuiteError
			if err = doErr; !errors.As(err, &specs) {
				break
			}
		}
	}
	return errors.Join(env.Finish(r.t.Context(), err), env.Close())
}

func (r *rig) cluster() checkout.Cluster {
	return checkout.Cluster{Checkout: checkout.Checkout{Root: r.plan.Root}, Name: r.plan.ClusterName}
}

func deployed(name string) infrastructure.Phase {
	return infrastructure.Phase{Kind: infrastructure.DeployComponent, Name: name}
}

func tested(name string) infrastructure.Phase {
	return infrastructure.Phase{Kind: infrastructure.RunSuite, Name: name}
}

func TestAnOutlineNeedsNoManifest(t *testing.T) {
	root, catalog := small(t)
	filetest.Put(t, root, "manifests/left/base/app.yaml", ": no manifest")
	config := infrastructure.Config{Variant: infrastructure.Standard}
	if _, err := infrastructure.NewPlan(root, catalog, config); err == nil || !strings.Contains(err.Error(), "manifests/left/base") {
		t.Fatalf("got %v, want the broken manifest", err)
	}
	plan, err := infrastructure.Outline(root, catalog, config)
	if err != nil {
		t.Fatal(err)
	}
	world := &fake.World{Name: plan.ClusterName}
	env, err := infrastructure.OpenWith(t.Context(), plan, infrastructure.Screen{Out: io.Discard}, world.Adapters())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(env.DeleteCluster(t.Context()), env.Close()); err != nil || !world.Called("delete") {
		t.Errorf("got %v and %v, want the cluster to be removed", err, world.Calls())
	}
}

func TestLookingLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.plan.Goals = []infrastructure.Phase{tested("first")}
	if err := infrastructure.Status(t.Context(), r.plan, r.world.Adapters(), io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := infrastructure.Explain(t.Context(), r.plan, r.world.Adapters()); err != nil {
		t.Fatal(err)
	}
	if err := r.open().Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{".e2e/last", ".e2e/build"} {
		if _, err := os.Lstat(filepath.Join(r.plan.Root, path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want no %s", err, path)
		}
	}
}

func TestProgramsOfOneNameStayTwo(t *testing.T) {
	for _, environ := range []string{"", "E2E_COVERAGE=true"} {
		r := newRig(t, environ)
		env := r.open()
		for _, phase := range []infrastructure.Phase{
			{Kind: infrastructure.CompileServices}, {Kind: infrastructure.BuildImage, Name: "left"}, {Kind: infrastructure.BuildImage, Name: "right"},
		} {
			if err := env.Do(t.Context(), phase); err != nil {
				t.Fatal(err)
			}
		}
		var programs []string
		for _, name := range []string{"left", "right"} {
			text, err := os.ReadFile(filepath.Join(r.plan.BuildFolder(name), "server"))
			if err != nil {
				t.Fatal(err)
			}
			programs = append(programs, string(text))
		}
		if want := []string{"./left/cmd/server", "./right/cmd/server"}; !slices.Equal(programs, want) {
			t.Errorf("%s: the images are made of %q, want %q", environ, programs, want)
		}
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestProgramsMayBeRunByOthersWhateverTheUmask(t *testing.T) {
	before := unix.Umask(0o077)
	defer unix.Umask(before)
	r := newRig(t)
	env := r.open()
	for _, phase := range []infrastructure.Phase{{Kind: infrastructure.CompileServices}, {Kind: infrastructure.BuildImage, Name: "left"}} {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(r.plan.BuildFolder("left"), "server"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("got %v and %v, want mode 0755", info.Mode(), err)
	}
}

func TestServicesAreCompiledForTheNodesOfTheCluster(t *testing.T) {
	r := newRig(t)
	env := r.open()
	adapters := r.world.Adapters()
	recorded := &environments{Runner: adapters.Runner}
	if err := env.Close(); err != nil {
		t.Fatal(err)
	}
	adapters.Runner = recorded
	env, err := infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: io.Discard}, adapters)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.CompileServices}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"} {
		if !slices.Contains(recorded.of("go build"), want) {
			t.Errorf("got %q, want %s", recorded.of("go build"), want)
		}
	}
}

func TestTheTargetIsWhatIsDeployed(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	there := func() bool {
		_, err := os.Stat(r.cluster().TargetFile())
		return err == nil
	}
	if err := r.run(deployed("left")); err != nil {
		t.Fatal(err)
	}
	if there() {
		t.Error("there is a target before what suites need is deployed")
	}
	if err := r.run(deployed("right")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.plan.Root, ".e2e", "last", "target.json"))
	if err != nil || !strings.Contains(string(text), `"right/dns"`) || !strings.Contains(string(text), `"right/api"`) {
		t.Errorf("got %s and %v, want the endpoints after deploy:right, of both protocols", text, err)
	}
	env := r.open()
	if err := errors.Join(env.DeleteCluster(t.Context()), env.Close()); err != nil || there() {
		t.Errorf("got %v, target %t; want none without a cluster", err, there())
	}
}

func TestATargetIsGoneWhileItsClusterIsMadeAnew(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.run(deployed("right")); err != nil {
		t.Fatal(err)
	}
	record, err := r.cluster().Record()
	if err != nil {
		t.Fatal(err)
	}
	record.Spec["node image"] = "another"
	if err := r.cluster().Made(record); err != nil {
		t.Fatal(err)
	}
	r.world.Fail = func(_ context.Context, call string) error {
		if call == "create" {
			return errors.New("no space left on device")
		}
		return nil
	}
	if err := r.run(deployed("right")); err == nil {
		t.Fatal("the creation did not fail")
	}
	if _, err := os.Stat(r.cluster().TargetFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no ports of the cluster that was removed", err)
	}
}

func TestAnUnchangedClusterIsUsedAgainAndAHalfMadeOneIsNot(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.run(deployed("right")); err != nil {
		t.Fatal(err)
	}
	r.world.Forget()
	if err := r.run(deployed("right")); err != nil || r.world.Called("create") || r.world.Called("save") {
		t.Errorf("got %v and %v, want nothing to be made again", err, r.world.Calls())
	}
	if err := r.cluster().Unmade(); err != nil {
		t.Fatal(err)
	}
	r.world.Forget()
	if err := r.run(deployed("right")); err != nil || !r.world.Called("delete") || !r.world.Called("create") {
		t.Errorf("got %v and %v, want the half-made cluster to be removed and made", err, r.world.Calls())
	}
}

func TestWhatIsUnchangedIsNotCompiledAgain(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	filetest.Put(t, r.plan.Root, "left/cmd/server/main.go", "package main\n")
	compiled := func() bool {
		t.Helper()
		r.world.Forget()
		if err := r.run(tested("first")); err != nil {
			t.Fatal(err)
		}
		return r.world.Called("run go build") || r.world.Called("run go test")
	}
	if !compiled() || compiled() {
		t.Error("the first run compiles and the second, of the same things, does not")
	}
	filetest.Put(t, r.plan.Root, "left/cmd/server/main.go", "package main // changed\n")
	if !compiled() || compiled() {
		t.Error("a file was changed once, and compiled otherwise than once")
	}
	program := filepath.Join(r.plan.BuildFolder("bin"), "server")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if !compiled() {
		t.Error("a program that is gone was not compiled")
	}
	if err := os.WriteFile(program, []byte("damaged"), 0o755); err != nil {
		t.Fatal(err)
	}
	if !compiled() {
		t.Error("a program that somebody changed was not compiled")
	}
}

func TestADamagedRecordOfCoverageKeepsNoClusterFromBeingRemoved(t *testing.T) {
	r := newRig(t, "E2E_COVERAGE=true", "E2E_KEEP=always")
	filetest.Put(t, r.plan.Root, filepath.Join(".e2e", r.plan.ClusterName, "coverage", "run.json"), "")
	env := r.open()
	if err := env.CollectCoverage(t.Context()); err == nil || !strings.Contains(err.Error(), "run.json") || !strings.Contains(err.Error(), "run the whole chain again") {
		t.Errorf("got %v, want the damaged record and what to do", err)
	}
	if err := errors.Join(env.DeleteCluster(t.Context()), env.Close()); err != nil {
		t.Error(err)
	}
}

func TestAnInterruptedRunIsSummedUpBeforeItsClusterIsRemoved(t *testing.T) {
	r := newRig(t, "E2E_KEEP=never")
	r.plan.Goals = []infrastructure.Phase{deployed("left")}
	env := r.open()
	needed, err := r.plan.Needed(r.plan.Goals...)
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range needed {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	summary := filepath.Join(r.plan.Root, ".e2e", "last", "summary.md")
	r.world.Fail = func(_ context.Context, call string) error {
		if _, err := os.Stat(summary); err != nil && call == "delete" {
			t.Errorf("got %v while the cluster is removed, for which five seconds may be too short", err)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := env.Finish(ctx, context.Canceled); err == nil || !r.world.Called("delete") {
		t.Errorf("got %v and %v", err, r.world.Calls())
	}
	if err := env.Close(); err != nil {
		t.Error(err)
	}
}

func TestAClusterInAnotherEngineIsRemovedThere(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.cluster().Made(checkout.Record{Engine: "docker"}); err != nil {
		t.Fatal(err)
	}
	if err := r.run(deployed("left")); err != nil || !r.world.Called("delete in docker") {
		t.Errorf("got %v and %v, want it to be removed from docker", err, r.world.Calls())
	}
	record, err := r.cluster().Record()
	if err != nil || record.Engine != "podman" {
		t.Errorf("got %+v and %v, want the new one's engine", record, err)
	}
}

func TestARecordStaysWhenTheEngineCannotBeAsked(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.run(deployed("left")); err != nil {
		t.Fatal(err)
	}
	r.world.Fail = func(_ context.Context, call string) error {
		if call == "all" {
			return errors.New("podman: is stopped")
		}
		return nil
	}
	env := r.open()
	err := env.DeleteCluster(t.Context())
	if err == nil || !strings.Contains(err.Error(), "podman: is stopped; is podman running? The cluster stays until it can be asked") {
		t.Errorf("got %v", err)
	}
	if _, err := r.cluster().Record(); err != nil {
		t.Errorf("got %v, want the record of a cluster that may be there", err)
	}
	if err := env.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFailureCancelsWhatAsksANodeThatDoesNotAnswer(t *testing.T) {
	r := newRig(t)
	r.run1(t)
	env := r.open()
	asked := make(chan struct{})
	r.world.Fail = func(ctx context.Context, call string) error {
		switch {
		case strings.HasPrefix(call, "held "):
			close(asked)
			<-ctx.Done()
			return context.Cause(ctx)
		case strings.HasPrefix(call, "run go test -c"):
			<-asked
			return errors.New("does not compile")
		}
		return nil
	}
	for _, phase := range []infrastructure.Phase{{Kind: infrastructure.CompileServices}, {Kind: infrastructure.BuildImage, Name: "left"}} {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wait sync.WaitGroup
	for _, phase := range []infrastructure.Phase{{Kind: infrastructure.LoadImage, Name: "left"}, {Kind: infrastructure.CompileSuite, Name: "first"}} {
		wait.Go(func() {
			if err := env.Do(ctx, phase); err == nil {
				t.Errorf("%s went well", phase)
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		t.Error("the load was not canceled by the build's failure")
	}
	if err := env.Close(); err != nil {
		t.Error(err)
	}
}

// run1 makes the cluster, kept.
func (r *rig) run1(t *testing.T) {
	t.Helper()
	r.plan.Keep = infrastructure.KeepAlways
	if err := r.run(deployed("left")); err != nil {
		t.Fatal(err)
	}
}

func TestAnEngineThatHangsDoesNotKeepARunFromItsEnd(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	synctest.Test(t, func(t *testing.T) {
		env, err := infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: io.Discard}, r.world.Adapters())
		if err != nil {
			t.Fatal(err)
		}
		r.world.Fail = func(ctx context.Context, call string) error {
			if call == "all" {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		began := time.Now()
		err = env.Finish(context.WithoutCancel(t.Context()), errors.New("broken"))
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "broken") || took > 2*time.Minute {
			t.Errorf("got %v after %s", err, took)
		}
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAPanicFailsTheRunAndSaysWhere(t *testing.T) {
	r := newRig(t)
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "exists ") {
			var nothing *infrastructure.Plan
			_ = nothing.Root
		}
		return nil
	}
	err := r.run(deployed("left"))
	if err == nil || !strings.Contains(err.Error(), "nil pointer dereference") || !strings.Contains(err.Error(), "phases_test.go") {
		t.Errorf("got %v, want the panic with its stack", err)
	}
}

// ginkgo is a report of Ginkgo's with as many specs that passed, skipped or failed at one place.
func ginkgo(passed, skipped, failed int) string {
	var specs []string
	for state, count := range map[string]int{"passed": passed, "skipped": skipped, "failed": failed} {
		for i := range count {
			specs = append(specs, fmt.Sprintf(`{"LeafNodeType":"It","LeafNodeText":"%s %d","State":%q,"Failure":{"Message":"too late","Location":{"FileName":"a_test.go","LineNumber":7}}}`, state, i, state))
		}
	}
	return fmt.Sprintf(`[{"PreRunStats":{"TotalSpecs":%d,"SpecsThatWillRun":%d},"SuiteConfig":{"FocusStrings":["only here"]},"SpecReports":[%s]}]`,
		len(specs), passed+failed, strings.Join(specs, ","))
}

func TestASuiteWithoutAMatchingSpecIsSaidWhileAnotherHasOne(t *testing.T) {
	r := newRig(t, "E2E_FOCUS=only here")
	r.world.Report = func(suite string) string {
		return ginkgo(map[string]int{"first": 0, "second": 1}[suite], 5, 0)
	}
	if err := r.run(tested("first"), tested("second")); err != nil {
		t.Fatal(err)
	}
	ran := strings.Join(r.world.Calls(), "\n")
	if strings.Contains(ran, "--json-report=first.json") || !strings.Contains(ran, "--json-report=second.json") {
		t.Errorf("got %s, want the second suite only", ran)
	}
	summary, err := os.ReadFile(filepath.Join(r.plan.Root, ".e2e", "last", "summary.md"))
	if err != nil || !strings.Contains(string(summary), "| suite/first | skipped |") || !strings.Contains(string(summary), "E2E_FOCUS='only here' matches none of its specs") {
		t.Errorf("got %v and %s, want it to be said of the first", err, summary)
	}
}

func TestSpecsAreSelectedOnceForTheSameProgramAndSelection(t *testing.T) {
	r := newRig(t, "E2E_FOCUS=only here", "E2E_KEEP=always")
	r.world.Report = func(string) string { return ginkgo(1, 5, 0) }
	selected := func() bool {
		t.Helper()
		r.world.Forget()
		if err := r.run(tested("first")); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(strings.Join(r.world.Calls(), "\n"), "--ginkgo.dry-run")
	}
	if !selected() || selected() {
		t.Error("the first run asks the suite for its specs, and the second, of the same things, does not")
	}
	filetest.Put(t, r.plan.Root, "first_test.go", "package x // changed\n")
	if !selected() || selected() {
		t.Error("a file was changed once, and the suite was asked otherwise than once")
	}
	r.plan.Config.Suite.Focus = "elsewhere"
	if !selected() {
		t.Error("another selection was not asked for")
	}
}

func TestWhatTheManifestsHaveNoMoreIsLookedForWhenTheyHaveChanged(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	r.plan.Base = "left"
	pruned := func(fails bool) bool {
		t.Helper()
		r.world.Forget()
		r.world.Fail = func(_ context.Context, call string) error {
			if call == "prune" && fails {
				return errors.New("no answer")
			}
			return nil
		}
		if err := r.run(deployed("right")); (err != nil) != fails {
			t.Fatalf("got %v", err)
		}
		return r.world.Called("prune")
	}
	if !pruned(true) || !pruned(false) || pruned(false) {
		t.Error("it is looked for until that went well, and then no more")
	}
	r.plan.Objects["right"] = r.plan.Objects["right"][1:]
	if !pruned(false) || pruned(false) {
		t.Error("an object less is looked for once")
	}
}

func TestASuiteEndsWhenItIsThrough(t *testing.T) {
	r := newRig(t, "E2E_FOCUS=only here")
	t.Setenv("GORACE", "history_size=2")
	if err := r.run(tested("first")); err != nil {
		t.Fatal(err)
	}
	for _, call := range r.world.Calls() {
		if strings.Contains(call, "json-report=") && !strings.Contains(call, "GORACE=atexit_sleep_ms=0 history_size=2") {
			t.Errorf("%s: sleeps at its end, or forgets what the user has set", call)
		}
	}
}

func TestANodeIsAskedOnceARun(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	for range 2 {
		r.world.Forget()
		if err := r.run(tested("first"), tested("second")); err != nil {
			t.Fatal(err)
		}
		asked := map[string]int{}
		for _, call := range r.world.Calls() {
			asked[strings.Fields(call)[0]]++
		}
		if asked["nodes"] > 1 || asked["ports"] != 1 || asked["held"] != 1 {
			t.Errorf("got %v, want each once", asked)
		}
	}
}

func TestTheImagesThatAVariationCameFromStayInTheNode(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.run(tested("first")); err != nil {
		t.Fatal(err)
	}
	env := r.open()
	build, load := infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "right"}, infrastructure.Phase{Kind: infrastructure.LoadImage, Name: "right"}
	if err := env.Do(t.Context(), build); err != nil {
		t.Fatal(err)
	}
	original, err := env.Ref("right")
	if err != nil {
		t.Fatal(err)
	}
	filetest.Put(t, r.plan.Root, "docker/right/Dockerfile", "FROM scratch\nUSER 1\n")
	other, err := env.Variation(t.TempDir(), func(*infrastructure.Plan) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range []infrastructure.Phase{build, load} {
		if err := other.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	varied, err := other.Ref("right")
	if err != nil || varied == original {
		t.Fatalf("got %s, %v", varied, err)
	}
	calls := r.world.Calls()
	pruned := slices.IndexFunc(calls, func(call string) bool {
		return strings.HasPrefix(call, "prune images ") && strings.Contains(call, varied)
	})
	if pruned < 0 || !strings.Contains(calls[pruned], original) {
		t.Errorf("got %v, want %s to stay", calls, original)
	}
	if err := errors.Join(other.Close(), env.Close()); err != nil {
		t.Error(err)
	}
}

func TestAFocusThatMatchesNothingCostsNoCluster(t *testing.T) {
	r := newRig(t, "E2E_FOCUS=nowhere")
	r.world.Report = func(string) string { return ginkgo(0, 5, 0) }
	err := r.run(tested("first"), tested("second"))
	if err == nil || !strings.Contains(err.Error(), "E2E_FOCUS='nowhere': matches none of 5 specs") || r.world.Called("create") {
		t.Errorf("got %v and %v, want no cluster", err, r.world.Calls())
	}
}

func TestEverySpecThatFailedIsNamedWithItsPlace(t *testing.T) {
	r := newRig(t)
	r.world.Report = func(string) string { return ginkgo(1, 0, 2) }
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.Contains(call, "--json-report=") {
			return exit1()
		}
		return nil
	}
	err := r.run(tested("first"), tested("second"))
	if got := strings.Count(fmt.Sprint(err), "a_test.go:7: too late"); got != 4 {
		t.Errorf("got %d of 4 places in %v", got, err)
	}
}

func TestTheLockMayBeAskedForAtOnce(t *testing.T) {
	r := newRig(t, "E2E_LOCK=fail")
	if err := os.MkdirAll(r.cluster().Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(r.cluster().Dir(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(file, `{"pid":4711,"target":"e2e:gateway","since":%q}`, time.Now().Format(time.RFC3339)); err != nil {
		t.Fatal(err)
	}
	_, err = infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: io.Discard}, r.world.Adapters())
	if err == nil || !strings.Contains(err.Error(), "pid 4711 has run e2e:gateway for ") {
		t.Errorf("got %v, want who has it", err)
	}
}

func TestTimeoutsMayBeSet(t *testing.T) {
	r := newRig(t, "E2E_TIMEOUT_DEPLOY=7m", "E2E_TIMEOUT_SUITE=90s")
	if r.plan.Timeouts.Deploy != 7*time.Minute || r.plan.Timeouts.Suite != 90*time.Second || r.plan.Timeouts.Load == 0 {
		t.Errorf("got %+v", r.plan.Timeouts)
	}
}

func TestCleanTakesWhatIsThisCheckouts(t *testing.T) {
	for environ, label := range map[string]string{"E2E_CLEAN=own": "images e2e.kubernaut.ai/image.checkout=", "E2E_CLEAN=all": "images e2e.kubernaut.ai/image"} {
		r := newRig(t, environ, "E2E_KEEP=always")
		if err := r.run(deployed("left")); err != nil {
			t.Fatal(err)
		}
		r.world.Fail = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "remove ") && strings.Contains(call, "/left:") {
				return errors.New("image is in use")
			}
			return nil
		}
		err := infrastructure.Clean(t.Context(), r.plan, r.world.Adapters(), func(string, ...any) {})
		if err == nil || !strings.Contains(err.Error(), "image is in use") {
			t.Errorf("%s: got %v, want what could not be removed", environ, err)
		}
		if !strings.HasPrefix(r.world.Find("images "), label) || environ == "E2E_CLEAN=all" && r.world.Find("images ") != label {
			t.Errorf("%s: got %q, want %q", environ, r.world.Find("images "), label)
		}
		if _, err := os.Stat(filepath.Join(r.plan.Root, ".e2e")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want .e2e to be gone", environ, err)
		}
	}
}

func TestExplainNamesWhatWouldBeMadeAndWhy(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	if err := r.run(tested("first")); err != nil {
		t.Fatal(err)
	}
	r.world.Forget()
	explain := func() map[string]infrastructure.Forecast {
		t.Helper()
		forecasts, err := infrastructure.Explain(t.Context(), r.plan, r.world.Adapters())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]infrastructure.Forecast{}
		for _, f := range forecasts {
			found[f.Phase.String()] = f
		}
		return found
	}
	for name, f := range explain() {
		if f.Action != "reuse" && name != "suite/first" || f.Seconds < 0 && f.Action == "run" {
			t.Errorf("%s: got %+v, want everything to be used again", name, f)
		}
	}
	filetest.Put(t, r.plan.Root, "docker/right/Dockerfile", "FROM scratch\nUSER 1\n")
	now := explain()
	for name, want := range map[string]string{
		"build/left": "reuse", "build/right": "build", "load/left": "reuse", "load/right": "load", "deploy/left": "reuse", "deploy/right": "deploy", "cluster/create": "reuse",
	} {
		if now[name].Action != want {
			t.Errorf("%s: got %+v, want %s", name, now[name], want)
		}
	}
	if got, want := now["build/right"].Why, "changed: docker/right/Dockerfile"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, call := range r.world.Calls() {
		for _, changes := range []string{"build", "create", "delete", "save", "apply", "mend", "prune", "remove", "pull", "run go build"} {
			if strings.HasPrefix(call, changes) {
				t.Errorf("%s: looking does so", call)
			}
		}
	}
}
