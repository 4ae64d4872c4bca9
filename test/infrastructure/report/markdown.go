package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

const (
	shownSlow    = 10 // specs
	shownChanges = 15
)

// Markdown is the summary of the run.
func (r *Run) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## End to end (%s): %s\n\n", r.Variant, cmp.Or(string(r.Result), "not ended"))
	fmt.Fprintf(&b, "Set-up %.1f s, suites %.1f s, total %.1f s on cluster %s.\n", r.SetupSeconds, r.SuiteSeconds, r.TotalSeconds, r.Cluster)
	for _, line := range r.where() {
		fmt.Fprintf(&b, "- %s\n", cell(line))
	}
	if len(r.Suites) > 0 {
		b.WriteString("\n| suite | passed | failed | not selected | seconds |\n|---|--:|--:|--:|--:|\n")
	}
	for _, suite := range r.Suites {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %.1f |\n", cell(suite.Name), suite.Passed, suite.Failed, suite.Left, suite.Took.Seconds())
	}
	if r.Result == timeline.Broken && len(r.failures()) == 0 {
		fmt.Fprintf(&b, "\n%s\n", Block(r.Failure))
	}
	for _, suite := range r.Suites {
		for _, failure := range suite.Failures() {
			fmt.Fprintf(&b, "\n### %s: %s\n\n%s\n\n%s\n\nagain:\n\n%s\n", cell(suite.Name), cell(failure.Name), strings.TrimSpace(fmt.Sprintf("`%s:%d` %s", failure.File, failure.Line, failure.Past)), Block(failure.Message), Block(failure.Again))
		}
	}
	b.WriteString("\n" + r.gantt())
	b.WriteString("\n| phase | outcome | seconds | |\n|---|---|--:|---|\n")
	for _, step := range r.Steps {
		fmt.Fprintf(&b, "| %s | %s | %.1f | %s |\n", cell(step.Title()), step.Outcome, step.Took().Seconds(), cell(step.Detail))
	}
	if slow := r.slowest(shownSlow); len(slow) > 0 {
		b.WriteString("\n| slowest specs | seconds |\n|---|--:|\n")
		for _, spec := range slow {
			fmt.Fprintf(&b, "| %s | %.1f |\n", cell(spec.Title()), spec.Took.Seconds())
		}
	}
	if changes := r.changes(); len(changes) > 0 {
		fmt.Fprintf(&b, "\n| since the run of %s, which passed | | was | is |\n|---|---|--:|--:|\n", r.Before.Started.UTC().Format("2006-01-02 15:04"))
		for _, change := range changes[:min(len(changes), shownChanges)] {
			fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f |\n", cell(change.Name), change.Kind, change.Was.Seconds(), change.Is.Seconds())
		}
	}
	fmt.Fprintf(&b, "\nWith the logs lie `%s`, the page of the run, and `%s` for https://ui.perfetto.dev.\n\n", PageFile, TraceFile)
	return b.String()
}

// failures are those of all suites.
func (r *Run) failures() []Failure {
	var failures []Failure
	for _, suite := range r.Suites {
		failures = append(failures, suite.Failures()...)
	}
	return failures
}

// ganttBars is how many bars a picture of Mermaid's has that one can read.
const ganttBars = 30

// gantt is the run as a picture that GitHub draws: its longest steps, those of the
// critical path marked.
func (r *Run) gantt() string {
	steps := slices.Clone(r.Steps)
	slices.SortStableFunc(steps, func(a, b timeline.Entry) int { return cmp.Compare(b.Took(), a.Took()) })
	steps = steps[:min(len(steps), ganttBars)]
	slices.SortStableFunc(steps, func(a, b timeline.Entry) int { return a.Start.Compare(b.Start) })
	// Mermaid writes the names of sections that come again beside others' bars.
	var phases []string
	for _, step := range steps {
		phases = append(phases, step.Phase)
	}
	slices.SortStableFunc(steps, func(a, b timeline.Entry) int {
		return cmp.Compare(slices.Index(phases, a.Phase), slices.Index(phases, b.Phase))
	})
	if len(steps) == 0 {
		return ""
	}
	path := criticalPath(r.Steps)
	var b strings.Builder
	b.WriteString("```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n")
	section := ""
	for _, step := range steps {
		if step.Phase != section {
			section = step.Phase
			fmt.Fprintf(&b, "  section %s\n", plain(section))
		}
		tags, mark := "", ""
		switch step.Outcome {
		case timeline.Failed, timeline.Canceled:
			tags, mark = "crit, ", "✗ "
		case timeline.Cached, timeline.Skipped:
			tags = "done, "
		case timeline.Done:
			if slices.Contains(path, step) {
				tags = "active, "
			}
		}
		from := step.Start.Sub(r.Started).Milliseconds()
		fmt.Fprintf(&b, "  %s%s %.1f s :%s%d, %d\n", mark, plain(step.Name), step.Took().Seconds(), tags, from, max(from+1, step.End.Sub(r.Started).Milliseconds()))
	}
	b.WriteString("```\n")
	return b.String()
}

// plain is a text without what ends a name in a picture of Mermaid's.
func plain(text string) string {
	return strings.NewReplacer(":", " ", ";", " ", "#", " ", ",", " ", "\n", " ").Replace(text)
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

// Block is a text as code, whatever it holds.
func Block(text string) string {
	lines := strings.Split(text, "\n")
	if len(lines) > shownLines {
		lines = append(lines[:shownLines:shownLines], "...")
	}
	return "    " + strings.Join(lines, "\n    ")
}
