package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// line is the time line: rows below each other on one axis. Places are percentages of the
// axis, so that a browser makes it as wide as there is room, or as wide as one zooms.
type line struct {
	Ticks  []tick
	Rows   []row
	Height int   // of all rows, in pixels
	Joints []box // from the end of each step of the critical path to the start of the next
	Bands  []box // of faults, behind the suites' rows
}

type tick struct {
	Left  float64
	Label string
}

// box is a place beside the bars; Top and Height are in pixels.
type box struct {
	Left, Width float64
	Top, Height int
	Title       string
}

// row is one line of it.
type row struct {
	Class  string // step, head, spec, event or usage
	Label  string
	Value  string
	Height int // in pixels
	Bars   []bar
	CPU    string // the points of a curve, in thousandths of the axis and percent of the height
	Memory string
}

// bar is something that happened. One without length is as wide as can be seen.
type bar struct {
	Left, Width float64
	Class       string // how it ended, or its kind; and critical on the critical path
	Title       string
	To          string // where the page says more; empty if nowhere
}

const (
	rowHeight   = 18
	usageHeight = 34
)

// line lays out everything that is told of the run.
func (r *Run) line() line {
	var l line
	span := max(r.end().Sub(r.Started), time.Second)
	at := func(moment time.Time) float64 { return 100 * float64(moment.Sub(r.Started)) / float64(span) }
	place := func(start, end time.Time) (left, width float64) {
		left = min(100, max(0, at(start)))
		return left, max(0, min(100, at(end))-left)
	}
	add := func(row row) {
		row.Height = cmp.Or(row.Height, rowHeight)
		l.Rows = append(l.Rows, row)
		l.Height += row.Height
	}
	step := nice(span)
	for t := time.Duration(0); t <= span; t += step {
		l.Ticks = append(l.Ticks, tick{100 * float64(t) / float64(span), clock(t)})
	}
	r.stepRows(&l, add, place)
	top := l.Height
	r.specRows(add, place)
	r.eventRows(&l, add, place, top)
	r.usageRows(add, span)
	return l
}

func (r *Run) stepRows(l *line, add func(row), place func(start, end time.Time) (float64, float64)) {
	path := criticalPath(r.Steps)
	tops := map[string]int{}
	for _, step := range r.Steps {
		left, width := place(step.Start, step.End)
		b := bar{Left: left, Width: width, Class: string(step.Outcome), Title: fmt.Sprintf("%s, %s s, %s %s", step.Title(), seconds(step.Took()), step.Outcome, step.Detail), To: "#steps"}
		if slices.Contains(path, step) {
			b.Class += " critical"
		}
		bars := []bar{b}
		for _, event := range r.Events {
			if event.Kind == timeline.StatusEvent && event.Name == step.Title() {
				left, width := place(event.Start, event.End)
				bars = append(bars, bar{Left: left, Width: width, Class: "mark", Title: step.Title() + ": " + event.Detail})
			}
		}
		tops[step.Title()] = l.Height
		add(row{Class: "step " + string(step.Outcome), Label: step.Title(), Value: seconds(step.Took()), Bars: bars})
	}
	for i := 1; i < len(path); i++ {
		left, width := place(path[i-1].End, path[i].Start)
		from, to := tops[path[i-1].Title()], tops[path[i].Title()]
		l.Joints = append(l.Joints, box{Left: left, Width: width, Top: min(from, to) + rowHeight/2, Height: max(from-to, to-from)})
	}
}

func (r *Run) specRows(add func(row), place func(start, end time.Time) (float64, float64)) {
	failed := 0
	for _, suite := range r.Suites {
		add(row{Class: "head", Label: suite.Name, Value: seconds(suite.Took)})
		processes := map[int][]bar{}
		for _, spec := range suite.Specs {
			left, width := place(spec.Start, spec.Start.Add(spec.Took))
			b := bar{Left: left, Width: width, Class: "passed", Title: fmt.Sprintf("%s, %s s", spec.Name, seconds(spec.Took))}
			if spec.Serial && !spec.Node {
				b.Class = "passed serial"
			}
			if spec.Node {
				b.Class = "node"
			}
			if spec.Failure != nil {
				failed++
				b.Class, b.To = "failed", fmt.Sprintf("#failure-%d", failed)
				b.Title += ", failed: " + spec.Failure.Brief()
			}
			processes[spec.Process] = append(processes[spec.Process], b)
		}
		for process := 1; len(processes) > 0; process++ {
			if bars, there := processes[process]; there {
				add(row{Class: "spec", Label: fmt.Sprintf("process %d", process), Bars: bars})
				delete(processes, process)
			}
		}
	}
}

// eventRows are a row for each kind of event, known or not. Faults are bands behind the
// suites, too.
func (r *Run) eventRows(l *line, add func(row), place func(start, end time.Time) (float64, float64), top int) {
	var kinds []string
	bars := map[string][]bar{}
	suites := l.Height - top
	for _, event := range r.Events {
		if event.Kind == timeline.StatusEvent && slices.ContainsFunc(r.Steps, func(step timeline.Entry) bool { return step.Title() == event.Name }) {
			continue // in the step's row
		}
		if bars[event.Kind] == nil {
			kinds = append(kinds, event.Kind)
		}
		left, width := place(event.Start, event.End)
		b := bar{Left: left, Width: width, Class: "event", Title: strings.TrimSuffix(event.Kind+": "+event.Name+": "+event.Detail, ": ")}
		if event.End.IsZero() {
			b.Class = "mark"
		} else {
			b.Title += fmt.Sprintf(", %s s", seconds(event.End.Sub(event.Start)))
		}
		bars[event.Kind] = append(bars[event.Kind], b)
		if event.Kind == target.Fault && width > 0 {
			l.Bands = append(l.Bands, box{Left: left, Width: width, Top: top, Height: suites, Title: b.Title})
		}
	}
	for _, kind := range kinds {
		add(row{Class: "event", Label: kind, Value: fmt.Sprint(len(bars[kind])), Bars: bars[kind]})
	}
}

// usageRows are a row for each that used something, the machine first and then what used
// most of it.
func (r *Run) usageRows(add func(row), span time.Duration) {
	type total struct {
		of    string
		cores float64 // the most
		bytes int64
		sum   float64
		at    []timeline.Usage
	}
	var users []*total
	for _, usage := range r.Usage {
		i := slices.IndexFunc(users, func(t *total) bool { return t.of == usage.Of })
		if i < 0 {
			i = len(users)
			users = append(users, &total{of: usage.Of})
		}
		t := users[i]
		t.cores, t.bytes, t.sum = max(t.cores, usage.Cores), max(t.bytes, usage.Bytes), t.sum+usage.Cores
		t.at = append(t.at, usage)
	}
	slices.SortStableFunc(users, func(a, b *total) int { return cmp.Compare(b.sum, a.sum) })
	for _, t := range users {
		var cpu, memory strings.Builder
		for _, usage := range t.at {
			x := 1000 * float64(usage.At.Sub(r.Started)) / float64(span)
			fmt.Fprintf(&cpu, "%.1f,%.1f ", x, 100-95*usage.Cores/max(t.cores, 0.01))
			fmt.Fprintf(&memory, "%.1f,%.1f ", x, 100-95*float64(usage.Bytes)/float64(max(t.bytes, 1)))
		}
		add(row{Class: "usage", Label: t.of, Value: fmt.Sprintf("≤ %.2f cores, %d MiB", t.cores, t.bytes>>20), Height: usageHeight, CPU: cpu.String(), Memory: memory.String()})
	}
}

// nice is a distance of ticks that leaves about six of them.
func nice(span time.Duration) time.Duration {
	for _, step := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute} {
		if span/step <= 6 {
			return step
		}
	}
	return (span / 6).Round(time.Hour) + time.Hour
}

// clock is a time since the start.
func clock(t time.Duration) string {
	if t < time.Minute {
		return fmt.Sprintf("%d s", int(t.Seconds()))
	}
	return fmt.Sprintf("%d:%02d", int(t.Minutes()), int(t.Seconds())%60)
}
