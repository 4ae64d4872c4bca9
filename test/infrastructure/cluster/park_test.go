package cluster

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// disk is an engine whose node has a folder of this machine for its /var. The script that
// works on it is run for real.
type disk struct {
	dir    string
	status string // of the node
	calls  []string
	fail   func(verb string) error // nil when all goes well
}

func (d *disk) Run(ctx context.Context, cmd command.Cmd) error {
	verb := cmd.Args[1]
	if verb == "network" {
		verb = strings.Join(cmd.Args[1:], " ")
	}
	d.calls = append(d.calls, verb)
	if d.fail != nil {
		if err := d.fail(verb); err != nil {
			return err
		}
	}
	switch verb {
	case "inspect":
		address := map[bool]string{true: "10.89.0.40"}[d.status == "running"]
		answer := d.status + "\t2030-01-02T03:04:05Z\tkind=" + address + " \n"
		if slices.Contains(cmd.Args, "{{.Image}}") {
			answer = "image\n"
		}
		_, err := cmd.Stdout.Write([]byte(answer))
		return err
	case "run":
		at := slices.Index(cmd.Args, "image")
		cmd.Args = append(append([]string{"sh"}, cmd.Args[at+1:len(cmd.Args)-1]...), d.dir)
		defer func() { d.calls = append(d.calls, "ran") }()
		return command.Local{}.Run(ctx, cmd)
	}
	return nil
}

// files are the regular files of the node by path, with what is in them.
func (d *disk) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS(d.dir)
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path == ".parked" {
			return fs.SkipDir
		}
		if err == nil && entry.Type().IsRegular() {
			var data []byte
			data, err = fs.ReadFile(root, path)
			files[path] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const (
	blob     = "lib/containerd/io.containerd.content.v1.content/blobs/sha256/0"
	snapshot = "lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/bin/a program"
	database = "lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
	flags    = "lib/kubelet/kubeadm-flags.env"
)

func newDisk(t *testing.T) (*disk, Kind) {
	t.Helper()
	d := &disk{dir: t.TempDir(), status: "running"}
	for _, path := range []string{blob, snapshot, database, flags, "tmp/postgresql/base/1"} {
		filetest.Put(t, d.dir, path, path+" as it was")
	}
	if err := os.Symlink("nowhere", filepath.Join(d.dir, "run")); err != nil {
		t.Fatal(err)
	}
	return d, kindWith(t, "podman", d)
}

func TestANodeIsRestoredAsItWasKept(t *testing.T) {
	d, k := newDisk(t)
	state, err := k.Keep(t.Context(), node)
	if err != nil || state.Sum == "" || state.Bytes == 0 {
		t.Fatalf("got %+v and %v", state, err)
	}
	if want := []string{"inspect", "pause", "run", "unpause", "ran"}; !slices.Equal(d.calls, want) {
		t.Errorf("got %v, want %v", d.calls, want)
	}
	was := d.files(t)
	work := func() {
		filetest.Put(t, d.dir, database, "written in place")
		filetest.Put(t, d.dir, "tmp/postgresql/base/1", "written in place")
		filetest.Put(t, d.dir, "log/garbage", "of a suite")
		filetest.Put(t, d.dir, flags, "of another address")
		if err := os.Remove(filepath.Join(d.dir, blob)); err != nil {
			t.Fatal(err)
		}
	}
	was[flags] = "of another address" // where the container is now
	for range 2 {                     // what is restored is worked on, and leaves the state alone
		work()
		if _, err := k.Restore(t.Context(), node, state, Parked{}); err != nil {
			t.Fatal(err)
		}
		if got := d.files(t); !maps.Equal(got, was) {
			t.Errorf("got  %v\nwant %v", got, was)
		}
	}
	if target, err := os.Readlink(filepath.Join(d.dir, "run")); err != nil || target != "nowhere" {
		t.Errorf("got %s and %v of a link", target, err)
	}
	work()
	parked, err := k.Park(t.Context(), node, state)
	if err != nil || !maps.Equal(d.files(t), was) || parked.Bytes <= state.Bytes {
		t.Errorf("parked: got %+v, %v and %v", parked, err, d.files(t))
	}
	for name, test := range map[string]struct {
		status string
		parked Parked
		calls  []string
	}{
		"as it was parked":          {"exited", parked, []string{"inspect", "inspect", "run", "ran"}},
		"started since":             {"exited", Parked{Started: parked.Started.Add(-time.Second)}, []string{"inspect", "stop", "inspect", "run", "ran"}},
		"running":                   {"running", parked, []string{"inspect", "stop", "inspect", "run", "ran", "network disconnect kind " + node, "network connect --ip 10.89.0.40 kind " + node}},
		"not parked to the end yet": {"exited", Parked{}, []string{"inspect", "stop", "inspect", "run", "ran"}},
	} {
		d.status, d.calls = test.status, nil
		check, err := k.Restore(t.Context(), node, state, test.parked)
		if err == nil {
			err = check(t.Context())
		}
		if err != nil || !maps.Equal(d.files(t), was) || !slices.Equal(d.calls, test.calls) {
			t.Errorf("%s: got %v, %v and %v", name, err, d.calls, d.files(t))
		}
	}
}

func TestAStateThatIsNotAsItWasKeptIsNotRestored(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"a byte": func(path string) error { return os.WriteFile(path, []byte(database+" as it is!"), 0o644) },
		"a mode": func(path string) error { return os.Chmod(path, 0o600) },
		"gone":   os.Remove,
		"a link": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("nowhere", path)) },
		"all":    func(path string) error { return os.RemoveAll(path[:strings.Index(path, "/state/")+len("/state")]) },
	} {
		t.Run(name, func(t *testing.T) {
			d, k := newDisk(t)
			state, err := k.Keep(t.Context(), node)
			if err == nil {
				err = damage(filepath.Join(d.dir, ".parked/state", database))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Restore(t.Context(), node, state, Parked{}); err == nil {
				t.Error("it was restored")
			}
			if _, err := k.Park(t.Context(), node, state); err == nil {
				t.Error("it was parked")
			}
			d.status = "exited"
			check, err := k.Restore(t.Context(), node, state, Parked{Started: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)})
			var broken *Broken
			if err != nil || check(t.Context()) == nil || name != "all" && !errors.As(check(t.Context()), &broken) {
				t.Errorf("got %v, want it found while the node starts", err)
			}
		})
	}
}

func TestANodeIsFrozenNoLongerThanItIsCopied(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name   string
		fail   func(string) error
		calls  []string
		want   string // part of the error
		frozen bool   // the node stays
	}{
		{"cannot be frozen", func(verb string) error { return map[string]error{"pause": broken}[verb] }, []string{"inspect", "pause"}, "broken", false},
		{"cannot be copied", func(verb string) error { return map[string]error{"run": broken}[verb] }, []string{"inspect", "pause", "run", "unpause"}, "broken", false},
		{"no room", func(verb string) error {
			return map[string]error{"run": &command.Error{ExitCode: 1, Stderr: "cp: error writing 'x': No space left on device"}}[verb]
		}, []string{"inspect", "pause", "run", "unpause"}, "no space left on podman's disk", false},
		{"does not go on", func(verb string) error { return map[string]error{"unpause": broken}[verb] }, []string{"inspect", "pause", "run", "unpause", "ran"}, "does not go on: broken", true},
	} {
		d, k := newDisk(t)
		d.fail = test.fail
		_, err := k.Keep(t.Context(), node)
		var frozen *Broken
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.As(err, &frozen) != test.frozen || !slices.Equal(d.calls, test.calls) {
			t.Errorf("%s: got %v and %v", test.name, err, d.calls)
		}
	}
}

func TestAFrozenNodeIsStopped(t *testing.T) {
	d, k := newDisk(t)
	state, err := k.Keep(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	d.status, d.calls = "paused", nil
	if _, err := k.Restore(t.Context(), node, state, Parked{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"inspect", "unpause", "stop", "inspect", "run", "ran"}; !slices.Equal(d.calls, want) {
		t.Errorf("got %v, want %v", d.calls, want)
	}
}
