//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/infrastructure"
)

// E2e takes the checkout to a proven system: build, cluster, load, deploy, suite.
type E2e mg.Namespace

// Gateway tests the Gateway end to end on a real cluster.
func (E2e) Gateway(ctx context.Context) error { return endToEnd(ctx, e2eGateway) }

// GatewayCoverage is e2e:gateway with Go coverage taken from the running pods.
func (E2e) GatewayCoverage(ctx context.Context) error { return withCoverage(ctx, e2eGateway) }

// DataStorage tests the DataStorage by itself, on a cluster without a Gateway.
func (E2e) DataStorage(ctx context.Context) error { return endToEnd(ctx, e2eDataStorage) }

// DataStorageCoverage is e2e:dataStorage with Go coverage taken from the running pods.
func (E2e) DataStorageCoverage(ctx context.Context) error { return withCoverage(ctx, e2eDataStorage) }

// All tests both services on one cluster, building and creating once.
func (E2e) All(ctx context.Context) error { return endToEnd(ctx, e2eAll) }

// endToEnd runs a chain in the variant that E2E_COVERAGE selects.
func endToEnd(ctx context.Context, chain func(context.Context, string) error) error {
	variant, err := selected()
	if err != nil {
		return err
	}
	return end2end(ctx, variant, mg.F(chain, variant))
}

func withCoverage(ctx context.Context, chain func(context.Context, string) error) error {
	variant := string(infrastructure.Coverage)
	return end2end(ctx, variant, mg.F(chain, variant))
}
