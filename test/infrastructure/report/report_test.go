package report_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// lacks tells of everything that a text does not have.
func lacks(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestSuiteCountsSpecsAndNamesFailures(t *testing.T) {
	suite := made(t, "spec").Suites[0]
	if got, want := suite.Counts(), "38 passed, 3 failed, 1 not selected"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	failures := suite.Failures()
	spec, node := failures[0], failures[2]
	if spec.Node || spec.File != "test/e2e/gateway/a_test.go" || spec.Line != 7 || !strings.HasPrefix(spec.Brief(), "Expected <int>: 503 to be a 201 ") {
		t.Errorf("got %+v", spec)
	}
	if len(spec.Told) != 1 || !strings.HasPrefix(spec.Told[0], "what was said\nPOST http://") {
		t.Errorf("got %q, want what was said", spec.Told)
	}
	if !node.Node || node.Name != "[ReportAfterSuite] leaves nothing behind" || node.Again != "E2E_KEEP=always go tool mage e2e:gateway" {
		t.Errorf("got %+v", node)
	}
	if long := (report.Failure{Message: strings.Repeat("é ", 999)}).Brief(); len([]rune(long)) > 170 || !strings.HasSuffix(long, " ...") {
		t.Errorf("got %q", long)
	}
}

func TestAFailureIsRepeatedByACommandThatSelectsItAlone(t *testing.T) {
	run := made(t, "spec")
	suite, err := report.ReadSuite(run.Dir+"/junit/gateway.json", "gateway", run.Root, true)
	if err != nil {
		t.Fatal(err)
	}
	again := suite.Failures()[0].Again
	focus, command, _ := strings.Cut(strings.TrimPrefix(again, "E2E_KEEP=always E2E_FOCUS='"), "' ")
	if command != "E2E_COVERAGE=true go tool mage e2e:gateway" {
		t.Errorf("got %s, want the same variant", again)
	}
	only, err := regexp.Compile(strings.ReplaceAll(focus, `'\''`, "'"))
	if err != nil {
		t.Fatal(err)
	}
	// What Ginkgo matches: the suite's text, a space and the spec's.
	const whole = `Gateway The Gateway's answer says 5, <quoted> & "whole"`
	for text, want := range map[string]bool{whole: true, whole + " twice": false, "Gateway " + whole: false} {
		if only.MatchString(text) != want {
			t.Errorf("%s: %s: got %t", again, text, !want)
		}
	}
}

func TestAFailureTellsOfItsPast(t *testing.T) {
	run := made(t, "spec")
	suite, past := run.Suites[0], "failed 3 of 214 runs of this content, first on 2026-03-01 10:00"
	if err := suite.Recall(run.Dir+"/junit/gateway.json", map[string]string{suite.Failures()[0].Name: past}); err != nil {
		t.Fatal(err)
	}
	again, err := report.Read(run.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Write(); err != nil {
		t.Fatal(err)
	}
	lacks(t, read(t, again, report.PageFile), "<p><code>test/e2e/gateway/a_test.go:7</code> "+past+"</p>", "<p><code>test/e2e/gateway/a_test.go:7</code></p>")
	lacks(t, read(t, again, report.SummaryFile), "\n`test/e2e/gateway/a_test.go:7` "+past+"\n", "\n`test/e2e/gateway/a_test.go:7`\n")
}

func TestOnlyARepetitionThatFailedIsTold(t *testing.T) {
	const passed, failed = "gateway" + report.Changed + "1", "gateway" + report.Changed + "2"
	dir := filepath.Join(t.TempDir(), "1")
	record(t, dir, with(work{"suite", passed, suiteAt, time.Second, timeline.Done, ""}, work{"suite", failed, suiteAt, time.Second, timeline.Failed, "1 failed"}), func(r *timeline.Recorder, started time.Time) {
		for name, wrong := range map[string][]int{passed: nil, failed: {5}} {
			ran(t, dir, started.Add(suiteAt), 8, time.Second, wrong...)
			if err := os.Rename(dir+"/junit/gateway.json", dir+"/junit/"+name+".json"); err != nil {
				t.Fatal(err)
			}
		}
		end(t, r, timeline.Broken, "")
	})
	run, err := report.Read(dir)
	if err != nil || len(run.Suites) != 1 || run.Suites[0].Name != failed {
		t.Fatalf("got %+v, %v", run.Suites, err)
	}
	if again := run.Suites[0].Failures()[0].Again; !strings.HasSuffix(again, " go tool mage e2e:gateway") {
		t.Errorf("got %s, which is no target", again)
	}
}

func TestFaultsAreReadFromWhatSpecsReport(t *testing.T) {
	run := made(t, "green")
	var faults []timeline.Event
	for _, event := range run.Events {
		if event.Kind == target.Fault {
			faults = append(faults, event)
		}
	}
	if len(faults) != 6 {
		t.Fatalf("got %+v, want one that lasts and one that does not of each of three specs", faults)
	}
	// The first is never said to be over, the second is, the third kind has no length.
	for i, want := range []time.Duration{3 * time.Second, -1, 2 * time.Second} {
		got := time.Duration(-1)
		if !faults[i].End.IsZero() {
			got = faults[i].End.Sub(faults[i].Start)
		}
		if got != want {
			t.Errorf("%d: got %s, want %s: %+v", i, got, want, faults[i])
		}
	}
}

func TestSummary(t *testing.T) {
	lacks(t, read(t, made(t, "every"), report.SummaryFile),
		"## End to end (standard): failed\n",
		"- set-up 35.0 s: build/suite-gateway 12.0 → cluster/create 16.0 → deploy/infra 5.0 → deploy/gateway 2.0\n",
		"- gateway 22.0 s: 10.0 in parallel → 12.0 one spec at a time; longest 4.0: The Gateway's answer says 37, ",
		"| gateway | 39 | 2 | 1 | 22.0 |\n",
		"### gateway: The Gateway's answer says 5, &lt;quoted> & \"whole\"\n\n`test/e2e/gateway/a_test.go:7`\n\n    Expected\n        <int>: 503\n",
		"    E2E_KEEP=always E2E_FOCUS='^Gateway ",
		"| deploy/failed | failed | 0.0 | broken |\n",
		"| gateway: The Gateway's answer says 37, ",
		"| since the run of 2000-01-01 01:00, which passed |", " | slower | 0.3 | 1.0 |\n",
		"```mermaid\ngantt\n", "  section cluster\n  create 16.0 s :active, 12000, 28000\n", "  ✗ failed 0.0 s :crit, 33000, 33001\n",
	)
	lacks(t, read(t, made(t, "set-up"), report.SummaryFile), "    deploy/infra: StatefulSet/postgresql: not ready\n")
	if got := strings.Count(read(t, made(t, "many"), report.SummaryFile), "\n"); got > 100 {
		t.Errorf("the summary of 2,000 specs has %d lines", got)
	}
}

func TestPictureHasAtMostThirtyBars(t *testing.T) {
	var steps []work
	for i := range 50 {
		steps = append(steps, work{"build", "x" + string(rune('a'+i%26)) + ": #;", 0, time.Duration(i+1) * time.Second, timeline.Done, ""})
	}
	dir := t.TempDir()
	record(t, dir, steps, func(r *timeline.Recorder, _ time.Time) { end(t, r, timeline.Passed, "") })
	run, err := report.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	picture, _, _ := strings.Cut(strings.SplitN(run.Markdown(), "```mermaid\n", 2)[1], "```")
	bars := regexp.MustCompile(`(?m)^  [^:#;]+ \d+\.\d s :(active, |crit, |done, )?\d+, \d+$`).FindAllString(picture, -1)
	if len(bars) != 30 || strings.Count(picture, "\n") != 30+4 {
		t.Errorf("got %d bars:\n%s", len(bars), picture)
	}
	if !strings.Contains(picture, " 50.0 s :active") || strings.Contains(picture, " 20.0 s :") {
		t.Errorf("want the longest ones:\n%s", picture)
	}
}

func TestAnnotationsAreOneLineEach(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(made(t, "every").Annotations()), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %d annotations, want a spec, a node and a step:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	want := `::error file=test/e2e/gateway/a_test.go,line=7,title=The Gateway's answer says 5%2C <quoted> & "whole"::Expected%0A    <int>: 503%0A`
	if !strings.HasPrefix(lines[0], want) || !strings.Contains(lines[0], "%0A%0Aagain: E2E_KEEP=always ") {
		t.Errorf("got %s, want %s", lines[0], want)
	}
	if got, want := lines[2], "::error title=deploy/failed::broken"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPhasesAreJUnitCases(t *testing.T) {
	text := read(t, made(t, "every"), "junit/phases.xml")
	lacks(t, text, `<testsuite name="phases" tests="14" failures="2" skipped="2" `, `<failure message="broken"></failure>`, `classname="phases.unheard-of" name="unheard-of/phase"`, "cached localhost/postgres:1")
}

func TestBudgets(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"setup=45s, gateway=1m40s", ""},
		{"setup", `has "setup", which is no name=duration`}, {"=1s", "no name"}, {"setup=0s", "no name"}, {"setup=-1s", "no name"}, {"setup=fast", "no name"}, {"setup=1s,", "no name"},
	} {
		budgets, err := report.ParseBudgets(test.text)
		if test.want == "" && (err != nil || len(budgets) != 2 || budgets["gateway"] != 100*time.Second) {
			t.Errorf("%s: got %v, %v", test.text, budgets, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %s", test.text, err, test.want)
		}
	}
	budgets := report.Budgets{"setup": time.Second, "gatway": time.Second}
	if err := budgets.Known([]string{"setup", "gateway"}); err == nil || err.Error() != `E2E_BUDGET: "gatway" is no part of a run; there are: setup, gateway` {
		t.Errorf("got %v", err)
	}
	run := made(t, "every")
	if err := run.Over(report.Budgets{"setup": 35 * time.Second, "gateway": 30 * time.Second, "total": time.Hour, "datastorage": 1}); err != nil {
		t.Errorf("got %v, all within its budget", err)
	}
	err := run.Over(report.Budgets{"setup": 34 * time.Second, "cluster/create": 15 * time.Second, "gateway": 20 * time.Second})
	want := strings.Join([]string{
		"cluster/create took 16.0 s, E2E_BUDGET allows 15s",
		"gateway took 30.0 s, E2E_BUDGET allows 20s: [ReportAfterSuite] leaves nothing behind took 2.0 s, and was not in the last run that passed",
		"setup took 35.0 s, E2E_BUDGET allows 34s: deploy/canceled took 1.0 s, and was not in the last run that passed",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	// Every spec takes 0.7 s longer, and the longest are not among them.
	slow := filepath.Join(filepath.Dir(run.Dir), "3")
	green(t, slow, 40, time.Second)
	if run, err = report.Read(slow); err != nil {
		t.Fatal(err)
	}
	err = run.Over(report.Budgets{"gateway": 20 * time.Second})
	if want := `gateway took 24.0 s, E2E_BUDGET allows 20s: The Gateway's answer says 0, <quoted> & "whole" took 1.0 s, 0.3 s in the last run that passed`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	run.Before = nil
	if run.Over(report.Budgets{"gateway": time.Second}) == nil {
		t.Error("without a run before nothing is over its budget")
	}
}

func TestWhatChangedSinceTheLastRunThatPassed(t *testing.T) {
	run := made(t, "spec")
	if run.Before == nil || run.Before.Result != timeline.Passed {
		t.Fatalf("got %+v, want the run before", run.Before)
	}
	text := read(t, run, report.PageFile)
	lacks(t, text, "Since the last run that passed", "slower")
	if strings.Contains(text, "<td>gone") {
		t.Error("a run of which not every spec was selected says that others are gone")
	}
	// Of the three, the first has none before it, and what ran whole is not compared with what
	// did not.
	first, err := report.Read(filepath.Join(filepath.Dir(run.Dir), "1"))
	if err != nil || first.Before != nil {
		t.Errorf("got %+v, %v, there is no run before", first.Before, err)
	}
	third := filepath.Join(filepath.Dir(run.Dir), "3")
	green(t, third, 40, time.Second)
	text = strings.Replace(read(t, &report.Run{Dir: third}, "junit/gateway.json"), `"State": "skipped"`, `"State": "passed"`, 1)
	filetest.Put(t, third, "junit/gateway.json", text)
	if whole, err := report.Read(third); err != nil || whole.Suites[0].Left != 0 || whole.Before != nil {
		t.Errorf("got %v and %+v, the one before left a spec out", err, whole)
	}
}

func TestPageIsOneFileThatNeedsNoOther(t *testing.T) {
	for kind := range kinds {
		page := read(t, made(t, kind), report.PageFile)
		if len(page) > 2<<20 {
			t.Errorf("%s: %d bytes", kind, len(page))
		}
		for _, outside := range []string{"<link", "src=", "@import", "url(", "<script>alert", "ZgotmplZ"} {
			if strings.Contains(page, outside) {
				t.Errorf("%s: the page has %s", kind, outside)
			}
		}
		for _, link := range regexp.MustCompile(`href="([^"#][^"]*)"`).FindAllStringSubmatch(page, -1) {
			if !slices.Contains([]string{"trace.json", "timeline.json", "summary.md", "log/", "junit/", "gather/", "gather/summary.txt", job}, link[1]) && !strings.HasPrefix(link[1], "log/") {
				t.Errorf("%s: links %s", kind, link[1])
			}
		}
	}
}

func TestASuitesReportThatWasCutOffIsSaidSo(t *testing.T) {
	run := made(t, "spec")
	filetest.Put(t, run.Dir, "junit/gateway.json", `[{"SpecReports": [`)
	again, err := report.Read(run.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Write(); err != nil {
		t.Fatal(err)
	}
	lacks(t, read(t, again, report.PageFile), "suite/gateway: 37 passed, 3 failed", "gateway.json: unexpected end of JSON input")
}

func TestCoveragePageNamesEveryPackage(t *testing.T) {
	page, err := report.CoveragePage([]report.Coverage{{
		Service: "app", Pods: []string{"app-1"}, Tested: true,
		Counts:    report.Counts{Statements: 8, Both: 2, EndToEnd: 1, Tests: 1},
		Packages:  []report.Package{{Path: "m/app"}, {Path: "m/app/<x>", Counts: report.Counts{Statements: 8, Both: 2, EndToEnd: 1, Tests: 1}}},
		Unreached: []report.Function{{Name: "(*A).b", File: "app/a.go", Line: 3, Counts: report.Counts{Statements: 4}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	lacks(t, string(page), "(main)", "&lt;x&gt;", `<span class="both" style="width:25.000%">`, `<span class="neither" style="width:50.000%">`, "37.5 %", "50.0 %", "app/a.go:3")
}

// TestEverySectionOfThePictureComesOnce because Mermaid writes the name of one that comes again
// beside the bars of another.
func TestEverySectionOfThePictureComesOnce(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, []work{
		{"load", "one", 0, time.Second, timeline.Done, ""},
		{"deploy", "two", time.Second, 2 * time.Second, timeline.Done, ""},
		{"load", "three", 2 * time.Second, 3 * time.Second, timeline.Done, ""},
	}, func(r *timeline.Recorder, _ time.Time) { end(t, r, timeline.Passed, "") })
	run, err := report.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := run.Markdown()
	if n := strings.Count(got, "section load\n"); n != 1 || strings.Index(got, "  three ") > strings.Index(got, "section deploy\n") {
		t.Errorf("%d sections of load in\n%s", n, got)
	}
}
