package bootstrap

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// builder notes the modes of the build context's files.
type builder struct{ modes map[string]fs.FileMode }

func (b *builder) Build(_ context.Context, dir, _, _ string, _ ...string) error {
	b.modes = map[string]fs.FileMode{}
	return fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		b.modes[path] = info.Mode().Perm()
		return err
	})
}
func (b *builder) RunPrivileged(context.Context, string, []string, []string, io.Writer, string, ...string) error {
	return nil
}
func (b *builder) Remove(context.Context, ...string) error { return nil }

// As a checkout with umask 077 has them.
func TestWhatIsCopiedIntoAnImageCanBeReadThere(t *testing.T) {
	bin, source, work := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "work")
	for path, mode := range map[string]fs.FileMode{
		filepath.Join(bin, "mmdebstrap"): 0o700, filepath.Join(source, "entrypoint.sh"): 0o700,
		filepath.Join(source, "redis.conf"): 0o600, filepath.Join(source, PackagesFile): 0o600,
	} {
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	var engine builder
	err := Packages(t.Context(), &command.Recorder{}, &engine, Job{Source: source, Work: work, Status: func(string, ...any) {}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{".": 0o755, "entrypoint.sh": 0o755, "redis.conf": 0o644} {
		if got := engine.modes[path]; got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

// A go.work above the checkout, or flags of the user's, would change what the node is made of.
func TestGoCallsSeeTheModuleOnly(t *testing.T) {
	calls := 0
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		calls++
		for _, want := range []string{"GOFLAGS=", "GOWORK=off"} {
			if !slices.Contains(cmd.Env, want) {
				t.Errorf("%v: runs without %s", cmd.Args, want)
			}
		}
		if cmd.Stdout != nil {
			_, err := io.WriteString(cmd.Stdout, "v1.34.0\n")
			return err
		}
		return nil
	}}
	if err := APIServer(t.Context(), runner, "source", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if calls == 0 {
		t.Error("called nothing")
	}
}
