package infrastructure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/cluster"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/report"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// compileSuite compiles a suite, so that one that does not compile, or has no spec to
// run, costs no cluster.
func (e *Environment) compileSuite(ctx context.Context, p Phase) error {
	suite, err := e.suite(p.Name)
	if err != nil {
		return err
	}
	return e.step(ctx, p, e.Timeouts.Build, func(ctx context.Context, step *timeline.Step) error {
		binary, ginkgo := e.suiteBinary(p.Name), e.ginkgoProgram(p.Name)
		err := e.compile(p, step, []string{binary, ginkgo}, func() error {
			args, env := []string{"go", "test", "-c"}, []string(nil)
			if e.compiler(ctx) {
				args, env = append(args, "-race"), []string{"CGO_ENABLED=1"}
			} else {
				step.Status("without the race detector, which needs a C compiler; install gcc or set CC")
			}
			if err := e.goRun(ctx, append(args, "-o", binary, suite.Package), env...); err != nil {
				return err
			}
			return e.goRun(ctx, []string{"go", "build", "-o", ginkgo, ginkgoPackage})
		})
		if err != nil {
			return err
		}
		return e.selects(ctx, p.Name)
	})
}

// ginkgoPackage is the program that runs a suite in several processes, of the version
// that go.mod has.
const ginkgoPackage = "github.com/onsi/ginkgo/v2/ginkgo"

// ginkgoProgram is that program, one a suite because both may be compiled at once.
func (e *Environment) ginkgoProgram(suite string) string { return e.state.Build("ginkgo-" + suite) }

// compiler tells whether the C compiler is there that the race detector needs.
func (e *Environment) compiler(ctx context.Context) bool {
	name, err := command.Output(ctx, e.adapters.Runner, "go", "env", "CC")
	if err != nil || name == "" {
		return false
	}
	_, err = command.Find(strings.Fields(name)[0])
	return err == nil
}

func (e *Environment) suiteBinary(name string) string { return e.state.Build(name + ".test") }

// selection are Ginkgo's flags for which specs to run.
func (c SuiteConfig) selection(prefix string) []string {
	var flags []string
	for _, flag := range []struct{ name, value string }{{"focus", c.Focus}, {"skip", c.Skip}, {"label-filter", c.Labels}} {
		if flag.value != "" {
			flags = append(flags, "--"+prefix+flag.name+"="+flag.value)
		}
	}
	return flags
}

// String is the selection as the variables that made it.
func (c SuiteConfig) String() string {
	var set []string
	for _, variable := range []struct{ name, value string }{{"E2E_FOCUS", c.Focus}, {"E2E_SKIP", c.Skip}, {"E2E_LABELS", c.Labels}} {
		if variable.value != "" {
			set = append(set, variable.name+"="+report.Quote(variable.value))
		}
	}
	return strings.Join(set, " ")
}

// selects counts the specs that will run, where the run selects some. It fails when no
// suite of the run has any, and what is no selection at all.
func (e *Environment) selects(ctx context.Context, name string) error {
	selection := e.Config.Suite.selection("ginkgo.")
	if len(selection) == 0 || !slices.Contains(e.Goals, Phase{RunSuite, name}) {
		return nil
	}
	binary, file := e.suiteBinary(name), e.state.Build(name+".selected.json")
	counted, err := readDryRun(file)
	if err != nil || !counted.of(e.Config.Suite) || !newer(file, binary) {
		err := e.adapters.Runner.Run(ctx, command.Cmd{
			Args: slices.Concat([]string{binary, "--ginkgo.dry-run", "--ginkgo.json-report=" + file}, selection), Dir: e.Root, Env: command.GoEnv(command.Race()),
		})
		if err != nil {
			return fmt.Errorf("%s: %w", e.Config.Suite, err)
		}
		if counted, err = readDryRun(file); err != nil {
			return err
		}
	}
	count := counted.PreRunStats
	e.mu.Lock()
	defer e.mu.Unlock()
	e.selected[name] = count.SpecsThatWillRun
	for _, goal := range e.Goals {
		if count, known := e.selected[goal.Name]; goal.Kind == RunSuite && (!known || count > 0) {
			return nil
		}
	}
	if count.SpecsThatWillRun == 0 {
		return fmt.Errorf("%s: matches none of %d specs%s", e.Config.Suite, count.TotalSpecs, counted.example())
	}
	return nil
}

// dryRun is the part of the JSON report of a dry run that is read here.
type dryRun struct {
	PreRunStats struct{ TotalSpecs, SpecsThatWillRun int }
	SuiteConfig struct {
		FocusStrings, SkipStrings []string
		LabelFilter               string
	}
	SuiteDescription string
	SpecReports      []struct {
		ContainerHierarchyTexts    []string
		ContainerHierarchyLabels   [][]string
		LeafNodeType, LeafNodeText string
		LeafNodeLabels             []string
	}
}

// example shows whoever selected nothing what there is to select by; empty without specs.
func (d dryRun) example() string {
	for _, spec := range d.SpecReports {
		if spec.LeafNodeType != "It" {
			continue
		}
		name := strings.Join(slices.Concat([]string{d.SuiteDescription}, spec.ContainerHierarchyTexts, []string{spec.LeafNodeText}), " ")
		text := fmt.Sprintf("; one of them is %q", name)
		if labels := slices.Concat(append(spec.ContainerHierarchyLabels, spec.LeafNodeLabels)...); len(labels) > 0 {
			text += ", labeled " + strings.Join(labels, ", ")
		}
		return text
	}
	return ""
}

func readDryRun(file string) (dryRun, error) {
	var reports []dryRun
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &reports)
	}
	if err == nil && len(reports) != 1 {
		err = fmt.Errorf("of %d suites, not of one", len(reports))
	}
	if err != nil {
		return dryRun{}, fmt.Errorf("%s: %w", file, err)
	}
	return reports[0], nil
}

// of tells whether it was asked for the same specs.
func (d dryRun) of(c SuiteConfig) bool {
	return strings.Join(d.SuiteConfig.FocusStrings, "\n") == c.Focus && strings.Join(d.SuiteConfig.SkipStrings, "\n") == c.Skip && d.SuiteConfig.LabelFilter == c.Labels
}

// newer tells whether a file was written after another.
func newer(file, than string) bool {
	a, errA := os.Stat(file)
	b, errB := os.Stat(than)
	return errA == nil && errB == nil && a.ModTime().After(b.ModTime())
}

// runSuite writes target.json and runs the suite against the environment. Its JUnit
// and JSON reports are written also when it fails.
func (e *Environment) runSuite(ctx context.Context, p Phase) error {
	var ran report.Suite
	err := e.step(ctx, p, e.Timeouts.Suite, func(ctx context.Context, step *timeline.Step) (err error) {
		e.mu.Lock()
		count, known := e.selected[p.Name]
		e.mu.Unlock()
		if known && count == 0 {
			step.Skipped("%s matches none of its specs", e.Config.Suite)
			return nil
		}
		if err := e.writeTarget(ctx); err != nil {
			return err
		}
		if e.Variant == Coverage {
			if err := e.record.Tested(p.Name); err != nil {
				return err
			}
		}
		ran, err = e.ginkgo(ctx, step, p.Name, p.Name, e.Config.Suite, count)
		return err
	})
	if err != nil || e.Changed == 0 || ran.Name == "" { // none of its specs was selected
		return err
	}
	return e.again(ctx, ran)
}

// ginkgo runs the specs of a suite that are selected, so many or 0 if nobody has counted them,
// and leaves the reports under a name.
func (e *Environment) ginkgo(ctx context.Context, step *timeline.Step, suite, name string, selected SuiteConfig, count int) (report.Suite, error) {
	procs := selected.Procs
	if procs == 0 {
		// Specs wait more than they compute.
		procs = max(4, runtime.NumCPU())
	}
	if count > 0 {
		procs = min(procs, count) // each costs a second to start
	}
	args := []string{e.ginkgoProgram(suite), "run",
		"--procs=" + strconv.Itoa(procs), "--randomize-all", "--keep-going",
		"--fail-on-pending", "--fail-on-empty",
		"--timeout=" + (e.Timeouts.Suite - e.Timeouts.Gather).String(),
		"--output-dir=" + filepath.Join(e.Evidence, "junit"), "--junit-report=" + name + ".xml", "--json-report=" + name + ".json",
		"--no-color", "--succinct",
	}
	if selected.Seed != 0 {
		args = append(args, "--seed="+strconv.FormatInt(selected.Seed, 10))
	}
	args = append(args, selected.selection("")...)
	out := &screen.Lines{Emit: func(line string) { e.Timeline.Say("  %s", line) }}
	err := e.adapters.Runner.Run(ctx, command.Cmd{
		Args: append(args, e.suiteBinary(suite)), Dir: e.Root,
		Env:    command.GoEnv(target.EnvFile+"="+e.state.TargetFile(), "E2E_ALONE=true", command.Race()),
		Stdout: io.MultiWriter(timeline.Log(ctx), out),
	})
	out.Flush()
	file := filepath.Join(e.Evidence, "junit", name+".json")
	ran, reportErr := report.ReadSuite(file, suite, e.Root, e.Variant == Coverage)
	if reportErr != nil {
		return ran, cmp.Or(err, reportErr)
	}
	step.Detail("%s", ran.Counts())
	if err != nil {
		if node := e.ended(ctx); node != "" {
			return ran, fmt.Errorf("node %s: ended while the suite ran, which tells nothing of its specs: %s: %w", node, (&SuiteError{Counts: ran.Counts(), Failed: ran.Failures()}).Error(), err)
		}
	}
	var exit *command.Error
	specs := ran.Failed > 0 && errors.As(err, &exit)
	if err != nil && !specs || ctx.Err() != nil { // it tells of no spec
		if err != nil && len(ran.Reasons) > 0 {
			err = fmt.Errorf("%s: %w", strings.Join(ran.Reasons, "; "), err)
		}
		return ran, err
	}
	e.remember(ctx, ran, procs, file)
	if err == nil {
		return ran, nil
	}
	return ran, &SuiteError{Suite: suite, Counts: ran.Counts(), Failed: ran.Failures()}
}

// ended returns a node of the cluster that does not run any more; empty if all do, or nobody
// can tell.
func (e *Environment) ended(ctx context.Context) string {
	made, err := e.state.Record()
	running, listErr := e.adapters.Cluster.Nodes(ctx)
	if err != nil || listErr != nil {
		return ""
	}
	for _, node := range made.Nodes {
		if !slices.Contains(running, node) {
			return node
		}
	}
	return ""
}

// SuiteError is a suite that ran and in which specs failed.
type SuiteError struct {
	Suite  string
	Counts string
	Failed []report.Failure
}

// shownSpecs is how many failed specs the last lines on the screen name; all stand
// in the log, the JUnit report and the page.
const shownSpecs = 10

// Error names the specs, why each failed, and how to repeat it on the kept cluster.
func (e *SuiteError) Error() string {
	var b strings.Builder
	fmt.Fprint(&b, e.Counts)
	for i, failure := range e.Failed {
		if i == shownSpecs {
			fmt.Fprintf(&b, "\n  and %d more", len(e.Failed)-shownSpecs)
			break
		}
		fmt.Fprintf(&b, "\n  %s\n    %s:%d: %s\n", failure.Name, failure.File, failure.Line, failure.Brief())
		if failure.Past != "" {
			fmt.Fprintf(&b, "    %s\n", failure.Past)
		}
		fmt.Fprintf(&b, "    again: %s", failure.Again)
	}
	return b.String()
}

// writeTarget describes the deployed environment to the suites.
func (e *Environment) writeTarget(ctx context.Context) error {
	nodes, err := e.nodes(ctx)
	if err != nil {
		return err
	}
	first := e.ClusterName + "-control-plane"
	if !slices.Contains(nodes, first) {
		return fmt.Errorf("cluster %s: its node %s does not run", e.ClusterName, first)
	}
	mapped, err := e.ports(ctx, first)
	if err != nil {
		return err
	}
	endpoints := map[string]string{}
	for _, port := range e.NodePorts {
		address, ok := mapped[cluster.Port{Number: port.NodePort, Protocol: port.Protocol}]
		if !ok {
			return fmt.Errorf("cluster %s: node port %d of Service %s is not mapped; run: %s", e.ClusterName, port.NodePort, port.Service, e.command("cluster:delete"))
		}
		endpoints[port.Service+"/"+port.Port] = address
	}
	e.mu.Lock()
	images := maps.Clone(e.refs)
	e.mu.Unlock()
	t := &target.Target{
		Cluster: e.ClusterName, Variant: string(e.Variant), Engine: e.adapters.EngineName, Nodes: nodes,
		Kubeconfig: e.state.Kubeconfig(), Namespace: e.Namespace, Artifacts: e.state.Dir(), Endpoints: endpoints, Images: images,
	}
	return t.Write(e.state.TargetFile())
}
