//go:build capture

package alertmanager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/e2e/alertmanager"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// The bodies are what this very program sends. Made anew when its version changes, with the
// program of the image that the catalog names:
//
//	podman cp "$(podman create IMAGE)":/bin/alertmanager /tmp/
//	go test -tags capture ./test/e2e/alertmanager -program /tmp/alertmanager
var program = flag.String("program", "", "Alertmanager's program")

// folder is where the tests of the Gateway's parser find the bodies.
const folder = "../../../docker/gateway/prometheus/testdata/alertmanager"

const configuration = `
route:
  receiver: all
  group_by: [namespace]
  group_wait: 500ms
  group_interval: 1s
  routes: [{matchers: ['truncated="yes"'], receiver: two}]
receivers:
- name: all
  webhook_configs: [{url: %[1]q}]
- name: two
  webhook_configs: [{url: %[1]q, max_alerts: 2}]
`

func TestCapture(t *testing.T) {
	bodies := make(chan []byte, 1)
	listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies <- body
	}))
	defer listener.Close()
	am := start(t, listener.URL)

	well := signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "mixed", "deployment", "payment")
	ill := signals.Firing("KubeStatefulSetReplicasMismatch", "namespace", "mixed", "statefulset", "cart", "severity", "warning")
	for _, capture := range []struct {
		name   string
		alerts []signals.Alert
	}{
		{"firing", []signals.Alert{signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "shop", "deployment", "checkout")}},
		{"group", []signals.Alert{
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "group", "deployment", "checkout"),
			signals.Firing("KubePodCrashLooping", "namespace", "group", "pod", "cart-0", "uid", "0b6cf9b2", "container", "cart", "reason", "CrashLoopBackOff"),
			signals.Firing("KubeJobFailed", "namespace", "group", "job_name", "nightly", "severity", "warning"),
		}},
		{"before", []signals.Alert{well, ill}},
		{"mixed", []signals.Alert{well.Resolved()}},
		{"resolved", []signals.Alert{ill.Resolved()}},
		{"clusters", []signals.Alert{
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "clusters", "deployment", "checkout", "cluster", "east"),
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "clusters", "deployment", "checkout", "cluster", "west"),
		}},
		{"truncated", []signals.Alert{
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "truncated", "deployment", "a", "truncated", "yes"),
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "truncated", "deployment", "b", "truncated", "yes"),
			signals.Firing("KubeDeploymentReplicasMismatch", "namespace", "truncated", "deployment", "c", "truncated", "yes"),
		}},
		{"scripts", []signals.Alert{signals.Firing("Ausfälle 🔥", "namespace", "scripts", "deployment", "checkout", "équipe", "платежи", "k8s.io/owner", "支付")}},
		{"objectless", []signals.Alert{signals.Bare("Watchdog", "severity", "none")}},
	} {
		for i, alert := range capture.alerts {
			// What began longer ago is not kept for the rest of its group.
			if capture.alerts[i] = alert.Began(time.Now().Truncate(time.Millisecond)); alert.Status == "resolved" {
				capture.alerts[i] = capture.alerts[i].Resolved()
			}
		}
		if err := am.Post(t.Context(), capture.alerts...); err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if err := json.Indent(&body, <-bodies, "", "  "); err != nil {
			t.Fatal(err)
		}
		if capture.name == "before" {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, capture.name+".json"), body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// start runs Alertmanager until the test ends, and returns it when it is ready.
func start(t *testing.T, receiver string) *alertmanager.Alertmanager {
	t.Helper()
	file := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, receiver), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- command.Local{}.Run(ctx, command.Cmd{Args: []string{*program, "--config.file=" + file, "--storage.path=" + t.TempDir(),
			"--cluster.listen-address=", "--web.listen-address=" + address, "--web.external-url=http://alertmanager-main-0:9093"}})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	am := &alertmanager.Alertmanager{Address: address, Client: http.DefaultClient}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := am.Sent(ctx, "all")
		if err == nil {
			return am
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}
