package cluster

import (
	"context"
	_ "embed" // of what is done in a container beside a node
	"errors"
	"fmt"
	"strings"
	"sync"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// State is what Keep has put aside of a node. It lies in the node's own volume: it goes
// where the node goes, and when it goes.
type State struct {
	Sum   string // of all files: names, modes, owners and what is in them
	Bytes int64  // on disk
}

// Keep puts aside what a running node has on its disk, in the place of what was put aside
// before. The node is frozen for the length of the copy, so that this is what it would find
// after a power cut: etcd and the databases come back from that. An error that is a *Broken
// says that the node stays frozen; after any other it goes on, and nothing is kept.
func (k Kind) Keep(ctx context.Context, node string) (State, error) {
	image, err := k.imageOf(ctx, node)
	if err != nil {
		return State{}, err
	}
	thaw := sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
		defer cancel()
		if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "unpause", node}}); err != nil {
			return &Broken{fmt.Sprintf("its node %s does not go on: %v", node, err)}
		}
		return nil
	})
	if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "pause", node}}); err != nil {
		return State{}, err
	}
	state, err := k.beside(ctx, node, image, "keep", func() { _ = thaw() })
	return state, errors.Join(err, thaw())
}

// Park stops a node and removes what it has on its disk but for what Keep has put aside.
func (k Kind) Park(ctx context.Context, node string) error {
	image, err := k.imageOf(ctx, node)
	if err != nil {
		return err
	}
	if err := k.stop(ctx, node); err != nil {
		return err
	}
	if k.Engine == "docker" {
		// kind asks for a restart after a failure, and after a reboot being killed is one.
		if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "update", "--restart", "no", node}}); err != nil {
			return err
		}
	}
	_, err = k.beside(ctx, node, image, "empty", nil)
	return err
}

// Restore stops a node, running or not, and puts back what Keep has put aside; Mend starts
// it. Until Restore has come to its end the node must not be started. The error is a *Broken
// when the state is not the one that Keep returned.
func (k Kind) Restore(ctx context.Context, node string, state State) error {
	image, err := k.imageOf(ctx, node)
	if err != nil {
		return err
	}
	if err := k.stop(ctx, node); err != nil {
		return err
	}
	found, err := k.beside(ctx, node, image, "fill", nil)
	if err == nil && found.Sum != state.Sum {
		return &Broken{"what is kept of it is not what was put aside"}
	}
	return err
}

// stop ends a node at once: what it has not yet written is of no interest.
func (k Kind) stop(ctx context.Context, node string) error {
	found, err := k.inspect(ctx, []string{node})
	if err != nil {
		return err
	}
	if found[0].status == "paused" { // what is frozen cannot end
		if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "unpause", node}}); err != nil {
			return err
		}
	}
	return k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "stop", "-t", "0", node}})
}

// imageOf returns the identity of the node's image. The engine has it as long as it has the
// node, whatever its reference.
func (k Kind) imageOf(ctx context.Context, node string) (string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "inspect", "--format", "{{.Image}}", node)
	return strings.TrimSpace(out), err
}

//go:embed park.sh
var parkScript string

// beside runs a task of the script in a container with the node's volumes: no path of this
// machine is named, which the engine may not be on, and the container's root may do with
// the files what the node's may. copied is called when the node may go on; nil for none.
func (k Kind) beside(ctx context.Context, node, image, task string, copied func()) (State, error) {
	out := &marked{mark: "copied\n", found: copied}
	err := k.Runner.Run(ctx, command.Cmd{
		Args: []string{
			k.Engine, "run", "--rm", "--interactive", "--privileged", "--network", "none", "--volumes-from", node,
			"--entrypoint", "sh", image, "-s", task, "/var",
		},
		Stdin: strings.NewReader(parkScript), Stdout: out,
	})
	var failed *command.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "No space left on device") {
		return State{}, fmt.Errorf("node %s: no space left on %s's disk", node, k.Engine)
	}
	if err != nil || task == "empty" {
		return State{}, err
	}
	var state State
	var kilobytes int64
	text := out.text.String()
	if _, err := fmt.Sscan(text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:], &state.Sum, &kilobytes); err != nil {
		return State{}, fmt.Errorf("node %s: what was kept: %q: %w", node, text, err)
	}
	state.Bytes = kilobytes << 10
	return state, nil
}

// marked keeps what it is told, and calls found once when the mark is in it.
type marked struct {
	text  strings.Builder
	mark  string
	found func()
}

func (m *marked) Write(p []byte) (int, error) {
	n, err := m.text.Write(p)
	if m.found != nil && strings.Contains(m.text.String(), m.mark) {
		m.found()
		m.found = nil
	}
	return n, err
}
