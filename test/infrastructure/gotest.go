package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/services"
)

// The tiers of tests that need no cluster. Each leaves the counters of the services'
// packages for the coverage report.
const (
	unit        = "unit"
	integration = "integration"
)

// UnitTests runs every test that needs nothing but Go, with the race detector and
// in random order. The suites of the catalog are left out: they need an
// environment.
func UnitTests(ctx context.Context, plan *Plan, out, progress io.Writer) error {
	packages, err := plan.testPackages(ctx)
	if err != nil {
		return err
	}
	return plan.goTest(ctx, out, progress, nil, unit, "mage", packages)
}

// IntegrationTests runs the tests with the tag integration against a PostgreSQL, a
// Redis and a Kubernetes API server, real ones, that it starts on free ports of
// 127.0.0.1 and stops.
func IntegrationTests(ctx context.Context, plan *Plan, out, progress io.Writer) (err error) {
	packages, err := plan.integrationPackages(ctx)
	if err != nil {
		return err
	}
	runner := command.Local{}
	assets := filepath.Join(plan.Root, ".e2e", "build", "envtest")
	fmt.Fprintf(progress, "compiling kube-apiserver and etcd %s (minutes the first time on a machine, seconds after)\n", plan.Kubernetes)
	if err := bootstrap.APIServer(ctx, runner, filepath.Join(plan.Root, "docker", plan.Node), assets); err != nil {
		return err
	}
	servers, err := services.Start(ctx, services.Options{
		Runner: runner, APIServer: assets, Dir: filepath.Join(plan.Root, ".e2e", "servers"),
		Container: func(ctx context.Context, name string) (string, string, error) {
			return plan.obtained(ctx, name, progress)
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop(context.WithoutCancel(ctx))) }()
	return plan.goTest(ctx, out, progress, servers.Env(), integration, "integration", packages)
}

// obtained is the engine and the reference of a third-party image, which is got
// first if need be: a host without the servers' programs runs them in containers.
func (p *Plan) obtained(ctx context.Context, name string, progress io.Writer) (engine, ref string, err error) {
	engine, _, err = chooseEngine(ctx, p)
	if err != nil {
		return "", "", err
	}
	own := *p
	own.Evidence = p.cluster().Path("servers", "obtain-"+name)
	env, err := OpenWith(ctx, &own, Screen{Out: progress}, RealAdapters(p, engine))
	if err != nil {
		return "", "", err
	}
	if err := env.Do(ctx, Phase{BuildImage, name}); err != nil {
		return "", "", err
	}
	ref, err = env.Ref(name)
	return engine, ref, err
}

// goTest runs the tests of packages, each service's by themselves, because they count
// what they run of that service. The fingerprint of the source is written last: it
// says that the counters are complete, and of what.
func (p *Plan) goTest(ctx context.Context, out, progress io.Writer, env []string, tier, tags string, packages []string) error {
	source, err := p.goSource(true)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(p.tierDir(tier)); err != nil {
		return err
	}
	base := []string{"go", "test", "-race", "-shuffle=on", "-tags", tags}
	rest := slices.Clone(packages)
	var runs [][]string
	for _, spec := range p.covered() {
		of := func(path string) bool {
			return path == p.importPath(spec) || strings.HasPrefix(path, p.importPath(spec)+"/")
		}
		own := slices.DeleteFunc(slices.Clone(packages), func(path string) bool { return !of(path) })
		rest = slices.DeleteFunc(rest, of)
		if len(own) == 0 {
			continue
		}
		dir := filepath.Join(p.tierDir(tier), spec.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		runs = append(runs, slices.Concat(base, []string{"-cover", "-coverpkg=" + spec.Package + "/..."}, own, []string{"-args", "-test.gocoverdir=" + dir}))
	}
	if len(rest) > 0 {
		runs = append(runs, slices.Concat(base, rest))
	}
	passed := true
	for _, args := range runs {
		err := command.Local{}.Run(ctx, command.Cmd{
			Args: args, Dir: p.Root, Env: append([]string{"GOFLAGS=", "GOWORK=off", "CGO_ENABLED=1"}, env...), Stdout: out, Stderr: progress,
		})
		var failed *command.Error
		if errors.As(err, &failed) && failed.ExitCode > 0 && ctx.Err() == nil {
			passed = false
		} else if err != nil {
			return err
		}
	}
	if !passed {
		return errors.New("tests failed; see above")
	}
	return os.WriteFile(p.sourceFile(tier), []byte(source), 0o644)
}

// tierDir is where a tier leaves its counters, in a folder a service. They are of no
// cluster.
func (p *Plan) tierDir(tier string) string { return filepath.Join(p.Root, ".e2e", "coverage", tier) }

func (p *Plan) sourceFile(tier string) string { return filepath.Join(p.tierDir(tier), "source") }

// testCounters are the folders with what the tests of a service have counted. Those
// of other source than this are left out, as are those of tests that failed, and one
// line says so.
func (p *Plan) testCounters(spec ImageSpec, say func(format string, args ...any)) ([]string, error) {
	source, err := p.goSource(true)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, tier := range []string{unit, integration} {
		was, err := os.ReadFile(p.sourceFile(tier))
		dir := filepath.Join(p.tierDir(tier), spec.Name)
		_, dirErr := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			say("%s: without %s tests, which have not passed here; run: go tool mage test:%s", spec.Name, tier, tier)
		case err != nil:
			return nil, err
		case string(was) != source:
			say("%s: without %s tests, whose counters are of other source; run: go tool mage test:%s", spec.Name, tier, tier)
		case dirErr == nil:
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// goSource is a fingerprint of the Go files below docker/, with or without tests.
func (p *Plan) goSource(tests bool) (string, error) {
	inputs := image.NewInputs()
	root := os.DirFS(filepath.Join(p.Root, "docker"))
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.HasSuffix(path, ".go") && (tests || !strings.HasSuffix(path, "_test.go")) {
			inputs.File(root, path)
		}
		return err
	})
	return image.Image{Inputs: inputs}.Ref(), errors.Join(err, inputs.Err())
}

// testPackages are all packages but the suites, which need an environment.
func (p *Plan) testPackages(ctx context.Context) ([]string, error) {
	return p.list(ctx, "mage", "{{.ImportPath}}", func(line string) bool {
		return !slices.ContainsFunc(p.Suites, func(suite Suite) bool { return strings.HasSuffix(line, "/test/e2e/"+suite.Name) })
	})
}

// integrationPackages are those with a test file that has the tag integration.
func (p *Plan) integrationPackages(ctx context.Context) ([]string, error) {
	plain, err := p.list(ctx, "", "{{.ImportPath}} {{len .TestGoFiles}} {{len .XTestGoFiles}}", nil)
	if err != nil {
		return nil, err
	}
	tagged, err := p.list(ctx, "integration", "{{.ImportPath}} {{len .TestGoFiles}} {{len .XTestGoFiles}}", nil)
	if err != nil {
		return nil, err
	}
	var packages []string
	for _, line := range tagged {
		if !slices.Contains(plain, line) {
			path, _, _ := strings.Cut(line, " ")
			packages = append(packages, path)
		}
	}
	return packages, nil
}

func (p *Plan) list(ctx context.Context, tags, format string, keep func(string) bool) ([]string, error) {
	var text strings.Builder
	err := command.Local{}.Run(ctx, command.Cmd{
		Args: []string{"go", "list", "-tags", tags, "-f", format, "./..."}, Dir: p.Root,
		Env: []string{"GOFLAGS=", "GOWORK=off"}, Stdout: &text,
	})
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(text.String()) {
		if line = strings.TrimSpace(line); keep == nil || keep(line) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// tools is the second module file, of linters and generators.
const tools = "-modfile=.tools/go.mod"

// Lint runs golangci-lint and checks that generated files are what the generators
// make.
func Lint(ctx context.Context, plan *Plan, out, progress io.Writer) error {
	fmt.Fprintln(progress, "running golangci-lint (its first run on a machine compiles it, some minutes)")
	err := command.Local{}.Run(ctx, command.Cmd{
		Args: []string{"go", "tool", tools, "golangci-lint", "run", "./..."}, Dir: plan.Root, Stdout: out, Stderr: progress,
	})
	if err != nil {
		return fmt.Errorf("golangci-lint: %w", err)
	}
	before, err := plan.generated()
	if err != nil {
		return err
	}
	if err := Generate(ctx, plan, progress); err != nil {
		return err
	}
	after, err := plan.generated()
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("generated files were not current and have been made anew; commit them (go tool mage generate)")
	}
	return nil
}

// Generate makes the generated Go code and the CRDs anew.
func Generate(ctx context.Context, plan *Plan, progress io.Writer) error {
	fmt.Fprintln(progress, "generating code and CRDs")
	return command.Local{}.Run(ctx, command.Cmd{Args: []string{"go", "generate", "./docker/..."}, Dir: plan.Root, Stdout: progress, Stderr: progress})
}

// generated is a fingerprint of every generated file.
func (p *Plan) generated() (string, error) {
	inputs := image.NewInputs()
	root := os.DirFS(p.Root)
	for _, dir := range []string{"docker", "manifests/crds"} {
		err := fs.WalkDir(root, dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && (strings.HasSuffix(path, ".gen.go") || strings.HasPrefix(entry.Name(), "zz_generated.") || strings.HasPrefix(path, "manifests/crds/")) {
				inputs.File(root, path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return image.Image{Inputs: inputs}.Ref(), inputs.Err()
}
