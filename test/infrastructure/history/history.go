// Package history remembers what came of each spec in the runs of suites, and tells which are
// flaky: those that failed and passed on the same content.
package history

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/report"
)

// Run is a run of a suite, with the specs that were selected.
type Run struct {
	Suite   string
	Title   string // the suite's own text, which a focus begins with
	Variant string
	Commit  string // of the checkout, -dirty if it had changed; empty outside of git
	Content string // fingerprint of the suite and of what was deployed
	Seed    int64
	Procs   int
	Start   time.Time
	Seconds float64
	Left    int // specs that were not selected
	Specs   []Spec
}

// Spec is what came of a spec, or of a node of the suite's own.
type Spec struct {
	Name    string
	Node    bool    `json:",omitempty"`
	Failed  bool    `json:",omitempty"`
	At      float64 // seconds since the run's start
	Seconds float64
	Process int
}

// Add gives the run what its suite left.
func (r Run) Add(suite report.Suite) Run {
	r.Suite, r.Title, r.Seed, r.Start, r.Seconds, r.Left = suite.Name, suite.Title, suite.Seed, suite.Start, seconds(suite.Took), suite.Left
	for _, spec := range suite.Specs {
		r.Specs = append(r.Specs, Spec{spec.Name, spec.Node, spec.Failure != nil, seconds(spec.Start.Sub(suite.Start)), seconds(spec.Took), spec.Process})
	}
	return r
}

// seconds are as exact as anybody asks for.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// kept is how many runs are remembered. One of 340 specs has 8 KB, and all are read within a
// second or two.
const kept = 1000

// suffix is that of a run's file, whose name begins with when it was.
const suffix = ".json.gz"

// Store is the folder of the runs, a file each, so that runs at the same time do not meet.
type Store struct{ Dir string }

// Add writes a run, whole or not at all, and removes the oldest ones.
func (s Store) Add(run Run) error {
	var data bytes.Buffer
	zipped := gzip.NewWriter(&data)
	if err := errors.Join(json.NewEncoder(zipped).Encode(run), zipped.Close(), os.MkdirAll(s.Dir, 0o755)); err != nil {
		return err
	}
	name := run.Start.UTC().Format("20060102T150405.000000000") + "-" + run.Suite + "-" + run.Content + suffix
	if err := renameio.WriteFile(filepath.Join(s.Dir, name), data.Bytes(), 0o644); err != nil {
		return err
	}
	files, err := s.files("")
	return errors.Join(err, remove(files[:max(0, len(files)-kept)]))
}

// Runs returns the runs of a suite's content, of all if it is empty, the oldest first. A file
// that is damaged is left out and named in the error.
func (s Store) Runs(content string) ([]Run, error) {
	files, err := s.files(content)
	var runs []Run
	for _, file := range files {
		run, readErr := read(file)
		if errors.Is(readErr, fs.ErrNotExist) {
			continue // another run has just removed it
		}
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", file, readErr))
			continue
		}
		runs = append(runs, run)
	}
	return runs, err
}

func read(file string) (run Run, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return run, err
	}
	zipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return run, err
	}
	return run, json.NewDecoder(zipped).Decode(&run)
}

// Remove forgets all runs, and tells how many.
func (s Store) Remove() (int, error) {
	files, err := s.files("")
	return len(files), errors.Join(err, remove(files))
}

// files are those of a content, in the order of their times.
func (s Store) files(content string) ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), content+suffix) {
			files = append(files, filepath.Join(s.Dir, entry.Name()))
		}
	}
	return files, err
}

func remove(files []string) (err error) {
	for _, file := range files {
		if gone := os.Remove(file); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}
