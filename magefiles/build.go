//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Build makes the images, before any cluster exists.
type Build mg.Namespace

// All builds every image, and obtains the third-party ones.
func (Build) All(ctx context.Context) error { return phases(ctx, builds) }

// Gateway builds the Gateway's image.
func (Build) Gateway(ctx context.Context) error { return buildOf(ctx, "gateway") }

// DataStorage builds the DataStorage's image.
func (Build) DataStorage(ctx context.Context) error { return buildOf(ctx, "datastorage") }

// Infra obtains the images of PostgreSQL and Redis.
func (Build) Infra(ctx context.Context) error { return buildOf(ctx, infra...) }

// Alertmanager obtains the image of Alertmanager, which the Gateway's suite sends by.
func (Build) Alertmanager(ctx context.Context) error { return buildOf(ctx, senders...) }

// Node obtains the image of the cluster's nodes.
func (Build) Node(ctx context.Context) error { return buildOf(ctx, "kind-node") }

func buildOf(ctx context.Context, names ...string) error {
	return phases(ctx, func(variant string) []any { return forEach(build, variant, names) })
}
