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
		{"old stages of ours are removed", "podman",
			func(ctx context.Context, e engine.Engine) error { return e.PruneStages(ctx, "a=b") },
			[]string{"podman", "image", "prune", "--force", "--filter", "label=a=b", "--filter", "until=2h0m0s"}},
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
	const a, b, pinned = "docker.io/library/a:1", "localhost/b:2", "quay.io/c:3@sha256:4"
	for _, test := range []struct {
		name  string
		said  string
		err   error
		held  []string
		fails bool
	}{
		{"podman has them", a + " localhost/other:1\n" + b + "\nquay.io/c@sha256:4\n", nil, []string{a, b, pinned}, false},
		{"docker has them", "a:1 \n" + b + "\nquay.io/c:3 quay.io/c@sha256:4\n", nil, []string{a, b, pinned}, false},
		{"one is absent in podman", b + "\nquay.io/c@sha256:5\n", &command.Error{ExitCode: 125, Stderr: "Error: inspecting object: a:1: image not known"}, []string{b}, false},
		{"one is absent in docker", "a:1\n", &command.Error{ExitCode: 1, Stderr: "Error response from daemon: No such image: b:2"}, []string{a}, false},
		{"engine down", "", &command.Error{ExitCode: 1, Stderr: "Cannot connect to the Docker daemon"}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
				io.WriteString(cmd.Stdout, test.said)
				return test.err
			}}
			held, err := engine.Engine{Name: "podman", Runner: runner}.Exist(t.Context(), a, b, pinned)
			if (err != nil) != test.fails {
				t.Errorf("got %v", err)
			}
			for _, ref := range []string{a, b, pinned} {
				if held[ref] != slices.Contains(test.held, ref) {
					t.Errorf("%s: got %v", ref, held[ref])
				}
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
	ago := func(age time.Duration, ref string) string {
		return time.Now().Add(-age).Format("2006-01-02 15:04:05 -0700 MST") + "\t" + ref + "\n"
	}
	const day = 24 * time.Hour
	list := ago(4*day, own+":2") + ago(1*day, own+":5") + ago(5*day, own+":1") + ago(2*day, own+":4") + ago(3*day, own+":3") + ago(9*day, own+":ours") +
		ago(9*day, own+"-base:1") + ago(9*day, own+":<none>")
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		switch {
		case cmd.Args[1] == "images":
			_, err := io.WriteString(cmd.Stdout, list)
			return err
		case slices.Contains(cmd.Args, own+":2"):
			return &command.Error{ExitCode: 2, Stderr: "Error: image used by abc: image is in use by a container: consider listing external containers"}
		}
		return nil
	}}
	prune := func() ([]string, error) {
		return engine.Engine{Name: "podman", Runner: runner}.Prune(t.Context(), own, 3, own+":ours")
	}
	removed, err := prune()
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
	// Four checkouts have just built theirs, and none has loaded it.
	list = ago(time.Minute, own+":a") + ago(2*time.Minute, own+":b") + ago(3*time.Minute, own+":c") + ago(4*time.Minute, own+":d")
	if removed, err := prune(); err != nil || len(removed) > 0 {
		t.Errorf("removed %v (%v), which other checkouts are about to load", removed, err)
	}
	broken := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if cmd.Args[1] == "rmi" {
			return errors.New("engine gone")
		}
		_, err := io.WriteString(cmd.Stdout, ago(day, own+":1"))
		return err
	}}
	if _, err := (engine.Engine{Name: "podman", Runner: broken}).Prune(t.Context(), own, 0); err == nil {
		t.Error("hides an engine that cannot remove")
	}
}
