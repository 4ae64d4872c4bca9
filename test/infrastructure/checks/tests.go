package checks

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// The tiers of tests that need no cluster.
const (
	unit        = "unit"
	integration = "integration"
)

// Unit runs every test that needs nothing but Go, with the race detector and in
// random order. Suites are left out: they need an environment.
func (c Checks) Unit(ctx context.Context) error {
	packages, err := c.list(ctx, "mage", "{{.ImportPath}}")
	if err != nil {
		return err
	}
	packages = slices.DeleteFunc(packages, func(path string) bool {
		return slices.ContainsFunc(c.Suites, func(suite string) bool { return strings.HasSuffix(path, "/test/e2e/"+suite) })
	})
	return c.test(ctx, nil, unit, "mage", packages)
}

// Integration runs the tests with the tag integration, with env added to the
// environment: it tells them where the servers are that they need.
func (c Checks) Integration(ctx context.Context, env []string) error {
	packages, err := c.tagged(ctx, "integration")
	if err != nil {
		return err
	}
	return c.test(ctx, env, integration, "integration", packages)
}

// Browser runs the tests with the tag browser, which look at pages on a screen. The pictures
// that they take lie in dir.
func (c Checks) Browser(ctx context.Context, dir string) error {
	packages, err := c.tagged(ctx, "browser")
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	return c.run(ctx, nil, c.Out, c.Progress, append([]string{"test", "-tags", "browser", "-run", "Screen", "-artifacts", "-outputdir", dir}, packages...)...)
}

// test runs the tests of packages, each service's by themselves, because they count
// what they run of that service. The fingerprint of the source is written last: it
// says that the counters are complete, and of what.
func (c Checks) test(ctx context.Context, env []string, tier, tags string, packages []string) error {
	source, err := Source(c.Root, true)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(c.tierDir(tier)); err != nil {
		return err
	}
	base := []string{"test", "-race", "-shuffle=on", "-tags", tags}
	rest := slices.Clone(packages)
	var runs [][]string
	for _, service := range c.Services {
		of := func(path string) bool {
			return path == service.ImportPath || strings.HasPrefix(path, service.ImportPath+"/")
		}
		own := slices.DeleteFunc(slices.Clone(packages), func(path string) bool { return !of(path) })
		rest = slices.DeleteFunc(rest, of)
		if len(own) == 0 {
			continue
		}
		dir := filepath.Join(c.tierDir(tier), service.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		runs = append(runs, slices.Concat(base, []string{"-cover", "-coverpkg=" + service.Package + "/..."}, own, []string{"-args", "-test.gocoverdir=" + dir}))
	}
	if len(rest) > 0 {
		runs = append(runs, slices.Concat(base, rest))
	}
	passed := true
	for _, args := range runs {
		// The race detector needs cgo.
		err := c.run(ctx, append([]string{"CGO_ENABLED=1", command.Race()}, env...), c.Out, c.Progress, args...)
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
	return os.WriteFile(c.sourceFile(tier), []byte(source), 0o644)
}

// Counters are the folders with what the tests of a service have counted. Those of
// tests that failed, or whose source has changed since, are left out, and say gets
// one line about it.
func (c Checks) Counters(service string, say func(format string, args ...any)) ([]string, error) {
	source, err := Source(c.Root, true)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, tier := range []string{unit, integration} {
		was, err := os.ReadFile(c.sourceFile(tier))
		dir := filepath.Join(c.tierDir(tier), service)
		_, dirErr := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			say("%s: without %s tests, which have not passed here; run: go tool mage test:%s", service, tier, tier)
		case err != nil:
			return nil, err
		case string(was) != source:
			say("%s: without %s tests, whose counters are of an older source; run: go tool mage test:%s", service, tier, tier)
		case dirErr == nil:
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// tagged are the packages with a test file that has the tag.
func (c Checks) tagged(ctx context.Context, tag string) ([]string, error) {
	const files = "{{.ImportPath}} {{len .TestGoFiles}} {{len .XTestGoFiles}}"
	plain, err := c.list(ctx, "", files)
	if err != nil {
		return nil, err
	}
	tagged, err := c.list(ctx, tag, files)
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

// list is a line for each package of the checkout, in go list's format.
func (c Checks) list(ctx context.Context, tags, format string) ([]string, error) {
	var text strings.Builder
	if err := c.run(ctx, nil, &text, nil, "list", "-tags", tags, "-f", format, "./..."); err != nil {
		return nil, err
	}
	return strings.FieldsFunc(text.String(), func(r rune) bool { return r == '\n' }), nil
}
