package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	// maxSegment is where a file of the spool ends. The files of what was accepted are
	// removed whole, so the spool is at most this much larger than what waits.
	maxSegment = 4 << 20
	// spoolSuffix ends the names of the spool's files, which are numbers in their order.
	spoolSuffix = ".spool"
)

// spool keeps events in files, one JSON document a line, so that a process that is
// killed has lost none: what was written is the kernel's, whatever becomes of the
// process. An event may be read back that was accepted before; its id makes sending it
// again harmless. It is not safe for concurrent use.
type spool struct {
	dir     string
	next    int
	current *segment // nil before the first event
	file    *os.File
}

// segment is one file.
type segment struct {
	path   string
	bytes  int64
	events int // that wait
	unsafe bool
}

// openSpool opens the spool in a directory, which has to exist, and returns what a
// process before this one has left, in its order, with the file that each event is in.
func openSpool(dir string) (*spool, []entry, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+spoolSuffix))
	if err != nil {
		return nil, nil, fmt.Errorf("audit spool: %w", err)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, nil, fmt.Errorf("audit spool: %w", err)
	}
	slices.Sort(paths)
	s := &spool{dir: dir, next: 1}
	var left []entry
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("audit spool: %w", err)
		}
		seg := &segment{path: path}
		for line := range bytes.Lines(data) {
			var event Event
			// The end of a line that the machine did not get to write is no event.
			if json.Unmarshal(line, &event) == nil {
				left = append(left, newEntry(event, seg))
				seg.events++
			}
		}
		if seg.events == 0 {
			if err := os.Remove(path); err != nil {
				return nil, nil, fmt.Errorf("audit spool: %w", err)
			}
		}
		if _, err := fmt.Sscanf(filepath.Base(path), "%d", &s.next); err == nil {
			s.next++
		}
	}
	return s, left, nil
}

// add writes one event and returns the file that it is in.
func (s *spool) add(event Event) (*segment, error) {
	line, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("audit spool: %w", err)
	}
	if s.current == nil || s.current.bytes+int64(len(line)) > maxSegment {
		if err := s.rotate(); err != nil {
			return nil, fmt.Errorf("audit spool: %w", err)
		}
	}
	line = append(line, '\n')
	if _, err := s.file.WriteAt(line, s.current.bytes); err != nil {
		// What was written of the line is written over by the next one, or is no event.
		return nil, errors.Join(fmt.Errorf("audit spool: %w", err), s.file.Truncate(s.current.bytes))
	}
	s.current.bytes += int64(len(line))
	s.current.events++
	s.current.unsafe = true
	return s.current, nil
}

// rotate begins a new file.
func (s *spool) rotate() error {
	if err := s.close(); err != nil {
		return err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%010d%s", s.next, spoolSuffix))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.next++
	s.file, s.current = file, &segment{path: path}
	return nil
}

// done says that an event of a file waits no longer.
func (s *spool) done(seg *segment) error {
	seg.events--
	if seg.events > 0 {
		return nil
	}
	if seg == s.current {
		seg.bytes = 0
		return s.file.Truncate(0)
	}
	if err := os.Remove(seg.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unsafe returns the file that holds what a machine that fails would lose, or nil.
func (s *spool) unsafe() *os.File {
	if s.current == nil || !s.current.unsafe {
		return nil
	}
	s.current.unsafe = false
	return s.file
}

// close ends the writing. What waits stays for the next process.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.file.Sync(), s.file.Close())
	if s.current.events == 0 {
		err = errors.Join(err, os.Remove(s.current.path))
	}
	s.file, s.current = nil, nil
	return err
}
