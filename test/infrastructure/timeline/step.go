package timeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// Step is a step while it runs. It is safe for concurrent use.
type Step struct {
	recorder *Recorder
	entry    Entry
	log      *os.File
	lines    *screen.Lines // of its log, for the screen; nil if they are not shown
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
		_, _ = s.lines.Write(p) // it never fails
	}
	return s.log.Write(p)
}

// Cached says that what the step would have made was there already.
func (s *Step) Cached(format string, args ...any) { s.end(Cached, format, args...) }

// Skipped says that there was nothing for the step to do, and why.
func (s *Step) Skipped(format string, args ...any) { s.end(Skipped, format, args...) }

// Detail says in a few words what the step did.
func (s *Step) Detail(format string, args ...any) { s.end("", format, args...) }

// end sets the outcome, or leaves it if empty, and the detail.
func (s *Step) end(outcome Outcome, format string, args ...any) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	if outcome != "" {
		s.entry.Outcome = outcome
	}
	s.entry.Detail = fmt.Sprintf(format, args...)
}

// StatusEvent is the kind of event that a step's status is.
const StatusEvent = "status"

// Status says what a long step is at now; it is shown while the step runs, and as
// a line of its own on plain output.
func (s *Step) Status(format string, args ...any) {
	r := s.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	s.status = fmt.Sprintf(format, args...)
	r.doc.Events = append(r.doc.Events, Event{Kind: StatusEvent, Name: s.entry.Title(), Start: r.opts.Now(), Detail: s.status})
	fmt.Fprintf(s.log, "# %s\n", s.status)
	if r.opts.Screen.Live() {
		r.opts.Screen.Draw(r.items())
	} else {
		r.print("  %s: %s", s.entry.Title(), s.status)
	}
}

// failure is the outcome of a step that returned err. One that met its own deadline
// has failed: nobody else reports that.
func failure(ctx context.Context, err error) Outcome {
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		return Failed
	case ended != nil || errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Failed
	}
}
