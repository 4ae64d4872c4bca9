package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// coverageMount is the folder of the node that coverage overlays mount into pods,
// as <coverageMount>/<image>/<pod>. It is a folder of the host: counters need no
// copying, and outlive the cluster.
const coverageMount = "/coverage"

func (e *Environment) coverageDir() string { return filepath.Join(e.Dir, "coverage") }

func (e *Environment) rawDir() string { return filepath.Join(e.coverageDir(), "raw") }

// covered are the services whose coverage is taken.
func (p *Plan) covered() []ImageSpec {
	return slices.DeleteFunc(slices.Clone(p.Images), func(spec ImageSpec) bool { return spec.Package == "" })
}

// resetCoverage empties the folders of the counters and makes one for each service.
// Pods of an earlier run that still run are stopped first: what they have counted
// is not of this run. The services' user is not root, so all may write.
func (e *Environment) resetCoverage(ctx context.Context) error {
	if _, err := os.Stat(e.kubeconfig()); err == nil {
		if nodes, err := e.Cluster.Nodes(ctx); err != nil {
			return err
		} else if len(nodes) > 0 {
			if _, err := e.Stop(ctx, e.kubeconfig(), e.Namespace, e.deployments()); err != nil {
				return err
			}
		}
	}
	// The folder itself stays: a cluster that is kept has it mounted.
	entries, err := os.ReadDir(e.coverageDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(e.rawDir()) {
			if err := os.RemoveAll(filepath.Join(e.coverageDir(), entry.Name())); err != nil {
				return err
			}
		}
	}
	for _, spec := range e.covered() {
		dir := filepath.Join(e.rawDir(), spec.Name)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// deployments are the names of the Deployments that run a covered service.
func (e *Environment) deployments() []string {
	var names []string
	for _, objs := range e.Objects {
		for _, obj := range objs {
			if obj.GetKind() == "Deployment" && slices.ContainsFunc(e.covered(), func(spec ImageSpec) bool { return runs(obj, spec.Name) }) {
				names = append(names, obj.GetName())
			}
		}
	}
	slices.Sort(names)
	return names
}

// runs tells whether a workload has a container of the image, by its catalog name.
func runs(obj *unstructured.Unstructured, image string) bool {
	containers, _, _ := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", "containers")
	return slices.ContainsFunc(containers, func(container any) bool {
		fields, ok := container.(map[string]any)
		return ok && fields["image"] == image
	})
}

// collectCoverage stops the services, so that each pod ends in order and writes its
// counters, and reports what they cover. It fails when a pod left no truth behind.
func (e *Environment) collectCoverage(ctx context.Context) error {
	return e.Timeline.Step(ctx, "coverage", "collect", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Collect, fmt.Errorf("not done after %s", e.Timeouts.Collect))
		defer cancel()
		exits, err := e.Stop(ctx, e.kubeconfig(), e.Namespace, e.deployments())
		if err != nil {
			return err
		}
		var results []coverage.Result
		var figures []string
		var problems []error
		for _, spec := range e.covered() {
			result, err := coverage.Report(ctx, e.Runner, e.Root, coverage.Service{
				Name: spec.Name, Package: e.Module + strings.TrimPrefix(spec.Package, "."),
				Raw: filepath.Join(e.rawDir(), spec.Name), Out: filepath.Join(e.coverageDir(), spec.Name),
			}, exits)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			results = append(results, result)
			figures = append(figures, fmt.Sprintf("%s %.1f %%", spec.Name, result.Percent()))
		}
		if err := writeJSON(filepath.Join(e.coverageDir(), "coverage.json"), results); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.coverageDir(), "coverage.md"), []byte(coverage.Markdown(results)), 0o644); err != nil {
			return err
		}
		step.Detail("%s of statements", strings.Join(figures, ", "))
		return errors.Join(problems...)
	})
}
