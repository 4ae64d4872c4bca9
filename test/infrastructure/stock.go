package infrastructure

import (
	"context"
	"fmt"
	"io"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// stocked returns the image that a cluster's nodes are created of, for the node image. Where
// that is built here it is one that holds the third-party images as well, which are the same
// for every cluster and need not be sent into each: that takes ten seconds, once. Where it
// cannot be made, they are loaded.
func (e *Environment) stocked(ctx context.Context, step *timeline.Step, node string) string {
	name := e.Node + "-stocked"
	inputs := fingerprint.New().Text("node", node).Text("script", bootstrap.StockScript)
	var refs []string
	e.mu.Lock()
	for _, spec := range e.Images {
		if ref := e.refs[spec.Name]; spec.Package == "" && spec.Name != e.Node && ref != "" {
			refs = append(refs, ref)
			inputs.Text("image", ref)
		}
	}
	packaged := e.packaged[e.Node]
	e.mu.Unlock()
	if !packaged || len(refs) == 0 {
		return node
	}
	sum, err := inputs.Sum()
	ref := image.Ref(name, sum)
	var found map[string]bool
	if err == nil {
		found, err = e.adapters.Engine.Exist(ctx, ref)
	}
	if err == nil && !found[ref] {
		step.Status("putting %d images into its node image", len(refs))
		save := func(ctx context.Context, w io.Writer) error { return e.adapters.Engine.Save(ctx, w, refs...) }
		err = bootstrap.Stock(ctx, e.adapters.Engine, node, save, bootstrap.Job{
			Work: e.state.Build(name), Ref: ref, Label: image.Label + "=" + name,
		})
		if err == nil {
			e.pruneImages(ctx, ImageSpec{Name: name}, ref)
		}
	}
	if err != nil {
		fmt.Fprintf(timeline.Log(ctx), "the third-party images are loaded, and not in the node image: %v\n", err)
		return node
	}
	return ref
}
