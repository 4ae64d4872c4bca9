package target

import (
	"fmt"
	"slices"
	"strings"

	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/internal/config"
)

// Rules is what an operator may add to the table.
type Rules struct {
	// Agents are parts of the names of exporters that measure the machine that they run
	// on: what they report is about the Node. The list takes the place of the default.
	Agents []string `yaml:"agents"`

	// Reporters are parts of the names of pods that measure something else than
	// themselves. The list takes the place of the default.
	Reporters []string `yaml:"reporters"`

	// Labels name kinds by labels that the table does not know. They come before all
	// that it does know.
	Labels []LabelRule `yaml:"labels"`

	// Alerts are about one label, whatever else they carry. They come first of all.
	Alerts []AlertRule `yaml:"alerts"`
}

// LabelRule says that a label names an object of a kind.
type LabelRule struct {
	Label          string `yaml:"label"`          // required; dots read as _
	Kind           string `yaml:"kind"`           // required
	APIVersion     string `yaml:"apiVersion"`     // required unless the kind is one that the Gateway knows
	NamespaceLabel string `yaml:"namespaceLabel"` // which label names the object's namespace; default: exported_namespace, else namespace
}

// AlertRule says that alerts of a name are about the object that a label names.
type AlertRule struct {
	Name  string `yaml:"name"`  // required; the whole alertname
	Label string `yaml:"label"` // required; a label of the table or of Rules.Labels
}

// DefaultRules returns the rules of a configuration that says nothing.
func DefaultRules() Rules {
	return Rules{
		Agents: []string{
			"node-exporter", "node_exporter", "node-problem-detector", "smartctl-exporter", "windows-exporter", "dcgm-exporter",
			"longhorn-manager", "longhorn-backend", "machine-config-daemon",
		},
		Reporters: []string{"exporter", "pushgateway", "rook-ceph-mgr", "virt-handler"},
	}
}

// Check records every problem of the rules; field is the path of the rules.
func (r Rules) Check(p *config.Problems, field string) {
	for _, list := range []struct {
		name  string
		words []string
	}{{"agents", r.Agents}, {"reporters", r.Reporters}} {
		for i, word := range list.words {
			p.Check(len(word) >= minWord && word == strings.ToLower(word), fmt.Sprintf("%s.%s[%d]", field, list.name, i), word,
				fmt.Sprintf("part of a name in small letters, at least %d", minWord))
		}
	}
	seen := map[string]bool{}
	for i, rule := range r.Labels {
		at := fmt.Sprintf("%s.labels[%d]", field, i)
		p.Check(rule.Label != "" && !seen[clean(rule.Label)], at+".label", rule.Label, "a label's name, each once")
		seen[clean(rule.Label)] = true
		_, known := resource.Find(rule.APIVersion, rule.Kind)
		ref := resource.Ref{APIVersion: rule.APIVersion, Kind: rule.Kind, Name: "x"}
		p.Check(rule.Kind != "" && (known || rule.APIVersion != "" && ref.Validate() == nil), at+".kind", rule.Kind,
			"a kind, with its apiVersion unless it is one of "+strings.Join(kindNames(), ", "))
	}
	table := New(r)
	names := map[string]bool{}
	for i, rule := range r.Alerts {
		at := fmt.Sprintf("%s.alerts[%d]", field, i)
		p.Check(rule.Name != "" && !names[rule.Name], at+".name", rule.Name, "an alert's whole name, each once")
		names[rule.Name] = true
		_, known := table.kindOf(clean(rule.Label))
		p.Check(known, at+".label", rule.Label, "a label that names a kind, of the table or of "+field+".labels")
	}
}

// minWord is the shortest part of a name that tells something: shorter ones are in
// the names of things that have nothing to do with each other.
const minWord = 4

// kindNames returns the names of the kinds that need no apiVersion.
func kindNames() []string {
	var names []string
	for _, kind := range resource.Kinds() {
		names = append(names, kind.Kind)
	}
	slices.Sort(names)
	return names
}

// Anywhere in Clusters.Taken takes every cluster.
const Anywhere = "*"

// Clusters says which clusters' alerts are taken.
type Clusters struct {
	// Here holds the names by which senders call the cluster that the Gateway runs in:
	// alerts of that name are the same problem as alerts without any. Default none.
	Here []string `yaml:"here"`

	// Taken holds the names of the other clusters whose alerts are taken; "*" takes all,
	// which is the default. Alerts of other clusters are answered 200 rejected.
	Taken []string `yaml:"taken"`
}

// DefaultClusters returns what a configuration that says nothing means.
func DefaultClusters() Clusters { return Clusters{Taken: []string{Anywhere}} }

// Check records every problem; field is the path of the clusters.
func (c Clusters) Check(p *config.Problems, field string) {
	for i, name := range c.Here {
		p.Check(name != "" && name != Anywhere, fmt.Sprintf("%s.here[%d]", field, i), name, "a cluster's name")
		p.Check(!slices.Contains(c.Taken, name), fmt.Sprintf("%s.here[%d]", field, i), name, "a name that "+field+".taken does not hold: here is always taken")
	}
	for i, name := range c.Taken {
		p.Check(name != "", fmt.Sprintf("%s.taken[%d]", field, i), name, "a cluster's name, or *")
	}
}

// Of returns the cluster that a name means, empty for this one, and whether its
// signals are taken.
func (c Clusters) Of(name string) (cluster string, taken bool) {
	if name == "" || slices.Contains(c.Here, name) {
		return "", true
	}
	return name, slices.Contains(c.Taken, name) || slices.Contains(c.Taken, Anywhere)
}
