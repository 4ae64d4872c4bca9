package screen_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// pty is a terminal of 40 columns.
func pty(t *testing.T) *os.File {
	t.Helper()
	file, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := unix.IoctlSetWinsize(int(file.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 40, Row: 10}); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTerminalAndColor(t *testing.T) {
	tests := []struct {
		name            string
		env             map[string]string
		terminal, color bool
	}{
		{"a terminal", map[string]string{"TERM": "xterm"}, true, true},
		{"one that wants no colours", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, true, false},
		{"one on which nothing is written over", map[string]string{"TERM": "dumb"}, false, false},
		{"one that does not say what it is", nil, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			getenv := func(name string) string { return test.env[name] }
			file := pty(t)
			if got := screen.Terminal(file, getenv); got != test.terminal {
				t.Errorf("Terminal: got %v", got)
			}
			if got := screen.Color(file, getenv); got != test.color {
				t.Errorf("Color: got %v", got)
			}
		})
	}
}

func TestTheLiveLineFitsTheWindow(t *testing.T) {
	window := pty(t)
	if err := unix.IoctlSetPointerInt(int(window.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(window.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	screen.On(program, true).Draw([]screen.Item{{Name: strings.Repeat("0123456789", 5)}})
	shown := make([]byte, 200)
	read, err := window.Read(shown)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(shown[:read]), "\r\x1b[K… 012345678901234567890123456789012345…"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
