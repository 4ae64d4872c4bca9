package infrastructure

import (
	"context"
	"io"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Load streams the image into every node that does not have it.
func (e *Environment) Load(ctx context.Context, name string) error {
	return e.step(ctx, "load", name, e.Timeouts.Load, func(ctx context.Context, step *timeline.Step) error {
		ref, err := e.Ref(name)
		if err != nil {
			return err
		}
		nodes, err := e.Cluster.Nodes(ctx)
		if err != nil {
			return err
		}
		var lacking []string
		for _, node := range nodes {
			held, err := e.held(ctx, node)
			if err != nil {
				return err
			}
			if !held[ref] {
				lacking = append(lacking, node)
			}
		}
		if len(lacking) == 0 {
			step.Cached("%s", ref)
			return nil
		}
		step.Detail("%s into %s", ref, strings.Join(lacking, ", "))
		err = e.Cluster.Import(ctx, lacking, func(ctx context.Context, w io.Writer) error {
			return e.Engine.Save(ctx, w, ref)
		})
		if err != nil {
			return err
		}
		// What an earlier run loaded and nothing runs any more; it is no longer in the manifests.
		for _, node := range lacking {
			if _, err := e.Cluster.PruneImages(ctx, node, image.Repository+name, ref); err != nil {
				return err
			}
		}
		return nil
	})
}

// held returns what images a node has, asked once a run.
func (e *Environment) held(ctx context.Context, node string) (map[string]bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if held, ok := e.nodeImages[node]; ok {
		return held, nil
	}
	refs, err := e.Cluster.Images(ctx, node)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, ref := range refs {
		held[ref] = true
	}
	e.nodeImages[node] = held
	return held, nil
}
