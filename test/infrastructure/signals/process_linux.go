package signals

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// starters are the programs whose end is to be the end of what they have started. A
// shell is none of them: who logs out, or ends a script, may want the run to go on.
var starters = []string{"mage", "go"}

// parentEnd returns a channel that is closed when the process that started this one
// has ended, or nil if that is none of the starters.
func parentEnd() <-chan struct{} {
	parent := os.Getppid()
	comm, err := os.ReadFile(procFile(parent, "comm"))
	if err != nil || !slices.Contains(starters, strings.TrimSpace(string(comm))) {
		return nil
	}
	ended := make(chan struct{})
	// Not PR_SET_PDEATHSIG: that tells of the end of the thread which started this
	// process. pidfd_open came with Linux 5.3.
	fd, err := unix.PidfdOpen(parent, 0)
	if err != nil {
		return nil
	}
	if os.Getppid() != parent { // it ended meanwhile
		close(ended)
		return ended
	}
	go func() {
		defer close(ended)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return ended
}

// patience is how long a target has to end: the five seconds that Mage leaves it, and
// a moment to say so. look is how often new processes are looked for meanwhile,
// because nothing tells of them: mage compiles before it runs what it has compiled.
const (
	patience = 5500 * time.Millisecond
	look     = 50 * time.Millisecond
)

// end sends SIGTERM to what this process has started or starts, until done is closed and
// nothing of it runs, and kills what is left when its time is up.
func end(done <-chan struct{}) {
	// What was started by one that is just being ended would be nobody's child.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var told []int
	for {
		running := started(os.Getpid())
		if done == nil && len(running) == 0 {
			return
		}
		for _, pid := range running {
			if !slices.Contains(told, pid) {
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended just now
				told = append(told, pid)
			}
		}
		select {
		case <-done:
			done = nil
		case <-ticker.C:
		case <-deadline.C:
			for _, pid := range started(os.Getpid()) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			os.Exit(1)
		}
	}
}

// started are the processes that a process has started, and those that they have, in
// this one's group: those that Ctrl-C would reach. So the compilers of a go command
// are among them, which does not end them; the programs of a target are not: it gives
// each a group, and ends them in order.
func started(pid int) []int {
	var pids []int
	lists, _ := filepath.Glob(procFile(pid, "task/*/children"))
	for _, file := range lists {
		list, _ := os.ReadFile(file) // a thread that has ended has none
		for _, field := range bytes.Fields(list) {
			child, err := strconv.Atoi(string(field))
			if err != nil {
				continue
			}
			if group, err := syscall.Getpgid(child); err != nil || group != syscall.Getpgrp() {
				continue
			}
			if runs(child) {
				pids = append(pids, child)
			}
			pids = append(pids, started(child)...)
		}
	}
	return pids
}

// runs reports whether a process has not ended; one that has is there until its parent
// asks for how it did.
func runs(pid int) bool {
	stat, err := os.ReadFile(procFile(pid, "stat"))
	_, state, _ := bytes.Cut(stat, []byte(") ")) // behind the name, which may hold anything
	return err == nil && !bytes.HasPrefix(state, []byte("Z"))
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
