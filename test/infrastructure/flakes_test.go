package infrastructure_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/history"
)

// remembering is a rig that keeps what came of its suites. Each has one spec, at line 5 of
// a_test.go in its folder, which fails where red says so, by the name of the report.
func remembering(t *testing.T, red func(report string) bool, environ ...string) (*rig, history.Store) {
	t.Helper()
	r, store := newRig(t, append(environ, "E2E_KEEP=always")...), history.Store{Dir: filepath.Join(t.TempDir(), "history")}
	for i, suite := range r.plan.Suites {
		r.plan.Suites[i].Package = "./test/" + suite.Name
	}
	r.world.Report = func(name string) string {
		suite, _, _ := strings.Cut(name, "-")
		return fmt.Sprintf(`[{"SuiteDescription":%q,"StartTime":%q,"SpecReports":[{"LeafNodeType":"It","LeafNodeText":"works","State":%q,"LeafNodeLocation":{"FileName":%q,"LineNumber":5}}]}]`,
			suite, time.Now().Format(time.RFC3339Nano), map[bool]string{true: "failed", false: "passed"}[red(name)], filepath.Join(r.plan.Root, "test", suite, "a_test.go"))
	}
	r.world.Fail = func(_ context.Context, call string) error {
		if _, report, ran := strings.Cut(call, "--json-report="); ran && red(strings.SplitN(report, ".", 2)[0]) {
			return &command.Error{Args: []string{"ginkgo"}, ExitCode: 1}
		}
		return nil
	}
	r.adapt = func(a *infrastructure.Adapters) {
		a.History = func() (history.Store, error) { return store, nil }
		a.Runner = realGit{a.Runner}
	}
	return r, store
}

// realGit is a world with a git that is no fake.
type realGit struct{ command.Runner }

func (g realGit) Run(ctx context.Context, cmd command.Cmd) error {
	if cmd.Args[0] == "git" {
		return command.Local{}.Run(ctx, cmd)
	}
	return g.Runner.Run(ctx, cmd)
}

// git has git do something in the rig's checkout.
func (r *rig) git(args ...string) {
	r.t.Helper()
	args = append([]string{"git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", r.plan.Root}, args...)
	if err := (command.Local{}).Run(r.t.Context(), command.Cmd{Args: args}); err != nil {
		r.t.Fatal(err)
	}
}

func kept(t *testing.T, store history.Store, want int) []history.Run {
	t.Helper()
	runs, err := store.Runs("")
	if err != nil || len(runs) != want {
		t.Fatalf("got %d runs, %v, want %d", len(runs), err, want)
	}
	return runs
}

func TestAFailedSpecTellsHowOftenItFailedOnThisContent(t *testing.T) {
	red := false
	r, store := remembering(t, func(string) bool { return red })
	if err := r.run(tested("first")); err != nil {
		t.Fatal(err)
	}
	red = true
	const past = "failed 1 of 2 runs of this content, first on 20"
	err := r.run(tested("first"))
	page, _ := os.ReadFile(filepath.Join(r.plan.Root, ".e2e", "last", "index.html"))
	if !strings.Contains(fmt.Sprint(err), past) || !strings.Contains(string(page), past) {
		t.Errorf("got %v, and a page without it", err)
	}
	// Another content, of which nothing is known.
	filetest.Put(t, r.plan.Root, "manifests/left/base/app.yaml", strings.ReplaceAll(pod, "app", "left")+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")
	plan, err := infrastructure.NewPlan(r.plan.Root, r.plan.Catalog, r.plan.Config)
	if err != nil {
		t.Fatal(err)
	}
	r.plan = plan
	if err := r.run(tested("first")); err == nil || strings.Contains(err.Error(), "of this content") {
		t.Errorf("got %v", err)
	}
	runs := kept(t, store, 3)
	if runs[0].Content != runs[1].Content || runs[1].Content == runs[2].Content || runs[0].Suite != "first" || runs[0].Procs == 0 || !runs[1].Specs[0].Failed {
		t.Errorf("got %+v", runs)
	}
}

func TestFlakesAreReadFromTheFolderThatIsSet(t *testing.T) {
	for _, folder := range []string{".e2e/history", filepath.Join(t.TempDir(), "history"), ""} {
		r := newRig(t, "E2E_HISTORY="+folder)
		store := history.Store{Dir: folder}
		switch {
		case folder == "":
			store.Dir = filepath.Join(os.Getenv("XDG_CACHE_HOME"), "kubernaut-e2e", "history")
		case !filepath.IsAbs(folder):
			store.Dir = filepath.Join(r.plan.Root, folder)
		}
		var out, problems strings.Builder
		if err := infrastructure.Flakes(r.plan, &out, &problems); err == nil || err.Error() != store.Dir+": no run of a suite is remembered yet; run: go tool mage e2e:all" {
			t.Errorf("%q: got %v", folder, err)
		}
		if err := store.Add(history.Run{Suite: "first", Variant: "standard", Specs: []history.Spec{{Name: "works"}}}); err != nil {
			t.Fatal(err)
		}
		filetest.Put(t, store.Dir, "2-first-1.json.gz", "cut o")
		if err := infrastructure.Flakes(r.plan, &out, &problems); err != nil || !strings.Contains(out.String(), "first (standard): 1 specs never failed") || !strings.Contains(problems.String(), "2-first-1.json.gz: ") {
			t.Errorf("%q: got %v, %s and %s", folder, err, out.String(), problems.String())
		}
	}
}

func TestNobodyIsJudgedByAMutantOrAnInterruptedRun(t *testing.T) {
	r, store := remembering(t, func(string) bool { return true })
	env := r.open()
	ctx, cancel := context.WithCancel(t.Context())
	r.plan.Goals = []infrastructure.Phase{tested("first")}
	needed, err := r.plan.Needed(r.plan.Goals...)
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range needed[:len(needed)-1] {
		if err := env.Do(ctx, phase); err != nil {
			t.Fatal(err)
		}
	}
	mutant, err := env.Variation(t.TempDir(), func(plan *infrastructure.Plan) { plan.Overlay = "overlay.json" })
	if err != nil {
		t.Fatal(err)
	}
	if err := mutant.Do(ctx, tested("first")); err == nil {
		t.Error("the mutant was not noticed")
	}
	fail := r.world.Fail
	r.world.Fail = func(ctx context.Context, call string) error {
		if strings.Contains(call, "--json-report=") {
			cancel()
		}
		return fail(ctx, call)
	}
	if err := env.Do(ctx, tested("first")); err == nil {
		t.Error("the interrupted suite passed")
	}
	kept(t, store, 0)
}

func TestARunWithoutAMemoryGoesOnAndSaysSo(t *testing.T) {
	for want, lost := range map[string]func() (history.Store, error){
		"neither $XDG_CACHE_HOME nor $HOME are defined": func() (history.Store, error) {
			return history.Store{}, errors.New("neither $XDG_CACHE_HOME nor $HOME are defined")
		},
		"not a directory": func() (history.Store, error) { return history.Store{Dir: "/dev/null/history"}, nil },
	} {
		r, _ := remembering(t, func(string) bool { return false })
		adapt := r.adapt
		r.adapt = func(a *infrastructure.Adapters) { adapt(a); a.History = lost }
		if err := r.run(tested("first")); err != nil {
			t.Error(err)
		}
		if told := r.out.String(); strings.Count(told, "memory of flakes: ") != 1 || !strings.Contains(told, want) {
			t.Errorf("got %s, want %s in one line", told, want)
		}
	}
}

func TestWhatIsChangedRunsAgainAndMayTurnAGreenRunRed(t *testing.T) {
	r, store := remembering(t, func(report string) bool { return report == "first-changed-2" }, "E2E_CHANGED=3", "E2E_SEED=7")
	suite := func(body string) string {
		return "package x\n\n\n\nvar _ = It(\"works\", func() {\n\t" + body + "\n})\n"
	}
	filetest.Put(t, r.plan.Root, "test/first/a_test.go", suite("_ = 1"))
	r.git("init", "--quiet", "--initial-branch=main")
	r.git("add", "--all", "--force", "test")
	r.git("commit", "--quiet", "--message=one")
	filetest.Put(t, r.plan.Root, "test/second/a_test.go", suite("")) // new, and in no commit
	r.git("switch", "--quiet", "--create=branch")
	filetest.Put(t, r.plan.Root, "test/first/a_test.go", suite("_ = 2"))
	r.git("commit", "--quiet", "--all", "--message=two")

	err := r.run(tested("first"), tested("second"))
	if !strings.Contains(fmt.Sprint(err), "suite/first-changed-2") || strings.Contains(fmt.Sprint(err), "second") {
		t.Errorf("got %v, want the second repetition of the first suite", err)
	}
	var suites []string
	for _, run := range kept(t, store, 8) {
		suites = append(suites, fmt.Sprintf("%s %t", run.Suite, run.Specs[0].Failed))
	}
	if want := []string{"first false", "first false", "first true", "first false", "second false", "second false", "second false", "second false"}; !slices.Equal(suites, want) {
		t.Errorf("got %q, want %q", suites, want)
	}
	if call := r.world.Find("run " + filepath.Join(r.plan.Root, ".e2e", "build", r.plan.ClusterName, "ginkgo-first") + " run"); !strings.Contains(call, "--seed=7") {
		t.Errorf("got %s, want the seed that was asked for", call)
	}
	for _, call := range r.world.Calls() {
		if strings.Contains(call, "first-changed-") && (!strings.Contains(call, "--focus=^first works$") || strings.Contains(call, "--seed") || !strings.Contains(call, "--procs=1 ")) {
			t.Errorf("got %s, want the one spec in another order each time", call)
		}
	}
}

func TestNothingRunsAgainThatIsAsOnMain(t *testing.T) {
	r, store := remembering(t, func(string) bool { return false }, "E2E_CHANGED=3")
	if err := r.run(tested("first")); err != nil || !strings.Contains(r.out.String(), "E2E_CHANGED: main: no commit in common: ") {
		t.Errorf("got %v and %s, want that there is nothing to compare with", err, r.out.String())
	}
	r.plan.Since = "gone"
	if err := r.run(tested("first")); err == nil || !strings.Contains(err.Error(), "E2E_CHANGED: gone: no commit in common: ") {
		t.Errorf("got %v, want that what was named is not there", err)
	}
	r.plan.Since = ""
	filetest.Put(t, r.plan.Root, "test/first/a_test.go", "package x\n")
	r.git("init", "--quiet", "--initial-branch=main")
	r.git("add", "--all", "--force", "test")
	r.git("commit", "--quiet", "--message=one")
	if err := r.run(tested("first")); err != nil {
		t.Error(err)
	}
	if told := r.out.String(); !strings.Contains(told, "first: no spec that ran is new or changed since main\n") {
		t.Errorf("got %s", told)
	}
	kept(t, store, 3)
}

func TestASuiteOfWhichNothingIsSelectedRunsNothingAgain(t *testing.T) {
	r, _ := remembering(t, func(string) bool { return false }, "E2E_CHANGED=3", "E2E_FOCUS=only here")
	r.world.Report = func(name string) string { return ginkgo(map[string]int{"second": 1}[name], 5, 0) }
	r.git("init", "--quiet", "--initial-branch=main")
	r.git("commit", "--quiet", "--allow-empty", "--message=one")
	if err := r.run(tested("first"), tested("second")); err != nil {
		t.Errorf("got %v, want that of the first suite nothing ran", err)
	}
}

// soak runs rounds of both suites on what is deployed.
func (r *rig) soak(ctx context.Context, rounds int) error {
	r.t.Helper()
	goals := []infrastructure.Phase{tested("first"), tested("second")}
	r.plan.Goals = goals
	needed, err := r.plan.Needed(goals...)
	if err != nil {
		r.t.Fatal(err)
	}
	env := r.open()
	for _, phase := range needed {
		if phase.Kind != infrastructure.RunSuite {
			err = errors.Join(err, env.Do(ctx, phase))
		}
	}
	if err == nil {
		err = env.Soak(ctx, rounds, goals)
	}
	return errors.Join(env.Finish(ctx, err), env.Close())
}

func TestASoakCountsRedRoundsAndGoesOn(t *testing.T) {
	rounds := 0
	r, store := remembering(t, func(report string) bool { return report == "second" && rounds == 2 }, "E2E_SEED=7", "E2E_SOAK_LOAD=1")
	fail := r.world.Fail
	r.world.Fail = func(ctx context.Context, call string) error {
		if strings.Contains(call, "--json-report=first") {
			rounds++
		}
		return fail(ctx, call)
	}
	err := r.soak(t.Context(), 3)
	if err == nil || !strings.HasPrefix(err.Error(), "soak: 1 of 3 rounds failed\n") {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"3 rounds, 1 red: 6.1 - 79.2 % of rounds\n\nSUITE", "\nfirst   standard  3     0    < 100.0 %", "\nsecond  standard  3     1    6.1 - 79.2 %", "second (standard): works\n  failed 1 of 3 runs: "} {
		if !strings.Contains(r.results.String(), want) {
			t.Errorf("no %q in\n%s", want, r.results.String())
		}
	}
	kept(t, store, 6)
	for seed := 7; seed < 10; seed++ {
		if !strings.Contains(strings.Join(r.world.Calls(), "\n"), fmt.Sprintf("--seed=%d ", seed)) {
			t.Errorf("no round had seed %d", seed)
		}
	}
	for round, want := range map[string][]string{
		"001": {"summary.md", "timeline.json"}, "002": {"gather", "index.html", "junit", "log", "summary.md", "timeline.json", "trace.json"},
	} {
		var left []string
		files, err := os.ReadDir(filepath.Join(r.plan.Root, ".e2e", "last", "soak", round))
		for _, file := range files {
			left = append(left, file.Name())
		}
		if err != nil || !slices.Equal(left, want) {
			t.Errorf("round %s has left %q, %v, want %q", round, left, err, want)
		}
	}
}

func TestASoakEndsWithWhatWasRun(t *testing.T) {
	for name, test := range map[string]struct {
		at   func(cancel func()) error // what the second round meets
		want string
	}{
		"interrupted":         {func(cancel func()) error { cancel(); return context.Canceled }, "context canceled"},
		"the cluster is gone": {func(func()) error { return errors.New("no such container") }, "no such container"},
	} {
		t.Run(name, func(t *testing.T) {
			r, store := remembering(t, func(string) bool { return false })
			ctx, cancel := context.WithCancel(t.Context())
			r.world.Fail = func(_ context.Context, call string) error {
				if runs, err := store.Runs(""); err == nil && len(runs) == 2 && strings.Contains(call, "--json-report=") {
					return test.at(cancel)
				}
				return nil
			}
			err := r.soak(ctx, 5)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(r.results.String(), "first   standard  1     0") {
				t.Errorf("got %v and\n%s", err, r.results.String())
			}
			runs := kept(t, store, 2)
			if runs[0].Suite == runs[1].Suite {
				t.Errorf("got %+v", runs)
			}
		})
	}
}
