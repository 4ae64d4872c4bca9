package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Images returns the references that the node's containerd holds.
func (k Kind) Images(ctx context.Context, node string) ([]string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
	return strings.Fields(out), err
}

// Import streams one image archive into every given node at once. save writes the
// archive; it is called once.
func (k Kind) Import(ctx context.Context, nodes []string, save func(context.Context, io.Writer) error) error {
	group, ctx := errgroup.WithContext(ctx)
	writers := make([]io.Writer, len(nodes))
	closers := make([]*io.PipeWriter, len(nodes))
	for i, node := range nodes {
		r, w := io.Pipe()
		writers[i], closers[i] = w, w
		group.Go(func() error {
			err := k.Runner.Run(ctx, command.Cmd{
				Args:  []string{k.Engine, "exec", "--interactive", node, "ctr", "--namespace", "k8s.io", "images", "import", "-"},
				Stdin: r,
			})
			if err != nil {
				err = fmt.Errorf("node %s: %w", node, err)
			}
			r.CloseWithError(err) // a writer must not wait for a reader that is gone
			return err
		})
	}
	group.Go(func() error {
		err := save(ctx, io.MultiWriter(writers...))
		for _, w := range closers {
			w.CloseWithError(err)
		}
		return err
	})
	return group.Wait()
}

// PruneImages removes from a node the references of a repository that neither keep names
// nor a container of the node runs, and returns them.
func (k Kind) PruneImages(ctx context.Context, node, repository string, keep ...string) (removed []string, err error) {
	held, err := k.Images(ctx, node)
	if err != nil {
		return nil, err
	}
	held = slices.DeleteFunc(held, func(ref string) bool {
		return !strings.HasPrefix(ref, repository+":") || slices.Contains(keep, ref)
	})
	if len(held) == 0 {
		return nil, nil
	}
	out, err := command.Output(ctx, k.Runner, k.Engine, "exec", node, "ctr", "--namespace", "k8s.io", "containers", "ls")
	if err != nil {
		return nil, err
	}
	used := strings.Fields(out)
	held = slices.DeleteFunc(held, func(ref string) bool { return slices.Contains(used, ref) })
	if len(held) == 0 {
		return nil, nil
	}
	// By the runtime's own interface: it keeps further names of each image, that would keep
	// its content.
	return held, k.Runner.Run(ctx, command.Cmd{Args: append([]string{k.Engine, "exec", node, "crictl", "rmi"}, held...)})
}
