package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// engines are those that may be chosen, in order of preference.
func engines(wanted string) []string {
	if wanted != "" {
		return []string{wanted}
	}
	return []string{"podman", "docker"}
}

// needsLinux is the one line for who runs this elsewhere: images would hold programs
// of another system, and what is asked of the kernel would be asked of another one.
func needsLinux(os string) error {
	if os == "linux" {
		return nil
	}
	return fmt.Errorf("%s/%s: runs need Linux; use a virtual machine with it", os, runtime.GOARCH)
}

// Choose returns the engine to use: the wanted one, else the first of podman and
// docker that passes ProbeEngine. That one which is installed does not is told by
// Say. The error has a line for each that was tried.
func Choose(ctx context.Context, opts Options) (string, error) {
	opts = opts.withDefaults()
	if err := needsLinux(opts.machine.os); err != nil {
		return "", err
	}
	var tried []string
	for _, engine := range engines(opts.Engine) {
		err := ProbeEngine(ctx, opts, engine)
		if err == nil {
			for _, problem := range tried {
				if !strings.HasSuffix(problem, notInstalled) {
					opts.Say("%s; %s is used instead", problem, engine)
				}
			}
			return engine, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return "", cause
		}
		tried = append(tried, err.Error())
	}
	return "", fmt.Errorf("no container engine works here; run: go tool mage setup\n  %s", strings.Join(tried, "\n  "))
}

const notInstalled = "not installed"

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
		return "", fmt.Errorf("%s: %s", engine, notInstalled)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", engine, brief{err})
	}
	return version, nil
}

// versionTimeout is how long an engine may take to tell its version: a daemon that
// hangs does not answer at all.
const versionTimeout = 15 * time.Second

// chosen is the engine that Choose would return, or empty.
func (i *inspection) chosen() string {
	for _, engine := range engines(i.Engine) {
		if probe, known := i.probes[engine]; known {
			if _, err := probe(); err == nil {
				return engine
			}
		}
	}
	return ""
}

func (i *inspection) podman(context.Context) Check { return i.oneEngine("podman") }
func (i *inspection) docker(context.Context) Check { return i.oneEngine("docker") }

// oneEngine tells of an engine what there is of it. That it does not work is no
// fault while the other does.
func (i *inspection) oneEngine(engine string) Check {
	if !slices.Contains(engines(i.Engine), engine) {
		return Check{}
	}
	check := Check{Name: engine, Level: Advice}
	version, err := i.probes[engine]()
	if err == nil {
		check.OK, check.Found = true, version+", runs privileged containers"
		return check
	}
	check.Found = strings.TrimPrefix(err.Error(), engine+": ")
	if version != "" {
		check.Found = version + "; " + check.Found
	}
	if other := i.chosen(); other != "" {
		check.OK, check.Found = true, check.Found+"; not needed: "+other+" works"
	}
	return check
}

func (i *inspection) engine(context.Context) Check {
	check := Check{Name: "engine", Level: Required}
	if chosen := i.chosen(); chosen != "" {
		check.OK, check.Found = true, chosen
		return check
	}
	check.Found, check.Remedy = "neither podman nor docker can run a privileged container", "run: go tool mage setup"
	if i.Engine != "" {
		check.Found = i.Engine + " cannot run a privileged container, and E2E_ENGINE allows no other"
	}
	if _, err := i.machine.find("nerdctl"); err == nil {
		check.Found += " (nerdctl, which is here, is not supported)"
	}
	return check
}

// slowLookup is what a lookup takes that a node waits for. The answer of a name server that
// works comes within milliseconds.
const slowLookup = time.Second

// nameServer tells whether nodes wait for one each time they start.
func (i *inspection) nameServer(ctx context.Context) Check {
	chosen := i.chosen()
	if chosen == "" {
		return Check{}
	}
	check := Check{Name: "name server", Level: Advice}
	took, err := lookup(ctx, i.Options, chosen)
	if err != nil {
		return unknown(check, err)
	}
	check.OK, check.Found = took < slowLookup, fmt.Sprintf("answers %s's containers after %.3f s", chosen, took.Seconds())
	if !check.OK {
		check.Found = fmt.Sprintf("none answers %s's containers within %.1f s: each start of a node from a public image stands still so long, of one that is built here for 0.5 s", chosen, took.Seconds())
		check.Remedy = fmt.Sprintf("see that the name servers in /etc/resolv.conf answer; if they do and no cluster uses the network, %s network rm kind has it made anew", chosen)
	}
	return check
}
