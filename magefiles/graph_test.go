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
	"sync"
	"testing"
	"time"

	"github.com/magefile/mage/mg"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// fake is every adapter at once: it does nothing, remembers what was asked of it,
// and fails where the test says.
type fake struct {
	root string
	fail func(call string) error

	mu      sync.Mutex
	calls   []string
	created bool
}

func (f *fake) did(ctx context.Context, call string) error {
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if f.fail != nil {
		return f.fail(call)
	}
	return nil
}

func (f *fake) called(prefix string) bool { return f.find(prefix) != "" }

// find returns the first call that begins like this; empty if there was none.
func (f *fake) find(prefix string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, call := range f.calls {
		if strings.HasPrefix(call, prefix) {
			return call
		}
	}
	return ""
}

// Run stands for go build, go test -c and ginkgo: it leaves the files they leave.
func (f *fake) Run(ctx context.Context, cmd command.Cmd) error {
	if err := f.did(ctx, "run "+strings.Join(cmd.Args, " ")); err != nil {
		return err
	}
	for i, arg := range cmd.Args {
		if arg != "-o" {
			continue
		}
		out := cmd.Args[i+1]
		if !strings.HasSuffix(out, "/") {
			return os.WriteFile(out, []byte(arg), 0o755)
		}
		for _, pkg := range cmd.Args[i+2:] {
			if err := os.WriteFile(filepath.Join(out, filepath.Base(pkg)), []byte(pkg), 0o755); err != nil {
				return err
			}
		}
	}
	for _, arg := range cmd.Args {
		if name, ok := strings.CutPrefix(arg, "--json-report="); ok {
			report := `[{"SpecReports":[{"LeafNodeType":"It","LeafNodeText":"x","State":"passed"}]}]`
			dir := ""
			for _, other := range cmd.Args {
				if d, ok := strings.CutPrefix(other, "--output-dir="); ok {
					dir = d
				}
			}
			return os.WriteFile(filepath.Join(dir, name), []byte(report), 0o644)
		}
	}
	return nil
}

func (f *fake) Build(ctx context.Context, dir, ref, target string, labels ...string) error {
	return f.did(ctx, "build "+ref)
}

// Exists: third-party images are there, services are not.
func (f *fake) Exists(ctx context.Context, ref string) (bool, error) {
	return strings.HasPrefix(ref, "docker.io/") || strings.HasPrefix(ref, "quay.io/"), f.did(ctx, "exists "+ref)
}
func (f *fake) Pull(ctx context.Context, ref string, _ time.Duration) error {
	return f.did(ctx, "pull "+ref)
}
func (f *fake) Save(ctx context.Context, w io.Writer, refs ...string) error {
	return f.did(ctx, "save "+strings.Join(refs, " "))
}
func (f *fake) RunPrivileged(ctx context.Context, ref string, _, _ []string, _ io.Writer, _ string, _ ...string) error {
	return f.did(ctx, "privileged "+ref)
}
func (f *fake) Images(ctx context.Context, label string) ([]string, error) {
	return nil, f.did(ctx, "images")
}
func (f *fake) Remove(ctx context.Context, refs ...string) error { return f.did(ctx, "remove") }

// kindFake has the methods that clash with the engine's names.
type kindFake struct{ *fake }

func (k kindFake) Create(ctx context.Context, spec cluster.Spec, _ func(error)) error {
	k.mu.Lock()
	k.created = true
	k.mu.Unlock()
	return k.did(ctx, "create")
}
func (k kindFake) Ready(ctx context.Context) error { return k.did(ctx, "ready") }
func (k kindFake) Delete(ctx context.Context) error {
	k.mu.Lock()
	k.created = false
	k.mu.Unlock()
	return k.did(ctx, "delete")
}
func (k kindFake) Nodes(ctx context.Context) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.created {
		return []string{"test-control-plane"}, nil
	}
	return nil, nil
}
func (k kindFake) All(ctx context.Context) ([]string, error) { return k.Nodes(ctx) }
func (k kindFake) Ports(ctx context.Context, node string) (map[int32]string, error) {
	ports := map[int32]string{}
	for port := int32(30000); port < 31000; port++ {
		ports[port] = "127.0.0.1:1"
	}
	return ports, nil
}
func (k kindFake) Images(ctx context.Context, node string) ([]string, error) { return nil, nil }
func (k kindFake) Import(ctx context.Context, nodes []string, save func(context.Context, io.Writer) error) error {
	return save(ctx, io.Discard)
}

type applierFake struct{ *fake }

func (a applierFake) Apply(ctx context.Context, objs []*unstructured.Unstructured) (apply.ChangeSet, error) {
	var changes apply.ChangeSet
	for _, obj := range objs {
		changes = append(changes, apply.Change{Object: apply.RefOf(obj), Action: apply.Created})
	}
	return changes, a.did(ctx, "apply "+changes[0].Object.String())
}
func (a applierFake) Wait(ctx context.Context, changes apply.ChangeSet) error {
	return a.did(ctx, "wait "+changes[0].Object.String())
}

// openFake puts an environment with recording adapters where the targets look for
// it. Mage remembers phases by their arguments, so a variant's name of its own gives
// each test phases that have not run; what ends in coverage is the coverage variant.
func openFake(t *testing.T, variant string, fail func(call string) error) (*fake, *infrastructure.Environment) {
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
	plan.Dir = filepath.Join(plan.Root, ".e2e", "test")
	if err := os.MkdirAll(plan.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker", "go.mod"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(plan.Root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(plan.Dir, "kubeconfig"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fake{root: plan.Root, fail: fail}
	env, err := infrastructure.OpenWith(plan, infrastructure.Screen{Out: io.Discard}, infrastructure.Adapters{
		EngineName: "podman", Runner: f, Engine: f, Cluster: kindFake{f},
		Connect: func(string) (infrastructure.Applier, error) { return applierFake{f}, nil },
		Stop: func(ctx context.Context, _, _ string, deployments []string, _ func(*corev1.Pod)) error {
			return f.did(ctx, "stop "+strings.Join(deployments, " "))
		},
		Follow: func(ctx context.Context, _, _ string, _ func(*corev1.Pod)) error {
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	environments.Lock()
	environments.open[variant] = env
	environments.Unlock()
	return f, env
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
			_, env := openFake(t, variant, nil)
			err := end2end(t.Context(), variant, mg.F(e2eGateway, variant))
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
				after(load, one(t, env, "deploy", "cluster"))
			}
			after(one(t, env, "deploy", "infra"), one(t, env, "load", "postgres"))
			after(one(t, env, "deploy", "infra"), one(t, env, "load", "redis"))
			after(one(t, env, "deploy", "migrations"), one(t, env, "deploy", "infra"))
			after(one(t, env, "deploy", "migrations"), one(t, env, "load", "datastorage"))
			after(one(t, env, "deploy", "datastorage"), one(t, env, "deploy", "migrations"))
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
	_, _ = openFake(t, variant, func(call string) error {
		switch {
		case strings.HasPrefix(call, "save localhost/kubernaut-e2e/gateway:"):
			close(loading)
			<-deployed // ends only if deploy:infra does not wait for it
		case strings.HasPrefix(call, "wait Secret/kubernaut-system/postgresql"), strings.HasPrefix(call, "wait ConfigMap/kubernaut-system/postgresql"):
			<-loading
			close(deployed)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := end2end(ctx, variant, mg.F(e2eGateway, variant)); err != nil {
		t.Fatal(err)
	}
}

func TestFailingBuildCreatesNoCluster(t *testing.T) {
	const variant = "broken"
	f, env := openFake(t, variant, func(call string) error {
		if strings.HasPrefix(call, "build localhost/kubernaut-e2e/gateway:") {
			return errors.New("COPY gateway: no space left on device")
		}
		return nil
	})
	err := end2end(t.Context(), variant, mg.F(e2eGateway, variant))
	if err == nil || !strings.HasPrefix(err.Error(), "build/gateway: docker/gateway/Dockerfile: COPY gateway: no space left on device") {
		t.Errorf("got %v, want the build's failure first", err)
	}
	if f.called("create") || len(steps(env, "cluster")) != 0 {
		t.Error("a cluster was created although a build failed")
	}
}

func TestFailingLoadStopsItsBranchAndCancelsTheOthers(t *testing.T) {
	const variant = "badload"
	f, env := openFake(t, variant, func(call string) error {
		if strings.HasPrefix(call, "save localhost/kubernaut-e2e/gateway:") {
			return errors.New("unexpected EOF")
		}
		return nil
	})
	err := end2end(t.Context(), variant, mg.F(e2eGateway, variant))
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
	if !f.called("delete") {
		t.Error("E2E_KEEP=never left the cluster")
	}
}

func TestBothVariantsRunInFullInOneProcess(t *testing.T) {
	standard, plain := openFake(t, string(infrastructure.Standard), nil)
	instrumented, covered := openFake(t, string(infrastructure.Coverage), nil)
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
	if !standard.called("run go build") || standard.called("stop") {
		t.Error("the standard chain did not compile, or it collected coverage")
	}
	if stop := instrumented.find("stop "); !regexp.MustCompile(`\bgateway\b.*\bdatastorage\b`).MatchString(stop) {
		t.Errorf("got %q, want the pods to be stopped, the dependent ones first", stop)
	}
	record, err := os.ReadFile(filepath.Join(covered.Dir, "coverage", "run.json"))
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

func TestCoverageVariableSelectsTheCoverageChain(t *testing.T) {
	t.Setenv("E2E_COVERAGE", "true")
	if variant, err := selected(); err != nil || variant != string(infrastructure.Coverage) {
		t.Errorf("got %q and %v, want the variant of e2e:gatewayCoverage", variant, err)
	}
}

func TestCoverageIsAskedOfWhatWasDeployed(t *testing.T) {
	const variant = "alone-coverage"
	_, _ = openFake(t, variant, nil)
	err := end2end(t.Context(), variant, mg.F(e2eDataStorage, variant))
	if err == nil || !strings.Contains(err.Error(), "coverage of datastorage: no pod ran") || strings.Contains(err.Error(), "coverage of gateway") {
		t.Errorf("got %v, want coverage of the data storage to be missed, and of it only", err)
	}
}
