package target

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Program is the main function of a program of the catalog: it has run work on the
// environment that E2E_TARGET names and leave its evidence in the folder that is the
// program's argument. SIGINT and SIGTERM end ctx. An error of run's is printed, and the
// program ends with 1.
func Program(run func(ctx context.Context, t *Target, evidence string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM) //nolint:forbidigo // a program begins with it
	defer stop()
	err := fmt.Errorf("usage: %s <evidence folder>", os.Args[0])
	if len(os.Args) == 2 {
		var t *Target
		if t, err = Read(os.Getenv, "."); err == nil {
			err = run(ctx, t, os.Args[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
