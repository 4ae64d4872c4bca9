package timeline

import (
	"slices"
	"time"
)

// Outcome is how a step ended.
type Outcome string

// The outcomes.
const (
	Done     Outcome = "done"     // it did its work
	Cached   Outcome = "cached"   // what it would have made was there
	Skipped  Outcome = "skipped"  // there was nothing for it to do; the detail says why
	Failed   Outcome = "failed"   // it returned an error, or met its own deadline
	Canceled Outcome = "canceled" // another step's failure ended it, or the user did
)

// Entry is one step in timeline.json.
type Entry struct {
	Phase   string    `json:"phase"`
	Name    string    `json:"name"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
	Outcome Outcome   `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
}

// Title is the step's name with its phase's.
func (e Entry) Title() string { return e.Phase + "/" + e.Name }

// Took is how long the step ran.
func (e Entry) Took() time.Duration { return e.End.Sub(e.Start) }

// Document is timeline.json.
type Document struct {
	Cluster string    `json:"cluster"`
	Variant string    `json:"variant"`
	Started time.Time `json:"started"`
	Steps   []Entry   `json:"steps"`

	// SetupSeconds is the time from the first step's start to the end of the last
	// step before a suite; SuiteSeconds is the suites' own; TotalSeconds is the whole.
	SetupSeconds float64 `json:"setupSeconds"`
	SuiteSeconds float64 `json:"suiteSeconds"`
	TotalSeconds float64 `json:"totalSeconds"`
}

// Phases that follow a suite and are no part of setting up.
var afterSuite = []string{"suite", "bench", "mutants", "coverage", "gather", teardown}

const teardown = "teardown"

// add appends a step and derives the sums anew.
func (d *Document) add(entry Entry) {
	d.Steps = append(d.Steps, entry)
	var setupEnd, end time.Time
	d.SuiteSeconds = 0
	for _, entry := range d.Steps {
		if entry.End.After(end) {
			end = entry.End
		}
		if entry.Phase == "suite" {
			d.SuiteSeconds += entry.Took().Seconds()
		}
		if !slices.Contains(afterSuite, entry.Phase) && entry.End.After(setupEnd) {
			setupEnd = entry.End
		}
	}
	if !setupEnd.IsZero() {
		d.SetupSeconds = setupEnd.Sub(d.Started).Seconds()
	}
	d.TotalSeconds = end.Sub(d.Started).Seconds()
}
