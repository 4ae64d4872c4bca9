//go:build mage

package main

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Deploy applies manifests and waits until everything in them is ready.
type Deploy mg.Namespace

// Infra deploys PostgreSQL and Redis.
func (Deploy) Infra(ctx context.Context) error { return deployOf(ctx, deployInfra) }

// Migrations brings the database to the schema of the DataStorage.
func (Deploy) Migrations(ctx context.Context) error { return deployOf(ctx, deployMigrations) }

// DataStorage deploys the DataStorage.
func (Deploy) DataStorage(ctx context.Context) error { return deployOf(ctx, deployDataStorage) }

// Gateway deploys the Gateway, and so all that it needs.
func (Deploy) Gateway(ctx context.Context) error { return deployOf(ctx, deployGateway) }

// Alertmanager deploys Alertmanager, configured to send to the Gateway.
func (Deploy) Alertmanager(ctx context.Context) error { return deployOf(ctx, deployAlertmanager) }

func deployOf(ctx context.Context, phase func(context.Context, string) error) error {
	return phases(ctx, func(variant string) []any { return []any{mg.F(phase, variant)} })
}
