package infrastructure_test

import (
	"context"
	"strings"
	"sync"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// environments remembers what commands were told in their environment.
type environments struct {
	command.Runner
	mu  sync.Mutex
	all map[string][]string
}

func (e *environments) Run(ctx context.Context, cmd command.Cmd) error {
	e.mu.Lock()
	if e.all == nil {
		e.all = map[string][]string{}
	}
	e.all[strings.Join(cmd.Args[:2], " ")] = cmd.Env
	e.mu.Unlock()
	return e.Runner.Run(ctx, cmd)
}

func (e *environments) of(command string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[command]
}

// exit1 is a program that ended with code 1.
func exit1() error { return &command.Error{Args: []string{"ginkgo"}, ExitCode: 1} }
