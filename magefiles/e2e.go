//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// E2e takes the checkout to a proven system: build, cluster, load, deploy, suite.
type E2e mg.Namespace

// Gateway tests the Gateway end to end on a real cluster.
func (E2e) Gateway(ctx context.Context) error { return kubernaut.EndToEnd(ctx, "gateway") }

// GatewayCoverage is e2e:gateway with Go coverage taken from the running pods.
func (E2e) GatewayCoverage(ctx context.Context) error { return covered.EndToEnd(ctx, "gateway") }

// DataStorage tests the DataStorage by itself, on a cluster without a Gateway.
func (E2e) DataStorage(ctx context.Context) error { return kubernaut.EndToEnd(ctx, "datastorage") }

// DataStorageCoverage is e2e:dataStorage with Go coverage taken from the running pods.
func (E2e) DataStorageCoverage(ctx context.Context) error {
	return covered.EndToEnd(ctx, "datastorage")
}

// All tests both services on one cluster, building and creating once.
func (E2e) All(ctx context.Context) error { return kubernaut.EndToEnd(ctx) }

// Soak runs both suites so many times on one cluster, and prints which specs are flaky.
//
// In another order each time; E2E_SOAK_LOAD=1 keeps all cores busy meanwhile. A red round is
// counted and ends nothing; Ctrl-C ends it with what was run.
func (E2e) Soak(ctx context.Context, rounds int) error { return kubernaut.Soak(ctx, rounds) }
