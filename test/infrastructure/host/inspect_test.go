package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func find(t *testing.T, report Report, name string) Check {
	t.Helper()
	at := slices.IndexFunc(report, func(check Check) bool { return check.Name == name })
	if at < 0 {
		t.Fatalf("no check %q in %+v", name, report)
	}
	return report[at]
}

func TestInspect(t *testing.T) {
	image := Image{Name: "postgres", Pull: "docker.io/library/postgres:17", Built: "localhost/e2e/postgres:1"}
	tests := []struct {
		name   string
		files  map[string]string
		change func(*fake, *Options)
		check  string
		ok     bool
		level  Level
		found  string
		remedy string
	}{
		{name: "a working engine", check: "engine", ok: true, level: Required, found: "podman"},
		{name: "an engine that is not needed", check: "docker", ok: true, level: Advice, found: "not needed: podman works"},
		{name: "no engine", change: func(f *fake, _ *Options) { f.podman = func() error { return refuse(noLimits) } },
			check: "engine", level: Required, remedy: "go tool mage setup"},
		{name: "the reason of an engine", change: func(f *fake, _ *Options) { f.podman = func() error { return refuse(noLimits) } },
			check: "podman", level: Advice, found: "4.3.1; running a privileged container: crun: setrlimit"},
		{name: "a name server that answers", check: "name server", ok: true, level: Advice, found: "answers podman's containers after 0.003 s"},
		{name: "a name server that does not answer", change: func(f *fake, _ *Options) { f.lookup = "5.0003s" },
			check: "name server", level: Advice, found: "none answers podman's containers within 5.0 s", remedy: "podman network rm kind"},
		{name: "hybrid cgroups", check: "cgroups", ok: true, level: Required, found: "hybrid"},
		{name: "limits", check: "limits", ok: true, level: Required, found: "20000 open files, 96365 processes"},
		{name: "low limits", files: map[string]string{"proc/self/limits": strings.ReplaceAll(limitsText, "20000", "1024")},
			check: "limits", level: Required, found: "1024 open files", remedy: "limits.conf"},
		{name: "restricted capabilities", check: "capabilities", ok: true, level: Advice, found: "all but CAP_SYS_RESOURCE"},
		{name: "no capabilities", files: map[string]string{"proc/self/status": "CapEff: 0000000000000000\n"},
			check: "capabilities", level: Advice, found: "CAP_SYS_ADMIN", remedy: "virtual machine"},
		{name: "inotify", check: "inotify", ok: true, level: Required, found: "128 of 128 instances free"},
		{name: "few inotify instances", files: map[string]string{"proc/sys/fs/inotify/max_user_instances": "16\n"},
			check: "inotify", level: Required, remedy: "sysctl fs.inotify.max_user_instances=512"},
		{name: "little memory", files: map[string]string{"proc/meminfo": "MemAvailable: 1048576 kB\n"},
			check: "memory", level: Required, found: "1.0 GiB available, 3.0 GiB needed"},
		{name: "more memory to build", change: func(f *fake, _ *Options) { f.offline = true },
			check: "memory", ok: true, level: Required, found: "16.0 GiB available, 6.0 GiB needed"},
		{name: "full disk", change: func(_ *fake, o *Options) {
			o.machine.free = func(string) (uint64, error) { return 1 << 30, nil }
		}, check: "disk of images", level: Required, found: "1.0 GiB free", remedy: "remove images"},
		{name: "a disk that cannot be measured", change: func(_ *fake, o *Options) {
			o.machine.free = func(string) (uint64, error) { return 0, errors.New("stale handle") }
		}, check: "disk of checkout", level: Advice, found: "unknown: stale handle"},
		{name: "registry out of reach", change: func(f *fake, _ *Options) { f.offline = true },
			check: "registry", level: Advice, found: "registry-1.docker.io: no such host", remedy: "will be built"},
		{name: "registry out of reach and no other way", change: func(f *fake, o *Options) { f.offline, o.Policy = true, "pull" },
			check: "registry", level: Required, remedy: "E2E_IMAGES=auto"},
		{name: "registry not needed", change: func(f *fake, o *Options) { f.offline, f.images = true, "docker.io/library/postgres:17" },
			check: "registry", ok: true, level: Advice, found: "every image is there"},
		{name: "images by docker's short name", change: func(f *fake, _ *Options) { f.images = "postgres:17" },
			check: "images", ok: true, level: Advice, found: "all there: postgres"},
		{name: "images to be pulled", check: "images", ok: true, level: Advice, found: "to be pulled: postgres"},
		{name: "images to be built", change: func(f *fake, _ *Options) { f.offline = true },
			check: "images", ok: true, level: Advice, found: "to be built (registry-1.docker.io: no such host): postgres"},
		{name: "nothing to build them with", change: func(f *fake, _ *Options) { f.offline, f.programs["mmdebstrap"] = true, false },
			check: "mmdebstrap", level: Required, remedy: "go tool mage setup"},
		{name: "no test servers", check: "test servers", ok: true, level: Advice, found: "uses containers"},
		{name: "Debian's PostgreSQL outside of PATH", files: map[string]string{"usr/lib/postgresql/15/bin/postgres": ""},
			change: func(f *fake, _ *Options) { f.programs["redis-server"] = true },
			check:  "test servers", ok: true, level: Advice, found: "are installed"},
		{name: "go", check: "go", ok: true, level: Required, found: "go1.26.0"},
		{name: "a C compiler", check: "C compiler", ok: true, level: Required, found: "gcc"},
		{name: "no C compiler", change: func(f *fake, _ *Options) { f.programs["gcc"] = false },
			check: "C compiler", level: Required, found: "gcc: not found in PATH, and the race detector needs it", remedy: "go tool mage setup"},
		{name: "a mage that does not see changes", change: func(f *fake, _ *Options) { f.env = map[string]string{"MAGEFILE_HASHFAST": "1"} },
			check: "mage", level: Advice, found: "MAGEFILE_HASHFAST is set", remedy: "unset MAGEFILE_HASHFAST"},
		{name: "containers of tests that were killed", change: func(f *fake, o *Options) {
			o.Labels = []string{"servers"}
			f.left = map[string]string{"servers": "4711\n4712", Label: "815"}
		}, check: "left over", level: Advice, found: "3 containers of tests", remedy: "podman rm --force --volumes 815 4711 4712"},
		{name: "images of probes that were killed", change: func(f *fake, _ *Options) { f.left = map[string]string{"images": "12ab"} },
			check: "left over", level: Advice, found: "1 images of probes", remedy: "podman rmi --force 12ab"},
		{name: "folders of tests that were killed", change: func(f *fake, o *Options) {
			o.Folders = []string{"e2e-servers-"}
			if err := os.Mkdir(filepath.Join(f.temp, "e2e-servers-1"), 0o700); err != nil {
				f.Fatal(err)
			}
		}, check: "left over", level: Advice, found: "1 folders of test servers", remedy: "e2e-servers-1"},
		{name: "another system", change: func(_ *fake, o *Options) { o.machine.os = "darwin" },
			check: "system", level: Required, found: "runs need Linux", remedy: "run this on Linux"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := debianFiles()
			for name, content := range test.files {
				files[name] = content
			}
			f := newFake(t, files)
			opts := f.options()
			opts.Images = []Image{image}
			if test.change != nil {
				test.change(f, &opts)
			}
			got := find(t, Inspect(t.Context(), opts), test.check)
			if got.OK != test.ok || got.Level != test.level {
				t.Errorf("got ok %v, %s; want %v, %s: %+v", got.OK, got.Level, test.ok, test.level, got)
			}
			if !strings.Contains(got.Found, test.found) {
				t.Errorf("found %q, want %q", got.Found, test.found)
			}
			if !got.OK && !strings.Contains(got.Remedy, test.remedy) {
				t.Errorf("remedy %q, want %q", got.Remedy, test.remedy)
			}
		})
	}
}

func TestPreflightNamesWhatACreationFailsOn(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string
		change func(*fake, *Options)
		want   string // of the error; empty for none
	}{
		{name: "a machine that has all"},
		{name: "few inotify instances", files: map[string]string{"proc/sys/fs/inotify/max_user_instances": "8\n"},
			want: "inotify: 8 of 8 instances free, 40 needed; 65536 watches; run as root: sysctl fs.inotify.max_user_instances=512"},
		{name: "instances that are taken", files: map[string]string{"proc/7/status": "Uid:\t0\t0\t0\t0\n"},
			change: func(f *fake, _ *Options) { f.inotify("7", 100) }, want: "inotify: 28 of 128 instances free"},
		{name: "instances that another user has taken", files: map[string]string{"proc/7/status": "Uid:\t1000\t1000\t1000\t1000\n"},
			change: func(f *fake, _ *Options) { f.inotify("7", 100) }},
		{name: "a small disk", files: map[string]string{"var/lib/docker/keep": ""}, change: func(f *fake, o *Options) {
			o.machine.free = func(path string) (uint64, error) {
				if path == filepath.Join(f.root, "var/lib/docker") {
					return 1 << 20, nil
				}
				return 100 << 30, nil
			}
		}, want: "disk of images: 0.0 GiB free, 6.0 GiB needed; remove images"},
		{name: "little memory", files: map[string]string{"proc/meminfo": "MemAvailable: 1048576 kB\n"}, want: "memory: 1.0 GiB available, 3.0 GiB needed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := debianFiles()
			for name, content := range test.files {
				files[name] = content
			}
			f := newFake(t, files)
			opts := f.options()
			opts.Engine = "docker"
			if test.change != nil {
				test.change(f, &opts)
			}
			err := Preflight(t.Context(), opts).Err()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := f.recorder.Calls(); len(got) != 0 {
				t.Errorf("ran %q", got)
			}
		})
	}
}

// inotify gives a process that many instances.
func (f *fake) inotify(pid string, n int) {
	f.Helper()
	dir := filepath.Join(f.root, "proc", pid, "fd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	for i := range n {
		if err := os.Symlink("anon_inode:inotify", filepath.Join(dir, strconv.Itoa(i))); err != nil {
			f.Fatal(err)
		}
	}
}

func TestInspectProbesEachEngineOnce(t *testing.T) {
	f := newFake(t, debianFiles())
	Inspect(t.Context(), f.options())
	got := slices.DeleteFunc(f.ran("podman run"), func(line string) bool { return strings.HasSuffix(line, " host.docker.internal") })
	if len(got) != 1 {
		t.Errorf("ran %q", got)
	}
}

func TestInspectLooksAtTheWantedEngineAlone(t *testing.T) {
	f := newFake(t, debianFiles())
	f.programs["docker"] = true
	opts := f.options()
	opts.Engine = "docker"
	report := Inspect(t.Context(), opts)
	if got := find(t, report, "engine"); got.Found != "docker" {
		t.Errorf("got %+v", got)
	}
	if got := f.ran("podman"); len(got) != 0 {
		t.Errorf("ran %q", got)
	}
}

func TestReport(t *testing.T) {
	report := Report{
		{Name: "engine", OK: true, Level: Required, Found: "podman"},
		{Name: "registry", Level: Advice, Found: "no answer", Remedy: "images will be built"},
		{Name: "memory", Level: Required, Found: "1.0 GiB", Remedy: "end other programs"},
	}
	tests := []struct {
		name string
		tty  bool
		want string
	}{
		{"plain", false, "ok     engine    podman\nadvice registry  no answer\n                 images will be built\nFAIL   memory    1.0 GiB\n                 end other programs\n"},
		{"terminal", true, "\x1b[32m✓\x1b[0m engine    podman\n\x1b[33m✗\x1b[0m registry  no answer\n            images will be built\n\x1b[31m✗\x1b[0m memory    1.0 GiB\n            end other programs\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			if err := report.Table(&b, test.tty); err != nil {
				t.Fatal(err)
			}
			if b.String() != test.want {
				t.Errorf("got\n%q\nwant\n%q", b.String(), test.want)
			}
		})
	}
	t.Run("fails for what is required, not for advice", func(t *testing.T) {
		err := report.Err()
		if err == nil || err.Error() != "memory: 1.0 GiB; end other programs" {
			t.Errorf("got %v", err)
		}
		if err := report[:2].Err(); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
}
