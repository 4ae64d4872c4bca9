// Package coverage turns the counters that instrumented pods leave into a report,
// and refuses counters that do not tell the whole truth. Every pod has a folder of
// its own, so that a pod which ran and left nothing is seen.
package coverage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/cover"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Service is one instrumented program.
type Service struct {
	Name    string // catalog name; its pods' folders lie in Raw
	Package string // import path; only packages at or below it may be in its counters
	Raw     string // folder with one folder of counters a pod
	Out     string // folder that gets profile.out, report.html, functions.txt
}

// Result is the coverage of one service.
type Result struct {
	Service    string    `json:"service"`
	Pods       []string  `json:"pods"`
	Statements int       `json:"statements"`
	Covered    int       `json:"covered"`
	Packages   []Package `json:"packages"` // sorted by path
}

// Package is the coverage of one package of a service.
type Package struct {
	Path       string `json:"path"`
	Statements int    `json:"statements"`
	Covered    int    `json:"covered"`
}

// Percent is the share of statements that ran, 0 to 100.
func (r Result) Percent() float64 { return percent(r.Covered, r.Statements) }

// Percent is the share of statements that ran, 0 to 100.
func (p Package) Percent() float64 { return percent(p.Covered, p.Statements) }

func percent(covered, statements int) float64 {
	if statements == 0 {
		return 0
	}
	return 100 * float64(covered) / float64(statements)
}

// Report merges what the pods of a service left and writes its report. exits tells
// the exit code of each pod that is known to have ended, for the error of one that
// left nothing.
func Report(ctx context.Context, runner command.Runner, root string, service Service, exits map[string]int) (Result, error) {
	result := Result{Service: service.Name}
	pods, err := checkPods(service, exits)
	if err != nil {
		return result, err
	}
	result.Pods = pods
	if err := os.MkdirAll(service.Out, 0o755); err != nil {
		return result, err
	}
	dirs := make([]string, len(pods))
	for i, pod := range pods {
		dirs[i] = filepath.Join(service.Raw, pod)
	}
	profile := filepath.Join(service.Out, "profile.out")
	for _, args := range [][]string{
		{"go", "tool", "covdata", "textfmt", "-i=" + strings.Join(dirs, ","), "-o=" + profile},
		{"go", "tool", "cover", "-html=" + profile, "-o=" + filepath.Join(service.Out, "report.html")},
	} {
		if err := runner.Run(ctx, command.Cmd{Args: args, Dir: root}); err != nil {
			return result, fmt.Errorf("coverage of %s: %w", service.Name, err)
		}
	}
	functions, err := command.Output(ctx, runner, "go", "-C", root, "tool", "cover", "-func="+profile)
	if err != nil {
		return result, fmt.Errorf("coverage of %s: %w", service.Name, err)
	}
	if err := os.WriteFile(filepath.Join(service.Out, "functions.txt"), []byte(functions+"\n"), 0o644); err != nil {
		return result, err
	}
	profiles, err := cover.ParseProfiles(profile)
	if err != nil {
		return result, fmt.Errorf("coverage of %s: %w", service.Name, err)
	}
	return count(result, service, profiles)
}

// checkPods returns the pods of the service, after checking that each left both
// files of a process that ended in order: covmeta is written when it starts,
// covcounters when it exits.
func checkPods(service Service, exits map[string]int) ([]string, error) {
	entries, err := os.ReadDir(service.Raw)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var pods []string
	var problems []error
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		pod := entry.Name()
		files, err := os.ReadDir(filepath.Join(service.Raw, pod))
		if err != nil {
			return nil, err
		}
		meta, counters := 0, 0
		for _, file := range files {
			switch {
			case strings.HasPrefix(file.Name(), "covmeta."):
				meta++
			case strings.HasPrefix(file.Name(), "covcounters."):
				counters++
			}
		}
		how := "how it ended is not known"
		if code, ok := exits[pod]; ok {
			how = fmt.Sprintf("exit code %d", code)
		}
		switch {
		case meta == 0 && counters == 0:
			problems = append(problems, fmt.Errorf("Pod %s (%s): ran and wrote nothing: its image was built without -cover, GOCOVERDIR is not set, or its volume cannot be written", pod, how))
		case counters == 0:
			problems = append(problems, fmt.Errorf("Pod %s (%s): wrote covmeta but no covcounters: it was killed before it could end in order", pod, how))
		case meta == 0:
			problems = append(problems, fmt.Errorf("Pod %s (%s): wrote covcounters but no covmeta: its folder was emptied while it ran", pod, how))
		default:
			pods = append(pods, pod)
		}
	}
	if len(pods) == 0 && len(problems) == 0 {
		problems = append(problems, errors.New("no pod has a folder: none ran, or its manifest has no coverage volume"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("coverage of %s: %w", service.Name, err)
	}
	return pods, nil
}

// count adds up the statements of the profiles by package.
func count(result Result, service Service, profiles []*cover.Profile) (Result, error) {
	packages := map[string]*Package{}
	for _, profile := range profiles {
		path := profile.FileName[:strings.LastIndex(profile.FileName, "/")]
		if path != service.Package && !strings.HasPrefix(path, service.Package+"/") {
			return result, fmt.Errorf("coverage of %s: holds package %s, which is not below %s", service.Name, path, service.Package)
		}
		pkg := packages[path]
		if pkg == nil {
			pkg = &Package{Path: path}
			packages[path] = pkg
		}
		for _, block := range profile.Blocks {
			pkg.Statements += block.NumStmt
			if block.Count > 0 {
				pkg.Covered += block.NumStmt
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		result.Packages = append(result.Packages, *packages[path])
		result.Statements += packages[path].Statements
		result.Covered += packages[path].Covered
	}
	if result.Covered == 0 {
		return result, fmt.Errorf("coverage of %s: not one of %d statements ran", service.Name, result.Statements)
	}
	return result, nil
}

// Markdown is a table of the results, for a CI summary.
func Markdown(results []Result) string {
	var b strings.Builder
	b.WriteString("| package | statements | covered | % |\n|---|---:|---:|---:|\n")
	for _, result := range results {
		fmt.Fprintf(&b, "| **%s** (%d pods) | %d | %d | **%.1f** |\n", result.Service, len(result.Pods), result.Statements, result.Covered, result.Percent())
		for _, pkg := range result.Packages {
			fmt.Fprintf(&b, "| %s | %d | %d | %.1f |\n", pkg.Path, pkg.Statements, pkg.Covered, pkg.Percent())
		}
	}
	return b.String()
}
