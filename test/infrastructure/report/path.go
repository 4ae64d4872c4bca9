package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// follows is how long after the end of one step the next may begin and still have waited
// for it: the scheduler's own time, on a machine that is busy.
const follows = 50 * time.Millisecond

// criticalPath are the steps that, one after the other, led to the end of the last one:
// each began when the one before it in the list had ended. It is read from what happened,
// so it holds whoever scheduled the steps.
func criticalPath(steps []timeline.Entry) []timeline.Entry {
	var path []timeline.Entry
	var last *timeline.Entry
	for i := range steps {
		if last == nil || steps[i].End.After(last.End) {
			last = &steps[i]
		}
	}
	for last != nil {
		path = append(path, *last)
		var before *timeline.Entry
		for i, step := range steps {
			if step.Start.Before(last.Start) && step.End.Before(last.Start.Add(follows)) && (before == nil || step.End.After(before.End)) {
				before = &steps[i]
			}
		}
		last = before
	}
	slices.Reverse(path)
	return path
}

// told is how long a step of the critical path takes at least to be named in words.
const told = 500 * time.Millisecond

// where says in words where the time went, one line for the set-up and one for each suite.
func (r *Run) where() []string {
	setUp := slices.DeleteFunc(slices.Clone(r.Steps), func(step timeline.Entry) bool { return !step.SetsUp() })
	var lines, parts []string
	for _, step := range criticalPath(setUp) {
		if step.Took() >= told {
			parts = append(parts, fmt.Sprintf("%s %.1f", step.Title(), step.Took().Seconds()))
		}
	}
	if len(setUp) > 0 {
		lines = append(lines, strings.TrimSuffix(fmt.Sprintf("set-up %.1f s: %s", r.SetupSeconds, strings.Join(parts, " → ")), ": "))
	}
	for _, suite := range r.Suites {
		var serial time.Duration
		longest := Spec{}
		for _, spec := range suite.Specs {
			if spec.Serial && !spec.Node {
				serial += spec.Took
			}
			if spec.Took > longest.Took && !spec.Node {
				longest = spec
			}
		}
		line := fmt.Sprintf("%s %.1f s: ", suite.Name, suite.Took.Seconds())
		if serial > 0 {
			line += fmt.Sprintf("%.1f in parallel → %.1f one spec at a time; ", (suite.Took - serial).Seconds(), serial.Seconds())
		}
		lines = append(lines, line+fmt.Sprintf("longest %.1f: %s", longest.Took.Seconds(), longest.Name))
	}
	return lines
}
