// Package screen shows a run while it goes on: whole lines that stay, and on a
// terminal below them one live line of what is running. It knows nothing of steps.
package screen

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Screen is where progress is shown. It is safe for concurrent use.
type Screen struct {
	out   io.Writer
	width func() int // columns; nil where no line can be written over

	mu   sync.Mutex
	live bool // a live line is shown
}

// New returns a screen on out. A width makes it a terminal of that many columns,
// which is asked for with each live line, because windows change; nil shows whole
// lines only.
func New(out io.Writer, width func() int) *Screen { return &Screen{out: out, width: width} }

// usualColumns is what a terminal has that does not tell.
const usualColumns = 80

// On returns a screen on out, which has a live line if terminal says that out is one.
func On(out io.Writer, terminal bool) *Screen {
	if !terminal {
		return New(out, nil)
	}
	return New(out, func() int {
		if file, ok := out.(*os.File); ok {
			if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
				return columns
			}
		}
		return usualColumns
	})
}

// Terminal tells whether file is a terminal on which a line can be written over:
// TERM=dumb is none, and neither is one that does not say what it is.
func Terminal(file *os.File, getenv func(string) string) bool {
	kind := getenv("TERM")
	return kind != "" && kind != "dumb" && term.IsTerminal(int(file.Fd()))
}

// Color tells whether colours are wanted on a terminal: https://no-color.org.
func Color(file *os.File, getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && Terminal(file, getenv)
}

// Tint is how something is meant, as a terminal shows it in colours.
type Tint string

// The tints, as https://www.ecma-international.org/publications-and-standards/standards/ecma-48
// has them.
const (
	Plain Tint = "\x1b[0m"
	Good  Tint = "\x1b[32m"
	Bad   Tint = "\x1b[31m"
	Note  Tint = "\x1b[33m" // worth a look
	Quiet Tint = "\x1b[2m"  // nothing to look at
)

// Paint returns the text in a tint, or as it is where no colours are wanted.
func Paint(text string, tint Tint, color bool) string {
	if !color {
		return text
	}
	return string(tint) + text + string(Plain)
}

// Live tells whether there is a live line.
func (s *Screen) Live() bool { return s.width != nil }

// Item is one thing that is running.
type Item struct {
	Name   string // what, and for how long
	Status string // what it is at; its first line is shown where there is room
}

// Print shows one line that stays, and the live line again below it.
func (s *Screen) Print(line string, running []Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.live = false
	}
	fmt.Fprintln(s.out, line)
	s.draw(running)
}

// Draw shows what is running on the live line; without one it does nothing.
func (s *Screen) Draw(running []Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draw(running)
}

func (s *Screen) draw(running []Item) {
	if s.width == nil || len(running) == 0 {
		return
	}
	// A line that fills the last column makes some terminals begin another.
	fmt.Fprintf(s.out, "\r\x1b[K%s", Fit(running, s.width()-1))
	s.live = true
}

// Fit writes what is running on one line of at most so many columns: the names
// first, as many as fit, then what they are at.
func Fit(running []Item, columns int) string {
	const mark, between = "… ", "  "
	shown := len(running)
	line := func() string {
		parts := make([]string, 0, shown+1)
		for _, item := range running[:shown] {
			parts = append(parts, plain(item.Name))
		}
		if more := len(running) - shown; more > 0 {
			parts = append(parts, fmt.Sprintf("+%d", more))
		}
		return mark + strings.Join(parts, between)
	}
	for shown > 1 && length(line()) > columns {
		shown--
	}
	room := columns - length(line())
	if room < 0 {
		return cut(line(), columns)
	}
	named := slices.Clone(running)
	for i, item := range running[:shown] {
		status, _, _ := strings.Cut(strings.TrimSpace(item.Status), "\n")
		if status = plain(status); status == "" {
			continue
		}
		// The space and brackets around it, and a few letters at least.
		if room < 3+min(length(status), 8) {
			continue
		}
		status = " (" + cut(status, room-3) + ")"
		named[i].Name += status
		room -= length(status)
	}
	running = named
	return line()
}

// length is how many columns a text takes, of letters that take one each.
func length(text string) int { return utf8.RuneCountInString(text) }

// cut shortens a text to so many columns.
func cut(text string, columns int) string {
	if length(text) <= columns {
		return text
	}
	if columns < 1 {
		return ""
	}
	return string([]rune(text)[:columns-1]) + "…"
}

// plain replaces what would move the cursor.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
