// Package target decides which object of a cluster an alert is about. It reads the
// alert's labels and nothing else.
//
// The decision is a table, in table.go, that is read from top to bottom:
//
//	the operator's own rows, by the alert's name, then by label
//	OpenTelemetry's names
//	who was scraped, and which labels are therefore the scraper's own
//	one Service, when the alert was aggregated over all that is behind it
//	references, objects, kinds that end the search, typed workloads
//	the Service, then the Node
//
// Two things hold in every row: a target is never put together from two things, and
// where a label could mean one of two, nothing is guessed. What is wrong with
// refusing is that nobody acts; what is wrong with guessing is that somebody acts on
// the wrong thing.
package target

import (
	"fmt"
	"slices"
	"strings"

	"kubernaut.ai/e2e/docker/gateway/resource"
)

// Decision says what an alert is about.
type Decision struct {
	Target resource.Ref // the zero value when the alert is about no object that is followed
	Row    string       // which row of the table decided
	Reason string       // why, for a person
}

// Found reports whether the alert is about an object.
func (d Decision) Found() bool { return d.Target != resource.Ref{} }

// String returns the row and the reason.
func (d Decision) String() string { return d.Row + ": " + d.Reason }

// Table decides. It is safe for concurrent use.
type Table struct {
	rules  Rules
	alerts map[string]string    // label by alert name
	labels map[string]LabelRule // by label
}

// New returns a table with rules that Check has found nothing wrong with.
func New(rules Rules) *Table {
	t := &Table{rules: rules, alerts: map[string]string{}, labels: map[string]LabelRule{}}
	for _, rule := range rules.Alerts {
		t.alerts[rule.Name] = clean(rule.Label)
	}
	for _, rule := range rules.Labels {
		t.labels[clean(rule.Label)] = rule
	}
	return t
}

// alert is what the table reads: labels that say something.
type alert struct {
	labels map[string]string
	rules  Rules
	scrape string
	aside  map[string]string // labels that were put aside
	called map[string]string // how a label was called in the alert, where that is another name
}

// Namespace returns the namespace of what labels are about, empty if they name none.
func Namespace(labels map[string]string) string {
	return (&alert{labels: read(labels)}).namespace()
}

// Decide returns what an alert is about.
func (t *Table) Decide(labels map[string]string) Decision {
	a := &alert{labels: read(labels), rules: t.rules, aside: map[string]string{}, called: map[string]string{}}
	for _, step := range []func(*alert) (Decision, bool){
		t.byAlert, t.byLabel, byOpenTelemetry, byService,
		byReference, byObject, byEnd, byNamespace, byType, byScrapedService, byNode,
	} {
		if decision, done := step(a); done {
			return decision
		}
	}
	return Decision{Row: "none", Reason: "no label names a Kubernetes object" + a.without()}
}

// byAlert follows the operator's rows for alerts of this name.
func (t *Table) byAlert(a *alert) (Decision, bool) {
	label, ruled := t.alerts[a.labels["alertname"]]
	if !ruled {
		return Decision{}, false
	}
	rule, _ := t.kindOf(label)
	row := "configured/alert/" + label
	if !a.any(label) {
		return Decision{Row: row, Reason: "the configuration says that this alert is about " + label + ", which is absent"}, true
	}
	return a.configured(row, rule)
}

// byLabel follows the operator's rows for labels, in their order.
func (t *Table) byLabel(a *alert) (Decision, bool) {
	for _, rule := range t.rules.Labels {
		if a.any(clean(rule.Label)) {
			return a.configured("configured/"+clean(rule.Label), rule)
		}
	}
	return Decision{}, false
}

// kindOf returns what a label names, by the operator's rows or those of the table.
func (t *Table) kindOf(label string) (LabelRule, bool) {
	if rule, found := t.labels[label]; found {
		return rule, true
	}
	plain := strings.TrimPrefix(label, "exported_")
	for _, row := range slices.Concat(openTelemetry, objects, []object{{"service", "Service"}, {"node", "Node"}, {"node_name", "Node"}, {"nodename", "Node"}, {"instance", "Node"}}) {
		if row.label == plain {
			return LabelRule{Label: label, Kind: row.kind}, true
		}
	}
	return LabelRule{}, false
}

// configured decides by a row of the configuration. A name that cannot be one ends
// the search: the operator has said what the alert is about.
func (a *alert) configured(row string, rule LabelRule) (Decision, bool) {
	label := clean(rule.Label)
	namespace := a.namespace()
	if strings.HasPrefix(label, "k8s_") {
		namespace = a.labels["k8s_namespace_name"]
	}
	if rule.NamespaceLabel != "" {
		namespace = a.labels[clean(rule.NamespaceLabel)]
	}
	kind, known := resource.Find(rule.APIVersion, rule.Kind)
	name := a.labels[label]
	if !resource.ValidName(rule.Kind, name) {
		return Decision{Row: row, Reason: fmt.Sprintf("%s is no name of a %s", label, rule.Kind)}, true
	}
	if known {
		return a.named(row, label, kind, namespace, name)
	}
	if !resource.ValidName("Namespace", namespace) {
		namespace = "" // the cluster knows whether the kind has one
	}
	return Decision{
		Target: resource.Ref{APIVersion: rule.APIVersion, Kind: rule.Kind, Namespace: namespace, Name: name},
		Row:    row, Reason: label + " names the " + rule.Kind + ", as configured",
	}, true
}

// byOpenTelemetry decides where an attribute of a measured resource is present.
func byOpenTelemetry(a *alert) (Decision, bool) {
	if !a.any(attributes...) {
		return Decision{}, false
	}
	for _, row := range openTelemetry {
		if kind, name, ok := a.object(row); ok {
			return a.named("opentelemetry/"+row.label, row.label, kind, a.labels["k8s_namespace_name"], name)
		}
	}
	return Decision{Row: "opentelemetry", Reason: "attributes of OpenTelemetry are present and name no object that is followed; plain labels are the collector's"}, true
}

// byService finds what was scraped. An alert that was aggregated over a Service is
// about that, whoever is behind it; from any other, what is the scraper's own is put
// aside.
func byService(a *alert) (Decision, bool) {
	a.scrape = application
	for _, row := range scrapes {
		if row.fits(a) {
			a.scrape = row.name
			break
		}
	}
	service, _ := resource.Find("", "Service")
	if a.any("service") && a.any("namespace") && a.aggregated() && resource.ValidName("Service", a.labels["service"]) {
		return a.named("aggregated/service", "service", service, a.namespace(), a.labels["service"])
	}
	a.putAside()
	return Decision{}, false
}

// aggregated reports whether an alert names nothing but a Service and its namespace.
func (a *alert) aggregated() bool {
	if a.any("instance", "endpoint", "container", "phase", "condition") || a.exported() || a.any("exported_service", "exported_node") {
		return false
	}
	return !a.any(objectLabels...) && !a.any(nodes[agent]...)
}

// attributes are OpenTelemetry's labels that name something of a cluster. That of the
// cluster itself is none of them: it may be on any alert.
var attributes = func() []string {
	labels := []string{"k8s_namespace_name", "k8s_container_name"}
	for _, row := range openTelemetry {
		labels = append(labels, row.label)
	}
	return labels
}()

// objectLabels are the labels that name an object of any kind but Service and Node.
var objectLabels = func() []string {
	var labels []string
	for _, row := range slices.Concat(objects, ends) {
		labels = append(labels, row.label)
	}
	for _, row := range references {
		if row.kind != "" {
			labels = append(labels, row.name)
		}
	}
	for _, row := range typed {
		labels = append(labels, row.name)
	}
	return labels
}()

// putAside removes the labels that belong to what was scraped.
func (a *alert) putAside() {
	exported := a.exported() && a.scrape != kubelet
	for _, row := range own {
		if row.scrape == a.scrape && a.any(row.label) && row.when(a) || exported && (row.label == "pod" || row.label == "service") {
			if value, present := a.labels[row.label]; present {
				a.aside[row.label] = value
			}
		}
	}
	for label := range a.aside {
		delete(a.labels, label)
	}
	if exported {
		for _, row := range slices.Concat(objects, []object{{"service", ""}}) {
			a.replace(row.label)
		}
	}
	// The node of what reports on nodes was renamed when the scrape writes one, too.
	if a.scrape == stateMetric || a.scrape == agent {
		a.replace("node")
	}
}

// replace lets an exported_ label take the place of the plain one.
func (a *alert) replace(label string) {
	if value := a.labels["exported_"+label]; value != "" {
		a.labels[label], a.called[label] = value, "exported_"+label
	}
}

// byReference decides by pairs of labels.
func byReference(a *alert) (Decision, bool) {
	for _, row := range references {
		if !a.any(row.name) || !a.any(row.namespace) || row.noPod && a.any("pod") {
			continue
		}
		kind, _ := resource.Find("", row.kind)
		if row.kindLabel != "" {
			if !a.any(row.kindLabel) {
				continue
			}
			var known bool
			if kind, known = kindByName(a.labels[row.kindLabel]); !known {
				return a.unfollowed("reference/"+row.kindLabel, a.labels[row.kindLabel]), true
			}
		}
		if name := a.labels[row.name]; resource.ValidName(kind.Kind, name) {
			return a.named("reference/"+row.name, row.name, kind, a.labels[row.namespace], name)
		}
	}
	return Decision{}, false
}

// byObject decides by the labels that name an object.
func byObject(a *alert) (Decision, bool) {
	for _, row := range objects {
		if kind, name, ok := a.object(row); ok {
			return a.named(a.scrape+"/"+row.label, row.label, kind, a.namespace(), name)
		}
	}
	return Decision{}, false
}

// byEnd ends the search at what kube-state-metrics says of kinds that are not followed.
func byEnd(a *alert) (Decision, bool) {
	if a.scrape != stateMetric {
		return Decision{}, false
	}
	for _, row := range ends {
		if !a.any(row.label) || row.label == "role" && a.any("node") { // a node has roles
			continue
		}
		kind := row.kind
		if kind == "" {
			kind = a.labels[row.label]
		}
		return a.unfollowed(stateMetric+"/"+row.label, kind), true
	}
	return Decision{}, false
}

// byNamespace decides on what kube-state-metrics says of namespaces.
func byNamespace(a *alert) (Decision, bool) {
	phase := a.labels["phase"]
	if a.scrape != stateMetric ||
		phase != "Active" && phase != "Terminating" && !strings.HasPrefix(a.labels["condition"], "Namespace") {
		return Decision{}, false
	}
	kind, _ := resource.Find("", "Namespace")
	if name := a.namespace(); name != "" {
		return a.named(stateMetric+"/namespace", "namespace", kind, "", name)
	}
	return Decision{}, false
}

// byType decides by workloads whose kind is another label.
func byType(a *alert) (Decision, bool) {
	for _, row := range typed {
		name := a.labels[row.name]
		if !a.any(row.kind) || !resource.ValidName("", name) {
			continue
		}
		kind, known := kindByName(a.labels[row.kind])
		if !known {
			return a.unfollowed("typed/"+row.name, a.labels[row.kind]), true
		}
		return a.named("typed/"+row.name, row.name, kind, a.namespace(), name)
	}
	return Decision{}, false
}

// byScrapedService decides on the Service when nothing behind it is named.
func byScrapedService(a *alert) (Decision, bool) {
	kind, name, ok := a.object(object{"service", "Service"})
	if !ok {
		return Decision{}, false
	}
	return a.named(a.scrape+"/service", "service", kind, a.namespace(), name)
}

// byNode decides on the machine.
func byNode(a *alert) (Decision, bool) {
	kind, _ := resource.Find("", "Node")
	for _, label := range nodes[a.scrape] {
		name := a.labels[label]
		if !resource.ValidName(kind.Kind, name) || label == "instance" && (resource.IsAddress(name) || name == "localhost") {
			continue
		}
		return a.named(a.scrape+"/"+label, label, kind, "", name)
	}
	return a.byHost()
}

// byHost decides on the machine that an agent's pod runs on, which has yet to be looked
// up. Where only the pod's name says that it is an agent, it may be the pod itself
// that is ill.
func (a *alert) byHost() (Decision, bool) {
	pod := a.aside["pod"]
	if a.scrape != agent || pod == "" || a.exported() || !resource.ValidName("Pod", pod) || a.namespace() == "" {
		return Decision{}, false
	}
	if a.aside["service"] == "" && !a.any("instance", "endpoint") && !a.says(a.rules.Agents, "job", "app_kubernetes_io_name") {
		return Decision{Row: "agent/pod", Reason: "it cannot be told whether an agent's pod is ill or its machine"}, true
	}
	return Decision{
		Target: resource.HostOf(a.namespace(), pod), Row: "agent/host",
		Reason: "the agent in Pod/" + a.namespace() + "/" + pod + " measures the Node that it runs on; no label names it",
	}, true
}

// object returns what a row names, if its label has a value that can be a name.
func (a *alert) object(row object) (kind resource.Kind, name string, ok bool) {
	name = a.labels[row.label]
	kind, _ = resource.Find("", row.kind)
	return kind, name, resource.ValidName(kind.Kind, name)
}

// named decides on one object, unless it needs a namespace and there is none: which
// of many is meant cannot be told, and default would be a guess.
func (a *alert) named(row, label string, kind resource.Kind, namespace, name string) (Decision, bool) {
	if called, found := a.called[label]; found {
		label = called
	}
	if kind.Namespaced && !resource.ValidName("Namespace", namespace) {
		return Decision{Row: row, Reason: label + " names a " + kind.Kind + " without a namespace; which one cannot be told"}, true
	}
	return Decision{Target: kind.Ref(namespace, name), Row: row, Reason: label + " names the " + kind.Kind + a.without()}, true
}

// unfollowed ends the search at a kind that is not followed.
func (a *alert) unfollowed(row, kind string) Decision {
	return Decision{Row: row, Reason: fmt.Sprintf("it is about a %.63s, a kind that is not followed", strings.ToValidUTF8(kind, "?"))}
}

// without says which labels were put aside.
func (a *alert) without() string {
	if len(a.aside) == 0 {
		return ""
	}
	return "; " + strings.Join(keys(a.aside), ", ") + " of what was scraped (" + a.scrape + ") put aside"
}

// namespace returns the namespace of what the alert is about. Where Prometheus has
// renamed the measured one, the plain one is the exporter's.
func (a *alert) namespace() string {
	namespace := a.labels["namespace"]
	if exported, found := a.labels["exported_namespace"]; found {
		namespace = exported
	}
	if !resource.ValidName("Namespace", namespace) {
		return ""
	}
	return namespace
}

// exported reports whether Prometheus has renamed labels of what was measured, because
// the scrape writes the same ones. The exported_ forms of job, service, endpoint and
// container do not tell: applications have labels of these names of their own.
func (a *alert) exported() bool { return a.any("exported_namespace", "exported_pod") }

// ownPod reports whether an alert of kube-state-metrics is about a pod of its own: the
// metrics of pods have a uid, and those of Services, which have one too, replace service.
func (a *alert) ownPod() bool {
	return a.any("uid") && a.says([]string{stateMetrics}, "service") &&
		!slices.ContainsFunc(objectLabels, func(label string) bool { return label != "pod" && a.any(label) })
}

// behindExporter reports whether a Service is that of an exporter, and not of what it
// measures.
func (a *alert) behindExporter() bool { return !a.any("pod") && a.says(a.rules.Reporters, "service") }

// maxGenerated is how much of a workload's name its pods' names keep: the API server
// cuts what a random suffix of five follows to 63 characters.
const maxGenerated = 58

// podOf reports whether the pod is named after one of these.
func (a *alert) podOf(labels ...string) bool {
	pod := a.labels["pod"]
	return slices.ContainsFunc(labels, func(label string) bool {
		name := a.labels[label]
		if name == "" {
			return false
		}
		prefix := name + "-"
		return pod == name || strings.HasPrefix(pod, prefix[:min(len(prefix), maxGenerated)])
	})
}

// says reports whether one of the labels holds one of the words.
func (a *alert) says(words []string, labels ...string) bool {
	for _, label := range labels {
		text := strings.ToLower(a.labels[label])
		if text != "" && slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) }) {
			return true
		}
	}
	return false
}

// any reports whether one of the labels is present.
func (a *alert) any(labels ...string) bool {
	return slices.ContainsFunc(labels, func(label string) bool { return a.labels[label] != "" })
}
