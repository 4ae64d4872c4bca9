package infrastructure_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// founded is a small checkout whose services work on a store, with data of a folder's making.
func founded(t *testing.T, environ ...string) *rig {
	t.Helper()
	root, catalog := small(t)
	filetest.Put(t, root, "docker/store/Dockerfile", "FROM scratch\n")
	filetest.Put(t, root, "sql/1.sql", "create table a")
	filetest.Put(t, root, "manifests/store/base/app.yaml", strings.ReplaceAll(pod, "app", "store"))
	filetest.Put(t, root, "manifests/store/base/kustomization.yaml", "resources: [app.yaml]\nnamespace: ns\n")
	catalog.Images = append(catalog.Images, infrastructure.ImageSpec{Name: "store", Pull: "docker.io/store"})
	catalog.Components = append(catalog.Components, infrastructure.Component{Name: "store"})
	catalog.Components[0].After, catalog.Components[0].Data = []string{"store"}, "sql"
	return rigOf(t, root, catalog, environ...)
}

// again carries the goals out as the next process does, which reads the checkout anew, and
// returns what the world was asked to do to the cluster.
func (r *rig) again(environ []string, goals ...infrastructure.Phase) (string, error) {
	r.t.Helper()
	config, err := infrastructure.ReadConfig(environ)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.plan, err = infrastructure.NewPlan(r.plan.Root, r.plan.Catalog, config); err != nil {
		r.t.Fatal(err)
	}
	r.world.Forget()
	err = r.run(goals...)
	var did []string
	for _, call := range r.world.Calls() {
		what, _, _ := strings.Cut(call, " ")
		if slices.Contains([]string{"create", "keep", "park", "restore", "mend", "delete", "import"}, what) {
			did = append(did, what)
		}
	}
	return strings.Join(did, " "), err
}

func TestAClusterIsParkedAndRestored(t *testing.T) {
	const made = "delete create import import import keep " // what is left of an earlier creation is removed first
	tests := []struct {
		name    string
		environ []string
		between func(r *rig)
		first   string // what happens to the cluster in a run that finds none
		then    string // and in the next
		reason  string // why it is made anew
	}{
		{"by default", nil, nil, made + "park", "restore mend park", ""},
		{"never", []string{"E2E_PARK=never"}, nil, "delete create import import import delete", "delete create import import import delete", ""},
		{"in CI", []string{"CI=true"}, nil, "delete create import import import delete", "delete create import import import delete", ""},
		{"in CI, where that is wanted", []string{"CI=true", "E2E_PARK=always"}, nil, made + "park", "restore mend park", ""},
		{"where the cluster is always kept", []string{"E2E_KEEP=always"}, nil, strings.TrimSpace(made), "mend", ""},
		{"a service has changed, which is not loaded a second time", nil, func(r *rig) {
			filetest.Put(r.t, r.plan.Root, "docker/left/Dockerfile", "FROM scratch\nUSER 1\n")
		}, made + "park", "restore mend import keep park", ""},
		{"what it is founded on has changed", nil, func(r *rig) {
			filetest.Put(r.t, r.plan.Root, "manifests/store/base/app.yaml", strings.ReplaceAll(pod, "app", "store")+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")
		}, made + "park", made + "park", "store is another than in the state that was kept"},
		{"what makes its data has changed", nil, func(r *rig) {
			filetest.Put(r.t, r.plan.Root, "sql/2.sql", "create table b")
		}, made + "park", made + "park", "sql is another than in the state that was kept"},
		{"its state is damaged", nil, func(r *rig) {
			r.world.Fail = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "restore") {
					return &cluster.Broken{Reason: "what was kept of it is damaged"}
				}
				return nil
			}
		}, made + "park", "restore " + made + "park", "what was kept of it is damaged"},
		{"its state is found damaged while it starts", nil, func(r *rig) {
			r.world.Fail = func(ctx context.Context, call string) error {
				switch {
				case strings.HasPrefix(call, "check"):
					return &cluster.Broken{Reason: "what is kept of it is damaged"}
				case strings.HasPrefix(call, "mend"):
					<-ctx.Done()
				}
				return context.Cause(ctx)
			}
		}, made + "park", "restore mend " + made + "park", "what is kept of it is damaged"},
		{"it does not come back", nil, func(r *rig) {
			r.world.Fail = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "mend") {
					return &cluster.Broken{Reason: "not back after 1m0s"}
				}
				return nil
			}
		}, made + "park", "restore mend " + made + "park", "not back after 1m0s"},
		{"its certificates have come to their end", nil, func(r *rig) {
			r.rewrite(func(record *checkout.Record) { record.Made = record.Made.AddDate(-1, 0, 0) })
		}, made + "park", made + "park", "its certificates end after a year, and it was made 36"},
		{"it is a month old", nil, func(r *rig) {
			r.rewrite(func(record *checkout.Record) { record.Made = record.Made.AddDate(0, -1, 0) })
		}, made + "park", "restore mend park", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := founded(t, test.environ...)
			did, err := r.again(test.environ, tested("first"))
			if err != nil || did != test.first {
				t.Fatalf("first run: got %q and %v, want %q", did, err, test.first)
			}
			if test.between != nil {
				test.between(r)
			}
			if strings.Contains(test.reason, "another than") {
				if why := r.forecast(t, infrastructure.CreateCluster); why != "create: "+test.reason {
					t.Errorf("plan: got %s", why)
				}
			}
			did, err = r.again(test.environ, tested("first"))
			if err != nil || did != test.then {
				t.Errorf("next run: got %q and %v, want %q", did, err, test.then)
			}
			text, err := os.ReadFile(filepath.Join(r.plan.Root, ".e2e", "last", "timeline.json"))
			if err != nil || !strings.Contains(string(text), test.reason) {
				t.Errorf("got %v and no word of %q in %s", err, test.reason, text)
			}
		})
	}
}

// A Job that ended before the state was kept does not run again; what another program than
// today's has counted is of no use.
func TestWhatJobsCoveredIsThereAfterARestore(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Coverage))
	raw := filepath.Join(".e2e", plan.ClusterName, "coverage", "raw", "app")
	counters := func() string {
		text, err := os.ReadFile(filepath.Join(plan.Root, raw, "job-1", "covcounters.1"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
	count := func() error {
		filetest.Put(t, plan.Root, filepath.Join(raw, "job-1", "covcounters.1"), "42")
		filetest.Put(t, plan.Root, filepath.Join(raw, "running-1", "covmeta.1"), "")
		return env.ParkCluster(t.Context())
	}
	for _, step := range []struct {
		name   string
		before func() error
		want   string
	}{
		{"restored", count, "42"},
		{"restored again", func() error { return nil }, "42"},
		{"made anew", func() error { return env.DeleteCluster(t.Context()) }, ""},
		{"restored for another program", func() error {
			filetest.Put(t, plan.Root, "docker/app/main.go", "package main\n\nfunc main() { println(3) }\n")
			return count()
		}, ""},
	} {
		if err := step.before(); err != nil {
			t.Fatal(err)
		}
		again, err := infrastructure.NewPlan(plan.Root, plan.Catalog, plan.Config)
		if err != nil {
			t.Fatal(err)
		}
		again.Goals = []infrastructure.Phase{{Kind: infrastructure.RunSuite}} // which wants a clean cluster
		env = reopened(t, w, again, env)
		for _, phase := range again.Phases() {
			if phase.Builds() || phase.Kind == infrastructure.CreateCluster {
				if err := env.Do(t.Context(), phase); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := counters(); got != step.want {
			t.Errorf("%s: got counters %q, want %q", step.name, got, step.want)
		}
		var run coverage.Run
		text, err := os.ReadFile(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "run.json"))
		if err == nil {
			err = json.Unmarshal(text, &run)
		}
		record, recordErr := (&rig{t: t, plan: plan}).cluster().Record()
		if err != nil || recordErr != nil || step.want != "" && run.Started.After(record.Made) {
			t.Errorf("%s: %v, %v: the run began at %s, when what is of %s is too old for it", step.name, err, recordErr, run.Started, record.Made)
		}
		if _, err := os.Stat(filepath.Join(plan.Root, raw, "running-1")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v: a pod that ran when the state was kept is to have counters", step.name, err)
		}
	}
}

// forecast is what plan says of the phase of a kind, and why.
func (r *rig) forecast(t *testing.T, kind infrastructure.Kind) string {
	t.Helper()
	plan, err := infrastructure.NewPlan(r.plan.Root, r.plan.Catalog, r.plan.Config)
	if err != nil {
		t.Fatal(err)
	}
	plan.Goals = r.plan.Goals
	forecasts, err := infrastructure.Explain(t.Context(), plan, r.world.Adapters())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(forecasts, func(f infrastructure.Forecast) bool { return f.Phase.Kind == kind })
	return forecasts[at].Action + ": " + forecasts[at].Why
}

// rewrite changes the record of the cluster.
func (r *rig) rewrite(change func(*checkout.Record)) {
	r.t.Helper()
	record, err := r.cluster().Record()
	if err == nil {
		change(&record)
		err = r.cluster().Made(record)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestARunOfPhasesRestoresOnlyWhatIsParked(t *testing.T) {
	r := founded(t)
	if _, err := r.again(nil, tested("first")); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[infrastructure.Kind]string{
		infrastructure.CreateCluster: "restore: as it was", infrastructure.LoadImage: "cached: ", infrastructure.DeployComponent: "cached: ",
	} {
		if why := r.forecast(t, kind); !strings.HasPrefix(why, want) {
			t.Errorf("plan: got %s, want %s", why, want)
		}
	}
	var status strings.Builder
	if err := infrastructure.Status(t.Context(), r.plan, r.world.Adapters(), &status); err != nil || !strings.Contains(status.String(), "1 MB; parked: the next run restores it") {
		t.Errorf("status: got %s and %v", &status, err)
	}
	if did, err := r.again([]string{"E2E_KEEP=always"}, deployed("right")); err != nil || did != "restore mend" {
		t.Errorf("of a parked cluster: got %q and %v", did, err)
	}
	if did, err := r.again([]string{"E2E_KEEP=always"}, deployed("right")); err != nil || did != "mend" {
		t.Errorf("of one that runs: got %q and %v", did, err)
	}
	if did, err := r.again(nil, tested("first")); err != nil || did != "restore mend park" {
		t.Errorf("of a suite, which begins clean: got %q and %v", did, err)
	}
}

// Killed at any moment, a run leaves what the next one does not take for a whole cluster.
func TestARunThatIsKilledLeavesNoHalfCluster(t *testing.T) {
	for _, call := range []string{"keep", "park", "restore", "mend"} {
		t.Run(call, func(t *testing.T) {
			r := founded(t)
			if _, err := r.again(nil, tested("first")); err != nil {
				t.Fatal(err)
			}
			if call == "keep" { // a second time: a service has changed
				filetest.Put(t, r.plan.Root, "docker/left/Dockerfile", "FROM scratch\nUSER 1\n")
			}
			killed, cancel := context.WithCancel(t.Context())
			r.world.Fail = func(_ context.Context, now string) error {
				if strings.HasPrefix(now, call) {
					cancel()
				}
				return context.Cause(killed) // nothing works any more
			}
			r.plan.Goals = []infrastructure.Phase{tested("first")}
			env := r.open()
			needed, err := r.plan.Needed(r.plan.Goals...)
			if err != nil {
				t.Fatal(err)
			}
			for _, phase := range needed {
				_ = env.Do(killed, phase)
			}
			if call == "park" {
				_ = env.Finish(killed, nil)
			}
			if killed.Err() == nil {
				t.Fatalf("%s was not called: %v", call, r.world.Calls())
			}
			if err := env.Close(); err != nil {
				t.Fatal(err)
			}
			r.world.Fail = nil
			did, err := r.again(nil, tested("first"))
			want := "restore mend park"
			if call == "keep" {
				want = "restore mend import keep park"
			}
			if err != nil || did != want {
				t.Errorf("got %q and %v, want %q", did, err, want)
			}
		})
	}
}

func TestAStateThatCannotBeKeptFailsNoRun(t *testing.T) {
	for _, test := range []struct {
		problem error
		fails   bool
	}{
		{errors.New("no space left on podman's disk"), false},
		{&cluster.Broken{Reason: "its node does not go on"}, true},
	} {
		r := founded(t)
		r.world.Fail = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "keep") {
				return test.problem
			}
			return nil
		}
		did, err := r.again([]string{"E2E_KEEP=never"}, tested("first"))
		if fails := err != nil; fails != test.fails || did != "delete create import import import keep delete" {
			t.Errorf("%v: got %q and %v", test.problem, did, err)
		}
	}
}

func TestAClusterIsParkedAndResetByHand(t *testing.T) {
	r := founded(t)
	open := func(do func(*infrastructure.Environment, context.Context) error) error {
		env := r.open()
		return errors.Join(do(env, t.Context()), env.Close())
	}
	if err := open((*infrastructure.Environment).ResetCluster); err == nil || !strings.Contains(err.Error(), "no state of it is kept") {
		t.Errorf("got %v without a cluster", err)
	}
	if err := open((*infrastructure.Environment).ParkCluster); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("got %v without a cluster", err)
	}
	if _, err := r.again([]string{"E2E_KEEP=always"}, deployed("right")); err != nil {
		t.Fatal(err)
	}
	if err := open((*infrastructure.Environment).ParkCluster); err != nil || !r.world.Called("keep") || !r.world.Called("park") {
		t.Errorf("got %v and %v, want what is there to be kept and parked", err, r.world.Calls())
	}
	target := func() bool {
		_, err := os.Stat(r.cluster().TargetFile())
		return err == nil
	}
	if target() {
		t.Error("there is a target of a cluster that is parked")
	}
	if err := open((*infrastructure.Environment).ResetCluster); err != nil || !r.world.Called("restore") || !r.world.Called("mend") || !target() {
		t.Errorf("got %v and %v, target %t", err, r.world.Calls(), target())
	}
	record, err := r.cluster().Record()
	if err != nil || record.Parked || record.Kept.Deployed["right"] == "" || time.Since(record.Kept.At) > time.Minute {
		t.Errorf("got %+v and %v", record, err)
	}
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "restore") {
			return &cluster.Broken{Reason: "what was kept of it is damaged"}
		}
		return nil
	}
	if err := open((*infrastructure.Environment).ResetCluster); err == nil || !strings.Contains(fmt.Sprint(err), "is damaged; the next run makes it anew") {
		t.Errorf("got %v", err)
	}
}
