package report

import (
	"encoding/json"
	"strconv"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// traceEvent is one event of the trace event format, whose times are in microseconds:
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
type traceEvent struct {
	Name     string         `json:"name"`
	Phase    string         `json:"ph"`
	Time     float64        `json:"ts"`
	Duration float64        `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Category string         `json:"cat,omitempty"`
	Scope    string         `json:"s,omitempty"`
	ID       string         `json:"id,omitempty"`
	Args     map[string]any `json:"args,omitempty"`
}

// The processes of the trace; the suites follow.
const (
	traceSteps = iota + 1
	traceEvents
	traceUsage
	traceSuites
)

// trace is the run in the trace event format, as Perfetto and browsers read it: a process
// for the steps with a thread for those that may run one after the other, one for what
// happened, one for what was used, and one for each suite with a thread for each of its
// processes, in which what a spec is made of lies in it.
func (r *Run) trace() ([]byte, error) {
	var events []traceEvent
	at := func(moment time.Time) float64 { return float64(moment.Sub(r.Started).Nanoseconds()) / 1e3 }
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	name := func(what string, process, thread int, name string) {
		events = append(events, traceEvent{Name: what, Phase: "M", Process: process, Thread: thread, Args: map[string]any{"name": name}})
	}
	name("process_name", traceSteps, 0, "steps")
	for i, lane := range lanes(r.Steps) {
		for _, step := range lane {
			events = append(events, traceEvent{Name: step.Title(), Phase: "X", Time: at(step.Start), Duration: micros(step.Took()), Process: traceSteps,
				Thread: i + 1, Category: step.Phase, Args: map[string]any{"outcome": step.Outcome, "detail": step.Detail}})
		}
	}
	name("process_name", traceEvents, 0, "events")
	threads := map[string]int{}
	for i, event := range r.Events {
		if threads[event.Kind] == 0 {
			threads[event.Kind] = len(threads) + 1
			name("thread_name", traceEvents, threads[event.Kind], event.Kind)
		}
		told := traceEvent{Name: event.Name, Process: traceEvents, Thread: threads[event.Kind], Category: event.Kind, Args: map[string]any{"detail": event.Detail}}
		if event.End.IsZero() {
			told.Phase, told.Scope, told.Time = "i", "t", at(event.Start)
			events = append(events, told)
			continue
		}
		// Events of one kind may overlap, which only asynchronous ones may.
		told.Phase, told.ID, told.Time = "b", strconv.Itoa(i), at(event.Start)
		over := told
		over.Phase, over.Time = "e", at(event.End)
		events = append(events, told, over)
	}
	name("process_name", traceUsage, 0, "usage")
	for _, usage := range r.Usage {
		events = append(events,
			traceEvent{Name: usage.Of + " cores", Phase: "C", Time: at(usage.At), Process: traceUsage, Args: map[string]any{"cores": usage.Cores}},
			traceEvent{Name: usage.Of + " MiB", Phase: "C", Time: at(usage.At), Process: traceUsage, Args: map[string]any{"MiB": float64(usage.Bytes) / (1 << 20)}})
	}
	for i, suite := range r.Suites {
		process := traceSuites + i
		name("process_name", process, 0, "suite "+suite.Name)
		for _, spec := range suite.Specs {
			outcome := "passed"
			if spec.Failure != nil {
				outcome = "failed: " + spec.Failure.Brief()
			}
			events = append(events, traceEvent{Name: spec.Name, Phase: "X", Time: at(spec.Start), Duration: micros(spec.Took), Process: process, Thread: spec.Process,
				Category: "spec", Args: map[string]any{"outcome": outcome}})
			for _, part := range spec.Parts {
				events = append(events, traceEvent{Name: part.Name, Phase: "X", Time: at(part.Start), Duration: micros(part.Took), Process: process, Thread: spec.Process, Category: "node"})
			}
		}
	}
	data, err := json.Marshal(map[string]any{"displayTimeUnit": "ms", "traceEvents": events})
	return append(data, '\n'), err
}

// lanes deals steps, which are sorted by their start, out to lanes in which none overlaps
// another.
func lanes(steps []timeline.Entry) [][]timeline.Entry {
	var lanes [][]timeline.Entry
next:
	for _, step := range steps {
		for i, lane := range lanes {
			if !lane[len(lane)-1].End.After(step.Start) {
				lanes[i] = append(lane, step)
				continue next
			}
		}
		lanes = append(lanes, []timeline.Entry{step})
	}
	return lanes
}
