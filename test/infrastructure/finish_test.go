package infrastructure_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure"
)

func TestAnInterruptedRunIsSummarizedBeforeItsClusterIsDeleted(t *testing.T) {
	for _, interrupted := range []bool{true, false} {
		settings := config(infrastructure.Standard)
		settings.Keep = infrastructure.KeepNever
		w, plan, env := covered(t, settings)
		ctx, cancel := context.WithCancel(t.Context())
		if interrupted {
			cancel()
		}
		summarized, deleted := false, false
		w.Fail = func(_ context.Context, call string) error {
			if call == "delete" {
				deleted = true
				_, err := os.Stat(filepath.Join(plan.Root, ".e2e", "last", "summary.md"))
				summarized = err == nil
			}
			return nil
		}
		failure := errors.New("ended")
		if err := env.Finish(ctx, failure); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		cancel()
		if !deleted || summarized != interrupted {
			t.Errorf("interrupted %v: deleted %v, summarized before %v", interrupted, deleted, summarized)
		}
		if _, err := os.Stat(filepath.Join(plan.Root, ".e2e", "last", "summary.md")); err != nil {
			t.Error(err)
		}
	}
}
