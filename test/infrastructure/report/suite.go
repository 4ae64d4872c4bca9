package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Suite is a suite that ran, as Ginkgo's JSON report tells of it.
type Suite struct {
	Name    string // in the catalog
	Title   string // its own text
	Start   time.Time
	Took    time.Duration
	Seed    int64
	Passed  int
	Failed  int // also of the suite's own nodes
	Left    int // specs that were not selected
	Specs   []Spec
	Reasons []string // why the suite failed besides its specs
}

// Spec is one spec that ran, or one node of the suite's own.
type Spec struct {
	Name    string  // its containers' and its own text; a node's begins with its kind in brackets
	Node    bool    // no spec: what a suite does before or after them
	Process int     // from 1
	Serial  bool    // nothing else of the suite ran beside it
	Places  []Place // where it and its containers stand
	Start   time.Time
	Took    time.Duration
	Parts   []Part           // what it spent its time with, in order
	Faults  []timeline.Event // that it made
	Failure *Failure         // nil if it passed
}

// Part is one node of a spec, or a step that it named.
type Part struct {
	Name  string // e.g. BeforeEach suite_test.go:138
	Start time.Time
	Took  time.Duration
}

// Spent says in words what the spec spent its time with: the parts and faults of at least a
// tenth of a second.
func (s Spec) Spent() string {
	var words []string
	for _, part := range s.Parts {
		if part.Took >= spent {
			words = append(words, fmt.Sprintf("%s %.1f", part.Name, part.Took.Seconds()))
		}
	}
	for _, fault := range s.Faults {
		if took := fault.End.Sub(fault.Start); took >= spent {
			words = append(words, fmt.Sprintf("%s %.1f", fault.Name, took.Seconds()))
		}
	}
	return strings.Join(words, ", ")
}

const spent = 100 * time.Millisecond

// Failure is why a spec failed.
type Failure struct {
	Name    string // the spec's
	Node    bool   // the spec's
	File    string // of the failure, relative to the checkout
	Line    int
	Message string   // whole
	Told    []string // what else the spec has reported: what it said and heard, what was logged about it
	Again   string   // the command that repeats precisely this on the kept cluster
	Past    string   // how often it failed before; empty if that is not known
}

// Brief is the beginning of the message on one line: a matcher's first line often says no
// more than that it expected.
func (f Failure) Brief() string {
	const enough = 160
	line := []rune(strings.Join(strings.Fields(f.Message), " "))
	if len(line) <= enough {
		return string(line)
	}
	return string(line[:enough]) + " ..."
}

// Failures are those of the suite, in the order of its report.
func (s Suite) Failures() []Failure {
	var failures []Failure
	for _, spec := range s.Specs {
		if spec.Failure != nil {
			failures = append(failures, *spec.Failure)
		}
	}
	return failures
}

// Counts are the numbers of specs, in words.
func (s Suite) Counts() string {
	counts := fmt.Sprintf("%d passed, %d failed", s.Passed, s.Failed)
	if s.Left > 0 {
		counts += fmt.Sprintf(", %d not selected", s.Left)
	}
	return counts
}

// pastSuffix is that of the file beside a suite's report which tells of the past of those that
// failed in it.
const pastSuffix = ".past.json"

// Recall says of the specs that failed how often they did so before, by name, and leaves it
// beside the suite's report for whoever reads that again.
func (s Suite) Recall(file string, past map[string]string) error {
	if len(past) == 0 {
		return nil
	}
	s.recall(past)
	data, err := json.Marshal(past)
	if err != nil {
		return err
	}
	return renameio.WriteFile(strings.TrimSuffix(file, ".json")+pastSuffix, data, 0o644)
}

func (s Suite) recall(past map[string]string) {
	for _, spec := range s.Specs {
		if spec.Failure != nil {
			spec.Failure.Past = past[spec.Name]
		}
	}
}

// Focus is the regular expression that selects specs of a suite and no others. Ginkgo matches
// the suite's own text, a space and the spec's.
func Focus(title string, names ...string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	only := strings.Join(quoted, "|")
	if len(names) > 1 {
		only = "(" + only + ")"
	}
	return "^" + regexp.QuoteMeta(title) + " " + only + "$"
}

// Command is a target as the user would call it for a variant.
func Command(coverage bool, target string) string {
	if coverage {
		return "E2E_COVERAGE=true go tool mage " + target
	}
	return "go tool mage " + target
}

// Quote is a text as one word of a shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Place is a line of a file.
type Place struct {
	File string `json:"FileName"` // absolute
	Line int    `json:"LineNumber"`
}

type moment struct{ Time time.Time }

// ginkgoReport is the part of Ginkgo's JSON report that is read here.
type ginkgoReport struct {
	SuiteDescription           string
	SpecialSuiteFailureReasons []string
	StartTime                  time.Time
	RunTime                    time.Duration
	SuiteConfig                struct{ RandomSeed int64 }
	SpecReports                []ginkgoSpec
}

type ginkgoSpec struct {
	ContainerHierarchyTexts     []string
	ContainerHierarchyLocations []Place
	LeafNodeText                string
	LeafNodeLocation            Place
	LeafNodeType                string
	State                       string
	StartTime                   time.Time
	EndTime                     time.Time
	RunTime                     time.Duration
	ParallelProcess             int
	IsSerial                    bool
	Failure                     struct {
		Message        string
		ForwardedPanic string
		Location       Place
	}
	CapturedGinkgoWriterOutput string
	ReportEntries              []struct {
		Name             string
		TimelineLocation moment
		Value            struct{ Representation string }
	}
	SpecEvents []struct {
		SpecEventType    string
		CodeLocation     Place
		TimelineLocation moment
		Message          string
		Duration         time.Duration
		NodeType         string
	}
}

// ReadSuite reads what a suite has left. Files below root are named relative to it; coverage
// tells that the run was of that variant.
func ReadSuite(file, name, root string, coverage bool) (Suite, error) {
	suite := Suite{Name: name}
	data, err := os.ReadFile(file)
	if err != nil {
		return suite, err
	}
	var reports []ginkgoReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return suite, fmt.Errorf("%s: %w", file, err)
	}
	for _, report := range reports {
		suite.Title, suite.Start, suite.Seed = report.SuiteDescription, report.StartTime, report.SuiteConfig.RandomSeed
		suite.Took += report.RunTime
		suite.Reasons = append(suite.Reasons, report.SpecialSuiteFailureReasons...)
		for _, ran := range report.SpecReports {
			spec := ran.spec()
			switch ran.State {
			case "skipped", "pending":
				if !spec.Node {
					suite.Left++
				}
				continue
			case "passed":
				if !spec.Node {
					suite.Passed++
				}
			default:
				suite.Failed++
				spec.Failure = ran.failure(spec, root)
				spec.Failure.Again = "E2E_KEEP=always "
				if !spec.Node {
					spec.Failure.Again += "E2E_FOCUS=" + Quote(Focus(report.SuiteDescription, spec.Name)) + " "
				}
				spec.Failure.Again += Command(coverage, "e2e:"+name)
			}
			suite.Specs = append(suite.Specs, spec)
		}
	}
	if data, err = os.ReadFile(strings.TrimSuffix(file, ".json") + pastSuffix); err == nil {
		past := map[string]string{}
		if err := json.Unmarshal(data, &past); err != nil {
			return suite, fmt.Errorf("%s: past: %w", file, err)
		}
		suite.recall(past)
	}
	return suite, nil
}

func (g ginkgoSpec) spec() Spec {
	spec := Spec{
		Name: strings.Join(append(g.ContainerHierarchyTexts, g.LeafNodeText), " "), Node: g.LeafNodeType != "It",
		Process: max(1, g.ParallelProcess), Serial: g.IsSerial, Start: g.StartTime, Took: g.RunTime,
		Places: append(g.ContainerHierarchyLocations, g.LeafNodeLocation),
	}
	if spec.Node {
		spec.Name = strings.TrimSpace("[" + g.LeafNodeType + "] " + spec.Name)
	}
	for _, event := range g.SpecEvents {
		name := event.Message
		switch event.SpecEventType {
		case "Node (End)":
			name = fmt.Sprintf("%s %s:%d", event.NodeType, filepath.Base(event.CodeLocation.File), event.CodeLocation.Line)
		case "By (End)":
		default:
			continue
		}
		spec.Parts = append(spec.Parts, Part{name, event.TimelineLocation.Time.Add(-event.Duration), event.Duration})
	}
	for _, entry := range g.ReportEntries {
		fault := timeline.Event{Kind: target.Fault, Name: entry.Value.Representation, Start: entry.TimelineLocation.Time}
		switch entry.Name {
		case target.FaultBegins: // until it is over; with the spec, if nobody says
			fault.End = g.EndTime
			spec.Faults = append(spec.Faults, fault)
		case target.Fault:
			spec.Faults = append(spec.Faults, fault)
		case target.FaultOver:
			for i := range spec.Faults {
				if spec.Faults[i].Name == fault.Name && spec.Faults[i].End.Equal(g.EndTime) {
					spec.Faults[i].End = fault.Start
				}
			}
		}
	}
	return spec
}

func (g ginkgoSpec) failure(spec Spec, root string) *Failure {
	failure := &Failure{
		Name: spec.Name, Node: spec.Node, Message: strings.TrimSpace(g.Failure.Message + "\n" + g.Failure.ForwardedPanic),
		File: relative(root, g.Failure.Location.File), Line: g.Failure.Location.Line,
	}
	for _, entry := range g.ReportEntries {
		if text := strings.TrimSpace(entry.Value.Representation); text != "" && !strings.HasPrefix(entry.Name, target.Fault) {
			failure.Told = append(failure.Told, entry.Name+"\n"+text)
		}
	}
	if text := strings.TrimSpace(g.CapturedGinkgoWriterOutput); text != "" {
		failure.Told = append(failure.Told, "what it wrote\n"+text)
	}
	return failure
}

// relative is a path seen from the checkout, where it lies in it.
func relative(root, path string) string {
	if below, err := filepath.Rel(root, path); root != "" && err == nil && filepath.IsLocal(below) {
		return filepath.ToSlash(below)
	}
	return path
}
