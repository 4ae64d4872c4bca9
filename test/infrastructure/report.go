package infrastructure

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// SuiteError is a suite that ran and in which specs failed.
type SuiteError struct {
	Suite  string
	Counts string
	Failed []FailedSpec
}

// FailedSpec is one spec, or one node of the suite's own, that failed.
type FailedSpec struct {
	Name    string // its containers' and its own text; a node's begins with its kind in brackets
	Node    bool   // no spec: what a suite does before or after them
	File    string // of the failure, relative to the checkout
	Line    int
	Message string // of the failure, whole
	Again   string // the command that repeats precisely this on the kept cluster
}

// first is the first line of the failure's message.
func (s FailedSpec) first() string {
	line, _, _ := strings.Cut(s.Message, "\n")
	return line
}

// shownSpecs is how many failed specs the last lines on the screen name; all stand
// in the log, the JUnit report and the summary.
const shownSpecs = 10

// Error names the specs, why each failed, and how to repeat it on the kept cluster.
func (e *SuiteError) Error() string {
	var b strings.Builder
	fmt.Fprint(&b, e.Counts)
	for i, spec := range e.Failed {
		if i == shownSpecs {
			fmt.Fprintf(&b, "\n  and %d more", len(e.Failed)-shownSpecs)
			break
		}
		fmt.Fprintf(&b, "\n  %s\n    %s:%d: %s\n    again: %s", spec.Name, spec.File, spec.Line, spec.first(), spec.Again)
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// suiteReport is what is kept of a suite that ran.
type suiteReport struct {
	name                        string
	passed, failed, notSelected int
	took                        time.Duration
	failures                    []FailedSpec
	slowest                     []timedSpec // the slowest first
	reasons                     []string    // why the suite failed besides its specs
}

type timedSpec struct {
	name string
	took time.Duration
}

func (r suiteReport) counts() string {
	counts := fmt.Sprintf("%d passed, %d failed", r.passed, r.failed)
	if r.notSelected > 0 {
		counts += fmt.Sprintf(", %d not selected", r.notSelected)
	}
	return counts
}

// ginkgoReport is the part of Ginkgo's JSON report that is read here.
type ginkgoReport struct {
	SuiteDescription           string
	SpecialSuiteFailureReasons []string
	RunTime                    time.Duration
	SpecReports                []struct {
		ContainerHierarchyTexts []string
		LeafNodeText            string
		LeafNodeType            string
		State                   string
		RunTime                 time.Duration
		Failure                 struct {
			Message  string
			Location struct {
				FileName   string
				LineNumber int
			}
		}
	}
}

// slowestSpecs is how many of a suite's specs are remembered for their time.
const slowestSpecs = 10

// readReport reads what a suite has left, and completes each failure with a path
// relative to the checkout and the command that repeats it.
func (e *Environment) readReport(path, suite string) (suiteReport, error) {
	result := suiteReport{name: suite}
	data, err := os.ReadFile(path)
	if err != nil {
		return result, err
	}
	var reports []ginkgoReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return result, fmt.Errorf("%s: %w", path, err)
	}
	for _, report := range reports {
		result.took += report.RunTime
		result.reasons = append(result.reasons, report.SpecialSuiteFailureReasons...)
		for _, spec := range report.SpecReports {
			isSpec := spec.LeafNodeType == "It"
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			switch spec.State {
			case "skipped", "pending":
				if isSpec {
					result.notSelected++
				}
				continue
			case "passed":
				if isSpec {
					result.passed++
				}
			default:
				result.failed++
				failure := FailedSpec{
					Name: name, Node: !isSpec, Message: strings.TrimSpace(spec.Failure.Message),
					File: e.relative(spec.Failure.Location.FileName), Line: spec.Failure.Location.LineNumber,
					Again: "E2E_KEEP=always " + e.command("e2e:"+suite),
				}
				if isSpec {
					// Ginkgo matches the suite's own text, a space and the spec's.
					only := "^" + regexp.QuoteMeta(report.SuiteDescription+" "+name) + "$"
					failure.Again = "E2E_KEEP=always E2E_FOCUS=" + quote(only) + " " + e.command("e2e:"+suite)
				} else {
					failure.Name = strings.TrimSpace("[" + spec.LeafNodeType + "] " + name)
				}
				result.failures = append(result.failures, failure)
			}
			if isSpec {
				result.slowest = append(result.slowest, timedSpec{name, spec.RunTime})
			}
		}
	}
	result.slowest = slowest(result.slowest)
	return result, nil
}

// slowest sorts specs by their time and keeps the first few.
func slowest(specs []timedSpec) []timedSpec {
	slices.SortStableFunc(specs, func(a, b timedSpec) int { return cmp.Compare(b.took, a.took) })
	return specs[:min(len(specs), slowestSpecs)]
}
