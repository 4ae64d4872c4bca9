package infrastructure

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/image"
)

// Status prints what of the environment is there: cluster, nodes and endpoints.
func (e *Environment) Status(ctx context.Context, out io.Writer) error {
	all, err := e.Cluster.All(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintf(out, "cluster     %s: not there; make it: %s\n", e.ClusterName, e.command("cluster:create"))
		return nil
	}
	running, err := e.Cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster     %s (%s, %s)\nnodes       %s, running: %s\nkubeconfig  %s\n",
		e.ClusterName, e.EngineName, e.Variant, strings.Join(all, " "), strings.Join(running, " "), e.kubeconfig())
	t, err := target.Read(func(string) string { return e.targetFile() }, e.Root)
	if err != nil {
		fmt.Fprintf(out, "deployed    nothing that a suite could test: %v\n", err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(t.Endpoints)) {
		fmt.Fprintf(out, "endpoint    %-32s %s\n", name, t.Endpoints[name])
	}
	return nil
}

// Clean removes the images that this project made and the build folder. Images that
// another checkout shares are made again there when it needs them.
func (e *Environment) Clean(ctx context.Context) error {
	refs, err := e.Engine.Images(ctx, image.Label)
	if err != nil {
		return err
	}
	refs = slices.DeleteFunc(refs, func(ref string) bool { return !strings.HasPrefix(ref, image.Repository) })
	if err := e.Engine.Remove(ctx, refs...); err != nil {
		return err
	}
	e.Timeline.Say("removed %d images", len(refs))
	return os.RemoveAll(e.Root + "/.e2e")
}
