package infrastructure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/kind/pkg/apis/config/defaults"
)

// Catalog is what there is to build, load, deploy and test, as data. Another
// repository adopts this project with a catalog of its own: no phase knows a name
// that is not in one. What must come before what is derived from it and from the
// manifests.
type Catalog struct {
	Namespace  string // where the components run
	Node       string // name of the image that is the cluster's nodes
	Base       string // component that every cluster has, e.g. namespace and CRDs; empty for none
	Images     []ImageSpec
	Components []Component
	Suites     []Suite // in the order in which they run when several do
	Programs   []Program
}

// ImageSpec is one image. Its folder is docker/<Name>, its name is what manifests
// call it.
type ImageSpec struct {
	Name string
	// Package is the Go package of a service that is built here, relative to the
	// checkout, e.g. ./docker/gateway. Empty for third-party images.
	Package string
	// Pull is the pinned reference of a third-party image. Where no registry can
	// be reached the image is built from the folder instead.
	Pull string
}

// Component is what is deployed in one step and waited for together. Which images it
// needs is read from its objects.
type Component struct {
	Name string
	// Manifests are folders below manifests/, each with base, which any cluster could have,
	// with kind where one of Kind needs something else, and with coverage where that variant
	// differs. Empty means one that is called as the component is.
	Manifests []string
	After     []string // components that must be ready before
	// With are components that it works with but can start before, as one does that waits
	// for them by itself: they are deployed wherever it is, and it is ready when it can work.
	With []string
	// Data is a folder of the checkout that decides what the component makes of the data in
	// the cluster, as SQL migrations do: a state that was kept of another is of no use.
	// Empty for none.
	Data string
}

// Suite is one Ginkgo suite.
type Suite struct {
	Name    string
	Package string   // relative to the checkout; empty means ./test/e2e/<Name>
	Needs   []string // components
	Covers  []string // services that E2E_COVERAGE_MIN is asked of when it ran; empty means the one of its name
}

// Program is a program that works on a deployed environment, as a benchmark does. It is
// told which by E2E_TARGET, and what it prints is the result.
type Program struct {
	Name    string
	Package string   // relative to the checkout
	Needs   []string // components; none for one that makes a cluster of its own
	Suites  []string // suites that it runs by itself
}

// Kubernaut is this project's own catalog.
func Kubernaut() Catalog {
	return Catalog{
		Namespace: "kubernaut-system",
		Node:      "kind-node",
		Base:      "cluster",
		Images: []ImageSpec{
			{Name: "gateway", Package: "./docker/gateway"},
			{Name: "datastorage", Package: "./docker/datastorage"},
			{Name: "kind-node", Pull: "docker.io/" + defaults.Image},
			{Name: "postgres", Pull: "docker.io/library/postgres:17.6"},
			{Name: "redis", Pull: "docker.io/library/redis:8.2"},
			{Name: "alertmanager", Pull: "quay.io/prometheus/alertmanager:v0.35.0"},
		},
		Components: []Component{
			{Name: "cluster"},
			{Name: "infra", Manifests: []string{"postgres", "redis"}},
			{Name: "migrations", After: []string{"infra"}, Data: "docker/datastorage/migrations"},
			{Name: "datastorage", With: []string{"migrations"}},
			{Name: "gateway", With: []string{"datastorage"}},
			{Name: "alertmanager"},
		},
		Suites: []Suite{
			{Name: "datastorage", Needs: []string{"datastorage"}},
			// Last: at its end hundreds of namespaces are deleted, which the cluster is busy
			// with for a while.
			{Name: "gateway", Needs: []string{"gateway", "alertmanager"}},
		},
		Programs: []Program{
			{Name: "bench", Package: "./test/bench/cmd", Needs: []string{"gateway", "alertmanager"}},
			{Name: "orderings", Package: "./test/bench/orderings/cmd"},
			{Name: "mutants", Package: "./test/mutants/cmd", Needs: []string{"gateway", "alertmanager"}, Suites: []string{"gateway", "datastorage"}},
		},
	}
}

// check refuses a catalog that contradicts itself, naming every place.
func (c Catalog) check() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	images, components, suites := map[string]bool{}, map[string]bool{}, map[string]bool{}
	once := func(seen map[string]bool, what, name string) {
		if name == "" {
			problem("%s without a name", what)
		}
		if seen[name] {
			problem("%s %s: is in the catalog twice", what, name)
		}
		seen[name] = true
	}
	for _, image := range c.Images {
		once(images, "image", image.Name)
	}
	for _, component := range c.Components {
		once(components, "component", component.Name)
	}
	known := func(all map[string]bool, who, does string, names ...string) {
		for _, name := range names {
			if !all[name] {
				problem("%s %s %q, which is not in the catalog; there are: %s", who, does, name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
			}
		}
	}
	known(images, "the cluster", "has nodes of image", c.Node)
	if c.Base != "" {
		known(components, "the cluster", "has the base component", c.Base)
	}
	for _, component := range c.Components {
		known(components, "component "+component.Name, "comes after", component.After...)
		known(components, "component "+component.Name, "works with", component.With...)
		if component.Name == c.Base && len(component.After)+len(component.With) > 0 {
			problem("component %s: is the base of the cluster and comes after nothing, nor does it work with anything", component.Name)
		}
	}
	for _, suite := range c.Suites {
		once(suites, "suite", suite.Name)
		known(components, "suite "+suite.Name, "needs", suite.Needs...)
		known(images, "suite "+suite.Name, "covers", suite.Covers...)
	}
	for _, program := range c.Programs {
		known(components, "program "+program.Name, "needs", program.Needs...)
		known(suites, "program "+program.Name, "runs the suite", program.Suites...)
	}
	return errors.Join(problems...)
}

// imageNames are those of the images that match.
func (c Catalog) imageNames(match func(ImageSpec) bool) []string {
	var names []string
	for _, image := range c.Images {
		if match(image) {
			names = append(names, image.Name)
		}
	}
	return names
}

// image returns the catalog's entry.
func (c Catalog) image(name string) (ImageSpec, error) {
	for _, img := range c.Images {
		if img.Name == name {
			return img, nil
		}
	}
	return ImageSpec{}, fmt.Errorf("image %q: not in the catalog", name)
}

// component returns the catalog's entry.
func (c Catalog) component(name string) Component {
	at := slices.IndexFunc(c.Components, func(component Component) bool { return component.Name == name })
	return c.Components[at]
}

// together are components, and all that they come after or work with.
func (c Catalog) together(names []string) []string {
	names = slices.Clone(names)
	for i := 0; i < len(names); i++ {
		at := slices.IndexFunc(c.Components, func(component Component) bool { return component.Name == names[i] })
		if at < 0 {
			continue // whoever asks for it is told
		}
		for _, other := range slices.Concat(c.Components[at].After, c.Components[at].With) {
			if !slices.Contains(names, other) {
				names = append(names, other)
			}
		}
	}
	return names
}

// suite returns the catalog's entry, complete.
func (c Catalog) suite(name string) (Suite, error) {
	for _, suite := range c.Suites {
		if suite.Name != name {
			continue
		}
		if suite.Package == "" {
			suite.Package = "./test/e2e/" + name
		}
		if len(suite.Covers) == 0 {
			suite.Covers = []string{name}
		}
		return suite, nil
	}
	return Suite{}, fmt.Errorf("suite %q: not in the catalog", name)
}

// folders are the component's folders below manifests/.
func (c Component) folders() []string {
	if len(c.Manifests) > 0 {
		return c.Manifests
	}
	return []string{c.Name}
}
