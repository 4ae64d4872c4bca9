package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What the kernel says of this machine and process, read below root, and what a run
// needs of it.

// cgroups is the hierarchy that is mounted: v1, hybrid (v1 with v2 beside it), v2,
// or empty where there is none, as on macOS.
func cgroups(root fs.FS) string {
	for _, probe := range []struct{ file, version string }{
		{"sys/fs/cgroup/cgroup.controllers", "v2"},
		{"sys/fs/cgroup/unified/cgroup.controllers", "hybrid"},
		{"sys/fs/cgroup/memory", "v1"},
	} {
		if _, err := fs.Stat(root, probe.file); err == nil {
			return probe.version
		}
	}
	return ""
}

// CgroupV1 tells whether containers on this host see cgroup v1, by itself or in
// hybrid mode, which the kubelet refuses unless it is told otherwise.
func CgroupV1(root fs.FS) bool {
	version := cgroups(root)
	return version == "v1" || version == "hybrid"
}

// unlimited is a limit that does not limit.
const unlimited = math.MaxUint64

// limits are the hard limits of this process. No container may have higher ones
// where CAP_SYS_RESOURCE is missing.
type limits struct {
	openFiles uint64
	processes uint64
}

func readLimits(root fs.FS) (limits, error) {
	data, err := fs.ReadFile(root, "proc/self/limits")
	if err != nil {
		return limits{}, err
	}
	var l limits
	for _, row := range []struct {
		name string
		to   *uint64
	}{{"Max open files", &l.openFiles}, {"Max processes", &l.processes}} {
		_, rest, found := bytes.Cut(data, []byte(row.name))
		values := strings.Fields(string(rest)) // soft, hard
		if !found || len(values) < 2 {
			return limits{}, fmt.Errorf("proc/self/limits: no hard limit of %q", row.name)
		}
		if values[1] == "unlimited" {
			*row.to = unlimited
		} else if *row.to, err = strconv.ParseUint(values[1], 10, 64); err != nil {
			return limits{}, fmt.Errorf("proc/self/limits: %s: %w", row.name, err)
		}
	}
	return l, nil
}

// Bits of a capability set, from capability.h.
const (
	capNetAdmin    = 12
	capSysAdmin    = 21
	capSysResource = 24
)

// capabilities is the effective set of this process.
func capabilities(root fs.FS) (uint64, error) {
	text, err := field(root, "proc/self/status", "CapEff:")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 16, 64)
}

// availableMemory is what programs can get without swapping, in bytes.
func availableMemory(root fs.FS) (uint64, error) {
	text, err := field(root, "proc/meminfo", "MemAvailable:")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseUint(text, 10, 64)
	return kib * 1024, err
}

// field is the first word after a line's key.
func field(root fs.FS, file, key string) (string, error) {
	data, err := fs.ReadFile(root, file)
	if err != nil {
		return "", err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0], nil
			}
		}
	}
	return "", fmt.Errorf("%s: no %s", file, strings.TrimSuffix(key, ":"))
}

// inotify is a limit of a user and how much of it that user's processes have taken.
type inotify struct {
	instances, usedInstances uint64
	watches                  uint64
}

// readInotify counts the instances of a user: the limit is each user's own.
func readInotify(root fs.FS, uid int) (inotify, error) {
	var i inotify
	for _, row := range []struct {
		file string
		to   *uint64
	}{{"max_user_instances", &i.instances}, {"max_user_watches", &i.watches}} {
		data, err := fs.ReadFile(root, "proc/sys/fs/inotify/"+row.file)
		if err != nil {
			return inotify{}, err
		}
		if *row.to, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err != nil {
			return inotify{}, fmt.Errorf("%s: %w", row.file, err)
		}
	}
	// Processes come and go while this reads: what is gone is not counted.
	processes, _ := fs.Glob(root, "proc/[0-9]*")
	for _, process := range processes {
		if owner, err := field(root, process+"/status", "Uid:"); err != nil || owner != strconv.Itoa(uid) {
			continue
		}
		descriptors, _ := fs.ReadDir(root, process+"/fd")
		for _, descriptor := range descriptors {
			if to, err := fs.ReadLink(root, path.Join(process, "fd", descriptor.Name())); err == nil && to == "anon_inode:inotify" {
				i.usedInstances++
			}
		}
	}
	return i, nil
}

func (i *inspection) cgroup(context.Context) Check {
	check := Check{Name: "cgroups", Level: Required, OK: true}
	switch version := cgroups(os.DirFS(i.machine.root)); version {
	case "":
		check.OK, check.Found, check.Remedy = false, "none below /sys/fs/cgroup", "mount them, or run this outside of a container"
	case "v2":
		check.Found = version
	default:
		check.Found = version + "; the kubelet will be told to accept it"
	}
	return check
}

func (i *inspection) limits(context.Context) Check {
	check := Check{Name: "limits", Level: Required}
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
	if i.machine.uid != 0 {
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
	in, err := readInotify(os.DirFS(i.machine.root), i.machine.uid)
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
	check := Check{Name: "/lib/modules", Level: Required, OK: true, Found: "there"}
	if _, err := os.Stat(filepath.Join(i.machine.root, "lib/modules")); err != nil {
		check.OK, check.Found, check.Remedy = false, "missing, and kind mounts it into every node", "run: go tool mage setup"
	}
	return check
}

func (i *inspection) memory(context.Context) Check {
	check := Check{Name: "memory", Level: Required}
	available, err := availableMemory(os.DirFS(i.machine.root))
	if err != nil {
		return unknown(check, err)
	}
	need := uint64(needMemory)
	if i.build != nil {
		if names, _, _ := i.build(); len(names) > 0 {
			need = needBuildMemory
		}
	}
	check.OK = available >= need
	check.Found = fmt.Sprintf("%s available, %s needed", gib(available), gib(need))
	check.Remedy = "close other programs, or use a machine with more memory"
	return check
}
