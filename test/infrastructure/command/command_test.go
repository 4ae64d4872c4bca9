package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func ExampleQuote() {
	fmt.Println(command.Quote([]string{"podman", "ps", "--filter", "label=it's here"}))
	// Output: podman ps --filter 'label=it'\''s here'
}

func TestRunPassesArgumentsUntouched(t *testing.T) {
	out, err := command.Output(t.Context(), command.Local{}, "printf", "%s|", "$HOME", "a b", "{{.Name}}")
	if err != nil {
		t.Fatal(err)
	}
	if want := "$HOME|a b|{{.Name}}|"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestErrorTellsCommandCodeAndLastLines(t *testing.T) {
	var log bytes.Buffer
	runner := command.Local{Log: func(context.Context) io.Writer { return &log }}
	err := runner.Run(t.Context(), command.Cmd{Args: []string{"sh", "-c", "echo first >&2; echo last >&2; exit 3"}})
	var failed *command.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %T, want *command.Error", err)
	}
	if failed.ExitCode != 3 {
		t.Errorf("exit code: got %d, want 3", failed.ExitCode)
	}
	if got, want := err.Error(), "sh -c 'echo first >&2; echo last >&2; exit 3': exit 3: first\nlast"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(log.String(), "$ sh -c") || !strings.Contains(log.String(), "last") {
		t.Errorf("log holds neither the command nor its output: %q", log.String())
	}
}

func TestCancelEndsTheWholeProcessGroup(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("sibling failed")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	started := time.Now()
	err := command.Local{}.Run(ctx, command.Cmd{Args: []string{"sh", "-c", "sleep 60 & wait"}})
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want it to wrap the cause", err)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %v: the child of the program was waited for", took)
	}
}

func TestAProgramThatWasToldToEndSaysWhy(t *testing.T) {
	cause := errors.New("not done after 3m0s")
	for _, test := range []struct{ name, script, want string }{
		{"and ended with a code", `trap "exit 7" TERM; echo x; while :; do sleep 0.05; done`, `: not done after 3m0s (exit 7)`},
		{"and ended by the signal", `echo x; exec sleep 60`, `: not done after 3m0s (signal: terminated)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			err := command.Local{}.Run(ctx, command.Cmd{Args: []string{"sh", "-c", test.script}, Stdout: written(func() { cancel(cause) })})
			if !errors.Is(err, cause) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// written is called when something is written.
type written func()

func (w written) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

func TestMissingProgramIsNamed(t *testing.T) {
	_, err := command.Output(t.Context(), command.Local{}, "no-such-program")
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v, want an error that names the program", err)
	}
	if !errors.Is(err, command.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound in its chain", err)
	}
}
