package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// coverageMount is the folder of the node that coverage overlays mount into pods,
// as <coverageMount>/<image>/<pod>. It is a folder of the host: counters need no
// copying, and outlive the cluster.
const coverageMount = "/coverage"

func (p *Plan) coverageDir() string { return p.cluster().Coverage() }

func (p *Plan) rawDir() string { return filepath.Join(p.coverageDir(), "raw") }

// keptFolder is in the folder of the coverage what had been counted when the cluster's state
// was kept: a Job that ended before does not run again after a restore.
const keptFolder = "kept"

// keptCounters is what the programs of the image, as it is now, had counted then.
func (e *Environment) keptCounters(image string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return filepath.Join(e.coverageDir(), keptFolder, filepath.Base(e.refs[image]))
}

// keepCounters puts aside what the pods that have ended have counted. Those that run have no
// counters yet, and will have ended for the runs that begin from here.
func (e *Environment) keepCounters() error {
	err := os.RemoveAll(filepath.Join(e.coverageDir(), keptFolder))
	for _, spec := range e.covered() {
		pods, globErr := filepath.Glob(filepath.Join(e.rawDir(), spec.Name, "*"))
		err = errors.Join(err, globErr)
		for _, pod := range pods {
			if counters, _ := filepath.Glob(filepath.Join(pod, "covcounters.*")); len(counters) > 0 {
				err = errors.Join(err, os.CopyFS(filepath.Join(e.keptCounters(spec.Name), filepath.Base(pod)), os.DirFS(pod)))
			}
		}
	}
	return err
}

// recordFile is where what must be known of a run besides its counters is kept.
func (p *Plan) recordFile() string { return filepath.Join(p.coverageDir(), "run.json") }

// covered are the services whose coverage is taken.
func (p *Plan) covered() []ImageSpec {
	return slices.DeleteFunc(slices.Clone(p.Images), func(spec ImageSpec) bool { return spec.Package == "" })
}

// importPath is that of a service's program.
func (p *Plan) importPath(spec ImageSpec) string {
	return p.Module + strings.TrimPrefix(spec.Package, ".")
}

// resetCoverage empties the folders of the counters, makes one for each service, with what
// had been counted when the cluster's state was kept, and begins a new record. A service that
// still runs has its folder mounted, which has no name any more: what it counted, of an earlier
// run, is seen by nobody. The services' user is not root, so all may write.
func (e *Environment) resetCoverage() error {
	// The folder itself stays: a cluster that is kept has it mounted.
	entries, err := os.ReadDir(e.coverageDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains([]string{filepath.Base(e.rawDir()), keptFolder}, entry.Name()) {
			if err := os.RemoveAll(filepath.Join(e.coverageDir(), entry.Name())); err != nil {
				return err
			}
		}
	}
	began := time.Now()
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
		kept := e.keptCounters(spec.Name)
		if _, err := os.Stat(kept); err != nil {
			continue // of another program, or none
		}
		if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
			return err
		}
		cluster, err := e.state.Record()
		if err != nil {
			return err
		}
		began = cluster.Made // they are of this run, and as old as the cluster
	}
	source, err := e.goSource(false)
	if err != nil {
		return err
	}
	e.damaged = nil
	return e.record.Begin(began, source)
}

// workloads are those that run a covered service, what was deployed last first: at its
// end it may still need what it was deployed after. A Job ends by itself.
func (e *Environment) workloads() []coverage.Workload {
	var found []coverage.Workload
	for _, component := range slices.Backward(e.Components) {
		for _, obj := range e.Objects[component.Name] {
			if slices.Contains([]string{"Deployment", "StatefulSet"}, obj.GetKind()) && slices.ContainsFunc(e.covered(), func(spec ImageSpec) bool { return runs(obj, spec.Name) }) {
				found = append(found, coverage.Workload{Kind: obj.GetKind(), Name: obj.GetName()})
			}
		}
	}
	return found
}

// deployed are the covered services that a component runs.
func (e *Environment) deployed(component string) []string {
	var names []string
	for _, spec := range e.covered() {
		if slices.ContainsFunc(e.Objects[component], func(obj *unstructured.Unstructured) bool { return runs(obj, spec.Name) }) {
			names = append(names, spec.Name)
		}
	}
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

// followPods records every pod that runs a covered service from now on: one that has
// come and gone must have left its counters as well.
func (e *Environment) followPods() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unfollow != nil {
		cancel()
		return
	}
	go func() { ended <- e.adapters.Follow(ctx, e.state.Kubeconfig(), e.Namespace, e.saw) }()
	e.unfollow = func() error {
		cancel()
		return <-ended
	}
}

func (e *Environment) saw(pod *corev1.Pod) {
	e.record.Saw(coverage.Observe(pod, func(ref string) string {
		name := image.NameOf(ref)
		if slices.ContainsFunc(e.covered(), func(spec ImageSpec) bool { return spec.Name == name }) {
			return name
		}
		return ""
	})...)
}

// stopPods stops the covered services where there is a cluster, and then no longer
// follows their pods.
func (e *Environment) stopPods(ctx context.Context) (there bool, err error) {
	nodes, err := e.adapters.Cluster.Nodes(ctx)
	if err != nil {
		return false, err
	}
	if there = len(nodes) > 0; there {
		if err := e.adapters.Stop(ctx, e.state.Kubeconfig(), e.Namespace, e.workloads(), e.saw); err != nil {
			return there, err
		}
	}
	e.mu.Lock()
	unfollow := e.unfollow
	e.unfollow = nil
	e.mu.Unlock()
	if unfollow != nil {
		if err := unfollow(); err != nil {
			return there, fmt.Errorf("pods were not followed: %w", err)
		}
	}
	return there, nil
}

// CollectCoverage stops the services, so that each pod ends in order and writes its
// counters, and reports what they and the tests of their modules cover. It fails when
// a pod left no truth behind, and when less is covered than E2E_COVERAGE_MIN asks
// for. It may be run again, also by another process and without the cluster: what the
// pods left lies on the host.
func (e *Environment) CollectCoverage(ctx context.Context) error {
	return e.Timeline.Step(ctx, "coverage", "collect", func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, e.Timeouts.Collect, fmt.Errorf("not done after %s", e.Timeouts.Collect))
		defer cancel()
		if e.damaged != nil {
			return fmt.Errorf("%w; run the whole chain again: %s", e.damaged, e.command("e2e:all"))
		}
		there, err := e.stopPods(ctx)
		if err != nil {
			return fmt.Errorf("%w; collect again: go tool mage coverage:collect", err)
		}
		if !there {
			step.Status("there is no cluster %s; reading what its pods left", e.ClusterName)
		}
		run, err := e.record.Run()
		if err != nil {
			return err
		}
		if err := e.collectable(run); err != nil {
			return err
		}
		results, problems := e.reports(ctx, step, run)
		if ctx.Err() != nil {
			return fmt.Errorf("%w; collect again: go tool mage coverage:collect", context.Cause(ctx))
		}
		figures := make([]string, len(results))
		for i, result := range results {
			figures[i] = fmt.Sprintf("%s %.1f %% end to end", result.Service, result.EndToEndPercent())
			if result.Tested {
				figures[i] += fmt.Sprintf(", %.1f %% with its tests", result.MergedPercent())
			}
		}
		step.Detail("%s", strings.Join(figures, "; "))
		return errors.Join(errors.Join(problems...), e.publish(results, problems), e.enough(results, run.Suites))
	})
}

// collectable refuses a run that there is nothing to report of, or not any more.
func (e *Environment) collectable(run coverage.Run) error {
	if len(run.Services) == 0 {
		return fmt.Errorf("cluster %s: no covered service was deployed; run the whole chain first: %s", e.ClusterName, e.command("e2e:all"))
	}
	source, err := e.goSource(false)
	if err != nil {
		return err
	}
	if source != run.Source {
		return errors.New("docker/: its source has changed since the images were built, and counters would be shown at the wrong lines; run the whole chain again")
	}
	return nil
}

// reports are those of the services that were deployed.
func (e *Environment) reports(ctx context.Context, step *timeline.Step, run coverage.Run) (results []report.Coverage, problems []error) {
	pods := make([]coverage.Pod, 0, len(run.Pods))
	for _, pod := range run.Pods {
		pods = append(pods, pod)
	}
	for _, spec := range e.covered() {
		if !slices.Contains(run.Services, spec.Name) {
			continue
		}
		tests, err := e.testCounters(spec, step.Status)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		result, err := coverage.Report(ctx, e.adapters.Runner, e.Root, coverage.Service{
			Name: spec.Name, Module: e.Module, Package: e.importPath(spec), Tags: coverageTag,
			Raw: filepath.Join(e.rawDir(), spec.Name), Out: filepath.Join(e.coverageDir(), spec.Name),
			Since: run.Started, Pods: pods, Tests: tests,
		})
		if err != nil {
			problems = append(problems, err)
			continue
		}
		results = append(results, result)
	}
	return results, problems
}

// publish writes the results for people, for CI and for programs.
func (e *Environment) publish(results []report.Coverage, problems []error) error {
	text := report.CoverageMarkdown(results)
	for _, problem := range problems {
		text += "\n" + report.Block(problem.Error()) + "\n"
	}
	page, err := report.CoveragePage(results)
	if err != nil {
		return err
	}
	err = errors.Join(
		writeJSON(filepath.Join(e.coverageDir(), report.CoverageFile), results),
		writeJSON(filepath.Join(e.Evidence, report.CoverageFile), results),
		os.WriteFile(filepath.Join(e.coverageDir(), "coverage.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(e.coverageDir(), "coverage.html"), page, 0o644),
	)
	if e.StepSummary != "" {
		err = errors.Join(err, appendFile(e.StepSummary, text))
	}
	return err
}

// tested tells whether one of the suites covers the service.
func (p *Plan) tested(service string, suites []string) bool {
	return slices.ContainsFunc(suites, func(name string) bool {
		suite, err := p.suite(name)
		return name == service && err != nil || slices.Contains(suite.Covers, service)
	})
}

// enough asks the services whose suites ran for what E2E_COVERAGE_MIN says.
func (e *Environment) enough(results []report.Coverage, suites []string) error {
	var problems []error
	for _, result := range results {
		if !e.tested(result.Service, suites) || result.MergedPercent() >= e.CoverageMin {
			continue
		}
		of := "end to end and by tests"
		if !result.Tested {
			of = "end to end (go tool mage test:all would add the tests' part)"
		}
		problems = append(problems, fmt.Errorf("coverage of %s: %.2f %% of %d statements %s, E2E_COVERAGE_MIN asks for %g %%; what nothing reaches: %s",
			result.Service, result.MergedPercent(), result.Statements, of, e.CoverageMin, e.relative(filepath.Join(e.coverageDir(), result.Service, coverage.UnreachedFile))))
	}
	return errors.Join(problems...)
}
