package app

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"kubernaut.ai/e2e/docker/gateway/httpapi"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
)

// The exit codes of Explain.
const (
	explained = 0 // a line for each signal
	refused   = 1 // the body would be
	misused   = 2 // the flags or the configuration cannot be understood
)

// explanation is what Explain says of one signal.
type explanation struct {
	Target  *object `json:"target"` // null when it is about no object that can be named from the body alone
	Cluster string  `json:"cluster,omitempty"`
	Reason  string  `json:"reason"`
	Row     string  `json:"row"`
}

type object struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion,omitempty"`
	Namespace  string `json:"namespace"` // empty for a cluster-scoped object
	Name       string `json:"name"`
}

// Explain reads the body of one request and prints what each of its signals is about,
// one line of JSON each. It calls nobody: what only the cluster knows, it says. It
// returns the process's exit code.
func Explain(args []string, body io.Reader, out, problems io.Writer) int {
	flags := flag.NewFlagSet("gateway explain", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	kind := flags.String("kind", "", "prometheus or kubernetes-event")
	file := flags.String("config", "", "YAML configuration file; the defaults without it")
	err := flags.Parse(args)
	if err == nil && (flags.NArg() > 0 || *kind != "prometheus" && *kind != "kubernetes-event") {
		err = fmt.Errorf("--kind %q: allowed: prometheus or kubernetes-event, and no arguments", *kind)
	}
	cfg := defaultConfig()
	if err == nil && *file != "" {
		cfg, err = loadConfig(*file)
	}
	if err != nil {
		_, _ = fmt.Fprintf(problems, "gateway explain: %s; usage: gateway explain --kind prometheus|kubernetes-event [--config FILE] < BODY\n",
			strings.ReplaceAll(err.Error(), "\n", "; "))
		return misused
	}
	read, err := io.ReadAll(io.LimitReader(body, httpapi.MaxBodyBytes+1))
	if err == nil && len(read) > httpapi.MaxBodyBytes {
		err = fmt.Errorf("the body is larger than %d bytes", httpapi.MaxBodyBytes)
	}
	var lines []explanation
	if err == nil && *kind == "prometheus" {
		lines, err = explainAlerts(cfg, read)
	} else if err == nil {
		lines, err = explainEvent(cfg, read)
	}
	encoder := json.NewEncoder(out)
	for _, line := range lines {
		if err == nil {
			err = encoder.Encode(line)
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(problems, "gateway explain:", err)
		return refused
	}
	return explained
}

// explainAlerts explains a webhook. An alert at fault is explained beside the others;
// one that is alone is the webhook's fault.
func explainAlerts(cfg Config, body []byte) ([]explanation, error) {
	parser := &prometheus.Parser{Targets: target.New(cfg.Targets), Clusters: cfg.Clusters}
	group, err := parser.Parse(body, false, time.Now())
	if err != nil {
		return nil, err
	}
	var lines []explanation
	for i := range group.Len() {
		cluster, decision, err := group.Decide(i)
		if err != nil && group.Len() == 1 {
			return nil, err
		}
		if err != nil {
			lines = append(lines, explanation{Row: "refused", Reason: err.Error()})
			continue
		}
		line := explanation{Cluster: cluster, Row: decision.Row, Reason: decision.Reason}
		if decision.Found() && decision.Target.HostOf == "" {
			line.Target = describe(decision.Target)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// explainEvent explains an event. Without a cluster, a kind that is not known is as
// good as none.
func explainEvent(cfg Config, body []byte) ([]explanation, error) {
	parser := &kubernetesevent.Parser{Clusters: cfg.Clusters}
	s, err := parser.Parse(body, false, time.Now())
	var rejected *signal.Rejected
	if errors.As(err, &rejected) {
		return []explanation{{Cluster: s.Cluster, Row: "cluster", Reason: rejected.Message}}, nil
	}
	if err != nil {
		return nil, err
	}
	if !s.Target.Known() {
		return nil, &signal.Invalid{Field: "kind", Reason: fmt.Sprintf("%s of %s is not a kind that is known without asking the cluster", s.Target.Kind, s.Target.APIVersion)}
	}
	row, reason, _ := strings.Cut(s.TargetReason, ": ")
	return []explanation{{Target: describe(s.Target), Cluster: s.Cluster, Row: row, Reason: reason}}, nil
}

// describe names an object.
func describe(ref resource.Ref) *object {
	return &object{Kind: ref.Kind, APIVersion: ref.APIVersion, Namespace: ref.Namespace, Name: ref.Name}
}
