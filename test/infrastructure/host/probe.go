package host

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Choose returns the engine to use: the wanted one, else the first of podman and
// docker that passes ProbeEngine. The error has a line for each that was tried.
func Choose(ctx context.Context, runner command.Runner, wanted string) (string, error) {
	var tried []string
	for _, engine := range engines(wanted) {
		err := ProbeEngine(ctx, runner, engine)
		if err == nil {
			return engine, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		tried = append(tried, err.Error())
	}
	return "", fmt.Errorf("no container engine works here; run: go tool mage setup\n  %s", strings.Join(tried, "\n  "))
}

// probeTimeout bounds a probe, which takes half a second: a cold engine on a busy
// machine has been seen to take ten.
const probeTimeout = time.Minute

// ProbeEngine returns nil when the engine runs a privileged container with the
// settings that kind's nodes have. Nothing is pulled: the image is made here, of
// one program that does nothing, and removed again. The error is one line that
// names the engine.
func ProbeEngine(ctx context.Context, runner command.Runner, engine string) (err error) {
	_, err = engineVersion(ctx, runner, engine)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("not done after %s", probeTimeout))
	defer cancel()
	archive, err := probeArchive(ctx, runner)
	if err != nil {
		return fmt.Errorf("%s: making an image to try: %w", engine, brief{err})
	}
	// Of this probe only: two may run at once.
	ref := "localhost/e2e-probe:" + strings.ToLower(rand.Text())
	err = runner.Run(ctx, command.Cmd{Args: []string{engine, "import", "--change", "LABEL " + Label + "=true", "-", ref}, Stdin: archive})
	if err != nil {
		return fmt.Errorf("%s: importing an image: %w", engine, brief{err})
	}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if failed := runner.Run(cleanup, command.Cmd{Args: []string{engine, "rmi", "--force", ref}}); failed != nil && err == nil {
			err = fmt.Errorf("%s: removing the image of a probe: %w", engine, brief{failed})
		}
	}()
	// As kind starts a node, but for its name: privileged, a cgroup namespace, the
	// kernel's modules, and a published port, which is what needs the network's
	// helper programs. The limits are those that the kubelet will set in the node: a
	// rootless engine may have been given none of the cgroup controllers for them.
	err = runner.Run(ctx, command.Cmd{Args: []string{engine, "run", "--rm", "--label", Label + "=true", "--privileged", "--cgroupns=private",
		"--memory", "256m", "--cpu-shares", "512", "--pids-limit", "128", "--volume", "/lib/modules:/lib/modules:ro", "--publish", "127.0.0.1::80", ref, "/true"}})
	if err != nil {
		return fmt.Errorf("%s: running a privileged container: %w", engine, brief{err})
	}
	return nil
}

// engineVersion is the version of what runs the containers: podman itself, and the
// server that docker talks to.
func engineVersion(ctx context.Context, runner command.Runner, engine string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, versionTimeout, fmt.Errorf("no answer within %s", versionTimeout))
	defer cancel()
	format := "{{.Client.Version}}"
	if engine == "docker" {
		format = "{{.Server.Version}}"
	}
	version, err := command.Output(ctx, runner, engine, "version", "--format", format)
	if errors.Is(err, command.ErrNotFound) {
		return "", fmt.Errorf("%s: not installed", engine)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", engine, brief{err})
	}
	return version, nil
}

// versionTimeout is how long an engine may take to tell its version: a daemon that
// hangs does not answer at all.
const versionTimeout = 15 * time.Second

// probeArchive is a root file system with the program /true.
func probeArchive(ctx context.Context, runner command.Runner) (*bytes.Buffer, error) {
	program, err := probeProgram(ctx, runner)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "true", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	return &archive, w.Close()
}

// probeProgram is a static Linux program that does nothing. It is compiled once a
// user and Go version, and kept in the user's cache.
func probeProgram(ctx context.Context, runner command.Runner) ([]byte, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "kubernaut-e2e")
	kept := filepath.Join(dir, "true-linux-"+runtime.GOARCH+"-"+runtime.Version())
	program, err := os.ReadFile(kept)
	if !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	source, binary := filepath.Join(work, "true.go"), filepath.Join(work, "true")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return nil, err
	}
	err = runner.Run(ctx, command.Cmd{
		Args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source}, Dir: work,
		Env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH, "GOFLAGS=", "GOWORK=off"},
	})
	if err != nil {
		return nil, err
	}
	if err := os.Rename(binary, kept); err != nil {
		return nil, err
	}
	return os.ReadFile(kept)
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
