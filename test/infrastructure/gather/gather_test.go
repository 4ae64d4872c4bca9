package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// collector is a Collector made of a function.
type collector struct {
	name    string
	collect func(ctx context.Context, dir string) error
}

func (c collector) Name() string                                  { return c.name }
func (c collector) Collect(ctx context.Context, dir string) error { return c.collect(ctx, dir) }

func read(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAll(t *testing.T) {
	good := collector{"good", func(_ context.Context, dir string) error { return write(dir, SummaryFile, []byte("well\n")) }}
	bad := collector{"bad", func(context.Context, string) error { return errors.New("broken") }}

	t.Run("runs every collector and joins their errors", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "gather")
		err := All(t.Context(), dir, bad, good, bad)
		if want := "gathering bad: broken\ngathering bad: broken"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		want := "well\n\nNot gathered\n  gathering bad: broken\n  gathering bad: broken\n"
		if got := read(t, dir, SummaryFile); got != want {
			t.Errorf("summary: got %q, want %q", got, want)
		}
	})

	t.Run("adds nothing to the summary when all went well", func(t *testing.T) {
		dir := t.TempDir()
		if err := All(t.Context(), dir, good); err != nil {
			t.Error(err)
		}
		if got := read(t, dir, SummaryFile); got != "well\n" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("bounds each collector, and runs them at once", func(t *testing.T) {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			hangs := collector{"hangs", func(ctx context.Context, _ string) error { <-ctx.Done(); return context.Cause(ctx) }}
			started := time.Now()
			err := All(t.Context(), dir, hangs, hangs, good)
			if took := time.Since(started); took != collectTimeout {
				t.Errorf("took %v, want %v", took, collectTimeout)
			}
			if err == nil || !strings.Contains(err.Error(), "gathering hangs: not done after 30s") {
				t.Errorf("got %v, want it to say which time was over", err)
			}
		})
	})
}

func TestNode(t *testing.T) {
	dir := t.TempDir()
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		fmt.Fprintln(cmd.Stdout, command.Quote(cmd.Args))
		if slices.Contains(cmd.Args, "df") {
			return &command.Error{Args: cmd.Args, ExitCode: 1, Stderr: "stale file handle"}
		}
		return nil
	}}
	err := Node{Runner: runner, Engine: "podman", Node: "e2e-control-plane"}.Collect(t.Context(), dir)
	if want := "disk.txt: podman exec e2e-control-plane df --human-readable: exit 1: stale file handle"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	var got []string
	for _, args := range runner.Calls() {
		got = append(got, command.Quote(args))
	}
	slices.Sort(got)
	want := []string{
		"podman exec e2e-control-plane cat /proc/meminfo /proc/loadavg",
		"podman exec e2e-control-plane ctr --namespace k8s.io containers list",
		"podman exec e2e-control-plane ctr --namespace k8s.io images list",
		"podman exec e2e-control-plane df --human-readable",
		"podman exec e2e-control-plane find /var/log/pods -name '*.log' -exec tail --verbose --lines 2000 '{}' +",
		"podman exec e2e-control-plane journalctl --no-pager --unit containerd",
		"podman exec e2e-control-plane journalctl --no-pager --unit kubelet",
		"podman exec e2e-control-plane ps -efww",
		"podman inspect e2e-control-plane",
		"podman logs e2e-control-plane",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, file := range []string{"kubelet.log", "disk.txt"} {
		if got := read(t, dir, "node", "e2e-control-plane", file); !strings.HasPrefix(got, "podman exec e2e-control-plane") {
			t.Errorf("%s: got %q, want the command's output", file, got)
		}
	}
}

// TestDeadAPIServer gathers from a cluster whose API server refuses connections.
func TestDeadAPIServer(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	config := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}], clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]}"
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	node := Node{Runner: &command.Recorder{Answer: func(cmd command.Cmd) error {
		_, err := cmd.Stdout.Write([]byte("still here"))
		return err
	}}, Engine: "docker", Node: "n"}
	err := All(t.Context(), dir, Summary{Kubeconfig: kubeconfig}, Objects{kubeconfig}, Logs{kubeconfig}, node)
	if err == nil || strings.Count(err.Error(), "connection refused") != 2 {
		t.Errorf("got %v, want one error of objects and one of logs", err)
	}
	if got := read(t, dir, "node", "n", "kubelet.log"); got != "still here" {
		t.Errorf("node: got %q, want its output", got)
	}
	if got := read(t, dir, SummaryFile); !strings.HasPrefix(got, "The API server does not answer: ") || !strings.Contains(got, "Not gathered\n") {
		t.Errorf("summary: got %q", got)
	}
	if bytes.Contains([]byte(read(t, dir, SummaryFile)), []byte("gathering node")) {
		t.Error("the node was not gathered")
	}
}
