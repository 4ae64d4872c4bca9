//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Coverage reports what the services' pods and tests have run.
type Coverage mg.Namespace

// Collect stops the pods of the coverage variant and makes its report.
//
// The chains do so at their end. It is for a run that was interrupted there, and for
// tests that were run since: what the pods left is read again, also when the cluster
// is gone.
func (Coverage) Collect(ctx context.Context) error { return kubernaut.CollectCoverage(ctx) }
