//go:build mage

package main

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/mutants"
)

// Test runs what needs no cluster, and shows that the suites can fail.
type Test mg.Namespace

// All runs the unit and the integration tests.
func (Test) All(ctx context.Context) {
	mg.SerialCtxDeps(ctx, Test.Unit, Test.Integration)
}

// Unit runs the unit tests, with the race detector and in random order.
func (Test) Unit(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.UnitTests(ctx, plan, os.Stdout, os.Stderr)
}

// Integration runs the tests against PostgreSQL, Redis and an API server.
func (Test) Integration(ctx context.Context) error {
	plan, err := plan("")
	if err != nil {
		return err
	}
	return infrastructure.IntegrationTests(ctx, plan, os.Stdout, os.Stderr)
}

// Mutants builds defects into the services, which the suites have to notice.
//
// It deploys what is not there, and as e2e:all does it removes the cluster at the end,
// unless E2E_KEEP says otherwise. E2E_MUTANTS selects some of them.
func (Test) Mutants(ctx context.Context) error {
	variant := string(infrastructure.Standard)
	return end2end(ctx, variant, mg.F(testMutants, variant))
}

func testMutants(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, forEach(buildSuite, variant, services)...)
	mg.CtxDeps(ctx, mg.F(deploySenders, variant))
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return mutants.Run(ctx, env, os.Stdout)
}
