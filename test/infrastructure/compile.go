package infrastructure

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// goRun runs the go command in the checkout.
func (e *Environment) goRun(ctx context.Context, args []string, env ...string) error {
	return e.adapters.Runner.Run(ctx, command.Cmd{Args: args, Dir: e.Root, Env: command.GoEnv(env...)})
}

// compile has build make programs, unless they are there and nothing is another than it
// was then: no file of the checkout, no setting of Go's and not the programs themselves.
// The go command would find out the same in seconds, package by package, and link a test
// anew each time.
func (e *Environment) compile(p Phase, step *timeline.Step, programs []string, build func() error) error {
	if err := os.MkdirAll(e.binaries(), 0o755); err != nil {
		return err
	}
	// Before any program is made: what is edited meanwhile may or may not be in it.
	read, err := e.sources()
	if err != nil {
		return err
	}
	sources := maps.Clone(read)
	if e.Overlay == "" && stamp(sources, programs) && len(sources.Changed(e.state.BuiltOf(p.String()))) == 0 {
		step.Cached("%s", e.relative(programs[0]))
		return nil
	}
	before := digests(programs)
	if err := build(); err != nil {
		return err
	}
	// go test writes the file anew, whatever is in it.
	if slices.Equal(digests(programs), before) && !slices.Contains(before, "") {
		step.Cached("%s", e.relative(programs[0]))
	}
	if e.Overlay != "" || !stamp(sources, programs) {
		return nil
	}
	return e.state.Built(p.String(), sources)
}

// readSources reads the files of the checkout, and the settings of Go's by which the same
// files become other programs.
func (e *Environment) readSources(ctx context.Context) (checkout.Sources, error) {
	sources, err := e.state.Sources()
	if err != nil {
		return nil, err
	}
	sources["go env"], err = command.Output(ctx, e.adapters.Runner, append([]string{"go", "env"}, checkout.GoSettings...)...)
	return sources, err
}

// stamp adds when programs were written, and how long they are. It tells whether all are
// there.
func stamp(sources checkout.Sources, programs []string) bool {
	for _, program := range programs {
		info, err := os.Stat(program)
		if err != nil {
			return false
		}
		sources["program "+filepath.Base(filepath.Dir(program))+"/"+filepath.Base(program)] = fmt.Sprint(info.ModTime().UnixNano(), info.Size(), info.Mode())
	}
	return true
}

// digests identify what is in files; empty for one that cannot be read.
func digests(files []string) []string {
	sums := make([]string, len(files))
	for i, file := range files {
		if sum, err := fingerprint.New().File(os.DirFS(filepath.Dir(file)), filepath.Base(file)).Sum(); err == nil {
			sums[i] = sum
		}
	}
	return sums
}
