package host

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/renameio/v2"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// probeTimeout bounds a probe, which takes less than a second: a cold engine on a
// busy machine has been seen to take ten.
const probeTimeout = time.Minute

// ProbeEngine returns nil when the engine runs a privileged container with the
// settings that kind's nodes have, whose port and folder are those of this machine.
// Nothing is pulled: the image is made here, of one small program, and removed again.
// The error is one line that names the engine.
func ProbeEngine(ctx context.Context, opts Options, engine string) error {
	opts = opts.withDefaults()
	if _, err := engineVersion(ctx, opts.Runner, engine); err != nil {
		return err
	}
	_, err := newProbe(opts, engine).run(ctx)
	return err
}

// lookup tells how long a node of kind's waits, each time that it starts, for the engine's
// name server to know host.docker.internal or not to.
func lookup(ctx context.Context, opts Options, engine string) (time.Duration, error) {
	p := newProbe(opts.withDefaults(), engine)
	p.lookup = "host.docker.internal"
	// kind makes its network when there is none. Others have other name servers.
	if p.Runner.Run(ctx, command.Cmd{Args: []string{engine, "network", "inspect", "kind"}}) == nil {
		p.network = "kind"
	}
	took, err := p.run(ctx)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(took)
}

// probe is one container, with an image of its own: two probes may run at once.
type probe struct {
	Options
	engine  string
	name    string // of the container, and of the image
	token   string // what the container has to send
	network string // that it is in; empty for the engine's default
	lookup  string // a name that it looks up; empty for none
}

func newProbe(opts Options, engine string) probe {
	return probe{Options: opts, engine: engine, name: "e2e-probe-" + strings.ToLower(rand.Text()[:10]), token: rand.Text()}
}

// run returns what the container has found, nothing where it looks up no name.
func (p probe) run(ctx context.Context) (found string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("not done after %s", probeTimeout))
	defer cancel()
	if found, err = p.try(ctx); err != nil {
		return "", fmt.Errorf("%s: %w", p.engine, err)
	}
	return found, nil
}

func (p probe) try(ctx context.Context) (found string, err error) {
	archive, err := p.archive(ctx)
	if err != nil {
		return "", fmt.Errorf("making an image to try: %w", brief{err})
	}
	folder, err := p.folder()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	image := "localhost/" + p.name
	if err := p.Runner.Run(ctx, command.Cmd{Args: []string{p.engine, "import", "--change", "LABEL " + Label + "=true", "-", image}, Stdin: archive}); err != nil {
		return "", fmt.Errorf("importing an image: %w", brief{err})
	}
	defer func() { err = p.remove(ctx, err, "rmi", "--force", image) }()
	// As kind starts a node: privileged, a cgroup namespace, the kernel's modules, and a
	// published port, which is what needs the network's helper programs. The limits are
	// those that the kubelet will set in the node: a rootless engine may have been given
	// none of the cgroup controllers for them.
	args := []string{p.engine, "run", "--detach", "--name", p.name, "--label", Label + "=true", "--privileged", "--cgroupns=private",
		"--memory", "256m", "--cpu-shares", "512", "--pids-limit", "128", "--volume", "/lib/modules:/lib/modules:ro", "--volume", folder + ":/probe:ro",
		"--publish", "127.0.0.1::80"}
	if p.network != "" {
		args = append(args, "--network", p.network)
	}
	args = append(args, image, "/probe-program")
	if p.lookup != "" {
		args = append(args, p.lookup)
	}
	if err := p.Runner.Run(ctx, command.Cmd{Args: args}); err != nil {
		// It may be there all the same.
		return "", p.remove(ctx, fmt.Errorf("running a privileged container: %w", brief{err}), "rm", "--force", p.name)
	}
	defer func() { err = p.remove(ctx, err, "rm", "--force", p.name) }()
	return p.answer(ctx)
}

// elsewhere is what makes a container that runs unreachable, or blind.
const elsewhere = "is the engine on another machine (DOCKER_HOST, a remote context), or does this run in a container beside it?"

// answer asks the container for the token in the folder that it has been given, and returns
// what it says beside.
func (p probe) answer(ctx context.Context) (found string, err error) {
	published, err := command.Output(ctx, p.Runner, p.engine, "port", p.name, "80/tcp")
	if err != nil {
		return "", fmt.Errorf("asking for a published port: %w", brief{err})
	}
	address, _, _ := strings.Cut(published, "\n")
	patience := time.Second
	if p.lookup != "" {
		patience = answerTimeout
	}
	got, err := p.machine.ask(ctx, address, patience)
	token, found, _ := strings.Cut(got, "\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("a port that it publishes at %s cannot be reached (%w); %s", address, err, elsewhere)
	case token != p.token:
		return "", fmt.Errorf("a folder of this machine is another one in its containers; %s", elsewhere)
	}
	return found, nil
}

// answerTimeout is how long a container that has started may take to answer: its
// program has to begin to listen.
const answerTimeout = 10 * time.Second

// ask returns what is sent, within patience, by whoever listens at address. Whoever forwards
// the port may do so before there is a listener.
func ask(ctx context.Context, address string, patience time.Duration) (string, error) {
	once := func() (string, error) {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return "", err
		}
		text, err := io.ReadAll(conn)
		if err == nil && len(text) == 0 {
			err = io.ErrUnexpectedEOF
		}
		return string(text), err
	}
	return backoff.Retry(ctx, once, backoff.WithBackOff(backoff.NewConstantBackOff(50*time.Millisecond)), backoff.WithMaxElapsedTime(answerTimeout))
}

// remove removes what a probe has made, also when ctx has ended, and adds to err.
func (p probe) remove(ctx context.Context, err error, args ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if failed := p.Runner.Run(ctx, command.Cmd{Args: append([]string{p.engine}, args...)}); failed != nil && err == nil {
		return fmt.Errorf("removing what a probe has made: %w", brief{failed})
	}
	return err
}

// buildDir holds what probes need, in the checkout: a home may be missing, or not to
// be written.
func (o Options) buildDir() string { return checkout.Checkout{Root: o.Checkout}.Path("build") }

// folder makes a folder with the token, for the container to show.
func (p probe) folder() (string, error) {
	folder, err := filepath.Abs(filepath.Join(p.buildDir(), p.name))
	if err == nil {
		err = os.MkdirAll(folder, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "token"), []byte(p.token), 0o644)
	}
	if err == nil {
		err = errors.Join(os.Chmod(folder, 0o755), os.Chmod(filepath.Join(folder, "token"), 0o644)) // whatever the umask
	}
	return folder, err
}

// archive is a root file system with the program.
func (p probe) archive(ctx context.Context) (*bytes.Buffer, error) {
	program, err := p.program(ctx)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "probe-program", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	return &archive, w.Close()
}

//go:embed probe/main.go
var probeSource []byte

// program is a static Linux program that sends what is in /probe/token. It is compiled
// once a checkout and Go version.
func (p probe) program(ctx context.Context) ([]byte, error) {
	sum := sha256.Sum256(probeSource)
	kept := filepath.Join(p.buildDir(), "probe-linux-"+runtime.GOARCH+"-"+runtime.Version()+"-"+hex.EncodeToString(sum[:4]))
	program, err := os.ReadFile(kept)
	if !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	if err := os.MkdirAll(p.buildDir(), 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(p.buildDir(), "probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "main.go"), probeSource, 0o644); err != nil {
		return nil, err
	}
	binary := filepath.Join(work, "program")
	err = p.Runner.Run(ctx, command.Cmd{
		Args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", "program", "main.go"}, Dir: work,
		Env: command.GoEnv("CGO_ENABLED=0"),
	})
	if err != nil {
		return nil, err
	}
	if program, err = os.ReadFile(binary); err != nil {
		return nil, err
	}
	return program, renameio.WriteFile(kept, program, 0o755)
}

// brief is a command's error in one line: the one that says what is wrong, without
// the command, which nobody typed.
type brief struct{ err error }

func (b brief) Unwrap() error { return b.err }

func (b brief) Error() string {
	var failed *command.Error
	if !errors.As(b.err, &failed) {
		return b.err.Error()
	}
	if failed.Cause != nil {
		return failed.Cause.Error()
	}
	if failed.ExitCode < 0 {
		return strings.ReplaceAll(failed.Err.Error(), "\n", ": ")
	}
	var last string
	for line := range strings.Lines(failed.Stderr) {
		line = strings.TrimSpace(line)
		lower := strings.ToLower(line)
		switch {
		case line == "" || strings.HasPrefix(lower, "see '") || strings.HasPrefix(lower, "run '"):
			// docker ends with a hint
		case strings.HasPrefix(lower, "error: ") || strings.HasPrefix(lower, "e: "):
			_, last, _ = strings.Cut(line, ": ")
		case strings.HasPrefix(lower, "docker: "):
			last = line[len("docker: "):]
		default:
			last = line
		}
	}
	if last == "" {
		return fmt.Sprintf("exit %d", failed.ExitCode)
	}
	return last
}
