package checkout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

// made returns a checkout in an empty folder, with a user's cache of its own.
func made(t *testing.T) checkout.Checkout {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	c, err := checkout.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACheckoutIsTheSameThroughALinkAndAnotherAsACopy(t *testing.T) {
	first := made(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(first.Root, link); err != nil {
		t.Fatal(err)
	}
	linked, err := checkout.At(link)
	if err != nil {
		t.Fatal(err)
	}
	if linked.Cluster("").Name != first.Cluster("").Name || linked.Cluster("").Name == linked.Cluster("coverage").Name {
		t.Errorf("got %s and %s", linked.Cluster("").Name, first.Cluster("").Name)
	}
	copied, err := checkout.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if copied.Cluster("").Name == first.Cluster("").Name {
		t.Errorf("both are called %s", copied.Cluster("").Name)
	}
}

// hold takes the lock as another process would have it.
func hold(t *testing.T, c checkout.Cluster, holder checkout.Holder) *os.File {
	t.Helper()
	if err := os.MkdirAll(c.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(c.Dir(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(file).Encode(holder); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhoWantsALockIsToldWhoHasItAndWaits(t *testing.T) {
	cluster := made(t).Cluster("")
	file := hold(t, cluster, checkout.Holder{PID: 4711, Target: "e2e:gateway", Since: time.Now().Add(-3 * time.Minute)})
	said := make(chan string, 1)
	locked := make(chan error, 1)
	go func() {
		lock, err := cluster.Lock(t.Context(), "deploy:gateway", func(holder checkout.Holder) error {
			said <- holder.String()
			return nil
		})
		if err == nil {
			if holder := cluster.Holder(); holder.PID != os.Getpid() || holder.Target != "deploy:gateway" {
				err = fmt.Errorf("the lock is %v's", holder)
			}
			err = errors.Join(err, lock.Release())
		}
		locked <- err
	}()
	if got, want := <-said, "pid 4711 has run e2e:gateway for 3m0s here"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	select {
	case err := <-locked:
		t.Fatalf("got %v before the other one had ended", err)
	default:
	}
	file.Close() // as the kernel does for a process that was killed
	if err := <-locked; err != nil {
		t.Error(err)
	}
	if holder := cluster.Holder(); holder.PID != 0 {
		t.Errorf("got %v, want nobody after it was released", holder)
	}
}

func TestWaitingForALockEndsWithItsContextOrAtOnce(t *testing.T) {
	cluster := made(t).Cluster("")
	hold(t, cluster, checkout.Holder{PID: 4711, Target: "e2e:gateway"})
	interrupted, busy := errors.New("interrupted"), errors.New("busy")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := cluster.Lock(ctx, "x", func(checkout.Holder) error {
		cancel(interrupted)
		return nil
	})
	if !errors.Is(err, interrupted) || !strings.Contains(err.Error(), "pid 4711") {
		t.Errorf("got %v, want who has it, and why waiting ended", err)
	}
	if _, err := cluster.Lock(t.Context(), "x", func(checkout.Holder) error { return busy }); !errors.Is(err, busy) {
		t.Errorf("got %v, want it to end at once", err)
	}
}

func TestTheLockOfTheProcessThatStartedThisOneCountsAsItsOwn(t *testing.T) {
	cluster := made(t).Cluster("")
	hold(t, cluster, checkout.Holder{PID: os.Getppid(), Target: "test:mutants"})
	lock, err := cluster.Lock(t.Context(), "x", func(checkout.Holder) error { return errors.New("busy") })
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil || cluster.Holder().PID != os.Getppid() {
		t.Errorf("got %v and %v, want the lock to stay the other one's", err, cluster.Holder())
	}
}

func TestTheNewestRunsAreKeptAndLastIsTheNewest(t *testing.T) {
	c := made(t)
	cluster := c.Cluster("")
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var dirs []string
	for i := range 7 {
		dir, err := cluster.Begin(start.Add(time.Duration(i) * time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	again, err := cluster.Begin(start.Add(6 * time.Minute)) // within the same second
	if err != nil {
		t.Fatal(err)
	}
	runs, err := cluster.Runs()
	if err != nil || len(runs) != 5 || runs[0] != again || runs[1] != dirs[6] {
		t.Errorf("got %v and %v, want the newest five, the newest first", runs, err)
	}
	if last, err := filepath.EvalSymlinks(c.Last()); err != nil || last != again {
		t.Errorf("got %s and %v, want %s", last, err, again)
	}
	if latest, err := cluster.Latest(start.Add(time.Hour)); err != nil || latest != again {
		t.Errorf("got %s and %v, want what ends a run to add to it", latest, err)
	}
	if err := os.WriteFile(cluster.TargetFile(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(c.Last(), "target.json")); err != nil || string(text) != "{}" {
		t.Errorf("got %s and %v, want .e2e/last to lead to what is deployed", text, err)
	}
}

func TestAFolderInThePlaceOfLastGivesWay(t *testing.T) {
	c := made(t)
	if err := os.MkdirAll(filepath.Join(c.Last(), "log"), 0o755); err != nil { // an artifact's copy
		t.Fatal(err)
	}
	dir, err := c.Cluster("").Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if last, err := filepath.EvalSymlinks(c.Last()); err != nil || last != dir {
		t.Errorf("got %s and %v, want %s", last, err, dir)
	}
}

func TestAClusterThatIsForgottenLeavesItsEvidenceOnly(t *testing.T) {
	c := made(t)
	cluster := c.Cluster("")
	dir, err := cluster.Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Record(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want no record of a cluster that was not made to the end", err)
	}
	cluster.Register("docker", time.Now())
	if cluster.Engine() != "docker" {
		t.Errorf("got %q, want the engine of a cluster that was begun", cluster.Engine())
	}
	if err := cluster.Made(checkout.Record{Engine: "podman"}); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cluster.Kubeconfig(), cluster.Kubeconfig() + ".lock", cluster.TargetFile()} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.NoteDeployed(map[string]string{"app": "1"}); err != nil || cluster.Engine() != "podman" {
		t.Fatal(err, cluster.Engine())
	}
	for range 2 {
		if err := cluster.Forget(); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(cluster.Dir())
	if err != nil || len(entries) != 1 || cluster.Engine() != "" {
		t.Errorf("got %v, %v and engine %q, want the runs only", entries, err, cluster.Engine())
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestClustersAreKnownWhenTheirCheckoutsAreGone(t *testing.T) {
	c := made(t)
	cluster := c.Cluster("")
	if _, err := cluster.Begin(time.Now()); err != nil {
		t.Fatal(err)
	}
	cluster.Register("podman", time.Now())
	entries, err := checkout.Registered()
	if err != nil || len(entries) != 1 || entries[0].Orphan() != "" {
		t.Fatalf("got %v and %v, want a cluster that its checkout looks after", entries, err)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if got, want := entries[0].Orphan(), "its checkout "+c.Root+" knows it no longer"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := os.RemoveAll(c.Root); err != nil {
		t.Fatal(err)
	}
	if got, want := entries[0].Orphan(), "its checkout "+c.Root+" is gone"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := entries[0].Forget(); err != nil {
		t.Fatal(err)
	}
	if entries, err := checkout.Registered(); err != nil || len(entries) != 0 {
		t.Errorf("got %v and %v", entries, err)
	}
}

func TestAUserWithoutACacheFolderHasNoRegistryAndNoError(t *testing.T) {
	cluster := made(t).Cluster("")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	cluster.Register("podman", time.Now())
	if entries, err := checkout.Registered(); err != nil || len(entries) != 0 || cluster.Forget() != nil {
		t.Errorf("got %v and %v", entries, err)
	}
}

func TestSourcesTellWhichFilesAreOthers(t *testing.T) {
	c := made(t)
	filetest.Put(t, c.Root, "a/x.go", "1")
	filetest.Put(t, c.Root, "b.go", "1")
	filetest.Put(t, c.Root, "gone.go", "1")
	filetest.Put(t, c.Root, ".e2e/log", "1")
	before, err := c.Sources()
	if err != nil {
		t.Fatal(err)
	}
	filetest.Put(t, c.Root, "a/x.go", "2")
	filetest.Put(t, c.Root, "c/new.go", "1")
	filetest.Put(t, c.Root, ".e2e/log", "2")
	if err := os.Remove(filepath.Join(c.Root, "gone.go")); err != nil {
		t.Fatal(err)
	}
	after, err := c.Sources()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(after.Changed(before)), "[a/x.go c/new.go gone.go]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNobodyElseKnowsWhatTheFolderIsCalled(t *testing.T) {
	for _, dir := range []string{"..", "../../../magefiles"} {
		err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "checkout/") {
				return err
			}
			text, err := os.ReadFile(filepath.Join(dir, path))
			if strings.Contains(string(text), `".e2e`) {
				t.Errorf("%s: joins a path of .e2e by itself; package checkout says where everything lies", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
