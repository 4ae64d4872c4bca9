// The gateway takes alerts and events from outside and makes one RemediationRequest
// of each new problem. "gateway explain" says what it would read out of a body.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	// Images are built from nothing: the roots of trust have to come along.
	_ "golang.org/x/crypto/x509roots/fallback"

	"kubernaut.ai/e2e/docker/gateway/app"
	"kubernaut.ai/e2e/docker/internal/flush"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "explain" {
		os.Exit(app.Explain(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	file := flag.String("config", "/etc/gateway/config.yaml", "YAML configuration file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	flush.OnSignal()
	err := app.Run(ctx, app.Options{
		ConfigFile: *file,
		Namespace:  os.Getenv("POD_NAMESPACE"),
		Pod:        os.Getenv("POD_NAME"),
		Log:        os.Stdout,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}
