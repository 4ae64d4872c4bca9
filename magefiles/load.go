//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Load streams images into the cluster's nodes.
type Load mg.Namespace

// All loads every image that the nodes do not have.
func (Load) All(ctx context.Context) error { return kubernaut.Load(ctx) }

// Gateway loads the Gateway's image.
func (Load) Gateway(ctx context.Context) error { return kubernaut.Load(ctx, "gateway") }

// DataStorage loads the DataStorage's image.
func (Load) DataStorage(ctx context.Context) error { return kubernaut.Load(ctx, "datastorage") }

// Infra loads the images of PostgreSQL and Redis.
func (Load) Infra(ctx context.Context) error { return kubernaut.Load(ctx, "postgres", "redis") }

// Alertmanager loads the image of Alertmanager.
func (Load) Alertmanager(ctx context.Context) error { return kubernaut.Load(ctx, "alertmanager") }
