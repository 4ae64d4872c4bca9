package infrastructure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// summarize tells of a run that ended with outcome: as Markdown in the evidence folder
// and, on GitHub, in the summary of the job and as annotations.
func (e *Environment) summarize(outcome error) error {
	e.mu.Lock()
	suites := slices.Clone(e.suites)
	e.mu.Unlock()
	doc := e.Timeline.Document()
	text := markdown(doc, suites, outcome)
	var err error
	if e.Evidence != "" { // a run may end before its first step
		err = os.WriteFile(filepath.Join(e.Evidence, "summary.md"), []byte(text), 0o644)
	}
	if e.StepSummary != "" {
		err = errors.Join(err, appendFile(e.StepSummary, text))
	}
	if e.Annotate {
		_, writing := e.results.Write([]byte(annotations(doc, suites)))
		err = errors.Join(err, writing)
	}
	return err
}

func appendFile(path, text string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// markdown is the summary of a run.
func markdown(doc timeline.Document, suites []suiteReport, outcome error) string {
	var b strings.Builder
	result := "passed"
	if outcome != nil {
		result = "failed"
	}
	fmt.Fprintf(&b, "## End to end (%s): %s\n\n", doc.Variant, result)
	fmt.Fprintf(&b, "Set-up %.1f s, suites %.1f s, total %.1f s on cluster %s.\n", doc.SetupSeconds, doc.SuiteSeconds, doc.TotalSeconds, doc.Cluster)
	if len(suites) > 0 {
		b.WriteString("\n| suite | passed | failed | not selected | seconds |\n|---|--:|--:|--:|--:|\n")
	}
	var slow []timedSpec
	for _, suite := range suites {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %.1f |\n", cell(suite.name), suite.passed, suite.failed, suite.notSelected, suite.took.Seconds())
		for _, spec := range suite.slowest {
			slow = append(slow, timedSpec{suite.name + ": " + spec.name, spec.took})
		}
	}
	for _, suite := range suites {
		for _, spec := range suite.failures {
			fmt.Fprintf(&b, "\n### %s: %s\n\n`%s:%d`\n\n%s\n\nagain:\n\n%s\n", cell(suite.name), cell(spec.Name), spec.File, spec.Line, block(spec.Message), block(spec.Again))
		}
	}
	b.WriteString("\n| phase | outcome | seconds | |\n|---|---|--:|---|\n")
	for _, step := range doc.Steps {
		fmt.Fprintf(&b, "| %s/%s | %s | %.1f | %s |\n", cell(step.Phase), cell(step.Name), step.Outcome, step.End.Sub(step.Start).Seconds(), cell(step.Detail))
	}
	if len(slow) > 0 {
		b.WriteString("\n| slowest specs | seconds |\n|---|--:|\n")
	}
	for _, spec := range slowest(slow) {
		fmt.Fprintf(&b, "| %s | %.1f |\n", cell(spec.name), spec.took.Seconds())
	}
	b.WriteString("\n")
	return b.String()
}

// cell is the first line of a text as it may stand in a table or heading.
func cell(text string) string {
	first, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		first += " ..."
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "`", "'").Replace(first)
}

// shownLines is how much of a failure the summary shows; all of it stands in the log.
const shownLines = 40

// block is a text as code, whatever it holds.
func block(text string) string {
	lines := strings.Split(text, "\n")
	if len(lines) > shownLines {
		lines = append(lines[:shownLines:shownLines], "...")
	}
	return "    " + strings.Join(lines, "\n    ")
}

// annotations are GitHub's workflow commands for what failed: each spec at its line,
// and each step that is no suite.
func annotations(doc timeline.Document, suites []suiteReport) string {
	var b strings.Builder
	for _, suite := range suites {
		for _, spec := range suite.failures {
			fmt.Fprintf(&b, "::error file=%s,line=%d,title=%s::%s\n", property(spec.File), spec.Line, property(spec.Name), data(spec.Message+"\n\nagain: "+spec.Again))
		}
	}
	for _, step := range doc.Steps {
		told := slices.ContainsFunc(suites, func(suite suiteReport) bool {
			return step.Phase == "suite" && suite.name == step.Name && suite.failed > 0
		})
		if step.Outcome == timeline.Failed && !told {
			fmt.Fprintf(&b, "::error title=%s::%s\n", property(step.Phase+"/"+step.Name), data(step.Detail))
		}
	}
	return b.String()
}

// data escapes the text of a workflow command, which is one line.
func data(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

// property escapes a property of a workflow command, which ends with a comma or colon.
func property(text string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(text))
}
