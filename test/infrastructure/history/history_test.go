package history_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/history"
)

var first = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// run is the hour'th run of a suite of three specs, of which the first two run at the same time
// unless apart.
func run(hour int, content string, apart bool, failed ...string) history.Run {
	r := history.Run{
		Suite: "gateway", Title: "Gateway", Variant: "standard", Commit: "c" + content, Content: content,
		Seed: int64(hour), Procs: 4, Start: first.Add(time.Duration(hour) * time.Hour), Seconds: float64(50 + hour),
	}
	at := 1.0
	if apart {
		at = 20
	}
	r.Specs = []history.Spec{
		{Name: "answers (once)", At: 0, Seconds: 10, Process: 1}, {Name: "restarts", At: at, Seconds: 10, Process: 2},
		{Name: "stands alone", At: 40, Seconds: 1, Process: 1}, {Name: "[BeforeSuite]", Node: true, Seconds: 1, Process: 1}, {Name: "[BeforeSuite]", Node: true, Seconds: 1, Process: 2},
	}
	for i := range r.Specs {
		for _, name := range failed {
			r.Specs[i].Failed = r.Specs[i].Failed || r.Specs[i].Name == name && (r.Specs[i].Process == 1 || !r.Specs[i].Node)
		}
	}
	return r
}

func printed(t *testing.T, runs []history.Run, broken bool) string {
	t.Helper()
	var out strings.Builder
	if err := history.Print(&out, runs, broken); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPrintTellsHowOftenSinceWhenBesideWhatAndHowToProvoke(t *testing.T) {
	var runs []history.Run
	for hour := range 20 {
		switch {
		case hour < 3: // broken, and not flaky
			runs = append(runs, run(hour, "0", true, "stands alone"))
		case hour == 7 || hour == 12:
			runs = append(runs, run(hour, "1", false, "answers (once)"))
		default:
			runs = append(runs, run(hour, "1", hour != 5, map[bool]string{true: "[BeforeSuite]"}[hour == 19]))
		}
	}
	// It follows the spec in the same process, and both times are rounded.
	runs[7].Specs[2].At, runs[12].Specs[2].At = 9.999, 9.999
	runs[19].Variant, runs[18].Left, runs[18].Seconds = "coverage", 2, 1
	got := printed(t, runs, false)
	want := `SUITE    VARIANT   RUNS  RED  RATE OF RED (95 %)  MEDIAN  MAX     
gateway  standard  19    5    11.8 - 48.8 %       59.0 s  67.0 s  
gateway  coverage  1     1    20.7 - 100.0 %      69.0 s  69.0 s  

gateway (standard): answers (once)
  failed 2 of 19 runs: 2.9 - 31.4 %; first 2026-03-01 17:00 at c1, last 2026-03-01 22:00 at c1; passed since: 6
  beside restarts: in 2 of 2 failed runs, in 1 of 17 others
  provoke: E2E_FOCUS='^Gateway (answers \(once\)|restarts)$' E2E_SEED=12 E2E_PROCS=4 go tool mage e2e:soak 20

gateway (standard): 2 specs never failed in 19 runs: each < 15.8 % (those that ran least, 16 runs: < 18.8 %)

gateway (coverage): 3 specs never failed in 1 runs: each < 100.0 %
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Whoever asks for all of them is told of what is broken, and of what is no spec.
	all := printed(t, runs, true)
	for _, want := range []string{
		"stands alone\n  failed 3 of 19 runs", "gateway (coverage): [BeforeSuite]\n  failed 1 of 1 runs: 20.7 - 100.0 %; first 2026-03-02 05:00 at c1; passed since: 0\n  provoke: E2E_SEED=19 E2E_PROCS=4 E2E_COVERAGE=true go tool mage e2e:soak 20\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

func TestThePastOfAFailureIsThatOfItsContent(t *testing.T) {
	if got := history.Past(nil, run(0, "1", true, "restarts")); len(got) > 0 {
		t.Errorf("got %q of a content that nothing is known of", got)
	}
	before := []history.Run{run(0, "1", true), run(1, "1", true, "restarts"), run(2, "1", true)}
	got := history.Past(before, run(3, "1", true, "restarts", "stands alone"))
	if len(got) != 2 || got["restarts"] != "failed 2 of 4 runs of this content, first on 2026-03-01 11:00" || got["stands alone"] != "failed 1 of 4 runs of this content, first on 2026-03-01 13:00" {
		t.Errorf("got %q", got)
	}
}

func TestRates(t *testing.T) {
	// Newcombe, Two-sided confidence intervals for the single proportion (1998), table I.
	for _, test := range []struct {
		k, n      int
		low, high float64
	}{{81, 263, .2553, .3662}, {15, 148, .0624, .1605}, {0, 20, 0, .1611}, {1, 29, .0061, .1718}} {
		if low, high := history.Wilson(test.k, test.n); math.Abs(low-test.low) > 5e-5 || math.Abs(high-test.high) > 5e-5 {
			t.Errorf("%d of %d: got %.4f to %.4f, want %.4f to %.4f", test.k, test.n, low, high, test.low, test.high)
		}
	}
	for n, want := range map[int]string{1: "< 100.0 %", 30: "< 10.0 %"} {
		if got := history.Rate(0, n); got != want {
			t.Errorf("got %s of %d, want %s", got, n, want)
		}
	}
}

func TestRunsAtTheSameTimeAreAllKept(t *testing.T) {
	store := history.Store{Dir: filepath.Join(t.TempDir(), "made", "when needed")}
	if runs, err := store.Runs(""); err != nil || len(runs) > 0 {
		t.Errorf("got %v, %v of a folder that is not there", runs, err)
	}
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			if err := store.Add(run(i, fmt.Sprint(i%2), true)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	filetest.Put(t, store.Dir, "20260301T100000.0-gateway-1.json.gz", "no gzip")
	runs, err := store.Runs("1")
	if len(runs) != 10 || err == nil || !strings.Contains(err.Error(), "gateway-1.json.gz: ") {
		t.Errorf("got %d runs, %v, want the ten of the content and the name of the damaged file", len(runs), err)
	}
	for i := range len(runs) - 1 {
		if runs[i].Start.After(runs[i+1].Start) || len(runs[i].Specs) != 5 {
			t.Errorf("got %+v", runs[i])
		}
	}
}

func TestTheOldestRunsGo(t *testing.T) {
	store := history.Store{Dir: t.TempDir()}
	filetest.Put(t, store.Dir, "notes.txt", "of somebody else")
	for i := range 1000 {
		filetest.Put(t, store.Dir, fmt.Sprintf("20250101T000000.%09d-gateway-1.json.gz", i), "")
	}
	if err := store.Add(run(0, "2", true)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(store.Dir, "*.json.gz"))
	if err != nil || len(left) != 1000 || !strings.HasSuffix(left[0], "01-gateway-1.json.gz") || !regexp.MustCompile(`/20260301T100000.000000000-gateway-2.json.gz$`).MatchString(left[999]) {
		t.Errorf("got %d files, %v, from %s to %s", len(left), err, left[0], left[len(left)-1])
	}
	if n, err := store.Remove(); n != 1000 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if others, err := os.ReadDir(store.Dir); len(others) != 1 || err != nil {
		t.Errorf("got %v, %v, want what is not of runs to stay", others, err)
	}
}
