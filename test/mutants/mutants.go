// Package mutants shows that the suites can fail: it builds small defects into the
// services, one at a time, deploys each and wants a spec to notice. The defects are data,
// see mutants.yaml. The checkout is never changed: the compiler is told to read a changed
// copy in place of a file.
package mutants

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed mutants.yaml
var list []byte

// Mutant is one defect. All fields are required but New.
type Mutant struct {
	ID      string `json:"id"`
	Service string `json:"service"` // the catalog's name of what is built with it, and of its suite
	Defect  string `json:"defect"`  // what is wrong, in a few words
	File    string `json:"file"`    // relative to the checkout
	Old     string `json:"old"`     // stands once in the file
	New     string `json:"new"`     // stands there instead
	Focus   string `json:"focus"`   // regular expression of the specs that should fail
}

// Read returns all mutants, in their order.
func Read() ([]Mutant, error) {
	var all []Mutant
	if err := yaml.UnmarshalStrict(list, &all); err != nil {
		return nil, fmt.Errorf("mutants.yaml: %w", err)
	}
	return all, nil
}

// Apply returns the text of the mutant's file with the defect in it.
func (m Mutant) Apply(text string) (string, error) {
	if n := strings.Count(text, m.Old); n != 1 {
		return "", fmt.Errorf("%s: %s holds %q %d times; a mutant's old text must stand there once", m.ID, m.File, m.Old, n)
	}
	return strings.Replace(text, m.Old, m.New, 1), nil
}

// Write puts the changed copy of the mutant's file into a folder, and beside it the file
// for `go build -overlay` that says what it stands for, whose path it returns.
func (m Mutant) Write(root, folder string) (overlay string, err error) {
	original := filepath.Join(root, filepath.FromSlash(m.File))
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed, err := m.Apply(string(text))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	replacement, overlay := filepath.Join(folder, filepath.Base(m.File)), filepath.Join(folder, "overlay.json")
	document, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(replacement, []byte(changed), 0o644), os.WriteFile(overlay, document, 0o644))
}

// chosen are the mutants whose ids match, those of one service together.
func chosen(all []Mutant, pattern string) ([]Mutant, error) {
	matches, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("E2E_MUTANTS: %w", err)
	}
	var some []Mutant
	for _, service := range services(all) {
		for _, m := range all {
			if m.Service == service && matches.MatchString(m.ID) {
				some = append(some, m)
			}
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("E2E_MUTANTS=%s: matches none of %d mutants", pattern, len(all))
	}
	return some, nil
}

// services are the services that mutants are of, in their order.
func services(all []Mutant) []string {
	var names []string
	seen := map[string]bool{}
	for _, m := range all {
		if !seen[m.Service] {
			names = append(names, m.Service)
		}
		seen[m.Service] = true
	}
	return names
}
