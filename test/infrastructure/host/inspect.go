package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
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
	checks := []func(context.Context) Check{i.podman, i.docker, i.engine, i.cgroup, i.limits, i.capabilities, i.inotify, i.modules,
		i.memory, i.storeDisk, i.checkoutDisk, i.cacheDisk, i.goToolchain, i.versions, i.registry, i.images, i.builder, i.hostPorts, i.testServers}
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
				err = ProbeEngine(ctx, i.Runner, engine)
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
	check.Found, check.Remedy = "neither podman nor docker runs a privileged container", "run: go tool mage setup"
	if i.Engine != "" {
		check.Found = i.Engine + " runs no privileged container, and E2E_ENGINE allows no other"
	}
	return check
}

func (i *inspection) cgroup(context.Context) Check {
	check := Check{Name: "cgroups", Level: Required, OK: true}
	switch version := cgroups(os.DirFS(i.machine.root)); {
	case i.machine.os != "linux":
		return Check{}
	case version == "":
		check.OK, check.Found, check.Remedy = false, "none below /sys/fs/cgroup", "mount them, or run this outside of a container"
	case version == "v2":
		check.Found = version
	default:
		check.Found = version + "; the kubelet will be told to accept it"
	}
	return check
}

func (i *inspection) limits(context.Context) Check {
	check := Check{Name: "limits", Level: Required}
	if i.machine.os != "linux" {
		return Check{}
	}
	l, err := readLimits(os.DirFS(i.machine.root))
	if err != nil {
		return unknown(check, err)
	}
	check.OK = l.openFiles >= needFiles && l.processes >= needProcesses
	check.Found = fmt.Sprintf("%s open files, %s processes", count(l.openFiles), count(l.processes))
	check.Remedy = fmt.Sprintf("raise the hard limits to %d open files and %d processes (limits.conf, or LimitNOFILE= and LimitNPROC= of the service that starts this)", needFiles, needProcesses)
	return check
}

func count(n uint64) string {
	if n == unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// capabilities matter where podman runs containers as root in this very process's
// bounds; a daemon and a rootless podman have their own.
func (i *inspection) capabilities(context.Context) Check {
	check := Check{Name: "capabilities", Level: Advice}
	if i.machine.os != "linux" || i.machine.uid != 0 {
		return Check{}
	}
	caps, err := capabilities(os.DirFS(i.machine.root))
	if err != nil {
		return unknown(check, err)
	}
	var lacking []string
	for _, c := range []struct {
		bit  int
		name string
	}{{capNetAdmin, "CAP_NET_ADMIN"}, {capSysAdmin, "CAP_SYS_ADMIN"}, {capSysResource, "CAP_SYS_RESOURCE"}} {
		if caps&(1<<c.bit) == 0 {
			lacking = append(lacking, c.name)
		}
	}
	switch {
	case len(lacking) == 0:
		check.OK, check.Found = true, "all that containers need"
	case slices.Equal(lacking, []string{"CAP_SYS_RESOURCE"}):
		check.OK, check.Found = true, "all but CAP_SYS_RESOURCE: containers get no higher limits than this process has"
	default:
		check.Found, check.Remedy = "without "+strings.Join(lacking, ", "), "run this in a virtual machine or a privileged container"
	}
	return check
}

func (i *inspection) inotify(context.Context) Check {
	check := Check{Name: "inotify", Level: Required}
	if i.machine.os != "linux" {
		return Check{}
	}
	in, err := readInotify(os.DirFS(i.machine.root))
	if err != nil {
		return unknown(check, err)
	}
	free := in.instances - min(in.usedInstances, in.instances)
	check.OK = free >= needInstances && in.watches >= needWatches
	check.Found = fmt.Sprintf("%d of %d instances free, %d needed; %d watches", free, in.instances, needInstances, in.watches)
	check.Remedy = "run as root: sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288"
	return check
}

func (i *inspection) modules(context.Context) Check {
	if i.machine.os != "linux" {
		return Check{}
	}
	check := Check{Name: "/lib/modules", Level: Required, OK: true, Found: "there"}
	if _, err := os.Stat(filepath.Join(i.machine.root, "lib/modules")); err != nil {
		check.OK, check.Found, check.Remedy = false, "missing, and kind mounts it into every node", "run: go tool mage setup"
	}
	return check
}

func (i *inspection) memory(context.Context) Check {
	if i.machine.os != "linux" {
		return Check{} // the engine's virtual machine has memory of its own
	}
	check := Check{Name: "memory", Level: Required}
	available, err := availableMemory(os.DirFS(i.machine.root))
	if err != nil {
		return unknown(check, err)
	}
	need := uint64(needMemory)
	if names, _, _ := i.build(); len(names) > 0 {
		need = needBuildMemory
	}
	check.OK = available >= need
	check.Found = fmt.Sprintf("%s available, %s needed", gib(available), gib(need))
	check.Remedy = "end other programs, or take a machine with more memory"
	return check
}

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
	if _, err := os.Stat(dir); i.machine.os != "linux" || err != nil {
		return Check{} // in a virtual machine, or not for this user to see
	}
	return i.disk(check, dir, needStore, "remove images that are no longer needed, or move the engine's store to a larger disk")
}

func (i *inspection) checkoutDisk(context.Context) Check {
	return i.disk(Check{Name: "disk of checkout", Level: Required}, i.Checkout, needCheckout, "run: go tool mage clean; or take a larger disk")
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

func (i *inspection) versions(context.Context) Check {
	if i.Kind == "" {
		return Check{}
	}
	return Check{Name: "kind", Level: Advice, OK: true, Found: i.Kind + " with Kubernetes " + i.Kubernetes}
}

func (i *inspection) registry(ctx context.Context) Check {
	if len(i.Images) == 0 || i.Policy == "build" {
		return Check{}
	}
	check := Check{Name: "registry", Level: Advice, OK: true}
	if i.Policy == "pull" {
		check.Level = Required
	}
	if absent, err := i.absent(); err == nil && len(absent) == 0 {
		check.Found = "not needed: every image is there"
		return check
	}
	var reached []string
	for _, host := range i.registries() {
		if err := i.machine.reach(ctx, "https://"+host+"/v2/"); err != nil {
			check.OK, check.Found = false, fmt.Sprintf("%s: %v", host, err)
			check.Remedy = "images will be built from Debian packages and Go modules instead"
			if i.Policy == "pull" {
				check.Remedy = "let a network path to it be opened, or set E2E_IMAGES=auto to build the images here"
			}
			return check
		}
		reached = append(reached, host)
	}
	check.Found = strings.Join(reached, ", ") + " answers"
	return check
}

func (i *inspection) images(context.Context) Check {
	if len(i.Images) == 0 || i.chosen() == "" {
		return Check{}
	}
	check := Check{Name: "images", Level: Advice, OK: true}
	absent, err := i.absent()
	if err != nil {
		return unknown(check, err)
	}
	if len(absent) == 0 {
		check.Found = "all there: " + strings.Join(names(i.Images), ", ")
		return check
	}
	built, why, err := i.build()
	if err != nil {
		return unknown(check, err)
	}
	check.Found = "to be pulled: " + strings.Join(names(absent), ", ")
	if len(built) > 0 {
		check.Found = fmt.Sprintf("to be built (%s): %s; Kubernetes takes 15 min on two cores the first time", why, strings.Join(built, ", "))
	}
	return check
}

func names(images []Image) []string {
	list := make([]string, len(images))
	for i, img := range images {
		list[i] = img.Name
	}
	return list
}

func (i *inspection) builder(context.Context) Check {
	needed, why, err := i.build()
	if err != nil || len(needed) == 0 {
		return Check{}
	}
	check := Check{Name: "mmdebstrap", Level: Required, OK: true, Found: "there"}
	if _, err := i.machine.find("mmdebstrap"); err != nil {
		check.OK, check.Found, check.Remedy = false, "missing, and images must be built ("+why+")", "run: go tool mage setup"
	}
	return check
}

func (i *inspection) hostPorts(ctx context.Context) Check {
	check := Check{Name: "host ports", Level: Required, OK: true, Found: "free ones of 127.0.0.1 are chosen"}
	addresses := i.Ports
	if len(addresses) == 0 {
		addresses = []string{"127.0.0.1:0"}
	} else {
		check.Found = "free: " + strings.Join(addresses, ", ")
	}
	for _, address := range addresses {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", address)
		if err == nil {
			err = listener.Close()
		}
		if err != nil {
			check.OK, check.Found, check.Remedy = false, err.Error(), "end the program that listens there"
			return check
		}
	}
	return check
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
		check.OK, check.Found, check.Remedy = false, "no "+strings.Join(lacking, ", "), "test:integration needs them, or a container engine; run: go tool mage setup"
	}
	return check
}

// unknown is a check that could not be made. It is never a reason to fail a run
// that might work.
func unknown(check Check, err error) Check {
	check.OK, check.Level, check.Found = false, Advice, "unknown: "+err.Error()
	return check
}
