package target_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/e2e/target"
)

// TestReadRefusesWhatWasCopied is about a checkout that was copied with its .e2e: its
// suites would test the original's cluster.
func TestReadRefusesWhatWasCopied(t *testing.T) {
	deployed := func(root, kubeconfig string) {
		t.Helper()
		last := filepath.Join(root, ".e2e", "last")
		if err := os.MkdirAll(last, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{filepath.Join(root, "go.mod"), kubeconfig} {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := (&target.Target{Cluster: "e2e-1", Kubeconfig: kubeconfig}).Write(filepath.Join(last, "target.json")); err != nil {
			t.Fatal(err)
		}
	}
	original, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	deployed(original, filepath.Join(original, "kubeconfig"))
	none := func(string) string { return "" }
	if _, err := target.Read(none, original); err != nil {
		t.Error(err)
	}
	copied := t.TempDir()
	deployed(copied, filepath.Join(original, "kubeconfig"))
	if _, err := target.Read(none, copied); err == nil || !strings.Contains(err.Error(), "is of another checkout's cluster, "+original) {
		t.Errorf("got %v, want the original's cluster to be refused", err)
	}
	named := func(string) string { return filepath.Join(copied, ".e2e", "last", "target.json") }
	if _, err := target.Read(named, copied); err != nil {
		t.Errorf("got %v, although it was named", err)
	}
}
