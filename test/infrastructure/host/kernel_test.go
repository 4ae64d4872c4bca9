package host

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCgroups(t *testing.T) {
	tests := []struct {
		name, file, want string
		v1               bool
	}{
		{"unified", "sys/fs/cgroup/cgroup.controllers", "v2", false},
		{"hybrid", "sys/fs/cgroup/unified/cgroup.controllers", "hybrid", true},
		{"first version", "sys/fs/cgroup/memory/tasks", "v1", true},
		{"none, as on macOS", "etc/hosts", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{test.file: {}}
			if got := cgroups(root); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := CgroupV1(root); got != test.v1 {
				t.Errorf("CgroupV1: got %v, want %v", got, test.v1)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Run("are the hard ones", func(t *testing.T) {
		got, err := readLimits(fstest.MapFS{"proc/self/limits": {Data: []byte(limitsText)}})
		if err != nil {
			t.Fatal(err)
		}
		if want := (limits{openFiles: 20000, processes: 96365}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("may be unlimited", func(t *testing.T) {
		got, err := readLimits(fstest.MapFS{"proc/self/limits": {Data: []byte(strings.ReplaceAll(limitsText, "96365", "unlimited"))}})
		if err != nil {
			t.Fatal(err)
		}
		if got.processes != unlimited {
			t.Errorf("got %d, want unlimited", got.processes)
		}
	})
	t.Run("are an error when the kernel does not tell them", func(t *testing.T) {
		if _, err := readLimits(fstest.MapFS{"proc/self/limits": {Data: []byte("Max processes 1")}}); err == nil {
			t.Error("got no error")
		}
	})
}

func TestInotifyCountsWhatTheUserHasTaken(t *testing.T) {
	root := fstest.MapFS{
		"proc/sys/fs/inotify/max_user_instances": {Data: []byte("128\n")},
		"proc/sys/fs/inotify/max_user_watches":   {Data: []byte("65536\n")},
		"proc/7/status":                          {Data: []byte("Name:\tx\nUid:\t1000\t0\t0\t0\n")},
		"proc/12/status":                         {Data: []byte("Uid:\t1000\t1000\t1000\t1000\n")},
		"proc/13/status":                         {Data: []byte("Uid:\t0\t0\t0\t0\n")},
		"proc/13/fd/9":                           {Data: []byte("anon_inode:inotify"), Mode: fs.ModeSymlink},
		"proc/7/fd/3":                            {Data: []byte("anon_inode:inotify"), Mode: fs.ModeSymlink},
		"proc/7/fd/4":                            {Data: []byte("/dev/null"), Mode: fs.ModeSymlink},
		"proc/12/fd/9":                           {Data: []byte("anon_inode:inotify"), Mode: fs.ModeSymlink},
	}
	got, err := readInotify(root, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if want := (inotify{instances: 128, usedInstances: 2, watches: 65536}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDropIn(t *testing.T) {
	files := func(caps, cgroup string) fstest.MapFS {
		return fstest.MapFS{
			"proc/self/limits": {Data: []byte(limitsText)},
			"proc/self/status": {Data: []byte("CapEff:\t" + caps + "\n")},
			cgroup:             {},
		}
	}
	const hybrid, unified = "sys/fs/cgroup/unified/cgroup.controllers", "sys/fs/cgroup/cgroup.controllers"
	const ulimits = `default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]`
	tests := []struct {
		name, caps, cgroup string
		want, not          []string
	}{
		{"all three settings", restricted, hybrid, []string{ulimits, `cgroup_manager = "cgroupfs"`, `runtime = "runc"`}, nil},
		{"limits alone", restricted, unified, []string{ulimits}, []string{"runtime"}},
		{"runtime alone", "000001ffffffffff", hybrid, []string{`runtime = "runc"`}, []string{"ulimits"}},
		{"nothing that it could repair", "000001ffffffffff", unified, nil, []string{"="}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := dropIn(files(test.caps, test.cgroup))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %s:\n%s", want, got)
				}
			}
			for _, not := range test.not {
				if strings.Contains(got, not) {
					t.Errorf("has %s:\n%s", not, got)
				}
			}
		})
	}
}
