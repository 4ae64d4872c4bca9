package report

import (
	"fmt"
	"strings"
)

// Annotations are GitHub's workflow commands for what failed: each spec at its line,
// and each step that is no suite.
func (r *Run) Annotations() string {
	var b strings.Builder
	for _, failure := range r.failures() {
		fmt.Fprintf(&b, "::error file=%s,line=%d,title=%s::%s\n", property(failure.File), failure.Line, property(failure.Name), data(failure.Message+"\n\nagain: "+failure.Again))
	}
	for _, step := range r.failedSteps() {
		fmt.Fprintf(&b, "::error title=%s::%s\n", property(step.Title()), data(step.Detail))
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
