package mutants

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// result is what became of one mutant.
type result struct {
	Mutant
	specs     []string // that failed
	unfocused bool     // the specs that should have failed passed; all others were run
	down      bool     // it did not even become ready
	err       error    // why it could not be tried
	took      time.Duration
}

func (r result) caught() bool { return r.down || len(r.specs) > 0 }

// shownSpecs is how many specs the table names of those that noticed a mutant.
const shownSpecs = 3

// by says what noticed the mutant.
func (r result) by() string {
	switch {
	case r.err != nil:
		return "not tried: " + r.err.Error()
	case r.down:
		return "the deployment, which did not become ready"
	case len(r.specs) == 0:
		return "nobody: it survived"
	}
	text := strings.Join(r.specs[:min(len(r.specs), shownSpecs)], "; ")
	if more := len(r.specs) - shownSpecs; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	if r.unfocused {
		text += " (not by those that should)"
	}
	return text
}

// markdown is the table of mutants.
func markdown(results []result) string {
	var b strings.Builder
	caught := 0
	for _, r := range results {
		if r.caught() && r.err == nil {
			caught++
		}
	}
	fmt.Fprintf(&b, "## Mutants: %d of %d caught\n\n| mutant | file | defect | caught by | seconds |\n|---|---|---|---|--:|\n", caught, len(results))
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f |\n", r.ID, r.File, cell(r.Defect), cell(r.by()), r.took.Seconds())
	}
	return b.String()
}

func cell(text string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text) }

// verdict names the mutants that survived and those that could not be tried.
func verdict(results []result, wanted int) error {
	var errs []error
	for _, r := range results {
		switch {
		case r.err != nil:
			errs = append(errs, fmt.Errorf("mutant %s: not tried: %w", r.ID, r.err))
		case !r.caught():
			errs = append(errs, fmt.Errorf("mutant %s: survived: %s", r.ID, r.Defect))
		}
	}
	if left := wanted - len(results); left > 0 {
		errs = append(errs, fmt.Errorf("%d mutants were not tried", left))
	}
	return errors.Join(errs...)
}
