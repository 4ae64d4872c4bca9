package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Setup makes this machine able to run a Kind cluster and the integration tests, as
// far as it may: packages by apt as root, podman's drop-in, /lib/modules. It calls
// say with one line for each change, and once if there is nothing to change. It is
// safe to run again. What it may not change is in the error, with the command to run.
func Setup(ctx context.Context, opts Options, say func(format string, args ...any)) error {
	s := &setup{Options: opts.withDefaults()}
	if err := needsLinux(s.machine.os); err != nil {
		return err
	}
	s.say = func(format string, args ...any) {
		s.changes++
		say(format, args...)
	}
	if err := s.releaseServices(); err != nil {
		return err
	}
	if err := s.kernelModules(); err != nil {
		return err
	}
	if err := s.compiler(ctx); err != nil {
		return err
	}
	engine, err := s.engine(ctx)
	if err != nil {
		return err
	}
	if err := s.imageBuilder(ctx, engine); err != nil {
		return err
	}
	if err := s.testServers(ctx); err != nil {
		return err
	}
	if s.changes == 0 {
		say("nothing to do: %s runs privileged containers", engine)
	}
	return nil
}

type setup struct {
	Options
	say     func(format string, args ...any)
	changes int
}

// kernelModules makes the folder that kind mounts into every node: podman refuses to
// mount one that is missing, as it is where the kernel has no modules.
func (s *setup) kernelModules() error {
	dir := filepath.Join(s.machine.root, "lib/modules")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.machine.uid != 0 {
		return errors.New("/lib/modules: missing, and kind mounts it; run: sudo mkdir -p /lib/modules")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s.say("made the empty folder /lib/modules, which kind mounts into every node")
	return nil
}

// engine returns an engine that works, after doing what makes one work.
func (s *setup) engine(ctx context.Context) (string, error) {
	chosen, err := Choose(ctx, s.Options)
	if err == nil || context.Cause(ctx) != nil {
		return chosen, err
	}
	if s.Engine == "docker" {
		return "", fmt.Errorf("%s\nstart its daemon, or let podman be used: unset E2E_ENGINE and run this again", tried(err))
	}
	if s.machine.debian() {
		packages, err := missing(ctx, s.Runner, podmanPackages)
		if err != nil {
			return "", err
		}
		if len(packages) > 0 {
			if err := s.install(ctx, "no container engine works here", packages); err != nil {
				return "", err
			}
			if err := ProbeEngine(ctx, s.Options, "podman"); err == nil {
				return "podman", nil
			}
		}
	} else if _, missing := s.machine.find("podman"); missing != nil {
		return "", fmt.Errorf("%s\n%w", tried(err), s.machine.mayInstall([]string{"podman", "runc"}))
	}
	return "podman", s.podmanDropIn(ctx)
}

// tried is the part of Choose's error that tells what was tried: its advice is to
// run what is running.
func tried(err error) string {
	return strings.Replace(err.Error(), "; run: go tool mage setup", ":", 1)
}

// podmanDropIn writes the drop-in and keeps it only if podman works with it.
func (s *setup) podmanDropIn(ctx context.Context) error {
	failed := ProbeEngine(ctx, s.Options, "podman")
	content, err := dropIn(os.DirFS(s.machine.root))
	if err != nil {
		return err
	}
	if content == "" {
		return fmt.Errorf("%w; setup cannot repair that", failed)
	}
	if s.machine.uid != 0 {
		return fmt.Errorf("%w; repairing that needs root; run: sudo env PATH=\"$PATH\" go tool mage setup", failed)
	}
	changed, err := writeDropIn(s.machine.root, content)
	if err != nil {
		return err
	}
	if !changed {
		return fmt.Errorf("%w; the settings in /%s do not help", failed, dropInFile)
	}
	if err := ProbeEngine(ctx, s.Options, "podman"); err != nil {
		return errors.Join(err, os.Remove(filepath.Join(s.machine.root, dropInFile)))
	}
	s.say("wrote /%s: podman needs it here (%v)", dropInFile, failed)
	return nil
}

// compiler installs a C compiler where there is none: the race detector needs one.
func (s *setup) compiler(ctx context.Context) error {
	i := &inspection{Options: s.Options}
	check := i.compiler(ctx)
	if check.OK || check.Level != Required {
		return nil
	}
	return s.install(ctx, check.Found, compilerPackages)
}

// imageBuilder installs what makes images from packages, where images will be made
// that way.
func (s *setup) imageBuilder(ctx context.Context, engine string) error {
	if _, err := s.machine.find("mmdebstrap"); err == nil {
		return nil
	}
	needed, why, err := s.mustBuild(ctx, engine)
	if err != nil || len(needed) == 0 {
		return err
	}
	return s.install(ctx, fmt.Sprintf("images must be built from packages (%s): %s", why, strings.Join(needed, ", ")), builderPackages)
}

// testServers installs PostgreSQL and Redis for the integration tests, as programs
// only: no server of Debian's is started, now or when the machine boots. Where it
// may not, the tests use containers.
func (s *setup) testServers(ctx context.Context) error {
	if s.machine.mayInstall(nil) != nil {
		return nil
	}
	packages, err := missing(ctx, s.Runner, serverPackages)
	if err != nil || len(packages) == 0 {
		return err
	}
	release, err := s.holdServices()
	if err != nil {
		return err
	}
	err = s.install(ctx, "the integration tests use them; no server is started", packages)
	if _, systemd := os.Stat(filepath.Join(s.machine.root, "run/systemd/system")); err == nil && systemd == nil {
		for _, name := range packages {
			err = errors.Join(err, s.Runner.Run(ctx, command.Cmd{Args: []string{"systemctl", "disable", name + ".service"}}))
		}
	}
	return errors.Join(err, release())
}

// policy is what keeps packages that are being installed from starting services, in
// the file that Debian has for it.
const policy = "#!/bin/sh\n# Made by `go tool mage setup` of kubernaut-e2e while it installs packages.\nexit 101\n"

func (s *setup) policyFile() string { return filepath.Join(s.machine.root, "usr/sbin/policy-rc.d") }

// holdServices makes the file, and returns what takes it away again. One that is there
// is somebody else's, and is left as it is.
func (s *setup) holdServices() (release func() error, err error) {
	file, err := os.OpenFile(s.policyFile(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = file.WriteString(policy)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(s.policyFile()))
	}
	return s.releaseServices, nil
}

// releaseServices takes the file away if it was made here, now or by a setup that was
// killed: with it no package of this machine would ever start a service again.
func (s *setup) releaseServices() error {
	text, err := os.ReadFile(s.policyFile())
	if err != nil || string(text) != policy {
		return nil
	}
	return os.Remove(s.policyFile())
}

// install installs packages, or returns the command to run where it may not.
func (s *setup) install(ctx context.Context, why string, packages []string) error {
	if err := s.machine.mayInstall(packages); err != nil {
		return fmt.Errorf("%s: %w", why, err)
	}
	if err := install(ctx, s.Runner, packages); err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(packages, " "), err)
	}
	s.say("installed %s: %s", strings.Join(packages, " "), why)
	return nil
}
