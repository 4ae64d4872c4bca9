package report

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Budgets are how long parts of a run may take, by name: Setup, Total, a suite's name or a
// step's title, e.g. cluster/create.
type Budgets map[string]time.Duration

// Parts of a run that are no step.
const (
	Setup = "setup"
	Total = "total"
)

// ParseBudgets reads, for example, setup=45s,gateway=100s.
func ParseBudgets(text string) (Budgets, error) {
	budgets := Budgets{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		limit, err := time.ParseDuration(value)
		if err != nil || limit <= 0 || name == "" {
			return nil, fmt.Errorf("has %q, which is no name=duration", pair)
		}
		budgets[name] = limit
	}
	return budgets, nil
}

// Known refuses a budget for a part that is not among the known ones.
func (b Budgets) Known(parts []string) error {
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if !slices.Contains(parts, name) {
			return fmt.Errorf("E2E_BUDGET: %q is no part of a run; there are: %s", name, strings.Join(parts, ", "))
		}
	}
	return nil
}

// Over returns an error that names each part of the run that took longer than it may, and
// what in it grew most since the run before. What did not run is within its budget.
func (r *Run) Over(budgets Budgets) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(budgets)) {
		took, parts := r.part(name)
		if took <= budgets[name] {
			continue
		}
		var past map[string]time.Duration
		if r.Before != nil {
			_, past = r.Before.part(name)
		}
		err := fmt.Errorf("%s took %.1f s, E2E_BUDGET allows %s", name, took.Seconds(), budgets[name])
		if longest := grown(parts, past); longest != "" {
			err = fmt.Errorf("%w: %s took %.1f s", err, longest, parts[longest].Seconds())
			if was, known := past[longest]; known {
				err = fmt.Errorf("%w, %.1f s in the last run that passed", err, was.Seconds())
			} else if past != nil {
				err = fmt.Errorf("%w, and was not in the last run that passed", err)
			}
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// part is how long a part of the run took, and what it is made of.
func (r *Run) part(name string) (took time.Duration, parts map[string]time.Duration) {
	parts = map[string]time.Duration{}
	for _, step := range r.Steps {
		switch {
		case name == Total, name == Setup && step.SetsUp():
			parts[step.Title()] = step.Took()
		case step.Title() == name, step.Title() == "suite/"+name:
			took += step.Took()
		}
	}
	for _, suite := range r.Suites {
		if suite.Name == name {
			for _, spec := range suite.Specs {
				parts[spec.Name] = spec.Took
			}
		}
	}
	switch name {
	case Setup:
		took = time.Duration(r.SetupSeconds * float64(time.Second))
	case Total:
		took = time.Duration(r.TotalSeconds * float64(time.Second))
	}
	return took, parts
}

// grown names the part that took most longer than it did; without a past, that took
// longest.
func grown(parts, past map[string]time.Duration) string {
	longest, most := "", time.Duration(-1)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if more := parts[name] - past[name]; more > most {
			longest, most = name, more
		}
	}
	return longest
}
