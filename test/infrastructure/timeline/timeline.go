// Package timeline records what a run does: for each step one line on the screen,
// one entry in timeline.json, one JUnit case and one log file. It decides nothing.
package timeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// Outcome is how a step ended.
type Outcome string

// The outcomes.
const (
	Done     Outcome = "done"     // it did its work
	Cached   Outcome = "cached"   // what it would have made was there
	Skipped  Outcome = "skipped"  // there was nothing for it to do; the detail says why
	Failed   Outcome = "failed"   // it returned an error
	Canceled Outcome = "canceled" // its context ended before it did
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

// addsOnly are the phases that leave the evidence of the run before in place when
// they come first: they end that run.
var addsOnly = []string{"coverage", teardown}

const teardown = "teardown"

// Options say where a Recorder writes.
type Options struct {
	Dir      string    // evidence folder of the run; made if missing
	Cluster  string    // name in the document
	Variant  string    // name in the document
	Out      io.Writer // progress lines; os.Stderr as a rule
	Terminal bool      // Out is a terminal: a live line and marks
	Verbose  bool      // also stream each step's log to Out, every line with the step's name
	Now      func() time.Time
}

// heartbeat is how often a step that takes long says on plain output that it still
// runs: CI systems take ten silent minutes for a hang.
const heartbeat = 30 * time.Second

// Recorder records the steps of one run. It is safe for concurrent use.
type Recorder struct {
	opts Options

	mu      sync.Mutex
	doc     Document
	running []*Step
	live    bool // a live line is on the screen
	emptied bool // log/ and junit/ hold this run's files only
}

// New returns a recorder. The evidence of the run before stays until this run's
// first step that makes some: removing a cluster must not remove what tells why it
// failed.
func New(opts Options) (*Recorder, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	for _, sub := range folders {
		if err := os.MkdirAll(filepath.Join(opts.Dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	return &Recorder{opts: opts, doc: Document{Cluster: opts.Cluster, Variant: opts.Variant, Started: opts.Now(), Steps: []Entry{}}}, nil
}

// folders below Dir that hold one run's evidence.
var folders = []string{"log", "junit"}

// empty removes the evidence of the run before, once.
func (r *Recorder) empty() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.emptied {
		return nil
	}
	r.emptied = true
	for _, sub := range folders {
		dir := filepath.Join(r.opts.Dir, sub)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Step is a step while it runs.
type Step struct {
	recorder *Recorder
	entry    Entry
	log      *os.File
	lines    *prefixer
	status   string
}

type stepKey struct{}

// Log returns the log of the step that ctx belongs to, or a writer that discards.
// It is safe for concurrent use.
func Log(ctx context.Context) io.Writer {
	if step, ok := ctx.Value(stepKey{}).(*Step); ok {
		return step
	}
	return io.Discard
}

// Write appends to the step's log.
func (s *Step) Write(p []byte) (int, error) {
	if s.lines != nil {
		s.lines.write(p)
	}
	return s.log.Write(p)
}

// Cached says that what the step would have made was there already.
func (s *Step) Cached(format string, args ...any) { s.end(Cached, format, args...) }

// Skipped says that there was nothing for the step to do, and why.
func (s *Step) Skipped(format string, args ...any) { s.end(Skipped, format, args...) }

// Detail says in a few words what the step did.
func (s *Step) Detail(format string, args ...any) { s.end(s.entry.Outcome, format, args...) }

func (s *Step) end(outcome Outcome, format string, args ...any) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.entry.Outcome, s.entry.Detail = outcome, fmt.Sprintf(format, args...)
}

// Status says what a long step is at now; it is shown while the step runs, and as
// a line of its own on plain output.
func (s *Step) Status(format string, args ...any) {
	r := s.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	s.status = fmt.Sprintf(format, args...)
	fmt.Fprintf(s.log, "# %s\n", s.status)
	if !r.opts.Terminal {
		r.print("  %s: %s", s.title(), s.status)
	}
	r.draw()
}

func (s *Step) title() string { return s.entry.Phase + "/" + s.entry.Name }

// Step runs fn as one step. It returns fn's error with the step's name before it;
// an error that comes of a context that ended is recorded as canceled.
func (r *Recorder) Step(ctx context.Context, phase, name string, fn func(context.Context, *Step) error) error {
	if !slices.Contains(addsOnly, phase) {
		if err := r.empty(); err != nil {
			return err
		}
	}
	path := filepath.Join(r.opts.Dir, "log", phase+"-"+strings.ReplaceAll(name, "/", "-")+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	step := &Step{recorder: r, log: log, entry: Entry{Phase: phase, Name: name, Start: r.opts.Now(), Outcome: Done}}
	if r.opts.Verbose {
		step.lines = &prefixer{prefix: step.title() + " | ", print: r.say}
	}
	r.begin(step)
	stop := r.beat(step)
	err = fn(context.WithValue(ctx, stepKey{}, step), step)
	stop()
	if err != nil {
		outcome := Failed
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			outcome = Canceled
		}
		step.end(outcome, "%s", err)
		fmt.Fprintf(log, "%s\n", err)
		err = fmt.Errorf("%s: %w", step.title(), err)
	}
	if fileErr := r.finish(step); fileErr != nil {
		return errors.Join(err, fileErr)
	}
	return err
}

func (r *Recorder) begin(step *Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = append(r.running, step)
	if !r.opts.Terminal {
		r.print("> %s", step.title())
	}
	r.draw()
}

func (r *Recorder) finish(step *Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	step.entry.End = r.opts.Now()
	r.running = slices.DeleteFunc(r.running, func(s *Step) bool { return s == step })
	r.doc.Steps = append(r.doc.Steps, step.entry)
	r.total()
	took := step.entry.End.Sub(step.entry.Start).Seconds()
	mark, detail := "", step.entry.Detail
	if r.opts.Terminal {
		mark = "✓ "
		if step.entry.Outcome == Failed || step.entry.Outcome == Canceled {
			mark = "✗ "
		}
	}
	if first, _, more := strings.Cut(detail, "\n"); more {
		detail = first + " ..."
	}
	r.print("%s%-24s %7.1fs  %-8s %s", mark, step.title(), took, step.entry.Outcome, detail)
	r.draw()
	return r.write()
}

// total derives the document's sums.
func (r *Recorder) total() {
	var setupEnd, end time.Time
	suites := 0.0
	for _, entry := range r.doc.Steps {
		if entry.End.After(end) {
			end = entry.End
		}
		if entry.Phase == "suite" {
			suites += entry.End.Sub(entry.Start).Seconds()
		}
		if !slices.Contains(afterSuite, entry.Phase) && entry.End.After(setupEnd) {
			setupEnd = entry.End
		}
	}
	if !setupEnd.IsZero() {
		r.doc.SetupSeconds = setupEnd.Sub(r.doc.Started).Seconds()
	}
	r.doc.SuiteSeconds = suites
	r.doc.TotalSeconds = end.Sub(r.doc.Started).Seconds()
}

// Document returns a copy of what has been recorded.
func (r *Recorder) Document() Document {
	r.mu.Lock()
	defer r.mu.Unlock()
	doc := r.doc
	doc.Steps = slices.Clone(doc.Steps)
	return doc
}

// Say prints one line between the steps' lines.
func (r *Recorder) Say(format string, args ...any) { r.say(fmt.Sprintf(format, args...)) }

func (r *Recorder) say(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.print("%s", line)
	r.draw()
}

// print writes a whole line; the live line gives way to it. The caller holds mu.
func (r *Recorder) print(format string, args ...any) {
	if r.live {
		fmt.Fprint(r.opts.Out, "\r\x1b[K")
		r.live = false
	}
	fmt.Fprintf(r.opts.Out, format+"\n", args...)
}

// draw renews the live line. The caller holds mu.
func (r *Recorder) draw() {
	if !r.opts.Terminal || len(r.running) == 0 {
		return
	}
	parts := make([]string, len(r.running))
	for i, step := range r.running {
		parts[i] = fmt.Sprintf("%s %.0fs", step.title(), r.opts.Now().Sub(step.entry.Start).Seconds())
		if step.status != "" {
			parts[i] += " (" + step.status + ")"
		}
	}
	line := strings.Join(parts, "  ")
	if limit := 110; len(line) > limit {
		line = line[:limit] + "..."
	}
	fmt.Fprintf(r.opts.Out, "\r\x1b[K… %s", line)
	r.live = true
}

// beat renews the live line every second, or says on plain output every half minute
// that the step still runs. The caller calls the function it returns.
func (r *Recorder) beat(step *Step) func() {
	period := heartbeat
	if r.opts.Terminal {
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
				if r.opts.Terminal {
					r.draw()
				} else {
					r.print("  %s: running for %.0fs %s", step.title(), r.opts.Now().Sub(step.entry.Start).Seconds(), step.status)
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

// write stores timeline.json and the phases' JUnit report. The caller holds mu.
func (r *Recorder) write() error {
	if !r.emptied { // the end of a run by itself
		return nil
	}
	data, err := json.MarshalIndent(r.doc, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(r.opts.Dir, "timeline.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	report, err := junit(r.doc)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(r.opts.Dir, "junit", "phases.xml"), report, 0o644)
}

// prefixer cuts what is written into lines and prints each with the step's name.
type prefixer struct {
	prefix string
	print  func(string)

	mu   sync.Mutex
	rest string
}

func (p *prefixer) write(data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest += string(data)
	for {
		line, rest, found := strings.Cut(p.rest, "\n")
		if !found {
			return
		}
		p.rest = rest
		p.print(p.prefix + line)
	}
}
