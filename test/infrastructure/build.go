package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/engine"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/image"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// buildImage makes the image, or finds it: a service's is made of its program, a
// third-party one is obtained as the image policy says.
func (e *Environment) buildImage(ctx context.Context, p Phase) error {
	spec, err := e.image(p.Name)
	if err != nil {
		return err
	}
	timeout, fn := e.Timeouts.Build, e.buildService
	if spec.Package == "" {
		timeout, fn = e.Timeouts.Obtain, e.obtain
	}
	return e.step(ctx, p, timeout, func(ctx context.Context, step *timeline.Step) error {
		return fn(ctx, step, spec)
	})
}

// buildService builds the image of a compiled service if no image of these inputs
// exists.
func (e *Environment) buildService(ctx context.Context, step *timeline.Step, spec ImageSpec) error {
	ref, err := e.serviceRef(spec)
	if err != nil {
		return err
	}
	source, program := e.source(spec), e.program(spec)
	if found, err := e.adapters.Engine.Exist(ctx, ref); err != nil {
		return err
	} else if found[ref] {
		step.Cached("%s", ref)
	} else {
		// A context of two files: nothing else of the checkout can get in.
		work := e.state.Build(spec.Name)
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := os.MkdirAll(work, 0o755); err != nil {
			return err
		}
		if err := link(filepath.Join(source, "Dockerfile"), filepath.Join(work, "Dockerfile")); err != nil {
			return err
		}
		if err := link(program, filepath.Join(work, filepath.Base(program))); err != nil {
			return err
		}
		if err := e.adapters.Engine.Build(ctx, work, ref, "", image.Label+"="+spec.Name, e.label()); err != nil {
			return fmt.Errorf("%s: %w", e.relative(filepath.Join(source, "Dockerfile")), err)
		}
		step.Detail("%s", ref)
		e.pruneImages(ctx, spec, ref)
	}
	e.setRef(spec.Name, ref, false)
	return nil
}

// keptImages is how many images of one name stay in the engine's store: the last ones are
// what a change that is undone needs again.
const keptImages = 3

// pruneImages removes old images of a name after a new one was built, and what its build
// has left. What stays is only logged: another run, or the build beside this one, may be
// removing the same, and an image that was made is made.
func (e *Environment) pruneImages(ctx context.Context, spec ImageSpec, ref string) {
	log := timeline.Log(ctx)
	removed, err := e.adapters.Engine.Prune(ctx, image.Repository+spec.Name, keptImages, ref)
	for _, old := range removed {
		fmt.Fprintln(log, "removed", old)
	}
	if err == nil {
		err = e.adapters.Engine.PruneStages(ctx, image.Label+"="+spec.Name)
	}
	if err != nil {
		fmt.Fprintf(log, "old images stay: %v\n", err)
	}
}

// take uses a pulled image, by a reference that nodes can hold.
func (e *Environment) take(ctx context.Context, spec ImageSpec) error {
	ref := spec.Pull
	if spec.Name != e.Node { // the engine runs that one itself
		if ref = image.Loadable(spec.Name, spec.Pull); ref != spec.Pull {
			if err := e.adapters.Engine.Tag(ctx, spec.Pull, ref); err != nil {
				return err
			}
		}
	}
	e.setRef(spec.Name, ref, false)
	return nil
}

// serviceRef is the reference of a service's image, derived of its compiled program.
func (e *Environment) serviceRef(spec ImageSpec) (string, error) {
	program := e.program(spec)
	info, err := os.Stat(program)
	if err != nil {
		return "", err
	}
	sum, err := fingerprint.New().
		Text("platform", platform).
		Text("variant", string(e.Variant)).
		Text("mode", info.Mode().String()).
		File(os.DirFS(e.source(spec)), "Dockerfile").
		File(os.DirFS(filepath.Dir(program)), filepath.Base(program)).Sum()
	return image.Ref(spec.Name, sum), err
}

// label marks the images that this checkout has made and others can make again in
// seconds.
func (e *Environment) label() string { return image.Label + ".checkout=" + e.state.ID() }

// platform is what runs in the cluster: its nodes are containers of this machine's
// architecture, and Linux wherever the engine is.
const platform = "linux/" + runtime.GOARCH

// binaries is where the compiled services of this variant lie. The folder stays, so
// that the next go build links nothing that has not changed.
func (e *Environment) binaries() string {
	if e.Overlay != "" {
		return filepath.Join(filepath.Dir(e.Overlay), "bin")
	}
	return e.state.Build("bin")
}

// program is the file of a service's program. go build calls it as its folder is called,
// so those of one name lie in folders of their own.
func (e *Environment) program(spec ImageSpec) string {
	same := 0
	for _, other := range e.covered() {
		if other.Name == spec.Name {
			break
		}
		if filepath.Base(other.Package) == filepath.Base(spec.Package) {
			same++
		}
	}
	dir := e.binaries()
	if same > 0 {
		dir = filepath.Join(dir, strconv.Itoa(same+1))
	}
	return filepath.Join(dir, filepath.Base(spec.Package))
}

// coverageTag is the build tag of the coverage variant: it has a service write its
// counters when it is told to.
const coverageTag = "coverage"

// compileServices builds all services with one go build: what they share is
// compiled once, and the compiler uses every core on one list of work. In the
// coverage variant each service is built by itself, because each is instrumented
// for its own packages only; dependencies still come from the build cache.
func (e *Environment) compileServices(ctx context.Context) error {
	p := Phase{Kind: CompileServices}
	return e.step(ctx, p, e.Timeouts.Build, func(ctx context.Context, step *timeline.Step) error {
		var programs []string
		for _, spec := range e.covered() {
			programs = append(programs, e.program(spec))
		}
		if len(programs) == 0 {
			step.Skipped("there is no service")
			return nil
		}
		return e.compile(p, step, programs, func() error {
			if err := e.goBuild(ctx); err != nil {
				return err
			}
			for _, program := range programs {
				// Whatever the umask: the services' user in the image is not the one who built.
				if err := os.Chmod(program, 0o755); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (e *Environment) goBuild(ctx context.Context) error {
	type build struct {
		out  string // folder
		args []string
	}
	var builds []build
	for _, spec := range e.covered() {
		out := filepath.Dir(e.program(spec))
		if e.Variant == Coverage {
			builds = append(builds, build{out, []string{"-tags=" + coverageTag, "-cover", "-covermode=atomic", "-coverpkg=" + spec.Package + "/...", spec.Package}})
			continue
		}
		at := slices.IndexFunc(builds, func(b build) bool { return b.out == out })
		if at < 0 {
			at, builds = len(builds), append(builds, build{out: out})
		}
		builds[at].args = append(builds[at].args, spec.Package)
	}
	for _, build := range builds {
		// -trimpath: the same source gives the same binary, and so the same image, in
		// every checkout.
		args := []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}
		if e.Overlay != "" {
			args = append(args, "-overlay", e.Overlay)
		}
		args = append(args, "-o", build.out+string(filepath.Separator))
		err := e.goRun(ctx, append(args, build.args...), "CGO_ENABLED=0")
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
	held, err := e.held()
	if err != nil {
		return err
	}
	if e.ImagePolicy != ImagesBuild && held[spec.Pull] {
		step.Cached("%s", spec.Pull)
		return e.take(ctx, spec)
	}
	if e.ImagePolicy != ImagesPull && held[built] {
		step.Cached("%s", built)
		e.setRef(spec.Name, built, true)
		return nil
	}
	reason := "E2E_IMAGES=build"
	if e.ImagePolicy != ImagesBuild {
		step.Status("pulling %s", spec.Pull)
		err := e.adapters.Engine.Pull(ctx, spec.Pull, FirstAnswer)
		if err == nil {
			step.Detail("pulled %s", spec.Pull)
			return e.take(ctx, spec)
		}
		if ctx.Err() != nil {
			return err
		}
		switch {
		case errors.Is(err, engine.ErrRefused):
			// Whoever wants the image cannot want a quarter of an hour of compiling in its place.
			return fmt.Errorf("%w; E2E_IMAGES=build builds the image from packages", err)
		case !errors.Is(err, engine.ErrNoAnswer):
			return err
		case e.ImagePolicy == ImagesPull:
			return fmt.Errorf("%w; E2E_IMAGES=auto would build the image from packages", err)
		}
		reason = engine.ErrNoAnswer.Error()
	}
	step.Status("building it from packages (%s)", reason)
	job := bootstrap.Job{
		Source: e.source(spec), Work: e.state.Build(spec.Name), Ref: built,
		Label: image.Label + "=" + spec.Name, Status: step.Status,
	}
	switch {
	case spec.Name == e.Node:
		err = bootstrap.Node(ctx, e.adapters.Runner, e.adapters.Engine, e.Root, job)
	case e.fromModule(spec):
		err = bootstrap.Module(ctx, e.adapters.Runner, e.adapters.Engine, job)
	default:
		err = bootstrap.Packages(ctx, e.adapters.Runner, e.adapters.Engine, job)
	}
	if err != nil {
		return err
	}
	e.pruneImages(ctx, spec, built)
	step.Detail("built from packages (%s): %s", reason, built)
	e.setRef(spec.Name, built, true)
	return nil
}

// stored returns which third-party images the engine has, asked for all at once: each
// question takes as long as all of them.
func (e *Environment) stored(ctx context.Context) (map[string]bool, error) {
	images, err := e.thirdParty()
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, image := range images {
		refs = append(refs, image.Pull, image.Built)
	}
	return e.adapters.Engine.Exist(ctx, refs...)
}

// thirdParty are the images that are not of this project's own source.
func (p *Plan) thirdParty() (images []host.Image, err error) {
	for _, spec := range p.Images {
		if spec.Package != "" {
			continue
		}
		built, err := p.builtRef(spec)
		if err != nil {
			return nil, err
		}
		images = append(images, host.Image{Name: spec.Name, Pull: spec.Pull, Built: built})
	}
	return images, nil
}

// builtRef is the reference that a third-party image has when it is built here.
func (p *Plan) builtRef(spec ImageSpec) (string, error) {
	inputs := fingerprint.New().
		Text("platform", platform).
		Text("suite", bootstrap.Suite).
		Dir(os.DirFS(p.source(spec)), ".", nil)
	switch {
	case spec.Name == p.Node:
		// Its programs are compiled here, and some of its files are the kind library's.
		inputs.Text("go", runtime.Version()).Text("kind", p.KindVersion)
	case p.fromModule(spec):
		inputs.Text("go", runtime.Version())
	}
	sum, err := inputs.Sum()
	return image.Ref(spec.Name, sum), err
}

// fromModule reports whether an image's program is compiled from a Go module where it
// cannot be pulled; others are made of Debian's packages.
func (p *Plan) fromModule(spec ImageSpec) bool {
	_, err := os.Stat(filepath.Join(p.source(spec), bootstrap.ModuleFile))
	return err == nil
}

// source is the folder with an image's Dockerfile.
func (p *Plan) source(spec ImageSpec) string { return filepath.Join(p.Root, "docker", spec.Name) }

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
