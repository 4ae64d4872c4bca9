package signal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/resource"
)

func TestFingerprint(t *testing.T) {
	web := resource.Ref{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "demo", Name: "web"}
	node := resource.Ref{APIVersion: "v1", Kind: "Node", Name: "worker"}
	for name, c := range map[string]struct {
		cluster  string
		workload resource.Ref
		text     string
	}{
		"a workload":                     {"", web, "demo:Deployment:web"},
		"a workload of a named cluster":  {"east", web, "east:demo:Deployment:web"},
		"a cluster-scoped object":        {"", node, ":Node:worker"},
		"a cluster-scoped one elsewhere": {"east", node, "east::Node:worker"},
		"a kind of another API":          {"", resource.Ref{APIVersion: "example.com/v1", Kind: "Deployment", Namespace: "demo", Name: "web"}, "demo:Deployment.example.com:web"},
	} {
		t.Run(name, func(t *testing.T) {
			sum := sha256.Sum256([]byte(c.text))
			if got, want := Fingerprint(c.cluster, c.workload), hex.EncodeToString(sum[:]); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	good := Signal{
		Name: "KubePodCrashLooping", Severity: "critical", Namespace: "demo",
		Target: resource.Ref{APIVersion: "v1", Kind: "Pod", Namespace: "demo", Name: "web-1"},
	}
	for name, c := range map[string]struct {
		change func(*Signal)
		field  string // empty: valid
	}{
		"a good signal":                {func(*Signal) {}, ""},
		"a name of 253 characters":     {func(s *Signal) { s.Name = strings.Repeat("過", 253) }, ""},
		"a severity of 50 characters":  {func(s *Signal) { s.Severity = strings.Repeat("高", 50) }, ""},
		"a cluster of 253 characters":  {func(s *Signal) { s.Cluster = strings.Repeat("群", 253) }, ""},
		"no target yet":                {func(s *Signal) { s.Target = resource.Ref{} }, ""},
		"no namespace":                 {func(s *Signal) { s.Namespace = "" }, ""},
		"a target of 253 characters":   {func(s *Signal) { s.Target.Name = strings.Repeat("n", 253) }, ""},
		"unicode in names":             {func(s *Signal) { s.Name = "Überlast 過負荷" }, ""},
		"no name":                      {func(s *Signal) { s.Name = "" }, "signal name"},
		"a name of 254 bytes":          {func(s *Signal) { s.Name = strings.Repeat("n", 254) }, "signal name"},
		"a severity of 51 bytes":       {func(s *Signal) { s.Severity = strings.Repeat("s", 51) }, "severity"},
		"a cluster of 254 bytes":       {func(s *Signal) { s.Cluster = strings.Repeat("c", 254) }, "cluster"},
		"a path for a target":          {func(s *Signal) { s.Target.Name = "../secrets/x" }, "target"},
		"a shell line for a target":    {func(s *Signal) { s.Target.Name = "x; rm -rf /" }, "target"},
		"a target of 254 characters":   {func(s *Signal) { s.Target.Name = strings.Repeat("n", 254) }, "target"},
		"a namespace that cannot be":   {func(s *Signal) { s.Namespace = "a/b" }, "namespace"},
		"another namespace's target":   {func(s *Signal) { s.Target.Namespace = "A" }, "target"},
		"a NUL in a label":             {func(s *Signal) { s.Labels = map[string]string{"a": "b\x00"} }, "labels"},
		"a NUL in a label's name":      {func(s *Signal) { s.Labels = map[string]string{"a\x00": "b"} }, "labels"},
		"a NUL in an annotation":       {func(s *Signal) { s.Annotations = map[string]string{"a": "\x00"} }, "annotations"},
		"a NUL in the severity":        {func(s *Signal) { s.Severity = "\x00" }, "severity"},
		"a newline in the annotations": {func(s *Signal) { s.Annotations = map[string]string{"a": "x\ny"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			c.change(&s)
			err := s.Validate()
			var invalid *Invalid
			if c.field == "" {
				if err != nil {
					t.Errorf("got %v, want valid", err)
				}
				return
			}
			if !errors.As(err, &invalid) || invalid.Field != c.field {
				t.Errorf("got %v, want field %s", err, c.field)
			}
		})
	}
}

func TestWindow(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		at           time.Duration
		window, late bool // whether each check passes
	}{
		"now":                    {0, true, true},
		"five minutes old":       {-5 * time.Minute, true, true},
		"older":                  {-5*time.Minute - time.Nanosecond, false, true},
		"two minutes ahead":      {2 * time.Minute, true, true},
		"further ahead":          {2*time.Minute + time.Nanosecond, false, false},
		"a century ahead":        {100 * 365 * 24 * time.Hour, false, false},
		"older than time allows": {-200 * 365 * 24 * time.Hour, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			at := now.Add(c.at)
			var stale *Stale
			err := CheckWindow("f", at, now)
			if (err == nil) != c.window || (err != nil && !errors.As(err, &stale)) {
				t.Errorf("window: got %v", err)
			}
			if err := CheckAhead("f", at, now); (err == nil) != c.late {
				t.Errorf("ahead: got %v", err)
			}
		})
	}
}
