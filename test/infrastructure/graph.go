package infrastructure

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind is what a phase does.
type Kind string

// The kinds of phases.
const (
	CompileServices Kind = "compile"       // the programs of all services; without a name
	CompileSuite    Kind = "compile-suite" // by the suite's name
	CompileProgram  Kind = "compile-program"
	BuildImage      Kind = "build"  // by the image's name
	CreateCluster   Kind = "create" // without a name
	LoadImage       Kind = "load"
	DeployComponent Kind = "deploy"
	RunSuite        Kind = "suite"
	RunProgram      Kind = "program"
)

// Phase is one thing that a run does, and of what.
type Phase struct {
	Kind Kind
	Name string // in the catalog; empty where there is one of a kind
}

// String is the phase as the timeline calls its step, e.g. build/gateway.
func (p Phase) String() string {
	phase, name := p.step()
	return phase + "/" + name
}

// step is what the timeline calls the phase.
func (p Phase) step() (phase, name string) {
	switch p.Kind {
	case CompileServices:
		return "build", "compile"
	case CompileSuite:
		return "build", "suite-" + p.Name
	case CompileProgram:
		return "build", "program-" + p.Name
	case CreateCluster:
		return "cluster", "create"
	case RunProgram:
		return p.Name, p.Name
	case BuildImage, LoadImage, DeployComponent, RunSuite:
	}
	return string(p.Kind), p.Name
}

// Builds tells whether the phase makes something that a cluster would wait for.
func (p Phase) Builds() bool {
	return slices.Contains([]Kind{CompileServices, CompileSuite, CompileProgram, BuildImage}, p.Kind)
}

// graph is every phase there is, each after those that must come before it.
type graph struct {
	phases []Phase
	before map[Phase][]Phase
	first  []Phase // loads of images that all other loads wait for
}

// Ordering is how building and the cluster follow each other, which nothing in them demands.
type Ordering string

// The orderings. Runs have the first; the others are there to be measured against it.
const (
	// Hybrid builds every image before the cluster is made: none idles, and none is made for
	// a build that fails.
	Hybrid Ordering = ""
	// ClusterFirst builds the services when the cluster stands, which is idle meanwhile.
	ClusterFirst Ordering = "standard"
	// Overlapped builds beside the creation.
	Overlapped Ordering = "overlapped"
)

// newGraph derives the phases from what the catalog says and from the images that the
// objects of its components name. The rules, beside those of the ordering:
//
//   - the cluster is made of its node's image, which may hold the other third-party ones;
//   - an image is loaded when it is built and there is a cluster, and a component deployed into one
//     that has the base component;
//   - the images of components that others come after or work with, and that need no other
//     themselves, are loaded first: what they run, the databases, takes longest to come up,
//     so it gets the machine first and everything else is loaded while it starts. What of
//     that can be done while the cluster is made is done then, see preload;
//   - a component comes after the images that its objects name and after what it says;
//   - a suite or program comes after the components that it needs, and all that they work with.
func newGraph(catalog Catalog, images map[string][]string, ordering Ordering) (*graph, error) {
	if err := catalog.check(); err != nil {
		return nil, err
	}
	if run := images[catalog.Base]; catalog.Base != "" && len(run) > 0 {
		return nil, fmt.Errorf("component %s: is the base of the cluster and may run nothing; it names %s", catalog.Base, strings.Join(run, ", "))
	}
	components, err := inOrder(catalog.Components)
	if err != nil {
		return nil, err
	}
	g := &graph{before: map[Phase][]Phase{}}
	add := func(p Phase, before ...Phase) {
		g.phases = append(g.phases, p)
		g.before[p] = before
	}

	// What takes longest is first: third-party images may have to be compiled, and the
	// suites with the race detector take longer than the services.
	builds := all(BuildImage, catalog.imageNames(func(image ImageSpec) bool { return image.Package == "" }))
	for _, build := range builds {
		add(build)
	}
	for _, suite := range catalog.Suites {
		add(Phase{CompileSuite, suite.Name})
	}
	for _, program := range catalog.Programs {
		add(Phase{CompileProgram, program.Name})
	}
	compile := Phase{Kind: CompileServices}
	add(compile)
	services := all(BuildImage, catalog.imageNames(func(image ImageSpec) bool { return image.Package != "" }))
	for _, build := range services {
		add(build, compile)
	}

	create := Phase{Kind: CreateCluster}
	add(create, builds...)
	ready := create
	if catalog.Base != "" {
		ready = Phase{DeployComponent, catalog.Base}
		add(ready, create)
	}

	var awaited []string
	for _, component := range components {
		awaited = slices.Concat(awaited, component.After, component.With)
	}
	var first []Phase
	for _, component := range components {
		if len(component.After)+len(component.With) == 0 && slices.Contains(awaited, component.Name) {
			for _, load := range all(LoadImage, images[component.Name]) {
				if !slices.Contains(first, load) {
					first = append(first, load)
				}
			}
		}
	}
	g.first = first
	for _, load := range first {
		add(load, create, Phase{BuildImage, load.Name})
	}
	for _, name := range catalog.imageNames(func(image ImageSpec) bool { return image.Name != catalog.Node }) {
		load := Phase{LoadImage, name}
		switch {
		case slices.Contains(first, load):
		case len(first) == 0:
			add(load, create, Phase{BuildImage, name})
		default:
			add(load, append(slices.Clone(first), Phase{BuildImage, name})...)
		}
	}

	for _, component := range components {
		if component.Name == catalog.Base {
			continue
		}
		add(Phase{DeployComponent, component.Name}, slices.Concat(
			[]Phase{ready}, all(DeployComponent, component.After), all(LoadImage, images[component.Name]))...)
	}
	for _, suite := range catalog.Suites {
		add(Phase{RunSuite, suite.Name}, append(all(DeployComponent, catalog.together(suite.Needs)), Phase{CompileSuite, suite.Name})...)
	}
	for _, program := range catalog.Programs {
		add(Phase{RunProgram, program.Name}, slices.Concat(all(DeployComponent, catalog.together(program.Needs)),
			all(CompileSuite, program.Suites), []Phase{{CompileProgram, program.Name}})...)
	}
	switch ordering {
	case Hybrid:
		g.before[create] = append(g.before[create], services...)
	case ClusterFirst:
		g.before[compile] = []Phase{ready}
		for _, phase := range g.phases {
			if phase.Kind == LoadImage {
				g.before[phase] = append(g.before[phase], services...)
			}
		}
	case Overlapped:
	}
	return g, nil
}

// all are phases of one kind.
func all(kind Kind, names []string) []Phase {
	phases := make([]Phase, len(names))
	for i, name := range names {
		phases[i] = Phase{kind, name}
	}
	return phases
}

// inOrder sorts components so that each comes after those that it comes after or works with,
// and otherwise as they are.
func inOrder(components []Component) ([]Component, error) {
	var sorted []Component
	state := map[string]int{} // 1: its turn has come; 2: it is in
	var visit func(component Component, path []string) error
	visit = func(component Component, path []string) error {
		path = append(path, component.Name)
		switch state[component.Name] {
		case 1:
			return fmt.Errorf("components %s: each comes after the next, or works with it", strings.Join(path[slices.Index(path, component.Name):], ", "))
		case 2:
			return nil
		}
		state[component.Name] = 1
		for _, name := range slices.Concat(component.After, component.With) {
			at := slices.IndexFunc(components, func(other Component) bool { return other.Name == name })
			if err := visit(components[at], path); err != nil {
				return err
			}
		}
		state[component.Name] = 2
		sorted = append(sorted, component)
		return nil
	}
	for _, component := range components {
		if err := visit(component, nil); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

// Phases returns everything that there is to do, each phase after those that come before
// it, in the Hybrid ordering. The list is the caller's.
func (p *Plan) Phases() []Phase { return slices.Clone(p.graph.phases) }

// Before returns what must be done before the phase: its direct predecessors.
func (p *Plan) Before(phase Phase) []Phase { return slices.Clone(p.graph.before[phase]) }

// Goal returns the phases of one kind by name, in the order of Phases; all of them without
// a name.
func (p *Plan) Goal(kind Kind, names ...string) ([]Phase, error) {
	if kind == DeployComponent {
		names = p.together(names)
	}
	goals := all(kind, names)
	for _, phase := range p.graph.phases {
		if phase.Kind == kind && len(names) == 0 {
			goals = append(goals, phase)
		}
	}
	_, err := p.Needed(goals...)
	return goals, err
}

// Needed returns the phases that goals need, with the goals, in the order of Phases. A
// goal that the plan does not have is an error.
func (p *Plan) Needed(goals ...Phase) ([]Phase, error) {
	needed := map[Phase]bool{}
	var visit func(Phase)
	visit = func(phase Phase) {
		if !needed[phase] {
			needed[phase] = true
			for _, before := range p.graph.before[phase] {
				visit(before)
			}
		}
	}
	var problems []error
	for _, goal := range goals {
		if _, known := p.graph.before[goal]; !known {
			problems = append(problems, fmt.Errorf("%s: not in the plan; there are: %s", goal, names(p.graph.phases, goal.Kind)))
		}
		visit(goal)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(p.Phases(), func(phase Phase) bool { return !needed[phase] }), nil
}

func names(phases []Phase, kind Kind) string {
	var found []string
	for _, phase := range phases {
		if phase.Kind == kind {
			found = append(found, phase.Name)
		}
	}
	return strings.Join(found, ", ")
}
