package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

// What Alertmanager v0.35 itself sent, as test/e2e/alertmanager/capture_test.go made it:
// whoever wrote the parser has no part in it.
func TestBodiesOfAlertmanager(t *testing.T) {
	for file, want := range map[string][]string{
		"firing": {"KubeDeploymentReplicasMismatch critical: Deployment/shop/checkout"},
		"group": {
			"KubeDeploymentReplicasMismatch critical: Deployment/group/checkout",
			"KubeJobFailed warning: Job/group/nightly",
			"KubePodCrashLooping critical: Pod/group/cart-0",
		},
		"mixed": {
			"KubeDeploymentReplicasMismatch critical: resolved",
			"KubeStatefulSetReplicasMismatch warning: StatefulSet/mixed/cart",
		},
		"resolved": {"KubeStatefulSetReplicasMismatch warning: resolved"},
		"clusters": {
			"KubeDeploymentReplicasMismatch critical: Deployment/clusters/checkout in east",
			"KubeDeploymentReplicasMismatch critical: Deployment/clusters/checkout in west",
		},
		"truncated": {
			"KubeDeploymentReplicasMismatch critical: Deployment/truncated/a",
			"KubeDeploymentReplicasMismatch critical: Deployment/truncated/b",
			"1 left out",
		},
		"scripts":    {"Ausfälle 🔥 critical: Deployment/scripts/checkout"},
		"objectless": {"Watchdog none: nothing"},
	} {
		t.Run(file, func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join("testdata", "alertmanager", file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			group, err := parser.Parse(body, false, sentAt(t, body))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range group.Len() {
				got = append(got, told(group.Alert(i)))
			}
			if group.Truncated > 0 {
				got = append(got, fmt.Sprintf("%d left out", group.Truncated))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// told is what the parser has understood of one alert.
func told(s signal.Signal, err error) string {
	text := s.Name + " " + s.Severity + ": "
	var rejected *signal.Rejected
	switch {
	case errors.As(err, &rejected):
		return text + "nothing"
	case err != nil:
		return text + err.Error()
	case s.Resolved:
		return text + "resolved" // whatever it was about
	}
	text += s.Target.String()
	if s.Cluster != "" {
		text += " in " + s.Cluster
	}
	return text
}

// sentAt is a moment at which a body may have been sent: when its last alert had begun.
func sentAt(t *testing.T, body []byte) time.Time {
	t.Helper()
	var message struct {
		Alerts []struct{ StartsAt time.Time }
	}
	if err := json.Unmarshal(body, &message); err != nil {
		t.Fatal(err)
	}
	var newest time.Time
	for _, alert := range message.Alerts {
		if alert.StartsAt.After(newest) {
			newest = alert.StartsAt
		}
	}
	return newest
}
