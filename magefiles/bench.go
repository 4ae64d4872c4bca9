//go:build mage

package main

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"

	"kubernaut.ai/e2e/test/bench"
)

// Bench measures what the services do on this machine.
type Bench mg.Namespace

// Services loads the Gateway and DataStorage and prints rates and percentiles.
//
// It deploys what is not there, and as e2e:gateway does it removes the cluster at the
// end, unless E2E_KEEP says otherwise. A goal that is missed is no failure.
func (Bench) Services(ctx context.Context) error {
	variant, err := selected()
	if err != nil {
		return err
	}
	return end2end(ctx, variant, mg.F(benchServices, variant))
}

func benchServices(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(deployGateway, variant))
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return bench.Services(ctx, env, os.Stdout)
}
