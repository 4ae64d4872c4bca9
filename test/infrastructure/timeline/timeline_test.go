package timeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

func read(t *testing.T, dir string) timeline.Document {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "timeline.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc timeline.Document
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func open(t *testing.T, out io.Writer) (*timeline.Recorder, string) {
	t.Helper()
	dir := t.TempDir()
	return resume(dir, out), dir
}

// resume is another process's recorder for the same folder.
func resume(dir string, out io.Writer) *timeline.Recorder {
	return timeline.New(timeline.Options{
		Folder: func(bool) (string, error) { return dir, nil }, Cluster: "c", Variant: "standard", Screen: screen.New(out, nil),
	})
}

func TestStepsAreRecordedWithOutcomeAndDetail(t *testing.T) {
	var out bytes.Buffer
	r, dir := open(t, &out)
	broken := errors.New("disk full")
	steps := []struct {
		name string
		fn   func(context.Context, *timeline.Step) error
		want timeline.Outcome
	}{
		{"done", func(context.Context, *timeline.Step) error { return nil }, timeline.Done},
		{"cached", func(_ context.Context, s *timeline.Step) error { s.Cached("is there"); return nil }, timeline.Cached},
		{"skipped", func(_ context.Context, s *timeline.Step) error { s.Skipped("nothing"); return nil }, timeline.Skipped},
		{"failed", func(context.Context, *timeline.Step) error { return broken }, timeline.Failed},
		{"canceled", func(context.Context, *timeline.Step) error { return context.Canceled }, timeline.Canceled},
	}
	for _, step := range steps {
		err := r.Step(t.Context(), "build", step.name, step.fn)
		if step.want == timeline.Failed && (!errors.Is(err, broken) || err.Error() != "build/failed: disk full") {
			t.Errorf("error: got %v", err)
		}
	}
	doc := read(t, dir)
	for i, step := range steps {
		if got := doc.Steps[i].Outcome; got != step.want {
			t.Errorf("%s: got %s, want %s", step.name, got, step.want)
		}
	}
	if !strings.Contains(out.String(), "build/cached") || !strings.Contains(out.String(), "is there") {
		t.Errorf("progress lines lack the step or its detail:\n%s", out.String())
	}
}

func TestSumsSeparateSetupFromSuite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r, dir := open(t, &out)
		for _, step := range []struct {
			phase string
			takes time.Duration
		}{{"build", 3 * time.Second}, {"cluster", 10 * time.Second}, {"suite", 20 * time.Second}, {"teardown", 2 * time.Second}} {
			err := r.Step(t.Context(), step.phase, "x", func(ctx context.Context, _ *timeline.Step) error {
				<-time.After(step.takes)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		doc := read(t, dir)
		if doc.SetupSeconds != 13 || doc.SuiteSeconds != 20 || doc.TotalSeconds != 35 {
			t.Errorf("got setup %v, suite %v, total %v; want 13, 20, 35", doc.SetupSeconds, doc.SuiteSeconds, doc.TotalSeconds)
		}
	})
}

func TestLongStepSaysThatItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r, _ := open(t, &out)
		err := r.Step(t.Context(), "build", "node", func(_ context.Context, s *timeline.Step) error {
			s.Status("compiling")
			<-time.After(65 * time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "running for"); got != 2 {
			t.Errorf("got %d heartbeats in 65 s, want 2:\n%s", got, out.String())
		}
	})
}

func TestLogBelongsToTheStep(t *testing.T) {
	var out bytes.Buffer
	r, dir := open(t, &out)
	err := r.Step(t.Context(), "load", "gateway", func(ctx context.Context, _ *timeline.Step) error {
		_, err := fmt.Fprintln(timeline.Log(ctx), "importing")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "log", "load-gateway.log"))
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != "importing\n" {
		t.Errorf("got %q", data)
	}
}

func TestTeardownByItselfKeepsTheEvidence(t *testing.T) {
	var out bytes.Buffer
	nothing := func(context.Context, *timeline.Step) error { return nil }
	first, dir := open(t, &out)
	if err := first.Step(t.Context(), "build", "gateway", nothing); err != nil {
		t.Fatal(err)
	}
	again := resume(dir, &out)
	if err := again.Step(t.Context(), "teardown", "cluster", nothing); err != nil {
		t.Fatal(err)
	}
	if doc := read(t, dir); len(doc.Steps) != 1 || doc.Steps[0].Phase != "build" {
		t.Errorf("got %+v, want the first run's steps", doc.Steps)
	}
	if _, err := os.Stat(filepath.Join(dir, "log", "build-gateway.log")); err != nil {
		t.Error(err)
	}
}

func TestAStepThatMeetsItsOwnDeadlineHasFailed(t *testing.T) {
	waits := func(ctx context.Context, _ *timeline.Step) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	tests := []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		fn   func(context.Context, *timeline.Step) error
		want timeline.Outcome
	}{
		{"its own deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, errors.New("not done after 1s"))
		}, waits, timeline.Failed},
		{"its own deadline, of which the error says nothing", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, errors.New("not done after 1s"))
		}, func(ctx context.Context, _ *timeline.Step) error { <-ctx.Done(); return errors.New("exit 1") }, timeline.Failed},
		{"a deadline of a part of it", func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
			func(ctx context.Context, step *timeline.Step) error {
				ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errors.New("not done after 1s"))
				defer cancel()
				return waits(ctx, step)
			}, timeline.Failed},
		{"another's failure", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errors.New("another step failed")) })
			return context.WithTimeoutCause(ctx, time.Minute, errors.New("not done after 1m"))
		}, waits, timeline.Canceled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				r, dir := open(t, &out)
				ctx, cancel := test.ctx(t.Context())
				defer cancel()
				if err := r.Step(ctx, "load", "x", test.fn); err == nil {
					t.Error("got no error")
				}
				if got := read(t, dir).Steps[0].Outcome; got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

func TestVerboseShowsALastLineWithoutAnEnd(t *testing.T) {
	var out bytes.Buffer
	dir := t.TempDir()
	r := timeline.New(timeline.Options{Folder: func(bool) (string, error) { return dir, nil }, Screen: screen.New(&out, nil), Verbose: true})
	err := r.Step(t.Context(), "build", "x", func(ctx context.Context, _ *timeline.Step) error {
		_, err := io.WriteString(timeline.Log(ctx), "first\nlast")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "build/x | first\nbuild/x | last\nbuild/x  ") {
		t.Errorf("got\n%s", got)
	}
}

func TestAStatusOfManyLinesKeepsTheLiveLineOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		dir := t.TempDir()
		r := timeline.New(timeline.Options{Folder: func(bool) (string, error) { return dir, nil }, Screen: screen.New(&out, func() int { return 80 })})
		err := r.Step(t.Context(), "cluster", "create", func(_ context.Context, step *timeline.Step) error {
			step.Status("trying once more: exit 1:\nsecond\nthird")
			<-time.After(3 * time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "\n"); got != 1 {
			t.Errorf("got %d lines, want the step's own:\n%q", got, out.String())
		}
		if log, err := os.ReadFile(filepath.Join(dir, "log", "cluster-create.log")); !strings.Contains(string(log), "third") {
			t.Errorf("the log lacks the status' end: %q, %v", log, err)
		}
	})
}

func TestATerminalShowsHowStepsEndAndHowLongTheyTookLastTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		dir := t.TempDir()
		r := timeline.New(timeline.Options{
			Folder: func(bool) (string, error) { return dir, nil }, Screen: screen.New(&out, func() int { return 80 }), Color: true,
			Past: func(phase, name string, outcome timeline.Outcome) time.Duration {
				return map[string]time.Duration{"build/x done": 85 * time.Second}[phase+"/"+name+" "+string(outcome)]
			},
		})
		for _, name := range []string{"x", "y"} {
			_ = r.Step(t.Context(), "build", name, func(_ context.Context, step *timeline.Step) error {
				<-time.After(3 * time.Second)
				if name == "y" {
					return errors.New("broken")
				}
				step.Cached("there")
				return nil
			})
		}
		r.Tell(timeline.Done, "%d passed", 3)
		for _, want := range []string{"… build/x 2s of 85", "… build/y 2s\r", "\x1b[2m✓ build/x ", "\x1b[31m✗ build/y ", "\x1b[0m✓ 3 passed\x1b[0m\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in %q", want, out.String())
			}
		}
	})
}

func TestTheDocumentSaysHowARunEndedAndWhatHappenedBesideItsSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := open(t, io.Discard)
		started := time.Now()
		err := r.Step(t.Context(), "deploy", "infra", func(_ context.Context, step *timeline.Step) error {
			<-time.After(time.Second)
			step.Status("waiting")
			r.Note(timeline.Event{Kind: "warning", Name: "Pod/x", Start: time.Now()})
			r.Measure(timeline.Usage{At: time.Now(), Of: "machine", Cores: 1.5, Bytes: 7})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if doc := read(t, dir); doc.Result != "" || len(doc.Events) != 2 || doc.Events[0] != (timeline.Event{Kind: timeline.StatusEvent, Name: "deploy/infra", Start: started.Add(time.Second).UTC(), Detail: "waiting"}) || doc.Usage[0].Cores != 1.5 {
			t.Errorf("got %+v", doc)
		}
		if err := r.End(timeline.Broken, "why", map[string]string{"commit": "1"}); err != nil {
			t.Fatal(err)
		}
		if doc := read(t, dir); doc.Result != timeline.Broken || doc.Failure != "why" || doc.Facts["commit"] != "1" {
			t.Errorf("got %+v", doc)
		}
	})
}

func TestEvidenceBeginsWithTheFirstStepThatMakesSome(t *testing.T) {
	var out bytes.Buffer
	var asked []bool
	dir := t.TempDir()
	r := timeline.New(timeline.Options{Screen: screen.New(&out, nil), Folder: func(fresh bool) (string, error) {
		asked = append(asked, fresh)
		return dir, nil
	}})
	r.Say("looking")
	if len(asked) != 0 {
		t.Error("looking asked for a folder")
	}
	for _, phase := range []string{"teardown", "teardown", "build", "load", "teardown"} {
		if err := r.Step(t.Context(), phase, "x", func(context.Context, *timeline.Step) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(asked), "[false true]"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
