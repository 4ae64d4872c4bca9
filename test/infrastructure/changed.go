package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// again runs the specs of a suite that passed once more, E2E_CHANGED times and in another
// order each time, if they are new or changed: a flake is found best while whoever made it
// still looks. All repetitions are made, whatever comes of the first ones.
func (e *Environment) again(ctx context.Context, ran report.Suite) error {
	since, base, err := e.left(ctx)
	if err != nil && e.Since == "" { // a copy without git, or one that is shallow
		e.Timeline.Say("E2E_CHANGED: %v", err)
		return nil
	}
	var lines map[string][]int
	if err == nil {
		lines, err = e.changedLines(ctx, ran.Name, base)
	}
	if err != nil {
		return fmt.Errorf("E2E_CHANGED: %w", err)
	}
	names, err := changedSpecs(e.Root, ran, lines)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		e.Timeline.Say("%s: no spec that ran is new or changed since %s", ran.Name, since)
		return nil
	}
	selected := SuiteConfig{Focus: report.Focus(ran.Title, names...), Procs: e.Config.Suite.Procs}
	var problems []error
	for i := range e.Changed {
		name := ran.Name + report.Changed + strconv.Itoa(i+1)
		err := e.step(ctx, Phase{RunSuite, name}, e.Timeouts.Suite, func(ctx context.Context, step *timeline.Step) error {
			_, err := e.ginkgo(ctx, step, ran.Name, name, selected, len(names))
			return err
		})
		problems = append(problems, err)
		var specs *SuiteError
		if err != nil && !errors.As(err, &specs) {
			break
		}
	}
	return errors.Join(problems...)
}

func (e *Environment) git(ctx context.Context, args ...string) (string, error) {
	return command.Output(ctx, e.adapters.Runner, append([]string{"git", "-C", e.Root, "-c", "core.quotePath=false"}, args...)...)
}

// left is the commit at which the checkout left the branch since.
func (e *Environment) left(ctx context.Context) (since, commit string, err error) {
	branches := []string{"origin/main", "main"}
	if e.Since != "" {
		branches = []string{e.Since}
	}
	for _, since = range branches {
		if commit, err = e.git(ctx, "merge-base", "HEAD", since); err == nil {
			return since, commit, nil
		}
	}
	return since, "", fmt.Errorf("%s: no commit in common: %w; fetch it with its history, or name another one in E2E_CHANGED_SINCE", since, err)
}

// changedLines are the lines of a suite's tests, by their files, that are new or changed since
// a commit, committed or not. Where lines were only removed, it is the line before.
func (e *Environment) changedLines(ctx context.Context, name, since string) (map[string][]int, error) {
	suite, err := e.suite(name)
	if err != nil {
		return nil, err
	}
	tests := path.Join(suite.Package, "*_test.go")
	diff, err := e.git(ctx, "diff", "--unified=0", "--no-prefix", "--no-color", "--no-ext-diff", since, "--", tests)
	if err != nil {
		return nil, err
	}
	untracked, err := e.git(ctx, "ls-files", "--others", "--exclude-standard", "--", tests)
	if err != nil {
		return nil, err
	}
	lines := map[string][]int{}
	for _, file := range strings.Fields(untracked) {
		text, err := os.ReadFile(filepath.Join(e.Root, file))
		if err != nil {
			return nil, err
		}
		for line := range strings.Count(string(text), "\n") {
			lines[file] = append(lines[file], line+1)
		}
	}
	file := ""
	for line := range strings.Lines(diff) {
		if name, ok := strings.CutPrefix(line, "+++ "); ok {
			file = strings.TrimSpace(name)
		}
		if found := hunk.FindStringSubmatch(line); found != nil {
			first, _ := strconv.Atoi(found[1])
			count, err := strconv.Atoi(found[2])
			if err != nil { // git says nothing of one line
				count = 1
			}
			for i := range max(1, count) {
				lines[file] = append(lines[file], first+i)
			}
		}
	}
	return lines, nil
}

// hunk is the head of a part of a diff: where the part begins as it is now, and its length.
var hunk = regexp.MustCompile(`^@@ -\S+ \+(\d+)(?:,(\d+))? @@`)

// changedSpecs are the names of the specs of a suite that ran and are made by lines, given by
// files below root. A line of a container that is none of the specs in it changes them all.
// What uses a function outside of all containers is not known.
func changedSpecs(root string, suite report.Suite, lines map[string][]int) ([]string, error) {
	changed := map[report.Place]bool{}
	for file, lines := range lines {
		file = filepath.Join(root, file)
		places := map[int]bool{}
		for _, spec := range suite.Specs {
			for _, place := range spec.Places {
				if place.File == file {
					places[place.Line] = true
				}
			}
		}
		if len(places) == 0 {
			continue // gone, or nothing of it ran
		}
		files := token.NewFileSet()
		syntax, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		inner := map[int]int{} // by line, where the innermost node begins that it is in
		ast.Inspect(syntax, func(node ast.Node) bool {
			if call, ok := node.(*ast.CallExpr); ok {
				from, to := files.Position(call.Pos()).Line, files.Position(call.End()).Line
				// The first on its line is the node, what else begins there is an argument.
				if places[from] && inner[from] != from {
					for line := from; line <= to; line++ {
						inner[line] = from
					}
				}
			}
			return true
		})
		for _, line := range lines {
			changed[report.Place{File: file, Line: inner[line]}] = true
		}
	}
	var names []string
	for _, spec := range suite.Specs {
		for _, place := range spec.Places {
			if changed[place] && !spec.Node {
				names = append(names, spec.Name)
				break
			}
		}
	}
	return names, nil
}
