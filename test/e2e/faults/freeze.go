package faults

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// freezing stops and continues a container's first process at the words of its input: a
// line stops it, the end of the input continues it. So does the end of whoever froze it,
// and the 25th second: longer than any spec freezes the API server, shorter than its own
// liveness probe allows.
const freezing = `
while read -r id pid _ && [ "$id" != "$0" ]; do pid=; done < <(ctr --namespace k8s.io task ls)
[ "$pid" ] || { echo "container $0 has no process" >&2; exit 1; }
echo ready
read -r _ || exit 0
kill -STOP "$pid" && echo frozen && read -r -t 25 _
kill -CONT "$pid" && echo thawed`

// freezeTimeout bounds the program on the node: a spec's longest, with the 25 s.
const freezeTimeout = 3 * time.Minute

// Freeze can stop the API server's process in milliseconds, however busy the machine is.
type Freeze struct {
	injector *Injector
	word     *os.File    // the program's input
	said     chan string // its lines; closed at its end
	err      error       // why it ended, once said is closed
	begun    bool
}

// PrepareFreeze gets ready to freeze the API server. The caller thaws it, frozen or not.
func (i *Injector) PrepareFreeze(ctx context.Context) (*Freeze, error) {
	var pods corev1.PodList
	if err := i.Cluster.API.List(ctx, &pods, client.InNamespace("kube-system"), client.MatchingLabels{"component": "kube-apiserver"}); err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("kube-apiserver: %d pods, want 1", len(pods.Items))
	}
	id, err := containerID(&pods.Items[0])
	if err != nil {
		return nil, err
	}
	input, word, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	f := &Freeze{injector: i, word: word, said: make(chan string, 3)}
	go f.run(context.WithoutCancel(ctx), input, command.Cmd{
		Args:  []string{i.Cluster.Target.Engine, "exec", "--interactive", pods.Items[0].Spec.NodeName, "bash", "-c", freezing, id},
		Stdin: input,
	})
	if err := f.hear(ctx, "ready"); err != nil {
		return nil, errors.Join(err, f.Thaw(ctx))
	}
	return f, nil
}

func (f *Freeze) run(ctx context.Context, input io.Closer, program command.Cmd) {
	ctx, cancel := context.WithTimeoutCause(ctx, freezeTimeout, fmt.Errorf("not thawed within %s", freezeTimeout))
	defer cancel()
	output, lines := io.Pipe()
	program.Stdout = lines
	go func() {
		defer close(f.said)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			f.said <- scanner.Text()
		}
	}()
	f.err = errors.Join(f.injector.Runner.Run(ctx, program), input.Close())
	lines.Close()
}

// hear returns when the program says what is expected of it.
func (f *Freeze) hear(ctx context.Context, want string) error {
	select {
	case line, more := <-f.said:
		if !more {
			return fmt.Errorf("kube-apiserver: not %s: %w", want, cmp.Or(f.err, io.ErrUnexpectedEOF))
		}
		if line != want {
			return fmt.Errorf("kube-apiserver: %s, want %s", line, want)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kube-apiserver: not %s: %w", want, context.Cause(ctx))
	}
}

// Begin stops the API server's process, and returns when it stands still.
func (f *Freeze) Begin(ctx context.Context) error {
	if _, err := f.word.WriteString("\n"); err != nil {
		return fmt.Errorf("kube-apiserver: freeze: %w", err)
	}
	if err := f.hear(ctx, "frozen"); err != nil {
		return err
	}
	f.begun = true
	f.injector.tell(target.FaultBegins, "kube-apiserver is frozen")
	return nil
}

// Thaw continues the process, if it has been stopped. Calling it again does nothing.
func (f *Freeze) Thaw(ctx context.Context) error {
	if err := f.word.Close(); err != nil || !f.begun {
		return nil // thawed before, or never frozen
	}
	defer f.injector.tell(target.FaultOver, "kube-apiserver is frozen")
	return f.hear(ctx, "thawed")
}
