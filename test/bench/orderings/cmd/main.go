// Command cmd measures the orderings of building and creating, and leaves the report in the
// folder that is its argument. The target bench:orderings runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"kubernaut.ai/e2e/test/bench/orderings"
	"kubernaut.ai/e2e/test/infrastructure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	config, err := infrastructure.ReadConfig(os.Environ())
	if err == nil && len(os.Args) != 2 {
		err = fmt.Errorf("usage: %s <evidence folder>", os.Args[0])
	}
	if err == nil {
		err = orderings.Run(ctx, config, os.Args[1], os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
