package report

import (
	"cmp"
	"slices"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Change is one step or spec that differs from the run before.
type Change struct {
	Kind string // slower, faster, new or gone
	Name string
	Was  time.Duration // 0 for what is new
	Is   time.Duration // 0 for what is gone
}

// What took less than half as long again as before, or less than this more, is as it was:
// a machine is never twice the same.
const (
	noticed = 500 * time.Millisecond
	factor  = 1.5
)

// changes are what differs from the run before: first what is slower, the most first.
func (r *Run) changes() []Change {
	before := r.Before
	if before == nil {
		return nil
	}
	var changes []Change
	add := func(is, was map[string]time.Duration, whole bool) {
		for name, took := range is {
			past, known := was[name]
			slow, fast := max(took, past), min(took, past)
			switch {
			case !known && whole:
				changes = append(changes, Change{"new", name, 0, took})
			case !known || slow-fast < noticed || float64(slow) < factor*float64(fast):
			case took > past:
				changes = append(changes, Change{"slower", name, past, took})
			default:
				changes = append(changes, Change{"faster", name, past, took})
			}
		}
		for name, past := range was {
			if _, known := is[name]; !known && whole {
				changes = append(changes, Change{"gone", name, past, 0})
			}
		}
	}
	add(r.made(), before.made(), false)
	add(r.tested(), before.tested(), r.whole() && before.whole())
	kinds := []string{"slower", "new", "gone", "faster"}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare((b.Is-b.Was).Abs(), (a.Is-a.Was).Abs()), cmp.Compare(a.Name, b.Name))
	})
	return changes
}

// whole tells whether the run got to its end with all its specs: of another one nothing
// can be said to be gone.
func (r *Run) whole() bool {
	return r.Result != timeline.Interrupted && len(r.failedSteps()) == 0 && !slices.ContainsFunc(r.Suites, func(suite Suite) bool { return suite.Left > 0 })
}

// made is how long each step took that made something: one that found it there is no
// measure of one that did not.
func (r *Run) made() map[string]time.Duration {
	took := map[string]time.Duration{}
	for _, step := range r.Steps {
		if step.SetsUp() && step.Outcome == timeline.Done {
			took[step.Title()] = step.Took()
		}
	}
	return took
}

// tested is how long each spec took.
func (r *Run) tested() map[string]time.Duration {
	took := map[string]time.Duration{}
	for _, spec := range r.specs() {
		took[spec.Title()] = spec.Took
	}
	return took
}
