package bootstrap

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// builder notes the modes of the build context's files, and what is built and removed.
type builder struct {
	modes          map[string]fs.FileMode
	built, removed []string
	runs           error // what becomes of a container
}

func (b *builder) Build(_ context.Context, dir, ref, _ string, _ ...string) error {
	b.built = append(b.built, ref)
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
	return b.runs
}
func (b *builder) Remove(ctx context.Context, refs ...string) error {
	b.removed = append(b.removed, refs...)
	return ctx.Err()
}

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

// As two checkouts do that share an engine, and one whose making fails or is ended.
func TestNodeImagesThatAreMadeAtOnceShareNoName(t *testing.T) {
	bin, kind := t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(bin, "mmdebstrap"), nil, 0o755), os.MkdirAll(filepath.Join(kind, "images", "base", "files"), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if out := slices.Index(cmd.Args, "-o"); out > 0 {
			return errors.Join(os.MkdirAll(cmd.Args[out+1], 0o755), os.WriteFile(filepath.Join(cmd.Args[out+1], "server"), nil, 0o755))
		}
		if cmd.Stdout == nil {
			return nil
		}
		answer := "v1.34.0"
		if slices.Contains(cmd.Args, "{{.Dir}}") {
			answer = kind
		}
		_, err := io.WriteString(cmd.Stdout, answer)
		return err
	}}
	var bases []string
	for _, fails := range []error{nil, context.Canceled} {
		ctx, cancel := context.WithCancel(t.Context())
		engine, source := builder{runs: fails}, t.TempDir()
		if err := os.WriteFile(filepath.Join(source, PackagesFile), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		err := Node(ctx, runner, &engine, "root", Job{Source: source, Work: filepath.Join(t.TempDir(), "work"), Ref: "localhost/node:1", Status: func(string, ...any) {
			if fails != nil && len(engine.built) > 0 {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, fails) || len(engine.built) == 0 || !slices.Equal(engine.removed, engine.built[:1]) {
			t.Fatalf("got %v, built %q, removed %q; want what is in between to be removed", err, engine.built, engine.removed)
		}
		bases = append(bases, engine.built[0])
	}
	if bases[0] == bases[1] {
		t.Errorf("both are called %s", bases[0])
	}
}

// A go.work above the checkout, or flags of the user's, would change what the node is made of.
func TestGoCallsSeeTheModuleOnly(t *testing.T) {
	calls := 0
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		calls++
		for _, want := range command.GoEnv() {
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
