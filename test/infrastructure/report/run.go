// Package report tells people of a run: the page, the summary of a CI job, annotations,
// JUnit, and a trace. Everything that it says stands in the folder of the run's evidence,
// so a page can be made again where that folder lies now.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Files in the folder of the evidence that are made here.
const (
	PageFile    = "index.html"
	TraceFile   = "trace.json"
	SummaryFile = "summary.md"
)

// CoverageFile is what the cluster of the run has covered, in the folder of the evidence.
const CoverageFile = "coverage.json"

// Changed stands between the name of a suite and the number of a repetition of those of its
// specs that have changed, in the name of the step.
const Changed = "-changed-"

// Run is a run, as its evidence tells of it.
type Run struct {
	timeline.Document
	Dir      string
	Suites   []Suite    // in the order in which they ran
	Coverage []Coverage // empty without coverage
	Before   *Run       // the newest run beside it that was before, passed and ran its suites; nil if there is none
	Gathered string     // what a failed cluster tells first; empty if nothing was gathered
	Logs     []Log      // of the steps that failed
}

// Log is the end of a step's log.
type Log struct {
	File string // in the evidence
	Text string
}

const (
	logLines      = 60 // of a failed step's log
	gatheredLines = 120
)

// Read reads the evidence in dir. A suite that left no report, because it was interrupted,
// is left out; of one whose report cannot be read the page says why.
func Read(dir string) (*Run, error) {
	run, err := read(dir)
	if err == nil {
		run.Before, err = run.green()
	}
	return run, err
}

// read reads the evidence without what it is compared with.
func read(dir string) (*Run, error) {
	run := &Run{Dir: dir}
	data, err := os.ReadFile(filepath.Join(dir, timeline.File))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &run.Document); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, timeline.File), err)
	}
	slices.SortStableFunc(run.Steps, func(a, b timeline.Entry) int { return a.Start.Compare(b.Start) })
	for _, step := range run.Steps {
		if step.Outcome == timeline.Failed {
			if text := tail(filepath.Join(dir, "log", step.Log()), logLines); text != "" {
				run.Logs = append(run.Logs, Log{"log/" + step.Log(), text})
			}
		}
		if step.Phase == "suite" {
			name, _, repeated := strings.Cut(step.Name, Changed)
			suite, err := ReadSuite(filepath.Join(dir, "junit", step.Name+".json"), name, run.Root, run.covered())
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil { // its writer was killed: the rest can be told
				run.Logs = append(run.Logs, Log{"junit/" + step.Name + ".json", err.Error()})
				continue
			}
			if repeated && suite.Failed == 0 {
				continue // the same specs once more, of which nothing new is to be told
			}
			suite.Name = step.Name
			run.Suites = append(run.Suites, suite)
			for _, spec := range suite.Specs {
				run.Events = append(run.Events, spec.Faults...)
			}
		}
	}
	if data, err = os.ReadFile(filepath.Join(dir, CoverageFile)); err == nil {
		err = json.Unmarshal(data, &run.Coverage)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, CoverageFile), err)
	}
	slices.SortStableFunc(run.Events, func(a, b timeline.Event) int { return a.Start.Compare(b.Start) })
	run.Gathered = tail(filepath.Join(dir, "gather", "summary.txt"), -gatheredLines)
	return run, nil
}

// tail is the last lines of a file, the first ones if lines is below 0; empty if there is
// none.
func tail(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	if lines < 0 {
		return strings.Join(all[:min(len(all), -lines)], "\n")
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (r *Run) covered() bool { return r.Variant == "coverage" }

// Write makes the page, the trace, the summary and the JUnit report of the run's phases
// in its folder.
func (r *Run) Write() error {
	page, err := r.page()
	if err != nil {
		return err
	}
	trace, err := r.trace()
	if err != nil {
		return err
	}
	phases, err := junit(r.Document)
	if err != nil {
		return err
	}
	var problems []error
	for name, data := range map[string][]byte{
		PageFile: page, TraceFile: trace, SummaryFile: []byte(r.Markdown()), "junit/phases.xml": phases,
	} {
		problems = append(problems, renameio.WriteFile(filepath.Join(r.Dir, filepath.FromSlash(name)), data, 0o644))
	}
	return errors.Join(problems...)
}

// green returns the newest of the runs beside this one that were before it, passed, and ran
// all its suites, whole ones if these are; nil if there is none.
func (r *Run) green() (*Run, error) {
	beside, err := os.ReadDir(filepath.Dir(r.Dir))
	if err != nil {
		return nil, err
	}
	for _, entry := range slices.Backward(beside) {
		dir := filepath.Join(filepath.Dir(r.Dir), entry.Name())
		var doc timeline.Document
		data, err := os.ReadFile(filepath.Join(dir, timeline.File))
		if err != nil || json.Unmarshal(data, &doc) != nil || doc.Result != timeline.Passed || !doc.Started.Before(r.Started) {
			continue // one without a result is of no use here
		}
		other, err := read(dir)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(r.Suites, func(suite Suite) bool {
			return !slices.ContainsFunc(other.Suites, func(past Suite) bool { return past.Name == suite.Name && (past.Left == 0) == (suite.Left == 0) })
		}) {
			return other, nil
		}
	}
	return nil, nil
}

// end is when the last of what is told happened.
func (r *Run) end() time.Time {
	end := r.Started
	for _, step := range r.Steps {
		end = latest(end, step.End)
	}
	for _, event := range r.Events {
		end = latest(end, latest(event.Start, event.End))
	}
	for _, usage := range r.Usage {
		end = latest(end, usage.At)
	}
	return end
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// failedSteps are those that are told of by themselves: not the suites whose specs failed.
func (r *Run) failedSteps() []timeline.Entry {
	return slices.DeleteFunc(slices.Clone(r.Steps), func(step timeline.Entry) bool {
		return step.Outcome != timeline.Failed || step.Phase == "suite" &&
			slices.ContainsFunc(r.Suites, func(suite Suite) bool { return suite.Name == step.Name && suite.Failed > 0 })
	})
}

// timed is a spec with its suite.
type timed struct {
	Suite string
	Spec
}

// Title is the spec's name with its suite's.
func (t timed) Title() string { return t.Suite + ": " + t.Name }

// slowest are the specs that took longest, the slowest first.
func (r *Run) slowest(n int) []timed {
	specs := r.specs()
	slices.SortStableFunc(specs, func(a, b timed) int { return cmp.Compare(b.Took, a.Took) })
	return specs[:min(len(specs), n)]
}

// specs are those of all suites, without the suites' own nodes.
func (r *Run) specs() []timed {
	var specs []timed
	for _, suite := range r.Suites {
		for _, spec := range suite.Specs {
			if !spec.Node {
				specs = append(specs, timed{suite.Name, spec})
			}
		}
	}
	return specs
}
