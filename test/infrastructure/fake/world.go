// Package fake is one world for all tests of how the phases are joined: every adapter of
// an environment at once. It starts no program, remembers what was asked of it in order,
// and fails where a test says.
package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/coverage"
)

// World is a machine with an engine that has third-party images and no others, and no
// cluster. The zero value is ready; it is safe for concurrent use.
type World struct {
	// Name of the cluster; its one node is called <Name>-control-plane.
	Name string
	// Fail is asked what becomes of each call; nil means that all go well.
	Fail func(ctx context.Context, call string) error
	// Report is Ginkgo's JSON report of a suite, by its name; the default is one spec that
	// passed.
	Report func(suite string) string
	// Stopping shows pods that end when coverage is collected.
	Stopping func(ctx context.Context, seen func(*corev1.Pod)) error
	// NodesOf is the image that the cluster was created of.
	NodesOf string
	// Creating is what lasts while a cluster is made whose nodes run; nil is no time at all, in
	// which nothing can be done in them.
	Creating func()

	mu      sync.Mutex
	calls   []string
	created bool
	stopped bool
	images  map[string]bool // of the engine, by reference
	held    map[string]bool // of the node
	objects map[string]bool // that were applied
	kept    *kept
	// archives is the folder that the cluster was created with.
	archives string
}

// kept is what of a cluster was put aside.
type kept struct{ held, objects map[string]bool }

// Adapters are the world as an environment sees it.
func (w *World) Adapters() infrastructure.Adapters {
	return infrastructure.Adapters{
		EngineName: "podman", Runner: w, Engine: w, Cluster: kind{w, "podman"},
		Elsewhere: func(engine string) infrastructure.Cluster { return kind{w, engine} },
		Connect:   func(string) (infrastructure.Applier, error) { return applier{w}, nil },
		Stop: func(ctx context.Context, _, _ string, workloads []coverage.Workload, seen func(*corev1.Pod)) error {
			if err := w.did(ctx, "stop "+list(workloads)); err != nil || w.Stopping == nil {
				return err
			}
			return w.Stopping(ctx, seen)
		},
		End: func(ctx context.Context, _, _ string, workloads []coverage.Workload) error {
			return w.did(ctx, "end "+list(workloads))
		},
		Follow: func(ctx context.Context, _, _ string, _ func(*corev1.Pod)) error {
			<-ctx.Done()
			return nil
		},
	}
}

// list names workloads.
func list(workloads []coverage.Workload) string {
	names := make([]string, len(workloads))
	for i, workload := range workloads {
		names[i] = workload.Name
	}
	return strings.Join(names, " ")
}

// Calls returns what was asked so far, in order.
func (w *World) Calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// Find returns the first call that begins like this; empty if there was none.
func (w *World) Find(prefix string) string {
	for _, call := range w.Calls() {
		if strings.HasPrefix(call, prefix) {
			return call
		}
	}
	return ""
}

// Called tells whether there was a call that begins like this.
func (w *World) Called(prefix string) bool { return w.Find(prefix) != "" }

// Forget empties the list of calls.
func (w *World) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = nil
}

// StopNode stops the cluster's node, which then is there and does not run.
func (w *World) StopNode() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

func (w *World) did(ctx context.Context, call string) error {
	w.mu.Lock()
	w.calls = append(w.calls, call)
	w.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if w.Fail != nil {
		return w.Fail(ctx, call)
	}
	return nil
}

// change changes the world as a call that went well does.
func (w *World) change(ctx context.Context, call string, change func()) error {
	if err := w.did(ctx, call); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	return nil
}

// Run stands for the go command and ginkgo: it leaves the files that they leave, a report
// also where it fails.
func (w *World) Run(ctx context.Context, cmd command.Cmd) error {
	outcome := w.did(ctx, "run "+strings.Join(append(cmd.Args, cmd.Env...), " "))
	report, dir := "", ""
	for i, arg := range cmd.Args {
		if arg == "-o" && outcome == nil {
			if err := compiled(cmd.Args[i+1], cmd.Args[i+2:]); err != nil {
				return err
			}
		}
		for _, prefix := range []string{"--json-report=", "--ginkgo.json-report="} {
			if file, ok := strings.CutPrefix(arg, prefix); ok {
				report = file
			}
		}
		if folder, ok := strings.CutPrefix(arg, "--output-dir="); ok {
			dir = folder
		}
	}
	if report == "" {
		return outcome
	}
	text := `[{"PreRunStats":{"TotalSpecs":1,"SpecsThatWillRun":1},"SpecReports":[{"LeafNodeType":"It","LeafNodeText":"x","State":"passed"}]}]`
	if w.Report != nil {
		suite, _, _ := strings.Cut(filepath.Base(report), ".")
		text = w.Report(suite)
	}
	if !filepath.IsAbs(report) {
		report = filepath.Join(dir, report)
	}
	return errors.Join(outcome, os.WriteFile(report, []byte(text), 0o644))
}

// compiled leaves the programs of packages, with their names in them.
func compiled(out string, packages []string) error {
	if !strings.HasSuffix(out, "/") {
		return os.WriteFile(out, []byte(out), 0o755)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, pkg := range packages {
		if strings.HasPrefix(pkg, "-") {
			continue
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(pkg)), []byte(pkg), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Build makes an image.
func (w *World) Build(ctx context.Context, _, ref, _ string, _ ...string) error {
	return w.change(ctx, "build "+ref, func() { w.has(&w.images, ref) })
}

// Exist tells which images the engine has.
func (w *World) Exist(ctx context.Context, refs ...string) (map[string]bool, error) {
	err := w.did(ctx, "exists "+strings.Join(refs, " "))
	w.mu.Lock()
	defer w.mu.Unlock()
	held := map[string]bool{}
	for _, ref := range refs {
		held[ref] = strings.HasPrefix(ref, "docker.io/") || strings.HasPrefix(ref, "quay.io/") || w.images[ref]
	}
	return held, err
}

// Pull fetches an image.
func (w *World) Pull(ctx context.Context, ref string, _ time.Duration) error {
	return w.change(ctx, "pull "+ref, func() { w.has(&w.images, ref) })
}

// Save writes an image's name for an image.
func (w *World) Save(ctx context.Context, out io.Writer, refs ...string) error {
	if err := w.did(ctx, "save "+strings.Join(refs, " ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, strings.Join(refs, "\n"))
	return err
}

// RunPrivileged does nothing.
func (w *World) RunPrivileged(ctx context.Context, ref string, _, _ []string, _ io.Writer, _ string, _ ...string) error {
	return w.did(ctx, "privileged "+ref)
}

// Images returns the images that were built.
func (w *World) Images(ctx context.Context, label string) ([]string, error) {
	err := w.did(ctx, "images "+label)
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.images)), err
}

// Tag gives an image a second reference.
func (w *World) Tag(ctx context.Context, _, as string) error {
	return w.change(ctx, "tag "+as, func() { w.has(&w.images, as) })
}

// Prune removes nothing.
func (w *World) Prune(ctx context.Context, repository string, _ int, _ ...string) ([]string, error) {
	return nil, w.did(ctx, "prune images "+repository)
}

// PruneStages removes nothing.
func (w *World) PruneStages(ctx context.Context, label string) error {
	return w.did(ctx, "prune stages "+label)
}

// Remove removes images.
func (w *World) Remove(ctx context.Context, refs ...string) error {
	return w.change(ctx, "remove "+strings.Join(refs, " "), func() {
		for _, ref := range refs {
			delete(w.images, ref)
		}
	})
}

func (w *World) has(set *map[string]bool, names ...string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	for _, name := range names {
		(*set)[name] = true
	}
}

// kind has the methods that clash with the engine's names.
type kind struct {
	*World
	engine string
}

// Create makes the cluster.
func (k kind) Create(ctx context.Context, spec cluster.Spec, tell cluster.Progress) error {
	err := k.change(ctx, "create", func() { k.created, k.stopped, k.NodesOf, k.archives = true, false, spec.Image, spec.Archives })
	if err == nil && k.Creating != nil {
		tell.Prepared()
		k.Creating()
	}
	return err
}

// Booted finds its nodes booted.
func (k kind) Booted(ctx context.Context, nodes []string) error {
	return k.did(ctx, "booted "+strings.Join(nodes, " "))
}

// Ready finds it ready.
func (k kind) Ready(ctx context.Context) error { return k.did(ctx, "ready") }

// Mend starts the node again.
func (k kind) Mend(ctx context.Context, nodes []string, _ cluster.Made, _ func(string, ...any)) (string, error) {
	if err := k.did(ctx, "mend "+strings.Join(nodes, " ")); err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		k.stopped = false
		return "started " + strings.Join(nodes, " "), nil
	}
	return "", nil
}

// Keep puts aside what the node holds.
func (k kind) Keep(ctx context.Context, node string) (cluster.State, error) {
	return cluster.State{Sum: "sum", Bytes: 1 << 20}, k.change(ctx, "keep "+node, func() { k.kept = &kept{maps.Clone(k.held), maps.Clone(k.objects)} })
}

// Park stops the node and empties it: that it is filled nobody may believe without Restore.
func (k kind) Park(ctx context.Context, node string, state cluster.State) (cluster.Parked, error) {
	return cluster.Parked{Bytes: state.Bytes}, k.change(ctx, "park "+node, func() { k.stopped, k.held, k.objects = true, nil, nil })
}

// Restore puts back what was kept; what its check finds is what comes of the call "check".
func (k kind) Restore(ctx context.Context, node string, state cluster.State, _ cluster.Parked) (func(context.Context) error, error) {
	return func(ctx context.Context) error { return k.did(ctx, "check "+node) }, k.change(ctx, "restore "+node+" "+state.Sum, func() {
		k.stopped, k.held, k.objects = true, maps.Clone(k.kept.held), maps.Clone(k.kept.objects)
	})
}

// PruneImages removes nothing.
func (k kind) PruneImages(ctx context.Context, node, repository string, keep ...string) ([]string, error) {
	return nil, k.did(ctx, strings.TrimSpace("prune images "+node+" "+repository+" but "+strings.Join(keep, " ")))
}

// Delete removes it with everything in it.
func (k kind) Delete(ctx context.Context) error {
	call := "delete"
	if k.engine != "podman" {
		call += " in " + k.engine
	}
	return k.change(ctx, call, func() { k.created, k.held, k.objects, k.kept = false, nil, nil, nil })
}

// Nodes returns the node that runs.
func (k kind) Nodes(ctx context.Context) ([]string, error) {
	if err := k.did(ctx, "nodes"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.created && !k.stopped && k.engine == "podman" {
		return []string{k.Name + "-control-plane"}, nil
	}
	return nil, nil
}

// All returns the node, running or not.
func (k kind) All(ctx context.Context) ([]string, error) {
	if err := k.did(ctx, "all"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.created && k.engine == "podman" {
		return []string{k.Name + "-control-plane"}, nil
	}
	return nil, nil
}

// Ports maps every node port that there could be.
func (k kind) Ports(ctx context.Context, node string) (map[cluster.Port]string, error) {
	ports := map[cluster.Port]string{}
	for port := int32(30000); port < 31000; port++ {
		for _, protocol := range []string{"TCP", "UDP"} {
			ports[cluster.Port{Number: port, Protocol: protocol}] = "127.0.0.1:1"
		}
	}
	return ports, k.did(ctx, "ports "+node)
}

// Images returns what was imported.
func (k kind) Images(ctx context.Context, node string) ([]string, error) {
	err := k.did(ctx, "held "+node)
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.held)), err
}

// Import takes what Save wrote into an archive below the folder that the cluster was made with.
func (k kind) Import(ctx context.Context, nodes []string, archive string) error {
	if err := k.did(ctx, "import "+archive+" into "+strings.Join(nodes, " ")); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	text, err := os.ReadFile(filepath.Join(k.archives, archive))
	k.has(&k.held, strings.Fields(string(text))...)
	return err
}

type applier struct{ *World }

// Apply creates objects, or finds them.
func (a applier) Apply(ctx context.Context, objs []*unstructured.Unstructured) (apply.ChangeSet, error) {
	if len(objs) == 0 {
		return nil, nil
	}
	if err := a.did(ctx, "apply "+apply.RefOf(objs[0]).String()); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var changes apply.ChangeSet
	for _, obj := range objs {
		ref := apply.RefOf(obj)
		action := apply.Created
		if a.objects[ref.String()] {
			action = apply.Unchanged
		}
		a.has(&a.objects, ref.String())
		changes = append(changes, apply.Change{Object: ref, Action: action})
	}
	return changes, nil
}

// Prune removes what is not to be kept.
func (a applier) Prune(ctx context.Context, keep []*unstructured.Unstructured) (apply.ChangeSet, error) {
	if err := a.did(ctx, "prune"); err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, obj := range keep {
		wanted[apply.RefOf(obj).String()] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for ref := range a.objects {
		if !wanted[ref] {
			delete(a.objects, ref)
		}
	}
	return nil, nil
}

// Wait finds everything ready.
func (a applier) Wait(ctx context.Context, changes apply.ChangeSet) error {
	if len(changes) == 0 {
		return nil
	}
	return a.did(ctx, "wait "+changes[0].Object.String())
}
