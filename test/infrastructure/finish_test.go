package infrastructure_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/report"
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

func TestARunOverItsBudgetFails(t *testing.T) {
	for _, test := range []struct {
		budget time.Duration
		want   string
	}{{time.Hour, ""}, {time.Nanosecond, "setup took "}} {
		settings := config(infrastructure.Standard)
		settings.Budgets = report.Budgets{report.Setup: test.budget}
		_, plan, env := covered(t, settings)
		err := env.Finish(t.Context(), nil)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v", test.budget, err)
		}
		page, readErr := os.ReadFile(filepath.Join(plan.Root, ".e2e", "last", report.PageFile))
		if readErr != nil || strings.Contains(string(page), "E2E_BUDGET allows 1ns") != (test.want != "") {
			t.Errorf("%s: got %v and another page:\n%s", test.budget, readErr, page)
		}
	}
}
