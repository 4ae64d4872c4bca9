package checks_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/checks"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// checkout is one with a service, a suite and generated files, whose go command is a
// recorder's.
type checkout struct {
	checks.Checks
	progress bytes.Buffer
	cmds     []command.Cmd
	fails    map[string]error                         // by what a command line contains
	does     map[string]func(root string) (err error) // likewise
}

func newCheckout(t *testing.T) *checkout {
	t.Helper()
	c := &checkout{fails: map[string]error{}, does: map[string]func(string) error{}}
	c.Checks = checks.Checks{
		Root: t.TempDir(), Out: &c.progress, Progress: &c.progress, Suites: []string{"gateway"},
		Services: []checks.Service{{Name: "gateway", Package: "./docker/gateway", ImportPath: "x/docker/gateway"}},
		Runner:   &command.Recorder{Answer: c.answer},
	}
	filetest.Put(t, c.Root, "docker/gateway/main.go", "package main\n")
	filetest.Put(t, c.Root, "manifests/crds/crd.yaml", "kind: CustomResourceDefinition\n")
	filetest.Put(t, c.Root, ".github/workflows/e2e.yml", "name: e2e\n")
	return c
}

func (c *checkout) answer(cmd command.Cmd) error {
	c.cmds = append(c.cmds, cmd)
	line := strings.Join(cmd.Args, " ")
	for part, err := range c.fails {
		if strings.Contains(line, part) {
			return err
		}
	}
	for part, do := range c.does {
		if strings.Contains(line, part) {
			return do(c.Root)
		}
	}
	if cmd.Args[1] != "list" {
		return nil
	}
	text := "x/docker/gateway\nx/docker/gateway/api\nx/test/e2e/gateway\nx/test/infrastructure\n"
	if strings.Contains(line, "{{len") {
		text = "x/docker/gateway 1 0\nx/test/infrastructure 2 0\n"
		if slices.Contains(cmd.Args, "integration") {
			text = "x/docker/gateway 2 0\nx/test/infrastructure 2 0\n"
		}
	}
	_, err := fmt.Fprint(cmd.Stdout, text)
	return err
}

func (c *checkout) ran() []string {
	var lines []string
	for _, cmd := range c.cmds {
		lines = append(lines, strings.ReplaceAll(strings.Join(cmd.Args, " "), c.Root, "ROOT"))
	}
	return lines
}

func TestUnitTestsCountEachServiceByItselfAndLeaveSuitesOut(t *testing.T) {
	c := newCheckout(t)
	if err := c.Unit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"go list -tags mage -f {{.ImportPath}} ./...",
		"go test -race -shuffle=on -tags mage -cover -coverpkg=./docker/gateway/... x/docker/gateway x/docker/gateway/api -args -test.gocoverdir=ROOT/.e2e/coverage/unit/gateway",
		"go test -race -shuffle=on -tags mage x/test/infrastructure",
	}
	if got := c.ran(); !slices.Equal(got, want) {
		t.Errorf("ran\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestIntegrationTestsAreThoseWithTheTag(t *testing.T) {
	c := newCheckout(t)
	if err := c.Integration(t.Context(), []string{"E2E_TEST_REDIS_ADDR=127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	last := c.cmds[len(c.cmds)-1]
	if got := c.ran()[len(c.cmds)-1]; !strings.Contains(got, "-tags integration") || strings.Contains(got, "x/test/infrastructure") {
		t.Errorf("ran %s", got)
	}
	if !slices.Contains(last.Env, "E2E_TEST_REDIS_ADDR=127.0.0.1:1") {
		t.Errorf("environment %q", last.Env)
	}
}

func TestFailedTestsFailAfterAllHaveRunAndCountNothing(t *testing.T) {
	c := newCheckout(t)
	c.fails["-cover "] = &command.Error{Args: []string{"go"}, ExitCode: 1, Err: errors.New("exit status 1")}
	if err := c.Unit(t.Context()); err == nil || err.Error() != "tests failed; see above" {
		t.Errorf("got %v", err)
	}
	if got := c.ran(); len(got) != 3 {
		t.Errorf("ran %q, want the others too", got)
	}
	var said []string
	dirs, err := c.Counters("gateway", func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	if err != nil || len(dirs) != 0 || len(said) != 2 || !strings.Contains(said[0], "have not passed here; run: go tool mage test:unit") {
		t.Errorf("got %q, said %q, %v", dirs, said, err)
	}
}

func TestCountersAreOfThisSource(t *testing.T) {
	c := newCheckout(t)
	if err := c.Unit(t.Context()); err != nil {
		t.Fatal(err)
	}
	quiet := func(string, ...any) {}
	if dirs, err := c.Counters("gateway", quiet); err != nil || len(dirs) != 1 {
		t.Errorf("got %q, %v", dirs, err)
	}
	filetest.Put(t, c.Root, "docker/gateway/main.go", "package main // changed\n")
	var said string
	dirs, err := c.Counters("gateway", func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
	if err != nil || len(dirs) != 0 || !strings.Contains(said, "older source") {
		t.Errorf("got %q, said %q, %v", dirs, said, err)
	}
}

func TestLintRunsBothLintersAndTheGenerators(t *testing.T) {
	c := newCheckout(t)
	if err := c.Lint(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"go tool -modfile=.tools/go.mod golangci-lint run ./...",
		"go tool -modfile=.tools/go.mod actionlint -shellcheck= -pyflakes= ROOT/.github/workflows/e2e.yml",
		"go generate ./docker/...",
	}
	if got := c.ran(); !slices.Equal(got, want) {
		t.Errorf("ran\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLintFailsWhereGeneratedFilesAreOutOfDate(t *testing.T) {
	for _, file := range []string{"docker/gateway/api.gen.go", "docker/gateway/zz_generated.deepcopy.go", "manifests/crds/crd.yaml"} {
		t.Run(file, func(t *testing.T) {
			c := newCheckout(t)
			c.does["go generate"] = func(string) error { filetest.Put(t, c.Root, file, "new\n"); return nil }
			if err := c.Lint(t.Context()); err == nil || !strings.Contains(err.Error(), "out of date") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTheUsersFlagsAndWorkspaceAreLeftOut(t *testing.T) {
	c := newCheckout(t)
	for name, check := range map[string]func() error{
		"unit":        func() error { return c.Unit(t.Context()) },
		"integration": func() error { return c.Integration(t.Context(), nil) },
		"lint":        func() error { return c.Lint(t.Context()) },
		"generate":    func() error { return c.Generate(t.Context()) },
	} {
		c.cmds = nil
		if err := check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, cmd := range c.cmds {
			if !slices.Contains(cmd.Env, "GOWORK=off") || !slices.Contains(cmd.Env, "GOFLAGS=") {
				t.Errorf("%s: %q runs with %q", name, cmd.Args, cmd.Env)
			}
		}
	}
}
