package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/engine"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Build makes the image, or finds it: a service's is compiled here, a third-party
// one is obtained as the image policy says.
func (e *Environment) Build(ctx context.Context, name string) error {
	spec, err := e.image(name)
	if err != nil {
		return err
	}
	timeout, fn := e.Timeouts.Build, e.buildService
	if spec.Package == "" {
		timeout, fn = e.Timeouts.Obtain, e.obtain
	} else if err := e.compile(ctx); err != nil {
		return err
	}
	return e.step(ctx, "build", name, timeout, func(ctx context.Context, step *timeline.Step) error {
		return fn(ctx, step, spec)
	})
}

// buildService builds the image of a compiled service if no image of these inputs
// exists.
func (e *Environment) buildService(ctx context.Context, step *timeline.Step, spec ImageSpec) error {
	source := e.source(spec)
	binary := filepath.Base(spec.Package)
	inputs := image.NewInputs().
		Text("platform", runtime.GOOS+"/"+runtime.GOARCH).
		Text("variant", string(e.Variant)).
		File(os.DirFS(source), "Dockerfile").
		File(os.DirFS(e.binaries()), binary)
	if err := inputs.Err(); err != nil {
		return err
	}
	ref := image.Image{Name: spec.Name, Inputs: inputs}.Ref()
	if found, err := e.Engine.Exists(ctx, ref); err != nil {
		return err
	} else if found {
		step.Cached("%s", ref)
	} else {
		// A context of two files: nothing else of the checkout can get in.
		work := filepath.Join(e.Root, ".e2e", "build", e.ClusterName, spec.Name)
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := os.MkdirAll(work, 0o755); err != nil {
			return err
		}
		if err := link(filepath.Join(source, "Dockerfile"), filepath.Join(work, "Dockerfile")); err != nil {
			return err
		}
		if err := link(filepath.Join(e.binaries(), binary), filepath.Join(work, binary)); err != nil {
			return err
		}
		if err := e.Engine.Build(ctx, work, ref, "", image.Label+"="+spec.Name); err != nil {
			return fmt.Errorf("%s: %w", e.relative(filepath.Join(source, "Dockerfile")), err)
		}
		step.Detail("%s", ref)
	}
	e.setRef(spec.Name, ref, true)
	return nil
}

// binaries is where the compiled services of this variant lie. The folder stays, so
// that the next go build links nothing that has not changed.
func (e *Environment) binaries() string {
	if e.Overlay != "" {
		return filepath.Join(filepath.Dir(e.Overlay), "bin")
	}
	return filepath.Join(e.Root, ".e2e", "build", e.ClusterName, "bin")
}

// coverageTag is the build tag of the coverage variant: it has a service write its
// counters when it is told to.
const coverageTag = "coverage"

// compileServices builds all services with one go build: what they share is
// compiled once, and the compiler uses every core on one list of work. In the
// coverage variant each service is built by itself, because each is instrumented
// for its own packages only; dependencies still come from the build cache.
func (e *Environment) compileServices(ctx context.Context) error {
	return e.step(ctx, "build", "compile", e.Timeouts.Build, func(ctx context.Context, step *timeline.Step) error {
		if err := os.MkdirAll(e.binaries(), 0o755); err != nil {
			return err
		}
		before := image.NewInputs().Dir(os.DirFS(e.binaries()), ".")
		if err := e.goBuild(ctx); err != nil {
			return err
		}
		after := image.NewInputs().Dir(os.DirFS(e.binaries()), ".")
		if (image.Image{Inputs: before}).Ref() == (image.Image{Inputs: after}).Ref() {
			step.Cached("%s", e.relative(e.binaries()))
		}
		return errors.Join(before.Err(), after.Err())
	})
}

func (e *Environment) goBuild(ctx context.Context) error {
	var packages []string
	for _, spec := range e.Images {
		if spec.Package != "" {
			packages = append(packages, spec.Package)
		}
	}
	builds := [][]string{packages}
	if e.Variant == Coverage {
		builds = nil
		for _, pkg := range packages {
			builds = append(builds, []string{"-tags=" + coverageTag, "-cover", "-covermode=atomic", "-coverpkg=" + pkg + "/...", pkg})
		}
	}
	for _, build := range builds {
		// -trimpath: the same source gives the same binary, and so the same image, in
		// every checkout.
		args := []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}
		if e.Overlay != "" {
			args = append(args, "-overlay", e.Overlay)
		}
		args = append(args, "-o", e.binaries()+string(filepath.Separator))
		err := e.Runner.Run(ctx, command.Cmd{Args: append(args, build...), Dir: e.Root, Env: []string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}})
		var failed *command.Error
		if errors.As(err, &failed) && failed.ExitCode > 0 && ctx.Err() == nil {
			return errors.New(compilerLines(failed.Stderr))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compilerLines is what the compiler found: go build's output without the lines
// that only name a package, which each file's path does as well.
func compilerLines(stderr string) string {
	var kept []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "# ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// obtain gets a third-party image: from the engine's store, by pulling, or by
// building it from packages, as far as the policy allows. It says which.
func (e *Environment) obtain(ctx context.Context, step *timeline.Step, spec ImageSpec) error {
	built, err := e.builtRef(spec)
	if err != nil {
		return err
	}
	if e.ImagePolicy != ImagesBuild {
		if found, err := e.Engine.Exists(ctx, spec.Pull); err != nil {
			return err
		} else if found {
			step.Cached("%s", spec.Pull)
			e.setRef(spec.Name, spec.Pull, false)
			return nil
		}
	}
	if e.ImagePolicy != ImagesPull {
		if found, err := e.Engine.Exists(ctx, built); err != nil {
			return err
		} else if found {
			step.Cached("%s", built)
			e.setRef(spec.Name, built, true)
			return nil
		}
	}
	reason := "E2E_IMAGES=build"
	if e.ImagePolicy != ImagesBuild {
		step.Status("pulling %s", spec.Pull)
		err := e.Engine.Pull(ctx, spec.Pull, FirstAnswer)
		if err == nil {
			step.Detail("pulled %s", spec.Pull)
			e.setRef(spec.Name, spec.Pull, false)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if e.ImagePolicy == ImagesPull {
			return fmt.Errorf("%w; E2E_IMAGES=auto would build the image from packages", err)
		}
		reason = unreachable(err)
	}
	step.Status("building it from packages (%s)", reason)
	job := bootstrap.Job{
		Source: e.source(spec), Work: filepath.Join(e.Root, ".e2e", "build", e.ClusterName, spec.Name), Ref: built,
		Label: image.Label + "=" + spec.Name, Status: step.Status,
	}
	switch {
	case spec.Name == e.Node:
		err = bootstrap.Node(ctx, e.Runner, e.Engine, e.Root, job)
	case e.fromModule(spec):
		err = bootstrap.Module(ctx, e.Runner, e.Engine, job)
	default:
		err = bootstrap.Packages(ctx, e.Runner, e.Engine, job)
	}
	if err != nil {
		return err
	}
	step.Detail("built from packages (%s): %s", reason, built)
	e.setRef(spec.Name, built, true)
	return nil
}

// builtRef is the reference that a third-party image has when it is built here.
func (p *Plan) builtRef(spec ImageSpec) (string, error) {
	inputs := image.NewInputs().
		Text("platform", runtime.GOOS+"/"+runtime.GOARCH).
		Text("suite", bootstrap.Suite).
		Dir(os.DirFS(p.source(spec)), ".")
	switch {
	case spec.Name == p.Node:
		// Its programs are compiled here, and some of its files are the kind library's.
		inputs.Text("go", runtime.Version()).Text("kind", p.KindVersion)
	case p.fromModule(spec):
		inputs.Text("go", runtime.Version())
	}
	return image.Image{Name: spec.Name, Inputs: inputs}.Ref(), inputs.Err()
}

// fromModule reports whether an image's program is compiled from a Go module where it
// cannot be pulled; others are made of Debian's packages.
func (p *Plan) fromModule(spec ImageSpec) bool {
	_, err := os.Stat(filepath.Join(p.source(spec), bootstrap.ModuleFile))
	return err == nil
}

// source is the folder with an image's Dockerfile.
func (p *Plan) source(spec ImageSpec) string { return filepath.Join(p.Root, "docker", spec.Name) }

// unreachable is the short form of why a pull failed.
func unreachable(err error) string {
	if errors.Is(err, engine.ErrNoAnswer) {
		return engine.ErrNoAnswer.Error()
	}
	var failed *command.Error
	if errors.As(err, &failed) {
		lines := strings.Split(strings.TrimSpace(failed.Stderr), "\n")
		last := lines[len(lines)-1]
		if at := strings.LastIndex(last, ": "); at >= 0 {
			last = last[at+2:]
		}
		return "pull: " + last
	}
	return "pull: " + err.Error()
}

// link gives a file a second name, or copies it where that cannot be.
func link(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
