// Package filetest makes the files that tests are about.
package filetest

import (
	"os"
	"path/filepath"
	"testing"
)

// Put writes a file below root, with the folders in which it lies. Everybody may read it.
func Put(t testing.TB, root, path, text string) {
	t.Helper()
	file := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Program puts a script at a path below root, which may be run.
func Program(t testing.TB, root, path, text string) {
	t.Helper()
	Put(t, root, path, "#!/bin/sh\n"+text)
	if err := os.Chmod(filepath.Join(root, path), 0o755); err != nil {
		t.Fatal(err)
	}
}
