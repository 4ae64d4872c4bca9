package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/checks"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/testservers"
)

// UnitTests runs every test that needs nothing but Go.
func UnitTests(ctx context.Context, plan *Plan, out, progress io.Writer) error {
	return plan.checks(out, progress).Unit(ctx)
}

// IntegrationTests runs the tests with the tag integration against a PostgreSQL, a
// Redis and a Kubernetes API server, real ones, that it starts on free ports of
// 127.0.0.1 and stops.
func IntegrationTests(ctx context.Context, plan *Plan, out, progress io.Writer) (err error) {
	runner := command.Local{}
	assets := plan.cluster().Path("build", "envtest")
	fmt.Fprintf(progress, "compiling kube-apiserver and etcd %s (minutes the first time on a machine, seconds after)\n", plan.Kubernetes)
	if err := bootstrap.APIServer(ctx, runner, filepath.Join(plan.Root, "docker", plan.Node), assets); err != nil {
		return err
	}
	servers, err := testservers.Start(ctx, testservers.Options{
		Runner: runner, APIServer: assets, Dir: plan.cluster().Path("servers"),
		Container: func(ctx context.Context, name string) (string, string, error) {
			return plan.obtained(ctx, name, progress)
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop(context.WithoutCancel(ctx))) }()
	return plan.checks(out, progress).Integration(ctx, servers.Env())
}

// BrowserTests look at pages of made-up runs in a real browser, and leave pictures of them in
// .e2e/build/pages.
func BrowserTests(ctx context.Context, plan *Plan, out, progress io.Writer) error {
	return plan.checks(out, progress).Browser(ctx, plan.cluster().Path("build", "pages"))
}

// obtained is the engine and the reference of a third-party image, which is got
// first if need be: a host without the servers' programs runs them in containers.
func (p *Plan) obtained(ctx context.Context, name string, progress io.Writer) (engine, ref string, err error) {
	engine, err = chooseEngine(ctx, p, func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) })
	if err != nil {
		return "", "", err
	}
	own := *p
	own.Evidence = p.cluster().Path("servers", "obtain-"+name)
	env, err := OpenWith(ctx, &own, Screen{Out: progress}, RealAdapters(p, engine))
	if err != nil {
		return "", "", err
	}
	if err := env.Do(ctx, Phase{BuildImage, name}); err != nil {
		return "", "", err
	}
	ref, err = env.Ref(name)
	return engine, ref, err
}

// Lint runs the linters and checks that generated files are current.
func Lint(ctx context.Context, plan *Plan, out, progress io.Writer) error {
	return plan.checks(out, progress).Lint(ctx)
}

// Generate makes the generated Go code and the CRDs anew.
func Generate(ctx context.Context, plan *Plan, progress io.Writer) error {
	return plan.checks(progress, progress).Generate(ctx)
}

func (p *Plan) checks(out, progress io.Writer) checks.Checks {
	c := checks.Checks{Root: p.Root, Out: out, Progress: progress}
	for _, suite := range p.Suites {
		c.Suites = append(c.Suites, suite.Name)
	}
	for _, spec := range p.covered() {
		c.Services = append(c.Services, checks.Service{Name: spec.Name, Package: spec.Package, ImportPath: p.importPath(spec)})
	}
	return c
}

// testCounters are the folders with what the tests of a service have counted.
func (p *Plan) testCounters(spec ImageSpec, say func(format string, args ...any)) ([]string, error) {
	return p.checks(io.Discard, io.Discard).Counters(spec.Name, say)
}

// goSource is a fingerprint of the services' Go files, with or without tests.
func (p *Plan) goSource(tests bool) (string, error) { return checks.Source(p.Root, tests) }
