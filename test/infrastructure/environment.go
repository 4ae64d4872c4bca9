// Package infrastructure takes a checkout to a deployed environment: it builds
// images, creates a Kind cluster, loads, deploys, runs suites and keeps the
// evidence. It says how; when is said by whoever calls it, the magefiles here. It
// knows neither Mage nor Ginkgo's API, and no service by name: those stand in the
// Catalog.
//
//	config, err := infrastructure.ReadConfig(os.Environ())
//	plan, err := infrastructure.NewPlan(".", catalog, config)
//	env, err := infrastructure.Open(ctx, plan, infrastructure.Screen{...})
//	err = env.Build(ctx, "gateway")
//	...
//	err = env.Finish(ctx, err)
//
// Every phase converges: running it again is safe, and quick when nothing changed.
package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/coverage"
	"kubernaut.ai/e2e/test/infrastructure/engine"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Engine is the container engine, as the phases need it.
type Engine interface {
	Build(ctx context.Context, dir, ref, target string, labels ...string) error
	Exists(ctx context.Context, ref string) (bool, error)
	Pull(ctx context.Context, ref string, firstAnswer time.Duration) error
	Save(ctx context.Context, w io.Writer, refs ...string) error
	RunPrivileged(ctx context.Context, ref string, volumes, mounts []string, stdout io.Writer, entrypoint string, args ...string) error
	Images(ctx context.Context, label string) ([]string, error)
	Remove(ctx context.Context, refs ...string) error
}

// Cluster is the Kind cluster, as the phases need it.
type Cluster interface {
	Create(ctx context.Context, spec cluster.Spec, retried func(error)) error
	Ready(ctx context.Context) error
	Delete(ctx context.Context) error
	Nodes(ctx context.Context) ([]string, error)
	All(ctx context.Context) ([]string, error)
	Ports(ctx context.Context, node string) (map[int32]string, error)
	Images(ctx context.Context, node string) ([]string, error)
	Import(ctx context.Context, nodes []string, save func(context.Context, io.Writer) error) error
}

// Applier puts objects into the cluster.
type Applier interface {
	Apply(ctx context.Context, objs []*unstructured.Unstructured) (apply.ChangeSet, error)
	Wait(ctx context.Context, changes apply.ChangeSet) error
}

// Adapters are the doors to the outside. Open makes the real ones; a test gives
// its own.
type Adapters struct {
	EngineName string
	Runner     command.Runner
	Engine     Engine
	Cluster    Cluster
	Connect    func(kubeconfig string) (Applier, error)
	// Stop ends the pods of Deployments in order, and Follow watches all pods until
	// ctx ends; both show what they see.
	Stop   func(ctx context.Context, kubeconfig, namespace string, deployments []string, seen func(*corev1.Pod)) error
	Follow func(ctx context.Context, kubeconfig, namespace string, seen func(*corev1.Pod)) error
}

// Environment is a plan and the adapters that carry it out. Its methods are safe
// for concurrent use. The first step that fails cancels every other.
type Environment struct {
	*Plan
	Adapters
	Timeline *timeline.Recorder

	results io.Writer        // the process's stdout
	record  *coverage.Record // of the coverage variant's run

	compile func(context.Context) error // once: all services

	mu         sync.Mutex
	refs       map[string]string // images built or found, by catalog name
	own        map[string]bool   // third-party images that were built here
	applier    Applier
	nodeImages map[string]map[string]bool // what each node has
	suites     []suiteReport              // those that ran
	failure    error                      // the first step's that failed
	canceled   context.CancelCauseFunc
	run        context.Context
	unfollow   func() error // ends the watch of the pods; nil while there is none
}

// Screen is where progress goes, and results.
type Screen struct {
	Out      io.Writer // progress
	Results  io.Writer // what machines read, as GitHub's annotations; nil discards it
	Terminal bool      // Out is one
	Verbose  bool
}

// Open chooses the engine and returns an environment for the plan with the real
// adapters. It makes nothing: evidence comes with the first step.
func Open(ctx context.Context, plan *Plan, shown Screen) (*Environment, error) {
	runner := command.Local{Log: timeline.Log}
	name, err := host.Choose(ctx, host.Options{
		Runner: runner, Engine: plan.Config.Engine, Checkout: plan.Root,
		Say: func(format string, args ...any) { fmt.Fprintf(shown.Out, format+"\n", args...) },
	})
	if err != nil {
		return nil, err
	}
	return OpenWith(plan, shown, Adapters{
		EngineName: name,
		Runner:     runner,
		Engine:     engine.Engine{Name: name, Runner: runner},
		Cluster: cluster.Kind{
			Name: plan.ClusterName, Engine: name, Kubeconfig: filepath.Join(plan.Dir, "kubeconfig"),
			Runner: runner, Log: timeline.Log,
		},
		Connect: connect,
		Stop:    coverage.Stop,
		Follow:  coverage.Follow,
	})
}

// OpenWith is Open with given adapters.
func OpenWith(plan *Plan, shown Screen, adapters Adapters) (*Environment, error) {
	recorder := timeline.New(timeline.Options{
		Folder:  plan.evidence,
		Cluster: plan.ClusterName, Variant: string(plan.Variant),
		Screen: screen.On(shown.Out, shown.Terminal), Verbose: shown.Verbose,
	})
	env := &Environment{
		Plan: plan, Adapters: adapters, Timeline: recorder, results: shown.Results,
		refs: map[string]string{}, own: map[string]bool{}, nodeImages: map[string]map[string]bool{},
	}
	if env.results == nil {
		env.results = io.Discard
	}
	env.run, env.canceled = context.WithCancelCause(context.Background())
	env.compile = onceContext(env.compileServices)
	if plan.Variant == Coverage {
		var err error
		if env.record, err = coverage.OpenRecord(filepath.Join(env.coverageDir(), "run.json")); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// Variation returns an environment for the same cluster whose plan differs by what
// change does to it. It knows what has been built here, keeps its evidence in a folder
// of its own and shows no progress; its failures cancel nothing here.
func (e *Environment) Variation(evidence string, change func(*Plan)) (*Environment, error) {
	plan := *e.Plan
	plan.EvidenceDir = evidence
	change(&plan)
	variation, err := OpenWith(&plan, Screen{Out: io.Discard}, e.Adapters)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	variation.refs, variation.own, variation.applier = maps.Clone(e.refs), maps.Clone(e.own), e.applier
	return variation, nil
}

// evidence returns the folder of the evidence. Where a run begins, .e2e/last points to
// it from now on; looking, and a variation, leave it where it is.
func (p *Plan) evidence(fresh bool) (string, error) {
	dir := p.evidenceDir()
	if !fresh || p.EvidenceDir != "" {
		return dir, nil
	}
	last := filepath.Join(p.Root, ".e2e", "last")
	if err := os.MkdirAll(filepath.Dir(last), 0o755); err != nil {
		return "", err
	}
	// In what was unpacked from an archive that follows links it is a copy.
	if info, err := os.Lstat(last); err == nil && info.IsDir() {
		if err := os.RemoveAll(last); err != nil {
			return "", err
		}
	}
	return dir, renameio.Symlink(p.ClusterName, last)
}

// step runs fn as a step with a deadline. When it fails, every other step of the
// environment is canceled, with this failure as the cause.
func (e *Environment) step(ctx context.Context, phase, name string, timeout time.Duration, fn func(context.Context, *timeline.Step) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(e.run, func() { cancel(context.Cause(e.run)) })
	defer stop()
	if cause := context.Cause(e.run); cause != nil {
		return cause
	}
	ctx, release := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
	defer release()
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
	if errors.As(err, &specs) {
		return
	}
	e.mu.Lock()
	first := e.failure == nil
	if first {
		e.failure = err
	}
	e.mu.Unlock()
	if first {
		e.canceled(canceledBy{err})
	}
}

// canceledBy is the cause that a step ends with because another one failed. Its
// text is short: the failure itself is reported once.
type canceledBy struct{ failure error }

func (c canceledBy) Error() string        { return "canceled: another step failed" }
func (c canceledBy) Is(target error) bool { return target == context.Canceled }

func connect(kubeconfig string) (Applier, error) { return apply.Open(kubeconfig, apply.Options{}) }

// connection returns the applier, made when first needed.
func (e *Environment) connection() (Applier, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.applier == nil {
		applier, err := e.Connect(e.kubeconfig())
		if err != nil {
			return nil, err
		}
		e.applier = applier
	}
	return e.applier, nil
}

func (e *Environment) kubeconfig() string { return filepath.Join(e.Dir, "kubeconfig") }

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

func (e *Environment) setRef(name, ref string, own bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refs[name], e.own[name] = ref, own
}

// onceContext returns a function that runs fn once, for whoever comes first, and
// gives every caller its result.
func onceContext(fn func(context.Context) error) func(context.Context) error {
	var once sync.Once
	var err error
	return func(ctx context.Context) error {
		once.Do(func() { err = fn(ctx) })
		return err
	}
}
