package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Debian's packages, by what needs them. Recommended ones are never installed, so
// what podman needs for networks and ports of its own stands here.
var (
	podmanPackages  = []string{"podman", "runc", "crun", "uidmap", "netavark", "aardvark-dns", "iptables"}
	builderPackages = []string{"mmdebstrap", "debian-archive-keyring"}
	serverPackages  = []string{"postgresql", "redis-server"}

	compilerPackages = []string{"gcc", "libc6-dev"}
)

// debian tells whether packages come from apt here.
func (m machine) debian() bool {
	_, err := os.Stat(filepath.Join(m.root, "etc/debian_version"))
	if err != nil {
		return false
	}
	_, err = m.find("apt-get")
	return err == nil
}

// mayInstall returns nil where this process may install packages, and otherwise
// what the user is to do.
func (m machine) mayInstall(packages []string) error {
	switch {
	case !m.debian():
		return fmt.Errorf("install with this system's package manager, then run this again: %s (the names are Debian's)", strings.Join(packages, " "))
	case m.uid != 0:
		return fmt.Errorf("only root may install packages; run: sudo apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	return nil
}

// missing returns those packages that dpkg has not fully installed.
func missing(ctx context.Context, runner command.Runner, packages []string) ([]string, error) {
	out, err := command.Output(ctx, runner, append([]string{"dpkg-query", "--show", "--showformat", `${Package} ${db:Status-Status}\n`}, packages...)...)
	var failed *command.Error
	if err != nil && !(errors.As(err, &failed) && failed.ExitCode == 1) { // 1: it has never heard of some
		return nil, err
	}
	installed := strings.Split(out, "\n")
	return slices.DeleteFunc(slices.Clone(packages), func(name string) bool { return slices.Contains(installed, name+" installed") }), nil
}

// quietly has packages ask nothing, and messages be those that are looked for.
var quietly = []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}

// install installs packages. What an interrupted installation left undone is done
// first, and lists that are missing or too old for the mirror are fetched once, each
// when it has proved to be so.
func install(ctx context.Context, runner command.Runner, packages []string) error {
	apt := func(args ...string) error {
		// Another apt may be at work, as on a machine that has just been started.
		return runner.Run(ctx, command.Cmd{
			Args: append([]string{"apt-get", "--yes", "--option", "DPkg::Lock::Timeout=120", "--option", "Dpkg::Use-Pty=0"}, args...),
			Env:  quietly,
		})
	}
	args := append([]string{"install", "--no-install-recommends"}, packages...)
	err := apt(args...)
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	var failed *command.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "dpkg --configure -a") {
		if err := runner.Run(ctx, command.Cmd{Args: []string{"dpkg", "--configure", "-a"}, Env: quietly}); err != nil {
			return err
		}
		if err = apt(args...); err == nil {
			return nil
		}
	}
	// A third party's list that is out of reach is no reason to give up: whether the
	// packages can be had is decided by the next line.
	updated := apt("update")
	if err := apt(args...); err != nil {
		return errors.Join(err, updated)
	}
	return nil
}
