package mutants

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

const root = "../.."

func TestEveryMutantFitsTheCode(t *testing.T) {
	all, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Errorf("got %d mutants, want at least 30", len(all))
	}
	seen := map[string]bool{}
	for _, m := range all {
		t.Run(m.ID, func(t *testing.T) {
			if !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(m.ID) || seen[m.ID] {
				t.Errorf("the id is no name of its own: %q", m.ID)
			}
			seen[m.ID] = true
			if m.Defect == "" || m.Focus == "" || m.Old == m.New {
				t.Errorf("got %+v, want a defect, a focus and a change", m)
			}
			if _, err := regexp.Compile(m.Focus); err != nil {
				t.Error(err)
			}
			if !strings.HasPrefix(m.File, "docker/"+m.Service+"/") && !strings.HasPrefix(m.File, "docker/internal/") {
				t.Errorf("%s is not built into %s", m.File, m.Service)
			}
			text, err := os.ReadFile(filepath.Join(root, m.File))
			if err != nil {
				t.Fatal(err)
			}
			changed, err := m.Apply(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(m.File, ".go") {
				return
			}
			if _, err := parser.ParseFile(token.NewFileSet(), m.File, changed, parser.SkipObjectResolution); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWriteLeavesTheCheckoutAlone(t *testing.T) {
	checkout, folder := t.TempDir(), filepath.Join(t.TempDir(), "mutant")
	if err := os.WriteFile(filepath.Join(checkout, "a.go"), []byte("one two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := Mutant{ID: "m", File: "a.go", Old: "two", New: "three"}.Write(checkout, folder)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(checkout, "a.go"): "one two\n",
		filepath.Join(folder, "a.go"):   "one three\n",
		overlay:                         `{"Replace":{"` + filepath.Join(checkout, "a.go") + `":"` + filepath.Join(folder, "a.go") + `"}}`,
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
		}
	}
	for _, old := range []string{"four", "o"} {
		if _, err := (Mutant{ID: "m", File: "a.go", Old: old}).Write(checkout, folder); err == nil || !strings.Contains(err.Error(), "must stand there once") {
			t.Errorf("%q: got %v", old, err)
		}
	}
}

func TestChosenKeepsAServicesMutantsTogether(t *testing.T) {
	all := []Mutant{{ID: "a1", Service: "a"}, {ID: "b1", Service: "b"}, {ID: "a2", Service: "a"}}
	some, err := chosen(all, "^a|1$")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range some {
		ids = append(ids, m.ID)
	}
	if got, want := strings.Join(ids, " "), "a1 a2 b1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := chosen(all, "c"); err == nil {
		t.Error("no mutant matches, and that is no error")
	}
}

func TestOnlyASpecNotices(t *testing.T) {
	spec, node := report.Failure{Name: "a spec"}, report.Failure{Name: "[BeforeSuite]", Node: true}
	specs, err := noticed(&infrastructure.SuiteError{Failed: []report.Failure{node, spec}})
	if err != nil || len(specs) != 1 || specs[0] != "a spec" {
		t.Errorf("got %v, %v, want the spec", specs, err)
	}
	for _, other := range []error{&infrastructure.SuiteError{Failed: []report.Failure{node}}, context.DeadlineExceeded} {
		if specs, err := noticed(other); err == nil || len(specs) > 0 {
			t.Errorf("%v: got %v, %v, want an error", other, specs, err)
		}
	}
}

func TestVerdictAndTable(t *testing.T) {
	results := []result{
		{Mutant: Mutant{ID: "good", Defect: "a | b"}, specs: []string{"one", "two", "three", "four"}, unfocused: true},
		{Mutant: Mutant{ID: "down"}, down: true},
		{Mutant: Mutant{ID: "alive", Defect: "count +2"}},
		{Mutant: Mutant{ID: "broken"}, err: errors.New("undefined: x")},
	}
	err := verdict(results, 5)
	if want := "mutant alive: survived: count +2\nmutant broken: not tried: undefined: x\n1 mutants were not tried"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := verdict(results[:2], 2); err != nil {
		t.Errorf("got %v", err)
	}
	table := markdown(results)
	for _, want := range []string{"2 of 4 caught", `a \| b`, "one; two; three; and 1 more (not by those that should)", "did not become ready", "it survived", "not tried: undefined: x"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}
