//go:build coverage

package flush

import (
	"os"
	"os/signal"
	"path/filepath"
	"runtime/coverage"
	"syscall"
)

// Done is the file in GOCOVERDIR that appears when the counters have been written.
const Done = "flushed"

// OnSignal writes the counters so far into GOCOVERDIR at every SIGUSR1, from now
// until the process ends, and then makes the file Done. What could not be written
// is said on standard error: the harness fails a run whose pods left no counters.
func OnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			dir := os.Getenv("GOCOVERDIR")
			err := coverage.WriteCountersDir(dir)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, Done), nil, 0o644)
			}
			if err != nil {
				_, _ = os.Stderr.WriteString("writing coverage counters: " + err.Error() + "\n")
			}
		}
	}()
}
