package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

func TestTargetsAreCompiledWhenSomethingHasChanged(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "go.mod", "module x\n\ngo 1.26\n")
	filetest.Put(t, root, "inner/inner.go", "package inner\n\nconst Code = 3\n")
	filetest.Put(t, root, "magefiles/main.go", "//go:build mage\n\npackage main\n\nimport (\n\t\"os\"\n\t\"x/inner\"\n)\n\n// Leave ends.\nfunc Leave() { os.Exit(inner.Code) }\n")
	t.Chdir(root)
	t.Setenv("GOFLAGS", "-mod=mod")
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
