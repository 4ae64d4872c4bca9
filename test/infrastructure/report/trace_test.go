package report_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/report"
)

// event is an event of a trace, as strictly as the format has it: what is missing stays nil,
// and what is too much is refused.
type event struct {
	Name *string         `json:"name"`
	Ph   string          `json:"ph"`
	TS   *float64        `json:"ts"`
	Dur  *float64        `json:"dur"`
	PID  *int            `json:"pid"`
	TID  *int            `json:"tid"`
	Cat  string          `json:"cat"`
	S    string          `json:"s"`
	ID   string          `json:"id"`
	Args json.RawMessage `json:"args"`
}

// parse reads a trace as a viewer does that ignores nothing: every event of a kind has what
// that kind needs, and what lies in a thread lies in each other or apart.
func parse(data []byte) ([]event, error) {
	var trace struct {
		DisplayTimeUnit string  `json:"displayTimeUnit"`
		TraceEvents     []event `json:"traceEvents"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&trace); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the trace: %w", err)
	}
	if trace.DisplayTimeUnit != "ms" && trace.DisplayTimeUnit != "ns" {
		return nil, fmt.Errorf("displayTimeUnit %q", trace.DisplayTimeUnit)
	}
	type thread struct{ pid, tid int }
	complete := map[thread][]event{}
	open := map[string]float64{}
	for i, e := range trace.TraceEvents {
		if e.Name == nil || *e.Name == "" || e.PID == nil || e.TS == nil || *e.TS < 0 {
			return nil, fmt.Errorf("event %d: %+v has no name, process or time", i, e)
		}
		key := fmt.Sprint(e.Cat, e.ID, *e.Name)
		switch e.Ph {
		case "X":
			if e.TID == nil {
				return nil, fmt.Errorf("event %d: has no thread", i)
			}
			complete[thread{*e.PID, *e.TID}] = append(complete[thread{*e.PID, *e.TID}], e)
		case "M":
			var args struct{ Name string }
			if err := json.Unmarshal(e.Args, &args); err != nil || args.Name == "" || (*e.Name != "process_name" && *e.Name != "thread_name") {
				return nil, fmt.Errorf("event %d: %s names nothing: %w", i, *e.Name, err)
			}
		case "C":
			var args map[string]float64
			if err := json.Unmarshal(e.Args, &args); err != nil || len(args) == 0 {
				return nil, fmt.Errorf("event %d: counts nothing: %w", i, err)
			}
		case "i":
			if e.S != "t" && e.S != "p" && e.S != "g" {
				return nil, fmt.Errorf("event %d: scope %q", i, e.S)
			}
		case "b":
			if e.ID == "" || e.Cat == "" {
				return nil, fmt.Errorf("event %d: no id or category", i)
			}
			open[key] = *e.TS
		case "e":
			if began, is := open[key]; !is || *e.TS < began {
				return nil, fmt.Errorf("event %d: ends and has not begun", i)
			}
			delete(open, key)
		default:
			return nil, fmt.Errorf("event %d: unknown phase %q", i, e.Ph)
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("never end: %v", open)
	}
	for where, events := range complete {
		slices.SortStableFunc(events, func(a, b event) int { return cmp.Or(cmp.Compare(*a.TS, *b.TS), cmp.Compare(length(b), length(a))) })
		var around []float64 // the ends of what lies around the next one
		for _, e := range events {
			const rounding = 0.01
			for len(around) > 0 && around[len(around)-1] <= *e.TS+rounding {
				around = around[:len(around)-1]
			}
			end := *e.TS + length(e)
			if len(around) > 0 && end > around[len(around)-1]+rounding {
				return nil, fmt.Errorf("%v: %s ends after what it began in", where, *e.Name)
			}
			around = append(around, end)
		}
	}
	return trace.TraceEvents, nil
}

func length(e event) float64 {
	if e.Dur == nil {
		return 0
	}
	return *e.Dur
}

func TestTraceIsWhatTheTimelineSays(t *testing.T) {
	for kind := range kinds {
		run := made(t, kind)
		events, err := parse([]byte(read(t, run, report.TraceFile)))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		var steps, specs, wantSteps, wantSpecs float64
		others := 0
		for _, e := range events {
			switch {
			case e.Ph == "X" && *e.PID == 1:
				steps += length(e)
			case e.Ph == "X" && e.Cat == "spec":
				specs += length(e)
			case e.Ph == "i" || e.Ph == "b":
				others++
			}
		}
		for _, step := range run.Steps {
			wantSteps += step.Took().Seconds()
		}
		for _, suite := range run.Suites {
			for _, spec := range suite.Specs {
				wantSpecs += spec.Took.Seconds()
			}
		}
		if math.Abs(steps/1e6-wantSteps) > 1e-3 || math.Abs(specs/1e6-wantSpecs) > 1e-3 || wantSteps == 0 {
			t.Errorf("%s: steps %f s, specs %f s; want %f and %f", kind, steps/1e6, specs/1e6, wantSteps, wantSpecs)
		}
		if others != len(run.Events) {
			t.Errorf("%s: got %d events, want %d", kind, others, len(run.Events))
		}
	}
}

func TestParserRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no end":    `{"name":"x","ph":"b","pid":1,"ts":1,"cat":"c","id":"1"}`,
		"overlap":   `{"name":"x","ph":"X","pid":1,"tid":1,"ts":1,"dur":3},{"name":"y","ph":"X","pid":1,"tid":1,"ts":2,"dur":3}`,
		"no thread": `{"name":"x","ph":"X","pid":1,"ts":1,"dur":3}`,
		"unknown":   `{"name":"x","ph":"Q","pid":1,"ts":1}`,
		"a field":   `{"name":"x","ph":"i","pid":1,"ts":1,"s":"t","more":1}`,
	} {
		if _, err := parse([]byte(`{"displayTimeUnit":"ms","traceEvents":[` + text + `]}`)); err == nil {
			t.Errorf("%s: took %s", name, text)
		}
	}
}
