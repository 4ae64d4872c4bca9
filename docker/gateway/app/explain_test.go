package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// explain runs the subcommand.
func explain(body string, args ...string) (code int, out, problems string) {
	var stdout, stderr bytes.Buffer
	code = Explain(args, strings.NewReader(body), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// hook returns a webhook with alerts of these labels.
func hook(labels ...string) string {
	start := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	alerts := make([]string, len(labels))
	for i, text := range labels {
		alerts[i] = fmt.Sprintf(`{"status":"firing","labels":%s,"startsAt":%q}`, text, start)
	}
	return `{"version":"4","alerts":[` + strings.Join(alerts, ",") + `]}`
}

func TestExplain(t *testing.T) {
	seen := time.Now().UTC().Format(time.RFC3339)
	file := write(t, `
datastorage: {url: 'https://ds:8080'}
targets: {labels: [{label: rollout, kind: Rollout, apiVersion: argoproj.io/v1alpha1}]}
clusters: {here: [east], taken: [west]}
`)
	for name, c := range map[string]struct {
		kind, body, config string
		want               []string // target, cluster and row of each line
	}{
		"an alert":             {"prometheus", hook(`{"alertname":"A","namespace":"demo","pod":"web-1"}`), "", []string{"Pod/demo/web-1  application/pod"}},
		"a group":              {"prometheus", hook(`{"alertname":"A","node":"n1","cluster":"c"}`, `{"alertname":"A"}`, `{"pod":"x"}`), "", []string{"Node//n1 c application/node", "null  none", "null  refused"}},
		"a node to look up":    {"prometheus", hook(`{"alertname":"A","job":"node-exporter","namespace":"demo","pod":"x"}`), "", []string{"null  agent/host"}},
		"one that is resolved": {"prometheus", strings.Replace(hook(`{"alertname":"A","namespace":"demo","pod":"web-1"}`), "firing", "resolved", 1), "", []string{"Pod/demo/web-1  application/pod"}},
		"a configured row":     {"prometheus", hook(`{"alertname":"A","namespace":"demo","rollout":"web","cluster":"east"}`), file, []string{"Rollout/demo/web  configured/rollout"}},
		"a foreign cluster":    {"prometheus", hook(`{"alertname":"A","namespace":"demo","pod":"web","cluster":"north"}`), file, []string{"null north cluster"}},
		"an event": {"kubernetes-event", `{"type":"Warning","reason":"R","lastTimestamp":"` + seen + `","regarding":{"kind":"Node","name":"n1"}}`, "",
			[]string{"Node//n1  event/regarding"}},
		"an event of a foreign cluster": {"kubernetes-event", `{"type":"Warning","reason":"R","clusterName":"north","lastTimestamp":"` + seen + `","involvedObject":{"kind":"Node","name":"n1"}}`, file,
			[]string{"null north cluster"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--kind", c.kind}
			if c.config != "" {
				args = append(args, "--config", c.config)
			}
			code, out, problems := explain(c.body, args...)
			if code != 0 || problems != "" {
				t.Fatalf("got %d, %s", code, problems)
			}
			var got []string
			for line := range strings.Lines(out) {
				var e explanation
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Reason == "" || !strings.Contains(line, `"target":`) {
					t.Errorf("got line %s, %v", line, err)
				}
				name := "null"
				if e.Target != nil {
					name = e.Target.Kind + "/" + e.Target.Namespace + "/" + e.Target.Name
				}
				got = append(got, name+" "+e.Cluster+" "+e.Row)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestExplainRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		args []string
		code int
		want string
	}{
		"no JSON":                  {"x", []string{"--kind", "prometheus"}, 1, "malformed JSON at byte 1"},
		"one alert at fault":       {hook(`{"pod":"x"}`), []string{"--kind", "prometheus"}, 1, "alerts[0].labels.alertname: required"},
		"an event of another kind": {`{"items":[]}`, []string{"--kind", "kubernetes-event"}, 1, `"items"`},
		"a kind of the cluster": {`{"type":"Warning","reason":"R","lastTimestamp":"` + time.Now().UTC().Format(time.RFC3339) +
			`","involvedObject":{"apiVersion":"argoproj.io/v1alpha1","kind":"Rollout","name":"x"}}`, []string{"--kind", "kubernetes-event"}, 1, "Rollout of argoproj.io/v1alpha1"},
		"a body without end":   {strings.Repeat(" ", 16<<20), []string{"--kind", "prometheus"}, 1, "larger than"},
		"no kind":              {"", nil, 2, `--kind "": allowed: prometheus or kubernetes-event`},
		"another kind":         {"", []string{"--kind", "nagios"}, 2, `--kind "nagios"`},
		"another flag":         {"", []string{"--knid", "x"}, 2, "flag provided but not defined"},
		"an argument":          {"", []string{"--kind", "prometheus", "file"}, 2, "no arguments"},
		"no such file":         {"", []string{"--kind", "prometheus", "--config", "none"}, 2, "none"},
		"a file with mistakes": {"", []string{"--kind", "prometheus", "--config", write(t, "targets: {agents: [x]}\ndatastorage: {url: 'https://ds:8080'}")}, 2, "targets.agents[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, problems := explain(c.body, c.args...)
			if code != c.code || out != "" || !strings.Contains(problems, c.want) || strings.Count(problems, "\n") != 1 {
				t.Errorf("got %d, %q, %q, want %d, %q", code, out, problems, c.code, c.want)
			}
		})
	}
}

// sharedEvents is a corpus of bodies that may lie beside the checkout.
const sharedEvents = "../../../../shared/cases/events.jsonl"

// TestExplainSharedEvents holds every body of the corpus to what is right for it.
func TestExplainSharedEvents(t *testing.T) {
	file, err := os.Open(sharedEvents)
	if os.IsNotExist(err) {
		t.Log("no corpus beside the checkout")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for decoder := json.NewDecoder(file); ; {
		var c struct {
			ID     string
			Event  json.RawMessage
			Target *object
			Says   []string
		}
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		t.Run(c.ID, func(t *testing.T) {
			code, out, problems := explain(stamped(t, string(c.Event)), "--kind", "kubernetes-event")
			if c.Target == nil {
				if code != 1 || !slices.ContainsFunc(c.Says, func(word string) bool { return strings.Contains(problems, word) }) {
					t.Errorf("got %d, %s%s, want one of %v", code, out, problems, c.Says)
				}
				return
			}
			var e explanation
			if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 {
				t.Fatalf("got %d, %s", code, problems)
			}
			if e.Target.APIVersion = ""; *e.Target != *c.Target {
				t.Errorf("got %+v, want %+v", e.Target, c.Target)
			}
		})
	}
}

// placeholder stands for a time that lies so far from now.
var placeholder = regexp.MustCompile(`@(NOW|MICRO|ZONE)([+-][0-9]+[smh])?@`)

// stamped fills the times into a body.
func stamped(t *testing.T, body string) string {
	t.Helper()
	return placeholder.ReplaceAllStringFunc(body, func(text string) string {
		parts := placeholder.FindStringSubmatch(text)
		at := time.Now().UTC()
		if parts[2] != "" {
			offset, err := time.ParseDuration(parts[2])
			if err != nil {
				t.Fatal(err)
			}
			at = at.Add(offset)
		}
		switch parts[1] {
		case "MICRO":
			return at.Format("2006-01-02T15:04:05.000000Z07:00")
		case "ZONE":
			return at.In(time.FixedZone("", 2*60*60)).Format(time.RFC3339)
		}
		return at.Format(time.RFC3339)
	})
}
