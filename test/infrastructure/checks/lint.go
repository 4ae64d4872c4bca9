package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
)

// tools is the second module file, of linters and generators.
const tools = "-modfile=.tools/go.mod"

// Lint runs golangci-lint over the code and actionlint over the workflows, and checks
// that generated files are what the generators make.
func (c Checks) Lint(ctx context.Context) error {
	fmt.Fprintln(c.Progress, "running golangci-lint (its first run on a machine compiles it, which takes minutes)")
	if err := c.run(ctx, nil, c.Out, c.Progress, "tool", tools, "golangci-lint", "run", "./..."); err != nil {
		return fmt.Errorf("golangci-lint: %w", err)
	}
	if err := c.workflows(ctx); err != nil {
		return fmt.Errorf("actionlint: %w", err)
	}
	before, err := c.generated()
	if err != nil {
		return err
	}
	if err := c.Generate(ctx); err != nil {
		return err
	}
	after, err := c.generated()
	if err != nil {
		return err
	}
	if before != after {
		return errors.New("generated files were out of date and have been generated again; commit them (go tool mage generate)")
	}
	return nil
}

// workflows checks those of GitHub, without the linters for shell and Python that a
// machine may or may not have.
func (c Checks) workflows(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(c.Root, ".github", "workflows", "*.yml"))
	if err != nil || len(files) == 0 {
		return err
	}
	fmt.Fprintln(c.Progress, "running actionlint")
	return c.run(ctx, nil, c.Out, c.Progress, append([]string{"tool", tools, "actionlint", "-shellcheck=", "-pyflakes="}, files...)...)
}

// Generate generates Go code and CRDs.
func (c Checks) Generate(ctx context.Context) error {
	fmt.Fprintln(c.Progress, "generating code and CRDs")
	return c.run(ctx, nil, c.Progress, c.Progress, "generate", "./docker/...")
}

// generated is a fingerprint of every generated file.
func (c Checks) generated() (string, error) {
	root := os.DirFS(c.Root)
	return fingerprint.New().Dir(root, "manifests/crds", nil).Dir(root, "docker", func(file string) bool {
		return strings.HasSuffix(file, ".gen.go") || strings.HasPrefix(path.Base(file), "zz_generated.")
	}).Sum()
}
