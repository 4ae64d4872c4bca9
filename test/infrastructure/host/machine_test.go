package host

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// limitsText is the kernel's own layout.
const limitsText = `Limit                     Soft Limit           Hard Limit           Units
Max processes             96365                96365                processes
Max open files            1024                 20000                files
`

// everyCapability but CAP_SYS_RESOURCE, as on a restricted virtual machine.
const restricted = "000001fffeffffff"

// debianFiles are those of a small Debian machine with hybrid cgroups.
func debianFiles() map[string]string {
	return map[string]string{
		"etc/debian_version":                       "12.1\n",
		"lib/modules/keep":                         "",
		"usr/sbin/keep":                            "",
		"proc/self/limits":                         limitsText,
		"proc/self/status":                         "Name:\tx\nCapEff:\t" + restricted + "\n",
		"proc/meminfo":                             "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n",
		"proc/sys/fs/inotify/max_user_instances":   "128\n",
		"proc/sys/fs/inotify/max_user_watches":     "65536\n",
		"sys/fs/cgroup/memory/keep":                "",
		"sys/fs/cgroup/unified/cgroup.controllers": "",
	}
}

// fake is a machine whose files lie in a folder of the test and whose programs are
// a recorder's.
type fake struct {
	*testing.T
	root      string
	temp      string
	programs  map[string]bool // installed
	uid       int
	offline   bool
	run       func(args []string) error // after the defaults below; nil succeeds
	podman    func() error              // what `podman run` says
	images    string                    // what the store lists
	recorder  command.Recorder
	installed map[string]bool // Debian packages
	env       map[string]string
	published string                             // where the engine publishes a port; by default where its container answers
	answers   func(token string) (string, error) // of a container; by default with the token
	lookup    string                             // how long one takes
	left      map[string]string                  // containers by label
}

// ask is what a container answers where its port was published: with what lies in
// the folder that it has been given.
func (f *fake) ask(_ context.Context, address string, _ time.Duration) (string, error) {
	if f.published != "" {
		return "", errors.New("connection refused")
	}
	for _, args := range f.recorder.Calls() {
		for _, arg := range args {
			folder, found := strings.CutSuffix(arg, ":/probe:ro")
			if !found {
				continue
			}
			token, err := os.ReadFile(filepath.Join(folder, "token"))
			if errors.Is(err, os.ErrNotExist) {
				continue // of a probe that has ended
			}
			if f.answers != nil {
				return f.answers(string(token))
			}
			if args[len(args)-1] == "host.docker.internal" {
				token = append(token, "\n"+cmp.Or(f.lookup, "3ms")...)
			}
			return string(token), err
		}
	}
	return "", errors.New("no folder was given")
}

func newFake(t *testing.T, files map[string]string) *fake {
	t.Helper()
	f := &fake{T: t, root: t.TempDir(), programs: map[string]bool{"podman": true, "apt-get": true, "mmdebstrap": true, "gcc": true}, installed: map[string]bool{}}
	for name, content := range files {
		filetest.Put(t, f.root, name, content)
	}
	f.temp = t.TempDir()
	t.Setenv("TMPDIR", f.temp)
	f.recorder.Answer = f.answer
	return f
}

func (f *fake) options() Options {
	return Options{
		Runner: &f.recorder, Checkout: f.root,
		machine: machine{
			root: f.root, os: "linux", uid: f.uid,
			find: func(program string) (string, error) {
				if !f.programs[program] {
					return "", errors.New(program + ": not found in PATH")
				}
				return "/usr/bin/" + program, nil
			},
			free:   func(string) (uint64, error) { return 100 << 30, nil },
			getenv: func(name string) string { return f.env[name] },
			ask:    f.ask,
			reach: func(context.Context, string) error {
				if f.offline {
					return errors.New("no such host")
				}
				return nil
			},
		},
	}
}

// answer is what a machine's programs do.
func (f *fake) answer(cmd command.Cmd) error {
	program := cmd.Args[0]
	say := func(text string) error { _, err := cmd.Stdout.Write([]byte(text + "\n")); return err }
	if (program == "podman" || program == "docker") && !f.programs[program] {
		return &command.Error{Args: cmd.Args, ExitCode: -1, Err: command.ErrNotFound}
	}
	if f.run != nil {
		if err := f.run(cmd.Args); err != nil {
			return err
		}
	}
	line := strings.Join(cmd.Args, " ")
	switch {
	case strings.HasPrefix(line, "go build"):
		for i, arg := range cmd.Args {
			if arg == "-o" {
				return os.WriteFile(filepath.Join(cmd.Dir, cmd.Args[i+1]), []byte("program"), 0o755)
			}
		}
	case strings.HasPrefix(line, "go env GOVERSION"):
		return say("go1.26.0")
	case strings.HasPrefix(line, "go env CC"):
		return say("gcc")
	case strings.Contains(line, " port "):
		return say(cmp.Or(f.published, "127.0.0.1:40001"))
	case strings.Contains(line, " ps "):
		_, label, _ := strings.Cut(line, "label=")
		return say(f.left[label])
	case strings.HasPrefix(line, "go env GOCACHE"), strings.Contains(line, " info "):
		return say(f.root)
	case strings.Contains(line, " version "):
		return say("4.3.1")
	case strings.Contains(line, " images --quiet --filter label="+Label):
		return say(f.left["images"])
	case strings.Contains(line, " images "):
		return say(f.images)
	case strings.HasPrefix(line, "podman run") && f.podman != nil:
		return f.podman()
	case program == "dpkg-query":
		for _, name := range cmd.Args[4:] {
			if f.installed[name] {
				if err := say(name + " installed"); err != nil {
					return err
				}
			}
		}
	case strings.Contains(line, " install "):
		for _, arg := range cmd.Args {
			f.installed[arg], f.programs[arg] = true, true
		}
	}
	return nil
}

// ran returns the commands that begin with prefix, each as one line.
func (f *fake) ran(prefix string) []string {
	var lines []string
	for _, args := range f.recorder.Calls() {
		if line := strings.Join(args, " "); strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return lines
}

// refuse is a program that ends with exit code 126 and a text.
func refuse(stderr string) error {
	return &command.Error{Args: []string{"podman", "run"}, ExitCode: 126, Stderr: stderr, Err: errors.New("exit status 126")}
}

const noLimits = "Error: crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied\n"

// needsDropIn answers as podman does on a machine that needs the drop-in.
func (f *fake) needsDropIn() error {
	if _, err := os.Stat(filepath.Join(f.root, dropInFile)); err != nil {
		return refuse(noLimits)
	}
	return nil
}

func (f *fake) read(name string) string {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		f.Fatal(err)
	}
	return string(data)
}
