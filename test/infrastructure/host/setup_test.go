package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// setUp runs Setup and returns what it said.
func (f *fake) setUp(opts Options) ([]string, error) {
	var said []string
	err := Setup(f.Context(), opts, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	return said, err
}

// withServers is a machine on which the test servers are installed.
func withServers(f *fake) *fake {
	f.installed["postgresql"], f.installed["redis-server"] = true, true
	return f
}

func TestSetupChangesNothingWhereAllIsWell(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	said, err := f.setUp(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said[0] != "nothing to do: podman runs privileged containers" {
		t.Errorf("said %q", said)
	}
	if got := f.ran("apt-get"); len(got) != 0 {
		t.Errorf("ran %q", got)
	}
}

func TestSetupWritesTheDropInOnceWherePodmanNeedsIt(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	for _, name := range podmanPackages {
		f.installed[name] = true
	}
	f.podman = f.needsDropIn
	said, err := f.setUp(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], dropInFile) || !strings.Contains(said[0], "setrlimit") {
		t.Errorf("said %q, want one line with the file and the reason", said)
	}
	if got := f.read(dropInFile); !strings.HasPrefix(got, dropInMark) || !strings.Contains(got, "nofile=20000:20000") {
		t.Errorf("got\n%s", got)
	}
	if said, err = f.setUp(f.options()); err != nil || len(said) != 1 || !strings.HasPrefix(said[0], "nothing to do") {
		t.Errorf("second time: said %q, %v", said, err)
	}
}

func TestSetupTakesAUselessDropInAway(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	f.podman = func() error { return refuse("Error: no space left on device\n") }
	_, err := f.setUp(f.options())
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.root, dropInFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the drop-in is there: %v", err)
	}
}

func TestSetupLeavesAForeignDropInAlone(t *testing.T) {
	files := debianFiles()
	files[dropInFile] = "# mine\n"
	f := withServers(newFake(t, files))
	f.podman = func() error { return refuse(noLimits) }
	_, err := f.setUp(f.options())
	if err == nil || !strings.Contains(err.Error(), "was not written by this project") || !strings.Contains(err.Error(), "nofile=20000:20000") {
		t.Errorf("got %v, want the settings to add by hand", err)
	}
	if got := f.read(dropInFile); got != "# mine\n" {
		t.Errorf("got %q", got)
	}
}

func TestSetupInstallsPodman(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	f.programs["podman"] = false
	said, err := f.setUp(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "installed podman runc crun uidmap netavark aardvark-dns iptables: ") {
		t.Errorf("said %q", said)
	}
}

func TestSetupInstallsTheImageBuilderWhereImagesMustBeBuilt(t *testing.T) {
	tests := []struct {
		name    string
		offline bool
		policy  string
		images  string
		want    bool
	}{
		{"registry answers", false, "auto", "", false},
		{"registry does not answer", true, "auto", "", true},
		{"registry does not answer, and every image is there", true, "auto", "localhost/e2e/postgres:1", false},
		{"registry answers, and the policy is to build", false, "build", "", true},
		{"registry does not answer, and the policy is to pull", true, "pull", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := withServers(newFake(t, debianFiles()))
			f.programs["mmdebstrap"] = false
			f.offline, f.images = test.offline, test.images
			opts := f.options()
			opts.Policy = test.policy
			opts.Images = []Image{{Name: "postgres", Pull: "docker.io/library/postgres:17", Built: "localhost/e2e/postgres:1"}}
			said, err := f.setUp(opts)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Contains(strings.Join(said, "\n"), "installed mmdebstrap debian-archive-keyring: ")
			if got != test.want {
				t.Errorf("said %q", said)
			}
		})
	}
}

func TestSetupFetchesPackageListsOnlyWhenAnInstallFails(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	f.programs["podman"] = false
	updated := false
	f.run = func(args []string) error {
		line := strings.Join(args, " ")
		switch {
		case strings.Contains(line, " update"):
			updated = true
		case strings.Contains(line, " install ") && !updated:
			return &command.Error{Args: args, ExitCode: 100, Stderr: "E: Unable to locate package podman\n"}
		}
		return nil
	}
	if _, err := f.setUp(f.options()); err != nil {
		t.Fatal(err)
	}
	got := f.ran("apt-get")
	if len(got) != 3 || !strings.HasSuffix(got[1], " update") {
		t.Errorf("ran %q, want install, update, install", got)
	}
}

func TestSetupFinishesWhatAnInterruptedOneLeftInDpkg(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	f.programs["podman"] = false
	configured := false
	f.run = func(args []string) error {
		line := strings.Join(args, " ")
		switch {
		case line == "dpkg --configure -a":
			configured = true
		case strings.Contains(line, " install ") && !configured:
			return &command.Error{Args: args, ExitCode: 100, Stderr: "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n"}
		}
		return nil
	}
	if _, err := f.setUp(f.options()); err != nil {
		t.Fatal(err)
	}
	if got := f.ran("apt-get"); len(got) != 2 || strings.Contains(got[1], " update") {
		t.Errorf("ran %q, want install twice", got)
	}
}

func TestSetupInstallsACompiler(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	f.programs["gcc"] = false
	said, err := f.setUp(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said[0] != "installed gcc libc6-dev: gcc: not found in PATH, and the race detector needs it" {
		t.Errorf("said %q", said)
	}
}

func TestSetupLetsServicesStartAgainAfterOneThatWasKilled(t *testing.T) {
	for _, test := range []struct {
		name, text string
		there      bool
	}{{"its own file", policy, false}, {"somebody else's file", "#!/bin/sh\nexit 101\n", true}} {
		t.Run(test.name, func(t *testing.T) {
			files := debianFiles()
			files["usr/sbin/policy-rc.d"] = test.text
			f := withServers(newFake(t, files))
			if _, err := f.setUp(f.options()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(f.root, "usr/sbin/policy-rc.d")); (err == nil) != test.there {
				t.Errorf("got %v, want it there: %v", err, test.there)
			}
		})
	}
}

func TestSetupStartsNoServerOfAPackage(t *testing.T) {
	files := debianFiles()
	files["run/systemd/system/keep"] = ""
	f := newFake(t, files)
	held := false
	f.run = func(args []string) error {
		if strings.Contains(strings.Join(args, " "), " install ") {
			info, err := os.Stat(filepath.Join(f.root, "usr/sbin/policy-rc.d"))
			held = err == nil && info.Mode().Perm()&0o111 != 0
		}
		return nil
	}
	if _, err := f.setUp(f.options()); err != nil {
		t.Fatal(err)
	}
	if !held {
		t.Error("services were not held while packages were installed")
	}
	if _, err := os.Stat(filepath.Join(f.root, "usr/sbin/policy-rc.d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("policy-rc.d is still there: %v", err)
	}
	if got := f.ran("systemctl disable"); len(got) != 2 {
		t.Errorf("ran %q, want both services disabled", got)
	}
}

func TestSetupSaysWhatItMayNotDo(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*fake, *Options)
		removed string
		want    string
	}{
		{"no podman and no root", func(f *fake, o *Options) { o.machine.uid = 1000; f.programs["podman"] = false }, "",
			"sudo apt-get install --no-install-recommends podman runc crun uidmap netavark aardvark-dns iptables"},
		{"no podman and no apt", func(f *fake, _ *Options) { f.programs["podman"] = false }, "etc/debian_version", "package manager"},
		{"no modules and no root", func(_ *fake, o *Options) { o.machine.uid = 1000 }, "lib/modules", "sudo mkdir -p /lib/modules"},
		{"docker wanted", func(_ *fake, o *Options) { o.Engine = "docker" }, "", "unset E2E_ENGINE"},
		{"macOS", func(f *fake, o *Options) { o.machine.os = "darwin"; f.programs["podman"] = false }, "", "runs need Linux"},
		{"no C compiler and no root", func(f *fake, o *Options) { o.machine.uid = 1000; f.programs["gcc"] = false }, "",
			"sudo apt-get install --no-install-recommends gcc libc6-dev"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := withServers(newFake(t, debianFiles()))
			opts := f.options()
			test.change(f, &opts)
			if test.removed != "" {
				if err := os.RemoveAll(filepath.Join(f.root, test.removed)); err != nil {
					t.Fatal(err)
				}
			}
			said, err := f.setUp(opts)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "run: go tool mage setup") {
				t.Errorf("advises what is running: %v", err)
			}
			if len(said) != 0 || len(f.ran("apt-get")) != 0 {
				t.Errorf("said %q, ran %q", said, f.ran("apt-get"))
			}
		})
	}
}

func TestSetupMakesTheModulesFolder(t *testing.T) {
	f := withServers(newFake(t, debianFiles()))
	if err := os.RemoveAll(filepath.Join(f.root, "lib/modules")); err != nil {
		t.Fatal(err)
	}
	said, err := f.setUp(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "/lib/modules") {
		t.Errorf("said %q", said)
	}
	if _, err := os.Stat(filepath.Join(f.root, "lib/modules")); err != nil {
		t.Error(err)
	}
}
