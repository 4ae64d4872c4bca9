package command

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAGroupOfWhichNobodyTookNoteHasEnded(t *testing.T) {
	c := exec.Command("sh", "-c", "read line")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if !alive(c.Process.Pid) {
		t.Error("one that runs is taken for ended")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	// Until it has ended, and leave the note to Wait.
	err = unix.EINTR
	for errors.Is(err, unix.EINTR) { // by Go's own signals
		err = unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if alive(c.Process.Pid) {
		t.Error("one that has ended is taken for running")
	}
	if err := c.Wait(); err == nil {
		t.Error("read succeeded")
	}
	if alive(c.Process.Pid) {
		t.Error("one that is gone is taken for running")
	}
}
