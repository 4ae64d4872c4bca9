package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// What a run needs: what was measured with one node, rounded up generously. Too
// small a number lets a run begin that fails half-way with another symptom; too
// large a one turns away a machine that would do.
const (
	needFiles     = 4096    // open files of one process: containerd had 120, etcd and the API server 90 each, before any pod of ours
	needProcesses = 2048    // threads: 240 in a node, and a Go build for each core
	needInstances = 40      // inotify instances: 27 in a node, and the pods'
	needWatches   = 8192    // inotify watches: 300 in a node; the user's editors and file managers have thousands
	needMemory    = 3 << 30 // control plane 0.7 GiB, PostgreSQL, Redis, both services, a suite and its compiler
	needStore     = 6 << 30 // images 1 GiB, a copy of them in the node's volume, and the stages of a node image that is built
	needCheckout  = 3 << 30 // root file systems while images are built, and evidence

	needBuildMemory = 6 << 30 // linking Kubernetes beside containerd and etcd
	needBuildCache  = 6 << 30 // Go's build cache with Kubernetes in it
)

// checkTimeout bounds every check but the probes, which have their own.
const checkTimeout = 20 * time.Second

// Inspect looks at everything at once and changes nothing, but for an image that it
// removes again. It takes as long as the slowest check, which the timeouts of
// this package bound, or until ctx ends.
func Inspect(ctx context.Context, opts Options) Report {
	i := newInspection(ctx, opts)
	if err := needsLinux(i.machine.os); err != nil {
		return Report{{Name: "system", Level: Required, Found: err.Error(), Remedy: "run this on Linux"}}
	}
	return inspect(ctx, i.podman, i.docker, i.engine, i.nameServer, i.cgroup, i.limits, i.capabilities, i.inotify, i.modules,
		i.memory, i.storeDisk, i.checkoutDisk, i.cacheDisk, i.goToolchain, i.compiler, i.mage, i.registry, i.images, i.builder, i.testServers, i.leftovers)
}

// Preflight looks, in milliseconds, at what makes the creation of a cluster fail with
// a symptom that names something else: nothing is probed and no program is run.
// Options need no more than the engine that is used, and the checkout.
func Preflight(ctx context.Context, opts Options) Report {
	i := &inspection{Options: opts.withDefaults()}
	return inspect(ctx, i.cgroup, i.limits, i.inotify, i.modules, i.memory, i.usualStore, i.checkoutDisk)
}

func inspect(ctx context.Context, checks ...func(context.Context) Check) Report {
	report := make(Report, len(checks))
	var group sync.WaitGroup
	for at, check := range checks {
		group.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout+checkTimeout, fmt.Errorf("not done after %s", probeTimeout+checkTimeout))
			defer cancel()
			report[at] = check(ctx)
		})
	}
	group.Wait()
	return slices.DeleteFunc(report, func(check Check) bool { return check.Name == "" })
}

// inspection holds what several checks need, each found out once by whoever comes
// first.
type inspection struct {
	Options
	probes map[string]func() (version string, err error)
	absent func() (images []Image, err error)
	build  func() (names []string, why string, err error)
}

func newInspection(ctx context.Context, opts Options) *inspection {
	i := &inspection{Options: opts.withDefaults(), probes: map[string]func() (string, error){}}
	for _, engine := range engines("") {
		i.probes[engine] = sync.OnceValues(func() (string, error) {
			version, err := engineVersion(ctx, i.Runner, engine)
			if err == nil {
				err = ProbeEngine(ctx, i.Options, engine)
			}
			return version, err
		})
	}
	i.absent = sync.OnceValues(func() ([]Image, error) {
		chosen := i.chosen()
		if chosen == "" {
			return i.Images, errors.New("no container engine to ask")
		}
		return i.absentImages(ctx, chosen)
	})
	var once sync.Once
	var names []string
	var why string
	var err error
	i.build = func() ([]string, string, error) {
		once.Do(func() { names, why, err = i.mustBuild(ctx, i.chosen()) })
		return names, why, err
	}
	return i
}

// unknown is a check that could not be made. It is never a reason to fail a run
// that might work.
func unknown(check Check, err error) Check {
	check.OK, check.Level, check.Found = false, Advice, "unknown: "+err.Error()
	return check
}
