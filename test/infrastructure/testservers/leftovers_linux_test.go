package testservers

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// An API server that a killed test has left has no parent that is a test; one that a test uses has.
func TestAPIServersOfKilledTestsAreEnded(t *testing.T) {
	programs := t.TempDir()
	for _, program := range []string{"kube-apiserver", "etcd"} {
		if err := (command.Local{}).Run(t.Context(), command.Cmd{Args: []string{"sh", "-c", `cp "$(command -v sleep)" "$0"`, programs + "/" + program}}); err != nil {
			t.Fatal(err)
		}
	}
	stopped := errors.New("the test has ended")
	ctx, stop := context.WithCancelCause(t.Context())
	used := make(chan error)
	go func() {
		used <- command.Local{}.Run(ctx, command.Cmd{Args: []string{programs + "/kube-apiserver", "60"}})
	}()
	// In a session of its own, as envtest has it: the end of what starts it is not its end.
	out, err := command.Output(t.Context(), command.Local{}, "setsid", "--wait", "sh", "-c", `"$0" 60 >/dev/null 2>&1 & echo $!`, programs+"/etcd")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(out)
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(orphan) }()

	m := newMachine(t)
	opts := m.options()
	opts.APIServer = programs
	servers, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	ended := []unix.PollFd{{Fd: int32(orphan), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, int((10 * time.Second).Milliseconds())); n != 1 || err != nil {
		t.Errorf("the orphan still runs: %d, %v", n, err)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case err := <-used:
		t.Errorf("the server of a test that runs has ended too: %v", err)
	default:
	}
	stop(stopped)
	if err := <-used; !errors.Is(err, stopped) {
		t.Error(err)
	}
	if _, err := os.Stat(value(servers.Env(), "TMPDIR")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the tests had as temporary files is left: %v", err)
	}
}
