// Package coverage turns the counters that instrumented pods leave into a report,
// and refuses counters that do not tell the whole truth. Every pod has a folder of
// its own, so that a pod which ran and left nothing is seen.
//
// A statement is covered end to end, by the tests of its module that need no
// cluster, by both or by neither. Generated files, as Go marks them, are left out:
// nobody here decides what stands in them, and a generator's unused branches would
// hide those of the services. Only statements that are in the service's program
// count, so helpers of tests do not.
package coverage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/cover"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

// Service is one instrumented program.
type Service struct {
	Name    string // catalog name; its pods' folders lie in Raw
	Module  string // path of the module that is instrumented
	Package string // import path of the program; only packages at or below it count
	Tags    string // build tags of the program
	Raw     string // folder with one folder of counters a pod
	Out     string // folder that gets the report
	Since   time.Time
	Pods    []Pod    // those that the API server told of
	Tests   []string // folders of counters of tests; none if there are no such tests
}

// Files of a report in Service.Out. Paths inside open in the module.
const (
	ProfileFile   = "profile.out"   // what the pods ran
	ReportFile    = "report.html"   // the same, line by line
	TestsFile     = "tests.out"     // what the tests ran
	MergedFile    = "merged.out"    // what any of them ran
	MergedReport  = "merged.html"   // the same, line by line
	FunctionsFile = "functions.txt" // both, by function
	UnreachedFile = "unreached.txt" // functions that nothing reaches
)

// Report merges what the pods of a service and its tests left and writes the report
// of it. root is the module's folder. Counters that do not tell the whole truth are
// an error, and then there is no report.
func Report(ctx context.Context, runner command.Runner, root string, service Service) (report.Coverage, error) {
	result := report.Coverage{Service: service.Name, Tested: len(service.Tests) > 0}
	// A report that is there is of an earlier time.
	if err := os.RemoveAll(service.Out); err != nil {
		return result, err
	}
	var err error
	if result.Pods, err = check(service); err != nil {
		return result, err
	}
	if err := os.MkdirAll(service.Out, 0o755); err != nil {
		return result, err
	}
	r := reporter{Service: service, root: root, runner: runner}
	if err := r.report(ctx, &result); err != nil {
		// It must not be taken for the truth.
		return result, errors.Join(fmt.Errorf("coverage of %s: %w", service.Name, err), os.RemoveAll(service.Out))
	}
	return result, nil
}

type reporter struct {
	Service
	root   string
	runner command.Runner
}

func (r reporter) report(ctx context.Context, result *report.Coverage) error {
	dirs := make([]string, len(result.Pods))
	for i, pod := range result.Pods {
		dirs[i] = filepath.Join(r.Raw, pod)
	}
	endToEnd, err := r.profile(ctx, dirs, ProfileFile)
	if err != nil {
		return err
	}
	if err := r.complete(ctx, endToEnd); err != nil {
		return err
	}
	if err := r.html(ctx, ProfileFile, ReportFile); err != nil {
		return err
	}
	var tests []*cover.Profile
	if result.Tested {
		if tests, err = r.profile(ctx, r.Tests, TestsFile); err != nil {
			return err
		}
	}
	merged := merge(endToEnd, tests)
	if result.Tested {
		if err := r.write(MergedFile, profileText(merged)); err != nil {
			return err
		}
		if err := r.html(ctx, MergedFile, MergedReport); err != nil {
			return err
		}
	}
	functions, err := r.count(result, merged)
	if err != nil {
		return err
	}
	if result.Both+result.EndToEnd == 0 {
		return fmt.Errorf("not one of %d statements ran in a pod", result.Statements)
	}
	if err := r.write(FunctionsFile, functionsText(functions)); err != nil {
		return err
	}
	result.Unreached = unreached(functions)
	return r.write(UnreachedFile, functionsText(result.Unreached))
}

func (r reporter) write(name, text string) error {
	return os.WriteFile(filepath.Join(r.Out, name), []byte(text), 0o644)
}

// profile converts counters to the text that Go's tools read.
func (r reporter) profile(ctx context.Context, dirs []string, name string) ([]*cover.Profile, error) {
	path := filepath.Join(r.Out, name)
	// covdata splits its list at commas, and has no way to write one in a path: seen from the
	// checkout, a comma in the path to it is not in the list.
	inside := make([]string, len(dirs))
	for i, dir := range dirs {
		var err error
		if inside[i], err = filepath.Rel(r.root, dir); err != nil {
			return nil, err
		}
		if strings.Contains(inside[i], ",") {
			return nil, fmt.Errorf("%s: its path has a comma, which covdata takes for two paths; rename it", dir)
		}
	}
	if err := r.tool(ctx, nil, "go", "tool", "covdata", "textfmt", "-i="+strings.Join(inside, ","), "-o="+path); err != nil {
		return nil, err
	}
	return cover.ParseProfiles(path)
}

func (r reporter) html(ctx context.Context, profile, name string) error {
	return r.tool(ctx, nil, "go", "tool", "cover", "-html="+filepath.Join(r.Out, profile), "-o="+filepath.Join(r.Out, name))
}

func (r reporter) tool(ctx context.Context, stdout *strings.Builder, args ...string) error {
	cmd := command.Cmd{Args: args, Dir: r.root, Env: command.GoEnv("CGO_ENABLED=0")}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	return r.runner.Run(ctx, cmd)
}

// own tells whether a package is of the service.
func (s Service) own(path string) bool {
	return path == s.Package || strings.HasPrefix(path, s.Package+"/")
}

// complete refuses a profile that holds a package of another program, or lacks one
// of this.
func (r reporter) complete(ctx context.Context, profiles []*cover.Profile) error {
	held := map[string]bool{}
	for _, profile := range profiles {
		path := packageOf(profile.FileName)
		if !r.own(path) {
			return fmt.Errorf("holds package %s, which is not below %s: the image was built with another -coverpkg", path, r.Package)
		}
		held[path] = true
	}
	if len(profiles) == 0 {
		return errors.New("holds no statement at all: the image was built with another -coverpkg")
	}
	var out strings.Builder
	args := []string{"go", "list", "-deps", "-tags=" + r.Tags, "-f", "{{.ImportPath}}{{range .GoFiles}} {{.}}{{end}}", r.Package}
	if err := r.tool(ctx, &out, args...); err != nil {
		return err
	}
	var missing []string
	for line := range strings.Lines(out.String()) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !r.own(fields[0]) || held[fields[0]] {
			continue
		}
		counts, err := r.hasStatements(fields[0], fields[1:])
		if err != nil {
			return err
		}
		if counts {
			missing = append(missing, fields[0])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("lacks package %s, which is part of the program: the image was built with another -coverpkg", strings.Join(missing, ", "))
	}
	return nil
}

// source is where a file of a profile lies.
func (s Service) source(root, file string) string {
	return filepath.Join(root, filepath.FromSlash(strings.TrimPrefix(strings.TrimPrefix(file, s.Module), "/")))
}

func packageOf(file string) string { return file[:strings.LastIndex(file, "/")] }

// unreached are the functions that nothing reaches, the biggest first.
func unreached(functions []report.Function) []report.Function {
	none := slices.DeleteFunc(slices.Clone(functions), func(f report.Function) bool { return f.Neither() < f.Statements })
	slices.SortStableFunc(none, func(a, b report.Function) int { return b.Statements - a.Statements })
	return none
}
