package infrastructure

import (
	"context"
	"fmt"
	"io"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// compileProgram compiles a program, so that one that does not compile costs no cluster.
// It is no part of the magefiles' own: what it needs is compiled when it is asked for.
func (e *Environment) compileProgram(ctx context.Context, p Phase) error {
	program, err := e.catalogProgram(p.Name)
	if err != nil {
		return err
	}
	return e.step(ctx, p, e.Timeouts.Build, func(ctx context.Context, step *timeline.Step) error {
		binary := e.programBinary(p.Name)
		return e.compile(p, step, []string{binary}, func() error {
			return e.goRun(ctx, []string{"go", "build", "-o", binary, program.Package})
		})
	})
}

// runProgram runs a program against the environment, if it needs one, with the evidence
// folder as its argument. It bounds itself, and what it prints is the result.
func (e *Environment) runProgram(ctx context.Context, p Phase) error {
	program, err := e.catalogProgram(p.Name)
	if err != nil {
		return err
	}
	return e.step(ctx, p, e.Timeouts.Program, func(ctx context.Context, step *timeline.Step) error {
		if len(program.Needs) > 0 {
			if err := e.writeTarget(ctx); err != nil {
				return err
			}
		}
		progress := &screen.Lines{Emit: func(line string) { e.Timeline.Say("  %s", line) }}
		defer progress.Flush()
		return e.adapters.Runner.Run(ctx, command.Cmd{
			Args: []string{e.programBinary(p.Name), e.Evidence}, Dir: e.Root,
			Env:    command.GoEnv(target.EnvFile + "=" + e.state.TargetFile()),
			Stdout: io.MultiWriter(timeline.Log(ctx), e.results), Stderr: progress,
		})
	})
}

func (e *Environment) programBinary(name string) string { return e.state.Build("program-" + name) }

// catalogProgram returns the catalog's entry.
func (c Catalog) catalogProgram(name string) (Program, error) {
	for _, program := range c.Programs {
		if program.Name == name {
			return program, nil
		}
	}
	return Program{}, fmt.Errorf("program %q: not in the catalog", name)
}
