// Datastorage keeps audit events. Without arguments it serves the API; with the
// argument migrate it brings the database to its schema and ends.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	// The image has no certificates of its own.
	_ "golang.org/x/crypto/x509roots/fallback"

	"kubernaut.ai/e2e/docker/datastorage/app"
	"kubernaut.ai/e2e/docker/internal/flush"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flush.OnSignal()
	opts := app.Options{
		ConfigPath: os.Getenv("CONFIG_PATH"),
		Pod:        os.Getenv("POD_NAME"),
		Namespace:  os.Getenv("POD_NAMESPACE"),
		Log:        os.Stdout,
	}
	run := app.Run
	if len(os.Args) == 2 && os.Args[1] == "migrate" {
		run = app.Migrate
	} else if len(os.Args) > 1 {
		app.NewLog(os.Stdout, slog.LevelInfo).Error("usage: datastorage [migrate]")
		os.Exit(2)
	}
	if err := run(ctx, opts); err != nil {
		app.NewLog(os.Stdout, slog.LevelInfo).Error("datastorage ended", "error", err)
		os.Exit(1)
	}
}
