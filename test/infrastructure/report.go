package infrastructure

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

// SuiteError is a suite that ran and in which specs failed.
type SuiteError struct {
	Suite  string
	Counts string
	Failed []FailedSpec
}

// FailedSpec is one spec that failed.
type FailedSpec struct {
	Name     string // its containers' and its own text
	Location string // file:line of the failure
	Message  string // first line of it
}

// shownSpecs is how many failed specs the last lines on the screen name; all stand
// in the log and the JUnit report.
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
		fmt.Fprintf(&b, "\n  %s\n    %s: %s\n    again: E2E_FOCUS=%s go tool mage e2e:%s", spec.Name, spec.Location, spec.Message, quote(regexp.QuoteMeta(spec.Name)), e.Suite)
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ginkgoReport is the part of Ginkgo's JSON report that is read here.
type ginkgoReport struct {
	PreRunStats struct {
		TotalSpecs       int
		SpecsThatWillRun int
	}
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeText            string
		LeafNodeType            string
		State                   string
		Failure                 struct {
			Message  string
			Location struct {
				FileName   string
				LineNumber int
			}
		}
	}
}

// readReport counts the specs of a suite and returns those that failed.
func readReport(path string) (counts string, failed []FailedSpec, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	var reports []ginkgoReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	passed, bad, skipped := 0, 0, 0
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			isSpec := spec.LeafNodeType == "It"
			switch spec.State {
			case "passed":
				if isSpec {
					passed++
				}
			case "skipped", "pending":
				if isSpec {
					skipped++
				}
			default:
				bad++
				name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
				if !isSpec {
					name = strings.TrimSpace("[" + spec.LeafNodeType + "] " + name)
				}
				message, _, _ := strings.Cut(strings.TrimSpace(spec.Failure.Message), "\n")
				location := spec.Failure.Location
				failed = append(failed, FailedSpec{Name: name, Location: fmt.Sprintf("%s:%d", location.FileName, location.LineNumber), Message: message})
			}
		}
	}
	counts = fmt.Sprintf("%d passed, %d failed", passed, bad)
	if skipped > 0 {
		counts += fmt.Sprintf(", %d not selected", skipped)
	}
	return counts, failed, nil
}

// lines hands over what is written to it line by line.
type lines struct {
	say func(format string, args ...any)

	mu   sync.Mutex
	rest string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest += string(p)
	for {
		line, rest, found := strings.Cut(l.rest, "\n")
		if !found {
			return len(p), nil
		}
		l.rest = rest
		l.say("  %s", line)
	}
}

// flush hands over a last line without an end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rest != "" {
		l.say("  %s", l.rest)
		l.rest = ""
	}
}
