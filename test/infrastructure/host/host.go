// Package host tells what this machine has and lacks for running a Kind cluster,
// chooses the container engine by trying, and puts right what it may. Findings are
// data; only Setup changes anything, and it says what.
package host

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Label marks everything that a probe makes in an engine. All of it is removed
// when the probe ends; what a killed one left can be found by it.
const Label = "e2e.kubernaut.ai/probe"

// Image is one third-party image that a run needs.
type Image struct {
	Name  string // as the catalog calls it
	Pull  string // reference to pull
	Built string // reference it has when it was built here
}

// Options are what to look at and what is wanted of it.
type Options struct {
	Runner   command.Runner
	Engine   string   // podman or docker; empty takes the first that works
	Policy   string   // E2E_IMAGES: auto, pull or build; empty means auto
	Images   []Image  // third-party images of the run
	Checkout string   // folder whose disk gets builds and evidence; empty means the current one
	Labels   []string // of containers that tests make and remove, beside Label
	Folders  []string // how the names of folders begin that tests make among the temporary files, and remove

	// Say is told what the user should know of a choice that was made. Nil discards it.
	Say func(format string, args ...any)

	machine machine
}

// machine is the part of the outside world that is not a program. Tests replace it.
type machine struct {
	root   string                                                                            // what stands for /
	os     string                                                                            // GOOS
	uid    int                                                                               // effective user
	getenv func(name string) string                                                          // the environment
	find   func(program string) (string, error)                                              // PATH
	free   func(path string) (uint64, error)                                                 // bytes a user may write below path
	reach  func(ctx context.Context, address string) error                                   // nil when anything answered
	ask    func(ctx context.Context, address string, patience time.Duration) (string, error) // what is sent there
}

func (o Options) withDefaults() Options {
	if o.Policy == "" {
		o.Policy = "auto"
	}
	if o.Checkout == "" {
		o.Checkout = "."
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.machine.os == "" {
		o.machine = machine{
			root: "/", os: runtime.GOOS, uid: os.Geteuid(), getenv: os.Getenv,
			find: command.Find, free: freeBytes, reach: reach, ask: ask,
		}
	}
	return o
}

// freeBytes is what this user may still write to the file system that holds path.
func freeBytes(path string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return uint64(stat.Bavail) * uint64(stat.Bsize), nil
}

// registryAnswer is how long a registry may take to answer at all. A run gives one
// longer; doctor must not keep anybody waiting for a packet that a firewall drops.
const registryAnswer = 5 * time.Second

// reach returns nil when an HTTPS server answers at address, whatever it says: a
// registry answers 401 to a stranger.
func reach(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, registryAnswer, errors.New("no answer within "+registryAnswer.String()))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		var failed *url.Error // its text begins with the method and the address
		if errors.As(err, &failed) {
			return failed.Err
		}
		return err
	}
	return resp.Body.Close()
}

// registries are the servers that the images come from.
func (o Options) registries() []string {
	var hosts []string
	for _, img := range o.Images {
		host, _, found := strings.Cut(img.Pull, "/")
		if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
			host = "docker.io"
		}
		if host == "docker.io" {
			host = "registry-1.docker.io" // the name stands for this server in every engine
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
