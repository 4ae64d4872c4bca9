// Package load drives a service in a closed loop: a fixed number of workers, each of
// which makes its next call when its last one has been answered. It keeps every
// sample, so percentiles are exact. A closed loop says what a service does for that
// many senders; it does not say how long senders who do not wait would queue.
package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFailures ends a run: what fails a thousand times is broken, and a call that
// fails at once would otherwise be made a hundred thousand times.
const maxFailures = 1000

// Plan says how much load there is.
type Plan struct {
	Workers  int
	WarmUp   time.Duration // calls are made and not measured
	Duration time.Duration // of the window that is measured
	MaxCalls int           // with those of the warm-up; the window ends early when they are used up
}

// Call is one call, the nth of the whole run from 0. Its error is counted under its
// text, so the text should be short and the same for the same fault.
type Call func(ctx context.Context, worker, n int) error

// Result is what was measured.
type Result struct {
	Window    time.Duration   // how long was measured
	Calls     int             // succeeded within the window
	Latencies []time.Duration // of the calls that began in the window and succeeded; sorted
	PerSecond []int           // the calls of each whole second of the window
	Sent      int             // in the whole run, warm-up included
	Failures  map[string]int  // in the whole run, by their text
}

// Run runs the plan. It calls look when the window begins and when it ends, while the
// load goes on; look's error ends the run. When ctx ends, so do the calls in hand.
func Run(ctx context.Context, plan Plan, call Call, look func(ctx context.Context) error) (Result, error) {
	r := &run{plan: plan, call: call, samples: make([][]sample, plan.Workers)}
	idle := r.start(ctx)
	began, ended, err := r.measure(ctx, idle, look)
	r.over.Store(true)
	<-idle
	if err == nil {
		err = context.Cause(ctx)
	}
	result := summarize(slices.Concat(r.samples...), began, ended)
	if err == nil && r.failed.Load() >= maxFailures {
		err = fmt.Errorf("%d of %d calls failed: %v", r.failed.Load(), result.Sent, result.Failures)
	}
	return result, err
}

// run is one run. Each worker writes samples of its own.
type run struct {
	plan    Plan
	call    Call
	next    atomic.Int64
	failed  atomic.Int64
	over    atomic.Bool
	samples [][]sample
}

// sample is one call.
type sample struct {
	start time.Time
	took  time.Duration
	err   error
}

// start starts the workers. The channel is closed when none works any more.
func (r *run) start(ctx context.Context) <-chan struct{} {
	var workers sync.WaitGroup
	for worker := range r.plan.Workers {
		workers.Go(func() { r.samples[worker] = r.work(ctx, worker) })
	}
	idle := make(chan struct{})
	go func() { workers.Wait(); close(idle) }()
	return idle
}

func (r *run) work(ctx context.Context, worker int) []sample {
	var samples []sample
	for !r.over.Load() && ctx.Err() == nil && r.failed.Load() < maxFailures {
		n := int(r.next.Add(1)) - 1
		if n >= r.plan.MaxCalls {
			break
		}
		start := time.Now()
		err := r.call(ctx, worker, n)
		samples = append(samples, sample{start, time.Since(start), err})
		if err != nil {
			r.failed.Add(1)
		}
	}
	return samples
}

// measure waits until the window has passed and returns when it was.
func (r *run) measure(ctx context.Context, idle <-chan struct{}, look func(context.Context) error) (began, ended time.Time, err error) {
	select {
	case <-time.After(r.plan.WarmUp):
	case <-idle:
		return began, ended, fmt.Errorf("no call is left after the warm-up; %d were allowed, %d failed", r.plan.MaxCalls, r.failed.Load())
	}
	if err := look(ctx); err != nil {
		return began, ended, err
	}
	began = time.Now()
	select {
	case <-time.After(r.plan.Duration):
	case <-idle:
	}
	ended = time.Now()
	return began, ended, look(ctx)
}

// summarize picks out what lies in the window. A call that began in it counts in the
// latencies whenever it ended, so that the slowest are not left out; the rate is of
// those that ended in it.
func summarize(samples []sample, began, ended time.Time) Result {
	result := Result{Window: ended.Sub(began), Sent: len(samples), Failures: map[string]int{}}
	result.PerSecond = make([]int, result.Window/time.Second)
	for _, s := range samples {
		if s.err != nil {
			result.Failures[s.err.Error()]++
			continue
		}
		if !s.start.Before(began) && s.start.Before(ended) {
			result.Latencies = append(result.Latencies, s.took)
		}
		if end := s.start.Add(s.took); !end.Before(began) && end.Before(ended) {
			result.Calls++
			if second := int(end.Sub(began) / time.Second); second < len(result.PerSecond) {
				result.PerSecond[second]++
			}
		}
	}
	slices.Sort(result.Latencies)
	return result
}
