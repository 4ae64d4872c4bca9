//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Deploy applies manifests and waits until everything in them is ready.
type Deploy mg.Namespace

// Infra deploys PostgreSQL and Redis.
func (Deploy) Infra(ctx context.Context) error { return kubernaut.Deploy(ctx, "infra") }

// Migrations brings the database to the schema of the DataStorage.
func (Deploy) Migrations(ctx context.Context) error { return kubernaut.Deploy(ctx, "migrations") }

// DataStorage deploys the DataStorage.
func (Deploy) DataStorage(ctx context.Context) error { return kubernaut.Deploy(ctx, "datastorage") }

// Gateway deploys the Gateway, and so all that it needs.
func (Deploy) Gateway(ctx context.Context) error { return kubernaut.Deploy(ctx, "gateway") }

// Alertmanager deploys Alertmanager, configured to send to the Gateway.
func (Deploy) Alertmanager(ctx context.Context) error { return kubernaut.Deploy(ctx, "alertmanager") }
