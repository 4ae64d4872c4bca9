package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// world is a cluster of one node as the engine and the API server show it.
type world struct {
	state, started string    // of the container
	made           time.Time // when its creation was done; zero is before every start
	kernel         string    // value of every setting
	startFails     bool
	ready          metav1.Time // heartbeat of the node's condition Ready
	renewed        time.Time   // the kubelet's lease
	podSince       time.Time   // start of a pod's process
	wantReady      bool        // the pods were ready when it was made
	podReady       bool
	podOf          map[string]string // annotations of the pod
	down           bool              // the API server does not answer
	ended          bool              // the node has, right after its start
	endpoints      []string          // addresses that the API server's Service leads to
	retries        int               // that its kubelet needs until it has read the Services
	changed        chan corev1.Pod   // whoever watches is told, of what there is room for
	asked          *sync.Mutex       // one question at a time, but for watches
}

const node = "e2e-1-control-plane"

func (w *world) run(cmd command.Cmd) error {
	switch line := strings.Join(cmd.Args[1:], " "); {
	case strings.HasPrefix(line, "ps "):
		fmt.Fprintln(cmd.Stdout, node)
	case strings.HasPrefix(line, "inspect"):
		fmt.Fprintf(cmd.Stdout, "%s\t%s\n", w.state, w.started)
	case strings.HasPrefix(line, "start") && w.startFails:
		return errors.New("bind: address already in use")
	case strings.HasPrefix(line, "start"), strings.HasPrefix(line, "unpause"):
		w.state = "running"
	case strings.HasPrefix(line, "exec") && w.ended:
		return errors.New("container is not running")
	case strings.Contains(line, "sysctl --values"):
		fmt.Fprintln(cmd.Stdout, w.kernel)
	}
	return nil
}

// pod is the only one.
func (w *world) pod() corev1.Pod {
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web", UID: "1", Annotations: w.podOf}, Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[w.podReady]}}, ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: w.podSince}}},
		}}},
	}
	if w.retries > 0 {
		pod.Status.Conditions[0].Status = corev1.ConditionFalse
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "CreateContainerConfigError", Message: "services have not yet been read at least once, cannot construct envvars",
		}}
	}
	return pod
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("sendInitialEvents") != "" { // as an API server that knows lists and watches only
		rw.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(rw).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
		return
	}
	if r.URL.Query().Get("watch") != "" {
		rw.WriteHeader(http.StatusOK)
		rw.(http.Flusher).Flush()
		for {
			select {
			case pod := <-w.changed:
				_ = json.NewEncoder(rw).Encode(map[string]any{"type": "MODIFIED", "object": pod})
				rw.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
	w.asked.Lock()
	defer w.asked.Unlock()
	var list any
	switch {
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/namespaces/apps/pods/web"):
		w.retries--
		list = w.pod()
		w.changed <- w.pod()
	case strings.HasSuffix(r.URL.Path, "/nodes"):
		list = corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: []corev1.Node{{
			ObjectMeta: metav1.ObjectMeta{Name: node},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: w.ready}},
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.89.0.40"}, {Type: corev1.NodeHostName, Address: node}},
			},
		}}}
	case strings.HasSuffix(r.URL.Path, "/leases"):
		list = coordinationv1.LeaseList{TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "LeaseList"}, Items: []coordinationv1.Lease{{
			ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: w.renewed}},
		}}}
	case strings.HasSuffix(r.URL.Path, "/namespaces/default/endpointslices"):
		list = discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}, Items: []discoveryv1.EndpointSlice{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, Endpoints: []discoveryv1.Endpoint{{Addresses: w.endpoints}},
		}}}
	case strings.HasSuffix(r.URL.Path, "/pods"):
		list = corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{w.pod()}}
	}
	_ = json.NewEncoder(rw).Encode(list)
}

// open returns the world's cluster.
func (w *world) open(t *testing.T) (Kind, *command.Recorder) {
	t.Helper()
	w.asked = new(sync.Mutex)
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	if w.down {
		server.Close()
	}
	runner := &command.Recorder{Answer: w.run}
	k := kindWith(t, "podman", runner)
	k.MendTimeout = time.Second
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(k.Kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return k, runner
}

// mend mends the world and returns what Mend does and which commands change something.
func (w *world) mend(t *testing.T) (done string, changed []string, err error) {
	t.Helper()
	k, runner := w.open(t)
	done, err = k.Mend(t.Context(), []string{node}, Made{Nodes: []string{node}, At: w.made, Ready: w.wantReady}, func(string, ...any) {})
	for _, call := range runner.Calls() {
		if line := strings.Join(call[1:], " "); !strings.HasPrefix(line, "ps") && !strings.HasPrefix(line, "inspect") && !strings.Contains(line, "--values") {
			changed = append(changed, line)
		}
	}
	return done, changed, err
}

func TestMend(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	well := world{
		state: "running", started: start.Format(time.RFC3339Nano), kernel: "0",
		ready: metav1.Time{Time: start.Add(time.Minute)}, renewed: time.Now().Add(time.Hour), podSince: start.Add(time.Minute),
		endpoints: []string{"10.89.0.40"},
	}
	set := "exec " + node + " sysctl --quiet --write net.ipv4.icmp_ratelimit=0"
	tests := []struct {
		name    string
		damage  func(*world)
		done    string
		changed []string
		broken  string // part of the reason to make it anew; empty when it is mended
	}{
		{"all is well", func(*world) {}, "", nil, ""},
		{"podman's way to write a time", func(w *world) { w.started = start.Format("2006-01-02 15:04:05.999999999 -0700 MST") }, "", nil, ""},
		{"stopped", func(w *world) { w.state, w.kernel = "exited", "1000" },
			"started " + node + "; set net.ipv4.icmp_ratelimit again", []string{"start " + node, set}, ""},
		{"paused", func(w *world) { w.state = "paused" }, "continued " + node, []string{"unpause " + node}, ""},
		{"restarted by the engine: the settings are gone", func(w *world) { w.kernel = "1000" }, "set net.ipv4.icmp_ratelimit again", []string{set}, ""},
		{"not started since it was made: the settings hold", func(w *world) { w.kernel, w.made = "unread", start.Add(time.Minute) }, "", nil, ""},
		{"cannot be started", func(w *world) { w.state, w.startFails = "exited", true }, "", []string{"start " + node}, "address already in use"},
		{"its API server does not answer", func(w *world) { w.down = true }, "", nil, "connection refused"},
		{"its node ends when it has been started", func(w *world) { w.state, w.ended, w.down = "exited", true, true }, "", []string{"start " + node}, "connection refused"},
		{"Ready, as it was before the restart", func(w *world) { w.ready = metav1.Time{Time: start.Add(-time.Minute)} }, "", nil, "its kubelet has not reported since it was started"},
		{"a pod Ready, as it was before the restart", func(w *world) { w.podSince = start.Add(-time.Minute) }, "", nil, "Pod/apps/web: its status is from before the restart"},
		{"a pod that is not ready, as it may have been", func(w *world) { w.podReady = false }, "", nil, ""},
		{"a pod that was ready, and is again", func(w *world) { w.wantReady, w.podReady = true, true }, "", nil, ""},
		{"a pod that was ready, and is no more", func(w *world) { w.wantReady, w.podReady = true, false }, "", nil, "Pod/apps/web: is not ready again"},
		{"a pod that its kubelet would start ten seconds later, because it had not read the Services", func(w *world) {
			w.wantReady, w.podReady, w.retries, w.changed = true, true, 1, make(chan corev1.Pod, 1)
		}, "", nil, ""},
		{"a pod whose kubelet has not read the Services when it tries again", func(w *world) {
			w.wantReady, w.podReady, w.retries, w.changed = true, true, 2, make(chan corev1.Pod, 2)
		}, "", nil, ""},
		{"a pod of the control plane, which was ready", func(w *world) { w.wantReady, w.podOf = true, map[string]string{"kubernetes.io/config.mirror": "x"} }, "", nil, ""},
		{"its API server's address of before, which pods are still sent to", func(w *world) { w.endpoints = []string{"10.89.0.33", "10.89.0.40"} }, "", nil,
			"Service/default/kubernetes: still leads to 10.89.0.33, which is no node's address"},
		{"a kubelet that is silent since it was continued", func(w *world) { w.state, w.renewed = "paused", time.Now().Add(-time.Minute) }, "", []string{"unpause " + node},
			"its kubelet has not reported since it was continued"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := well
			test.damage(&w)
			done, changed, err := w.mend(t)
			if !slices.Equal(changed, test.changed) {
				t.Errorf("changed with %q, want %q", changed, test.changed)
			}
			if test.broken == "" {
				if err != nil || done != test.done {
					t.Errorf("got %q, %v, want %q", done, err, test.done)
				}
				return
			}
			var broken *Broken
			if !errors.As(err, &broken) || !strings.Contains(broken.Reason, test.broken) {
				t.Errorf("got %v, want it made anew because: %s", err, test.broken)
			}
		})
	}

	t.Run("another number of nodes", func(t *testing.T) {
		runner := &command.Recorder{Answer: well.run}
		_, err := kindWith(t, "podman", runner).Mend(t.Context(), []string{node}, Made{Nodes: []string{node, "e2e-1-worker"}}, func(string, ...any) {})
		var broken *Broken
		if want := "its nodes are " + node + " and were " + node + ", e2e-1-worker"; !errors.As(err, &broken) || broken.Reason != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("an engine that does not answer says nothing about the cluster", func(t *testing.T) {
		runner := &command.Recorder{Answer: func(command.Cmd) error { return errors.New("cannot connect to the daemon") }}
		k := kindWith(t, "podman", runner)
		if err := os.WriteFile(k.Kubeconfig, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := k.Mend(t.Context(), []string{node}, Made{Nodes: []string{node}}, func(string, ...any) {})
		var broken *Broken
		if err == nil || errors.As(err, &broken) {
			t.Errorf("got %v, want an error that removes nothing", err)
		}
	})
}

func TestReadyNamesWhyTheAPIServerCannotBeAsked(t *testing.T) {
	k, _ := (&world{down: true}).open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := k.Ready(ctx)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want the error of the connection", err)
	}
}

func TestAStaleLockGoesWithItsKubeconfig(t *testing.T) {
	k := kindWith(t, "podman", &command.Recorder{})
	lock := k.Kubeconfig + ".lock"
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock that a killed creation left is still there: %v", err)
	}
}

func TestIdentityCoversTheWholeSpec(t *testing.T) {
	patches := t.TempDir()
	patch := filepath.Join(patches, "coredns.yaml")
	if err := os.WriteFile(patch, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := func() Spec {
		return Spec{Image: "node:1", Ports: []Port{{30080, "TCP"}}, Patches: patches, Mounts: map[string]string{"/raw": "/coverage"}}
	}
	identity := func(spec Spec, engine string) Identity {
		t.Helper()
		identity, err := spec.Identity(engine)
		if err != nil {
			t.Fatal(err)
		}
		return identity
	}
	was := identity(spec(), "podman")
	if again := identity(spec(), "podman").Differs(was); again != "" {
		t.Errorf("the same differs: %s", again)
	}
	changes := map[string]func(*Spec){
		"its node image: node:1 before, node:2 now":                     func(s *Spec) { s.Image = "node:2" },
		"its node ports: [30080/TCP] before, [30080/TCP 30080/UDP] now": func(s *Spec) { s.Ports = append(s.Ports, Port{30080, "UDP"}) },
		"its mounts: map[/raw:/coverage] before, map[] now":             func(s *Spec) { s.Mounts = nil },
		"its settings: ": func(s *Spec) { s.CgroupV1 = true },
		"its kubeadm patches: " + was["kubeadm patches"] + " before, none ": func(s *Spec) { s.Patches = "" },
	}
	for want, change := range changes {
		changed := spec()
		change(&changed)
		if got := identity(changed, "podman").Differs(was); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := identity(spec(), "docker").Differs(was), "its engine: podman before, docker now"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(patch, []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := identity(spec(), "podman").Differs(was); !strings.HasPrefix(got, "its kubeadm patches: ") {
		t.Errorf("a patch's content: got %q", got)
	}
}

func TestPruneImagesLeavesWhatIsNamedOrRuns(t *testing.T) {
	const own = "localhost/kubernaut-e2e/"
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		switch line := strings.Join(cmd.Args, " "); {
		case strings.Contains(line, "images ls"):
			fmt.Fprintln(cmd.Stdout, "REF TYPE DIGEST SIZE PLATFORMS LABELS")
			for ref, digest := range map[string]string{
				own + "gateway:0": "d0", own + "gateway:1": "d1", own + "gateway:2": "d2", own + "gateway:3": "d0", own + "gateway-2:1": "d4",
				"registry.k8s.io/pause:3": "d5", "sha256:c0": "d0", "sha256:c1": "d1", "sha256:c2": "d2",
			} {
				fmt.Fprintln(cmd.Stdout, ref, "application/vnd.oci.image.manifest.v1+json", digest, "20.1 MiB linux/amd64 -")
			}
		case strings.Contains(line, "containers ls"):
			io.WriteString(cmd.Stdout, "CONTAINER IMAGE RUNTIME\nabc "+own+"gateway:2 io.containerd.runc.v2\n")
		}
		return nil
	}}
	removed, err := kindWith(t, "podman", runner).PruneImages(t.Context(), node, own+"gateway", own+"gateway:3")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{own + "gateway:0", own + "gateway:1"}; !slices.Equal(removed, want) {
		t.Errorf("removed %v, want %v", removed, want)
	}
	calls := runner.Calls()
	if got, want := strings.Join(calls[len(calls)-1], " "), "podman exec "+node+" ctr --namespace k8s.io images rm "+own+"gateway:0 "+own+"gateway:1 sha256:c1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
