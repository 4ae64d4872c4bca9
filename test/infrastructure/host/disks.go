package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func (i *inspection) storeDisk(ctx context.Context) Check {
	check := Check{Name: "disk of images", Level: Required}
	engine := i.chosen()
	if engine == "" {
		return Check{}
	}
	format := "{{.Store.GraphRoot}}"
	if engine == "docker" {
		format = "{{.DockerRootDir}}"
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	dir, err := command.Output(ctx, i.Runner, engine, "info", "--format", format)
	if err != nil {
		return unknown(check, brief{err})
	}
	if _, err := os.Stat(dir); err != nil {
		return Check{} // not for this user to see
	}
	return i.disk(check, dir, needStore, storeRemedy)
}

const storeRemedy = "remove images that are no longer needed, or move the engine's store to a larger disk"

// usualStore is storeDisk without asking the engine, which takes longer than all else
// here: the folder that its store has unless it was configured otherwise.
func (i *inspection) usualStore(context.Context) Check {
	dir := filepath.Join(i.machine.root, map[string]string{"podman": "var/lib/containers/storage", "docker": "var/lib/docker"}[i.Engine])
	if _, err := os.Stat(dir); err != nil || i.Engine == "" {
		return Check{}
	}
	return i.disk(Check{Name: "disk of images", Level: Required}, dir, needStore, storeRemedy)
}

func (i *inspection) checkoutDisk(context.Context) Check {
	return i.disk(Check{Name: "disk of checkout", Level: Required}, i.Checkout, needCheckout, "run: go tool mage clean; or use a larger disk")
}

func (i *inspection) cacheDisk(ctx context.Context) Check {
	if names, _, _ := i.build(); len(names) == 0 {
		return Check{} // nothing large will be compiled
	}
	check := Check{Name: "disk of Go cache", Level: Advice}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	dir, err := command.Output(ctx, i.Runner, "go", "env", "GOCACHE")
	if err != nil {
		return unknown(check, brief{err})
	}
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Dir(dir)
	}
	return i.disk(check, dir, needBuildCache, "compiling Kubernetes fills Go's build cache; set GOCACHE to a folder of a larger disk")
}

func (i *inspection) disk(check Check, dir string, need uint64, remedy string) Check {
	free, err := i.machine.free(dir)
	if err != nil {
		return unknown(check, err)
	}
	check.OK, check.Found, check.Remedy = free >= need, fmt.Sprintf("%s free, %s needed", gib(free), gib(need)), remedy
	return check
}

func gib(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }
