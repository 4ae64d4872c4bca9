//go:build mage

//mage:multiline

// The targets of kubernaut-e2e: from a checkout to a proven system. What must come before
// what is in the catalog and the manifests; package targets has Mage do it.
package main

import (
	"context"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/targets"
)

var (
	kubernaut = targets.Of(infrastructure.Kubernaut())
	covered   = kubernaut.In(infrastructure.Coverage)
)

// Doctor shows what this machine has and lacks for the end-to-end run.
func Doctor(ctx context.Context) error { return kubernaut.Doctor(ctx) }

// Setup installs what is missing on this machine, where it may.
func Setup(ctx context.Context) error { return kubernaut.Setup(ctx) }

// Lint checks the code with golangci-lint and that generated files are current.
func Lint(ctx context.Context) error { return kubernaut.Lint(ctx) }

// Generate makes the generated code, the CRD and the clients anew.
func Generate(ctx context.Context) error { return kubernaut.Generate(ctx) }

// Ci runs what CI runs: set-up, lint, all tests, both suites, and the Gateway's with coverage.
func Ci(ctx context.Context) {
	mg.SerialCtxDeps(ctx, Setup, Doctor, Lint, Test.All, E2e.All, E2e.GatewayCoverage)
}

// Plan prints what a run of all suites would do now, phase by phase, and why; it does nothing.
//
// With the seconds that each phase took last time and the longest way through them.
func Plan(ctx context.Context) error { return kubernaut.Plan(ctx) }

// Watch runs a suite again whenever something has changed, e.g. watch gateway.
//
// It builds and rolls out what the change is of, runs what E2E_FOCUS selects or else what
// failed last, and prints one line; Ctrl-C ends it. The cluster is kept.
func Watch(ctx context.Context, suite string) error { return kubernaut.Watch(ctx, suite) }

// Report opens the page of the newest run, and prints where it is.
func Report(ctx context.Context) error { return kubernaut.Report(ctx) }

// Flakes prints which specs failed and passed on the same content, how often, and beside what.
//
// It reads the results that runs of suites have left in the user's cache, or in E2E_HISTORY.
func Flakes(ctx context.Context) error { return kubernaut.Flakes(ctx) }

// Clean removes this checkout's clusters, its evidence and what it built.
//
// What takes long to make and other checkouts share stays, as the node image does;
// E2E_CLEAN=all removes that too, clusters whose checkouts are gone, and the memory of flakes.
func Clean(ctx context.Context) error { return kubernaut.Clean(ctx) }
