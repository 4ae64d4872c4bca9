// Command cmd runs the benchmark on the environment that E2E_TARGET names and leaves
// bench.json in the folder that is its argument. The target bench:services runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"kubernaut.ai/e2e/test/bench"
	"kubernaut.ai/e2e/test/e2e/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: %s <evidence folder>", args[0])
	}
	t, err := target.Read(os.Getenv, ".")
	if err != nil {
		return err
	}
	focus, err := regexp.Compile(os.Getenv("E2E_FOCUS"))
	if err != nil {
		return fmt.Errorf("E2E_FOCUS: %w", err)
	}
	return bench.Services(ctx, t, focus, args[1], os.Stdout, os.Stderr)
}
