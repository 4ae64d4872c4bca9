package infrastructure

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// kubernautImages are the images that the objects of this project's components name.
var kubernautImages = map[string][]string{
	"cluster": nil, "infra": {"postgres", "redis"}, "migrations": {"datastorage"}, "datastorage": {"datastorage"}, "gateway": {"gateway"},
	"alertmanager": {"alertmanager"},
}

func planned(t *testing.T, catalog Catalog, images map[string][]string) *Plan {
	t.Helper()
	g, err := newGraph(catalog, images, Hybrid)
	if err != nil {
		t.Fatal(err)
	}
	return &Plan{Catalog: catalog, graph: g}
}

// texts are phases as they are called.
func texts(phases []Phase) string {
	list := make([]string, len(phases))
	for i, phase := range phases {
		list[i] = phase.String()
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestTheHybridOrderFollowsFromCatalogAndManifests(t *testing.T) {
	plan := planned(t, Kubernaut(), kubernautImages)
	for phase, want := range map[Phase]string{
		{BuildImage, "kind-node"}:         "",
		{CompileSuite, "gateway"}:         "",
		{BuildImage, "gateway"}:           "build/compile",
		{CreateCluster, ""}:               "build/alertmanager build/datastorage build/gateway build/kind-node build/postgres build/redis",
		{DeployComponent, "cluster"}:      "cluster/create",
		{LoadImage, "postgres"}:           "build/postgres cluster/create",
		{LoadImage, "gateway"}:            "build/gateway load/postgres load/redis",
		{LoadImage, "datastorage"}:        "build/datastorage load/postgres load/redis",
		{LoadImage, "alertmanager"}:       "build/alertmanager load/postgres load/redis", // nothing comes after it
		{DeployComponent, "infra"}:        "deploy/cluster load/postgres load/redis",
		{DeployComponent, "migrations"}:   "deploy/cluster deploy/infra load/datastorage",
		{DeployComponent, "datastorage"}:  "deploy/cluster load/datastorage",
		{DeployComponent, "gateway"}:      "deploy/cluster load/gateway",
		{RunSuite, "datastorage"}:         "build/suite-datastorage deploy/datastorage deploy/infra deploy/migrations",
		{RunSuite, "gateway"}:             "build/suite-gateway deploy/alertmanager deploy/datastorage deploy/gateway deploy/infra deploy/migrations",
		{RunProgram, "mutants"}:           "build/program-mutants build/suite-datastorage build/suite-gateway deploy/alertmanager deploy/datastorage deploy/gateway deploy/infra deploy/migrations",
		{LoadImage, "kind-node"}:          "", // the node is made of it
		{DeployComponent, "not-there-at"}: "",
	} {
		if got := texts(plan.Before(phase)); got != want {
			t.Errorf("before %s: got %s, want %s", phase, got, want)
		}
	}
}

func TestTheOrderingsDifferInWhatTheyHaveWait(t *testing.T) {
	create, compile, load := Phase{Kind: CreateCluster}, Phase{Kind: CompileServices}, Phase{LoadImage, "postgres"}
	for ordering, want := range map[Ordering][3]string{
		ClusterFirst: {"build/alertmanager build/kind-node build/postgres build/redis", "deploy/cluster", "build/datastorage build/gateway build/postgres cluster/create"},
		Overlapped:   {"build/alertmanager build/kind-node build/postgres build/redis", "", "build/postgres cluster/create"},
	} {
		g, err := newGraph(Kubernaut(), kubernautImages, ordering)
		if err != nil {
			t.Fatal(err)
		}
		for i, phase := range []Phase{create, compile, load} {
			if got := texts(g.before[phase]); got != want[i] {
				t.Errorf("%s: before %s: got %s, want %s", ordering, phase, got, want[i])
			}
		}
	}
}

func TestEveryPhaseStandsAfterThoseThatComeBeforeIt(t *testing.T) {
	plan := planned(t, Kubernaut(), kubernautImages)
	phases := plan.Phases()
	for i, phase := range phases {
		for _, before := range plan.Before(phase) {
			if at := slices.Index(phases, before); at < 0 || at >= i {
				t.Errorf("%s is at %d and %s, which comes before it, at %d", phase, i, before, at)
			}
		}
	}
	if slices.Contains(phases, Phase{LoadImage, "kind-node"}) {
		t.Error("the nodes' image is loaded into the nodes")
	}
}

func TestAGoalNeedsNothingThatItDoesNotComeAfter(t *testing.T) {
	plan := planned(t, Kubernaut(), kubernautImages)
	needed, err := plan.Needed(Phase{RunSuite, "datastorage"})
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []Phase{{DeployComponent, "gateway"}, {LoadImage, "gateway"}, {CompileSuite, "gateway"}, {CompileProgram, "bench"}} {
		if slices.Contains(needed, not) {
			t.Errorf("%s is needed for suite/datastorage", not)
		}
	}
	_, err = plan.Needed(Phase{RunSuite, "gatway"})
	if want := "suite/gatway: not in the plan; there are: datastorage, gateway"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestANewServiceNeedsNoMoreThanItsLines(t *testing.T) {
	catalog := Kubernaut()
	catalog.Images = append(catalog.Images, ImageSpec{Name: "echo", Package: "./docker/echo"})
	catalog.Components = append([]Component{{Name: "echo", After: []string{"infra"}}}, catalog.Components...)
	catalog.Suites = append(catalog.Suites, Suite{Name: "echo", Needs: []string{"echo"}})
	images := map[string][]string{"echo": {"echo", "redis"}}
	for name, list := range kubernautImages {
		images[name] = list
	}
	plan := planned(t, catalog, images)
	if got, want := texts(plan.Before(Phase{DeployComponent, "echo"})), "deploy/cluster deploy/infra load/echo load/redis"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if before := plan.Before(Phase{Kind: CreateCluster}); !slices.Contains(before, Phase{BuildImage, "echo"}) {
		t.Errorf("got %s, want the new image before the cluster", texts(before))
	}
}

func TestACatalogThatContradictsItselfIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Catalog)
		want   string
	}{
		"a cycle": {func(c *Catalog) { c.Components[1].After = []string{"gateway"} }, "components infra, gateway, datastorage, migrations, infra: each comes after the next, or works with it"},
		"itself":  {func(c *Catalog) { c.Components[1].After = []string{"infra"} }, "components infra, infra: each comes after the next, or works with it"},
		"an unknown component": {func(c *Catalog) { c.Components[2].After = []string{"infr"} },
			`component migrations comes after "infr", which is not in the catalog; there are: alertmanager, cluster, datastorage, gateway, infra, migrations`},
		"an unknown companion": {func(c *Catalog) { c.Components[3].With = []string{"infr"} }, `component datastorage works with "infr", which is not in the catalog`},
		"an unknown need":      {func(c *Catalog) { c.Suites[0].Needs = []string{"x"} }, `suite datastorage needs "x", which is not in the catalog`},
		"an unknown suite":     {func(c *Catalog) { c.Programs[0].Suites = []string{"x"} }, `program bench runs the suite "x"`},
		"no node":              {func(c *Catalog) { c.Node = "" }, `the cluster has nodes of image "", which is not in the catalog`},
		"one name twice":       {func(c *Catalog) { c.Images[1].Name = "gateway" }, "image gateway: is in the catalog twice"},
		"a base after":         {func(c *Catalog) { c.Components[0].After = []string{"infra"} }, "component cluster: is the base of the cluster and comes after nothing, nor does it work with anything"},
		"a base with":          {func(c *Catalog) { c.Components[0].With = []string{"alertmanager"} }, "component cluster: is the base of the cluster and comes after nothing, nor does it work with anything"},
	} {
		t.Run(name, func(t *testing.T) {
			catalog := Kubernaut()
			test.change(&catalog)
			if _, err := newGraph(catalog, kubernautImages, Hybrid); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	images := map[string][]string{"cluster": {"gateway"}}
	if _, err := newGraph(Kubernaut(), images, Hybrid); err == nil || !strings.Contains(err.Error(), "component cluster: is the base of the cluster and may run nothing; it names gateway") {
		t.Errorf("got %v, want the base with an image to be refused", err)
	}
}

func TestACatalogMayBeSmall(t *testing.T) {
	plan := planned(t, Catalog{Node: "node", Images: []ImageSpec{{Name: "node"}}}, nil)
	if got, want := fmt.Sprint(plan.Phases()), "[build/node build/compile cluster/create]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheCriticalPathGoesThroughWhatTakesLongest(t *testing.T) {
	plan := planned(t, Kubernaut(), kubernautImages)
	seconds := map[string]time.Duration{"build/suite-gateway": 9, "build/compile": 5, "build/gateway": 1, "cluster/create": 10, "deploy/infra": 4, "load/gateway": 3, "suite/gateway": 20}
	needed, err := plan.Needed(Phase{RunSuite, "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	var forecasts []Forecast
	for _, phase := range needed {
		forecasts = append(forecasts, Forecast{Phase: phase, Took: seconds[phase.String()] * time.Second})
	}
	path, total := criticalPath(plan, forecasts)
	// A suite is compiled beside the services, and everything that is built comes before
	// the cluster.
	if got := fmt.Sprint(path); total != 43*time.Second || !strings.HasPrefix(got, "[build/suite-gateway cluster/create") || !strings.HasSuffix(got, "suite/gateway]") {
		t.Errorf("got %s in %s, want the suite's compilation first, 43 s", got, total)
	}
}
