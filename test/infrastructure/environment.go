// Package infrastructure takes a checkout to a deployed environment: it builds
// images, creates a Kind cluster, loads, deploys, runs suites and keeps the
// evidence. It says how, and what must come before what; package targets has Mage do it.
// It knows neither Mage nor Ginkgo's API, and no service by name: those stand in the
// Catalog.
//
//	config, err := infrastructure.ReadConfig(os.Environ())
//	plan, err := infrastructure.NewPlan(".", catalog, config)
//	env, err := infrastructure.Open(ctx, plan, infrastructure.Screen{...})
//	defer env.Close()
//	for _, phase := range plan.Needed(goals...) {
//		err = env.Do(ctx, phase)
//	}
//	err = env.Finish(ctx, err)
//
// Every phase converges: running it again is safe, and quick when nothing changed.
package infrastructure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/engine"
	"kubernaut.ai/e2e/test/infrastructure/history"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/monitor"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Engine is the container engine, as the phases need it.
type Engine interface {
	Build(ctx context.Context, dir, ref, target string, labels ...string) error
	Exist(ctx context.Context, refs ...string) (map[string]bool, error)
	Pull(ctx context.Context, ref string, firstAnswer time.Duration) error
	Save(ctx context.Context, w io.Writer, refs ...string) error
	RunPrivileged(ctx context.Context, ref string, volumes, mounts []string, stdout io.Writer, entrypoint string, args ...string) error
	Images(ctx context.Context, label string) ([]string, error)
	Remove(ctx context.Context, refs ...string) error
	Tag(ctx context.Context, ref, as string) error
	Prune(ctx context.Context, repository string, keep int, except ...string) (removed []string, err error)
	PruneStages(ctx context.Context, label string) error
}

// Cluster is the Kind cluster, as the phases need it.
type Cluster interface {
	Create(ctx context.Context, spec cluster.Spec, tell cluster.Progress) error
	Booted(ctx context.Context, nodes []string) error
	Ready(ctx context.Context) error
	Mend(ctx context.Context, all []string, was cluster.Made, status func(format string, args ...any)) (done string, err error)
	PruneImages(ctx context.Context, node, repository string, keep ...string) (removed []string, err error)
	Keep(ctx context.Context, node string) (cluster.State, error)
	Park(ctx context.Context, node string, state cluster.State) (cluster.Parked, error)
	Restore(ctx context.Context, node string, state cluster.State, parked cluster.Parked) (check func(context.Context) error, err error)
	Delete(ctx context.Context) error
	Nodes(ctx context.Context) ([]string, error)
	All(ctx context.Context) ([]string, error)
	Ports(ctx context.Context, node string) (map[cluster.Port]string, error)
	Images(ctx context.Context, node string) ([]string, error)
	Import(ctx context.Context, nodes []string, archive string) error
}

// Applier puts objects into the cluster.
type Applier interface {
	Apply(ctx context.Context, objs []*unstructured.Unstructured) (apply.ChangeSet, error)
	Prune(ctx context.Context, keep []*unstructured.Unstructured) (apply.ChangeSet, error)
	Wait(ctx context.Context, changes apply.ChangeSet) error
}

// Adapters are the doors to the outside. Open makes the real ones; a test gives
// its own.
type Adapters struct {
	EngineName string
	Runner     command.Runner
	Engine     Engine
	Cluster    Cluster
	// Elsewhere is the cluster of the same name in another engine.
	Elsewhere func(engine string) Cluster
	Connect   func(kubeconfig string) (Applier, error)
	// Register notes in the user's registry that a cluster is about to be made; nil for one
	// that is none.
	Register func()
	// Preflight is what this machine lacks for a cluster, of what can be told in milliseconds;
	// nil does not look.
	Preflight func(context.Context) error
	// History is where the results of suites are remembered; nil remembers none.
	History func() (history.Store, error)
	// Stop ends the pods of workloads in order, and Follow watches all pods until
	// ctx ends; both show what they see. End ends the pods without waiting for what they counted.
	Stop   func(ctx context.Context, kubeconfig, namespace string, workloads []coverage.Workload, seen func(*corev1.Pod)) error
	End    func(ctx context.Context, kubeconfig, namespace string, workloads []coverage.Workload) error
	Follow func(ctx context.Context, kubeconfig, namespace string, seen func(*corev1.Pod)) error
	// Pods returns the pods of a namespace.
	Pods func(ctx context.Context, kubeconfig, namespace string) ([]corev1.Pod, error)
	// Monitor begins to watch what the run uses; nil watches nothing.
	Monitor func(context.Context, monitor.Options, *timeline.Recorder) *monitor.Monitor
}

// Environment is a plan and the adapters that carry it out. Its methods are safe
// for concurrent use. The first step that fails cancels every other.
type Environment struct {
	*Plan
	Timeline *timeline.Recorder

	adapters Adapters
	state    checkout.Cluster // what the checkout keeps of the cluster
	lock     *checkout.Lock
	results  io.Writer        // the process's stdout
	record   *coverage.Record // of the coverage variant's run
	damaged  error            // why what record held before could not be read

	// Once each, when first needed.
	applier func() (Applier, error)
	sources func() (checkout.Sources, error) // what compiled programs are made of, and how
	held    func() (map[string]bool, error)  // references of third-party images that the engine has

	run      context.Context // canceled by the first failure
	canceled context.CancelCauseFunc

	mu       sync.Mutex                     // of what follows; never held while anything is asked of the outside
	refs     map[string]string              // images built or found, by catalog name
	original map[string]string              // as refs, of the environment that this one is a variation of: they stay in the nodes
	packaged map[string]bool                // third-party images that were built from packages
	answers  map[string]func() (any, error) // to what is asked of the cluster once, by question
	selected map[string]int                 // specs that E2E_FOCUS and its like select, by suite
	ran      []history.Run                  // suites that came to their end
	specs    []error                        // suites in which specs failed
	clean    bool                           // nothing has worked on the cluster since it was made or restored
	failure  error                          // the first step's that failed otherwise
	unfollow func() error                   // ends the watch of the pods; nil while there is none
	watch    *monitor.Monitor               // nil while there is none
}

// Screen is where progress goes, and results.
type Screen struct {
	Out      io.Writer // progress
	Results  io.Writer // what machines read, as GitHub's annotations; nil discards it
	Terminal bool      // Out is one
	Color    bool      // progress is coloured
	Verbose  bool
}

// Open chooses the engine, takes the lock of the plan's cluster and returns an
// environment with the real adapters. Its first step makes an evidence folder of its own,
// at which .e2e/last points from then on; a first step that only ends a run adds to that
// one's. Close gives the lock up.
func Open(ctx context.Context, plan *Plan, shown Screen) (*Environment, error) {
	engine, err := chooseEngine(ctx, plan, func(format string, args ...any) { fmt.Fprintf(shown.Out, format+"\n", args...) })
	if err != nil {
		return nil, err
	}
	return OpenWith(ctx, plan, shown, RealAdapters(plan, engine))
}

// Reopen is Open for what ends a run: it takes the engine that the cluster was made with,
// whether or not that works.
func Reopen(ctx context.Context, plan *Plan, shown Screen) (*Environment, error) {
	name, err := engineOf(ctx, plan)
	if err != nil {
		return nil, err
	}
	return OpenWith(ctx, plan, shown, RealAdapters(plan, name))
}

// RealAdapters are those of the plan's cluster in an engine.
func RealAdapters(plan *Plan, engineName string) Adapters {
	runner := command.Local{Log: timeline.Log}
	kind := func(engine string) Cluster {
		return cluster.Kind{
			Name: plan.ClusterName, Engine: engine, Kubeconfig: plan.cluster().Kubeconfig(),
			Runner: runner, Log: timeline.Log,
		}
	}
	return Adapters{
		EngineName: engineName,
		Runner:     runner,
		Engine:     engine.Engine{Name: engineName, Runner: runner},
		Cluster:    kind(engineName),
		Elsewhere:  kind,
		Connect:    func(kubeconfig string) (Applier, error) { return apply.Open(kubeconfig, apply.Options{}) },
		Register:   func() { plan.cluster().Register(engineName, time.Now()) },
		Preflight: func(ctx context.Context) error {
			return host.Preflight(ctx, host.Options{Engine: engineName, Checkout: plan.Root}).Err()
		},
		History: plan.history,
		Stop:    coverage.Stop,
		End:     coverage.End,
		Follow:  coverage.Follow,
		Pods:    podsOf,
		Monitor: monitor.Start,
	}
}

// OpenWith is Open with given adapters. A plan whose evidence has a folder of its own is
// part of a run that has the lock.
func OpenWith(ctx context.Context, plan *Plan, shown Screen, adapters Adapters) (_ *Environment, err error) {
	own := *plan
	env := newEnvironment(ctx, &own, adapters)
	env.results = cmp.Or(shown.Results, io.Discard)
	if own.Evidence == "" {
		if env.lock, err = plan.lock(ctx, shown.Out); err != nil {
			return nil, err
		}
	}
	env.Timeline = timeline.New(timeline.Options{
		Folder: env.evidenceFolder, Cluster: plan.ClusterName, Variant: string(plan.Variant), Target: plan.Target, Root: plan.Root,
		Screen: screen.On(shown.Out, shown.Terminal), Color: shown.Color, Verbose: shown.Verbose, Past: past(env.state),
	})
	env.run, env.canceled = context.WithCancelCause(context.Background())
	env.applier = sync.OnceValues(func() (Applier, error) { return adapters.Connect(env.state.Kubeconfig()) })
	env.sources = sync.OnceValues(func() (checkout.Sources, error) { return env.readSources(ctx) })
	if plan.Variant == Coverage {
		// One that is damaged is begun anew with the next run; a cluster can be removed
		// without one.
		if env.record, env.damaged = coverage.OpenRecord(env.recordFile()); env.damaged != nil {
			env.record = coverage.NewRecord(env.recordFile())
		}
	}
	return env, nil
}

// newEnvironment is one that can look, and does nothing yet.
func newEnvironment(ctx context.Context, plan *Plan, adapters Adapters) *Environment {
	env := &Environment{
		Plan: plan, adapters: adapters, state: plan.cluster(),
		refs: map[string]string{}, packaged: map[string]bool{}, selected: map[string]int{},
		answers: map[string]func() (any, error){},
	}
	env.held = sync.OnceValues(func() (map[string]bool, error) { return env.stored(ctx) })
	return env
}

// evidenceFolder is where the evidence goes, asked by the first step: a folder of its own
// for a run, that of the newest one for what ends it.
func (e *Environment) evidenceFolder(fresh bool) (dir string, err error) {
	switch {
	case e.Evidence != "":
		return e.Evidence, nil
	case fresh:
		dir, err = e.state.Begin(time.Now())
	default:
		dir, err = e.state.Latest(time.Now())
	}
	e.Evidence = dir
	return dir, err
}

// lock takes the lock of the plan's cluster, and says who has it while it is another's.
func (p *Plan) lock(ctx context.Context, out io.Writer) (*checkout.Lock, error) {
	return p.cluster().Lock(ctx, cmp.Or(p.Target, "a run"), func(holder checkout.Holder) error {
		if p.FailBusy {
			return fmt.Errorf("%s; without E2E_LOCK=fail this run would wait", holder)
		}
		fmt.Fprintf(out, "waiting: %s; E2E_LOCK=fail would end at once\n", holder)
		return nil
	})
}

// Close gives up the cluster's lock. The environment does nothing more.
func (e *Environment) Close() error {
	e.unwatch(e.run)
	return e.lock.Release()
}

// monitor begins to watch what the run uses, once. What is part of another run is watched
// there.
func (e *Environment) monitor() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watch == nil && e.lock != nil && e.adapters.Monitor != nil {
		e.watch = e.adapters.Monitor(context.WithoutCancel(e.run), monitor.Options{
			Proc: "/proc", Kubeconfig: e.state.Kubeconfig(), Namespaces: append(e.namespaces(), "kube-system"),
		}, e.Timeline)
	}
}

// unwatch ends the watch, with a last look at the cluster unless ctx has ended.
func (e *Environment) unwatch(ctx context.Context) {
	e.mu.Lock()
	watch := e.watch
	e.watch = nil
	e.mu.Unlock()
	watch.Stop(ctx)
}

// Variation returns an environment for the same cluster whose plan differs by what
// change does to it. It knows what has been built here, keeps its evidence in a folder
// of its own and shows no progress; its failures cancel nothing here.
func (e *Environment) Variation(evidence string, change func(*Plan)) (*Environment, error) {
	plan := *e.Plan
	plan.Evidence, plan.Changed = evidence, 0
	change(&plan)
	variation, err := OpenWith(e.run, &plan, Screen{Out: io.Discard}, e.adapters)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	variation.refs, variation.packaged, variation.applier = maps.Clone(e.refs), maps.Clone(e.packaged), e.applier
	variation.original, variation.selected = maps.Clone(e.refs), maps.Clone(e.selected)
	return variation, nil
}

// Do carries out one phase. What comes before it must have been done.
func (e *Environment) Do(ctx context.Context, p Phase) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			// A program's error, which must fail the run like any other, and say where.
			err = fmt.Errorf("%s: panic: %v\n%s", p, cause, debug.Stack())
			e.fail(err)
		}
	}()
	e.monitor()
	switch p.Kind {
	case CompileServices:
		return e.compileServices(ctx)
	case CompileSuite:
		return e.compileSuite(ctx, p)
	case CompileProgram:
		return e.compileProgram(ctx, p)
	case BuildImage:
		return e.buildImage(ctx, p)
	case CreateCluster:
		return e.createCluster(ctx, p)
	case LoadImage:
		return e.loadImage(ctx, p)
	case DeployComponent:
		return e.deployComponent(ctx, p)
	case RunSuite, RunProgram:
		if err := e.keepClean(ctx); err != nil {
			return err
		}
		if p.Kind == RunSuite {
			return e.runSuite(ctx, p)
		}
		return e.runProgram(ctx, p)
	}
	return fmt.Errorf("phase %s: of unknown kind %q", p, p.Kind)
}

// step runs fn as a step with a deadline. When it fails, every other step of the
// environment is canceled, with this failure as the cause.
func (e *Environment) step(ctx context.Context, p Phase, timeout time.Duration, fn func(context.Context, *timeline.Step) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(e.run, func() { cancel(context.Cause(e.run)) })
	defer stop()
	if cause := context.Cause(e.run); cause != nil {
		return cause
	}
	ctx, release := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
	defer release()
	phase, name := p.step()
	err := e.Timeline.Step(ctx, phase, name, fn)
	if err != nil {
		e.fail(err)
	}
	return err
}

// fail remembers the first failure and cancels the rest. Specs that failed cancel
// nothing: by then every phase is through, and another suite may follow.
func (e *Environment) fail(err error) {
	var specs *SuiteError
	failed := errors.As(err, &specs)
	e.mu.Lock()
	first := !failed && e.failure == nil
	if first {
		e.failure = err
	}
	if failed {
		e.specs = append(e.specs, err)
	}
	e.mu.Unlock()
	if first {
		e.canceled(canceledBy{err})
	}
}

// outcome is what went wrong in this environment, else err: whoever scheduled the phases
// may have flattened their errors and repeated them.
func (e *Environment) outcome(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if own := errors.Join(append(slices.Clone(e.specs), e.failure)...); own != nil {
		return own
	}
	return err
}

// canceledBy is the cause that a step ends with because another one failed. Its
// text is short: the failure itself is reported once.
type canceledBy struct{ failure error }

func (c canceledBy) Error() string        { return "canceled: another step failed" }
func (c canceledBy) Is(target error) bool { return target == context.Canceled }

// Ref returns the reference of an image that Build has made or found.
func (e *Environment) Ref(name string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ref, ok := e.refs[name]
	if !ok {
		return "", fmt.Errorf("image %s: not built in this run; build it first", name)
	}
	return ref, nil
}

// Discard removes an image that Build has made from the engine's store. Nodes keep it.
func (e *Environment) Discard(ctx context.Context, name string) error {
	ref, err := e.Ref(name)
	if err != nil {
		return err
	}
	return e.adapters.Engine.Remove(ctx, ref)
}

func (e *Environment) setRef(name, ref string, packaged bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refs[name], e.packaged[name] = ref, packaged
}
