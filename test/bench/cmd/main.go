// Command cmd runs the benchmark on the environment that E2E_TARGET names and leaves
// bench.json in the folder that is its argument. The target bench:services runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"regexp"

	"kubernaut.ai/e2e/test/bench"
	"kubernaut.ai/e2e/test/e2e/target"
)

func main() { target.Program(run) }

func run(ctx context.Context, t *target.Target, evidence string) error {
	focus, err := regexp.Compile(os.Getenv("E2E_FOCUS"))
	if err != nil {
		return fmt.Errorf("E2E_FOCUS: %w", err)
	}
	return bench.Services(ctx, t, focus, evidence, os.Stdout, os.Stderr)
}
