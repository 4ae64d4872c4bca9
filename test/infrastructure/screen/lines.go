package screen

import (
	"bytes"
	"sync"
)

// longest is where a line is cut that does not end: some programs write pages of one.
const longest = 16 << 10

// Lines hands on what is written to it line by line. It is safe for concurrent use.
type Lines struct {
	Emit func(line string) // gets each line without its end

	mu   sync.Mutex
	rest []byte
}

// Write implements io.Writer and never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found && len(line) < longest {
			return len(p), nil
		}
		if len(line) > longest {
			line, rest = l.rest[:longest], l.rest[longest:]
		}
		l.emit(line)
		l.rest = append([]byte(nil), rest...)
	}
}

// Flush hands on a last line that has no end.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.emit(l.rest)
		l.rest = nil
	}
}

// emit hands on a line as a terminal would show it in the end: a program that shows
// progress writes over its line.
func (l *Lines) emit(line []byte) {
	line = bytes.TrimRight(line, "\r")
	l.Emit(string(line[bytes.LastIndexByte(line, '\r')+1:]))
}
