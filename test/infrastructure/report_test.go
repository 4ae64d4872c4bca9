package infrastructure

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
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

// reported reads a report of Ginkgo's whose failures lie in a file of the checkout.
func reported(t *testing.T, env *Environment) suiteReport {
	t.Helper()
	text := `[{"SuiteDescription": "Gateway", "RunTime": 3000000000, "SpecReports": [
		{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed", "RunTime": 9000000000},
		{"LeafNodeType": "It", "LeafNodeText": "lives", "ContainerHierarchyTexts": ["The Gateway"], "State": "passed", "RunTime": 1000000000},
		{"LeafNodeType": "It", "LeafNodeText": "says 100 %, (quoted)", "ContainerHierarchyTexts": ["The Gateway's answer", "when \"late\""], "State": "failed", "RunTime": 2000000000,
			"Failure": {"Message": "\nExpected 201: got|503\n` + "```" + `\nrequest id 7\n", "Location": {"FileName": "ROOT/test/e2e/gateway/a_test.go", "LineNumber": 7}}},
		{"LeafNodeType": "It", "LeafNodeText": "waits", "State": "skipped"},
		{"LeafNodeType": "ReportAfterSuite", "LeafNodeText": "leaves nothing behind", "State": "timedout",
			"Failure": {"Message": "too late", "Location": {"FileName": "ROOT/test/e2e/gateway/suite_test.go", "LineNumber": 9}}}
	]}]`
	path := filepath.Join(env.Root, "gateway.json")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", env.Root)), 0o644); err != nil {
		t.Fatal(err)
	}
	report, err := env.readReport(path, "gateway")
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestReportCountsSpecsAndNamesFailures(t *testing.T) {
	report := reported(t, opened(t, nil, nil))
	if got, want := report.counts(), "1 passed, 2 failed, 1 not selected"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(report.slowest) != 2 || report.slowest[0].took != 2*time.Second {
		t.Errorf("got %v, want the two specs, the slowest first", report.slowest)
	}
	spec, node := report.failures[0], report.failures[1]
	if spec.Node || spec.File != "test/e2e/gateway/a_test.go" || spec.Line != 7 || spec.first() != "Expected 201: got|503" {
		t.Errorf("got %+v", spec)
	}
	if !node.Node || node.Name != "[ReportAfterSuite] leaves nothing behind" || node.Again != "E2E_KEEP=always go tool mage e2e:gateway" {
		t.Errorf("got %+v", node)
	}
	text := (&SuiteError{Suite: "gateway", Counts: report.counts(), Failed: report.failures}).Error()
	if !strings.Contains(text, "test/e2e/gateway/a_test.go:7: Expected 201: got|503\n") || strings.Contains(text, "request id 7") {
		t.Errorf("got %s, want the first line of each failure", text)
	}
}

func TestAFailureIsRepeatedByACommandThatSelectsItAlone(t *testing.T) {
	report := reported(t, opened(t, func(c *Config) { c.Variant = Coverage }, nil))
	again := report.failures[0].Again
	focus, command, _ := strings.Cut(strings.TrimPrefix(again, "E2E_KEEP=always E2E_FOCUS='"), "' ")
	if command != "E2E_COVERAGE=true go tool mage e2e:gateway" {
		t.Errorf("got %s, want the same variant", again)
	}
	only, err := regexp.Compile(strings.ReplaceAll(focus, `'\''`, "'"))
	if err != nil {
		t.Fatal(err)
	}
	// What Ginkgo matches: the suite's text, a space and the spec's.
	const whole = `Gateway The Gateway's answer when "late" says 100 %, (quoted)`
	for text, want := range map[string]bool{whole: true, whole + " twice": false, "Gateway " + whole: false} {
		if only.MatchString(text) != want {
			t.Errorf("%s: %s: got %t", again, text, !want)
		}
	}
}

func TestSummaryAndAnnotations(t *testing.T) {
	var results bytes.Buffer
	step := filepath.Join(t.TempDir(), "step-summary.md")
	env := opened(t, func(c *Config) { c.Annotate, c.StepSummary = true, step }, &results)
	env.suites = []suiteReport{reported(t, env)}
	broken := errors.New("unexpected EOF\nat 50 %")
	for phase, outcome := range map[string]error{"load": broken, "suite": &SuiteError{Counts: "1 passed, 2 failed"}} {
		_ = env.Timeline.Step(t.Context(), phase, "gateway", func(context.Context, *timeline.Step) error { return outcome })
	}
	for range 2 {
		if err := env.summarize(broken); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(env.Evidence, "summary.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## End to end (standard): failed\n",
		"| gateway | 1 | 2 | 1 | 3.0 |\n",
		"### gateway: The Gateway's answer when \"late\" says 100 %, (quoted)\n\n`test/e2e/gateway/a_test.go:7`\n\n    Expected 201: got|503\n    ```\n    request id 7\n",
		"    E2E_KEEP=always E2E_FOCUS='^Gateway ",
		"| load/gateway | failed | 0.0 | unexpected EOF ... |\n",
		"| gateway: The Gateway lives | 1.0 |\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if added, err := os.ReadFile(step); err != nil || string(added) != string(text)+string(text) {
		t.Errorf("got %s, %v, want both summaries, one after the other", added, err)
	}
	lines := strings.Split(strings.TrimSpace(results.String()), "\n")
	if len(lines) != 6 {
		t.Fatalf("got %d annotations, want two specs and a step, twice:\n%s", len(lines), results.String())
	}
	if want := `::error file=test/e2e/gateway/a_test.go,line=7,title=The Gateway's answer when "late" says 100 %25%2C (quoted)::Expected 201: got|503%0A` + "```%0Arequest id 7%0A%0Aagain: "; !strings.HasPrefix(lines[0], want) {
		t.Errorf("got %s, want %s", lines[0], want)
	}
	if got, want := lines[2], "::error title=load/gateway::unexpected EOF%0Aat 50 %25"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNothingIsAnnotatedElsewhere(t *testing.T) {
	var results bytes.Buffer
	env := opened(t, nil, &results)
	env.suites = []suiteReport{reported(t, env)}
	if err := env.summarize(nil); err != nil {
		t.Fatal(err)
	}
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
