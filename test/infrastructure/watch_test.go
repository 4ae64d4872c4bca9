package infrastructure_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/image"
)

// lists answers go list with the folder of the package that is asked for.
type lists struct {
	command.Runner
	root string
}

func (l lists) Run(ctx context.Context, cmd command.Cmd) error {
	if len(cmd.Args) > 3 && cmd.Args[3] == "list" {
		_, err := fmt.Fprintln(cmd.Stdout, filepath.Join(l.root, cmd.Args[len(cmd.Args)-1]))
		return err
	}
	return l.Runner.Run(ctx, cmd)
}

func TestWatchDoesWhatAChangeAsksForAndProvesWhoAnswers(t *testing.T) {
	r := newRig(t, "E2E_PROCS=1")
	suite := infrastructure.Phase{Kind: infrastructure.RunSuite, Name: "first"}
	filetest.Put(t, r.plan.Root, "left/cmd/server/main.go", "package main\n")
	filetest.Put(t, r.plan.Root, "test/e2e/first/suite_test.go", "package first\n")
	ran, proving := make(chan bool, 1), make(chan bool, 1)
	var outcome atomic.Value
	var old atomic.Bool
	outcome.Store(`{"LeafNodeType":"It","LeafNodeText":"holds","State":"passed"}`)
	r.world.Report = func(string) string {
		defer func() { ran <- true }()
		return `[{"PreRunStats":{"TotalSpecs":9,"SpecsThatWillRun":9},"SpecReports":[` + outcome.Load().(string) + `]}]`
	}
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.Contains(call, "--json-report=first.json") && strings.Contains(outcome.Load().(string), "failed") {
			return &command.Error{ExitCode: 1}
		}
		return nil
	}
	var env *infrastructure.Environment
	r.adapt = func(adapters *infrastructure.Adapters) {
		adapters.Runner = lists{adapters.Runner, r.plan.Root}
		adapters.Pods = func(context.Context, string, string) (pods []corev1.Pod, err error) {
			for _, name := range []string{"left", "right"} {
				ref, err := env.Ref(name)
				if err != nil {
					return nil, err
				}
				if old.Load() && name == "left" {
					ref = image.Repository + "left:old"
					defer func() { proving <- true }()
				}
				pods = append(pods, corev1.Pod{Status: corev1.PodStatus{
					Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
					ContainerStatuses: []corev1.ContainerStatus{{Image: ref}},
				}})
			}
			return pods, nil
		}
	}
	r.plan.Goals = []infrastructure.Phase{suite}
	env = r.open()
	needed, err := r.plan.Needed(suite)
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range needed[:len(needed)-1] {
		if err := env.Do(t.Context(), phase); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- env.Watch(ctx, suite) }()
	await := func(what chan bool) {
		t.Helper()
		select {
		case <-what:
		case <-time.After(time.Minute):
			t.Fatal("nothing came of it")
		}
	}
	await(ran)
	calls := func(file, text string, wait chan bool) string {
		t.Helper()
		before := len(r.world.Calls())
		filetest.Put(t, r.plan.Root, file, text)
		await(wait)
		return strings.Join(r.world.Calls()[before:], "\n")
	}
	// Nobody knows yet what is compiled of what: everything is gone through.
	if got := calls("left/cmd/server/main.go", "package main // 1\n", ran); !strings.Contains(got, "run go build") || !strings.Contains(got, "wait") {
		t.Errorf("got %s, want all phases", got)
	}
	outcome.Store(`{"LeafNodeType":"It","LeafNodeText":"holds (1)","State":"failed","Failure":{"Message":"no"}}`)
	if got := calls("test/e2e/first/suite_test.go", "package first // 1\n", ran); !strings.Contains(got, "run go test -c") || strings.Contains(got, "wait") || strings.Contains(got, "ps ") {
		t.Errorf("got %s, want the suite to be compiled and nothing else", got)
	}
	outcome.Store(`{"LeafNodeType":"It","LeafNodeText":"holds (1)","State":"passed"}`)
	got := calls("left/cmd/server/main.go", "package main // 2\n", ran)
	if !strings.Contains(got, "run go build") || strings.Contains(got, "go test -c") || !strings.Contains(got, `--focus=holds \(1\)`) {
		t.Errorf("got %s, want the service to be built and the spec to run that failed", got)
	}
	old.Store(true)
	if got := calls("left/cmd/server/main.go", "package main // 3\n", proving); strings.Contains(got, "--json-report") {
		t.Errorf("got %s, want no suite on the old program", got)
	}
	old.Store(false)
	if got := calls("test/e2e/first/suite_test.go", "package first // 2\n", ran); !strings.Contains(got, "wait") {
		t.Errorf("got %s, want also to be done again what did not come", got)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("ended as if it had come to its end")
	}
	if out := r.out.String(); !strings.Contains(out, ": answers, and runs "+image.Repository+"left:old, not ") || !strings.Contains(out, "1 failed") {
		t.Errorf("got %s, want a line of each verdict", out)
	}
}
