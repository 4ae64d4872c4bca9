package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// loadImage loads the image into every node that does not have it.
func (e *Environment) loadImage(ctx context.Context, p Phase) error {
	return e.step(ctx, p, e.Timeouts.Load, func(ctx context.Context, step *timeline.Step) error {
		ref, err := e.Ref(p.Name)
		if err != nil {
			return err
		}
		nodes, err := e.nodes(ctx)
		if err != nil {
			return err
		}
		lacking, err := e.lacking(ctx, ref, nodes)
		if err != nil {
			return err
		}
		if len(lacking) == 0 {
			step.Cached("%s", ref)
			return nil
		}
		step.Detail("%s into %s", ref, strings.Join(lacking, ", "))
		if err := e.carry(ctx, p.Name, ref, lacking); err != nil {
			return err
		}
		// What an earlier run loaded and nothing runs any more; it is no longer in the manifests.
		// The image that is wanted is there, whatever stays. A new node held none of its name.
		for _, node := range lacking {
			held, err := e.imagesIn(ctx, node)
			if err == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(held)), func(other string) bool { return image.NameOf(other) == p.Name }) {
				continue
			}
			if _, err := e.adapters.Cluster.PruneImages(ctx, node, image.Repository+p.Name, ref, e.original[p.Name]); err != nil {
				fmt.Fprintf(timeline.Log(ctx), "%s: old images stay: %v\n", node, err)
			}
		}
		return nil
	})
}

// lacking are those of the nodes that do not have the image.
func (e *Environment) lacking(ctx context.Context, ref string, nodes []string) (lacking []string, err error) {
	for _, node := range nodes {
		held, err := e.imagesIn(ctx, node)
		if err != nil {
			return nil, err
		}
		if !held[ref] {
			lacking = append(lacking, node)
		}
	}
	return lacking, nil
}

// preload loads the images that are loaded first while the control plane is made, which
// leaves half of two cores idle. The phases that load them look again: what fails here they
// do, and say why it fails there. It waits for nodes that take images as long as creating
// lasts, a context within ctx.
func (e *Environment) preload(ctx, creating context.Context) {
	needed, err := e.Needed(e.Goals...)
	if err != nil {
		return
	}
	nodes, err := e.adapters.Cluster.Nodes(creating)
	if err == nil {
		err = e.adapters.Cluster.Booted(creating, nodes)
	}
	if err != nil {
		fmt.Fprintf(timeline.Log(ctx), "nothing is loaded yet: %v\n", err)
		return
	}
	var loads sync.WaitGroup
	for _, p := range e.graph.first {
		ref, err := e.Ref(p.Name)
		if err != nil || !slices.Contains(needed, p) {
			continue
		}
		lacking, err := e.lacking(ctx, ref, nodes)
		if err != nil || len(lacking) == 0 {
			continue
		}
		loads.Go(func() {
			_ = e.Timeline.Step(ctx, "preload", p.Name, func(ctx context.Context, step *timeline.Step) error {
				if err := e.carry(ctx, p.Name, ref, lacking); err != nil {
					step.Skipped("%v", err)
					return nil
				}
				step.Detail("%s while the cluster is made", ref)
				return nil
			})
		})
	}
	loads.Wait()
}

// carry loads an image of the engine's into nodes.
func (e *Environment) carry(ctx context.Context, name, ref string, nodes []string) error {
	archive, err := e.archive(ctx, name, ref)
	if err != nil {
		return err
	}
	return e.adapters.Cluster.Import(ctx, nodes, archive)
}

// archives is the folder with one archive of each image, that which was loaded last: the next
// cluster most likely gets the same. The nodes have it mounted.
func (e *Environment) archives() string { return e.state.Build("images") }

// archive returns the path of an image's archive in archives, where it is written unless it is
// there. That a reference of another's names the same image as before, nobody knows.
func (e *Environment) archive(ctx context.Context, name, ref string) (string, error) {
	file := filepath.Join(name, strings.NewReplacer("/", "-", ":", "-").Replace(ref)+".tar")
	whole := filepath.Join(e.archives(), file)
	if _, err := os.Stat(whole); err == nil && image.NameOf(ref) == name {
		return file, nil
	}
	folder := filepath.Dir(whole)
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return "", err
	}
	pending, err := renameio.NewPendingFile(whole, renameio.WithPermissions(0o644))
	if err != nil {
		return "", err
	}
	defer func() { _ = pending.Cleanup() }() // does nothing once it is in its place
	if err := e.adapters.Engine.Save(ctx, pending, ref); err != nil {
		return "", err
	}
	return file, pending.CloseAtomicallyReplace()
}

// nodes returns the nodes that run, asked once a run.
func (e *Environment) nodes(ctx context.Context) ([]string, error) {
	return once(e, "nodes", func() ([]string, error) { return e.adapters.Cluster.Nodes(ctx) })
}

// runs notes which nodes run, none when the cluster is gone, and forgets what is known of
// others.
func (e *Environment) runs(nodes []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.answers)
	if len(nodes) > 0 {
		e.answers["nodes"] = func() (any, error) { return nodes, nil }
	}
}

// ports returns what a node's ports are mapped to, asked once a run.
func (e *Environment) ports(ctx context.Context, node string) (map[cluster.Port]string, error) {
	return once(e, "ports of "+node, func() (map[cluster.Port]string, error) { return e.adapters.Cluster.Ports(ctx, node) })
}

// imagesIn returns what images a node has, asked once a run.
func (e *Environment) imagesIn(ctx context.Context, node string) (map[string]bool, error) {
	return once(e, "images of "+node, func() (map[string]bool, error) {
		refs, err := e.adapters.Cluster.Images(ctx, node)
		held := map[string]bool{}
		for _, ref := range refs {
			held[ref] = true
		}
		return held, err
	})
}

// once returns what ask answers, which is asked once until runs forgets it. Whoever comes
// meanwhile waits for the answer.
func once[T any](e *Environment, question string, ask func() (T, error)) (T, error) {
	e.mu.Lock()
	known, asked := e.answers[question]
	if !asked {
		known = sync.OnceValues(func() (any, error) { return ask() })
		e.answers[question] = known
	}
	e.mu.Unlock()
	answer, err := known()
	return answer.(T), err
}
