package coverage

import (
	"fmt"
	"strings"
)

// shownFunctions is how many functions that nothing reaches a summary names; all
// stand in UnreachedFile.
const shownFunctions = 40

// Markdown is a table of the results, for a CI summary.
func Markdown(results []Result) string {
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
