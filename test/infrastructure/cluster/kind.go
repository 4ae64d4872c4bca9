// Package cluster runs one Kind cluster through kind's library, with what that
// library leaves to its callers: creation that can be canceled, a private
// kubeconfig, readiness that is watched, and images streamed into every node.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// nodeLabel is the label that kind puts on the containers and volumes of a cluster.
const nodeLabel = "io.x-k8s.kind.cluster"

// Kind is one Kind cluster by name, there or not. It is safe for concurrent use,
// but for Create and Delete of the same cluster.
type Kind struct {
	Name       string // of the cluster; exact
	Engine     string // podman or docker, passed to every call of kind
	Kubeconfig string // where Create writes it, mode 0600
	Runner     command.Runner
	Log        func(ctx context.Context) io.Writer // what kind says; nil discards

	MendTimeout time.Duration // how long Mend waits for a cluster to come back; 0 means a minute
}

// Nodes returns the names of the cluster's node containers that run, sorted.
func (k Kind) Nodes(ctx context.Context) ([]string, error) {
	return k.list(ctx, "ps", "--filter", "label="+nodeLabel+"="+k.Name, "--format", "{{.Names}}")
}

// All returns the names of the cluster's node containers in any state, sorted.
func (k Kind) All(ctx context.Context) ([]string, error) {
	return k.list(ctx, "ps", "--all", "--filter", "label="+nodeLabel+"="+k.Name, "--format", "{{.Names}}")
}

func (k Kind) list(ctx context.Context, args ...string) ([]string, error) {
	out, err := command.Output(ctx, k.Runner, append([]string{k.Engine}, args...)...)
	names := strings.Fields(out)
	slices.Sort(names)
	return names, err
}

// Delete removes the cluster's containers and volumes and its kubeconfig; a
// cluster that is not there is deleted already. kind's network stays: every
// cluster of the host shares it.
func (k Kind) Delete(ctx context.Context) error {
	containers, err := k.All(ctx)
	if err != nil {
		return err
	}
	if len(containers) > 0 {
		args := []string{k.Engine, "rm", "--force", "--volumes"}
		if k.Engine == "podman" {
			args = append(args, "--time", "0") // a node has nothing to save
		}
		// Engines report "did not receive an exit event" of a container that is
		// gone all the same; what counts is what is left.
		removal := k.Runner.Run(ctx, command.Cmd{Args: append(args, containers...)})
		left, err := k.All(ctx)
		if err != nil || len(left) > 0 {
			return errors.Join(fmt.Errorf("cluster %s: containers left: %s", k.Name, strings.Join(left, ", ")), removal, err)
		}
	}
	// With podman kind names a node's volume nothing and labels it with the node's
	// name; a creation that was cut off may have left one without its container.
	control := k.Name + "-control-plane"
	if !slices.Contains(containers, control) {
		containers = append(containers, control)
	}
	for _, node := range containers {
		volumes, err := k.list(ctx, "volume", "ls", "--quiet", "--filter", "label="+node)
		if err != nil {
			return err
		}
		if len(volumes) > 0 {
			if err := k.Runner.Run(ctx, command.Cmd{Args: append([]string{k.Engine, "volume", "rm", "--force"}, volumes...)}); err != nil {
				return err
			}
		}
	}
	return k.removeKubeconfig()
}

// removeKubeconfig removes the file and the lock that a creation which was killed has left
// beside it: kind waits for nobody who holds it, and both are this cluster's only.
func (k Kind) removeKubeconfig() error {
	for _, file := range []string{k.Kubeconfig, k.Kubeconfig + ".lock"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Ports returns what the node's ports are mapped to: "127.0.0.1:port" by node port, whose
// protocol is never empty.
func (k Kind) Ports(ctx context.Context, node string) (map[Port]string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "port", node)
	if err != nil {
		return nil, err
	}
	ports := map[Port]string{}
	for line := range strings.Lines(out) {
		var port Port
		// For example "30080/tcp -> 127.0.0.1:45121".
		inside, address, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		number, protocol, _ := strings.Cut(inside, "/")
		if _, err := fmt.Sscan(number, &port.Number); err != nil {
			return nil, fmt.Errorf("node %s: port mapping %q: %w", node, line, err)
		}
		port.Protocol = strings.ToUpper(protocol)
		ports[port] = address
	}
	return ports, nil
}
