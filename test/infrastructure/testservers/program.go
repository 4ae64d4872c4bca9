package testservers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// account is as whom the servers run, and what comes before a command to that end.
type account struct {
	prefix   []string
	uid, gid int // -1: this process's own
}

// findAccount returns this process's own account, or if that is root's, which
// PostgreSQL refuses, the one that Debian's package has made, else nobody's.
//
// On Linux the kernel also tells a server when this process has been killed, by the
// signal on which PostgreSQL ends at once and in order: the watchdog of package
// command says SIGTERM, on which it waits for its clients, and then kills it.
func findAccount() (account, error) {
	a := account{uid: -1, gid: -1}
	if runtime.GOOS != "linux" {
		return a, nil
	}
	setpriv, missing := command.Find("setpriv")
	if os.Geteuid() != 0 {
		if missing == nil {
			a.prefix = []string{setpriv, "--pdeathsig", "INT", "--"}
		}
		return a, nil
	}
	if missing != nil {
		return a, fmt.Errorf("%w, and PostgreSQL does not run as root", missing)
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		if found, err = user.Lookup("nobody"); err != nil {
			return a, fmt.Errorf("PostgreSQL does not run as root: %w", err)
		}
	}
	a.uid, err = strconv.Atoi(found.Uid)
	if err != nil {
		return a, err
	}
	if a.gid, err = strconv.Atoi(found.Gid); err != nil {
		return a, err
	}
	a.prefix = []string{setpriv, "--reuid", found.Uid, "--regid", found.Gid, "--clear-groups", "--pdeathsig", "INT", "--"}
	return a, nil
}

// folder makes a folder for a server of dir, which belongs to the account and to nobody
// else. It does not lie in the checkout: that may be in a home that the account
// cannot enter.
func (a account) folder(dir, name string) (string, error) {
	data, err := os.MkdirTemp("", FolderPrefix+identity(dir)+"-"+name+"-")
	if err != nil {
		return "", err
	}
	if err := a.own(data); err != nil {
		return "", errors.Join(err, os.RemoveAll(data))
	}
	return data, nil
}

func (a account) own(path string) error {
	if a.uid < 0 {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

func (a account) command(args ...string) []string {
	return append(append([]string{}, a.prefix...), args...)
}

// program is one that runs until it is stopped.
type program struct {
	cancel context.CancelFunc
	log    string
	ended  chan struct{} // closed when it has
	err    error         // why, once ended
}

// start starts a program whose output goes to a new file named log. It outlives ctx.
func start(ctx context.Context, runner command.Runner, log string, cmd command.Cmd) (*program, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &program{cancel: cancel, log: log, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = file, file
	go func() {
		defer close(p.ended)
		p.err = errors.Join(runner.Run(ctx, cmd), file.Close())
	}()
	return p, nil
}

// ready returns when ping succeeds, or the program or the time to start has ended.
func (p *program) ready(ctx context.Context, ping func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-p.ended:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	err := answers(ctx, ping)
	cancel(nil)
	<-watched
	if err != nil {
		err = fmt.Errorf("%w%s", err, p.lastLines())
	}
	return err
}

var errEnded = errors.New("it ended before it answered")

// lastLines is the end of the log, to be put behind an error.
func (p *program) lastLines() string {
	data, err := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if err != nil || len(data) == 0 {
		return ""
	}
	return "; " + filepath.Base(p.log) + ":\n" + strings.Join(lines[max(0, len(lines)-6):], "\n")
}

// stop ends the program with SIGTERM, and waits until it has.
func (p *program) stop(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempts is how often a server is started on another port: between the moment a
// free one is found and the moment the server takes it, somebody else may.
const attempts = 3

// onFreePort calls try with a free port, and once more with another if it fails.
func onFreePort(ctx context.Context, try func(port string) error) error {
	var err error
	for range attempts {
		var port string
		if port, err = freePort(ctx); err != nil {
			return err
		}
		if err = try(port); err == nil || !errors.Is(err, errEnded) {
			return err
		}
	}
	return err
}
