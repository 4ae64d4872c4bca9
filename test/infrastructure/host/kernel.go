package host

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// What the kernel says of this machine and process, read below root.

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

// inotify is a limit of a user and how much of it the processes that this user may
// look at have taken.
type inotify struct {
	instances, usedInstances uint64
	watches                  uint64
}

func readInotify(root fs.FS) (inotify, error) {
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
	processes, _ := fs.Glob(root, "proc/[0-9]*/fd")
	for _, dir := range processes {
		descriptors, _ := fs.ReadDir(root, dir)
		for _, descriptor := range descriptors {
			if to, err := fs.ReadLink(root, path.Join(dir, descriptor.Name())); err == nil && to == "anon_inode:inotify" {
				i.usedInstances++
			}
		}
	}
	return i, nil
}
