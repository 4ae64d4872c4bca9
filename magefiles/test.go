//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
)

// Test runs what needs no cluster, and shows that the suites can fail.
type Test mg.Namespace

// All runs the unit and the integration tests.
func (Test) All(ctx context.Context) { mg.SerialCtxDeps(ctx, Test.Unit, Test.Integration) }

// Unit runs the unit tests, with the race detector and in random order.
func (Test) Unit(ctx context.Context) error { return kubernaut.UnitTests(ctx) }

// Integration runs the tests against PostgreSQL, Redis and an API server.
func (Test) Integration(ctx context.Context) error { return kubernaut.IntegrationTests(ctx) }

// Page looks at the page of a run in a Chromium, on a phone and on a desk; pictures are left.
func (Test) Page(ctx context.Context) error { return kubernaut.BrowserTests(ctx) }

// Mutants builds defects into the services, which the suites have to notice.
//
// It deploys what is not there, and as e2e:all does it removes the cluster at the end,
// unless E2E_KEEP says otherwise. E2E_MUTANTS selects some of them.
func (Test) Mutants(ctx context.Context) error {
	return kubernaut.In(infrastructure.Standard).Program(ctx, "mutants")
}
