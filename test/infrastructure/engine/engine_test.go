package engine_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/engine"
)

func TestArguments(t *testing.T) {
	for _, test := range []struct {
		name, engine string
		call         func(context.Context, engine.Engine) error
		want         []string
	}{
		{"podman builds with layers", "podman",
			func(ctx context.Context, e engine.Engine) error { return e.Build(ctx, "dir", "r:1", "base", "a=b") },
			[]string{"podman", "build", "--tag", "r:1", "--target", "base", "--label", "a=b", "--layers", "dir"}},
		{"docker builds", "docker",
			func(ctx context.Context, e engine.Engine) error { return e.Build(ctx, "dir", "r:1", "") },
			[]string{"docker", "build", "--tag", "r:1", "dir"}},
		{"podman saves one archive of several images", "podman",
			func(ctx context.Context, e engine.Engine) error { return e.Save(ctx, io.Discard, "a:1", "b:1") },
			[]string{"podman", "save", "--format", "docker-archive", "--multi-image-archive", "a:1", "b:1"}},
		{"docker saves", "docker",
			func(ctx context.Context, e engine.Engine) error { return e.Save(ctx, io.Discard, "a:1") },
			[]string{"docker", "save", "a:1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runner := &command.Recorder{}
			if err := test.call(t.Context(), engine.Engine{Name: test.engine, Runner: runner}); err != nil {
				t.Fatal(err)
			}
			if got := runner.Calls(); !reflect.DeepEqual(got, [][]string{test.want}) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestBuildSaysWhatIsWrongWithTheDockerfile(t *testing.T) {
	runner := &command.Recorder{Answer: func(command.Cmd) error {
		return &command.Error{ExitCode: 125, Stderr: `time="2026-11-24T17:38:56Z" level=error msg="+(UNHANDLED LOGLEVEL) &imagebuilder.Step{}"` + "\n" +
			`Error: building at STEP "COPI ": Build error: Unknown instruction: "COPI" &imagebuilder.Step{Env:[]string{}}` + "\n"}
	}}
	err := engine.Engine{Name: "podman", Runner: runner}.Build(t.Context(), "dir", "r:1", "")
	if want := `Error: building at STEP "COPI ": Build error: Unknown instruction: "COPI"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	silent := &command.Error{Args: []string{"podman", "build"}, ExitCode: 125, Stderr: `time="2026-11-24T17:38:56Z" level=error msg="x"`}
	runner.Answer = func(command.Cmd) error { return silent }
	if err := (engine.Engine{Name: "podman", Runner: runner}).Build(t.Context(), "dir", "r:1", ""); !errors.Is(err, silent) {
		t.Errorf("got %v, want all that is known of a build that says nothing of its Dockerfile", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	runner.Answer = func(command.Cmd) error {
		return errors.Join(context.Canceled, &command.Error{ExitCode: 125, Stderr: "Error: interrupted"})
	}
	if err := (engine.Engine{Name: "podman", Runner: runner}).Build(canceled, "dir", "r:1", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a build that was canceled to say so", err)
	}
	missing := &command.Error{ExitCode: -1, Err: command.ErrNotFound}
	runner.Answer = func(command.Cmd) error { return missing }
	if err := (engine.Engine{Name: "podman", Runner: runner}).Build(t.Context(), "dir", "r:1", ""); !errors.Is(err, command.ErrNotFound) {
		t.Errorf("got %v, want the engine to be missed", err)
	}
}

func TestExistsTellsAbsentFromBroken(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		exists bool
		fails  bool
	}{
		{"present", nil, true, false},
		{"absent in podman", &command.Error{ExitCode: 125, Stderr: "Error: inspecting object: a:1: image not known"}, false, false},
		{"absent in docker", &command.Error{ExitCode: 1, Stderr: "Error response from daemon: No such image: a:1"}, false, false},
		{"engine down", &command.Error{ExitCode: 1, Stderr: "Cannot connect to the Docker daemon"}, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runner := &command.Recorder{Answer: func(command.Cmd) error { return test.err }}
			exists, err := engine.Engine{Name: "podman", Runner: runner}.Exists(t.Context(), "a:1")
			if exists != test.exists || (err != nil) != test.fails {
				t.Errorf("got %v, %v", exists, err)
			}
		})
	}
}

// registry is a runner whose pull says what a registry says, when it says it.
type registry struct {
	answersAfter time.Duration
	transfer     time.Duration
}

func (r registry) Run(ctx context.Context, cmd command.Cmd) error {
	for _, wait := range []struct {
		time.Duration
		text string
	}{{r.answersAfter, "Getting image source signatures\n"}, {r.transfer, "done\n"}} {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait.Duration):
			io.WriteString(cmd.Stderr, wait.text)
		}
	}
	return nil
}

func TestPullGivesUpOnSilenceButNotOnASlowTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := engine.Engine{Name: "podman", Runner: registry{answersAfter: time.Hour}}.Pull(t.Context(), "a:1", 15*time.Second)
		if !errors.Is(err, engine.ErrNoAnswer) {
			t.Errorf("silent registry: got %v, want ErrNoAnswer", err)
		}
		err = engine.Engine{Name: "podman", Runner: registry{answersAfter: time.Second, transfer: 10 * time.Minute}}.Pull(t.Context(), "a:1", 15*time.Second)
		if err != nil {
			t.Errorf("slow transfer: got %v", err)
		}
	})
}

func TestRemoveOfNothingRunsNothing(t *testing.T) {
	runner := &command.Recorder{}
	if err := (engine.Engine{Name: "podman", Runner: runner}).Remove(t.Context()); err != nil || len(runner.Calls()) != 0 {
		t.Errorf("got %v and %v", err, slices.Concat(runner.Calls()...))
	}
}

func TestPullTellsARefusalFromSilence(t *testing.T) {
	for said, want := range map[string]error{
		`Error: initializing source docker://redis:8.2: pinging container registry registry-1.docker.io: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host`: engine.ErrNoAnswer,
		`Error: pinging container registry localhost:1: Get "https://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`:                                                                            engine.ErrNoAnswer,
		`Error response from daemon: Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout`:                                                                                                        engine.ErrNoAnswer,
		`Error response from daemon: manifest for redis:9 not found: manifest unknown: manifest unknown`:                                                                                                             engine.ErrRefused,
		`Error: reading manifest 8.2 in docker.io/library/redis: toomanyrequests: You have reached your pull rate limit`:                                                                                             engine.ErrRefused,
		`Error: pinging container registry r.example: Get "https://r.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`:                                                 engine.ErrRefused,
		`Error: writing blob: no space left on device`: engine.ErrRefused,
	} {
		runner := &command.Recorder{Answer: func(command.Cmd) error {
			return &command.Error{ExitCode: 125, Stderr: "Trying to pull redis...\n" + said + "\n"}
		}}
		err := engine.Engine{Name: "podman", Runner: runner}.Pull(t.Context(), "redis:8.2", time.Minute)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), said) {
			t.Errorf("got %v, want %v: %s", err, want, said)
		}
	}
	missing := &command.Recorder{Answer: func(command.Cmd) error { return &command.Error{ExitCode: -1, Err: command.ErrNotFound} }}
	err := engine.Engine{Name: "podman", Runner: missing}.Pull(t.Context(), "redis:8.2", time.Minute)
	if errors.Is(err, engine.ErrRefused) || errors.Is(err, engine.ErrNoAnswer) || !errors.Is(err, command.ErrNotFound) {
		t.Errorf("got %v, want the engine to be missed", err)
	}
}

func TestPruneKeepsTheNewestAndWhatIsUsed(t *testing.T) {
	const own = "localhost/kubernaut-e2e/gateway"
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		switch {
		case cmd.Args[1] == "images":
			for _, line := range []string{
				"2030-01-02 10:00:00 +0000 UTC\t" + own + ":2", "2030-01-05 10:00:00 +0000 UTC\t" + own + ":5", "2030-01-01 10:00:00 +0000 UTC\t" + own + ":1",
				"2030-01-04 10:00:00 +0000 UTC\t" + own + ":4", "2030-01-03 10:00:00 +0000 UTC\t" + own + ":3", "2029-01-01 10:00:00 +0000 UTC\t" + own + ":ours",
				"2029-01-01 10:00:00 +0000 UTC\t" + own + "-base:1", "2029-01-01 10:00:00 +0000 UTC\t" + own + ":<none>",
			} {
				io.WriteString(cmd.Stdout, line+"\n")
			}
		case slices.Contains(cmd.Args, own+":2"):
			return &command.Error{ExitCode: 2, Stderr: "Error: image used by abc: image is in use by a container: consider listing external containers"}
		}
		return nil
	}}
	removed, err := engine.Engine{Name: "podman", Runner: runner}.Prune(t.Context(), own, 3, own+":ours")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{own + ":1"}; !slices.Equal(removed, want) {
		t.Errorf("removed %v, want %v", removed, want)
	}
	for _, call := range runner.Calls() {
		if call[1] == "rmi" && !slices.Equal(call, []string{"podman", "rmi", own + ":1"}) && !slices.Equal(call, []string{"podman", "rmi", own + ":2"}) {
			t.Errorf("tried to remove %v", call)
		}
	}
	broken := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if cmd.Args[1] == "rmi" {
			return errors.New("engine gone")
		}
		_, err := io.WriteString(cmd.Stdout, "2030-01-01 10:00:00 +0000 UTC\t"+own+":1\n")
		return err
	}}
	if _, err := (engine.Engine{Name: "podman", Runner: broken}).Prune(t.Context(), own, 0); err == nil {
		t.Error("hides an engine that cannot remove")
	}
}
