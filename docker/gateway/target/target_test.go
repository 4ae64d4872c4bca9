package target

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/docker/internal/config"
)

// ref is a target as the cases write it.
type ref struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String is Kind/namespace/name, with an empty namespace for a cluster-scoped object.
func (r *ref) String() string {
	if r == nil {
		return "none"
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// one case: labels, and what is right for them.
type oneCase struct {
	ID     string            `json:"id"`
	Labels map[string]string `json:"labels"`
	Target *ref              `json:"target"`
	Accept []*ref            `json:"accept"` // also right
	Row    string            `json:"row"`    // which row has to decide; any if empty
}

// decided writes a decision as the cases do; a node that has yet to be looked up is none.
func decided(d Decision) string {
	if !d.Found() || d.Target.HostOf != "" {
		return "none"
	}
	return d.Target.Kind + "/" + d.Target.Namespace + "/" + d.Target.Name
}

// cases reads a file of cases, one JSON object a line.
func cases(t *testing.T, path string) []oneCase {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []oneCase
	for decoder := json.NewDecoder(file); ; {
		var c oneCase
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
}

// sharedCases is a larger corpus that may lie beside the checkout.
const sharedCases = "../../../../shared/cases/alerts.jsonl"

func TestDecide(t *testing.T) {
	files := []string{"testdata/alerts.jsonl"}
	if _, err := os.Stat(sharedCases); err == nil {
		files = append(files, sharedCases)
	}
	table := New(DefaultRules())
	rows := map[string]bool{}
	for _, file := range files {
		for _, c := range cases(t, file) {
			t.Run(filepath.Base(filepath.Dir(file))+"/"+c.ID, func(t *testing.T) {
				d := table.Decide(c.Labels)
				rows[d.Row] = true
				right := []string{c.Target.String()}
				for _, other := range c.Accept {
					right = append(right, other.String())
				}
				if got := decided(d); !slices.Contains(right, got) || c.Row != "" && d.Row != c.Row {
					t.Errorf("got %s by %s, want %s by %s; labels %v", got, d, strings.Join(right, " or "), c.Row, c.Labels)
				}
				if d.Reason == "" || d.Row == "" {
					t.Errorf("got %+v without a reason or a row", d)
				}
			})
		}
	}
	t.Logf("%d rows have decided", len(rows))
}

func TestDecideTheNodeOfAnAgent(t *testing.T) {
	labels := map[string]string{"alertname": "NodeClockSkewDetected", "job": "node-exporter", "namespace": "monitoring", "pod": "node-exporter-k7x2p", "instance": "192.0.2.11:9100"}
	table := New(DefaultRules())
	if d := table.Decide(labels); d.Target.String() != "Node of Pod/monitoring/node-exporter-k7x2p" || d.Row != "agent/host" {
		t.Errorf("got %s by %s", d.Target, d)
	}
	for _, without := range []string{"pod", "namespace"} {
		fewer := map[string]string{}
		for label, value := range labels {
			if label != without {
				fewer[label] = value
			}
		}
		if d := table.Decide(fewer); d.Found() {
			t.Errorf("without %s: got %s by %s", without, d.Target, d)
		}
	}
}

func TestConfiguredRows(t *testing.T) {
	rules := DefaultRules()
	rules.Agents = []string{"my-agent"}
	rules.Reporters = []string{"watcher"}
	rules.Labels = []LabelRule{
		{Label: "rollout", Kind: "Rollout", APIVersion: "argoproj.io/v1alpha1"},
		{Label: "db.pod", Kind: "Pod", NamespaceLabel: "db_namespace"},
		{Label: "claim", Kind: "PersistentVolumeClaim"},
	}
	rules.Alerts = []AlertRule{{Name: "CheckoutStale", Label: "deployment"}, {Name: "VolumeStale", Label: "claim"}}
	var problems config.Problems
	if rules.Check(&problems, "targets"); problems.Err() != nil {
		t.Fatal(problems.Err())
	}
	table := New(rules)
	for name, c := range map[string]struct {
		labels map[string]string
		want   string
		row    string
	}{
		"a label of a kind of the cluster": {map[string]string{"rollout": "web", "namespace": "shop", "pod": "web-1"}, "Rollout/shop/web", "configured/rollout"},
		"a label with its own namespace":   {map[string]string{"db_pod": "db-0", "db_namespace": "data", "namespace": "shop"}, "Pod/data/db-0", "configured/db_pod"},
		"which is absent":                  {map[string]string{"db_pod": "db-0", "namespace": "shop"}, "none", "configured/db_pod"},
		"a value that is no name":          {map[string]string{"rollout": "a/b", "namespace": "shop", "pod": "web-1"}, "none", "configured/rollout"},
		"an alert's label":                 {map[string]string{"alertname": "CheckoutStale", "deployment": "web", "pod": "web-1", "namespace": "shop"}, "Deployment/shop/web", "configured/alert/deployment"},
		"an alert's label, absent":         {map[string]string{"alertname": "CheckoutStale", "pod": "web-1", "namespace": "shop"}, "none", "configured/alert/deployment"},
		"an alert's configured label":      {map[string]string{"alertname": "VolumeStale", "claim": "data", "rollout": "web", "namespace": "shop"}, "PersistentVolumeClaim/shop/data", "configured/alert/claim"},
		"another alert":                    {map[string]string{"alertname": "Other", "deployment": "web", "pod": "web-1", "namespace": "shop"}, "Pod/shop/web-1", "application/pod"},
		"an agent":                         {map[string]string{"job": "my-agent", "node": "node-1", "pod": "my-agent-x", "namespace": "shop"}, "Node//node-1", "agent/node"},
		"no agent any more":                {map[string]string{"job": "node-exporter", "node": "node-1", "pod": "x", "namespace": "shop"}, "Pod/shop/x", "application/pod"},
		"a reporter":                       {map[string]string{"pod": "watcher-x", "instance": "10.0.0.1:1", "namespace": "shop"}, "none", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			d := table.Decide(c.labels)
			if decided(d) != c.want || d.Row != c.row {
				t.Errorf("got %s by %s, want %s by %s", decided(d), d, c.want, c.row)
			}
		})
	}
}

func TestCheckRules(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Rules)
		want   string
	}{
		"a short word":                  {func(r *Rules) { r.Agents = []string{"ex"} }, "targets.agents[0]"},
		"a word in capitals":            {func(r *Rules) { r.Reporters = []string{"Exporter"} }, "targets.reporters[0]"},
		"a label without a name":        {func(r *Rules) { r.Labels = []LabelRule{{Kind: "Pod"}} }, "targets.labels[0].label"},
		"a label twice":                 {func(r *Rules) { r.Labels = []LabelRule{{Label: "a.b", Kind: "Pod"}, {Label: "a_b", Kind: "Node"}} }, "targets.labels[1].label"},
		"a kind without its apiVersion": {func(r *Rules) { r.Labels = []LabelRule{{Label: "a", Kind: "Rollout"}} }, "targets.labels[0].kind"},
		"a kind of another API":         {func(r *Rules) { r.Labels = []LabelRule{{Label: "a", Kind: "Pod", APIVersion: "apps/v1/x"}} }, "targets.labels[0].kind"},
		"no kind":                       {func(r *Rules) { r.Labels = []LabelRule{{Label: "a", APIVersion: "apps/v1"}} }, "targets.labels[0].kind"},
		"an alert without a name":       {func(r *Rules) { r.Alerts = []AlertRule{{Label: "pod"}} }, "targets.alerts[0].name"},
		"an alert twice":                {func(r *Rules) { r.Alerts = []AlertRule{{"A", "pod"}, {"A", "node"}} }, "targets.alerts[1].name"},
		"an alert about any label":      {func(r *Rules) { r.Alerts = []AlertRule{{"A", "team"}} }, "targets.alerts[0].label"},
	} {
		t.Run(name, func(t *testing.T) {
			rules := DefaultRules()
			c.change(&rules)
			var problems config.Problems
			rules.Check(&problems, "targets")
			if err := problems.Err(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestClusters(t *testing.T) {
	for name, c := range map[string]struct {
		clusters Clusters
		name     string
		cluster  string
		taken    bool
	}{
		"none":                    {DefaultClusters(), "", "", true},
		"any, by default":         {DefaultClusters(), "west", "west", true},
		"this one":                {Clusters{Here: []string{"east"}}, "east", "", true},
		"another":                 {Clusters{Here: []string{"east"}}, "west", "west", false},
		"another that is taken":   {Clusters{Taken: []string{"west"}}, "west", "west", true},
		"none, where few are":     {Clusters{Taken: []string{"west"}}, "", "", true},
		"this one, where all are": {Clusters{Here: []string{"east"}, Taken: []string{"*"}}, "east", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			if cluster, taken := c.clusters.Of(c.name); cluster != c.cluster || taken != c.taken {
				t.Errorf("got %q, %t", cluster, taken)
			}
		})
	}
	for _, bad := range []Clusters{{Here: []string{""}}, {Here: []string{"*"}}, {Taken: []string{""}}, {Here: []string{"a"}, Taken: []string{"a"}}} {
		var problems config.Problems
		if bad.Check(&problems, "clusters"); problems.Err() == nil {
			t.Errorf("got nothing wrong with %+v", bad)
		}
	}
}
