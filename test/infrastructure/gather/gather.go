// Package gather keeps what a cluster can tell after a failure: objects, events,
// logs, and what the nodes' own programs say when the API server says nothing. It
// changes nothing in the cluster and writes no Secret's value.
package gather

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Collector writes one kind of evidence into a folder.
type Collector interface {
	// Name says what it collects, in a word or two.
	Name() string
	// Collect writes below dir, which exists. It writes as much as it can: an error
	// says what is missing.
	Collect(ctx context.Context, dir string) error
}

// collectTimeout bounds each collector. All of a healthy cluster takes two or three
// seconds; a node that hangs must not hold up the teardown.
const collectTimeout = 30 * time.Second

// SummaryFile is the file in the folder to read first.
const SummaryFile = "summary.txt"

// All runs every collector at once, each for at most half a minute, and returns
// their errors joined. None stops the others. What could not be gathered is also
// noted at the end of the summary.
func All(ctx context.Context, dir string, collectors ...Collector) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	failures := make([]error, len(collectors))
	var running sync.WaitGroup
	for i, collector := range collectors {
		running.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, collectTimeout, fmt.Errorf("not done after %s", collectTimeout))
			defer cancel()
			if err := collector.Collect(ctx, dir); err != nil {
				failures[i] = fmt.Errorf("gathering %s: %w", collector.Name(), err)
			}
		})
	}
	running.Wait()
	failed := errors.Join(failures...)
	if failed == nil {
		return nil
	}
	return errors.Join(failed, note(dir, failed))
}

// note appends to the summary what is missing from the evidence.
func note(dir string, failed error) error {
	file, err := os.OpenFile(filepath.Join(dir, SummaryFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "\nNot gathered\n%s\n", indent(failed.Error()))
	return errors.Join(err, file.Close())
}

// write stores a file below dir, with the folders above it.
func write(dir, name string, data []byte) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
