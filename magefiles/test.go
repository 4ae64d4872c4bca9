//go:build mage

package main

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
)

// Test runs what needs no cluster.
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
