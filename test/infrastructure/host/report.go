package host

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// Level says what a check that is not OK means.
type Level string

// The levels.
const (
	Required Level = "required" // a run would fail
	Advice   Level = "advice"   // a run may work, or works another way
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Level  Level  `json:"level"`
	Found  string `json:"found"`            // what there is
	Remedy string `json:"remedy,omitempty"` // what to do; empty when OK
}

// Report is all checks, in the order in which they are read best.
type Report []Check

// Err returns nil unless a required check is not OK.
func (r Report) Err() error {
	var problems []error
	for _, check := range r {
		if !check.OK && check.Level == Required {
			problems = append(problems, fmt.Errorf("%s: %s; %s", check.Name, check.Found, check.Remedy))
		}
	}
	return errors.Join(problems...)
}

// marks are the first column: on a terminal, and elsewhere.
var marks = map[bool]struct{ ok, failed, advice string }{
	true:  {screen.Paint("✓", screen.Good, true), screen.Paint("✗", screen.Bad, true), screen.Paint("✗", screen.Note, true)},
	false: {"ok    ", "FAIL  ", "advice"},
}

// Table writes a line for each check, with the remedy below what is not OK. On a
// terminal it has coloured marks: red for what a run would fail on, yellow for
// advice.
func (r Report) Table(w io.Writer, tty bool) error {
	width := 0
	for _, check := range r {
		width = max(width, utf8.RuneCountInString(check.Name))
	}
	var b strings.Builder
	indent := strings.Repeat(" ", width+4)
	if !tty {
		indent += strings.Repeat(" ", len(marks[false].ok)-1)
	}
	for _, check := range r {
		mark := marks[tty].ok
		if !check.OK && check.Level == Required {
			mark = marks[tty].failed
		} else if !check.OK {
			mark = marks[tty].advice
		}
		fmt.Fprintf(&b, "%s %-*s  %s\n", mark, width, check.Name, check.Found)
		if !check.OK && check.Remedy != "" {
			fmt.Fprintf(&b, "%s%s\n", indent, check.Remedy)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
