package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
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

func TestParseOneAlert(t *testing.T) {
	body := hook(`{"alertname":"A","severity":"critical","cluster":"east"}`,
		firing(`{"alertname":"other","severity":"low","namespace":"demo","pod":"web-1"}`))
	alerts, err := Parse([]byte(body), false, now)
	if err != nil || len(alerts) != 1 || alerts[0].Err != nil {
		t.Fatalf("got %+v, %v", alerts, err)
	}
	s := alerts[0].Signal
	if s.Source != signal.Prometheus || s.Name != "A" || s.Severity != "critical" || s.Cluster != "east" || s.Namespace != "demo" {
		t.Errorf("got %+v", s)
	}
	if s.Target.String() != "Pod/demo/web-1" {
		t.Errorf("got target %s", s.Target)
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
		"default is the last":          {`{}`, `{"alertname":"A","deployment":"web"}`, "", "default unknown Deployment/default/web"},
		"common labels name the alert": {`{"alertname":"A","namespace":"demo"}`, `{"statefulset":"db"}`, "", "demo unknown StatefulSet/demo/db"},
		"unicode":                      {`{}`, `{"alertname":"Überlast 過負荷","namespace":"demo","pod":"web-1","severity":"größer"}`, "", "demo größer Pod/demo/web-1"},
		"a cluster-scoped target":      {`{}`, `{"alertname":"A","namespace":"monitoring","node":"worker"}`, "", "monitoring unknown Node/worker"},
		"resolved":                     {`{}`, `{"alertname":"A"}`, "resolved", "default unknown /"},
		"no alert name":                {`{}`, `{"pod":"web-1"}`, "", "alerts[0].labels.alertname: required"},
		"no target":                    {`{}`, `{"alertname":"A","job":"j","instance":"i","endpoint":"e","container":"c","namespace":"n"}`, "", "none names a Kubernetes object"},
		"an unknown status":            {`{}`, `{"alertname":"A","pod":"web-1"}`, "pending", "must be firing or resolved"},
		"a name of 254 bytes":          {`{}`, `{"alertname":"` + strings.Repeat("n", 254) + `","pod":"web-1"}`, "", "signal name"},
		"a pod that cannot be":         {`{}`, `{"alertname":"A","pod":"../x"}`, "", "not an object's name"},
	} {
		t.Run(name, func(t *testing.T) {
			body := hook(c.common, firing(c.labels))
			if c.status != "" {
				body = strings.Replace(body, `{"status":"firing","labels"`, `{"status":"`+c.status+`","labels"`, 1)
			}
			alerts, err := Parse([]byte(body), false, now)
			if err != nil {
				t.Fatal(err)
			}
			s := alerts[0].Signal
			got := fmt.Sprintf("%s %s %s", s.Namespace, s.Severity, s.Target)
			if alerts[0].Err != nil {
				got = alerts[0].Err.Error()
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

func TestTarget(t *testing.T) {
	for name, c := range map[string]struct {
		labels string // JSON
		want   string // empty: none
	}{
		"pod":                              {`{"pod":"p"}`, "Pod/ns/p"},
		"deployment":                       {`{"deployment":"d"}`, "Deployment/ns/d"},
		"statefulset":                      {`{"statefulset":"s"}`, "StatefulSet/ns/s"},
		"daemonset":                        {`{"daemonset":"d"}`, "DaemonSet/ns/d"},
		"replicaset":                       {`{"replicaset":"r"}`, "ReplicaSet/ns/r"},
		"replicationcontroller":            {`{"replicationcontroller":"r"}`, "ReplicationController/ns/r"},
		"cronjob":                          {`{"cronjob":"c"}`, "CronJob/ns/c"},
		"job_name":                         {`{"job_name":"j"}`, "Job/ns/j"},
		"node":                             {`{"node":"n"}`, "Node/n"},
		"persistentvolume":                 {`{"persistentvolume":"v"}`, "PersistentVolume/v"},
		"persistentvolumeclaim":            {`{"persistentvolumeclaim":"c"}`, "PersistentVolumeClaim/ns/c"},
		"horizontalpodautoscaler":          {`{"horizontalpodautoscaler":"h"}`, "HorizontalPodAutoscaler/ns/h"},
		"poddisruptionbudget":              {`{"poddisruptionbudget":"b"}`, "PodDisruptionBudget/ns/b"},
		"ingress":                          {`{"ingress":"i"}`, "Ingress/ns/i"},
		"service":                          {`{"service":"s"}`, "Service/ns/s"},
		"job is the scrape":                {`{"job":"node-exporter"}`, ""},
		"what is scraped names nothing":    {`{"job":"j","instance":"10.0.0.1:9100","endpoint":"web","container":"c","namespace":"n"}`, ""},
		"a pod before its deployment":      {`{"deployment":"d","pod":"p","service":"s"}`, "Pod/ns/p"},
		"a claim before its node":          {`{"node":"n","persistentvolumeclaim":"c","service":"kubelet"}`, "PersistentVolumeClaim/ns/c"},
		"anything before the service":      {`{"node":"n","service":"s"}`, "Node/n"},
		"an empty label":                   {`{"pod":"","deployment":"d"}`, "Deployment/ns/d"},
		"an exported pod":                  {`{"exported_namespace":"ns","exported_pod":"p","pod":"kube-state-metrics-1"}`, "Pod/ns/p"},
		"the exporter's pod":               {`{"exported_namespace":"ns","deployment":"d","pod":"kube-state-metrics-1"}`, "Deployment/ns/d"},
		"the exporter's pod, nothing else": {`{"exported_namespace":"ns","pod":"p"}`, "Pod/ns/p"},
	} {
		t.Run(name, func(t *testing.T) {
			var labels map[string]string
			if err := json.Unmarshal([]byte(c.labels), &labels); err != nil {
				t.Fatal(err)
			}
			got, found := Target(labels, "ns")
			if found != (c.want != "") || found && got.String() != c.want {
				t.Errorf("got %s, %t, want %q", got, found, c.want)
			}
		})
	}
}

func TestParseSeveral(t *testing.T) {
	good := firing(`{"alertname":"A","namespace":"demo","pod":"web-1"}`)
	nameless := firing(`{"pod":"web-2"}`)
	alerts, err := Parse([]byte(hook(`{}`, good, nameless)), false, now)
	if err != nil || len(alerts) != 2 {
		t.Fatalf("got %d, %v", len(alerts), err)
	}
	if alerts[0].Err != nil || alerts[1].Err == nil {
		t.Errorf("got %v and %v, want only the second to fail", alerts[0].Err, alerts[1].Err)
	}
	for i, alert := range alerts {
		var payload struct {
			ExternalURL string `json:"externalURL"`
			Alerts      []struct {
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if err := json.Unmarshal([]byte(alert.Signal.Payload), &payload); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("web-%d", i+1)
		if len(payload.Alerts) != 1 || payload.Alerts[0].Labels["pod"] != want || payload.ExternalURL == "" {
			t.Errorf("alert %d: got payload %s", i, alert.Signal.Payload)
		}
	}
}

func TestParseWindow(t *testing.T) {
	for name, c := range map[string]struct {
		starts []string
		dated  bool
		want   string // of the error
	}{
		"old alerts are sent again":           {[]string{"2020-01-01T00:00:00Z"}, false, ""},
		"two minutes ahead":                   {[]string{"2026-03-01T12:02:00Z"}, false, ""},
		"further ahead":                       {[]string{"2026-03-01T12:02:01Z"}, false, "startsAt: more than 2m0s in the future"},
		"the newest counts":                   {[]string{"2026-03-01T11:00:00Z", "2026-03-01T13:00:00Z"}, false, "in the future"},
		"none":                                {[]string{""}, false, "startsAt: required"},
		"the zero time is none":               {[]string{"0001-01-01T00:00:00Z"}, false, "startsAt: required"},
		"one of two is enough":                {[]string{"", "2026-03-01T11:00:00Z"}, false, ""},
		"none is needed with a header":        {[]string{""}, true, ""},
		"a header overrides what lies ahead":  {[]string{"2026-03-01T13:00:00Z"}, true, ""},
		"another zone":                        {[]string{"2026-03-01T13:01:00+01:00"}, false, ""},
		"no time":                             {[]string{"2026-03-01T11:00:00Z", "yesterday"}, true, `alerts[1].startsAt: "yesterday" is no RFC 3339 time`},
		"a number of seconds is not a string": {[]string{"1772366400"}, true, "is no RFC 3339 time"},
	} {
		t.Run(name, func(t *testing.T) {
			var alerts []string
			for _, start := range c.starts {
				alerts = append(alerts, fmt.Sprintf(`{"labels":{"alertname":"A","pod":"p"},"startsAt":%q}`, start))
			}
			_, err := Parse([]byte(hook(`{}`, alerts...)), c.dated, now)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no alerts":             {hook(`{}`), "alerts: at least one is required"},
		"null for the alerts":   {`{"alerts":null}`, "alerts: at least one is required"},
		"a text for the alerts": {`{"alerts":"x"}`, "alerts: string at byte 13, expected an array"},
		"a number for a label":  {hook(`{}`, `{"labels":{"alertname":1}}`), "expected a string"},
		"no JSON":               {`alert`, "malformed JSON at byte 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.body), false, now)
			var invalid *signal.Invalid
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseManyLabels(t *testing.T) {
	var labels strings.Builder
	for i := range 200 {
		fmt.Fprintf(&labels, `"label_%d":"value %d",`, i, i)
	}
	alerts, err := Parse([]byte(hook(`{}`, firing(`{`+labels.String()+`"alertname":"A","pod":"p"}`))), false, now)
	if err != nil || alerts[0].Err != nil || len(alerts[0].Signal.Labels) != 202 {
		t.Errorf("got %d labels, %v", len(alerts[0].Signal.Labels), err)
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
	f.Fuzz(func(t *testing.T, body []byte, dated bool) {
		alerts, err := Parse(body, dated, now)
		var invalid *signal.Invalid
		var stale *signal.Stale
		if err != nil && !errors.As(err, &invalid) && !errors.As(err, &stale) {
			t.Fatalf("got %v", err)
		}
		if err == nil && len(alerts) == 0 {
			t.Fatal("got neither alerts nor an error")
		}
		for _, alert := range alerts {
			if alert.Err != nil && !errors.As(alert.Err, &invalid) {
				t.Fatalf("got %v", alert.Err)
			}
			if alert.Err == nil && !alert.Signal.Resolved && alert.Signal.Target.Name == "" {
				t.Fatalf("got %+v without a target", alert.Signal)
			}
			if !json.Valid([]byte(alert.Signal.Payload)) {
				t.Fatalf("got payload %q", alert.Signal.Payload)
			}
		}
	})
}
