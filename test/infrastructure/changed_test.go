package infrastructure

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/history"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

// specs is a file of a suite in which there is everything that a line may belong to.
const specs = `package suite

import (
	"os"
	"testing"

	. "github.com/onsi/ginkgo/v2"
)

func Test(t *testing.T) { RunSpecs(t, "A suite") }

func broken() string { return os.Getenv("BROKEN") }

var _ = Describe("A container", func() {
	var set string
	BeforeEach(func() {
		set = "1"
	})

	It("holds", Label("slow"), func() {
		if broken() != "" {
			Fail(set)
		}
	})

	Context("in another", func() {
		It("nests", func() {
			_ = 1
		})
	})

	DescribeTable("tells",
		func(n int) {
			_ = n
		},
		Entry("one", 1),
		Entry("two",
			2),
	)
})

var _ = Describe("Another container", func() {
	It("stands alone", func() {})
})
`

// ginkgoRun makes a module of its own of a suite in root, runs it by Ginkgo itself and returns
// the file of its report.
func ginkgoRun(t *testing.T, root string, env ...string) string {
	t.Helper()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		filetest.Put(t, root, name, string(text))
	}
	file := filepath.Join(t.TempDir(), "suite.json")
	err := command.Local{}.Run(t.Context(), command.Cmd{
		Args: []string{"go", "test", "./suite", "-count=1", "-ginkgo.json-report=" + file}, Dir: root, Env: command.GoEnv(env...),
	})
	if err != nil && len(env) == 0 {
		t.Fatal(err)
	}
	return file
}

func TestLinesAreFoundInTheSpecsThatTheyMake(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "suite/suite_test.go", specs)
	suite, err := report.ReadSuite(ginkgoRun(t, root), "suite", root, false)
	if err != nil || suite.Title != "A suite" || suite.Passed != 5 {
		t.Fatalf("got %+v, %v", suite, err)
	}
	nested := []string{"A container holds", "A container in another nests", "A container tells one", "A container tells two"}
	for text, want := range map[string][]string{
		"Fail(set)":                nested[:1],
		`It("holds"`:               nested[:1],
		"_ = 1":                    nested[1:2],
		`Context("in`:              nested[1:2],
		`Entry("one"`:              nested[2:3],
		"			2),":                   nested[3:],
		"_ = n":                    nested[2:],
		`set = "1"`:                nested,
		`It("stands`:               {"Another container stands alone"},
		"func broken":              nil,
		`"github.com/onsi/ginkgo/`: nil,
	} {
		before, _, _ := strings.Cut(specs, text)
		got, err := changedSpecs(root, suite, map[string][]int{"suite/suite_test.go": {strings.Count(before, "\n") + 1}, "suite/gone_test.go": {1}})
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestAFlakeOfARealSuiteIsRemembered(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "suite/suite_test.go", specs)
	store := history.Store{Dir: filepath.Join(t.TempDir(), "history")}
	for _, env := range [][]string{nil, {"BROKEN=1"}, nil} {
		file := ginkgoRun(t, root, env...)
		suite, err := report.ReadSuite(file, "suite", root, false)
		if err != nil {
			t.Fatal(err)
		}
		run := history.Run{Variant: "standard", Content: "1", Procs: 1}.Add(suite)
		before, err := store.Runs("1")
		if err != nil {
			t.Fatal(err)
		}
		if err := suite.Recall(file, history.Past(before, run)); err != nil {
			t.Fatal(err)
		}
		if again, err := report.ReadSuite(file, "suite", root, false); err != nil || env != nil && !strings.HasPrefix(again.Failures()[0].Past, "failed 1 of 2 runs of this content, first on 20") {
			t.Errorf("got %+v, %v", again.Failures(), err)
		}
		if err := store.Add(run); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := store.Runs("")
	if err != nil || len(runs) != 3 {
		t.Fatalf("got %d runs, %v", len(runs), err)
	}
	var out strings.Builder
	if err := history.Print(&out, runs, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"suite (standard): A container holds\n  failed 1 of 3 runs: 6.1 - 79.2 %; first 20", "; passed since: 1\n",
		"  provoke: E2E_FOCUS='^A suite A container holds$' E2E_SEED=", "suite (standard): 4 specs never failed in 3 runs: each < 100.0 %\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
