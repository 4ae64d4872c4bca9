package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// hook returns a webhook as Alertmanager writes it, with these alerts.
func hook(common string, alerts ...string) string {
	return fmt.Sprintf(`{"version":"4","groupKey":"{}:{alertname=\"A\"}","truncatedAlerts":0,"status":"firing","receiver":"gateway",
		"groupLabels":{"alertname":"A"},"commonLabels":%s,"commonAnnotations":{"runbook":"r"},"externalURL":"http://am:9093",
		"alerts":[%s]}`, common, strings.Join(alerts, ","))
}

// firing returns one alert with these labels.
func firing(labels string) string {
	return fmt.Sprintf(`{"status":"firing","labels":%s,"annotations":{"summary":"s","runbook":"own"},
		"startsAt":"2026-03-01T11:00:00.123Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://p","fingerprint":"f"}`, labels)
}

// parser knows one cluster as its own, and takes two others.
var parser = &Parser{
	Targets:  target.New(target.DefaultRules()),
	Clusters: target.Clusters{Here: []string{"here"}, Taken: []string{"east", "west"}},
}

// parse reads a webhook that has to be one.
func parse(t *testing.T, body string, dated bool) *Group {
	t.Helper()
	group, err := parser.Parse([]byte(body), dated, now)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func TestParseOneAlert(t *testing.T) {
	body := hook(`{"alertname":"A","severity":"critical","cluster":"east"}`,
		firing(`{"alertname":"other","severity":"low","namespace":"demo","pod":"web-1"}`))
	s, err := parse(t, body, false).Alert(0)
	if err != nil {
		t.Fatal(err)
	}
	if s.Source != signal.Prometheus || s.Name != "A" || s.Severity != "critical" || s.Cluster != "east" || s.Namespace != "demo" {
		t.Errorf("got %+v", s)
	}
	if s.Target.String() != "Pod/demo/web-1" || s.TargetReason != "application/pod: pod names the Pod" {
		t.Errorf("got target %s because of %s", s.Target, s.TargetReason)
	}
	if !s.Firing.Equal(time.Date(2026, 3, 1, 11, 0, 0, 123e6, time.UTC)) || !s.Received.Equal(now) {
		t.Errorf("got firing %s, received %s", s.Firing, s.Received)
	}
	if s.Labels["alertname"] != "A" || s.Labels["pod"] != "web-1" || s.Annotations["runbook"] != "r" || s.Annotations["summary"] != "s" {
		t.Errorf("got labels %v, annotations %v", s.Labels, s.Annotations)
	}
	if s.Payload != body {
		t.Errorf("got payload %s", s.Payload)
	}
}

func TestParseAlerts(t *testing.T) {
	for name, c := range map[string]struct {
		common, labels, status string
		want                   string // namespace severity target, or the error
	}{
		"exported namespace wins":      {`{}`, `{"alertname":"A","exported_namespace":"demo","namespace":"monitoring","deployment":"web"}`, "", "demo unknown Deployment/demo/web"},
		"namespace is the next":        {`{}`, `{"alertname":"A","namespace":"demo","deployment":"web","severity":"P1"}`, "", "demo P1 Deployment/demo/web"},
		"default is a guess":           {`{}`, `{"alertname":"A","deployment":"web"}`, "", "nothing to act on: deployment names a Deployment without a namespace"},
		"common labels name the alert": {`{"alertname":"A","namespace":"demo"}`, `{"statefulset":"db"}`, "", "demo unknown StatefulSet/demo/db"},
		"unicode":                      {`{}`, `{"alertname":"Überlast 過負荷","namespace":"demo","pod":"web-1","severity":"größer"}`, "", "demo größer Pod/demo/web-1"},
		"a cluster-scoped target":      {`{}`, `{"alertname":"A","namespace":"monitoring","node":"worker"}`, "", "monitoring unknown Node/worker"},
		"one without any namespace":    {`{}`, `{"alertname":"A","node":"worker"}`, "", " unknown Node/worker"},
		"resolved":                     {`{}`, `{"alertname":"A"}`, "resolved", " unknown /"},
		"no alert name":                {`{}`, `{"pod":"web-1"}`, "", "alerts[0].labels.alertname: required"},
		"no target":                    {`{}`, `{"alertname":"A","job":"j","instance":"i","endpoint":"e","container":"c","namespace":"n"}`, "", "nothing to act on: no label names a Kubernetes object"},
		"an unknown status":            {`{}`, `{"alertname":"A","pod":"web-1"}`, "pending", "must be firing or resolved"},
		"a name of 253 characters":     {`{}`, `{"alertname":"` + strings.Repeat("過", 253) + `","namespace":"demo","pod":"web-1"}`, "", "demo unknown Pod/demo/web-1"},
		"a name of 254 characters":     {`{}`, `{"alertname":"` + strings.Repeat("n", 254) + `","namespace":"demo","pod":"web-1"}`, "", "signal name"},
		"a pod that cannot be":         {`{}`, `{"alertname":"A","namespace":"demo","pod":"../x"}`, "", "nothing to act on"},
		"a namespace that cannot be":   {`{}`, `{"alertname":"A","namespace":"No Such","pod":"x"}`, "", "without a namespace"},
		"256 labels":                   {`{` + entries(10) + `}`, `{"alertname":"A","namespace":"demo","pod":"x",` + entries(253) + `}`, "", "demo unknown Pod/demo/x"},
		"257 labels":                   {`{}`, `{"alertname":"A","namespace":"demo","pod":"x",` + entries(254) + `}`, "", "alerts[0].labels: more than 256"},
		"a long label":                 {`{}`, `{"alertname":"A","namespace":"demo","pod":"x","l":"` + strings.Repeat("x", 4<<10) + `"}`, "", "demo unknown Pod/demo/x"},
		"a label too long":             {`{}`, `{"alertname":"A","namespace":"demo","pod":"x","l":"` + strings.Repeat("x", 4<<10+1) + `"}`, "", `alerts[0].labels: "l" holds more than 4096 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			body := hook(c.common, firing(c.labels))
			if c.status != "" {
				body = strings.Replace(body, `{"status":"firing","labels"`, `{"status":"`+c.status+`","labels"`, 1)
			}
			s, err := parse(t, body, false).Alert(0)
			got := fmt.Sprintf("%s %s %s", s.Namespace, s.Severity, s.Target)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if s.Resolved != (c.status == "resolved") {
				t.Errorf("got resolved %t", s.Resolved)
			}
		})
	}
}

// entries returns n labels.
func entries(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `,"label_%d":"v"`, i)
	}
	return text.String()[1:]
}

func TestCluster(t *testing.T) {
	for name, c := range map[string]struct {
		common, labels string
		want           string
		foreign        bool
	}{
		"none":                       {`{}`, `{}`, "", false},
		"the alert's own":            {`{}`, `{"cluster":"west"}`, "west", false},
		"common to all":              {`{"cluster":"east"}`, `{}`, "east", false},
		"common labels win":          {`{"cluster":"east"}`, `{"cluster":"west"}`, "east", false},
		"of OpenTelemetry":           {`{}`, `{"k8s_cluster_name":"west"}`, "west", false},
		"of OpenTelemetry, dotted":   {`{}`, `{"k8s.cluster.name":"west"}`, "west", false},
		"this one by its name":       {`{}`, `{"cluster":"here"}`, "", false},
		"one that is not taken":      {`{}`, `{"cluster":"north"}`, "", true},
		"one that is too, in common": {`{"cluster":"north"}`, `{}`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			labels := strings.Replace(c.labels, "{", `{"alertname":"A","namespace":"demo","pod":"x",`, 1)
			s, err := parse(t, hook(c.common, firing(strings.Replace(labels, ",}", "}", 1))), false).Alert(0)
			var rejected *signal.Rejected
			if c.foreign {
				if !errors.As(err, &rejected) || rejected.Reason != signal.ForeignCluster || s.Target.Name != "" {
					t.Errorf("got %+v, %v", s, err)
				}
				return
			}
			if err != nil || s.Cluster != c.want {
				t.Errorf("got %q, %v", s.Cluster, err)
			}
		})
	}
}

func TestAlertsOfTwoClustersInOneGroup(t *testing.T) {
	group := parse(t, hook(`{"alertname":"A"}`, firing(`{"cluster":"east","namespace":"demo","pod":"x"}`), firing(`{"cluster":"west","namespace":"demo","pod":"x"}`)), false)
	for i, want := range []string{"east", "west"} {
		if s, err := group.Alert(i); err != nil || s.Cluster != want {
			t.Errorf("got %q, %v, want %s", s.Cluster, err, want)
		}
	}
}

func TestParseSeveral(t *testing.T) {
	good := firing(`{"alertname":"A","namespace":"demo","pod":"web-1"}`)
	nameless := firing(`{"pod":"web-2"}`)
	named := firing(`{"alertname":"A","namespace":"demo","pod":"web-2"}`)
	if _, err := parse(t, hook(`{}`, good, nameless), false).Alert(1); err == nil || !strings.Contains(err.Error(), "alerts[1].labels.alertname: required") {
		t.Errorf("got %v", err)
	}
	group := parse(t, hook(`{}`, good, named), false)
	for i := range group.Len() {
		s, err := group.Alert(i)
		if err != nil {
			t.Fatal(err)
		}
		var payload struct {
			ExternalURL string `json:"externalURL"`
			Alerts      []struct {
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if err := json.Unmarshal([]byte(s.Payload), &payload); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("web-%d", i+1)
		if len(payload.Alerts) != 1 || payload.Alerts[0].Labels["pod"] != want || payload.ExternalURL == "" {
			t.Errorf("alert %d: got payload %s", i, s.Payload)
		}
	}
}

func TestAlertWindow(t *testing.T) {
	for name, c := range map[string]struct {
		start string
		dated bool
		want  string // of the error
	}{
		"old alerts are sent again":           {"2020-01-01T00:00:00Z", false, ""},
		"two minutes ahead":                   {"2026-03-01T12:02:00Z", false, ""},
		"further ahead":                       {"2026-03-01T12:02:01Z", false, "alerts[1].startsAt: more than 2m0s in the future"},
		"none":                                {"", false, "alerts[1].startsAt: required"},
		"the zero time is none":               {"0001-01-01T00:00:00Z", false, "alerts[1].startsAt: required"},
		"none is needed with a header":        {"", true, ""},
		"a header overrules what lies ahead":  {"2026-03-01T13:00:00Z", true, ""},
		"another zone":                        {"2026-03-01T13:01:00+01:00", false, ""},
		"no time":                             {"yesterday", true, `alerts[1].startsAt: "yesterday" is no RFC 3339 time`},
		"a number of seconds is not a string": {"1772366400", true, "is no RFC 3339 time"},
	} {
		t.Run(name, func(t *testing.T) {
			alerts := func(start string) string {
				return fmt.Sprintf(`{"labels":{"alertname":"A","namespace":"demo","pod":"p"},"startsAt":%q}`, start)
			}
			group := parse(t, hook(`{}`, alerts("2026-03-01T11:00:00Z"), alerts(c.start)), c.dated)
			if _, err := group.Alert(0); err != nil {
				t.Errorf("the other alert: got %v", err)
			}
			if _, err := group.Alert(1); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no alerts":               {hook(`{}`), "alerts: at least one is required"},
		"null for the alerts":     {`{"alerts":null}`, "alerts: at least one is required"},
		"a text for the alerts":   {`{"alerts":"x"}`, "alerts: string at byte 13, expected an array"},
		"too many alerts":         {hook(`{}`, strings.Repeat("{},", MaxAlerts)+"{}"), "alerts: more than 2000; set max_alerts of the webhook to 2000 or less"},
		"too many common labels":  {hook(`{`+entries(257)+`}`, `{}`), "commonLabels: more than 256"},
		"a common label too long": {hook(`{"l":"`+strings.Repeat("x", 4<<10+1)+`"}`, `{}`), `commonLabels: "l" holds more than 4096 bytes`},
		"too much in common": {strings.Replace(hook(`{}`, `{}`, `{}`), `"runbook":"r"`, `"runbook":"`+strings.Repeat("r", maxCommonBytes)+`"`, 1),
			"commonAnnotations: with all but the alerts more than 131072 bytes"},
		"the alerts in two cases": {`{"alerts":[{"labels":{"alertname":"A"}}],"Alerts":[{"labels":{"pod":"victim"}}]}`, `key "Alerts" written twice`},
		"no JSON":                 {`alert`, "malformed JSON at byte 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parser.Parse([]byte(c.body), false, now)
			var invalid *signal.Invalid
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestALabelThatIsNoText(t *testing.T) {
	_, err := parse(t, hook(`{}`, `{"labels":{"alertname":1}}`), true).Alert(0)
	if err == nil || !strings.Contains(err.Error(), "alerts[0].labels") || !strings.Contains(err.Error(), "expected a string") {
		t.Errorf("got %v", err)
	}
}

// TestMemory holds the work on a body to a multiple of its bytes, whatever it is full
// of: what alerts have in common is not copied for each of them.
func TestMemory(t *testing.T) {
	fill := func(n int) string { return strings.TrimSuffix(strings.Repeat("{},", n), ",") }
	stormy := make([]string, 1000) // as kube-prometheus writes them
	for i := range stormy {
		stormy[i] = firing(fmt.Sprintf(`{"alertname":"KubePodCrashLooping","namespace":"demo","pod":"web-%d","container":"web","uid":"3c1d5f0a-7c1b-4f1e-9a55-0d9f6c1b2a10",
			"job":"kube-state-metrics","instance":"10.244.1.17:8080","endpoint":"http","service":"kube-prometheus-stack-kube-state-metrics",
			"prometheus":"monitoring/kube-prometheus-stack-prometheus","severity":"warning","reason":"CrashLoopBackOff","description":"%s"}`, i, strings.Repeat("d", 400)))
	}
	for name, c := range map[string]struct {
		body string
		most float64 // bytes held for each byte of the body
	}{
		"a storm":                      {hook(`{"alertname":"A"}`, stormy...), 8},
		"empty alerts":                 {`{"commonLabels":{"alertname":"A"},"alerts":[` + fill(MaxAlerts) + `]}`, 40},
		"empty alerts, much in common": {`{"commonLabels":{` + entries(maxEntries) + `},"commonAnnotations":{` + entries(maxEntries) + `},"alerts":[` + fill(MaxAlerts) + `]}`, 40},
		"one alert of many labels":     {`{"alerts":[{"labels":{` + entries(maxEntries) + `}}]}`, 40},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			group := parse(t, c.body, true)
			var held []signal.Signal
			for i := range min(10, group.Len()) { // as many as are worked on at once
				s, _ := group.Alert(i)
				held = append(held, s)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			factor := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(len(c.body))
			t.Logf("%d bytes, %d alerts: %.1f bytes held for each byte", len(c.body), group.Len(), factor)
			if factor > c.most {
				t.Errorf("got %.1f bytes for each byte of the body, at most %.0f", factor, c.most)
			}
			runtime.KeepAlive(group)
			runtime.KeepAlive(held)
		})
	}
}

// FuzzParse looks for a body that panics, or that is refused as anything but the
// sender's fault.
func FuzzParse(f *testing.F) {
	f.Add([]byte(hook(`{"alertname":"A"}`, firing(`{"pod":"p"}`), firing(`{"node":"n","pod":"\u0000"}`))), false)
	f.Add([]byte(`{"alerts":[{"labels":null,"startsAt":"0001-01-01T00:00:00Z"},{}]}`), true)
	f.Add([]byte(`{"alerts":[{"status":"resolved"}],"commonLabels":{"alertname":"\ud800"}}`), true)
	f.Add([]byte(`[[[[`), false)
	f.Add([]byte("\xff\xfe{}"), false)
	f.Add([]byte(`{"Alerts":[{"labels":{"alertname":"A","pod":"p"}}],"alerts":[{"labels":{"alertname":"A"}}]}`), true)
	f.Add([]byte(`{"alerts":[{},{}],"Alerts":[{},{},{}]}`), true)
	for _, labels := range corpus(f) {
		f.Add([]byte(hook(`{}`, firing(labels))), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, dated bool) {
		group, err := parser.Parse(body, dated, now)
		var invalid *signal.Invalid
		if err != nil {
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v", err)
			}
			return
		}
		if group.Len() == 0 {
			t.Fatal("got neither alerts nor an error")
		}
		for i := range group.Len() {
			s, err := group.Alert(i)
			if err == nil && !s.Resolved {
				holdsTarget(t, s)
			}
			if err == nil && !json.Valid([]byte(s.Payload)) {
				t.Fatalf("got payload %q", s.Payload)
			}
			var stale *signal.Stale
			var rejected *signal.Rejected
			if err != nil && !errors.As(err, &invalid) && !errors.As(err, &stale) && !errors.As(err, &rejected) {
				t.Fatalf("got %v", err)
			}
		}
	})
}

// holdsTarget fails unless every part of a signal's target is the value of a label.
func holdsTarget(t *testing.T, s signal.Signal) {
	t.Helper()
	values := slices.Collect(maps.Values(s.Labels))
	if s.Target.Kind == "" || s.Target.Name == "" && s.Target.HostOf == "" {
		t.Fatalf("got %+v without a target", s)
	}
	for _, part := range []string{s.Target.Name, s.Target.HostOf, s.Target.Namespace} {
		if part != "" && !slices.Contains(values, part) {
			t.Fatalf("got %s, of which no label says %q: %v", s.Target, part, s.Labels)
		}
	}
}

// corpus returns the labels of the table's own test cases, as JSON.
func corpus(f *testing.F) []string {
	f.Helper()
	file, err := os.Open("../target/testdata/alerts.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	var labels []string
	for decoder := json.NewDecoder(file); ; {
		var c struct {
			Labels json.RawMessage `json:"labels"`
		}
		if err := decoder.Decode(&c); err == io.EOF {
			return labels
		} else if err != nil {
			f.Fatal(err)
		}
		labels = append(labels, string(c.Labels))
	}
}
