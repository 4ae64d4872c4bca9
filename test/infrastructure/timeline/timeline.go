// Package timeline records what a run does: for each step one entry in timeline.json, one
// log file and a line on the screen. It decides nothing.
package timeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// Options say where a Recorder writes.
type Options struct {
	// Folder returns where the evidence goes; it is made if missing. It is asked at the
	// first step: looking makes no evidence. Fresh tells that a run begins, whose log/
	// and junit/ the recorder then empties; without it the step only ends the run
	// before, whose evidence stays: removing a cluster must not remove what tells why it
	// failed.
	Folder  func(fresh bool) (string, error)
	Cluster string         // name in the document
	Variant string         // name in the document
	Target  string         // in the document
	Root    string         // in the document
	Screen  *screen.Screen // progress lines
	Color   bool           // whether they are coloured
	// Past returns what a step took when it last ended so, 0 where that is not known; nil knows
	// of none.
	Past    func(phase, name string, outcome Outcome) time.Duration
	Verbose bool             // also show each step's log, every line with the step's name
	Now     func() time.Time // nil means time.Now
}

// addsOnly are the phases that end the run before when they come first.
var addsOnly = []string{"coverage", teardown}

// folders of the evidence that hold one run's files only.
var folders = []string{"log", "junit"}

// heartbeat is how often a step that takes long says on plain output that it still
// runs: CI systems take ten silent minutes for a hang.
const heartbeat = 30 * time.Second

// Recorder records the steps of one run. It is safe for concurrent use.
type Recorder struct {
	opts Options

	mu      sync.Mutex
	doc     Document
	running []*Step
	dir     string // empty before the first step
	fresh   bool   // dir holds this run's evidence only
}

// New returns a recorder.
func New(opts Options) *Recorder {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Past == nil {
		opts.Past = func(string, string, Outcome) time.Duration { return 0 }
	}
	return &Recorder{opts: opts, doc: Document{
		Cluster: opts.Cluster, Variant: opts.Variant, Target: opts.Target, Root: opts.Root, Started: opts.Now(), Steps: []Entry{},
	}}
}

// Step runs fn as one step. It returns fn's error with the step's name before it.
// The error of a step that was told to end by others is recorded as canceled.
func (r *Recorder) Step(ctx context.Context, phase, name string, fn func(context.Context, *Step) error) error {
	step := &Step{recorder: r, entry: Entry{Phase: phase, Name: name, Start: r.opts.Now(), Outcome: Done}}
	if err := r.begin(step); err != nil {
		return err
	}
	defer step.log.Close()
	stop := r.beat(step)
	err := fn(context.WithValue(ctx, stepKey{}, step), step)
	stop()
	if step.lines != nil {
		step.lines.Flush()
	}
	if err != nil {
		step.end(failure(ctx, err), "%s", err)
		fmt.Fprintf(step.log, "%s\n", err)
		err = fmt.Errorf("%s: %w", step.entry.Title(), err)
	}
	return errors.Join(err, r.finish(step))
}

// begin opens the step's log and shows that it runs.
func (r *Recorder) begin(step *Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(!slices.Contains(addsOnly, step.entry.Phase)); err != nil {
		return err
	}
	path := filepath.Join(r.dir, "log", step.entry.Log())
	var err error
	if step.log, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	if r.opts.Verbose {
		step.lines = &screen.Lines{Emit: func(line string) { r.Say("%s | %s", step.entry.Title(), line) }}
	}
	r.running = append(r.running, step)
	if r.opts.Screen.Live() {
		r.opts.Screen.Draw(r.items())
	} else {
		r.print("> %s", step.entry.Title())
	}
	return nil
}

// open makes the folder of the evidence ready. The caller holds mu.
func (r *Recorder) open(fresh bool) error {
	if r.dir != "" && (r.fresh || !fresh) {
		return nil
	}
	dir, err := r.opts.Folder(fresh)
	if err != nil {
		return err
	}
	for _, sub := range folders {
		if fresh {
			if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	r.dir, r.fresh = dir, fresh
	return nil
}

// finish records the end of a step and shows it.
func (r *Recorder) finish(step *Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	step.entry.End = r.opts.Now()
	r.running = slices.DeleteFunc(r.running, func(s *Step) bool { return s == step })
	r.doc.add(step.entry)
	detail := step.entry.Detail
	if first, _, more := strings.Cut(detail, "\n"); more {
		detail = first + " ..."
	}
	r.tell(step.entry.Outcome, fmt.Sprintf("%-24s %7.1fs  %-8s %s", step.entry.Title(), step.entry.Took().Seconds(), step.entry.Outcome, detail))
	return r.write()
}

// Document returns a copy of what has been recorded.
func (r *Recorder) Document() Document {
	r.mu.Lock()
	defer r.mu.Unlock()
	doc := r.doc
	doc.Steps, doc.Events, doc.Usage = slices.Clone(doc.Steps), slices.Clone(doc.Events), slices.Clone(doc.Usage)
	return doc
}

// Note records what happened beside the steps. It is written with the next step that ends.
func (r *Recorder) Note(events ...Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doc.Events = append(r.doc.Events, events...)
}

// Measure records what was used. It is written with the next step that ends.
func (r *Recorder) Measure(usage ...Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doc.Usage = append(r.doc.Usage, usage...)
}

// End records how the run ended, and what took part. Steps may follow that tidy up.
func (r *Recorder) End(result Result, failure string, facts map[string]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doc.Result, r.doc.Failure, r.doc.Facts = result, failure, facts
	return r.write()
}

// Say prints one line between the steps' lines.
func (r *Recorder) Say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.print(format, args...)
}

// Tell prints one line of something that has ended, marked as the steps are.
func (r *Recorder) Tell(outcome Outcome, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell(outcome, fmt.Sprintf(format, args...))
}

// tell shows a line of what has ended. The caller holds mu.
func (r *Recorder) tell(outcome Outcome, line string) {
	if !r.opts.Screen.Live() {
		r.print("%s", line)
		return
	}
	mark := "✓ "
	if outcome == Failed || outcome == Canceled {
		mark = "✗ "
	}
	r.print("%s", screen.Paint(mark+line, outcome.Tint(), r.opts.Color))
}

// print shows a line that stays. The caller holds mu.
func (r *Recorder) print(format string, args ...any) {
	r.opts.Screen.Print(fmt.Sprintf(format, args...), r.items())
}

// items are the steps that run, for the live line. The caller holds mu.
func (r *Recorder) items() []screen.Item {
	items := make([]screen.Item, len(r.running))
	for i, step := range r.running {
		items[i] = screen.Item{Name: fmt.Sprintf("%s %.0fs", step.entry.Title(), r.opts.Now().Sub(step.entry.Start).Seconds()), Status: step.status}
		if past := r.opts.Past(step.entry.Phase, step.entry.Name, Done); past > 0 {
			items[i].Name += fmt.Sprintf(" of %.0f", past.Seconds())
		}
	}
	return items
}

// beat renews the live line every second, or says on plain output every half minute
// that the step still runs. The caller calls the function it returns.
func (r *Recorder) beat(step *Step) func() {
	period := heartbeat
	if r.opts.Screen.Live() {
		period = time.Second
	}
	ticker := time.NewTicker(period)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				r.mu.Lock()
				if r.opts.Screen.Live() {
					r.opts.Screen.Draw(r.items())
				} else {
					r.print("  %s: running for %.0fs %s", step.entry.Title(), r.opts.Now().Sub(step.entry.Start).Seconds(), step.status)
				}
				r.mu.Unlock()
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		wait.Wait()
	}
}

// File is the document in the folder of the evidence.
const File = "timeline.json"

// write stores timeline.json. The caller holds mu.
func (r *Recorder) write() error {
	if !r.fresh { // the end of a run by itself
		return nil
	}
	data, err := json.MarshalIndent(r.doc, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(r.dir, File), append(data, '\n'), 0o644)
}
