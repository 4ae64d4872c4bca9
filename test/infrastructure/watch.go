package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/kube"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// settle is how long after a change no other may come: an editor that saves writes, renames
// and removes within some milliseconds, and git changes file after file.
const settle = 50 * time.Millisecond

// watched is a suite that runs whenever a file of the checkout has changed.
type watched struct {
	*Environment
	suite   Phase
	as      checkout.Sources    // what is deployed and compiled is made of
	imports map[string][]string // folders that a program is compiled of, by the package that it is asked by
	failed  []string            // regular expressions of the specs that failed last
	parts   string              // what the last change took, phase by phase
}

// Watch runs a suite, and again whenever a file of the checkout has changed, until ctx ends:
// the specs that E2E_FOCUS and its like select or, without, those that failed last. What is
// compiled of a file that has changed is built, loaded and rolled out before; where anything
// else has changed, all phases are gone through, with a new plan. The suite does not run before
// the pods that are ready are those of the new program. Of each change it says one line, with
// what each phase took.
// Everything must have been deployed once.
func (e *Environment) Watch(ctx context.Context, suite Phase) error {
	w := &watched{Environment: e, suite: suite}
	changes, err := e.changes(ctx)
	if err == nil {
		w.as, err = e.sources()
	}
	if err != nil {
		return err
	}
	begun := time.Now()
	for err := e.Do(ctx, suite); ctx.Err() == nil; {
		w.tell(err, begun)
		if err := w.read(ctx); err != nil && ctx.Err() == nil { // while the user reads
			e.Timeline.Say("%v", err)
		}
		var changed []string
		now := checkout.Sources{}
		for len(changed) == 0 && ctx.Err() == nil {
			select {
			case begun = <-changes:
				if now, err = e.state.Sources(); err != nil {
					return err
				}
				now["go env"] = w.as["go env"]
				changed = now.Changed(w.as)
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil {
			err = w.follow(ctx, now, changed)
		}
	}
	return context.Cause(ctx)
}

// tell says what came of a change, and keeps which specs failed.
func (w *watched) tell(err error, begun time.Time) {
	verdict, failed, outcome := "passed", []string(nil), timeline.Failed
	var specs *SuiteError
	switch {
	case errors.As(err, &specs):
		verdict = specs.Counts
		for _, failure := range specs.Failed {
			verdict += "; " + failure.Name
			failed = append(failed, regexp.QuoteMeta(failure.Name))
		}
	case err != nil:
		verdict, failed = err.Error(), w.failed
	default:
		outcome = timeline.Done
	}
	w.failed = failed
	w.Timeline.Tell(outcome, "%.1f s%s: %s", time.Since(begun).Seconds(), w.parts, verdict)
}

// follow does what a change asks for, and runs the suite.
func (w *watched) follow(ctx context.Context, now checkout.Sources, changed []string) error {
	var fresh *Plan
	if w.whole(changed) {
		var err error
		if fresh, err = NewPlan(w.Root, w.Catalog, w.Config); err != nil {
			return err
		}
	}
	env, err := w.Variation(filepath.Join(w.Evidence, "watch"), func(plan *Plan) {
		if fresh != nil {
			plan.Objects, plan.NodePorts, plan.graph = fresh.Objects, fresh.NodePorts, fresh.graph
		}
		if len(w.failed) > 0 && plan.Config.Suite.String() == "" {
			plan.Config.Suite.Focus = strings.Join(w.failed, "|")
		}
	})
	if err != nil {
		return err
	}
	if env.Config.Suite.String() != w.Config.Suite.String() {
		env.selected[w.suite.Name] = len(w.failed)
	}
	needed, err := env.Needed(w.suite)
	if err != nil {
		return err
	}
	defer func() {
		var parts []string
		for _, entry := range env.Timeline.Document().Steps {
			parts = append(parts, fmt.Sprintf("%s %.1f", entry.Title(), entry.Took().Seconds()))
		}
		w.parts = " (" + strings.Join(parts, ", ") + ")"
	}()
	for _, phase := range needed {
		if fresh == nil && !w.concerns(phase, changed) {
			continue
		}
		if phase == w.suite {
			if err := env.proven(ctx, needed); err != nil {
				return err
			}
			// Only now: whatever did not come so far is done again after the next change.
			w.as = now
			w.mu.Lock()
			maps.Copy(w.refs, env.refs)
			w.mu.Unlock()
		}
		if err := env.Do(ctx, phase); err != nil {
			return err
		}
	}
	return nil
}

// whole tells whether a change is of more than what services and the suite are compiled of.
func (w *watched) whole(changed []string) bool {
	return slices.ContainsFunc(changed, func(file string) bool {
		return !strings.HasSuffix(file, ".go") || !slices.ContainsFunc(slices.Collect(maps.Values(w.imports)), func(folders []string) bool {
			return slices.Contains(folders, filepath.Dir(file))
		})
	})
}

// concerns tells whether a phase has to be done again after files have changed that programs
// are compiled of.
func (w *watched) concerns(phase Phase, changed []string) bool {
	compiledOf := func(pkg string) bool {
		return slices.ContainsFunc(changed, func(file string) bool { return slices.Contains(w.imports[pkg], filepath.Dir(file)) })
	}
	service := func(name string) bool {
		spec, err := w.image(name)
		return err == nil && spec.Package != "" && compiledOf(spec.Package)
	}
	switch phase.Kind {
	case CompileServices:
		return slices.ContainsFunc(w.covered(), func(spec ImageSpec) bool { return compiledOf(spec.Package) })
	case BuildImage, LoadImage:
		return service(phase.Name)
	case DeployComponent:
		return slices.ContainsFunc(apply.Images(w.Objects[phase.Name]), service)
	case CompileSuite:
		suite, err := w.Catalog.suite(phase.Name)
		return err == nil && compiledOf(suite.Package)
	case RunSuite:
		return true
	case CompileProgram, CreateCluster, RunProgram:
	}
	return false
}

// read asks the go command what the services and the suite are compiled of.
func (w *watched) read(ctx context.Context) error {
	suite, err := w.Catalog.suite(w.suite.Name)
	if err != nil {
		return err
	}
	packages := []string{suite.Package}
	for _, spec := range w.covered() {
		packages = append(packages, spec.Package)
	}
	imports := map[string][]string{}
	for _, pkg := range packages {
		out, err := command.Output(ctx, w.adapters.Runner, "go", "-C", w.Root, "list", "-deps", "-test", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", pkg)
		if err != nil {
			return err
		}
		for folder := range strings.Lines(out) {
			imports[pkg] = append(imports[pkg], w.relative(strings.TrimSpace(folder)))
		}
	}
	w.imports = imports
	return nil
}

// proven fails unless the pods that are ready run the programs that were built, as the node
// says by the reference of their image, which is a hash of the program.
func (e *Environment) proven(ctx context.Context, done []Phase) error {
	pods, err := e.adapters.Pods(ctx, e.state.Kubeconfig(), e.Namespace)
	if err != nil {
		return err
	}
	for _, spec := range e.covered() {
		if !slices.ContainsFunc(done, func(p Phase) bool {
			return p.Kind == DeployComponent && slices.Contains(apply.Images(e.Objects[p.Name]), spec.Name)
		}) {
			continue
		}
		ref, err := e.Ref(spec.Name)
		if err != nil {
			return err
		}
		answering := 0
		for i := range pods {
			if pods[i].DeletionTimestamp != nil || !kube.IsReady(&pods[i]) {
				continue
			}
			for _, container := range pods[i].Status.ContainerStatuses {
				switch {
				case container.Image == ref:
					answering++
				case strings.HasPrefix(container.Image, image.Repository+spec.Name+":"):
					return fmt.Errorf("pod %s: answers, and runs %s, not %s", pods[i].Name, container.Image, ref)
				}
			}
		}
		if answering == 0 {
			return fmt.Errorf("%s: no pod that is ready runs %s", spec.Name, ref)
		}
	}
	return nil
}

// changes tells when a file of the checkout has changed, once no other does, outside of
// folders that begin with a dot; until ctx ends.
func (e *Environment) changes(ctx context.Context) (<-chan time.Time, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	add := func(dir string) error {
		return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || !entry.IsDir():
				return nil // gone meanwhile, or nothing to look into
			case path != e.Root && strings.HasPrefix(entry.Name(), "."):
				return fs.SkipDir
			}
			return watcher.Add(path)
		})
	}
	if err := add(e.Root); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", e.Root, err), watcher.Close())
	}
	changes := make(chan time.Time)
	go func() {
		defer watcher.Close()
		var first time.Time
		var quiet <-chan time.Time
		var to chan<- time.Time
		for {
			select {
			case event := <-watcher.Events:
				if event.Has(fsnotify.Create) {
					_ = add(event.Name) // a folder that cannot be watched is one that is gone
				}
				if event.Op != fsnotify.Chmod && quiet == nil && to == nil {
					first = time.Now()
				}
				quiet = time.After(settle)
			case err := <-watcher.Errors:
				e.Timeline.Say("watching %s: %v", e.Root, err)
				quiet = time.After(settle) // what was missed may have changed something
			case <-quiet:
				quiet, to = nil, changes
			case to <- first:
				to = nil
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes, nil
}

// podsOf are the pods of a namespace.
func podsOf(ctx context.Context, kubeconfig, namespace string) ([]corev1.Pod, error) {
	client, err := kube.Client(kubeconfig)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
