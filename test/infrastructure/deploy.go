package infrastructure

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Deploy applies the components as one step and waits until everything in them is
// ready. It fails early when something can no longer become ready, and says why.
func (e *Environment) Deploy(ctx context.Context, step string, components ...string) error {
	return e.step(ctx, "deploy", step, e.Timeouts.Deploy, func(ctx context.Context, step *timeline.Step) error {
		var objs []*unstructured.Unstructured
		for _, component := range components {
			rendered, err := e.render(component)
			if err != nil {
				return err
			}
			objs = append(objs, rendered...)
		}
		applier, err := e.connection()
		if err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.record.Deployed(e.deployed(components)...); err != nil {
				return err
			}
		}
		var removed apply.ChangeSet
		if slices.Contains(components, e.Components[0].Name) {
			// Before anything is applied: what goes may hold what comes, as a node port.
			if removed, err = applier.Prune(ctx, e.objects()); err != nil {
				return err
			}
		}
		changes, err := applier.Apply(ctx, objs)
		fmt.Fprintln(timeline.Log(ctx), slices.Concat(removed, changes))
		if err != nil {
			return err
		}
		if err := applier.Wait(ctx, changes); err != nil {
			return err
		}
		changes = slices.Concat(removed, changes)
		if slices.ContainsFunc(changes, func(c apply.Change) bool { return c.Action != apply.Unchanged }) {
			step.Detail("%s", changes.Summary())
		} else {
			step.Cached("%s", changes.Summary())
		}
		return nil
	})
}

// objects are those of all components.
func (e *Environment) objects() []*unstructured.Unstructured {
	var all []*unstructured.Unstructured
	for _, component := range e.Components {
		all = append(all, e.Objects[component.Name]...)
	}
	return all
}

// render builds a component with the references of this run's images.
func (e *Environment) render(component string) ([]*unstructured.Unstructured, error) {
	dir, ok := e.Overlays[component]
	if !ok {
		return nil, fmt.Errorf("component %q: not in the catalog", component)
	}
	e.mu.Lock()
	refs := maps.Clone(e.refs)
	e.mu.Unlock()
	objs, err := apply.Render(dir, refs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.relative(dir), err)
	}
	return objs, nil
}
