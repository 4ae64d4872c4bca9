package kubernetesevent

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

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
	s, err := Parse(body, false, now)
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
		"a warning":                        {nil, false, ""},
		"an error":                         {func(e map[string]any) { e["type"] = "Error" }, false, ""},
		"a normal event":                   {func(e map[string]any) { e["type"] = "Normal" }, false, "type: must be Warning or Error"},
		"no type":                          {func(e map[string]any) { delete(e, "type") }, false, "type: must be"},
		"no reason":                        {func(e map[string]any) { delete(e, "reason") }, false, "reason: required"},
		"no object":                        {func(e map[string]any) { delete(e, "involvedObject") }, false, "involvedObject.kind: required"},
		"no kind":                          {func(e map[string]any) { delete(object(e), "kind") }, false, "involvedObject.kind: required"},
		"no name":                          {func(e map[string]any) { delete(object(e), "name") }, false, "involvedObject.name: required"},
		"no API version":                   {func(e map[string]any) { delete(object(e), "apiVersion") }, false, ""},
		"a kind of another API":            {func(e map[string]any) { object(e)["apiVersion"] = "x.io/v1" }, false, "not a kind that the Gateway follows"},
		"a name that cannot be":            {func(e map[string]any) { object(e)["name"] = "a/b" }, false, "not an object's name"},
		"a number for the reason":          {func(e map[string]any) { e["reason"] = 1 }, false, "reason: number"},
		"the last time is old":             {times("2026-03-01T11:59:00Z", "2026-03-01T11:54:59Z"), false, "lastTimestamp: older than 5m0s"},
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
			s, err := Parse(eventBody(t, c.change), c.dated, now)
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
	s, err := Parse(eventBody(t, func(e map[string]any) {
		e["metadata"] = map[string]any{"namespace": "default"}
		e["involvedObject"] = map[string]any{"kind": "Node", "name": "worker"}
	}), false, now)
	if err != nil || s.Target.String() != "Node/worker" || s.Namespace != "default" {
		t.Errorf("got %+v, %v", s, err)
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
		s, err := Parse(body, dated, now)
		var invalid *signal.Invalid
		var stale *signal.Stale
		if err != nil && !errors.As(err, &invalid) && !errors.As(err, &stale) {
			t.Fatalf("got %v", err)
		}
		if err == nil && (s.Target.Name == "" || s.Name == "" || !json.Valid([]byte(s.Payload))) {
			t.Fatalf("got %+v", s)
		}
	})
}
