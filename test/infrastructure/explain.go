package infrastructure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/apply"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/screen"
	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

// Forecast is what a run would do about one phase now.
type Forecast struct {
	Phase  Phase
	Action string // build, pull, create, mend, restore, load, deploy or run; cached when nothing would be made
	Why    string
	// Took is what the phase took when it last did such a thing; 0 when that is not known.
	Took time.Duration
}

// cached is the action of a phase that finds what it would make, as the run will say of it.
const cached = string(timeline.Cached)

// Explain tells what a run with the plan's goals would do now, and why, in the order of
// its phases. It looks at files, at the engine's store and at the node, and changes
// nothing.
func Explain(ctx context.Context, plan *Plan, adapters Adapters) ([]Forecast, error) {
	needed, err := plan.Needed(plan.Goals...)
	if err != nil {
		return nil, err
	}
	x := &explainer{Environment: newEnvironment(ctx, plan, adapters), made: map[Phase]Forecast{}}
	if x.sources, err = x.state.Sources(); err != nil {
		return nil, err
	}
	took := past(x.state)
	var forecasts []Forecast
	for _, phase := range needed {
		forecast, err := x.forecast(ctx, phase)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", phase, err)
		}
		outcome := timeline.Done
		if forecast.Action == cached {
			outcome = timeline.Cached
		}
		kind, name := phase.step()
		forecast.Phase, forecast.Took = phase, took(kind, name, outcome)
		x.made[phase] = forecast
		forecasts = append(forecasts, forecast)
	}
	return forecasts, nil
}

// explainer is an environment that only looks.
type explainer struct {
	*Environment
	sources checkout.Sources
	made    map[Phase]Forecast
}

func (x *explainer) forecast(ctx context.Context, p Phase) (Forecast, error) {
	switch p.Kind {
	case CompileServices:
		var packages []string
		for _, spec := range x.covered() {
			packages = append(packages, spec.Package)
		}
		return x.compiled(ctx, p, packages...)
	case CompileSuite:
		suite, err := x.suite(p.Name)
		if err != nil {
			return Forecast{}, err
		}
		return x.compiled(ctx, p, suite.Package)
	case CompileProgram:
		return Forecast{Action: "build", Why: "the go command says what has changed"}, nil
	case BuildImage:
		return x.built(ctx, p)
	case CreateCluster:
		return x.cluster(ctx)
	case LoadImage:
		return x.loaded(ctx, p)
	case DeployComponent:
		return x.deployedAs(p)
	case RunSuite, RunProgram:
		return Forecast{Action: "run", Why: x.Config.Suite.String()}, nil
	}
	return Forecast{}, fmt.Errorf("of unknown kind %q", p.Kind)
}

// compiled tells of programs: they are made of the packages that go list names.
func (x *explainer) compiled(ctx context.Context, p Phase, packages ...string) (Forecast, error) {
	was := x.state.BuiltOf(p.String())
	if was == nil {
		return Forecast{Action: "build", Why: "nothing is compiled yet"}, nil
	}
	changed, err := x.changed(ctx, was, packages...)
	if err != nil || changed == "" {
		return Forecast{Action: cached, Why: "nothing has changed"}, err
	}
	return Forecast{Action: "build", Why: "changed: " + changed}, nil
}

// changed names a file that is another than it was and goes into the packages; empty if
// there is none.
func (x *explainer) changed(ctx context.Context, was checkout.Sources, packages ...string) (string, error) {
	candidates := x.sources.Changed(was)
	if len(candidates) == 0 {
		return "", nil
	}
	var out strings.Builder
	err := x.adapters.Runner.Run(ctx, command.Cmd{
		Args: append([]string{"go", "list", "-deps", "-test", "-f", "{{if not .Standard}}{{.Dir}}{{end}}"}, packages...), Dir: x.Root, Env: command.GoEnv(), Stdout: &out,
	})
	if err != nil {
		return "", err
	}
	dirs := map[string]bool{}
	for _, dir := range strings.Fields(out.String()) {
		if dir, err := filepath.Rel(x.Root, dir); err == nil && !strings.HasPrefix(dir, "..") {
			dirs[filepath.ToSlash(dir)] = true
		}
	}
	suites := slices.ContainsFunc(packages, func(pkg string) bool { return strings.HasPrefix(pkg, "./test/") })
	for _, path := range candidates {
		if path == "go.mod" || path == "go.sum" {
			return path, nil
		}
		if strings.HasSuffix(path, "_test.go") && !suites {
			continue
		}
		// Files that are not Go's may be embedded from folders below a package's.
		for dir := filepath.ToSlash(filepath.Dir(path)); dir != "."; dir = filepath.ToSlash(filepath.Dir(dir)) {
			if dirs[dir] {
				return path, nil
			}
			if strings.HasSuffix(path, ".go") {
				break
			}
		}
	}
	return "", nil
}

// built tells of an image.
func (x *explainer) built(ctx context.Context, p Phase) (Forecast, error) {
	spec, err := x.image(p.Name)
	if err != nil {
		return Forecast{}, err
	}
	if spec.Package == "" {
		return x.obtained(spec)
	}
	was := x.state.BuiltOf(Phase{Kind: CompileServices}.String())
	if was == nil {
		return Forecast{Action: "build", Why: "its program is not compiled yet"}, nil
	}
	changed, err := x.changed(ctx, was, spec.Package)
	if err != nil {
		return Forecast{}, err
	}
	if dockerfile := filepath.ToSlash(x.relative(filepath.Join(x.source(spec), "Dockerfile"))); x.sources[dockerfile] != was[dockerfile] {
		changed = dockerfile
	}
	if changed != "" {
		return Forecast{Action: "build", Why: "changed: " + changed}, nil
	}
	ref, err := x.serviceRef(spec)
	if os.IsNotExist(err) {
		return Forecast{Action: "build", Why: "its program is not there"}, nil
	}
	if err != nil {
		return Forecast{}, err
	}
	found, err := x.adapters.Engine.Exist(ctx, ref)
	if err != nil || !found[ref] {
		return Forecast{Action: "build", Why: "not in " + x.adapters.EngineName + "'s store"}, err
	}
	x.setRef(spec.Name, ref, false)
	return Forecast{Action: cached, Why: ref}, nil
}

// obtained tells of a third-party image.
func (x *explainer) obtained(spec ImageSpec) (Forecast, error) {
	built, err := x.builtRef(spec)
	if err != nil {
		return Forecast{}, err
	}
	held, err := x.held()
	if err != nil {
		return Forecast{}, err
	}
	for _, known := range []struct {
		ref      string
		packaged bool
		not      ImagePolicy
	}{{spec.Pull, false, ImagesBuild}, {built, true, ImagesPull}} {
		if x.ImagePolicy != known.not && held[known.ref] {
			x.setRef(spec.Name, known.ref, known.packaged)
			return Forecast{Action: cached, Why: known.ref}, nil
		}
	}
	if x.ImagePolicy == ImagesBuild {
		return Forecast{Action: "build", Why: "E2E_IMAGES=build"}, nil
	}
	return Forecast{Action: "pull", Why: "not in " + x.adapters.EngineName + "'s store"}, nil
}

// cluster tells of the cluster: whether it is there and made of the same things. That it
// works is for a run to find out.
func (x *explainer) cluster(ctx context.Context) (Forecast, error) {
	all, err := x.adapters.Cluster.All(ctx)
	if err != nil {
		return Forecast{}, err
	}
	record, recordErr := x.state.Record()
	if len(all) == 0 {
		return Forecast{Action: "create", Why: "there is no cluster"}, nil
	}
	if recordErr != nil {
		return Forecast{Action: "create", Why: "it was not made to the end"}, nil
	}
	spec, err := x.clusterSpec()
	if err != nil {
		return Forecast{Action: "create", Why: "its node image is another"}, nil //nolint:nilerr // it is not there yet
	}
	identity, err := spec.Identity(x.adapters.EngineName)
	if err != nil {
		return Forecast{}, err
	}
	if reason := identity.Differs(record.Spec); reason != "" {
		return Forecast{Action: "create", Why: reason}, nil
	}
	if record.Kept != nil && (record.Parked || x.beginsClean()) {
		reason, err := x.outgrown(record.Kept)
		if err != nil || reason != "" {
			return Forecast{Action: "create", Why: reason}, err
		}
		return Forecast{Action: "restore", Why: "as it was " + record.Kept.At.Local().Format(time.DateTime)}, nil
	}
	running, err := x.adapters.Cluster.Nodes(ctx)
	if err != nil {
		return Forecast{}, err
	}
	for _, name := range record.Nodes {
		if !slices.Contains(running, name) {
			return Forecast{Action: "mend", Why: name + " does not run"}, nil
		}
	}
	return Forecast{Action: cached, Why: x.ClusterName}, nil
}

// anew tells whether the phase would make something.
func (x *explainer) anew(p Phase) bool {
	made, known := x.made[p]
	return known && made.Action != cached
}

// loaded tells of an image in the node.
func (x *explainer) loaded(ctx context.Context, p Phase) (Forecast, error) {
	switch {
	case x.made[Phase{Kind: CreateCluster}].Action == "create":
		return Forecast{Action: "load", Why: "the cluster is made anew"}, nil
	case x.anew(Phase{BuildImage, p.Name}):
		return Forecast{Action: "load", Why: "its image is made anew"}, nil
	case slices.Contains([]string{"mend", "restore"}, x.made[Phase{Kind: CreateCluster}].Action):
		return Forecast{Action: cached, Why: "as far as a node can tell that does not run"}, nil
	}
	record, err := x.state.Record()
	if err != nil {
		return Forecast{}, err
	}
	for _, node := range record.Nodes {
		held, err := x.imagesIn(ctx, node)
		if err != nil {
			return Forecast{}, err
		}
		if !held[x.refs[p.Name]] {
			return Forecast{Action: "load", Why: "not in the node " + node}, nil
		}
	}
	return Forecast{Action: cached, Why: "in the node"}, nil
}

// deployedAs tells of a component. A run applies it in any case; what is as it was stays.
func (x *explainer) deployedAs(p Phase) (Forecast, error) {
	if x.made[Phase{Kind: CreateCluster}].Action == "create" {
		return Forecast{Action: "deploy", Why: "the cluster is made anew"}, nil
	}
	for _, before := range x.graph.before[p] {
		if before.Kind == LoadImage && x.anew(Phase{BuildImage, before.Name}) {
			return Forecast{Action: "deploy", Why: "its image " + before.Name + " is made anew"}, nil
		}
	}
	was, there := x.state.Deployed()[p.Name]
	if !there {
		return Forecast{Action: "deploy", Why: "not deployed yet"}, nil
	}
	objs, err := apply.WithImages(x.Objects[p.Name], x.refs)
	if err != nil {
		return Forecast{}, err
	}
	now, err := digestOf(objs)
	if err != nil || now != was {
		return Forecast{Action: "deploy", Why: "changed: " + strings.Join(x.overlays(x.component(p.Name)), ", ")}, err
	}
	return Forecast{Action: cached, Why: "as deployed"}, nil
}

// past returns what a step took when it last ended so, as the timelines that are kept say; 0
// where none does. They are read when it is first asked.
func past(state checkout.Cluster) func(phase, name string, outcome timeline.Outcome) time.Duration {
	entries := sync.OnceValue(func() (entries []timeline.Entry) {
		runs, _ := state.Runs()
		for _, run := range runs { // the newest first
			var doc timeline.Document
			if data, err := os.ReadFile(filepath.Join(run, timeline.File)); err == nil && json.Unmarshal(data, &doc) == nil {
				entries = append(entries, doc.Steps...)
			}
		}
		return entries
	})
	return func(phase, name string, outcome timeline.Outcome) time.Duration {
		for _, entry := range entries() {
			if entry.Phase == phase && entry.Name == name && entry.Outcome == outcome {
				return entry.Took()
			}
		}
		return 0
	}
}

// Print writes forecasts as a table, in the words and colours of a run, and below it the
// phases that take longest one after the other.
func Print(plan *Plan, forecasts []Forecast, out io.Writer, color bool) error {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "phase\twould\tlast took\twhy")
	for _, f := range forecasts {
		took := "-"
		if f.Took > 0 {
			took = fmt.Sprintf("%.1f s", f.Took.Seconds())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Phase, f.Action, took, f.Why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, line := range strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n") {
		tint := screen.Plain
		if i > 0 {
			tint = timeline.Outcome(forecasts[i-1].Action).Tint()
		}
		if _, err := fmt.Fprintln(out, screen.Paint(line, tint, color)); err != nil {
			return err
		}
	}
	path, took := criticalPath(plan, forecasts)
	steps := make([]string, len(path))
	for i, phase := range path {
		steps[i] = phase.String()
	}
	_, err := fmt.Fprintf(out, "\ncritical path, as far as known: %s; %.1f s\n", strings.Join(steps, " → "), took.Seconds())
	return err
}

// criticalPath returns the phases that, one after the other, take longest. What is built
// comes before the cluster.
func criticalPath(plan *Plan, forecasts []Forecast) (path []Phase, took time.Duration) {
	type best struct {
		took   time.Duration
		before Phase
	}
	ends := map[Phase]best{}
	var last Phase
	for _, f := range forecasts {
		before := plan.Before(f.Phase)
		for _, other := range forecasts {
			if f.Phase.Kind == CreateCluster && other.Phase.Builds() {
				before = append(before, other.Phase)
			}
		}
		end := best{}
		for _, p := range before {
			if ends[p].took > end.took {
				end = best{ends[p].took, p}
			}
		}
		end.took += f.Took
		ends[f.Phase] = end
		if end.took > ends[last].took {
			last = f.Phase
		}
	}
	took = ends[last].took
	for p := last; p != (Phase{}); p = ends[p].before {
		path = append(path, p)
	}
	slices.Reverse(path)
	return path, took
}
