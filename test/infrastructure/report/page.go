package report

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

//go:embed page.html coverage.html page.css page.js
var sources embed.FS

// render fills in one of the templates: a page in one file that needs nothing else.
func render(name string, values any) ([]byte, error) {
	css, err := sources.ReadFile("page.css")
	if err != nil {
		return nil, err
	}
	js, err := sources.ReadFile("page.js")
	if err != nil {
		return nil, err
	}
	pages, err := template.New(name).Funcs(template.FuncMap{
		"count": count, "share": share, "short": short, "seconds": seconds, "cut": cut,
		"add":   func(i int) int { return i + 1 },
		"first": func(text string) string { return strings.SplitN(text, "\n", 2)[0] },
		"rest":  func(text string) string { _, rest, _ := strings.Cut(text, "\n"); return rest },
		"since": func(a, b time.Time) time.Duration { return a.Sub(b) },
		"css":   func() template.CSS { return template.CSS(css) }, "js": func() template.JS { return template.JS(js) },
	}).ParseFS(sources, "*.html")
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = pages.ExecuteTemplate(&page, name, values)
	return page.Bytes(), err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

// shownBytes bounds each text of a failure on the page, so that a page stays one that a
// browser opens at once; all of it stands in the files.
const shownBytes = 16 << 10

func cut(text string) string {
	if len(text) <= shownBytes {
		return text
	}
	return strings.ToValidUTF8(text[:shownBytes], "") + fmt.Sprintf("\n... and %d bytes more", len(text)-shownBytes)
}

// view is what the page shows.
type view struct {
	*Run
	Mark      string
	Verdict   string
	Why       string
	Shortened bool     // there is more of it
	Next      []string // commands
	Where     []string
	Figures   []figure
	Failures  []Failure
	More      int // failures that are not shown
	Broken    []timeline.Entry
	Slowest   []timed
	Changes   []Change
	Specs     []timed
	Line      line
}

// figure is a number that is looked at first.
type figure struct{ Label, Value, Note string }

const (
	shownFailures = 50
	shownSlowest  = 20
	shownWhy      = 12  // lines
	shownWhyBytes = 600 // with which a phone shows the command to repeat it as well
)

// page is the run as a page.
func (r *Run) page() ([]byte, error) {
	failures := r.failures()
	v := view{
		Run: r, Where: r.where(), Failures: failures[:min(len(failures), shownFailures)], Broken: r.failedSteps(),
		Slowest: r.slowest(shownSlowest), Changes: r.changes(), Specs: r.specs(), Line: r.line(),
	}
	v.More = len(failures) - len(v.Failures)
	v.Changes = v.Changes[:min(len(v.Changes), 2*shownChanges)]
	slices.SortStableFunc(v.Specs, func(a, b timed) int { return a.Start.Compare(b.Start) })
	v.verdict()
	v.figures()
	return render("page.html", v)
}

// verdict says how the run ended, why, and what to do.
func (v *view) verdict() {
	again := Command(v.covered(), cmp.Or(v.Target, "e2e:all"))
	switch v.Result {
	case timeline.Passed:
		v.Mark, v.Verdict = "✓", "passed"
		return
	case timeline.Interrupted:
		v.Mark, v.Verdict = "■", "interrupted"
	case timeline.Broken:
		v.Mark, v.Verdict = "✗", "failed"
	default:
		v.Mark, v.Verdict = "…", "not ended"
	}
	v.Next = []string{again}
	var why []string
	for i, failure := range v.Failures {
		if i == 0 {
			v.Next = []string{failure.Again}
		}
		why = append(why, failure.Name, "    "+failure.Brief())
	}
	for _, step := range v.Broken {
		why = append(why, step.Title()+": "+step.Detail)
	}
	if len(why) == 0 {
		why = []string{v.Failure}
	}
	lines := strings.Split(strings.Join(why, "\n"), "\n")
	if len(lines) > shownWhy {
		lines, v.Shortened = append(lines[:shownWhy:shownWhy], "..."), true
	}
	v.Why = strings.TrimSpace(strings.Join(lines, "\n"))
	if len(v.Why) > shownWhyBytes {
		v.Why, v.Shortened = strings.ToValidUTF8(v.Why[:shownWhyBytes], "")+" ...", true
	}
}

// figures are the sums, with what they were before.
func (v *view) figures() {
	add := func(label string, is float64, was func(*Run) float64, note string) {
		f := figure{Label: label, Value: fmt.Sprintf("%.1f s", is), Note: note}
		if v.Before != nil {
			if past := was(v.Before); past > 0 {
				f.Note = strings.TrimPrefix(f.Note+fmt.Sprintf(", %+.1f", is-past), ", ")
			}
		}
		v.Figures = append(v.Figures, f)
	}
	add("set-up", v.SetupSeconds, func(r *Run) float64 { return r.SetupSeconds }, "")
	for _, suite := range v.Suites {
		add(suite.Name, suite.Took.Seconds(), func(r *Run) float64 {
			for _, past := range r.Suites {
				if past.Name == suite.Name {
					return past.Took.Seconds()
				}
			}
			return 0
		}, suite.Counts())
	}
	add("total", v.TotalSeconds, func(r *Run) float64 {
		if v.Result != timeline.Passed {
			return 0 // it did not do the same
		}
		return r.TotalSeconds
	}, "")
}

// Versions are the facts, sorted by name.
func (v view) Versions() [][2]string {
	var facts [][2]string
	for _, name := range slices.Sorted(maps.Keys(v.Facts)) {
		facts = append(facts, [2]string{name, v.Facts[name]})
	}
	for _, suite := range v.Suites {
		facts = append(facts, [2]string{"seed of " + suite.Name, fmt.Sprint(suite.Seed)})
	}
	return facts
}
