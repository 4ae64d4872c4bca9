//go:build mage

//mage:multiline

package main

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// Doctor shows what this machine has and lacks for the end-to-end run.
func Doctor(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.Doctor(ctx, plan, os.Stdout, screen.Color(os.Stdout, os.Getenv))
}

// Setup installs what is missing on this machine, where it may.
func Setup(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.Setup(ctx, plan, os.Stderr)
}

// Lint checks the code with golangci-lint and that generated files are current.
func Lint(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.Lint(ctx, plan, os.Stdout, os.Stderr)
}

// Generate makes the generated code, the CRD and the clients anew.
func Generate(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.Generate(ctx, plan, os.Stderr)
}

// Ci runs what CI runs: set-up, lint, all tests, both suites, and the Gateway's with coverage.
func Ci(ctx context.Context) {
	mg.SerialCtxDeps(ctx, Setup, Doctor, Lint, Test.All, E2e.All, E2e.GatewayCoverage)
}

// Clean removes this checkout's clusters, its evidence and the images it built.
func Clean(ctx context.Context) error {
	for _, variant := range []infrastructure.Variant{infrastructure.Standard, infrastructure.Coverage} {
		env, err := environment(ctx, string(variant))
		if err != nil {
			return err
		}
		if err := env.DeleteCluster(ctx); err != nil {
			return err
		}
	}
	env, err := environment(ctx, string(infrastructure.Standard))
	if err != nil {
		return err
	}
	return env.Clean(ctx)
}
