package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Node collects what a node's own programs say. It needs no API server.
type Node struct {
	Runner command.Runner
	Engine string // podman or docker
	Node   string // name of the node's container
}

var _ Collector = Node{}

// Name implements Collector.
func (n Node) Name() string { return "node " + n.Node }

// podLogLines is how much is kept of each log below the node's /var/log/pods: it
// matters when the API server, which has the whole, does not answer.
const podLogLines = "2000"

// Collect implements Collector: it writes node/<name>/*.
func (n Node) Collect(ctx context.Context, dir string) error {
	inside := func(args ...string) []string { return append([]string{n.Engine, "exec", n.Node}, args...) }
	files := []struct {
		name string
		args []string
	}{
		{"kubelet.log", inside("journalctl", "--no-pager", "--unit", "kubelet")},
		{"containerd.log", inside("journalctl", "--no-pager", "--unit", "containerd")},
		{"images.txt", inside("ctr", "--namespace", "k8s.io", "images", "list")},
		{"containers.txt", inside("ctr", "--namespace", "k8s.io", "containers", "list")},
		{"processes.txt", inside("ps", "-efww")},
		{"disk.txt", inside("df", "--human-readable")},
		{"memory.txt", inside("cat", "/proc/meminfo", "/proc/loadavg")},
		{"pods.log", inside("find", "/var/log/pods", "-name", "*.log", "-exec", "tail", "--verbose", "--lines", podLogLines, "{}", "+")},
		{"container.log", []string{n.Engine, "logs", n.Node}},
		{"container.json", []string{n.Engine, "inspect", n.Node}},
	}
	failures := make([]error, len(files))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, file := range files {
		group.Go(func() error {
			var out bytes.Buffer
			err := n.Runner.Run(ctx, command.Cmd{Args: file.args, Stdout: &out})
			// What came before it failed is worth keeping.
			if out.Len() > 0 {
				err = errors.Join(err, write(dir, "node/"+n.Node+"/"+file.name, out.Bytes()))
			}
			if err != nil {
				failures[i] = fmt.Errorf("%s: %w", file.name, err)
			}
			return nil
		})
	}
	_ = group.Wait() // its functions return no error
	return errors.Join(failures...)
}
