package report

import (
	"fmt"
	"html/template"
	"path"
	"strings"
)

// Coverage is the coverage of one service.
type Coverage struct {
	Service string   `json:"service"`
	Pods    []string `json:"pods"`
	Tested  bool     `json:"tested"` // there were counters of tests
	Counts
	Packages  []Package  `json:"packages"`  // sorted by path
	Unreached []Function `json:"unreached"` // the biggest first
	Generated int        `json:"generated"` // statements of generated files, not in Counts
}

// Package is the coverage of one package of a service.
type Package struct {
	Path string `json:"path"`
	Counts
}

// Counts are numbers of statements.
type Counts struct {
	Statements int `json:"statements"`
	Both       int `json:"both"`
	EndToEnd   int `json:"endToEnd"` // end to end only
	Tests      int `json:"tests"`    // tests only
}

// Neither is how many statements nothing reaches.
func (c Counts) Neither() int { return c.Statements - c.Both - c.EndToEnd - c.Tests }

// EndToEndPercent is the share of statements that ran in pods, 0 to 100.
func (c Counts) EndToEndPercent() float64 { return percent(c.Both+c.EndToEnd, c.Statements) }

// MergedPercent is the share of statements that ran anywhere, 0 to 100. Where tests
// left no counters it is the end-to-end share.
func (c Counts) MergedPercent() float64 { return percent(c.Statements-c.Neither(), c.Statements) }

// Add counts statements by who reaches them.
func (c *Counts) Add(statements int, endToEnd, tests bool) {
	c.Statements += statements
	switch {
	case endToEnd && tests:
		c.Both += statements
	case endToEnd:
		c.EndToEnd += statements
	case tests:
		c.Tests += statements
	}
}

func percent(covered, statements int) float64 {
	if statements == 0 {
		return 0
	}
	return 100 * float64(covered) / float64(statements)
}

// Function is the coverage of one function.
type Function struct {
	Name string `json:"name"` // e.g. (*App).Run
	File string `json:"file"` // in the module
	Line int    `json:"line"`
	Counts
}

// shownFunctions is how many functions that nothing reaches a summary names; all
// stand in UnreachedFile.
const shownFunctions = 40

// CoverageMarkdown is a table of the results, for a CI summary.
func CoverageMarkdown(results []Coverage) string {
	var b strings.Builder
	b.WriteString("### Coverage\n\nStatements by who reaches them.\n\n")
	b.WriteString("| package | statements | E2E only | both | tests only | neither | E2E % | merged % |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	row := func(name string, bold string, tested bool, c Counts) {
		merged := "–"
		if tested {
			merged = fmt.Sprintf("%.1f", c.MergedPercent())
		}
		fmt.Fprintf(&b, "| %s%s%s | %d | %d | %d | %d | %d | %s%.1f%s | %s%s%s |\n", bold, name, bold,
			c.Statements, c.EndToEnd, c.Both, c.Tests, c.Neither(), bold, c.EndToEndPercent(), bold, bold, merged, bold)
	}
	for _, result := range results {
		row(result.Service, "**", result.Tested, result.Counts)
		for _, pkg := range result.Packages {
			row(pkg.Path, "", result.Tested, pkg.Counts)
		}
	}
	for _, result := range results {
		fmt.Fprintf(&b, "\n%s: counters of %s", result.Service, count(len(result.Pods), "pod"))
		if !result.Tested {
			b.WriteString(", none of unit and integration tests")
		}
		fmt.Fprintf(&b, "; %d statements of generated files are not counted.\n", result.Generated)
		if len(result.Unreached) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n<details><summary>%s of %s that nothing reaches</summary>\n\n| function | file | statements |\n|---|---|---:|\n", count(len(result.Unreached), "function"), result.Service)
		for i, function := range result.Unreached {
			if i == shownFunctions {
				fmt.Fprintf(&b, "| and %d more | | |\n", len(result.Unreached)-shownFunctions)
				break
			}
			fmt.Fprintf(&b, "| `%s` | %s:%d | %d |\n", function.Name, function.File, function.Line, function.Statements)
		}
		b.WriteString("\n</details>\n")
	}
	return b.String()
}

// count says how many things there are.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// CoveragePage is a picture of the results: one file, with everything in it, that links the
// reports beside it.
func CoveragePage(results []Coverage) ([]byte, error) { return render("coverage.html", results) }

// share is a part of a bar.
func share(class string, part, whole int) template.HTML {
	if part == 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<span class="%s" style="width:%.3f%%"></span>`, class, percent(part, whole)))
}

// short is a package's path below the service's, whose own is main.
func short(result Coverage, pkg Package) string {
	shortest := result.Packages[0].Path
	if pkg.Path == shortest {
		return "(main)"
	}
	if below, ok := strings.CutPrefix(pkg.Path, shortest+"/"); ok {
		return below
	}
	return path.Base(pkg.Path)
}
