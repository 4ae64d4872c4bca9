//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Cluster is this checkout's Kind cluster.
type Cluster mg.Namespace

// Create makes the cluster, with namespace and CRDs; every image is built first.
func (Cluster) Create(ctx context.Context) error { return kubernaut.CreateCluster(ctx) }

// Delete removes the cluster; the evidence in .e2e stays.
func (Cluster) Delete(ctx context.Context) error { return kubernaut.DeleteCluster(ctx) }

// Park stops the cluster, for the next run to begin from the state that was kept of it.
func (Cluster) Park(ctx context.Context) error { return kubernaut.ParkCluster(ctx) }

// Reset restores the state of the cluster that was kept when it was first deployed.
func (Cluster) Reset(ctx context.Context) error { return kubernaut.ResetCluster(ctx) }

// Status prints what of the environment is there.
func (Cluster) Status(ctx context.Context) error { return kubernaut.Status(ctx) }
