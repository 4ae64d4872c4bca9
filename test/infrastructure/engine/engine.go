// Package engine drives the container engine of this machine, podman or docker,
// through its command line. The choice is made once; every call goes to that one.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Engine is podman or docker. It is safe for concurrent use.
type Engine struct {
	Name   string // podman or docker: also the program's name
	Runner command.Runner
}

// Build makes the image ref of the folder's Dockerfile, with labels key=value.
// target names a stage; empty means the last.
func (e Engine) Build(ctx context.Context, dir, ref, target string, labels ...string) error {
	args := []string{e.Name, "build", "--tag", ref}
	if target != "" {
		args = append(args, "--target", target)
	}
	for _, label := range labels {
		args = append(args, "--label", label)
	}
	if e.Name == "podman" {
		// One layer a step, as docker does; without it podman squashes the stages'
		// layers and copies the big ones again.
		args = append(args, "--layers")
	}
	err := e.Runner.Run(ctx, command.Cmd{Args: append(args, dir)})
	var failed *command.Error
	if errors.As(err, &failed) && failed.ExitCode > 0 && ctx.Err() == nil {
		if problem := buildProblem(failed.Stderr); problem != "" {
			return errors.New(problem)
		}
	}
	return err
}

// buildProblem is what a failed build says of the Dockerfile or of the program that a
// step ran: its last lines without the engine's own diagnostics.
func buildProblem(stderr string) string {
	var kept []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "time=") {
			continue
		}
		line, _, _ = strings.Cut(line, " &imagebuilder.") // podman prints its parser's state
		kept = append(kept, line)
	}
	return strings.Join(kept[max(0, len(kept)-problemLines):], "\n")
}

// problemLines is enough for docker, which shows the lines around the one at fault.
const problemLines = 12

// Exist returns those of the references that the store holds, each exactly as it is written.
func (e Engine) Exist(ctx context.Context, refs ...string) (map[string]bool, error) {
	var out bytes.Buffer
	args := []string{e.Name, "image", "inspect", "--format", "{{range .RepoTags}}{{.}} {{end}}{{range .RepoDigests}}{{.}} {{end}}"}
	err := e.Runner.Run(ctx, command.Cmd{Args: append(args, refs...), Stdout: &out})
	var failed *command.Error
	if errors.As(err, &failed) && failed.ExitCode > 0 && ctx.Err() == nil {
		// Both engines tell of all that they know, and end with 1 or 125 and one of these texts
		// for an image that they do not know.
		for _, text := range []string{"no such image", "No such image", "image not known", "failed to find image", "unable to inspect", "No such object"} {
			if strings.Contains(failed.Stderr, text) {
				err = nil
			}
		}
	}
	names := strings.Fields(out.String())
	held := map[string]bool{}
	for _, ref := range refs {
		// By its digest a tag beside it is not told; docker leaves out its own registry.
		name := ref
		if repository, digest, pinned := strings.Cut(ref, "@"); pinned {
			if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
				repository = repository[:colon]
			}
			name = repository + "@" + digest
		}
		short := strings.TrimPrefix(name, "docker.io/")
		held[ref] = slices.Contains(names, name) || slices.Contains(names, short) || slices.Contains(names, strings.TrimPrefix(short, "library/"))
	}
	return held, err
}

var (
	// ErrNoAnswer is a registry that could not be reached, or not in time.
	ErrNoAnswer = errors.New("no answer from the registry")
	// ErrRefused is an image that was not got from a registry which can be reached.
	ErrRefused = errors.New("not got from its registry")
)

// unreached are the words of an engine whose registry could not be reached. Whatever else
// it says is taken for a refusal: an unknown image, a limit of pulls, a certificate that is
// not trusted must not be worked around in silence.
var unreached = []string{
	"no such host", "server misbehaving", "Temporary failure in name resolution", "connection refused", "connection reset",
	"no route to host", "network is unreachable", "network is down", "i/o timeout", "TLS handshake timeout", "Client.Timeout exceeded",
	"context deadline exceeded", "proxyconnect", "unexpected EOF",
}

// Pull fetches ref. A registry that has not begun to answer within firstAnswer is
// given up; once it answers, only ctx bounds the transfer. The error is ErrNoAnswer or
// ErrRefused, with the engine's last words, or neither when the engine could not be run.
func (e Engine) Pull(ctx context.Context, ref string, firstAnswer time.Duration) error {
	pull, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(firstAnswer, func() { cancel(fmt.Errorf("%w within %s", ErrNoAnswer, firstAnswer)) })
	defer timer.Stop()
	answered := &watcher{words: []string{"Pulling from", "Getting image source", "Copying blob", "Copying config"}, found: func() { timer.Stop() }}
	err := e.Runner.Run(pull, command.Cmd{Args: []string{e.Name, "pull", ref}, Stdout: answered, Stderr: answered})
	var failed *command.Error
	if pull.Err() != nil || !errors.As(err, &failed) || failed.ExitCode <= 0 {
		return err
	}
	said := strings.TrimSpace(failed.Stderr)
	said = said[strings.LastIndex(said, "\n")+1:]
	for _, words := range unreached {
		if strings.Contains(said, words) {
			return fmt.Errorf("%w: %s", ErrNoAnswer, said)
		}
	}
	return fmt.Errorf("%s: %w: %s", ref, ErrRefused, said)
}

// Tag gives an image of the store a further reference.
func (e Engine) Tag(ctx context.Context, ref, as string) error {
	return e.Runner.Run(ctx, command.Cmd{Args: []string{e.Name, "tag", ref, as}})
}

// Save writes the images as one archive to w, for the platforms that the store has of them.
func (e Engine) Save(ctx context.Context, w io.Writer, refs ...string) error {
	args := []string{e.Name, "save"}
	if e.Name == "podman" {
		args = append(args, "--format", "docker-archive")
		if len(refs) > 1 {
			args = append(args, "--multi-image-archive")
		}
	}
	return e.Runner.Run(ctx, command.Cmd{Args: append(args, refs...), Stdout: w})
}

// Images returns the references in the store that carry the label key.
func (e Engine) Images(ctx context.Context, label string) ([]string, error) {
	out, err := command.Output(ctx, e.Runner, e.Name, "images", "--filter", "label="+label, "--format", "{{.Repository}}:{{.Tag}}")
	return strings.Fields(out), err
}

// Remove removes references; an image that another reference names stays.
func (e Engine) Remove(ctx context.Context, refs ...string) error {
	if len(refs) == 0 {
		return nil
	}
	return e.Runner.Run(ctx, command.Cmd{Args: append([]string{e.Name, "rmi"}, refs...)})
}

// unloaded is how long an image may lie in the store before its checkout loads it: the node
// image of that run may have to be compiled first. Every checkout of a machine shares the
// store, and one that is busy must not take away what another has just built.
const unloaded = 2 * time.Hour

// Prune removes the references of a repository but for the newest keep, those in except and
// those of the last two hours, and returns what it removed. An image that a container uses
// stays.
func (e Engine) Prune(ctx context.Context, repository string, keep int, except ...string) (removed []string, err error) {
	out, err := command.Output(ctx, e.Runner, e.Name, "images", "--filter", "reference="+repository, "--format", "{{.CreatedAt}}\t{{.Repository}}:{{.Tag}}")
	if err != nil {
		return nil, err
	}
	type image struct {
		created time.Time
		ref     string
	}
	var images []image
	for line := range strings.Lines(out) {
		created, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
		// podman's filter takes a part of a name as well.
		if !strings.HasPrefix(ref, repository+":") || strings.HasSuffix(ref, ":<none>") {
			continue
		}
		at, err := time.Parse("2006-01-02 15:04:05 -0700 MST", created)
		if err != nil {
			return nil, fmt.Errorf("%s: its age: %w", ref, err)
		}
		images = append(images, image{at, ref})
	}
	slices.SortFunc(images, func(a, b image) int { return b.created.Compare(a.created) })
	for _, old := range images[min(keep, len(images)):] {
		ref := old.ref
		if slices.Contains(except, ref) || time.Since(old.created) < unloaded {
			continue
		}
		switch err := e.Remove(ctx, ref); {
		case err == nil:
			removed = append(removed, ref)
		case ctx.Err() != nil:
			return removed, err
		case !inUse(err):
			return removed, err
		}
	}
	return removed, nil
}

// inUse tells whether an engine refused to remove an image for the sake of a container.
func inUse(err error) bool {
	var failed *command.Error
	return errors.As(err, &failed) && (strings.Contains(failed.Stderr, "in use") || strings.Contains(failed.Stderr, "is using"))
}

// PruneStages removes what builds have left of their first stages: images that no reference
// names, with the label key=value, and older than two hours: a build may still be at work.
func (e Engine) PruneStages(ctx context.Context, label string) error {
	return e.Runner.Run(ctx, command.Cmd{Args: []string{e.Name, "image", "prune", "--force", "--filter", "label=" + label, "--filter", "until=" + unloaded.String()}})
}

// RunPrivileged runs a program in a privileged container that is removed when it
// ends, with a fresh volume on each path of volumes and read-only mounts
// host:container. What it writes to standard output goes to stdout.
func (e Engine) RunPrivileged(ctx context.Context, ref string, volumes, mounts []string, stdout io.Writer, entrypoint string, args ...string) error {
	argv := []string{e.Name, "run", "--rm", "--privileged", "--network", "none", "--entrypoint", entrypoint}
	for _, volume := range volumes {
		argv = append(argv, "--volume", volume)
	}
	for _, mount := range mounts {
		argv = append(argv, "--volume", mount+":ro")
	}
	return e.Runner.Run(ctx, command.Cmd{Args: append(append(argv, ref), args...), Stdout: stdout})
}

// watcher looks for words in what passes by.
type watcher struct {
	words []string
	found func()

	mu   sync.Mutex
	seen bytes.Buffer
	done bool
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return len(p), nil
	}
	w.seen.Write(p)
	for _, word := range w.words {
		if bytes.Contains(w.seen.Bytes(), []byte(word)) {
			w.done = true
			w.seen.Reset()
			w.found()
			break
		}
	}
	return len(p), nil
}
