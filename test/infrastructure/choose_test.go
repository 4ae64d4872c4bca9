package infrastructure

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

func TestAnotherEngineThanTheLastTimesIsNotTakenInSilence(t *testing.T) {
	const runs, broken = "echo node\n", "echo cannot connect to its socket >&2\nexit 1\n"
	for _, test := range []struct {
		name, docker, wanted string
		engine, said, err    string // parts of them
	}{
		{name: "its cluster runs", docker: runs, engine: "docker"},
		{name: "its cluster runs, and the other one is wanted", docker: runs, wanted: "podman", err: "podman: cannot connect to its socket"},
		{name: "it does not work", docker: broken, said: "docker, which was used the last time, does not work now", err: "docker: cannot connect to its socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bin := t.TempDir()
			for name, text := range map[string]string{"podman": broken, "docker": test.docker} {
				filetest.Program(t, bin, name, text)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			plan := &Plan{Root: t.TempDir(), ClusterName: "e2e-1", Config: Config{Engine: test.wanted}}
			if err := plan.cluster().Made(checkout.Record{Engine: "docker"}); err != nil {
				t.Fatal(err)
			}
			var said string
			engine, err := chooseEngine(t.Context(), plan, func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
			if engine != test.engine || !strings.Contains(said, test.said) || (test.said == "") != (said == "") {
				t.Errorf("got %q, which says %q; want %q, %q", engine, said, test.engine, test.said)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
		})
	}
}

// The integration tests get both servers' images at once, perhaps beside a run.
func TestImagesForTestsTouchNoRun(t *testing.T) {
	bin := t.TempDir()
	filetest.Program(t, bin, "podman", "test \"$1\" != ps || echo node\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	plan := &Plan{
		Root: t.TempDir(), ClusterName: "e2e-1", Timeouts: defaultTimeouts(), Config: Config{ImagePolicy: ImagesPull},
		Catalog: Catalog{Images: []ImageSpec{{Name: "postgres", Pull: "example/postgres:1"}, {Name: "redis", Pull: "example/redis:1"}}},
	}
	for _, image := range plan.Images {
		filetest.Put(t, plan.Root, "docker/"+image.Name+"/Dockerfile", "FROM scratch\n")
	}
	run, err := plan.cluster().Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	filetest.Put(t, run, "log/suite.log", "why it failed")
	if err := plan.cluster().Made(checkout.Record{Engine: "podman"}); err != nil {
		t.Fatal(err)
	}
	lock, err := plan.cluster().Lock(t.Context(), "e2e:all", nil)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, image := range plan.Images {
		group.Go(func() {
			if engine, ref, err := plan.obtained(t.Context(), image.Name, io.Discard); engine != "podman" || ref != image.Pull || err != nil {
				t.Errorf("got %s, %s, %v", engine, ref, err)
			}
		})
	}
	group.Wait()
	if text, err := os.ReadFile(filepath.Join(plan.cluster().Last(), "log", "suite.log")); err != nil || string(text) != "why it failed" {
		t.Errorf("got %s, %v, want the evidence of the run", text, err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
