package infrastructure_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure"
)

func TestAnImageThatWasMadeIsMadeWhateverBecomesOfOldOnes(t *testing.T) {
	w, plan, env := covered(t, config(infrastructure.Standard))
	if err := os.WriteFile(filepath.Join(plan.Root, "docker", "app", "main.go"), []byte("package main\n\nfunc main() { println(3) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env = reopened(t, w, plan, env)
	pruned := false
	w.Fail = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "prune ") {
			pruned = true
			return errors.New("locating image: no such image")
		}
		return nil
	}
	for _, phase := range plan.Phases() {
		if phase.Kind == infrastructure.CompileServices || phase.Kind == infrastructure.BuildImage {
			if err := env.Do(t.Context(), phase); err != nil {
				t.Error(err)
			}
		}
	}
	if !pruned {
		t.Error("nothing was pruned: nothing was built anew")
	}
}
