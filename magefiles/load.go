//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Load streams images into the cluster's nodes.
type Load mg.Namespace

// All loads every image that the nodes do not have.
func (Load) All(ctx context.Context) error { return phases(ctx, loads) }

// Gateway loads the Gateway's image.
func (Load) Gateway(ctx context.Context) error { return loadOf(ctx, "gateway") }

// DataStorage loads the DataStorage's image.
func (Load) DataStorage(ctx context.Context) error { return loadOf(ctx, "datastorage") }

// Infra loads the images of PostgreSQL and Redis.
func (Load) Infra(ctx context.Context) error { return loadOf(ctx, infra...) }

// Alertmanager loads the image of Alertmanager.
func (Load) Alertmanager(ctx context.Context) error { return loadOf(ctx, senders...) }

func loadOf(ctx context.Context, names ...string) error {
	return phases(ctx, func(variant string) []any { return forEach(load, variant, names) })
}
