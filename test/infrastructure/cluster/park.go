package cluster

import (
	"context"
	_ "embed" // of what is done in a container beside a node
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

// Parked is a node that is stopped and holds what Keep has put aside.
type Parked struct {
	Started time.Time // when its container was, last: one that was started since may hold anything
	Bytes   int64     // on disk
}

// Park stops a node and puts back what Keep has put aside. The error is a *Broken when the
// state is not the one that Keep returned.
func (k Kind) Park(ctx context.Context, node string, state State) (Parked, error) {
	found, err := k.inspect(ctx, []string{node})
	if err != nil {
		return Parked{}, err
	}
	filled, err := k.fill(ctx, found[0], state)
	if err == nil && k.Engine == "docker" {
		// kind asks for a restart after a failure, and after a reboot being killed is one.
		err = k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "update", "--restart", "no", node}})
	}
	return Parked{Started: found[0].started, Bytes: filled.Bytes}, err
}

// Restore has a node, running or not, hold what Keep has put aside; Mend starts it. Until
// Restore has come to its end the node must not be started. Of a node that Park left, and
// nobody has started since, nothing is touched: that the state is the one that Keep returned
// is then found by check, while the node starts. The error of both is a *Broken where it is
// another one.
func (k Kind) Restore(ctx context.Context, node string, state State, parked Parked) (check func(context.Context) error, err error) {
	found, err := k.inspect(ctx, []string{node})
	if err != nil {
		return nil, err
	}
	if found[0].status == "exited" && found[0].started.Equal(parked.Started) {
		return func(ctx context.Context) error {
			_, err := k.same(ctx, node, "sum", state)
			return err
		}, nil
	}
	_, err = k.fill(ctx, found[0], state)
	return func(context.Context) error { return nil }, err
}

// fill stops a node, at once because what it has not yet written is of no interest, and puts
// back what Keep has put aside.
func (k Kind) fill(ctx context.Context, node container, state State) (State, error) {
	if node.status == "paused" { // what is frozen cannot end
		if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "unpause", node.name}}); err != nil {
			return State{}, err
		}
	}
	if err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "stop", "-t", "0", node.name}}); err != nil {
		return State{}, err
	}
	filled, err := k.same(ctx, node.name, "fill", state)
	return filled, errors.Join(err, k.pin(ctx, node))
}

// pin lets a node that has been stopped have the address it had when it is started again.
// podman gives it the next one each time, and sends to the ports of this machine through the
// kernel, which remembers for two minutes where it sent what was not answered: a connection
// from the same port would go there still, to nobody. docker passes on what comes from this
// machine itself.
func (k Kind) pin(ctx context.Context, node container) error {
	if k.Engine != "podman" {
		return nil
	}
	for _, network := range node.networks {
		if network.address == "" { // it was stopped before
			continue
		}
		for _, args := range [][]string{{"disconnect"}, {"connect", "--ip", network.address}} {
			if err := k.Runner.Run(ctx, command.Cmd{Args: slices.Concat([]string{k.Engine, "network"}, args, []string{network.name, node.name})}); err != nil {
				return err
			}
		}
	}
	return nil
}

// same runs a task of the script that reads what was put aside, and fails if that is another
// state.
func (k Kind) same(ctx context.Context, node, task string, state State) (State, error) {
	image, err := k.imageOf(ctx, node)
	if err != nil {
		return State{}, err
	}
	found, err := k.beside(ctx, node, image, task, nil)
	if err == nil && found.Sum != state.Sum {
		err = &Broken{"what is kept of it is not what was put aside"}
	}
	return found, err
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
	if err != nil {
		return State{}, k.inNode(node, err)
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
