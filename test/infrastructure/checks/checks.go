// Package checks runs what is checked without a cluster: unit and integration tests,
// linters and generators. The tests leave the counters of the services' packages for
// the coverage report.
package checks

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
)

// Checks are those of one checkout.
type Checks struct {
	Root     string         // the checkout, absolute
	Runner   command.Runner // runs go; nil means this machine
	Out      io.Writer      // what tests and linters print
	Progress io.Writer      // what is being done, and what went wrong
	Suites   []string       // folders below test/e2e whose tests need an environment
	Services []Service      // those whose coverage is taken
}

// Service is a program whose coverage is taken.
type Service struct {
	Name       string
	Package    string // as the go command takes it: ./docker/gateway
	ImportPath string
}

// run runs the go command as the checkout's own module has it: flags and workspaces
// of the user's belong to other work.
func (c Checks) run(ctx context.Context, env []string, stdout, stderr io.Writer, args ...string) error {
	runner := c.Runner
	if runner == nil {
		runner = command.Local{}
	}
	return runner.Run(ctx, command.Cmd{
		Args: append([]string{"go"}, args...), Dir: c.Root, Env: command.GoEnv(env...),
		Stdout: stdout, Stderr: stderr,
	})
}

// Source is a fingerprint of the Go files of the services, with or without tests.
func Source(root string, tests bool) (string, error) {
	return fingerprint.New().Dir(os.DirFS(root), "docker", func(path string) bool {
		return strings.HasSuffix(path, ".go") && (tests || !strings.HasSuffix(path, "_test.go"))
	}).Sum()
}

// tierDir is where a tier of tests leaves its counters, in a folder a service. They
// are of no cluster.
func (c Checks) tierDir(tier string) string {
	return checkout.Checkout{Root: c.Root}.Path("coverage", tier)
}

// sourceFile says of what source the counters are, once they are complete.
func (c Checks) sourceFile(tier string) string { return filepath.Join(c.tierDir(tier), "source") }
