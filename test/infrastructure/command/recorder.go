package command

import (
	"context"
	"slices"
	"sync"
)

// Recorder is a Runner for tests: it starts nothing and remembers every argument
// vector. The zero value answers every command with success and no output.
type Recorder struct {
	// Answer decides what a command does: it may write to cmd.Stdout and return an
	// error. Nil succeeds.
	Answer func(cmd Cmd) error

	mu    sync.Mutex
	calls [][]string
}

var _ Runner = (*Recorder)(nil)

// Run implements Runner.
func (r *Recorder) Run(ctx context.Context, cmd Cmd) error {
	r.mu.Lock()
	r.calls = append(r.calls, slices.Clone(cmd.Args))
	r.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if r.Answer == nil {
		return nil
	}
	return r.Answer(cmd)
}

// Calls returns the argument vectors so far, in the order they came.
func (r *Recorder) Calls() [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}
