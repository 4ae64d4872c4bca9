package mutants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/faults"
	"kubernaut.ai/e2e/test/e2e/session"
	"kubernaut.ai/e2e/test/e2e/stores"
	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

const (
	// whole bounds everything about one mutant: a build, a roll-out, and at worst a suite
	// in which every wait runs into its timeout.
	whole = 12 * time.Minute
	// rollOut bounds a deployment. A service is up in seconds, or is not going to be; the
	// pod before it may take its grace period of a minute to end.
	rollOut = 90 * time.Second
	// focusedSuite bounds the specs that should notice; the longest of them breaks
	// something and waits for a minute at most.
	focusedSuite = 3 * time.Minute
	// fewProcs is enough for a few specs: each process costs a second to start.
	fewProcs = 2
	// wholeSuite bounds a suite, which takes two minutes when nothing is wrong.
	wholeSuite = 8 * time.Minute
	// restoring bounds putting the unchanged services back when the run was interrupted:
	// whoever interrupts a program leaves it two seconds.
	restoring = 1500 * time.Millisecond
)

// trial is one run over some mutants.
type trial struct {
	base     *infrastructure.Environment
	kube     *cluster.Cluster
	folder   string
	deployed map[string]bool // services that are not as the checkout has them
	before   map[string]bool // runs of suites that had left something already
}

// Run tries the mutants that E2E_MUTANTS matches on an environment in which everything is
// deployed and the suites are compiled, and writes the table of what noticed them to out
// and to mutants.md in the evidence folder of the environment. Before and after, the same specs have to pass
// with the services as they are. It returns an error when a mutant survived or could not
// be tried. The services are left as the checkout has them, also when ctx ends.
func Run(ctx context.Context, env *infrastructure.Environment, described *target.Target, out io.Writer) (err error) {
	all, err := Read()
	if err != nil {
		return err
	}
	some, err := chosen(all, env.Mutants)
	if err != nil {
		return err
	}
	t := &trial{base: env, folder: env.Evidence, deployed: map[string]bool{}}
	if err := t.control(ctx, "before", some); err != nil {
		return err
	}
	if err := t.connect(ctx, described); err != nil {
		return err
	}
	var results []result
	for _, m := range some {
		results = append(results, t.try(ctx, m))
		// After each: half an hour's results should outlive what may happen to the run.
		err = os.WriteFile(filepath.Join(t.folder, "mutants.md"), []byte(markdown(results)), 0o644)
		if err != nil || ctx.Err() != nil {
			break
		}
	}
	err = errors.Join(err, t.restore(ctx))
	if err == nil && ctx.Err() == nil {
		err = t.control(ctx, "after", some)
	}
	_, printing := io.WriteString(out, markdown(results))
	return errors.Join(err, verdict(results, len(some)), printing)
}

// control runs the specs that should notice without a defect: they have to pass.
func (t *trial) control(ctx context.Context, when string, some []Mutant) error {
	return t.base.Timeline.Step(ctx, "mutants", "none-"+when, func(ctx context.Context, step *timeline.Step) error {
		for _, service := range services(some) {
			var focus []string
			for _, m := range some {
				if m.Service == service {
					focus = append(focus, m.Focus)
				}
			}
			step.Status("the specs of %s without a defect", service)
			env, err := t.base.Variation(filepath.Join(t.folder, "none-"+when, service), func(plan *infrastructure.Plan) {
				plan.Config.Suite.Focus, plan.Config.Suite.Skip, plan.Config.Suite.Labels = strings.Join(focus, "|"), "", ""
				plan.Timeouts.Suite = wholeSuite
			})
			if err == nil {
				err = env.Do(ctx, infrastructure.Phase{Kind: infrastructure.RunSuite, Name: service})
			}
			if err != nil {
				return fmt.Errorf("without a defect: %w", err)
			}
		}
		return nil
	})
}

// connect reaches the cluster, and sees what earlier runs have left in it.
func (t *trial) connect(ctx context.Context, described *target.Target) (err error) {
	if t.kube, err = cluster.Connect(described); err != nil {
		return err
	}
	t.before, err = t.runs(ctx)
	return err
}

// try builds, deploys and tests one mutant. What went wrong is in the result.
func (t *trial) try(ctx context.Context, m Mutant) result {
	r := result{Mutant: m}
	begun := time.Now()
	_ = t.base.Timeline.Step(ctx, "mutants", m.ID, func(ctx context.Context, step *timeline.Step) error {
		ctx, cancel := context.WithTimeoutCause(ctx, whole, fmt.Errorf("not done after %s", whole))
		defer cancel()
		r.err = t.attempt(ctx, m, &r, step)
		if err := t.tidy(ctx); err != nil && ctx.Err() == nil {
			t.base.Timeline.Say("removing what the suites left: %v", err)
		}
		if r.err == nil && !r.caught() {
			return errors.New("survived: " + m.Defect)
		}
		step.Detail("%s", r.by())
		return r.err
	})
	r.took = time.Since(begun)
	return r
}

func (t *trial) attempt(ctx context.Context, m Mutant, r *result, step *timeline.Step) error {
	folder := filepath.Join(t.folder, m.ID)
	overlay, err := m.Write(t.base.Root, t.base.BuildFolder("mutant"))
	if err != nil {
		return err
	}
	env, err := t.base.Variation(folder, func(plan *infrastructure.Plan) {
		plan.Overlay = overlay
		plan.Images = only(plan.Images, m.Service)
		plan.Config.Suite.Focus, plan.Config.Suite.Skip, plan.Config.Suite.Labels = m.Focus, "", ""
		plan.Config.Suite.Procs = cmp.Or(plan.Config.Suite.Procs, fewProcs)
		plan.Timeouts.Deploy, plan.Timeouts.Suite = rollOut, focusedSuite
	})
	if err != nil {
		return err
	}
	step.Status("building")
	phase := func(kind infrastructure.Kind) infrastructure.Phase {
		return infrastructure.Phase{Kind: kind, Name: m.Service}
	}
	for _, p := range []infrastructure.Phase{{Kind: infrastructure.CompileServices}, phase(infrastructure.BuildImage)} {
		if err := env.Do(ctx, p); err != nil {
			return err
		}
	}
	ref, err := env.Ref(m.Service)
	if err != nil {
		return err
	}
	if plain, err := t.base.Ref(m.Service); err != nil || plain == ref {
		return errors.Join(err, errors.New("is no defect: the compiler makes the same program of it"))
	}
	if err := env.Do(ctx, phase(infrastructure.LoadImage)); err != nil {
		return err
	}
	// The nodes have it now. What they hold goes with the cluster.
	if err := env.Discard(ctx, m.Service); err != nil {
		return err
	}
	for service := range t.deployed {
		if service != m.Service {
			if err := t.putBack(ctx, service); err != nil {
				return err
			}
		}
	}
	step.Status("deploying")
	err = t.deploy(ctx, env, m.Service)
	t.deployed[m.Service] = true
	var down *apply.NotReadyError
	if errors.As(err, &down) && ctx.Err() == nil {
		r.down = true
		return nil
	}
	if err != nil {
		return err
	}
	step.Status("running the specs that should fail")
	if r.specs, err = noticed(env.Do(ctx, phase(infrastructure.RunSuite))); err != nil || r.caught() {
		return err
	}
	step.Status("they pass; running the whole suite")
	r.unfocused = true
	env, err = env.Variation(folder+"-whole", func(plan *infrastructure.Plan) {
		plan.Config.Suite.Focus, plan.Config.Suite.Procs, plan.Timeouts.Suite = "", t.base.Config.Suite.Procs, wholeSuite
	})
	if err == nil {
		r.specs, err = noticed(env.Do(ctx, phase(infrastructure.RunSuite)))
	}
	return err
}

// noticed are the specs that failed. A suite that failed otherwise says nothing about the
// mutant.
func noticed(err error) ([]string, error) {
	var failed *infrastructure.SuiteError
	if !errors.As(err, &failed) {
		return nil, err
	}
	var specs []string
	for _, spec := range failed.Failed {
		if !spec.Node {
			specs = append(specs, spec.Name)
		}
	}
	if len(specs) == 0 {
		return nil, err
	}
	return specs, nil
}

// only is the one image that is built for a mutant.
func only(images []infrastructure.ImageSpec, name string) []infrastructure.ImageSpec {
	for _, image := range images {
		if image.Name == name {
			return []infrastructure.ImageSpec{image}
		}
	}
	return nil
}

// storage is the service that keeps what it is sent.
const storage = "datastorage"

// deploy rolls a service out and waits until no pod of the one before is left, which
// would answer as that one does. What a mutant may have stored wrongly goes first: specs
// that look at all that is stored would notice it in whatever comes after.
func (t *trial) deploy(ctx context.Context, env *infrastructure.Environment, service string) error {
	world := &faults.Injector{Cluster: t.kube, Runner: command.Local{}}
	if service == storage && t.deployed[service] {
		_, err := world.Down(ctx, faults.App{Name: service})
		if err == nil {
			err = stores.Empty(ctx, t.kube)
		}
		if err != nil {
			return fmt.Errorf("emptying the stores: %w", err)
		}
	}
	if err := env.Do(ctx, infrastructure.Phase{Kind: infrastructure.DeployComponent, Name: service}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rollOut)
	defer cancel()
	return world.AwaitReady(ctx, faults.App{Name: service})
}

// restore puts back what is not as the checkout has it. After an interruption it only
// says so to the cluster, which then does it.
func (t *trial) restore(ctx context.Context) error {
	timeout := t.base.Timeouts.Deploy
	if ctx.Err() != nil {
		timeout = restoring
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	var errs []error
	for service := range t.deployed {
		errs = append(errs, t.putBack(ctx, service))
	}
	return errors.Join(errs...)
}

// putBack deploys a service as the checkout has it. It does so by an environment of its
// own: one that was interrupted once does nothing more.
func (t *trial) putBack(ctx context.Context, service string) error {
	env, err := t.base.Variation(filepath.Join(t.folder, "unchanged"), func(*infrastructure.Plan) {})
	if err == nil {
		err = t.deploy(ctx, env, service)
	}
	if err != nil {
		return fmt.Errorf("putting %s back: %w", service, err)
	}
	delete(t.deployed, service)
	return nil
}

// tidy removes what the suites of mutants have left, which keep it as evidence of a
// failure.
func (t *trial) tidy(ctx context.Context) error {
	runs, err := t.runs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for run := range runs {
		if !t.before[run] {
			errs = append(errs, (&session.Session{Run: run}).End(ctx, t.kube))
		}
	}
	return errors.Join(errs...)
}

// runs are the runs of suites that have left something: each has made accounts.
func (t *trial) runs(ctx context.Context) (map[string]bool, error) {
	var accounts corev1.ServiceAccountList
	if err := t.kube.API.List(ctx, &accounts, client.InNamespace(t.base.Namespace), client.HasLabels{cluster.LabelRun}); err != nil {
		return nil, err
	}
	runs := map[string]bool{}
	for _, account := range accounts.Items {
		runs[account.Labels[cluster.LabelRun]] = true
	}
	return runs, nil
}
