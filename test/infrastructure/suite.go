package infrastructure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// BuildSuite compiles a suite, so that one that does not compile costs no cluster.
func (e *Environment) BuildSuite(ctx context.Context, name string) error {
	return e.step(ctx, "build", "suite-"+name, e.Timeouts.Build, func(ctx context.Context, step *timeline.Step) error {
		binary := e.suiteBinary(name)
		if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
			return err
		}
		before := digest(binary)
		err := e.Runner.Run(ctx, command.Cmd{
			Args: []string{"go", "test", "-c", "-race", "-o", binary, "./test/e2e/" + name},
			Dir:  e.Root, Env: []string{"GOFLAGS=", "GOWORK=off"},
		})
		if err != nil {
			return err
		}
		// go test writes the file anew, whatever is in it.
		if after := digest(binary); after != "" && after == before {
			step.Cached("%s", e.relative(binary))
		}
		return nil
	})
}

// digest identifies what is in a file; empty if it cannot be read.
func digest(path string) string {
	inputs := image.NewInputs()
	inputs.File(os.DirFS(filepath.Dir(path)), filepath.Base(path))
	if inputs.Err() != nil {
		return ""
	}
	return image.Image{Inputs: inputs}.Ref()
}

func (e *Environment) suiteBinary(name string) string {
	return filepath.Join(e.Root, ".e2e", "build", e.ClusterName, name+".test")
}

// Suites runs suites one after the other. Failed specs of one do not keep the next
// from running; anything else does.
func (e *Environment) Suites(ctx context.Context, names ...string) error {
	var failures []error
	for _, name := range names {
		err := e.Suite(ctx, name)
		var failed *SuiteError
		if err != nil && !errors.As(err, &failed) {
			return errors.Join(append(failures, err)...)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// Suite writes target.json and runs the suite against the environment. Its JUnit
// and JSON reports are written also when it fails.
func (e *Environment) Suite(ctx context.Context, name string) error {
	return e.step(ctx, "suite", name, e.Timeouts.Suite, func(ctx context.Context, step *timeline.Step) error {
		if err := e.writeTarget(ctx); err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.record.Tested(name); err != nil {
				return err
			}
		}
		procs := e.Config.Suite.Procs
		if procs == 0 {
			// Specs wait more than they compute.
			procs = max(4, runtime.NumCPU())
		}
		args := []string{"go", "tool", "ginkgo", "run",
			"--procs=" + strconv.Itoa(procs), "--randomize-all", "--keep-going",
			"--fail-on-pending", "--fail-on-empty",
			"--timeout=" + (e.Timeouts.Suite - e.Timeouts.Gather).String(),
			"--output-dir=" + filepath.Join(e.evidenceDir(), "junit"), "--junit-report=" + name + ".xml", "--json-report=" + name + ".json",
			"--no-color", "--succinct",
		}
		if e.Config.Suite.Seed != 0 {
			args = append(args, "--seed="+strconv.FormatInt(e.Config.Suite.Seed, 10))
		}
		for flag, value := range map[string]string{"--focus": e.Config.Suite.Focus, "--skip": e.Config.Suite.Skip, "--label-filter": e.Config.Suite.Labels} {
			if value != "" {
				args = append(args, flag+"="+value)
			}
		}
		out := &lines{say: e.Timeline.Say}
		err := e.Runner.Run(ctx, command.Cmd{
			Args: append(args, e.suiteBinary(name)), Dir: e.Root,
			Env:    []string{target.EnvFile + "=" + e.targetFile()},
			Stdout: io.MultiWriter(timeline.Log(ctx), out),
		})
		out.flush()
		report, reportErr := e.readReport(filepath.Join(e.evidenceDir(), "junit", name+".json"), name)
		if reportErr != nil {
			return cmp.Or(err, reportErr)
		}
		e.mu.Lock()
		e.suites = append(e.suites, report)
		e.mu.Unlock()
		step.Detail("%s", report.counts())
		if err == nil {
			return nil
		}
		var exit *command.Error
		if len(report.failures) == 0 || !errors.As(err, &exit) || ctx.Err() != nil {
			if len(report.reasons) > 0 {
				return fmt.Errorf("%s: %w", strings.Join(report.reasons, "; "), err)
			}
			return err
		}
		return &SuiteError{Suite: name, Counts: report.counts(), Failed: report.failures}
	})
}

func (e *Environment) targetFile() string { return filepath.Join(e.Dir, "target.json") }

// writeTarget describes the deployed environment to the suites.
func (e *Environment) writeTarget(ctx context.Context) error {
	nodes, err := e.Cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return fmt.Errorf("cluster %s: has no node that runs", e.ClusterName)
	}
	mapped, err := e.Cluster.Ports(ctx, nodes[slices.Index(nodes, e.ClusterName+"-control-plane")])
	if err != nil {
		return err
	}
	endpoints := map[string]string{}
	for _, port := range e.NodePorts {
		address, ok := mapped[cluster.Port{Number: port.NodePort, Protocol: port.Protocol}]
		if !ok {
			return fmt.Errorf("cluster %s: node port %d of Service %s is not mapped; run: go tool mage cluster:delete", e.ClusterName, port.NodePort, port.Service)
		}
		endpoints[port.Service+"/"+port.Port] = address
	}
	e.mu.Lock()
	images := maps.Clone(e.refs)
	e.mu.Unlock()
	t := &target.Target{
		Cluster: e.ClusterName, Variant: string(e.Variant), Engine: e.EngineName, Nodes: nodes,
		Kubeconfig: e.kubeconfig(), Namespace: e.Namespace, Artifacts: e.Dir, Endpoints: endpoints, Images: images,
	}
	return t.Write(e.targetFile())
}
