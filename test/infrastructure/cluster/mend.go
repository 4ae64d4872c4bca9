package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/kube"
)

// Broken is a cluster that cannot be mended: it must be deleted and made anew.
type Broken struct{ Reason string }

// Error is the reason.
func (b *Broken) Error() string { return b.Reason }

// mendTimeout is how long a cluster may take to come back unless Kind says otherwise. After a restart of its node that
// takes 15 to 25 s on two cores, as long as making it anew does; what is not back after
// more than twice that, as with an etcd that a power cut tore, had better be made anew.
const mendTimeout = time.Minute

// told is how long a cluster may take before the wait is worth a word.
const told = time.Second

// Made is what Create has left.
type Made struct {
	Nodes []string  // names of the containers
	At    time.Time // when all was done
	Ready bool      // every pod was ready, and is waited for: the restart is no trouble of theirs
}

// Mend brings a cluster that Create has made back to what Create left: it starts nodes that
// were stopped, continues those that are paused, waits until the API server and every node
// are Ready by what they say now, and makes the kernel's settings again that a restart
// loses. all are its containers now, as All returns them. status is told what it waits for.
// It returns what was done, empty when all was well.
//
// The error is a *Broken when the cluster must be made anew. Any other says that this could
// not be found out: the engine does not answer, or ctx has ended.
func (k Kind) Mend(ctx context.Context, all []string, was Made, status func(format string, args ...any)) (done string, err error) {
	nodes := slices.Sorted(slices.Values(was.Nodes))
	if !slices.Equal(nodes, all) {
		return "", &Broken{fmt.Sprintf("its nodes are %s and were %s", list(all), list(nodes))}
	}
	if _, err := os.Stat(k.Kubeconfig); errors.Is(err, os.ErrNotExist) {
		return "", &Broken{"its kubeconfig is gone"}
	}
	var did []string
	found, err := k.inspect(ctx, nodes)
	if err != nil {
		return "", err
	}
	var continued time.Time
	for i, node := range nodes {
		what, err := k.wake(ctx, node, found[i].status)
		if err != nil {
			return "", err
		}
		if what == "" {
			continue
		}
		did = append(did, what+" "+node)
		if what == "continued" {
			continued = time.Now()
		}
		status("%s %s", what, node)
	}
	if len(did) > 0 {
		if found, err = k.inspect(ctx, nodes); err != nil {
			return "", err
		}
	}
	// Before anything runs in the nodes that are being started: it would already wait for what
	// nobody answers. Of a node that has ended again, the wait says what is wrong.
	lost, failed := k.resetKernel(ctx, found, was.At)
	if len(lost) > 0 {
		did = append(did, "set "+strings.Join(lost, ", ")+" again")
	}
	waited, err := k.back(ctx, found, was.Ready, continued, status)
	if err = cmp.Or(err, failed); err != nil {
		return "", err
	}
	if waited > told {
		did = append(did, fmt.Sprintf("waited %.0f s until it was ready", waited.Seconds()))
	}
	return strings.Join(did, "; "), nil
}

// wake lets a node's container run, and returns what it did to it: "", "started" or
// "continued".
func (k Kind) wake(ctx context.Context, node, state string) (string, error) {
	what, verb := "started", "start"
	switch state {
	case "running", "restarting":
		return "", nil
	case "paused":
		what, verb = "continued", "unpause"
	}
	err := k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, verb, node}})
	if err != nil && ctx.Err() == nil { // a port of its that another program has taken, a mount that is gone
		return "", &Broken{fmt.Sprintf("its node %s is %s: %v", node, state, err)}
	}
	return what, err
}

// back waits until the cluster is as ready as it says it is, and returns how long that took.
func (k Kind) back(ctx context.Context, nodes []container, ready bool, continued time.Time, status func(format string, args ...any)) (time.Duration, error) {
	began := time.Now()
	started := map[string]time.Time{}
	for _, node := range nodes {
		started[node.name] = node.started
	}
	client, err := kube.Client(k.Kubeconfig)
	if err != nil {
		return 0, &Broken{err.Error()}
	}
	limit := cmp.Or(k.MendTimeout, mendTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not back after %s", limit))
	defer cancel()
	slow := time.AfterFunc(told, func() {
		status("waiting for the cluster, whose node was started at %s", latest(started).Local().Format(time.TimeOnly))
	})
	defer slow.Stop()
	err = k.nodesReady(limited, client, started)
	if err == nil && !continued.IsZero() {
		err = k.alive(limited, client, continued)
	}
	if err == nil {
		err = k.reached(limited, client)
	}
	if err == nil {
		err = k.podsSeen(limited, client, started, ready)
	}
	if err != nil && ctx.Err() == nil {
		return 0, &Broken{err.Error()}
	}
	return time.Since(began), err
}

// container is what the engine says of a node's.
type container struct {
	name     string
	status   string // running, paused, exited ...
	started  time.Time
	networks []network
}

// network is one that a container is in.
type network struct{ name, address string } // IPv4; empty while it does not run

func (k Kind) inspect(ctx context.Context, nodes []string) ([]container, error) {
	args := []string{k.Engine, "inspect", "--format", "{{.State.Status}}\t{{.State.StartedAt}}\t{{range $name, $at := .NetworkSettings.Networks}}{{$name}}={{$at.IPAddress}} {{end}}"}
	out, err := command.Output(ctx, k.Runner, append(args, nodes...)...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(nodes) {
		return nil, fmt.Errorf("%s inspect: %d lines for %d nodes", k.Engine, len(lines), len(nodes))
	}
	found := make([]container, len(nodes))
	for i, line := range lines {
		status, rest, _ := strings.Cut(line, "\t")
		started, networks, _ := strings.Cut(rest, "\t")
		found[i] = container{name: nodes[i], status: status}
		for _, field := range strings.Fields(networks) {
			name, address, _ := strings.Cut(field, "=")
			found[i].networks = append(found[i].networks, network{name, address})
		}
		if found[i].started, err = parseStart(started); err != nil {
			return nil, fmt.Errorf("node %s: start: %w", nodes[i], err)
		}
	}
	return found, nil
}

// parseStart reads a time as docker writes it, and as podman does.
func parseStart(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		text, _, _ = strings.Cut(text, " m=")
		at, err = time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", text)
	}
	return at, err
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
