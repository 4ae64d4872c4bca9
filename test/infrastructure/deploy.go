package infrastructure

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// deployComponent applies the component and waits until everything in it is ready. It
// fails early when something can no longer become ready, and says why.
func (e *Environment) deployComponent(ctx context.Context, p Phase) error {
	return e.step(ctx, p, e.Timeouts.Deploy, func(ctx context.Context, step *timeline.Step) error {
		e.mu.Lock()
		refs := maps.Clone(e.refs)
		e.mu.Unlock()
		objs, err := apply.WithImages(e.Objects[p.Name], refs)
		if err != nil {
			return err
		}
		applier, err := e.applier()
		if err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.record.Deployed(e.deployed(p.Name)...); err != nil {
				return err
			}
		}
		var removed apply.ChangeSet
		if p.Name == e.Base {
			// Before anything is applied: what goes may hold what comes, as a node port.
			if removed, err = e.prune(ctx, applier); err != nil {
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
		sum, err := digestOf(objs)
		if err != nil {
			return err
		}
		if err := e.noteDeployed(p.Name, sum); err != nil {
			return err
		}
		if folder := e.component(p.Name).Data; folder != "" {
			if sum, err = e.dataOf(folder); err == nil {
				err = e.noteDeployed(folder, sum)
			}
			if err != nil {
				return err
			}
		}
		changes = slices.Concat(removed, changes)
		if slices.ContainsFunc(changes, func(c apply.Change) bool { return c.Action != apply.Unchanged }) {
			step.Detail("%s", changes.Summary())
		} else {
			step.Cached("%s", changes.Summary())
		}
		if !e.complete(p.Name) {
			return nil
		}
		return e.writeTarget(ctx)
	})
}

// everything is what stands, beside the components, for all of them in what is noted as
// deployed. No component is called so.
const everything = "*"

// prune removes what the manifests have no more. Where they are what they were when that
// was done last, nothing else can have been made since, and nobody looks through all kinds.
func (e *Environment) prune(ctx context.Context, applier Applier) (apply.ChangeSet, error) {
	sum, err := digestOf(e.objects())
	if err != nil || e.state.Deployed()[everything] == sum {
		return nil, err
	}
	removed, err := applier.Prune(ctx, e.objects())
	if err != nil {
		return removed, err
	}
	return removed, e.noteDeployed(everything, sum)
}

// noteDeployed notes the digest of what a component was made of.
func (e *Environment) noteDeployed(component, sum string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	deployed := e.state.Deployed()
	deployed[component] = sum
	return e.state.NoteDeployed(deployed)
}

// digestOf identifies objects.
func digestOf(objs []*unstructured.Unstructured) (string, error) {
	inputs := fingerprint.New()
	for _, obj := range objs {
		data, err := obj.MarshalJSON()
		if err != nil {
			return "", err
		}
		inputs.Text(apply.RefOf(obj).String(), string(data))
	}
	return inputs.Sum()
}

// objects are those of all components.
func (p *Plan) objects() []*unstructured.Unstructured {
	var all []*unstructured.Unstructured
	for _, component := range p.Components {
		all = append(all, p.Objects[component.Name]...)
	}
	return all
}

// complete tells whether something works on what has been deployed with this component.
func (p *Plan) complete(component string) bool {
	return slices.ContainsFunc(p.Suites, func(suite Suite) bool { return slices.Contains(suite.Needs, component) }) ||
		slices.ContainsFunc(p.Programs, func(program Program) bool { return slices.Contains(program.Needs, component) })
}
