//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Bench measures what the services do on this machine.
type Bench mg.Namespace

// Services loads the Gateway and DataStorage and prints rates and percentiles.
//
// It deploys what is not there, and as e2e:gateway does it removes the cluster at the
// end, unless E2E_KEEP says otherwise. A goal that is missed is no failure.
func (Bench) Services(ctx context.Context) error { return kubernaut.Program(ctx, "bench") }
