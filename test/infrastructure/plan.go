package infrastructure

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
)

// Plan is everything a run will do, decided before anything is done. It is made by
// NewPlan from a catalog and a configuration, reads files and runs nothing.
type Plan struct {
	Config
	Catalog
	Root        string // the checkout, absolute
	ClusterName string // belongs to the checkout and variant
	Dir         string // evidence folder, .e2e/<cluster>
	Timeouts    Timeouts

	// EvidenceDir is where this run's log/, junit/ and timeline.json go; empty means
	// Dir.
	EvidenceDir string
	// Overlay is a file for `go build -overlay`: services are built with the sources it
	// names in place of the checkout's. What is built lies beside it. Empty builds the
	// checkout.
	Overlay string

	// Objects are the components' manifests, with images by their catalog names.
	Objects map[string][]*unstructured.Unstructured
	// Module is the module path in go.mod.
	Module string
	// KindVersion is the version of the kind library in go.mod; Kubernetes is the
	// version of the node image that is built here.
	KindVersion string
	Kubernetes  string

	// Overlays maps a component to the folder that is rendered for it.
	Overlays map[string]string
	// NodePorts are the fixed node ports of the Services in the manifests, which are
	// the one place where a port is written. Each gets a free port of 127.0.0.1.
	NodePorts []apply.NodePort
}

// Timeouts are the deadlines of the phases. Each is several times what the phase
// takes on two cores, so that only a hang meets it, and the suite's own timeouts
// lie inside.
type Timeouts struct {
	Build   time.Duration // of one image of this project's
	Obtain  time.Duration // of one third-party image; compiling Kubernetes cold takes 15 min on two cores
	Cluster time.Duration // creation, from start to Ready
	Load    time.Duration // one image into every node
	Deploy  time.Duration // one component, until ready
	Suite   time.Duration // one suite; passed to Ginkgo, which then reports where it stood
	Gather  time.Duration // diagnostics after a failure
	Collect time.Duration // coverage: every pod may take its grace period to end, and Go compiles its tools when they are first used
	Delete  time.Duration // teardown
}

// FirstAnswer is how long a registry may take to begin answering.
const FirstAnswer = 15 * time.Second

func defaultTimeouts() Timeouts {
	return Timeouts{
		Build: 15 * time.Minute, Obtain: 75 * time.Minute, Cluster: 5 * time.Minute, Load: 5 * time.Minute,
		Deploy: 3 * time.Minute, Suite: 20 * time.Minute, Gather: time.Minute, Collect: 5 * time.Minute, Delete: time.Minute,
	}
}

// NewPlan decides. It refuses manifests with a field that Kubernetes does not
// know, an image that the catalog does not have, or two Services with one node
// port, before anything is built.
func NewPlan(root string, catalog Catalog, config Config) (*Plan, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Config: config, Catalog: catalog, Root: root, Timeouts: defaultTimeouts(), Overlays: map[string]string{}, Objects: map[string][]*unstructured.Unstructured{}}
	plan.ClusterName = clusterName(root, config.Variant)
	plan.Dir = filepath.Join(root, ".e2e", plan.ClusterName)
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	plan.Module = modfile.ModulePath(data)
	if plan.KindVersion, err = required(filepath.Join(root, "go.mod"), "sigs.k8s.io/kind"); err != nil {
		return nil, err
	}
	if plan.Kubernetes, err = required(filepath.Join(root, "docker", catalog.Node, "go.mod"), "k8s.io/kubernetes"); err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, img := range catalog.Images {
		names[img.Name] = img.Name
	}
	var problems []error
	taken := map[cluster.Port]apply.NodePort{}
	for _, component := range catalog.Components {
		dir, err := plan.overlay(component)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		plan.Overlays[component.Name] = dir
		objs, err := apply.Render(dir, names)
		if err == nil {
			err = apply.Validate(objs)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", plan.relative(dir), err))
			continue
		}
		plan.Objects[component.Name] = objs
		for _, port := range apply.NodePorts(objs) {
			key := cluster.Port{Number: port.NodePort, Protocol: port.Protocol}
			if other, ok := taken[key]; ok {
				problems = append(problems, fmt.Errorf("%s: Services %s and %s ask for the same node port %s", plan.relative(dir), other.Service, port.Service, key))
			}
			taken[key] = port
			plan.NodePorts = append(plan.NodePorts, port)
		}
	}
	return plan, errors.Join(problems...)
}

// overlay chooses a component's folder: the variant's own where there is one.
func (p *Plan) overlay(component Component) (string, error) {
	dir := filepath.Join(p.Root, "manifests", component.Name)
	if p.Variant != Standard {
		overlay := filepath.Join(dir, string(p.Variant))
		if _, err := os.Stat(overlay); err == nil {
			return overlay, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	base := filepath.Join(dir, "base")
	if _, err := os.Stat(base); err != nil {
		return "", fmt.Errorf("component %s: has no folder %s", component.Name, p.relative(base))
	}
	return base, nil
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

func (p *Plan) evidenceDir() string {
	if p.EvidenceDir != "" {
		return p.EvidenceDir
	}
	return p.Dir
}

// image returns the catalog's entry.
func (p *Plan) image(name string) (ImageSpec, error) {
	for _, img := range p.Images {
		if img.Name == name {
			return img, nil
		}
	}
	return ImageSpec{}, fmt.Errorf("image %q: not in the catalog", name)
}

// relative is a path as the user would type it in the checkout.
func (p *Plan) relative(path string) string {
	if short, err := filepath.Rel(p.Root, path); err == nil && !strings.HasPrefix(short, "..") {
		return short
	}
	return path
}

// clusterName is the same for the same checkout and differs between two, so that
// both can run at once on one machine.
func clusterName(root string, variant Variant) string {
	sum := sha256.Sum256([]byte(root))
	name := "e2e-" + hex.EncodeToString(sum[:4])
	if variant != Standard {
		name += "-" + string(variant)
	}
	return name
}
