// Datastorage keeps audit events. Without arguments it serves the API. With the argument
// migrate it brings the database to its schema and ends; dead list shows the events that
// were set aside, and dead retry puts them back; retention removes months of old events.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

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
		Out:        os.Stdout,
	}
	run := app.Run
	switch args := os.Args[1:]; {
	case len(args) == 0:
	case len(args) == 1 && args[0] == "migrate":
		run = app.Migrate
	case len(args) == 2 && args[0] == "dead" && args[1] == "list":
		run = app.ListDead
	case len(args) == 3 && args[0] == "dead" && args[1] == "retry" && args[2] == "all":
		run = func(ctx context.Context, opts app.Options) error { return app.RetryDead(ctx, opts) }
	case len(args) > 2 && args[0] == "dead" && args[1] == "retry":
		run = func(ctx context.Context, opts app.Options) error { return app.RetryDead(ctx, opts, args[2:]...) }
	case len(args) == 3 && args[0] == "retention" && args[1] == "--older-than":
		run = func(ctx context.Context, opts app.Options) error {
			olderThan, err := time.ParseDuration(args[2])
			if err != nil {
				return err
			}
			return app.Retain(ctx, opts, olderThan)
		}
	default:
		app.NewLog(os.Stdout, slog.LevelInfo).Error("usage: datastorage [migrate | dead list | dead retry all | dead retry <entry>... | retention --older-than <hours>h]")
		os.Exit(2)
	}
	if err := run(ctx, opts); err != nil {
		app.NewLog(os.Stdout, slog.LevelInfo).Error("datastorage ended", "error", err)
		os.Exit(1)
	}
}
