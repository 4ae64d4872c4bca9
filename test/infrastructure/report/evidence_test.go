package report_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// work is a step of a made-up run.
type work struct {
	phase, name string
	at, took    time.Duration
	outcome     timeline.Outcome
	detail      string
}

// setUp is how a chain sets up: in parallel, then one after the other.
var setUp = []work{
	{"build", "postgres", 0, 400 * time.Millisecond, timeline.Cached, "localhost/postgres:1"},
	{"build", "compile", 0, 10 * time.Second, timeline.Done, ""},
	{"build", "suite-gateway", 0, 12 * time.Second, timeline.Done, ""},
	{"build", "gateway", 10 * time.Second, time.Second, timeline.Done, "localhost/gateway:1"},
	{"cluster", "create", 12 * time.Second, 16 * time.Second, timeline.Done, "e2e-test"},
	{"load", "gateway", 28 * time.Second, 2 * time.Second, timeline.Done, ""},
	{"deploy", "infra", 28 * time.Second, 5 * time.Second, timeline.Done, "8 created"},
	{"deploy", "gateway", 33 * time.Second, 2 * time.Second, timeline.Done, "11 created"},
}

// suiteAt is when the suite of a made-up run begins.
const suiteAt = 35 * time.Second

func with(more ...work) []work { return append(append([]work{}, setUp...), more...) }

// record makes the evidence of a run by the recorder of real ones, in a time of its own.
// suite is called when the step of a suite ends, with the time at which the run began.
func record(t *testing.T, dir string, steps []work, also func(r *timeline.Recorder, started time.Time)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// Folders are named by when a run began: here by the hour.
		if hour, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			<-time.After(time.Duration(hour) * time.Hour)
		}
		r := timeline.New(timeline.Options{
			Folder: func(bool) (string, error) { return dir, nil }, Cluster: "e2e-test", Variant: "standard", Target: "e2e:gateway", Root: "/src/kubernaut",
			Screen: screen.New(io.Discard, nil),
		})
		started := time.Now()
		var wait sync.WaitGroup
		for _, step := range steps {
			wait.Go(func() {
				<-time.After(step.at)
				_ = r.Step(t.Context(), step.phase, step.name, func(ctx context.Context, s *timeline.Step) error {
					fmt.Fprintf(timeline.Log(ctx), "what %s/%s printed\n", step.phase, step.name)
					if step.phase == "deploy" && step.name == "infra" {
						s.Status("waiting for StatefulSet/postgresql")
					}
					<-time.After(step.took)
					switch step.outcome {
					case timeline.Cached:
						s.Cached("%s", step.detail)
					case timeline.Skipped:
						s.Skipped("%s", step.detail)
					case timeline.Failed:
						return errors.New(step.detail)
					case timeline.Canceled:
						return context.Canceled
					case timeline.Done:
						s.Detail("%s", step.detail)
					}
					return nil
				})
			})
		}
		wait.Wait()
		if also != nil {
			also(r, started)
		}
	})
}

func end(t *testing.T, r *timeline.Recorder, result timeline.Result, failure string) {
	t.Helper()
	if err := r.End(result, failure, map[string]string{"commit": "91c5614", "engine": "podman", "go": "go1.26.8"}); err != nil {
		t.Fatal(err)
	}
}

// ran writes what Ginkgo leaves of a suite: specs in parallel on four processes, and
// three after them one at a time, which make faults.
func ran(t *testing.T, dir string, start time.Time, count int, each time.Duration, failed ...int) {
	t.Helper()
	suite := types.Report{SuiteDescription: "Gateway", StartTime: start, SuiteConfig: types.SuiteConfig{RandomSeed: 42}}
	at := func(file string, line int) types.CodeLocation {
		return types.CodeLocation{FileName: "/src/kubernaut/test/e2e/gateway/" + file, LineNumber: line}
	}
	now := make([]time.Time, 4)
	for i := range now {
		now[i] = start
	}
	for i := range count {
		process := i % 4
		spec := types.SpecReport{
			LeafNodeType: types.NodeTypeIt, LeafNodeText: fmt.Sprintf("says %d, <quoted> & \"whole\"", i), ContainerHierarchyTexts: []string{"The Gateway's answer"},
			State: types.SpecStatePassed, ParallelProcess: process + 1, StartTime: now[process], RunTime: each,
		}
		if serial := i - (count - 3); serial >= 0 {
			for _, other := range now {
				if other.After(now[0]) {
					now[0] = other
				}
			}
			spec.StartTime, spec.ParallelProcess, spec.IsSerial, spec.RunTime = now[0], 1, true, 4*time.Second
			process = 0
			entry := func(name, value string, after time.Duration) {
				spec.ReportEntries = append(spec.ReportEntries, types.ReportEntry{Name: name, Value: types.WrapEntryValue(value), TimelineLocation: types.TimelineLocation{Time: spec.StartTime.Add(after)}})
			}
			entry(target.FaultBegins, "postgresql is away", time.Second)
			entry(target.Fault, "gateway gets KILL", 2*time.Second)
			if serial > 0 {
				entry(target.FaultOver, "postgresql is away", 3*time.Second)
			}
		}
		spec.EndTime = spec.StartTime.Add(spec.RunTime)
		now[process] = spec.EndTime
		spec.SpecEvents = types.SpecEvents{
			{SpecEventType: types.SpecEventNodeEnd, NodeType: types.NodeTypeBeforeEach, CodeLocation: at("suite_test.go", 9), Duration: spec.RunTime / 4, TimelineLocation: types.TimelineLocation{Time: spec.StartTime.Add(spec.RunTime / 4)}},
			{SpecEventType: types.SpecEventNodeEnd, NodeType: types.NodeTypeIt, CodeLocation: at("a_test.go", i), Duration: spec.RunTime / 2, TimelineLocation: types.TimelineLocation{Time: spec.StartTime.Add(3 * spec.RunTime / 4)}},
		}
		for _, wrong := range failed {
			if wrong == i {
				spec.State = types.SpecStateFailed
				spec.Failure = types.Failure{Message: "Expected\n    <int>: 503\nto be a 201\n<script>alert(1)</script>", Location: at("a_test.go", 7)}
				spec.ReportEntries = append(spec.ReportEntries, types.ReportEntry{Name: "what was said", Value: types.WrapEntryValue(
					"POST http://127.0.0.1:30080/api/v1/signals/prometheus\n{\"alerts\":[]}\n-> 503, request id \"7\"\ngateway: {\"level\":\"ERROR\",\"request_id\":\"7\"}")})
			}
		}
		suite.SpecReports = append(suite.SpecReports, spec)
	}
	suite.SpecReports = append(suite.SpecReports,
		types.SpecReport{LeafNodeType: types.NodeTypeSynchronizedBeforeSuite, State: types.SpecStatePassed, ParallelProcess: 1, StartTime: start.Add(-time.Second), RunTime: time.Second},
		types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: "waits", State: types.SpecStateSkipped})
	if len(failed) > 0 {
		suite.SpecReports = append(suite.SpecReports, types.SpecReport{LeafNodeType: types.NodeTypeReportAfterSuite, LeafNodeText: "leaves nothing behind", State: types.SpecStateTimedout,
			ParallelProcess: 1, StartTime: now[0], RunTime: 2 * time.Second, Failure: types.Failure{Message: "too late", Location: at("suite_test.go", 9)}})
	}
	suite.RunTime = now[0].Sub(start)
	if err := reporters.GenerateJSONReport(suite, filepath.Join(dir, "junit", "gateway.json")); err != nil {
		t.Fatal(err)
	}
}

// job is where GitHub shows a run.
const job = "https://github.com/o/r/actions/runs/7"

// kinds are runs of every kind, by name; each makes the evidence of one in a folder.
var kinds = map[string]func(t *testing.T, dir string){
	"green": func(t *testing.T, dir string) { green(t, dir, 40, 500*time.Millisecond) },
	"spec":  failedSpec,
	"set-up": func(t *testing.T, dir string) {
		steps := append(setUp[:4:4],
			work{"cluster", "create", 12 * time.Second, 16 * time.Second, timeline.Done, ""},
			work{"deploy", "infra", 28 * time.Second, 3 * time.Second, timeline.Failed, "StatefulSet/postgresql: not ready after 3s: Pod postgresql-0: CrashLoopBackOff: exit 1\n" + strings.Repeat("its log, which is one long line; ", 80)},
			work{"load", "gateway", 28 * time.Second, 3 * time.Second, timeline.Canceled, ""},
			work{"gather", "diagnostics", 31 * time.Second, 2 * time.Second, timeline.Done, ""})
		record(t, dir, steps, func(r *timeline.Recorder, _ time.Time) {
			end(t, r, timeline.Broken, "deploy/infra: StatefulSet/postgresql: not ready")
		})
		filetest.Put(t, dir, "gather/summary.txt", "Pods, the most likely cause first\n  Pod/kubernaut-system/postgresql-0: CrashLoopBackOff\n")
	},
	"interrupted": func(t *testing.T, dir string) {
		record(t, dir, with(work{"suite", "gateway", suiteAt, 7 * time.Second, timeline.Canceled, ""}), func(r *timeline.Recorder, _ time.Time) {
			end(t, r, timeline.Interrupted, "suite/gateway: context canceled")
		})
	},
	"coverage": func(t *testing.T, dir string) {
		green(t, dir, 40, 500*time.Millisecond)
		counts := report.Counts{Statements: 80, Both: 20, EndToEnd: 30, Tests: 10}
		covered := []report.Coverage{{
			Service: "gateway", Pods: []string{"gateway-1"}, Tested: true, Counts: counts, Generated: 7,
			Packages:  []report.Package{{Path: "kubernaut.ai/e2e/docker/gateway", Counts: report.Counts{Statements: 4}}, {Path: "kubernaut.ai/e2e/docker/gateway/intake", Counts: counts}},
			Unreached: []report.Function{{Name: "(*Intake).never", File: "docker/gateway/intake/intake.go", Line: 3, Counts: report.Counts{Statements: 4}}},
		}}
		data, err := json.Marshal(covered)
		if err != nil {
			t.Fatal(err)
		}
		filetest.Put(t, dir, report.CoverageFile, string(data))
	},
	"github": func(t *testing.T, dir string) {
		record(t, dir, setUp, func(r *timeline.Recorder, _ time.Time) {
			if err := r.End(timeline.Passed, "", map[string]string{"job": job}); err != nil {
				t.Fatal(err)
			}
		})
	},
	"every": every,
	"many":  func(t *testing.T, dir string) { green(t, dir, 2000, 200*time.Millisecond) },
}

// green is a run that passed, of a suite of so many specs.
func green(t *testing.T, dir string, specs int, each time.Duration) {
	t.Helper()
	record(t, dir, with(work{"suite", "gateway", suiteAt, time.Duration(specs/4)*each + 14*time.Second, timeline.Done, "passed"}, work{"teardown", "cluster", 200 * time.Second, time.Second, timeline.Done, ""}),
		func(r *timeline.Recorder, started time.Time) {
			ran(t, dir, started.Add(suiteAt+time.Second), specs, each)
			end(t, r, timeline.Passed, "")
		})
}

func failedSpec(t *testing.T, dir string) {
	t.Helper()
	record(t, dir, with(work{"suite", "gateway", suiteAt, 30 * time.Second, timeline.Failed, "37 passed, 3 failed"}), func(r *timeline.Recorder, started time.Time) {
		ran(t, dir, started.Add(suiteAt+time.Second), 40, time.Second, 5, 38)
		end(t, r, timeline.Broken, "suite/gateway: 37 passed, 3 failed")
	})
}

// every is a run with steps of every outcome and events of every kind, known or not.
func every(t *testing.T, dir string) {
	t.Helper()
	steps := with(work{"load", "skipped", 28 * time.Second, 0, timeline.Skipped, "not wanted"}, work{"load", "instant", 28 * time.Second, 0, timeline.Done, ""}, work{"deploy", "canceled", 33 * time.Second, time.Second, timeline.Canceled, ""},
		work{"deploy", "failed", 33 * time.Second, 0, timeline.Failed, "broken"}, work{"unheard-of", "phase", 34 * time.Second, time.Second, timeline.Done, ""},
		work{"suite", "gateway", suiteAt, 30 * time.Second, timeline.Failed, "37 passed, 3 failed"})
	record(t, dir, steps, func(r *timeline.Recorder, started time.Time) {
		ran(t, dir, started.Add(suiteAt+time.Second), 40, time.Second, 5)
		r.Note(
			timeline.Event{Kind: "warning", Name: "Pod/kubernaut-system/gateway-1", Start: started.Add(40 * time.Second), Detail: "Unhealthy: readiness probe failed"},
			timeline.Event{Kind: "restart", Name: "Pod/kubernaut-system/gateway-1", Start: started.Add(50 * time.Second), Detail: "exit 137"},
			timeline.Event{Kind: "eclipse", Name: "of the moon", Start: started.Add(20 * time.Second), End: started.Add(45 * time.Second)},
			timeline.Event{Kind: "omen", Name: "a comet", Start: started.Add(time.Second)},
		)
		for i := range 60 {
			at := started.Add(time.Duration(i) * time.Second)
			r.Measure(timeline.Usage{At: at, Of: "machine", Cores: 1 + float64(i%7)/7, Bytes: int64(i+20) << 26}, timeline.Usage{At: at, Of: "gateway-1", Cores: float64(i%5) / 20, Bytes: 40 << 20})
		}
		end(t, r, timeline.Broken, "deploy/failed: broken")
	})
}

// made is a run of a kind, with its page; beside it lies a green one that was before.
func made(t *testing.T, kind string) *report.Run {
	t.Helper()
	runs := t.TempDir()
	if kind == "every" || kind == "spec" {
		green(t, filepath.Join(runs, "1"), 40, 300*time.Millisecond)
	}
	dir := filepath.Join(runs, "2")
	kinds[kind](t, dir)
	run, err := report.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Write(); err != nil {
		t.Fatal(err)
	}
	return run
}

func read(t *testing.T, run *report.Run, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(run.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
