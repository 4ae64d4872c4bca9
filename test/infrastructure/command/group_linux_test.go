package command_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// harness is set in a process that runs, in place of the tests, the program that it
// holds, and that is to be killed.
const harness = "COMMAND_TEST_HARNESS"

func TestMain(m *testing.M) {
	if script := os.Getenv(harness); script != "" {
		err := command.Local{}.Run(context.Background(), command.Cmd{Args: []string{"sh", "-c", script}, Stdout: os.Stdout}) //nolint:forbidigo // there is no test
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Each tells its process id, and would run for a minute.
const (
	deaf    = `sh -c 'trap "" TERM INT HUP; echo $$; exec >&- 2>&-; for i in $(seq 60); do sleep 1; done' &`
	willing = `sh -c 'echo $$; exec sleep 60' &`
)

// ids reads that many process ids, one a line.
func ids(t *testing.T, r io.Reader, n int) []int {
	t.Helper()
	var pids []int
	lines := bufio.NewScanner(r)
	for len(pids) < n && lines.Scan() {
		pid, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) < n {
		t.Fatalf("got %v, want %d process ids", pids, n)
	}
	return pids
}

// ends waits for a process to end.
func ends(t *testing.T, pid int, within time.Duration) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(within.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Errorf("process %d still runs", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func TestCancelKillsWhatIgnoresSIGTERM(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		{"while the program ends", deaf + "wait"},
		{"beside one that ends, of a program that has ended", deaf + willing + "exec sleep 60"},
		{"which is the program itself", `trap "" TERM; ` + deaf + "wait"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			r, w := io.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- command.Local{}.Run(ctx, command.Cmd{Args: []string{"sh", "-c", test.script}, Stdout: w})
			}()
			pid := ids(t, r, 1)[0]
			go func() { _, _ = io.Copy(io.Discard, r) }()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
			ends(t, pid, 100*time.Millisecond)
		})
	}
}

func TestCancelLeavesTimeToEndInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	// The program ends at once, what it has started needs a moment.
	file := t.TempDir() + "/order"
	script := `sh -c 'trap "sleep 0.3; echo in order >` + file + `; exit" TERM; echo $$; exec >&- 2>&-; while :; do sleep 0.1; done' & wait`
	go func() { done <- command.Local{}.Run(ctx, command.Cmd{Args: []string{"sh", "-c", script}, Stdout: w}) }()
	pid := ids(t, r, 1)[0]
	go func() { _, _ = io.Copy(io.Discard, r) }()
	started := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	ends(t, pid, 100*time.Millisecond)
	if text, err := os.ReadFile(file); string(text) != "in order\n" {
		t.Errorf("got %q, %v", text, err)
	}
	if took := time.Since(started); took > 1900*time.Millisecond {
		t.Errorf("took %v: what has ended was waited for", took)
	}
}

func TestAKilledProcessLeavesNothingRunning(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), harness+"=echo $$; "+deaf+willing+"wait")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pids := ids(t, out, 3)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		ends(t, pid, 4*time.Second)
	}
	if err := c.Wait(); err == nil {
		t.Error("it ended by itself")
	}
}

func TestWhatAProgramLeavesBehindIsItsOwn(t *testing.T) {
	var out strings.Builder
	script := `sh -c 'exec >&- 2>&-; exec sleep 60' & echo $!`
	if err := (command.Local{}).Run(t.Context(), command.Cmd{Args: []string{"sh", "-c", script}, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	pid := ids(t, strings.NewReader(out.String()), 1)[0]
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the daemon that it started: %v", err)
	}
}
