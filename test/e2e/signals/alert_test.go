package signals

import (
	"maps"
	"testing"
	"testing/fstest"
	"time"
)

func TestNotify(t *testing.T) {
	one, two := Firing("Down", "namespace", "a", "pod", "x"), Firing("Down", "namespace", "a", "pod", "y")
	webhook := Notify(one, two)
	if _, ok := webhook.CommonLabels["pod"]; ok || webhook.CommonLabels["namespace"] != "a" || webhook.CommonLabels["alertname"] != "Down" {
		t.Errorf("common labels %v, want what both have and nothing else", webhook.CommonLabels)
	}
	if one.Labels["pod"] != "x" {
		t.Errorf("labels of the alert were changed: %v", one.Labels)
	}
	for name, test := range map[string]struct {
		alerts []Alert
		want   string
	}{
		"all resolved": {[]Alert{one.Resolved(), two.Resolved()}, "resolved"},
		"one firing":   {[]Alert{one.Resolved(), two}, "firing"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Notify(test.alerts...).Status; got != test.want {
				t.Errorf("status %s, want %s", got, test.want)
			}
		})
	}
}

func TestWith(t *testing.T) {
	alert := Firing("Down", "team", "a")
	changed := alert.With("team", "", "severity", "info")
	want := maps.Clone(alert.Labels)
	delete(want, "team")
	want["severity"] = "info"
	if !maps.Equal(changed.Labels, want) {
		t.Errorf("labels %v, want %v", changed.Labels, want)
	}
}

func TestLoad(t *testing.T) {
	files := fstest.MapFS{
		"good.json": {Data: []byte(`{"commonLabels":{"namespace":"shop"},"alerts":[
			{"status":"firing","labels":{"namespace":"shop","pod":"a"},"startsAt":"2026-01-01T10:00:00Z","endsAt":"0001-01-01T00:00:00Z"},
			{"status":"resolved","labels":{"namespace":"shop"},"startsAt":"2026-01-01T09:00:00Z","endsAt":"2026-01-01T09:30:00Z"}]}`)},
		"bad.json": {Data: []byte(`{`)},
	}
	webhook, err := Load(files, "good.json", "mine")
	if err != nil {
		t.Fatal(err)
	}
	if webhook.CommonLabels["namespace"] != "mine" || webhook.Alerts[0].Labels["namespace"] != "mine" {
		t.Errorf("namespaces %v and %v, want mine", webhook.CommonLabels, webhook.Alerts[0].Labels)
	}
	newest, older := webhook.Alerts[0], webhook.Alerts[1]
	if age := time.Since(newest.StartsAt); age < 59*time.Second || age > 2*time.Minute {
		t.Errorf("the newest alert began %s ago, want about a minute", age)
	}
	if gap := newest.StartsAt.Sub(older.StartsAt); gap != time.Hour {
		t.Errorf("the alerts are %s apart, want the hour that was written down", gap)
	}
	if !newest.EndsAt.IsZero() || older.EndsAt.Sub(older.StartsAt) != 30*time.Minute {
		t.Errorf("ends %s and %s, want none and half an hour later", newest.EndsAt, older.EndsAt)
	}
	for _, name := range []string{"bad.json", "missing.json"} {
		if _, err := Load(files, name, "mine"); err == nil {
			t.Errorf("Load(%s): no error", name)
		}
	}
}
