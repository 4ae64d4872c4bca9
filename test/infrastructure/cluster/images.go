package cluster

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Images returns the references that the node's containerd holds.
func (k Kind) Images(ctx context.Context, node string) ([]string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
	return strings.Fields(out), err
}

// booted is what systemd writes on a node's console once its services run.
const booted = "Multi-User System"

// Booted waits until the services of nodes that are being made run, containerd among them.
// kind does not, where the host has cgroup v1: the line that it waits for is written there
// before systemd starts. Where a console never says so, ctx ends the wait.
func (k Kind) Booted(ctx context.Context, nodes []string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range nodes {
		group.Go(func() error {
			following, cancel := context.WithCancel(ctx)
			defer cancel()
			seen := false
			console := &marked{mark: booted, found: func() { seen = true; cancel() }}
			err := k.Runner.Run(following, command.Cmd{Args: []string{k.Engine, "logs", "--follow", node}, Stdout: console})
			if seen {
				return nil
			}
			return errors.Join(fmt.Errorf("node %s: its console does not say %q", node, booted), err)
		})
	}
	return group.Wait()
}

// Import loads an image archive, by its path in the folder that Spec.Archives names, into every
// given node at once. The error is that of every node that refused it.
//
// What it costs decides how long a set-up takes. ctr reads a file and works on it by itself:
// of two images of 73 MB the way into a node takes 0.8 core seconds with docker and 1.0 with
// podman; streamed from the engine through its exec, 1.7 and 2.4; and through containerd's
// transfer service, ctr's default, half as much again (two cores, containerd 2.4, 2026).
func (k Kind) Import(ctx context.Context, nodes []string, archive string) error {
	failed := make([]error, len(nodes))
	var imports sync.WaitGroup
	for i, node := range nodes {
		imports.Go(func() {
			err := k.Runner.Run(ctx, command.Cmd{Args: []string{
				k.Engine, "exec", node, "ctr", "--namespace", "k8s.io", "images", "import", "--local", path.Join(archivesPath, archive),
			}})
			if err != nil {
				failed[i] = k.inNode(node, err)
			}
		})
	}
	imports.Wait()
	return errors.Join(failed...)
}

// inNode is the error of a command that worked on a node's disk: that there is no room, or no
// archive, is said among much else.
func (k Kind) inNode(node string, err error) error {
	var failed *command.Error
	if errors.As(err, &failed) {
		switch said := strings.ToLower(failed.Stderr); {
		case strings.Contains(said, "no space left on device"):
			return fmt.Errorf("node %s: no space left on %s's disk", node, k.Engine)
		case strings.Contains(said, "open "+archivesPath):
			return fmt.Errorf("node %s: does not see this checkout's image archives, whose folder was removed while it ran; make it anew, first: go tool mage cluster:delete", node)
		}
	}
	return fmt.Errorf("node %s: %w", node, err)
}

// PruneImages removes from a node the references of a repository that neither keep names
// nor a container of the node runs, and returns them.
func (k Kind) PruneImages(ctx context.Context, node, repository string, keep ...string) (removed []string, err error) {
	ctr := func(args ...string) []string {
		return append([]string{k.Engine, "exec", node, "ctr", "--namespace", "k8s.io"}, args...)
	}
	out, err := command.Output(ctx, k.Runner, ctr("images", "ls")...)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{} // by reference
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 {
			digests[fields[0]] = fields[2]
		}
	}
	var old []string
	for ref := range digests {
		if strings.HasPrefix(ref, repository+":") && !slices.Contains(keep, ref) {
			old = append(old, ref)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	out, err = command.Output(ctx, k.Runner, ctr("containers", "ls")...)
	if err != nil {
		return nil, err
	}
	used := strings.Fields(out)
	removed = slices.DeleteFunc(old, func(ref string) bool { return slices.Contains(used, ref) })
	if len(removed) == 0 {
		return nil, nil
	}
	slices.Sort(removed)
	// containerd keeps a further name of each image for the kubelet, that of its
	// configuration, and with it the content.
	stays := map[string]bool{} // digests
	for ref, digest := range digests {
		if !strings.HasPrefix(ref, configuration) && !slices.Contains(removed, ref) {
			stays[digest] = true
		}
	}
	refs := slices.Clone(removed)
	for _, ref := range removed {
		for other, digest := range digests {
			if strings.HasPrefix(other, configuration) && digest == digests[ref] && !stays[digest] && !slices.Contains(refs, other) {
				refs = append(refs, other)
			}
		}
	}
	return removed, k.Runner.Run(ctx, command.Cmd{Args: ctr(append([]string{"images", "rm"}, refs...)...)})
}

// configuration begins the name that containerd gives an image after its configuration.
const configuration = "sha256:"
