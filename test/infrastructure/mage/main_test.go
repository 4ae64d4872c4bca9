package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

func TestTargetsAreCompiledWhenSomethingHasChanged(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "go.mod", "module x\n\ngo 1.26\n")
	filetest.Put(t, root, "inner/inner.go", "package inner\n\nconst Code = 3\n")
	filetest.Put(t, root, "magefiles/main.go", "//go:build mage\n\npackage main\n\nimport (\n\t\"os\"\n\t\"x/inner\"\n)\n\n// Leave ends.\nfunc Leave() { os.Exit(inner.Code) }\n")
	t.Chdir(root)
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("MAGEFILE_HASHFAST", "1") // by which Mage compiles nothing that it has compiled
	const compiler = "MAGEFILE_GOCMD"
	t.Setenv(compiler, "go")
	if code := run(t.Context(), []string{"leave"}); code != 3 {
		t.Fatalf("got %d, want 3", code)
	}
	t.Setenv(compiler, "/none")
	if code := run(t.Context(), []string{"leave"}); code != 3 {
		t.Errorf("got %d of what has not changed, want no compiler to be asked", code)
	}
	filetest.Put(t, root, "inner/inner.go", "package inner\n\nconst Code = \"no number\"\n")
	t.Setenv(compiler, "go")
	for range 2 {
		if code := run(t.Context(), []string{"leave"}); code != 1 {
			t.Errorf("got %d of what does not compile, want 1", code)
		}
	}
	filetest.Put(t, root, "inner/inner.go", "package inner\n\nconst Code = 3\n")
	t.Setenv(compiler, "/none")
	if code := run(t.Context(), []string{"leave"}); code == 3 {
		t.Error("what was compiled last did not come to its end, and the compiler was not asked")
	}
	t.Setenv(compiler, "go")
	filetest.Put(t, root, "inner/inner.go", "package inner\n\nconst Code = 4\n")
	if code := run(t.Context(), []string{"leave"}); code != 4 {
		t.Errorf("got %d of what has changed, want 4", code)
	}
	t.Setenv("GOFLAGS", "-mod=mod -tags=other")
	t.Setenv(compiler, "/none")
	if code := run(t.Context(), []string{"leave"}); code == 4 {
		t.Error("a setting of Go's has changed, and the compiler was not asked")
	}
}

// self is set in a process that is the command itself.
const self = "MAGE_TEST_SELF"

func TestMain(m *testing.M) {
	if os.Getenv(self) != "" {
		os.Exit(run(context.Background(), os.Args[1:])) //nolint:forbidigo // there is no test
	}
	os.Exit(m.Run())
}

// Mage writes what it compiles into the folder of the targets, and takes it away at its end.
func TestTwoAtOnceCompileOnce(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "go.mod", "module x\n\ngo 1.26\n")
	filetest.Put(t, root, "magefiles/main.go", "//go:build mage\n\npackage main\n\n// Leave ends.\nfunc Leave() {}\n")
	filetest.Program(t, root, "compiler", `test "$1" != build || echo build >> `+root+`/builds; exec go "$@"`)
	t.Setenv("MAGEFILE_GOCMD", filepath.Join(root, "compiler"))
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv(self, "true")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if err := (command.Local{}).Run(t.Context(), command.Cmd{Args: []string{program, "leave"}, Dir: root}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if builds, err := os.ReadFile(filepath.Join(root, "builds")); err != nil || string(builds) != "build\n" {
		t.Errorf("got %q, %v, want one to compile and the other to wait", builds, err)
	}
}

func TestWithoutAHomeNothingIsCompiled(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "go.mod", "module x\n\ngo 1.26\n")
	filetest.Put(t, root, "magefiles/main.go", "//go:build mage\n\npackage main\n\n// Leave ends.\nfunc Leave() {}\n")
	filetest.Program(t, root, "compiler", "touch "+root+"/asked\nexit 1\n")
	t.Chdir(root)
	t.Setenv("MAGEFILE_GOCMD", filepath.Join(root, "compiler"))
	t.Setenv("HOME", "")
	t.Setenv("MAGEFILE_CACHE", "")
	code := run(t.Context(), []string{"leave"})
	if _, err := os.Stat("asked"); code != 1 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %d and %v, want one line and an end", code, err)
	}
}
