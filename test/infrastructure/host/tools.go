package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func (i *inspection) goToolchain(ctx context.Context) Check {
	check := Check{Name: "go", Level: Required}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	version, err := command.Output(ctx, i.Runner, "go", "env", "GOVERSION")
	if err != nil {
		check.Found, check.Remedy = brief{err}.Error(), "put the Go toolchain that runs this in PATH"
		return check
	}
	check.OK, check.Found = true, version
	if version != runtime.Version() {
		check.Found += ", while this was compiled by " + runtime.Version()
	}
	return check
}

// compiler is what the race detector needs, which the suites and tests are built with.
func (i *inspection) compiler(ctx context.Context) Check {
	check := Check{Name: "C compiler", Level: Required}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	name, err := command.Output(ctx, i.Runner, "go", "env", "CC")
	if err != nil {
		return unknown(check, brief{err})
	}
	name, _, _ = strings.Cut(name, " ") // its flags
	if _, err := i.machine.find(name); err != nil {
		check.Found, check.Remedy = err.Error()+", and the race detector needs it", "run: go tool mage setup"
		return check
	}
	check.OK, check.Found = true, name
	return check
}

// mage is about a setting that makes it run what it compiled before.
func (i *inspection) mage(context.Context) Check {
	if value := i.machine.getenv("MAGEFILE_HASHFAST"); value != "" && value != "0" && value != "false" {
		return Check{
			Name: "mage", Level: Advice, Found: "MAGEFILE_HASHFAST is set: a mage that is installed does not see changes outside of magefiles/",
			Remedy: "run: unset MAGEFILE_HASHFAST",
		}
	}
	return Check{}
}

func (i *inspection) testServers(context.Context) Check {
	check := Check{Name: "test servers", Level: Advice, OK: true}
	var lacking []string
	for _, program := range []string{"postgres", "redis-server"} {
		_, err := i.machine.find(program)
		if err != nil && program == "postgres" {
			// Debian keeps it out of PATH, one folder a version.
			found, _ := filepath.Glob(filepath.Join(i.machine.root, "usr/lib/postgresql/*/bin/postgres"))
			if len(found) > 0 {
				err = nil
			}
		}
		if err != nil {
			lacking = append(lacking, program)
		}
	}
	switch {
	case len(lacking) == 0:
		check.Found = "postgres and redis-server are installed"
	case i.chosen() != "":
		check.Found = "no " + strings.Join(lacking, ", ") + ": test:integration uses containers"
	default:
		check.OK, check.Found, check.Remedy = false, "no "+strings.Join(lacking, ", "), "test:integration needs them or a container engine; run: go tool mage setup"
	}
	return check
}

// leftovers are what probes and servers of tests have left that were killed. What
// belongs to tests that are running is in the same place.
func (i *inspection) leftovers(ctx context.Context) Check {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, fmt.Errorf("no answer within %s", checkTimeout))
	defer cancel()
	var found, remedies []string
	list := func(what string, names []string, remedy string) {
		if len(names) > 0 {
			found, remedies = append(found, fmt.Sprintf("%d %s", len(names), what)), append(remedies, remedy+" "+strings.Join(names, " "))
		}
	}
	if engine := i.chosen(); engine != "" {
		var containers []string
		for _, label := range append([]string{Label}, i.Labels...) {
			out, err := command.Output(ctx, i.Runner, engine, "ps", "--all", "--quiet", "--filter", "label="+label)
			if err != nil {
				return unknown(Check{Name: "left over"}, brief{err})
			}
			containers = append(containers, strings.Fields(out)...)
		}
		list("containers of tests", containers, engine+" rm --force --volumes")
		images, err := command.Output(ctx, i.Runner, engine, "images", "--quiet", "--filter", "label="+Label)
		if err != nil {
			return unknown(Check{Name: "left over"}, brief{err})
		}
		list("images of probes", strings.Fields(images), engine+" rmi --force")
	}
	for _, prefix := range i.Folders {
		folders, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
		if err != nil {
			return unknown(Check{Name: "left over"}, err)
		}
		list("folders of test servers", folders, "rm -r")
	}
	if len(found) == 0 {
		return Check{}
	}
	return Check{
		Name: "left over", Level: Advice, Found: strings.Join(found, ", "),
		Remedy: "unless tests are running, run: " + strings.Join(remedies, "; "),
	}
}
