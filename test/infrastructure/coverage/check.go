package coverage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// left is what a pod left in its folder. A process writes covmeta.<build> when it
// starts, and covcounters.<build>.<pid>.<nanoseconds> when it ends in order or is told
// to, because it will be killed.
type left struct {
	mode     fs.FileMode
	builds   map[string]bool // of covmeta
	counters []counters
}

type counters struct {
	build   string
	written time.Time
}

// read looks into a pod's folder; a folder that is not there is no error.
func read(dir string) (*left, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := &left{mode: info.Mode().Perm(), builds: map[string]bool{}}
	for _, file := range files {
		switch parts := strings.Split(file.Name(), "."); {
		case parts[0] == "covmeta" && len(parts) == 2:
			found.builds[parts[1]] = true
		case parts[0] == "covcounters" && len(parts) == 4:
			nanoseconds, err := strconv.ParseInt(parts[3], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: its name holds no time", filepath.Join(dir, file.Name()))
			}
			found.counters = append(found.counters, counters{parts[1], time.Unix(0, nanoseconds)})
		}
	}
	slices.SortFunc(found.counters, func(a, b counters) int { return a.written.Compare(b.written) })
	return found, nil
}

func (l *left) empty() bool { return l == nil || len(l.builds) == 0 && len(l.counters) == 0 }

// check returns the pods of the service whose counters are read, after checking that
// every process that ran left its own. Pods come from two sides, so that none is
// forgotten: those that the API server told of, and those that have a folder.
func check(service Service) ([]string, error) {
	known := map[string]Pod{}
	for _, pod := range service.Pods {
		if pod.Service == service.Name {
			known[pod.Name] = pod
		}
	}
	names := slices.Collect(maps.Keys(known))
	entries, err := os.ReadDir(service.Raw)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	var pods []string
	var problems []error
	builds := map[string]string{} // a pod of each
	for _, name := range slices.Compact(names) {
		pod, told := known[name]
		found, err := read(filepath.Join(service.Raw, name))
		if err != nil {
			return nil, err
		}
		if told && found.empty() && (pod.ran() == 0 || pod.before(service.Since)) {
			continue // its container never started, or in the run before
		}
		if !told {
			pod = Pod{Name: name, Service: service.Name}
		}
		if problem := pod.missing(found, told, service.Since); problem != "" {
			problems = append(problems, fmt.Errorf("Pod %s (%s%s): %s", name, pod.restarts(), pod.end(), problem))
			continue
		}
		for build := range found.builds {
			builds[build] = name
		}
		pods = append(pods, name)
	}
	switch {
	case len(problems) > 0:
	case len(pods) == 0:
		problems = append(problems, errors.New("no pod ran"))
	case len(builds) > 1:
		problems = append(problems, fmt.Errorf("pods ran different builds, whose counters do not add up: %s; run it again", strings.Join(slices.Sorted(maps.Values(builds)), ", ")))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("coverage of %s: %w", service.Name, err)
	}
	return pods, nil
}

// missing says what of the pod's counters is not there and the likely cause, or
// nothing. told is whether the API server knew the pod.
func (p Pod) missing(found *left, told bool, since time.Time) string {
	switch {
	case told && p.Folder == "":
		return "GOCOVERDIR is not set in its manifest: it was not made from the coverage overlay"
	case found == nil:
		return "it has no folder: its manifest mounts no coverage volume, or the folder was removed"
	case found.empty() && found.mode&0o002 == 0:
		return fmt.Sprintf("wrote nothing: its folder cannot be written by the pod's user (mode %#o)", found.mode)
	case found.empty() && told:
		return "wrote nothing: its image was built without -cover, or its volume cannot be written"
	case found.empty():
		return "wrote nothing: its image was built without -cover, GOCOVERDIR is not set, or its volume cannot be written"
	case len(found.builds) == 0:
		return "wrote covcounters but no covmeta: its folder was emptied while it ran"
	case len(found.counters) == 0:
		return "wrote covmeta but no covcounters: it was killed before it could end in order, and its counters were not flushed before"
	}
	for _, file := range found.counters {
		if !found.builds[file.build] {
			return "wrote covcounters of a build that there is no covmeta of: its folder was changed while it ran"
		}
		if file.written.Before(since) {
			return fmt.Sprintf("its covcounters of %s are stale: this run began %s", file.written.UTC().Format(time.RFC3339), since.UTC().Format(time.RFC3339))
		}
	}
	return p.lost(found.counters)
}

// lost says which of the pod's processes left no counters. A process's file was written
// after the one before it ended and before its own end. The kubelet's times leave out
// the part of a second, and that of a start may be later than the first that the
// process did.
func (p Pod) lost(files []counters) string {
	processes := p.processes()
	free := slices.Clone(files)
	var before time.Time
	for i, process := range processes {
		at := slices.IndexFunc(free, func(file counters) bool {
			return !file.written.Before(before) && (process.Ended.IsZero() || file.written.Before(process.Ended.Add(time.Second)))
		})
		if at < 0 {
			return fmt.Sprintf("process %d of %d (%s) left no counters: it was killed before it could end in order, and they were not flushed before", i+1, max(p.ran(), len(processes)), process)
		}
		free = slices.Delete(free, at, at+1)
		before = process.Ended
	}
	if len(files) < p.ran() {
		return fmt.Sprintf("%d processes ran and %d left counters: the others were killed before they could end in order", p.ran(), len(files))
	}
	return ""
}
