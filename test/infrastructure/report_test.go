package infrastructure

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/monitor"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// opened is an environment of a checkout that has nothing in it.
func opened(t *testing.T, change func(*Config), results io.Writer) *Environment {
	t.Helper()
	plan := &Plan{Root: t.TempDir(), ClusterName: "e2e-test", Config: Config{Variant: Standard}}
	if change != nil {
		change(&plan.Config)
	}
	env, err := OpenWith(t.Context(), plan, Screen{Out: io.Discard, Results: results}, Adapters{})
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestARunIsToldOfWhereItIsLookedFor(t *testing.T) {
	var results bytes.Buffer
	step := filepath.Join(t.TempDir(), "step-summary.md")
	env := opened(t, func(c *Config) { c.Annotate, c.StepSummary, c.Job = true, step, "https://ci.example/1" }, &results)
	broken := errors.New("unexpected EOF\nat 50 %")
	_ = env.Timeline.Step(t.Context(), "load", "gateway", func(context.Context, *timeline.Step) error { return broken })
	for range 2 {
		env.tell(t.Context(), broken)
	}
	text, err := os.ReadFile(filepath.Join(env.Evidence, report.SummaryFile))
	if err != nil || !strings.Contains(string(text), "## End to end (standard): failed\n") || !strings.Contains(string(text), "| load/gateway | failed | 0.0 | unexpected EOF ... |\n") {
		t.Errorf("got %s, %v", text, err)
	}
	if added, err := os.ReadFile(step); err != nil || string(added) != string(text)+string(text) {
		t.Errorf("got %s, %v, want both summaries, one after the other", added, err)
	}
	if got, want := results.String(), strings.Repeat("::error title=load/gateway::unexpected EOF%0Aat 50 %25\n", 2); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	page, err := os.ReadFile(filepath.Join(env.Evidence, report.PageFile))
	if err != nil || !strings.Contains(string(page), "https://ci.example/1") || !strings.Contains(string(page), "load/gateway: unexpected EOF") {
		t.Errorf("got %v and a page without the job or the failure:\n%s", err, page)
	}
	// Again from the evidence alone, for whoever has nothing else.
	if err := os.Remove(filepath.Join(env.Evidence, report.PageFile)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Report(t.Context(), env.Plan, &out, ""); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(strings.TrimSpace(out.String())); err != nil || !bytes.Equal(again, page) {
		t.Errorf("got %v and another page at %s", err, out.String())
	}
}

func TestARunIsWatchedFromItsFirstPhaseToItsEnd(t *testing.T) {
	env := opened(t, nil, nil)
	begun := 0
	env.adapters.Monitor = func(ctx context.Context, opts monitor.Options, record *timeline.Recorder) *monitor.Monitor {
		begun++
		opts.Proc, opts.Period = t.TempDir(), time.Millisecond
		record.Measure(timeline.Usage{At: time.Now(), Of: "postgresql", Cores: 1})
		return monitor.Start(ctx, opts, record)
	}
	for range 2 {
		_ = env.Do(t.Context(), Phase{Kind: "none"})
	}
	_ = env.Timeline.Step(t.Context(), "load", "x", func(context.Context, *timeline.Step) error { return nil })
	if err := env.Diagnose(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(env.Evidence, report.PageFile))
	if err != nil || begun != 1 || env.watch != nil || !strings.Contains(string(page), "<span>postgresql</span>") {
		t.Errorf("got %v, begun %d times, watched still %v", err, begun, env.watch != nil)
	}
}

func TestThereIsNoReportOfNoRun(t *testing.T) {
	env := opened(t, nil, nil)
	if err := Report(t.Context(), env.Plan, io.Discard, ""); err == nil || err.Error() != ".e2e/last: there is no run yet; run: go tool mage e2e:all" {
		t.Errorf("got %v", err)
	}
	step := filepath.Join(t.TempDir(), "step-summary.md")
	env.StepSummary = step
	env.tell(t.Context(), errors.New("ended before its first step"))
	if text, err := os.ReadFile(step); err != nil || !strings.Contains(string(text), "ended before its first step") {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestNothingIsAnnotatedElsewhere(t *testing.T) {
	var results bytes.Buffer
	env := opened(t, nil, &results)
	_ = env.Timeline.Step(t.Context(), "load", "gateway", func(context.Context, *timeline.Step) error { return errors.New("broken") })
	env.tell(t.Context(), errors.New("broken"))
	if results.Len() > 0 {
		t.Errorf("got %s", results.String())
	}
}

func TestVariationKnowsWhatWasBuiltAndFailsAlone(t *testing.T) {
	env, runner := opened(t, nil, nil), &command.Recorder{}
	env.adapters.Runner, env.Images = runner, []ImageSpec{{Name: "gateway", Package: "./docker/gateway"}}
	env.setRef("gateway", "gateway:1", false)
	dir := filepath.Join(env.Evidence, "mutants", "one")
	other, err := env.Variation(dir, func(plan *Plan) { plan.Overlay = filepath.Join(dir, "overlay.json") })
	if err != nil {
		t.Fatal(err)
	}
	other.setRef("gateway", "gateway:2", false)
	other.fail(errors.New("broken"))
	if ref, err := env.Ref("gateway"); err != nil || ref != "gateway:1" || env.failure != nil || env.run.Err() != nil {
		t.Errorf("got %s, %v, failure %v: the variation changed what it came from", ref, err, env.failure)
	}
	for _, each := range []*Environment{env, other} {
		if err := each.goBuild(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	plain, varied := runner.Calls()[0], runner.Calls()[1]
	if slices.Contains(plain, "-overlay") || !slices.Contains(varied, "-overlay") || !slices.Contains(varied, other.Overlay) {
		t.Errorf("got %v and %v, want the overlay in the second", plain, varied)
	}
	if env.Overlay != "" || env.binaries() == other.binaries() || filepath.Dir(other.binaries()) != dir {
		t.Errorf("got %s and %s, want what is built with the overlay beside it", env.binaries(), other.binaries())
	}
}
