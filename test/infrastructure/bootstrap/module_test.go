package bootstrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/bootstrap"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// builder is an engine that remembers what lay in the build context.
type builder struct{ context []string }

func (b *builder) Build(_ context.Context, dir, _, _ string, _ ...string) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			name, _ := filepath.Rel(dir, path)
			b.context = append(b.context, name)
		}
		return err
	})
}

func (*builder) RunPrivileged(context.Context, string, []string, []string, io.Writer, string, ...string) error {
	return errors.New("not expected")
}
func (*builder) Remove(context.Context, ...string) error { return errors.New("not expected") }

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
}

const pin = "module example.org/image\n\ngo 1.26.0\n\ntool example.org/app/cmd/app\n\nrequire example.org/app v1.2.3\n"

func TestModuleIsBuiltWithItsOwnVersionsAndTheOverlay(t *testing.T) {
	source, cache, work := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "work")
	write(t, source, map[string]string{"go.mod": pin, "go.sum": "", "Dockerfile": "FROM scratch\n", "overlay/ui/dist/index.html": "hello"})
	write(t, cache, map[string]string{"go.mod": "module example.org/app\n", "cmd/app/main.go": "package main\n", "ui/web.go": "package ui\n"})
	var built []string
	recorder := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if !slices.Contains(cmd.Env, "GOWORK=off") {
			t.Errorf("%v: sees the user's workspace", cmd.Args)
		}
		if slices.Contains(cmd.Args, "download") {
			_, err := fmt.Fprintf(cmd.Stdout, `{"Path": "example.org/app", "Dir": %q}`, cache)
			return err
		}
		for _, name := range []string{"go.mod", "cmd/app/main.go", "ui/dist/index.html"} {
			if _, err := os.Stat(filepath.Join(cmd.Args[2], name)); err != nil {
				t.Errorf("the module that is built lacks %s", name)
			}
		}
		built = cmd.Args
		return os.WriteFile(filepath.Join(cmd.Args[slices.Index(cmd.Args, "-o")+1], "app"), nil, 0o755)
	}}
	engine := &builder{}
	err := bootstrap.Module(t.Context(), recorder, engine, bootstrap.Job{Source: source, Work: work, Ref: "localhost/app:1", Label: "l", Status: func(string, ...any) {}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := recorder.Calls()[0], []string{"go", "-C", source, "mod", "download", "-json", "example.org/app@v1.2.3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q: the folder's go.sum says what the module holds", got, want)
	}
	if len(built) == 0 || built[len(built)-1] != "./cmd/app" {
		t.Errorf("got %q, want the tool built as a package of its own module", built)
	}
	if want := []string{"Dockerfile", "app", "go.mod", "go.sum"}; !slices.Equal(engine.context, want) {
		t.Errorf("the build context holds %q, want %q", engine.context, want)
	}
	if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
		t.Error("the build context was left")
	}
}

func TestModuleMustNameOneProgram(t *testing.T) {
	for name, test := range map[string]struct{ mod, want string }{
		"no tool":     {"module m\n\nrequire example.org/app v1.2.3\n", "1 requirements and 0 tools"},
		"two modules": {pin + "\nrequire example.org/other v1.0.0\n", "2 requirements and 1 tools"},
		"other tool":  {"module m\n\ntool example.org/application\n\nrequire example.org/app v1.2.3\n", "example.org/application is no package of example.org/app"},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			write(t, source, map[string]string{"go.mod": test.mod})
			recorder := &command.Recorder{}
			err := bootstrap.Program(t.Context(), recorder, source, filepath.Join(t.TempDir(), "work"), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) || len(recorder.Calls()) != 0 {
				t.Errorf("got %v after %q, want %q before anything runs", err, recorder.Calls(), test.want)
			}
		})
	}
}

func TestOverlayReplacesNothing(t *testing.T) {
	source, cache := t.TempDir(), t.TempDir()
	write(t, source, map[string]string{"go.mod": pin, "overlay/main.go": "package evil\n"})
	write(t, cache, map[string]string{"main.go": "package main\n"})
	recorder := &command.Recorder{Answer: func(cmd command.Cmd) error {
		_, err := fmt.Fprintf(cmd.Stdout, `{"Dir": %q}`, cache)
		return err
	}}
	err := bootstrap.Program(t.Context(), recorder, source, filepath.Join(t.TempDir(), "work"), t.TempDir())
	if !errors.Is(err, os.ErrExist) || len(recorder.Calls()) != 1 {
		t.Errorf("got %v, want the overlay refused: the program is the one that go.sum names", err)
	}
}
