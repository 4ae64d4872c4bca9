package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// ModuleFile pins, in an image's folder, the Go module that its program comes from: one
// requirement and one tool. The go.sum beside it says what the module holds.
const ModuleFile = "go.mod"

// OverlayFolder lies in such a folder and over the module's source: what a release's
// build generates and the module does not hold.
const OverlayFolder = "overlay"

// Module makes an image of a program of another Go module and of the folder's Dockerfile,
// whose context holds the program by its own name.
func Module(ctx context.Context, runner command.Runner, engine Builder, job Job) error {
	if err := job.prepare(); err != nil {
		return err
	}
	job.Status("compiling its Go module")
	module := filepath.Join(job.Work, "module")
	if err := Program(ctx, runner, job.Source, module, job.Work); err != nil {
		return err
	}
	if err := os.RemoveAll(module); err != nil {
		return err
	}
	job.Status("building the image")
	if err := engine.Build(ctx, job.Work, job.Ref, "", job.Label); err != nil {
		return err
	}
	return os.RemoveAll(job.Work)
}

// Program compiles the tool that source's go.mod names into the folder out. It is built as
// its authors build it, with the versions of the module's own go.mod, so that a program
// with hundreds of dependencies costs this project two lines of pins. For that the module
// is copied to work, which must not exist and is left: Go builds no module in its cache,
// and lays nothing over one.
func Program(ctx context.Context, runner command.Runner, source, work, out string) error {
	module, pkg, err := readModule(source)
	if err != nil {
		return err
	}
	// In the folder of the go.sum, which the download is checked against.
	downloaded, err := ask(ctx, runner, source, "mod", "download", "-json", module)
	if err != nil {
		return err
	}
	var found struct{ Dir string }
	if err := json.Unmarshal([]byte(downloaded), &found); err != nil {
		return fmt.Errorf("go mod download %s: %w", module, err)
	}
	if err := os.CopyFS(work, os.DirFS(found.Dir)); err != nil {
		return err
	}
	overlay := filepath.Join(source, OverlayFolder)
	if _, err := os.Stat(overlay); err == nil {
		if err := os.CopyFS(work, os.DirFS(overlay)); err != nil {
			return fmt.Errorf("%s: is not what %s lacks: %w", overlay, module, err)
		}
	}
	return runner.Run(ctx, command.Cmd{
		Args: []string{"go", "-C", work, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w",
			"-o", out + string(filepath.Separator), pkg},
		Env: command.GoEnv("CGO_ENABLED=0"),
	})
}

// readModule returns the module that source's go.mod pins, as path@version, and the
// package of its program, relative to the module.
func readModule(source string) (module, pkg string, err error) {
	file := filepath.Join(source, ModuleFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	mod, err := modfile.Parse(file, data, nil)
	if err != nil {
		return "", "", err
	}
	if len(mod.Require) != 1 || len(mod.Tool) != 1 {
		return "", "", fmt.Errorf("%s: has %d requirements and %d tools; it must name one module and one program of it", file, len(mod.Require), len(mod.Tool))
	}
	of := mod.Require[0].Mod
	inside, ok := strings.CutPrefix(mod.Tool[0].Path, of.Path)
	if !ok || (inside != "" && inside[0] != '/') {
		return "", "", fmt.Errorf("%s: the tool %s is no package of %s", file, mod.Tool[0].Path, of.Path)
	}
	return of.String(), "." + inside, nil
}
