//go:build mage

package main

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"
)

// Cluster is this checkout's Kind cluster.
type Cluster mg.Namespace

// Create makes the cluster, with namespace and CRDs; every image is built first.
func (Cluster) Create(ctx context.Context) error {
	return phases(ctx, func(variant string) []any { return []any{mg.F(create, variant)} })
}

// Delete removes the cluster; the evidence in .e2e stays.
func (Cluster) Delete(ctx context.Context) error {
	variant, err := selected()
	if err != nil {
		return err
	}
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.DeleteCluster(ctx)
}

// Status prints what of the environment is there.
func (Cluster) Status(ctx context.Context) error {
	variant, err := selected()
	if err != nil {
		return err
	}
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.Status(ctx, os.Stdout)
}
