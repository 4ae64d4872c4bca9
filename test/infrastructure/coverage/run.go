package coverage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// Run is what must be known of a run besides its counters, to tell whether they are
// all there.
type Run struct {
	Started  time.Time      `json:"started"`  // counters that are older are not of this run
	Source   string         `json:"source"`   // fingerprint of the source that the images were built of
	Services []string       `json:"services"` // that were deployed
	Suites   []string       `json:"suites"`   // that ran
	Pods     map[string]Pod `json:"pods"`
}

// Record keeps a Run in a file, so that another process can collect what an
// interrupted one left. It is safe for concurrent use.
type Record struct {
	file string

	mu  sync.Mutex
	run Run
	err error
}

// NewRecord begins a record in a file, whatever is in it.
func NewRecord(file string) *Record { return &Record{file: file} }

// OpenRecord reads the record in a file, or begins one that is not yet written.
func OpenRecord(file string) (*Record, error) {
	record := NewRecord(file)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return record, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &record.run); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return record, nil
}

// Begin forgets the run before, whose file may have been removed.
func (r *Record) Begin(started time.Time, source string) error {
	r.mu.Lock()
	r.run = Run{}
	r.mu.Unlock()
	return r.change(func(run *Run) { *run = Run{Started: started, Source: source} })
}

// Deployed notes services that were deployed.
func (r *Record) Deployed(services ...string) error {
	return r.change(func(run *Run) { run.Services = union(run.Services, services) })
}

// Tested notes a suite that ran.
func (r *Record) Tested(suite string) error {
	return r.change(func(run *Run) { run.Suites = union(run.Suites, []string{suite}) })
}

// Saw notes what was seen of pods. An error of writing is kept for Run.
func (r *Record) Saw(pods ...Pod) {
	err := r.change(func(run *Run) {
		if run.Pods == nil {
			run.Pods = map[string]Pod{}
		}
		for _, pod := range pods {
			run.Pods[pod.key()] = run.Pods[pod.key()].merge(pod)
		}
	})
	if err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
}

// Run returns what is known so far.
func (r *Record) Run() (Run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, err := r.run.clone()
	return run, errors.Join(r.err, err)
}

// clone goes by way of JSON: what is known is what another process would read.
func (r Run) clone() (Run, error) {
	var clone Run
	data, err := json.Marshal(r)
	if err != nil {
		return clone, err
	}
	return clone, json.Unmarshal(data, &clone)
}

// change writes the file when something is new.
func (r *Record) change(change func(*Run)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, err := r.run.clone()
	if err != nil {
		return err
	}
	change(&r.run)
	after, err := r.run.clone()
	if err != nil || reflect.DeepEqual(before, after) {
		return err
	}
	data, err := json.MarshalIndent(after, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(r.file, append(data, '\n'), 0o644)
}

func union(all, more []string) []string {
	all = slices.Concat(all, more)
	slices.Sort(all)
	return slices.Compact(all)
}
