package command

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A program runs in a process group of its own, with all that it starts in turn. The
// group ends with the context of Run and, by the watchdog, with this process.

// grace is how long a group may take to end after SIGTERM before it is killed.
// Mage leaves an interrupted target five seconds in all.
const grace = 2 * time.Second

// lastGrace is what the watchdog leaves instead: whoever has used up Mage's five seconds is
// to be gone within six.
const lastGrace = 500 * time.Millisecond

// look is how often a group is asked whether it still exists once its first process
// has ended: nothing tells of the end of the others.
const look = 50 * time.Millisecond

// terminate asks every process of a group to end.
func terminate(group int) error { return syscall.Kill(-group, syscall.SIGTERM) }

// sweep returns when no process of a group is left. It kills what is there when the
// time is up, as what ignores SIGTERM is.
func sweep(group int, until time.Time) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for time.Now().Before(until) {
		if !alive(group) {
			return
		}
		<-ticker.C
	}
	_ = syscall.Kill(-group, syscall.SIGKILL) // it may have ended just now
}

// alive tells whether a process of a group still runs. One that has ended belongs to
// its group until its parent takes note, which the first process of a container
// may never do; where there is no /proc to tell, it counts as running.
func alive(group int) bool {
	if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, _ := os.ReadFile(file) // gone by now, or not
		// The name before the state may hold anything, brackets too.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) && string(fields[0]) != "Z" {
			return true
		}
	}
	return len(stats) == 0
}

//go:embed watchdog.sh
var watchdogScript string

// watchdog is a process that outlives this one by a moment, to end what it runs: a
// process that is killed can do nothing more. PR_SET_PDEATHSIG would reach a
// program's first process only, and none that changes its user.
type watchdog struct {
	mu sync.Mutex
	in io.Writer
}

// watch returns the watchdog of this process, started when first needed.
var watch = sync.OnceValues(func() (*watchdog, error) {
	c := exec.Command("sh", "-c", watchdogScript, "watchdog", strconv.FormatFloat(lastGrace.Seconds(), 'f', -1, 64))
	// A session of its own: no signal of a terminal reaches it.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &watchdog{in: in}, c.Start()
})

// add has the watchdog end a group if this process is killed, until the function it
// returns is called.
func (w *watchdog) add(group int) (remove func(), err error) {
	if err := w.tell("+", group); err != nil {
		return nil, err
	}
	return func() { _ = w.tell("-", group) }, nil // one that is gone ends nothing
}

func (w *watchdog) tell(change string, group int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := fmt.Fprintln(w.in, change, group)
	return err
}
