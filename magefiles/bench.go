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

// Orderings measures what the order of building and creating costs, from nothing and restored.
//
// On clusters of its own, which it removes. What was measured on this machine at this commit
// counts: a run that is interrupted, or has a larger E2E_BENCH_ROUNDS, measures what is missing.
// E2E_FOCUS selects, e.g. 'plain cold'.
func (Bench) Orderings(ctx context.Context) error { return kubernaut.ProgramAlone(ctx, "orderings") }
