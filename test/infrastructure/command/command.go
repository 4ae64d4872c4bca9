// Package command is the only door to other programs: an argument vector in, an
// error that can be read on its own out. No shell reads an argument, and nothing inside
// of one is expanded. What is started ends with its context, and with this process.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cmd is one program to run.
type Cmd struct {
	Args   []string  // program and arguments; Args[0] is looked up in PATH
	Dir    string    // working directory; empty means the caller's
	Env    []string  // KEY=value pairs added to the caller's environment
	Stdin  io.Reader // nil means no input
	Stdout io.Writer // nil means the step's log
	Stderr io.Writer // additional to the step's log; nil means none
}

// Runner runs programs. Implementations are safe for concurrent use.
type Runner interface {
	// Run waits for the program to end. A program that could not be started or
	// that ended with another code than 0 is an *Error; when ctx ended first, the
	// error also wraps the context's cause.
	Run(ctx context.Context, cmd Cmd) error
}

// Error is a program that did not succeed.
type Error struct {
	Args     []string
	ExitCode int    // -1 when it did not start or a signal ended it
	Stderr   string // the last lines it wrote to standard error
	Cause    error  // why it was told to end; nil if it ended by itself
	Err      error
}

// ErrNotFound is in the chain of an Error of a program that is not in PATH.
var ErrNotFound = exec.ErrNotFound

// tailBytes is how much of a program's standard error an Error keeps: enough for
// a Go panic's first lines or a page of compiler errors.
const tailBytes = 4096

// tailLines is how many of those lines the text of an Error shows.
const tailLines = 12

// Error holds the command as it can be pasted into a shell, the exit code and the
// last lines of standard error: Mage flattens errors to text, so the text must
// be complete.
func (e *Error) Error() string {
	var b strings.Builder
	ended := fmt.Sprintf("exit %d", e.ExitCode)
	if e.ExitCode < 0 {
		ended = fmt.Sprint(e.Err)
	}
	if e.Cause != nil && e.Cause.Error() != ended { // which is all there is of one that was never started
		ended = fmt.Sprintf("%v (%s)", e.Cause, ended)
	}
	fmt.Fprintf(&b, "%s: %s", Quote(e.Args), ended)
	lines := strings.Split(strings.TrimSpace(e.Stderr), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	if text := strings.Join(lines, "\n"); text != "" {
		fmt.Fprintf(&b, ": %s", text)
	}
	return b.String()
}

// Unwrap returns why it was told to end, and how it ended.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Err}
	}
	return []error{e.Cause, e.Err}
}

// Local runs programs on this machine.
type Local struct {
	// Log returns where the commands of a step, and what they print, are written.
	// Nil discards them.
	Log func(ctx context.Context) io.Writer
}

var _ Runner = Local{}

// Run implements Runner.
func (l Local) Run(ctx context.Context, cmd Cmd) error {
	if len(cmd.Args) == 0 {
		return errors.New("empty command")
	}
	log := &locked{w: io.Discard}
	if l.Log != nil {
		log.w = l.Log(ctx)
	}
	fmt.Fprintf(log, "$ %s\n", Quote(cmd.Args))
	stderr := &tail{limit: tailBytes}
	c := exec.CommandContext(ctx, cmd.Args[0], cmd.Args[1:]...)
	c.Dir, c.Stdin, c.Stdout = cmd.Dir, cmd.Stdin, cmd.Stdout
	if c.Stdout == nil {
		c.Stdout = log
	}
	c.Stderr = io.MultiWriter(log, stderr)
	if cmd.Stderr != nil {
		c.Stderr = io.MultiWriter(log, stderr, cmd.Stderr)
	}
	c.Env = append(os.Environ(), cmd.Env...)
	// A group of its own: Ctrl-C on the terminal reaches this process only, which
	// then ends the program in order; and what the program started ends with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return terminate(c.Process.Pid) }
	c.WaitDelay = grace
	err := run(ctx, c)
	if err == nil {
		return nil
	}
	code := -1
	if c.ProcessState != nil {
		code = c.ProcessState.ExitCode()
	}
	return &Error{Args: cmd.Args, ExitCode: code, Stderr: stderr.String(), Cause: context.Cause(ctx), Err: err}
}

// run runs a program whose group ends with ctx, and with this process.
func run(ctx context.Context, c *exec.Cmd) error {
	dog, err := watch()
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	if err := c.Start(); err != nil {
		return err
	}
	group := c.Process.Pid
	remove, err := dog.add(group)
	if err != nil {
		return errors.Join(fmt.Errorf("watchdog: %w", err), c.Process.Kill(), c.Wait())
	}
	defer remove()
	canceled := make(chan time.Time, 1)
	stop := context.AfterFunc(ctx, func() { canceled <- time.Now() })
	err = c.Wait()
	if !stop() {
		sweep(group, (<-canceled).Add(grace))
	}
	return err
}

// Output runs a program and returns what it wrote to standard output, without the
// white space around it.
func Output(ctx context.Context, r Runner, args ...string) (string, error) {
	var out bytes.Buffer
	err := r.Run(ctx, Cmd{Args: args, Stdout: &out})
	return strings.TrimSpace(out.String()), err
}

// GoEnv is the environment of a go command that is to see nothing of the user's other work:
// no flags, no workspace, no platform but this machine's. It ends with more.
func GoEnv(more ...string) []string {
	return append([]string{"GOFLAGS=", "GOWORK=off", "GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH}, more...)
}

// Race is a variable for programs with Go's race detector: they end when they are through.
// By itself the detector has each wait for a second, for races of goroutines that nobody
// waits for. What the user has set in GORACE holds.
func Race() string { return "GORACE=atexit_sleep_ms=0 " + os.Getenv("GORACE") }

// Find returns the absolute path of a program in PATH.
func Find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s: not found in PATH", program)
	}
	return filepath.Abs(path)
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// Quote writes an argument vector so that it can be pasted into a POSIX shell.
func Quote(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		if plain.MatchString(arg) {
			quoted[i] = arg
		} else {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// locked lets a program's two output streams share one writer.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }
