package signals

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test's own binary plays the programs of a run, under their names: go starts
// mage, which starts the target.
const role = "SIGNALS_TEST_ROLE"

func TestMain(m *testing.M) {
	playing := os.Getenv(role)
	if self, err := os.Executable(); playing != "" && (err != nil || filepath.Base(self) != playing) {
		fmt.Fprintf(os.Stderr, "%s plays %s\n", self, playing) // or each would start the next for ever
		os.Exit(1)
	}
	var err error
	switch playing {
	case "go":
		err = passing("mage")
	case "mage":
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT) // as Mage does
		stop := PassOn()
		err = passing("target")
		stop()
	case "target":
		err = target()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// passing tells its process id, runs the next program, and on SIGINT, SIGTERM or
// SIGHUP signals it likewise, as the go command does.
func passing(next string) error {
	fmt.Fprintln(os.Stdout, os.Getpid())
	self, err := os.Executable()
	if err != nil {
		return err
	}
	process, err := begin(filepath.Join(filepath.Dir(self), next), next, os.Stdout)
	if err != nil {
		return err
	}
	if next == "mage" {
		got := make(chan os.Signal, 8)
		signal.Notify(got, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		go func() {
			for sig := range got {
				_ = process.Signal(sig)
			}
		}()
	}
	state, err := process.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	return err
}

func begin(path, as string, out *os.File) (*os.Process, error) {
	return os.StartProcess(path, []string{path}, &os.ProcAttr{Env: environ(as), Files: []*os.File{nil, out, os.Stderr}})
}

func environ(as string) []string {
	own := slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, role+"=") })
	return append(own, role+"="+as, "GORACE=atexit_sleep_ms=0")
}

// target tells its process id, and how many interrupts it gets.
func target() error {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGINT)
	AsInterrupt(func(line string) { fmt.Fprintln(os.Stdout, line) })
	fmt.Fprintln(os.Stdout, os.Getpid())
	select {
	case <-got:
	case <-time.After(20 * time.Second):
		return errors.New("not interrupted")
	}
	n := 1
	for more := time.After(300 * time.Millisecond); ; {
		select {
		case <-got:
			n++
		case <-more:
			fmt.Fprintf(os.Stdout, "interrupts: %d\n", n)
			return nil
		}
	}
}

// TestWhatMageCompilesWithEndsToo is about a go command that is killed by the signal
// while what it has started knows nothing.
func TestWhatMageCompilesWithEndsToo(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Link(self, filepath.Join(dir, "mage")); err != nil {
		t.Fatal(err)
	}
	compiler := "#!/bin/sh\nsh -c 'echo $$; sleep 60; :' & wait\n"
	if err := os.WriteFile(filepath.Join(dir, "target"), []byte(compiler), 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mage, err := os.StartProcess(filepath.Join(dir, "mage"), []string{"mage"}, &os.ProcAttr{
		Env: environ("mage"), Files: []*os.File{nil, w, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-mage.Pid, syscall.SIGKILL) })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(r)
	for range 2 { // mage, and what the compiler has started
		if _, err := out.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	if err := mage.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(out); err != nil { // until none of them holds the other end
		t.Fatal(err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := mage.Wait(); err != nil {
		t.Error(err)
	}
}

// tree is the three programs while they run.
type tree struct {
	outermost *os.Process
	pids      map[string]int
	out       *bufio.Reader
}

func grow(t *testing.T) *tree {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"go", "mage", "target"} {
		if err := os.Link(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	process, err := os.StartProcess(filepath.Join(dir, "go"), []string{"go"}, &os.ProcAttr{
		Env: environ("go"), Files: []*os.File{nil, w, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	grown := &tree{outermost: process, pids: map[string]int{}, out: bufio.NewReader(r)}
	t.Cleanup(func() {
		_ = syscall.Kill(-process.Pid, syscall.SIGKILL)
		_ = r.Close()
	})
	for _, name := range []string{"go", "mage", "target"} {
		line, err := grown.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if grown.pids[name], err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			t.Fatal(err)
		}
	}
	return grown
}

func TestTheTargetIsInterruptedOnce(t *testing.T) {
	// Under nohup these tests ignore SIGHUP, and so would the programs that they start.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
	tests := []struct {
		name  string
		to    string // empty: to all at once, as a terminal does
		sig   syscall.Signal
		lines string
	}{
		{"Ctrl-C on a terminal", "", syscall.SIGINT, ""},
		{"a terminal that is closed", "", syscall.SIGHUP, "SIGHUP: ending as on Ctrl-C\n"},
		{"SIGTERM to all, as a service manager sends it", "", syscall.SIGTERM, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGINT to go", "go", syscall.SIGINT, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGTERM to go", "go", syscall.SIGTERM, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGHUP to go", "go", syscall.SIGHUP, "SIGTERM: ending as on Ctrl-C\n"},
		{"go killed", "go", syscall.SIGKILL, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGINT to mage", "mage", syscall.SIGINT, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGTERM to mage", "mage", syscall.SIGTERM, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGHUP to mage", "mage", syscall.SIGHUP, "SIGTERM: ending as on Ctrl-C\n"},
		{"mage killed", "mage", syscall.SIGKILL, "the process that started this one is gone: ending as on Ctrl-C\n"},
		{"SIGINT to the target", "target", syscall.SIGINT, ""},
		{"SIGTERM to the target", "target", syscall.SIGTERM, "SIGTERM: ending as on Ctrl-C\n"},
		{"SIGHUP to the target", "target", syscall.SIGHUP, "SIGHUP: ending as on Ctrl-C\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tree := grow(t)
			to := tree.pids[test.to]
			if test.to == "" {
				to = -tree.outermost.Pid
			}
			if err := syscall.Kill(to, test.sig); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(tree.out) // until none of them holds the other end
			if err != nil {
				t.Fatal(err)
			}
			want := []string{test.lines + "interrupts: 1\n"}
			if test.to == "" && test.sig == syscall.SIGHUP { // mage may be quicker than the terminal
				want = append(want, "SIGTERM: ending as on Ctrl-C\ninterrupts: 1\n")
			}
			if got := string(said); got != want[0] && got != want[len(want)-1] {
				t.Errorf("said\n%swant\n%s", got, want[0])
			}
			if _, err := tree.outermost.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
