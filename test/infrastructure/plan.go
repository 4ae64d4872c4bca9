package infrastructure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/modfile"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
)

// Plan is everything a run will do, decided before anything is done. It is made by
// NewPlan from a catalog and a configuration, reads files and runs nothing. Its phases
// and their order are derived, see Phases and Before.
type Plan struct {
	Config
	Catalog
	Root        string // the checkout, absolute, without symbolic links
	ClusterName string // belongs to the checkout and variant
	Timeouts    Timeouts
	Goals       []Phase // what the run is for; empty leaves open
	Target      string  // how whoever started the run calls it, e.g. e2e:gateway

	// Evidence is where the run's log/, junit/ and timeline.json go. Empty means a new
	// folder below .e2e, which Open makes. A run with a folder of its own is part of
	// another, which has the cluster's lock.
	Evidence string
	// Overlay is a file for `go build -overlay`: services are built with the sources it
	// names in place of the checkout's. What is built lies beside it. Empty builds the
	// checkout.
	Overlay string

	// Objects are the components' manifests, with images by their catalog names.
	Objects map[string][]*unstructured.Unstructured
	// Module is the module path in go.mod.
	Module string
	// KindVersion is the version of the kind library in go.mod; Kubernetes is the
	// version of the node image that is built here. Empty where there is none.
	KindVersion string
	Kubernetes  string

	// NodePorts are the fixed node ports of the Services in the manifests, which are
	// the one place where a port is written. Each gets a free port of 127.0.0.1.
	NodePorts []apply.NodePort

	graph *graph
}

// Timeouts are the deadlines of the phases. Each is several times what the phase
// takes on two cores, so that only a hang meets it, and the suite's own timeouts
// lie inside.
type Timeouts struct {
	Build   time.Duration // of one image of this project's; on an empty machine it shares the cores with Kubernetes, and was seen to meet 15 min where tests ran beside them
	Obtain  time.Duration // of one third-party image; compiling Kubernetes cold takes 15 min on two cores
	Cluster time.Duration // creation, from start to Ready
	Load    time.Duration // one image into every node
	Deploy  time.Duration // one component, until ready
	Suite   time.Duration // one suite; passed to Ginkgo, which then reports where it stood
	Program time.Duration // a program, which bounds itself more closely; a mutant takes a minute or two
	Gather  time.Duration // diagnostics after a failure
	Collect time.Duration // coverage: every pod may take its grace period to end, and Go compiles its tools when they are first used
	Delete  time.Duration // teardown
}

// FirstAnswer is how long a registry may take to begin answering.
const FirstAnswer = 15 * time.Second

func defaultTimeouts() Timeouts {
	return Timeouts{
		Build: 45 * time.Minute, Obtain: 75 * time.Minute, Cluster: 5 * time.Minute, Load: 5 * time.Minute,
		Deploy: 3 * time.Minute, Suite: 20 * time.Minute, Program: 3 * time.Hour, Gather: time.Minute, Collect: 5 * time.Minute, Delete: time.Minute,
	}
}

// named are the timeouts by the ends of the names of their variables, E2E_TIMEOUT_...
func (t *Timeouts) named() map[string]*time.Duration {
	return map[string]*time.Duration{
		"BUILD": &t.Build, "OBTAIN": &t.Obtain, "CLUSTER": &t.Cluster, "LOAD": &t.Load, "DEPLOY": &t.Deploy,
		"SUITE": &t.Suite, "PROGRAM": &t.Program, "GATHER": &t.Gather, "COLLECT": &t.Collect, "DELETE": &t.Delete,
	}
}

// Outline is a plan without manifests, for what must work while one of them is broken:
// it has names, folders and timeouts, and no phases.
func Outline(root string, catalog Catalog, config Config) (*Plan, error) {
	own, err := checkout.At(root)
	if err != nil {
		return nil, err
	}
	plan := &Plan{
		Config: config, Catalog: catalog, Root: own.Root, Timeouts: defaultTimeouts(),
		Objects: map[string][]*unstructured.Unstructured{}, graph: &graph{},
	}
	for name, value := range config.Deadlines {
		*plan.Timeouts.named()[name] = value
	}
	if t := plan.Timeouts; t.Suite <= t.Gather {
		return nil, fmt.Errorf("E2E_TIMEOUT_SUITE: a suite has %s less the %s of E2E_TIMEOUT_GATHER, which leaves nothing", t.Suite, t.Gather)
	}
	plan.ClusterName = own.Cluster(config.Variant.suffix()).Name
	data, err := os.ReadFile(filepath.Join(own.Root, "go.mod"))
	if err != nil {
		return nil, err
	}
	plan.Module = modfile.ModulePath(data)
	if plan.KindVersion, err = required(filepath.Join(own.Root, "go.mod"), "sigs.k8s.io/kind"); err != nil {
		return nil, err
	}
	plan.Kubernetes, err = required(filepath.Join(own.Root, "docker", catalog.Node, "go.mod"), "k8s.io/kubernetes")
	return plan, err
}

// NewPlan decides. It refuses manifests with a field that Kubernetes does not
// know, an image that the catalog does not have, or two Services with one node
// port, and a catalog that contradicts itself, before anything is built.
func NewPlan(root string, catalog Catalog, config Config) (*Plan, error) {
	plan, err := Outline(root, catalog, config)
	if err != nil {
		return nil, err
	}
	if strings.Contains(plan.Root, ":") {
		return nil, fmt.Errorf("%s: has a colon in its path, which container engines cannot mount; move the checkout", plan.Root)
	}
	problems := make([]error, len(catalog.Components))
	var wait sync.WaitGroup
	rendered := make([][]*unstructured.Unstructured, len(catalog.Components))
	for i, component := range catalog.Components {
		wait.Go(func() { rendered[i], problems[i] = plan.render(component) })
	}
	wait.Wait()
	images := map[string][]string{}
	taken := map[cluster.Port]string{}
	for i, component := range catalog.Components {
		plan.Objects[component.Name] = rendered[i]
		images[component.Name] = apply.Images(rendered[i])
		for _, port := range apply.NodePorts(rendered[i]) {
			key := cluster.Port{Number: port.NodePort, Protocol: port.Protocol}
			if other, ok := taken[key]; ok {
				problems[i] = errors.Join(problems[i], fmt.Errorf("%s: Services %s and %s ask for the same node port %s",
					strings.Join(plan.overlays(component), ", "), other, port.Service, key))
			}
			taken[key] = port.Service
			plan.NodePorts = append(plan.NodePorts, port)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if plan.graph, err = newGraph(catalog, images, config.Ordering); err != nil {
		return nil, err
	}
	return plan, plan.allowed(config.Budgets)
}

// render builds a component's manifests, with images by their catalog names.
func (p *Plan) render(component Component) ([]*unstructured.Unstructured, error) {
	names := map[string]string{}
	for _, img := range p.Images {
		names[img.Name] = img.Name
	}
	var all []*unstructured.Unstructured
	var problems []error
	for _, dir := range p.overlays(component) {
		if _, err := os.Stat(filepath.Join(p.Root, dir)); err != nil {
			problems = append(problems, fmt.Errorf("component %s: has no folder %s", component.Name, dir))
			continue
		}
		objs, err := apply.Render(filepath.Join(p.Root, dir), names)
		if err == nil {
			err = apply.Validate(objs)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", dir, err))
		}
		all = append(all, objs...)
	}
	return all, errors.Join(problems...)
}

// overlays are the folders of a component, relative to the checkout: the variant's own where
// there is one, else what it needs in a Kind cluster, else base.
func (p *Plan) overlays(component Component) []string {
	var dirs []string
	for _, folder := range component.folders() {
		dir := filepath.Join("manifests", folder, "base")
		for _, overlay := range []string{"kind", string(Coverage)} {
			special := filepath.Join("manifests", folder, overlay)
			if _, err := os.Stat(filepath.Join(p.Root, special)); err == nil && (overlay == "kind" || p.Variant == Coverage) {
				dir = special
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// required is the version of a module that a go.mod asks for.
func required(file, module string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	mod, err := modfile.ParseLax(file, data, nil)
	if err != nil {
		return "", err
	}
	for _, require := range mod.Require {
		if require.Mod.Path == module {
			return require.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s: does not require %s", file, module)
}

// cluster is what the checkout keeps of the plan's cluster.
func (p *Plan) cluster() checkout.Cluster {
	return checkout.Cluster{Checkout: checkout.Checkout{Root: p.Root}, Name: p.ClusterName}
}

// BuildFolder is a folder for what is built for the plan's cluster and is no evidence.
func (p *Plan) BuildFolder(name string) string { return p.cluster().Build(name) }

// relative is a path as the user would type it in the checkout.
func (p *Plan) relative(path string) string {
	if short, err := filepath.Rel(p.Root, path); err == nil && !strings.HasPrefix(short, "..") {
		return short
	}
	return path
}
