//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Build makes the images, before any cluster exists.
type Build mg.Namespace

// All builds every image, and obtains the third-party ones.
func (Build) All(ctx context.Context) error { return kubernaut.Build(ctx) }

// Gateway builds the Gateway's image.
func (Build) Gateway(ctx context.Context) error { return kubernaut.Build(ctx, "gateway") }

// DataStorage builds the DataStorage's image.
func (Build) DataStorage(ctx context.Context) error { return kubernaut.Build(ctx, "datastorage") }

// Infra obtains the images of PostgreSQL and Redis.
func (Build) Infra(ctx context.Context) error { return kubernaut.Build(ctx, "postgres", "redis") }

// Alertmanager obtains the image of Alertmanager, which the Gateway's suite sends by.
func (Build) Alertmanager(ctx context.Context) error { return kubernaut.Build(ctx, "alertmanager") }

// Node obtains the image of the cluster's nodes.
func (Build) Node(ctx context.Context) error { return kubernaut.Build(ctx, "kind-node") }
