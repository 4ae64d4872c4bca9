package coverage_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

func packages(result report.Coverage) map[string]report.Counts {
	counts := map[string]report.Counts{}
	for _, pkg := range result.Packages {
		counts[strings.TrimPrefix(pkg.Path, "example.com/m/")] = pkg.Counts
	}
	return counts
}

func TestFiguresAreThoseOfTheProgram(t *testing.T) {
	p := compile(t, instrumented...)
	p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
	first, err := p.report(t)
	if err != nil {
		t.Fatal(err)
	}
	// main has 7 statements, of which the bodies of both ifs do not run; Take has 7, of
	// which the switch and the left branch run; Never has 3, Nowhere 2.
	want := map[string]report.Counts{
		"app":        {Statements: 7, EndToEnd: 5},
		"app/choice": {Statements: 12, EndToEnd: 3},
	}
	if got := packages(first); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if first.Statements != 19 || first.EndToEnd != 8 || first.Generated != 2 || first.Tested || !slices.Equal(first.Pods, []string{"app-1"}) {
		t.Errorf("got %+v", first)
	}
	before := lines(t, p, coverage.ProfileFile)

	// One more branch, in another pod.
	p.known("app-2", p.pod(t, p.folder(t, "app-2"), "right"))
	second, err := p.report(t)
	if err != nil {
		t.Fatal(err)
	}
	want["app/choice"] = report.Counts{Statements: 12, EndToEnd: 6}
	if got := packages(second); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want the right branch's 3 statements more", got)
	}
	var newly []string
	for block, ran := range lines(t, p, coverage.ProfileFile) {
		if ran != before[block] {
			newly = append(newly, block)
		}
	}
	if len(newly) != 1 || !strings.HasPrefix(newly[0], "example.com/m/app/choice/choice.go:13.15,16.11 3") {
		t.Errorf("got %v, want the right branch and no other", newly)
	}
}

// lines are the blocks of a profile, and whether each ran.
func lines(t *testing.T, p *program, name string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.service.Out, name))
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if at := strings.LastIndex(line, " "); !strings.HasPrefix(line, "mode:") {
			blocks[line[:at]] = strings.TrimSpace(line[at:]) != "0"
		}
	}
	return blocks
}

func TestTestsAreMergedByStatement(t *testing.T) {
	p := compile(t, instrumented...)
	p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
	tests := filepath.Join(p.root, "tests")
	if err := os.Mkdir(tests, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context(), "go", "test", "-covermode=atomic", "-coverpkg=./app/...", "./app/...", "-args", "-test.gocoverdir="+tests); err != nil {
		t.Fatal(err)
	}
	p.service.Tests = []string{tests}
	result, err := p.report(t)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]report.Counts{
		"app": {Statements: 7, EndToEnd: 5},
		// Both the switch; end to end the left branch; tests the right one and Never;
		// neither Take's last line and Nowhere.
		"app/choice": {Statements: 12, Both: 1, EndToEnd: 2, Tests: 6},
	}
	if got := packages(result); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := result.Packages[1].Neither(); got != 3 {
		t.Errorf("got %d statements that nothing reaches, want 3", got)
	}
	if len(result.Unreached) != 1 || result.Unreached[0].Name != "(*Choice).Nowhere" || result.Unreached[0].File != "app/choice/choice.go" || result.Unreached[0].Line != 29 {
		t.Errorf("got %+v, want Nowhere alone", result.Unreached)
	}
	merged, pods := lines(t, p, coverage.MergedFile), lines(t, p, coverage.ProfileFile)
	never := "example.com/m/app/choice/choice.go:22.18,26.2 3"
	if !merged[never] || pods[never] {
		t.Errorf("Never: merged %v, end to end %v, want it to be reached by tests only", merged[never], pods[never])
	}
	for _, text := range []string{
		"| **app** | 19 | 7 | 1 | 6 | 5 | **42.1** | **73.7** |",
		"| example.com/m/app/choice | 12 | 2 | 1 | 6 | 3 | 25.0 | 75.0 |",
		"app: counters of 1 pod; 2 statements of generated files are not counted.",
		"| `(*Choice).Nowhere` | app/choice/choice.go:29 | 2 |",
	} {
		if table := report.CoverageMarkdown([]report.Coverage{result}); !strings.Contains(table, text) {
			t.Errorf("got\n%s\nwant %s", table, text)
		}
	}
}

func TestProfileHoldsThePackagesOfTheProgramAndNoOthers(t *testing.T) {
	for _, test := range []struct{ name, instrument, want string }{
		{"one is missing", "-coverpkg=./app", "coverage of app: lacks package example.com/m/app/choice, which is part of the program"},
		{"a foreign one", "-coverpkg=./app/...,errors", "coverage of app: holds package errors, which is not below example.com/m/app"},
		{"none", "-coverpkg=./app/kinds", "coverage of app: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := compile(t, "-cover", "-covermode=atomic", test.instrument)
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
			_, err := p.report(t)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if _, err := os.Stat(p.service.Out); !os.IsNotExist(err) {
				t.Error("a report was left that is not the truth")
			}
		})
	}
}
