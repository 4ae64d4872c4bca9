package infrastructure_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/engine"
	"kubernaut.ai/e2e/test/infrastructure/fake"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/history"
	"kubernaut.ai/e2e/test/infrastructure/image"
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
	t       *testing.T
	plan    *infrastructure.Plan
	world   *fake.World
	out     strings.Builder // progress
	results strings.Builder
	adapt   func(*infrastructure.Adapters) // changes the world's; nil for nothing
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
	return &rig{t: t, plan: plan, world: &fake.World{Name: plan.ClusterName}}
}

func (r *rig) open() *infrastructure.Environment {
	r.t.Helper()
	adapters := r.world.Adapters()
	if r.adapt != nil {
		r.adapt(&adapters)
	}
	env, err := infrastructure.OpenWith(r.t.Context(), r.plan, infrastructure.Screen{Out: &r.out, Results: &r.results}, adapters)
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

func TestWhatIsCompiledIsForThisMachineAndOfThisCheckout(t *testing.T) {
	r := newRig(t)
	if err := r.run(tested("first")); err != nil {
		t.Fatal(err)
	}
	for _, call := range r.world.Calls() {
		words := strings.Fields(call)
		if len(words) < 3 || words[0] != "run" || words[1] != "go" || words[2] == "env" {
			continue
		}
		want := []string{"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH, "GOFLAGS=", "GOWORK=off"}
		if strings.Contains(call, "./left/cmd/server") { // which runs in an image of nothing else
			want = append(want, "CGO_ENABLED=0")
		}
		for _, want := range want {
			if !slices.Contains(words, want) {
				t.Errorf("%s: without %s", call, want)
			}
		}
	}
	if !r.world.Called("run go build -trimpath") || !r.world.Called("run go test -c") {
		t.Errorf("got %q, want services and a suite compiled", r.world.Calls())
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

func TestAFoundClusterIsMendedOrMadeAnew(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	r.run1(t)
	for _, test := range []struct {
		name  string
		mend  error
		anew  bool
		fails bool
	}{
		{"mended", nil, false, false},
		{"beyond that", &cluster.Broken{Reason: "its API server does not answer"}, true, false},
		{"nobody knows", errors.New("podman: cannot connect to its socket"), false, true},
	} {
		r.world.StopNode()
		r.world.Forget()
		r.world.Fail = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "mend ") {
				return test.mend
			}
			return nil
		}
		err := r.run(deployed("left"))
		if (err != nil) != test.fails || r.world.Called("delete") != test.anew || r.world.Called("create") != test.anew {
			t.Errorf("%s: got %v and %v", test.name, err, r.world.Calls())
		}
	}
	if err := r.run(deployed("left")); err == nil || !strings.Contains(err.Error(), "cannot connect to its socket") {
		t.Errorf("got %v, want what the engine says", err)
	}
}

func TestWhatOthersWaitForIsLoadedWhileTheClusterIsMade(t *testing.T) {
	for _, test := range []struct {
		name   string
		silent bool  // the nodes' consoles do not say that they have booted
		early  error // of the load in the creation
		goal   infrastructure.Phase
		want   []string
	}{
		{"loaded once", false, nil, deployed("right"), []string{"create", "save left", "ready", "save right"}},
		{"loaded later", false, errors.New("containerd does not answer"), deployed("right"), []string{"create", "save left", "ready", "save left", "save right"}},
		{"waited for no longer than it is made", true, nil, deployed("right"), []string{"create", "ready", "save left", "save right"}},
		{"not needed", false, nil, infrastructure.Phase{Kind: infrastructure.CreateCluster}, []string{"create", "ready"}},
	} {
		r := newRig(t, "E2E_KEEP=always")
		asked := make(chan struct{}) // for what is done early
		ask := sync.OnceFunc(func() { close(asked) })
		failed := false
		r.world.Fail = func(ctx context.Context, call string) error {
			if strings.HasPrefix(call, "booted ") {
				if test.silent {
					ask()
					<-ctx.Done()
					return context.Cause(ctx)
				}
				if test.goal.Kind == infrastructure.CreateCluster {
					ask()
				}
			}
			if strings.HasPrefix(call, "save ") && !failed {
				failed = true
				ask()
				return test.early
			}
			return nil
		}
		r.world.Creating = func() { <-asked }
		if err := r.run(test.goal); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var got []string
		for _, call := range r.world.Calls() {
			call, _, _ = strings.Cut(strings.Replace(call, image.Repository, "", 1), ":")
			if call == "create" || call == "ready" || strings.HasPrefix(call, "save ") {
				got = append(got, call)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestTheMachineIsLookedAtBeforeAClusterIsMade(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	var out strings.Builder
	told := false
	r.world.Fail = func(_ context.Context, call string) error {
		if call == "create" {
			told = strings.Contains(out.String(), "this machine may be too small: inotify: 8 of 8 instances free")
			return errors.New("kubelet is not healthy")
		}
		return nil
	}
	adapters := r.world.Adapters()
	adapters.Preflight = func(context.Context) error { return errors.New("inotify: 8 of 8 instances free") }
	env, err := infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: &out}, adapters)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "node"}); err != nil {
		t.Fatal(err)
	}
	err = env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.CreateCluster})
	if !told || err == nil || !strings.Contains(err.Error(), "kubelet is not healthy\ninotify: 8 of 8 instances free") {
		t.Errorf("told before: %v; got %v, want the cause beside the symptom", told, err)
	}
	if err := env.Close(); err != nil {
		t.Error(err)
	}
}

func TestASuiteWhoseNodeHasEndedSaysSo(t *testing.T) {
	r := newRig(t, "E2E_KEEP=always")
	r.world.Report = func(string) string { return ginkgo(1, 0, 2) }
	suites := 0
	r.world.Fail = func(_ context.Context, call string) error {
		if !strings.Contains(call, "--json-report=") {
			return nil
		}
		suites++
		r.world.StopNode()
		return &command.Error{Args: []string{"ginkgo"}, ExitCode: 1}
	}
	err := r.run(tested("first"), tested("second"))
	want := "suite/first: node " + r.plan.ClusterName + "-control-plane: ended while the suite ran"
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "a_test.go:7: too late") || suites != 1 {
		t.Errorf("got %v after %d suites, want %s, what failed, and no other suite", err, suites, want)
	}
	r.world.Fail = nil
	env := r.open()
	r.world.StopNode()
	if err := env.Do(t.Context(), tested("first")); err == nil || !strings.Contains(err.Error(), r.plan.ClusterName+"-control-plane does not run") {
		t.Errorf("got %v of a node that does not run from the start", err)
	}
	if err := env.Close(); err != nil {
		t.Error(err)
	}
}

func TestARunOfSinglePhasesIsToldOfToo(t *testing.T) {
	r := newRig(t, "GITHUB_ACTIONS=true", "GITHUB_STEP_SUMMARY="+filepath.Join(t.TempDir(), "summary.md"))
	var results strings.Builder
	r.world.Fail = func(context.Context, string) error { return errors.New("no answer") }
	env, err := infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: io.Discard, Results: &results}, r.world.Adapters())
	if err != nil {
		t.Fatal(err)
	}
	err = env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "node"})
	if err := errors.Join(env.Diagnose(t.Context(), err), env.Close()); err == nil {
		t.Error("the build did not fail")
	}
	summary, err := os.ReadFile(r.plan.StepSummary)
	if err != nil || !strings.Contains(string(summary), "| build/node | failed |") || !strings.HasPrefix(results.String(), "::error title=build/node::") {
		t.Errorf("got %v, %s and %s, want the failure in the job's summary and as an annotation", err, summary, results.String())
	}
}

func TestImagesAreGotAsThePolicySays(t *testing.T) {
	refused := fmt.Errorf("%w: manifest unknown", engine.ErrRefused)
	silent := fmt.Errorf("%w within 15s", engine.ErrNoAnswer)
	for _, test := range []struct {
		policy string
		pull   error
		builds bool
		want   string // of the error; empty for none
	}{
		{"auto", nil, false, ""},
		{"auto", refused, false, "manifest unknown; E2E_IMAGES=build builds the image from packages"},
		{"pull", silent, false, "E2E_IMAGES=auto would build the image from packages"},
		{"auto", errors.New("podman: is gone"), false, "podman: is gone"},
		{"auto", silent, true, "build/node: "}, // of which this small checkout has nothing
		{"build", nil, true, "build/node: "},
	} {
		r := newRig(t, "E2E_IMAGES="+test.policy)
		r.plan.Images[0].Pull = "registry.example/node:1"
		r.world.Fail = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "pull ") {
				return test.pull
			}
			return nil
		}
		env := r.open()
		err := env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "node"})
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %v: got %v, want %q", test.policy, test.pull, err, test.want)
		}
		if r.world.Called("run go -C") != test.builds || r.world.Called("pull ") != (test.policy != "build") {
			t.Errorf("%s, %v: got %v", test.policy, test.pull, r.world.Calls())
		}
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAnImageThatIsPinnedIsLoadedByANameOfOurs(t *testing.T) {
	r := newRig(t)
	const pinned = "quay.io/db:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	r.plan.Images = append(r.plan.Images, infrastructure.ImageSpec{Name: "db", Pull: pinned})
	filetest.Put(t, r.plan.Root, "docker/db/Dockerfile", "FROM scratch\n")
	env := r.open()
	err := env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "db"})
	ref, refErr := env.Ref("db")
	if err := errors.Join(err, refErr, env.Close()); err != nil || ref != image.Loadable("db", pinned) || r.world.Find("tag ") != "tag "+ref {
		t.Errorf("got %v, %s and %v, want a name that the node finds", err, ref, r.world.Calls())
	}
}

func TestASuiteIsCompiledWithTheRaceDetectorWhereThereIsACompiler(t *testing.T) {
	for compiler, want := range map[string]bool{"sh -m64": true, "no-such-compiler": false} {
		r := newRig(t)
		adapters := r.world.Adapters()
		adapters.Runner = &command.Recorder{Answer: func(cmd command.Cmd) error {
			if slices.Equal(cmd.Args, []string{"go", "env", "CC"}) {
				_, err := io.WriteString(cmd.Stdout, compiler)
				return err
			}
			return r.world.Run(t.Context(), cmd)
		}}
		env, err := infrastructure.OpenWith(t.Context(), r.plan, infrastructure.Screen{Out: io.Discard}, adapters)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(env.Do(t.Context(), infrastructure.Phase{Kind: infrastructure.CompileSuite, Name: "first"}), env.Close())
		call := r.world.Find("run go test -c")
		if err != nil || strings.Contains(call, " -race ") != want || strings.Contains(call, " CGO_ENABLED=1") != want {
			t.Errorf("%s: got %v and %s, want the race detector: %v", compiler, err, call, want)
		}
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
	return fmt.Sprintf(`[{"PreRunStats":{"TotalSpecs":%d,"SpecsThatWillRun":%d},"SuiteConfig":{"FocusStrings":["only here"]},"SuiteDescription":"A suite","SpecReports":[%s]}]`,
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
		return slices.Contains(r.world.Calls(), "prune")
	}
	if pruned(false) {
		t.Error("a new cluster holds nothing to look for")
	}
	r.plan.Objects["right"] = r.plan.Objects["right"][1:]
	if !pruned(true) || !pruned(false) || pruned(false) {
		t.Error("it is looked for until that went well, and then no more")
	}
}

func TestAnImageIsWrittenOnceForAllClusters(t *testing.T) {
	r := founded(t, "E2E_PARK=never")
	archives := r.cluster().Build("images")
	loads := func() (saved []string) {
		t.Helper()
		r.world.Forget()
		if err := r.run(deployed("right")); err != nil {
			t.Fatal(err)
		}
		for _, call := range r.world.Calls() {
			if name, ok := strings.CutPrefix(call, "save "); ok {
				saved = append(saved, cmp.Or(image.NameOf(name), name))
			}
		}
		slices.Sort(saved)
		return saved
	}
	if got := loads(); !slices.Equal(got, []string{"docker.io/store", "left", "right"}) {
		t.Fatalf("saved %v, want all", got)
	}
	// Another's reference may mean another image today.
	if got := loads(); !slices.Equal(got, []string{"docker.io/store"}) {
		t.Errorf("saved %v again", got)
	}
	// What a run that was killed has left, and an image that was built anew.
	filetest.Put(t, archives, "left/.localhost.tar123", "half")
	filetest.Put(t, r.plan.Root, "docker/left/Dockerfile", "FROM scratch\nUSER 1\n")
	if got := loads(); !slices.Equal(got, []string{"docker.io/store", "left"}) {
		t.Errorf("saved %v, want what has changed", got)
	}
	for _, name := range []string{"left", "right", "store"} {
		if files, err := os.ReadDir(filepath.Join(archives, name)); err != nil || len(files) != 1 {
			t.Errorf("%s: got %v and %v, want one archive", name, files, err)
		}
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
	for _, early := range []bool{false, true} {
		r := newRig(t, "E2E_KEEP=always")
		first := 1 // how often a new cluster is asked
		if early {
			first = 2 // while it is made nothing is known that stays true
			imported := make(chan struct{})
			r.world.Creating = func() { <-imported }
			r.world.Fail = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "import ") && !r.world.Called("ready") {
					close(imported)
				}
				return nil
			}
		}
		// Which nodes a kept one has is on record.
		for _, want := range []map[string]int{{"nodes": first, "held": first, "ports": 1}, {"held": 1, "ports": 1}} {
			r.world.Forget()
			if err := r.run(tested("first"), tested("second")); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, call := range r.world.Calls() {
				if asked := strings.Fields(call)[0]; slices.Contains([]string{"nodes", "held", "ports"}, asked) {
					got[asked]++
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("early %v: asked %v, want %v", early, got, want)
			}
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
	if err == nil || !strings.Contains(err.Error(), "E2E_FOCUS='nowhere': matches none of 5 specs; one of them is \"A suite skipped 0\"") || r.world.Called("create") {
		t.Errorf("got %v and %v, want no cluster", err, r.world.Calls())
	}
}

func TestEverySpecThatFailedIsNamedWithItsPlace(t *testing.T) {
	r := newRig(t)
	r.world.Report = func(string) string { return ginkgo(1, 0, 2) }
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.Contains(call, "--json-report=") {
			return &command.Error{Args: []string{"ginkgo"}, ExitCode: 1}
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
	config, err := infrastructure.ReadConfig([]string{"E2E_TIMEOUT_SUITE=45s"})
	if err != nil {
		t.Fatal(err)
	}
	root, catalog := small(t)
	if _, err := infrastructure.Outline(root, catalog, config); err == nil || err.Error() != "E2E_TIMEOUT_SUITE: a suite has 45s less the 1m0s of E2E_TIMEOUT_GATHER, which leaves nothing" {
		t.Errorf("got %v, want a suite without time to be refused", err)
	}
}

func TestCleanTakesWhatIsThisCheckouts(t *testing.T) {
	bin := t.TempDir()
	filetest.Program(t, bin, "podman", "") // in whose store is nothing
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for environ, label := range map[string]string{"E2E_CLEAN=own": "images e2e.kubernaut.ai/image.checkout=", "E2E_CLEAN=all": "images e2e.kubernaut.ai/image"} {
		r := newRig(t, environ, "E2E_KEEP=always")
		lost := checkout.Cluster{Checkout: checkout.Checkout{Root: filepath.Join(r.plan.Root, "moved")}, Name: "e2e-lost"}
		lost.Register("podman", time.Now())
		killed := checkout.Cluster{Checkout: checkout.Checkout{Root: r.plan.Root}, Name: "e2e-killed-bench"} // which could not remove it
		killed.Register("podman", time.Now())
		var said strings.Builder
		canceled, cancel := context.WithCancel(t.Context())
		cancel() // it is about what it says at its end
		_ = infrastructure.Doctor(canceled, r.plan, &said, false)
		const remedy = "podman rm --force --volumes $(podman ps --all --quiet --filter label=io.x-k8s.kind.cluster=e2e-lost)"
		if want := "cluster e2e-lost: its checkout " + lost.Root + " is gone; remove it: " + remedy; !strings.Contains(said.String(), want) {
			t.Errorf("doctor says %s, want %s", said.String(), want)
		}
		if err := r.run(deployed("left")); err != nil {
			t.Fatal(err)
		}
		r.world.Fail = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "remove ") && strings.Contains(call, "/left:") {
				return errors.New("image is in use")
			}
			return nil
		}
		past := history.Store{Dir: filepath.Join(os.Getenv("XDG_CACHE_HOME"), "kubernaut-e2e", "history")}
		if err := past.Add(history.Run{Suite: "first"}); err != nil {
			t.Fatal(err)
		}
		said.Reset()
		err := infrastructure.Clean(t.Context(), r.plan, r.world.Adapters(), func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) })
		if !strings.Contains(said.String(), "removed cluster e2e-killed-bench") {
			t.Errorf("%s: a cluster of the checkout's own stays: %s", environ, said.String())
		}
		entries, listErr := checkout.Registered()
		want, left := "E2E_CLEAN=all removes it, or: "+remedy, true
		if environ == "E2E_CLEAN=all" {
			want, left = "removed cluster e2e-lost", false
		}
		if listErr != nil || len(entries) > 0 != left || !strings.Contains(said.String(), want) {
			t.Errorf("%s: got %v, %v, and it says %s, want %s", environ, entries, listErr, said.String(), want)
		}
		if err == nil || !strings.Contains(err.Error(), "image is in use") {
			t.Errorf("%s: got %v, want what could not be removed", environ, err)
		}
		if !strings.HasPrefix(r.world.Find("images "), label) || environ == "E2E_CLEAN=all" && r.world.Find("images ") != label {
			t.Errorf("%s: got %q, want %q", environ, r.world.Find("images "), label)
		}
		if _, err := os.Stat(filepath.Join(r.plan.Root, ".e2e")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want .e2e to be gone", environ, err)
		}
		if runs, err := past.Runs(""); err != nil || (len(runs) == 0) != (environ == "E2E_CLEAN=all") {
			t.Errorf("%s: got %d results of past runs, %v", environ, len(runs), err)
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
		if f.Action != "cached" && name != "suite/first" || f.Took == 0 && f.Action == "run" {
			t.Errorf("%s: got %+v, want everything to be used again", name, f)
		}
	}
	filetest.Put(t, r.plan.Root, "docker/right/Dockerfile", "FROM scratch\nUSER 1\n")
	now := explain()
	for name, want := range map[string]string{
		"build/left": "cached", "build/right": "build", "load/left": "cached", "load/right": "load", "deploy/left": "cached", "deploy/right": "deploy", "cluster/create": "cached",
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
