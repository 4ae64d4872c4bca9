package timeline

import (
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/screen"
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

// Tint is how the outcome is meant; what is none of them is plain.
func (o Outcome) Tint() screen.Tint {
	switch o {
	case Cached, Skipped:
		return screen.Quiet
	case Failed:
		return screen.Bad
	case Canceled:
		return screen.Note
	case Done:
	}
	return screen.Plain
}

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

// Log is the name of the step's file in log/.
func (e Entry) Log() string { return strings.ReplaceAll(e.Title(), "/", "-") + ".log" }

// Took is how long the step ran.
func (e Entry) Took() time.Duration { return e.End.Sub(e.Start) }

// Event is what happened beside the steps: a step's status, a Warning of the cluster, a
// fault that a spec made.
type Event struct {
	Kind   string    `json:"kind"`
	Name   string    `json:"name"` // of what it happened to
	Start  time.Time `json:"start"`
	End    time.Time `json:"end,omitzero"` // zero for one without length
	Detail string    `json:"detail,omitempty"`
}

// Usage is what something used at a moment.
type Usage struct {
	At    time.Time `json:"at"`
	Of    string    `json:"of"`    // a pod, or the machine
	Cores float64   `json:"cores"` // since the moment before
	Bytes int64     `json:"bytes"` // of memory
}

// Result is how a run ended.
type Result string

// The results. A run that is under way, or was killed, has none.
const (
	Passed      Result = "passed"
	Broken      Result = "failed"
	Interrupted Result = "interrupted" // its user ended it
)

// Document is timeline.json.
type Document struct {
	Cluster string    `json:"cluster"`
	Variant string    `json:"variant"`
	Target  string    `json:"target,omitempty"` // how whoever started the run called it
	Root    string    `json:"root,omitempty"`   // the checkout's path
	Started time.Time `json:"started"`
	Steps   []Entry   `json:"steps"`
	Events  []Event   `json:"events,omitempty"`
	Usage   []Usage   `json:"usage,omitempty"`

	Result  Result            `json:"result,omitempty"`
	Failure string            `json:"failure,omitempty"` // what ended the run, whole
	Facts   map[string]string `json:"facts,omitempty"`   // versions of what took part, by name

	// SetupSeconds is the time from the first step's start to the end of the last
	// step before a suite; SuiteSeconds is the suites' own; TotalSeconds is the whole.
	SetupSeconds float64 `json:"setupSeconds"`
	SuiteSeconds float64 `json:"suiteSeconds"`
	TotalSeconds float64 `json:"totalSeconds"`
}

// Phases that follow a suite and are no part of setting up.
var afterSuite = []string{"suite", "soak", "bench", "mutants", "coverage", "gather", teardown}

const teardown = "teardown"

// SetsUp tells whether the step is part of setting up.
func (e Entry) SetsUp() bool { return !slices.Contains(afterSuite, e.Phase) }

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
		if entry.SetsUp() && entry.End.After(setupEnd) {
			setupEnd = entry.End
		}
	}
	if !setupEnd.IsZero() {
		d.SetupSeconds = setupEnd.Sub(d.Started).Seconds()
	}
	d.TotalSeconds = end.Sub(d.Started).Seconds()
}
