package kubernetesevent

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
)

var parser = &Parser{Clusters: target.Clusters{Here: []string{"here"}, Taken: []string{"east"}}}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// event returns an event as an exporter forwards it, after change was made to it.
func eventBody(t *testing.T, change func(map[string]any)) []byte {
	t.Helper()
	e := map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata":       map[string]any{"name": "web-1.17", "namespace": "demo", "labels": map[string]any{"team": "a"}},
		"type":           "Warning",
		"reason":         "BackOff",
		"message":        "Back-off restarting failed container",
		"count":          7,
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": "demo", "name": "web-1", "uid": "u"},
		"source":         map[string]any{"component": "kubelet", "host": "worker"},
		"firstTimestamp": "2026-03-01T11:00:00Z",
		"lastTimestamp":  "2026-03-01T11:59:00Z",
		"eventTime":      nil,
	}
	if change != nil {
		change(e)
	}
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestParse(t *testing.T) {
	body := eventBody(t, nil)
	s, err := parser.Parse(body, false, now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Source != signal.KubernetesEvents || s.Name != "BackOff" || s.Severity != "warning" || s.Namespace != "demo" || s.Target.String() != "Pod/demo/web-1" {
		t.Errorf("got %+v", s)
	}
	if !s.Firing.Equal(now.Add(-time.Minute)) || !s.Received.Equal(now) || s.Payload != string(body) {
		t.Errorf("got %+v", s)
	}
	if s.Labels["team"] != "a" || s.Labels["reason"] != "BackOff" || s.Labels["component"] != "kubelet" || s.Annotations["message"] == "" {
		t.Errorf("got labels %v, annotations %v", s.Labels, s.Annotations)
	}
}

func TestParseRules(t *testing.T) {
	object := func(e map[string]any) map[string]any { return e["involvedObject"].(map[string]any) }
	times := func(first, last any) func(map[string]any) {
		return func(e map[string]any) { e["firstTimestamp"], e["lastTimestamp"] = first, last }
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		dated  bool
		want   string // of the error; empty: accepted
	}{
		"a warning":                  {nil, false, ""},
		"an error":                   {func(e map[string]any) { e["type"] = "Error" }, false, ""},
		"a normal event":             {func(e map[string]any) { e["type"] = "Normal" }, false, "type: must be Warning or Error"},
		"no type":                    {func(e map[string]any) { delete(e, "type") }, false, "type: must be"},
		"no reason":                  {func(e map[string]any) { delete(e, "reason") }, false, "reason: required"},
		"no object":                  {func(e map[string]any) { delete(e, "involvedObject") }, false, "involvedObject: required, or regarding"},
		"no kind":                    {func(e map[string]any) { delete(object(e), "kind") }, false, "involvedObject.kind: required"},
		"no name":                    {func(e map[string]any) { delete(object(e), "name") }, false, "involvedObject.name: required"},
		"no API version":             {func(e map[string]any) { delete(object(e), "apiVersion") }, false, ""},
		"a kind of another API":      {func(e map[string]any) { object(e)["apiVersion"] = "x.io/v1" }, false, ""},
		"a kind of no API":           {func(e map[string]any) { object(e)["kind"] = "Dragon"; delete(object(e), "apiVersion") }, false, `involvedObject.kind: "Dragon" without an apiVersion is not a kind`},
		"an API that cannot be":      {func(e map[string]any) { object(e)["apiVersion"] = "../v1" }, false, "not a kind's name"},
		"no namespace at all":        {func(e map[string]any) { delete(object(e), "namespace"); e["metadata"] = map[string]any{} }, false, "involvedObject.namespace: required for a Pod"},
		"a name that cannot be":      {func(e map[string]any) { object(e)["name"] = "a/b" }, false, "not an object's name"},
		"a number for the reason":    {func(e map[string]any) { e["reason"] = 1 }, false, "reason: number"},
		"the last time is old":       {times("2026-03-01T11:00:00Z", "2026-03-01T11:54:59Z"), false, "lastTimestamp: older than 5m0s"},
		"the newest time counts":     {times("2026-03-01T11:59:00Z", "2026-03-01T11:54:59Z"), false, ""},
		"a zero time says nothing":   {times("2026-03-01T11:59:00Z", "0001-01-01T00:00:00Z"), false, ""},
		"an empty time says nothing": {times("2026-03-01T11:59:00Z", ""), false, ""},
		"when it was made, at last": {func(e map[string]any) {
			times(nil, nil)(e)
			e["metadata"].(map[string]any)["creationTimestamp"] = "2026-03-01T11:59:00Z"
		}, false, ""},
		"when it was made, of a series": {func(e map[string]any) {
			times("2026-03-01T11:00:00Z", nil)(e)
			e["metadata"].(map[string]any)["creationTimestamp"] = "2026-03-01T11:59:00Z"
		}, false, "firstTimestamp: older"},
		"the series counts": {func(e map[string]any) {
			times(nil, nil)(e)
			e["eventTime"] = "2026-03-01T11:25:00.000001Z"
			e["series"] = map[string]any{"count": 7, "lastObservedTime": "2026-03-01T11:59:55.123456Z"}
		}, false, ""},
		"an old series": {func(e map[string]any) {
			times(nil, nil)(e)
			e["eventTime"] = "2026-03-01T11:25:00.000001Z"
			e["series"] = map[string]any{"lastObservedTime": "2026-03-01T11:50:00Z"}
		}, false, "series.lastObservedTime: older"},
		"no series":                        {func(e map[string]any) { e["series"] = nil }, false, ""},
		"another zone":                     {times(nil, "2026-03-01T13:59:00+02:00"), false, ""},
		"a cluster that is not taken":      {func(e map[string]any) { e["clusterName"] = "north" }, false, `cluster "north" is not one`},
		"a type in two cases":              {func(e map[string]any) { e["Type"] = "Normal" }, false, "written twice"},
		"the last time is old, dated":      {times(nil, "2026-03-01T11:54:59Z"), true, "lastTimestamp: older than 5m0s"},
		"the last time is ahead":           {times(nil, "2026-03-01T12:02:01Z"), false, "lastTimestamp: more than 2m0s in the future"},
		"the last time counts":             {times("2020-01-01T00:00:00Z", "2026-03-01T11:55:00Z"), false, ""},
		"only the first time":              {times("2026-03-01T11:59:00Z", nil), false, ""},
		"only the first time, old":         {times("2026-03-01T11:00:00Z", nil), false, "firstTimestamp: older than"},
		"no time":                          {times(nil, nil), false, "lastTimestamp: required"},
		"no time, dated":                   {times(nil, nil), true, ""},
		"only eventTime":                   {func(e map[string]any) { times(nil, nil)(e); e["eventTime"] = "2026-03-01T11:59:00.000001Z" }, false, ""},
		"no time at all in the text":       {times(nil, "noon"), false, `lastTimestamp: "noon" is no RFC 3339 time`},
		"no namespace of the object's own": {func(e map[string]any) { delete(object(e), "namespace") }, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parser.Parse(eventBody(t, c.change), c.dated, now)
			if c.want == "" {
				if err != nil || s.Target.Namespace != "demo" {
					t.Errorf("got %s, %v", s.Target, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseClusterScoped(t *testing.T) {
	s, err := parser.Parse(eventBody(t, func(e map[string]any) {
		e["metadata"] = map[string]any{"namespace": "default"}
		e["involvedObject"] = map[string]any{"kind": "Node", "name": "worker"}
	}), false, now)
	if err != nil || s.Target.String() != "Node/worker" || s.Namespace != "default" || s.Cluster != "" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestParseEventsAPI(t *testing.T) {
	body := `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"web-1.1","namespace":"demo"},"eventTime":"2026-03-01T11:25:00.000001Z",
		"reportingController":"default-scheduler","reportingInstance":"default-scheduler-cp-1","action":"Scheduling","reason":"FailedScheduling",
		"regarding":{"kind":"Pod","namespace":"demo","name":"web-1","apiVersion":"v1"},"note":"0/3 nodes are available","type":"Warning",
		"series":{"count":7,"lastObservedTime":"2026-03-01T11:59:55.123456Z"},"deprecatedCount":7,"deprecatedFirstTimestamp":null,"deprecatedLastTimestamp":null,
		"clusterName":"here"}`
	s, err := parser.Parse([]byte(body), false, now)
	if err != nil || s.Target.String() != "Pod/demo/web-1" || s.Name != "FailedScheduling" || s.Cluster != "" {
		t.Fatalf("got %+v, %v", s, err)
	}
	if s.Labels["component"] != "default-scheduler" || s.Annotations["message"] != "0/3 nodes are available" || s.Firing.Second() != 55 {
		t.Errorf("got %+v", s)
	}
	for _, of := range [][2]string{{`"kind":"Pod",`, "regarding.kind: required"}, {`"name":"web-1",`, "regarding.name: required"}} {
		if _, err := parser.Parse([]byte(strings.Replace(body, of[0], "", 1)), false, now); err == nil || !strings.Contains(err.Error(), of[1]) {
			t.Errorf("got %v, want %s", err, of[1])
		}
	}
}

func TestParseKindOfTheCluster(t *testing.T) {
	s, err := parser.Parse(eventBody(t, func(e map[string]any) {
		e["involvedObject"] = map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "namespace": "demo", "name": "web"}
		e["clusterName"] = "east"
	}), false, now)
	if err != nil || s.Target.Known() || s.Target.String() != "Rollout/demo/web" || s.Target.APIVersion != "argoproj.io/v1alpha1" || s.Cluster != "east" {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestParseOtherShapes refuses what is no event by what it is, and says what is wanted.
func TestParseOtherShapes(t *testing.T) {
	inner := string(eventBody(t, nil))
	for name, c := range map[string]struct{ body, says string }{
		"an array":               {`[` + inner + `]`, "an array"},
		"a list":                 {`{"kind":"List","items":[` + inner + `]}`, `"items"`},
		"a watch's event":        {`{"type":"ADDED","object":` + inner + `}`, `"object"`},
		"an envelope":            {`{"event":` + inner + `}`, `"event"`},
		"an envelope of the API": {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`, "AdmissionReview"},
		"a cloud event":          {`{"specversion":"1.0","type":"x","data":` + inner + `,"source":"https://10.96.0.1"}`, `"data"`},
		"a webhook of alerts":    {`{"version":"4","alerts":[]}`, `"alerts"`},
		"nothing":                {`{}`, "no members"},
		"null":                   {`null`, "no members"},
		"a null object":          {`{"involvedObject":null,"type":"Warning"}`, `"involvedObject"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parser.Parse([]byte(c.body), false, now)
			var invalid *signal.Invalid
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "involvedObject (core/v1) or regarding (events.k8s.io/v1)") {
				t.Errorf("got %v, want %s", err, c.says)
			}
		})
	}
	for _, body := range []string{"[1", "{", `{"involvedObject":1}`, `"x"`} {
		if _, err := parser.Parse([]byte(body), false, now); err == nil || strings.Contains(err.Error(), "wanted") {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

// FuzzParse looks for a body that panics, or that is refused as anything but the
// sender's fault.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"Warning","reason":"r","involvedObject":{"kind":"Pod","name":"p"},"lastTimestamp":"2026-03-01T12:00:00Z"}`), false)
	f.Add([]byte(`{"type":"Error","reason":"\u0000","involvedObject":{"kind":"Node","name":"p"},"metadata":{"labels":{"a":null}}}`), true)
	f.Add([]byte(`{"lastTimestamp":"9999-12-31T23:59:59Z"}`), false)
	f.Add([]byte(`{"type":1}`), false)
	f.Add([]byte("\xef\xbb\xbf{}"), true)
	f.Fuzz(func(t *testing.T, body []byte, dated bool) {
		s, err := parser.Parse(body, dated, now)
		var invalid *signal.Invalid
		var stale *signal.Stale
		var rejected *signal.Rejected
		if err != nil && !errors.As(err, &invalid) && !errors.As(err, &stale) && !errors.As(err, &rejected) {
			t.Fatalf("got %v", err)
		}
		if err == nil && (s.Target.Name == "" || !bytes.Contains(unescaped(body), []byte(s.Target.Name)) || !bytes.Contains(unescaped(body), []byte(s.Target.Namespace)) || s.Name == "" || !json.Valid([]byte(s.Payload))) {
			t.Fatalf("got %+v", s)
		}
	})
}

// unescaped returns a body as JSON without escapes, so that what it says can be found in it.
func unescaped(body []byte) []byte {
	var document any
	if json.Unmarshal(body, &document) != nil {
		return nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(document)
	return text.Bytes()
}
