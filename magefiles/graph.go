//go:build mage

// The targets of kubernaut-e2e: from a checkout to a proven system.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/magefile/mage/mg"
	"golang.org/x/term"

	"kubernaut.ai/e2e/test/infrastructure"
)

// The phases and what must come before each: this file is the hybrid order. A
// phase is remembered by its arguments, the variant among them, so the standard
// and the coverage chain can both run, in full, in one mage process.

func build(ctx context.Context, variant, image string) error {
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.Build(ctx, image)
}

func buildSuite(ctx context.Context, variant, suite string) error {
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.BuildSuite(ctx, suite)
}

// create comes after every build: no cluster idles, and none is made for a build
// that fails.
func create(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, builds(variant)...)
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.CreateCluster(ctx)
}

// load of a service's image comes after those of the infrastructure: PostgreSQL
// takes longest to come up, so it gets the machine first, and the services' images
// go in while it starts.
func load(ctx context.Context, variant, image string) error {
	if slices.Contains(infra, image) {
		mg.CtxDeps(ctx, mg.F(create, variant))
	} else {
		mg.CtxDeps(ctx, forEach(load, variant, infra)...)
	}
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.Load(ctx, image)
}

func deployInfra(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, forEach(load, variant, infra)...)
	return deploy(ctx, variant, "infra", infra...)
}

func deployMigrations(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(deployInfra, variant), mg.F(load, variant, "datastorage"))
	return deploy(ctx, variant, "migrations", "migrations")
}

func deployDataStorage(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(deployMigrations, variant))
	return deploy(ctx, variant, "datastorage", "datastorage")
}

func deployGateway(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(deployDataStorage, variant), mg.F(load, variant, "gateway"))
	return deploy(ctx, variant, "gateway", "gateway")
}

// deployAlertmanager needs nothing that runs: Alertmanager sends when it has something to
// send, so it starts while the services do.
func deployAlertmanager(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(load, variant, "alertmanager"))
	return deploy(ctx, variant, "alertmanager", "alertmanager")
}

// deploySenders is the Gateway with what its suite sends by.
func deploySenders(ctx context.Context, variant string) error {
	mg.CtxDeps(ctx, mg.F(deployGateway, variant), mg.F(deployAlertmanager, variant))
	return nil
}

func deploy(ctx context.Context, variant, step string, components ...string) error {
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.Deploy(ctx, step, components...)
}

func e2eGateway(ctx context.Context, variant string) error {
	return suites(ctx, variant, deploySenders, "gateway")
}

func e2eDataStorage(ctx context.Context, variant string) error {
	return suites(ctx, variant, deployDataStorage, "datastorage")
}

func e2eAll(ctx context.Context, variant string) error {
	// The Gateway's last: at its end hundreds of namespaces are deleted, which the cluster
	// is busy with for a while.
	return suites(ctx, variant, deploySenders, "datastorage", "gateway")
}

// suites compiles the suites and deploys what they test, then runs one after the
// other: each has fault specs that want the cluster for themselves.
func suites(ctx context.Context, variant string, deployed func(context.Context, string) error, names ...string) error {
	mg.CtxDeps(ctx, forEach(buildSuite, variant, names)...)
	mg.CtxDeps(ctx, mg.F(deployed, variant))
	env, err := environment(ctx, variant)
	if err != nil {
		return err
	}
	return env.Suites(ctx, names...)
}

// services, infra and senders are the images that go into the nodes, by catalog name.
var (
	services = []string{"gateway", "datastorage"}
	infra    = []string{"postgres", "redis"}
	senders  = []string{"alertmanager"}
)

func loads(variant string) []any {
	return forEach(load, variant, slices.Concat(services, infra, senders))
}

func builds(variant string) []any {
	return forEach(build, variant, slices.Concat(services, infra, senders, []string{"kind-node"}))
}

func forEach(phase func(context.Context, string, string) error, variant string, names []string) []any {
	phases := make([]any, len(names))
	for i, name := range names {
		phases[i] = mg.F(phase, variant, name)
	}
	return phases
}

// environments holds one environment a variant, opened by the first phase that
// needs it.
var environments = struct {
	sync.Mutex
	open map[string]*infrastructure.Environment
}{open: map[string]*infrastructure.Environment{}}

func environment(ctx context.Context, variant string) (*infrastructure.Environment, error) {
	environments.Lock()
	defer environments.Unlock()
	if env := environments.open[variant]; env != nil {
		return env, nil
	}
	plan, err := plan(variant)
	if err != nil {
		return nil, err
	}
	env, err := infrastructure.Open(ctx, plan, screen())
	if err != nil {
		return nil, err
	}
	environments.open[variant] = env
	return env, nil
}

func plan(variant string) (*infrastructure.Plan, error) {
	config, err := infrastructure.ReadConfig(os.Environ())
	if err != nil {
		return nil, err
	}
	if variant != "" {
		config.Variant = infrastructure.Variant(variant)
	}
	return infrastructure.NewPlan(".", infrastructure.Kubernaut(), config)
}

func screen() infrastructure.Screen {
	return infrastructure.Screen{Out: os.Stderr, Results: os.Stdout, Terminal: term.IsTerminal(int(os.Stderr.Fd())), Verbose: mg.Verbose()}
}

// selected is the variant that E2E_COVERAGE asks for.
func selected() (string, error) {
	config, err := infrastructure.ReadConfig(os.Environ())
	return string(config.Variant), err
}

// phases runs single phases of the selected variant.
func phases(ctx context.Context, of func(variant string) []any) error {
	variant, err := selected()
	if err != nil {
		return err
	}
	err = deps(ctx, of(variant)...)
	if env := opened(variant); env != nil {
		return env.Diagnose(ctx, err)
	}
	return err
}

// end2end runs a whole chain and ends it in order, whatever came of it.
func end2end(ctx context.Context, variant string, chain any) error {
	err := deps(ctx, chain)
	if env := opened(variant); env != nil {
		return env.Finish(ctx, err)
	}
	return err
}

func opened(variant string) *infrastructure.Environment {
	environments.Lock()
	defer environments.Unlock()
	return environments.open[variant]
}

// deps is mg.CtxDeps with an error instead of a panic, so that a target can end in
// order after a dependency failed.
func deps(ctx context.Context, fns ...any) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = errors.New(unique(fmt.Sprint(cause)))
		}
	}()
	mg.CtxDeps(ctx, fns...)
	return nil
}

// unique leaves out the lines that came before: mage repeats a failure for every
// dependency that shares it.
func unique(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); !slices.Contains(kept, line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
