package orderings

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

func TestWhatIsMissingIsMeasuredInterleaved(t *testing.T) {
	some, err := cells("^plain warm (standard|hybrid)$")
	if err != nil || len(some) != 2 {
		t.Fatal(some, err)
	}
	r := &Results{Samples: []Sample{{Cell: some[1]}}}
	want := "[plain warm standard plain warm hybrid plain warm standard]"
	if got := fmt.Sprint(r.left(some, 2)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := cells("nothing such"); err == nil || !strings.Contains(err.Error(), `matches nothing as "plain cold hybrid"`) {
		t.Errorf("got %v, want an example of what it could match", err)
	}
}

func TestTheReportComparesPairsOfARound(t *testing.T) {
	r := &Results{Commit: "c", Machine: "m"}
	add := func(ordering string, all ...float64) {
		for _, took := range all {
			r.Samples = append(r.Samples, Sample{Cell{string(infrastructure.Standard), warm, ordering}, took, 2 * took, []Step{{"cluster/create", took}, {"load/redis", 0.05}}})
		}
	}
	add("standard", 40, 30, 32)
	add("hybrid", 36, 31, 27)
	report := r.markdown()
	for _, want := range []string{
		"| plain warm standard | 3 | **32.0** (30.0-40.0) | 64.0 | cluster/create 32.0 |",
		"| plain warm | standard | -4.0 s (-5.0 to +1.0) | -12 % | 2 of 3 |",
		"- hybrid has the least median of those that were measured: plain warm\n",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("missing: %s\nin %s", want, report)
		}
	}
	if strings.Contains(report, "| plain warm restored |") {
		t.Error("a figure that was not measured")
	}
	if picture := r.picture(); strings.Count(picture, "<rect") != 3 || !strings.Contains(picture, ">31.0 s<") {
		t.Errorf("got %s, want two bars", picture)
	}
}

func TestThePathIsWhatTheEndWaitedFor(t *testing.T) {
	plan, err := infrastructure.NewPlan("../../..", infrastructure.Kubernaut(), infrastructure.Config{Variant: infrastructure.Standard})
	if err != nil {
		t.Fatal(err)
	}
	at := func(phase, name string, start, end int) timeline.Entry {
		return timeline.Entry{Phase: phase, Name: name, Start: time.Unix(int64(start), 0), End: time.Unix(int64(end), 0)}
	}
	got := path(plan, []timeline.Entry{
		at("build", "compile", 0, 9), at("build", "gateway", 9, 10), at("build", "redis", 0, 2), at("cluster", "create", 10, 20),
		at("deploy", "cluster", 20, 21), at("load", "redis", 20, 22), at("load", "postgres", 20, 24),
		at("deploy", "infra", 24, 25), at("teardown", "cluster", 25, 30),
	})
	if want := "[{build/compile 9} {build/gateway 1} {cluster/create 10} {load/postgres 4} {deploy/infra 1}]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
