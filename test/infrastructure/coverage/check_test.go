package coverage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/coverage"
)

// Each way in which coverage silently disappears, provoked with a program that runs.
func TestCountersThatAreNotAllThere(t *testing.T) {
	withCover, without := compile(t, instrumented...), compile(t)
	for _, test := range []struct {
		name    string
		plain   bool // built without -cover
		provoke func(t *testing.T, p *program)
		want    string // empty when nothing is lost
	}{
		{"killed", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "kill"))
		}, "Pod app-1 (exit code 137, SIGKILL): wrote covmeta but no covcounters: it was killed before it could end in order"},
		{"killed and flushed before", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "flush"))
		}, ""},
		{"killed by the memory limit", false, func(t *testing.T, p *program) {
			process := p.pod(t, p.folder(t, "app-1"), "kill")
			process.Reason = "OOMKilled"
			p.known("app-1", process)
		}, "Pod app-1 (exit code 137, SIGKILL, OOMKilled): wrote covmeta but no covcounters"},
		{"GOCOVERDIR unset", false, func(t *testing.T, p *program) {
			p.folder(t, "app-1")
			p.known("app-1", p.pod(t, "", "left"))
			p.service.Pods[0].Folder = ""
		}, "Pod app-1 (exit code 0): GOCOVERDIR is not set in its manifest"},
		{"no volume", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, t.TempDir(), "left"))
		}, "Pod app-1 (exit code 0): it has no folder: its manifest mounts no coverage volume"},
		{"volume not writable", false, func(t *testing.T, p *program) {
			if err := os.Chmod(p.folder(t, "app-1"), 0o755); err != nil {
				t.Fatal(err)
			}
			p.known("app-1", p.pod(t, "/proc/self", "left")) // where nobody can make a file, root neither
		}, "Pod app-1 (exit code 0): wrote nothing: its folder cannot be written by the pod's user (mode 0755)"},
		{"built without -cover", true, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
		}, "Pod app-1 (exit code 0): wrote nothing: its image was built without -cover"},
		{"a pod that the API server did not tell of", true, func(t *testing.T, p *program) {
			p.pod(t, p.folder(t, "app-1"), "left")
		}, "Pod app-1 (how it ended is not known): wrote nothing: its image was built without -cover, GOCOVERDIR is not set, or"},
		{"first process killed and second ended in order", false, func(t *testing.T, p *program) {
			dir := p.folder(t, "app-1")
			first := p.pod(t, dir, "kill")
			first.Started, first.Ended = first.Started.Add(-time.Minute), first.Ended.Add(-time.Minute)
			p.service.Since = first.Started
			p.known("app-1", first, p.pod(t, dir, "left"))
		}, "Pod app-1 (restarted 1×, exit code 0): process 1 of 2 (exit code 137, SIGKILL) left no counters"},
		{"a process that nobody saw", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
			p.service.Pods[0].Starts = 3
		}, "Pod app-1 (restarted 2×, exit code 0): 3 processes ran and 1 left counters"},
		{"every process of a restarted pod left its own", false, func(t *testing.T, p *program) {
			dir := p.folder(t, "app-1")
			p.known("app-1", p.pod(t, dir, "flush"), p.pod(t, dir, "left"), p.pod(t, dir, "right"))
		}, ""},
		{"a container that could not be started at first", false, func(t *testing.T, p *program) {
			p.known("app-1", coverage.Process{Started: time.Unix(0, 0), Ended: time.Now(), Exit: 128}, p.pod(t, p.folder(t, "app-1"), "left"))
		}, ""},
		{"a start that was noted late", false, func(t *testing.T, p *program) {
			process := p.pod(t, p.folder(t, "app-1"), "left")
			process.Started = process.Ended.Add(time.Second)
			p.known("app-1", process)
		}, ""},
		{"flushed and ended in order while another was killed", false, func(t *testing.T, p *program) {
			dir := p.folder(t, "app-1")
			first := p.pod(t, dir, "kill")
			first.Started, first.Ended = first.Started.Add(-time.Minute), first.Ended.Add(-time.Minute)
			p.service.Since = first.Started
			p.pod(t, dir, "left") // the file of a flush
			p.known("app-1", first, p.pod(t, dir, "left"))
		}, "process 1 of 2 (exit code 137, SIGKILL) left no counters"},
		{"stale file", false, func(t *testing.T, p *program) {
			p.pod(t, p.folder(t, "app-1"), "left")
			p.service.Since = time.Now()
		}, "Pod app-1 (how it ended is not known): its covcounters of "},
		{"covmeta removed", false, func(t *testing.T, p *program) {
			dir := p.folder(t, "app-1")
			p.known("app-1", p.pod(t, dir, "left"))
			remove(t, dir, "covmeta.*")
		}, "Pod app-1 (exit code 0): wrote covcounters but no covmeta"},
		{"a pod that never started", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
			p.folder(t, "app-2")
			p.known("app-2")
		}, ""},
		{"a pod of the run before", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
			p.known("app-2", coverage.Process{Started: p.service.Since.Add(-time.Hour)})
		}, ""},
		{"no pod", false, func(*testing.T, *program) {}, "coverage of app: no pod ran"},
		// The last, because it changes the program.
		{"two builds", false, func(t *testing.T, p *program) {
			p.known("app-1", p.pod(t, p.folder(t, "app-1"), "left"))
			file := filepath.Join(p.root, "app", "kinds.go")
			if err := os.WriteFile(file, []byte("package main\n\nfunc init() { _ = 1 }\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			p.build(t, instrumented...)
			p.known("app-2", p.pod(t, p.folder(t, "app-2"), "left"))
		}, "coverage of app: pods ran different builds, whose counters do not add up: app-1, app-2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := withCover.again(t)
			if test.plain {
				p = without.again(t)
			}
			test.provoke(t, p)
			_, err := p.report(t)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %v, want nothing to be missed", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestEveryPodThatLeftNothingIsNamed(t *testing.T) {
	p := compile(t, instrumented...)
	for _, pod := range []string{"app-1", "app-2", "app-3"} {
		how := "kill"
		if pod == "app-2" {
			how = "left"
		}
		p.known(pod, p.pod(t, p.folder(t, pod), how))
	}
	_, err := p.report(t)
	if err == nil || !strings.Contains(err.Error(), "Pod app-1 ") || !strings.Contains(err.Error(), "Pod app-3 ") || strings.Contains(err.Error(), "Pod app-2 ") {
		t.Errorf("got %v, want app-1 and app-3 to be named", err)
	}
}

func remove(t *testing.T, dir, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatThePodsTellIsRemembered(t *testing.T) {
	at := func(second int) metav1.Time { return metav1.Unix(int64(second), 0) }
	pod := func(restarts int32, running string, started int, last *corev1.ContainerStateTerminated) *corev1.Pod {
		status := corev1.ContainerStatus{Name: "app", RestartCount: restarts, ContainerID: running}
		if running != "" {
			status.State.Running = &corev1.ContainerStateRunning{StartedAt: at(started)}
		}
		status.LastTerminationState.Terminated = last
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "app-1"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "app", Image: "localhost/app:1", Env: []corev1.EnvVar{{Name: "GOCOVERDIR", Value: "/coverage"}}},
				{Name: "proxy", Image: "localhost/proxy:1"},
			}},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}},
		}
	}
	service := func(image string) string {
		if image == "localhost/app:1" {
			return "app"
		}
		return ""
	}
	file := filepath.Join(t.TempDir(), "run.json")
	record, err := coverage.OpenRecord(file)
	if err != nil {
		t.Fatal(err)
	}
	record.Saw(coverage.Observe(pod(0, "", 0, nil), service)...) // not yet started
	if run, err := record.Run(); err != nil || run.Pods["app/app-1"].Starts != 0 {
		t.Errorf("got %+v and %v, want a pod that has not started", run.Pods, err)
	}
	record.Saw(coverage.Observe(pod(0, "containerd://1", 10, nil), service)...)
	killed := &corev1.ContainerStateTerminated{ContainerID: "containerd://1", ExitCode: 137, Reason: "Error", StartedAt: at(10), FinishedAt: at(20)}
	record.Saw(coverage.Observe(pod(1, "containerd://2", 21, killed), service)...)
	// The second one's end comes with the third, and what is older does not undo it.
	ended := &corev1.ContainerStateTerminated{ContainerID: "containerd://2", ExitCode: 1, StartedAt: at(21), FinishedAt: at(30)}
	record.Saw(coverage.Observe(pod(2, "containerd://3", 31, ended), service)...)
	record.Saw(coverage.Observe(pod(1, "containerd://2", 21, killed), service)...)

	// Another process reads the same.
	again, err := coverage.OpenRecord(file)
	if err != nil {
		t.Fatal(err)
	}
	run, err := again.Run()
	if err != nil {
		t.Fatal(err)
	}
	got := run.Pods["app/app-1"]
	if len(run.Pods) != 1 || got.Starts != 3 || got.Folder != "/coverage" || len(got.Containers) != 3 {
		t.Fatalf("got %+v, want 3 processes of app alone", run.Pods)
	}
	if first := got.Containers["containerd://1"]; first.Exit != 137 || !first.Ended.Equal(at(20).Time) {
		t.Errorf("first process: got %+v", first)
	}
	if second := got.Containers["containerd://2"]; second.Exit != 1 {
		t.Errorf("second process: got %+v, want its end to be kept", second)
	}
	if third := got.Containers["containerd://3"]; !third.Ended.IsZero() {
		t.Errorf("third process: got %+v, want it to run", third)
	}
}
