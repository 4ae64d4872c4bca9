package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func kindWith(t *testing.T, engine string, runner command.Runner) Kind {
	t.Helper()
	return Kind{Name: "e2e-1", Engine: engine, Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), Runner: runner}
}

func TestConfigBindsOnlyLoopbackAndPatchesWhatTheHostNeeds(t *testing.T) {
	config := Spec{Image: "node", Ports: []Port{{Number: 30080}}, OwnCNI: true, CgroupV1: true, Patches: "/patches"}.config()
	if got := config.Networking.APIServerAddress; got != "127.0.0.1" {
		t.Errorf("API server address: got %q", got)
	}
	mapping := config.Nodes[0].ExtraPortMappings[0]
	if mapping.ListenAddress != "127.0.0.1" || mapping.HostPort != 0 || mapping.ContainerPort != 30080 {
		t.Errorf("port mapping: got %+v", mapping)
	}
	both := Spec{Ports: []Port{{30053, "TCP"}, {30053, "UDP"}}}.config().Nodes[0].ExtraPortMappings
	if both[0].Protocol != "TCP" || both[1].Protocol != "UDP" {
		t.Errorf("one number for two protocols: got %+v", both)
	}
	if !config.Networking.DisableDefaultCNI {
		t.Error("kind's CNI is not left out for an image with its own")
	}
	patches := strings.Join(config.KubeadmConfigPatches, "\n")
	if containerd := strings.Join(config.ContainerdConfigPatches, "\n"); !strings.Contains(containerd, "SystemdCgroup = false") {
		t.Error("containerd and the kubelet differ in who makes cgroups")
	}
	for _, want := range []string{"failCgroupV1: false", "cgroupDriver: cgroupfs", "maxContainerRestartPeriod: 1s", "ECDSA-P256", "directory: /kind/patches"} {
		if !strings.Contains(patches, want) {
			t.Errorf("kubeadm patches lack %q", want)
		}
	}
	plain := Spec{Image: "node"}.config()
	if patches := strings.Join(plain.KubeadmConfigPatches, "\n"); strings.Contains(patches, "failCgroupV1") || strings.Contains(patches, "cgroupDriver") || len(plain.ContainerdConfigPatches) > 0 {
		t.Error("a host with cgroup v2 gets settings for v1")
	}
}

func TestDeleteRemovesContainersAndVolumesOfThisClusterOnly(t *testing.T) {
	removed := false
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		switch line := strings.Join(cmd.Args, " "); {
		case strings.Contains(line, "ps --all") && !removed:
			io.WriteString(cmd.Stdout, "e2e-1-control-plane\n")
		case strings.HasPrefix(line, "podman rm"):
			removed = true
		case strings.Contains(line, "volume ls"):
			io.WriteString(cmd.Stdout, "v1\nv2\n")
		}
		return nil
	}}
	if err := kindWith(t, "podman", runner).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"podman", "ps", "--all", "--filter", "label=io.x-k8s.kind.cluster=e2e-1", "--format", "{{.Names}}"},
		{"podman", "rm", "--force", "--volumes", "--time", "0", "e2e-1-control-plane"},
		{"podman", "ps", "--all", "--filter", "label=io.x-k8s.kind.cluster=e2e-1", "--format", "{{.Names}}"},
		{"podman", "volume", "ls", "--quiet", "--filter", "label=e2e-1-control-plane"},
		{"podman", "volume", "rm", "--force", "v1", "v2"},
	}
	if got := runner.Calls(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestPreparedIsTakenFromWhatKindSays(t *testing.T) {
	prepared := 0
	log := logger{io.Discard, func() { prepared++ }}
	for _, said := range []string{" • Preparing nodes 📦  ...\n", " ✓ Preparing nodes 📦 \n", " ✗ Writing configuration 📜\n"} {
		log.V(0).Info(said)
	}
	if prepared != 0 {
		t.Error("told before the nodes are configured")
	}
	if log.V(0).Infof(" ✓ %s\n", "Writing configuration 📜"); prepared != 1 {
		t.Errorf("told %d times, want once", prepared)
	}
}

func TestNodesAreBootedWhenTheirConsoleSaysSo(t *testing.T) {
	for _, test := range []struct {
		console string
		booted  bool
	}{
		{"Detected virtualization podman.\r\n[  OK  ] Reached target \x1b[0;1;39mmulti-user.target - Multi-User System\x1b[0m.\r\n", true},
		{"INFO: detected cgroup v1\r\n", false},
	} {
		runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
			for _, part := range strings.SplitAfter(test.console, " ") { // as it comes
				io.WriteString(cmd.Stdout, part)
			}
			if test.booted {
				return context.Canceled // as what follows a console is, once that was seen
			}
			return nil
		}}
		err := kindWith(t, "docker", runner).Booted(t.Context(), []string{"e2e-1-control-plane"})
		if (err == nil) != test.booted {
			t.Errorf("%q: got %v", test.console, err)
		}
		if want := []string{"docker", "logs", "--follow", "e2e-1-control-plane"}; !slices.Equal(runner.Calls()[0], want) {
			t.Errorf("got %v, want %v", runner.Calls()[0], want)
		}
	}
}

func TestDeleteOfNoClusterConverges(t *testing.T) {
	runner := &command.Recorder{}
	if err := kindWith(t, "docker", runner).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, call := range runner.Calls() {
		if slices.Contains(call, "rm") {
			t.Errorf("removed something: %v", call)
		}
	}
}

func TestDeleteFailsOnlyWhenSomethingIsLeft(t *testing.T) {
	gone := false
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if slices.Contains(cmd.Args, "ps") && !gone {
			io.WriteString(cmd.Stdout, "e2e-1-control-plane\n")
		}
		if cmd.Args[1] == "rm" {
			gone = true
			return errors.New("did not receive an exit event")
		}
		return nil
	}}
	if err := kindWith(t, "docker", runner).Delete(t.Context()); err != nil {
		t.Errorf("the containers are gone, got %v", err)
	}
	stuck := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if slices.Contains(cmd.Args, "ps") {
			io.WriteString(cmd.Stdout, "e2e-1-control-plane\n")
		}
		return nil
	}}
	err := kindWith(t, "docker", stuck).Delete(t.Context())
	if err == nil || !strings.Contains(err.Error(), "containers left: e2e-1-control-plane") {
		t.Errorf("got %v, want the container that is left", err)
	}
}

func TestAnImportSaysInAWordWhatANodeLacks(t *testing.T) {
	for said, want := range map[string]string{
		"level=warning msg=DEPRECATION\nctr: failed to copy: write /var/x: no space left on device": "node n1: no space left on podman's disk",
		"ctr: open /kind/archives/a/1.tar: no such file or directory":                               "node n1: does not see this checkout's image archives",
	} {
		runner := &command.Recorder{Answer: func(command.Cmd) error { return &command.Error{ExitCode: 1, Stderr: said} }}
		if err := kindWith(t, "podman", runner).Import(t.Context(), []string{"n1"}, "a/1.tar"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestImportHasEveryNodeReadTheArchive(t *testing.T) {
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		if cmd.Args[2] == "n2" {
			return errors.New("container is not running")
		}
		return nil
	}}
	err := kindWith(t, "podman", runner).Import(t.Context(), []string{"n1", "n2", "n3"}, "a/1.tar")
	if err == nil || err.Error() != "node n2: container is not running" {
		t.Errorf("got %v, want the node's error", err)
	}
	for _, node := range []string{"n1", "n3"} {
		want := []string{"podman", "exec", node, "ctr", "--namespace", "k8s.io", "images", "import", "--local", "/kind/archives/a/1.tar"}
		if !slices.ContainsFunc(runner.Calls(), func(call []string) bool { return slices.Equal(call, want) }) {
			t.Errorf("no call %v", want)
		}
	}
}

func TestPortsReadWhatTheEngineMapped(t *testing.T) {
	runner := &command.Recorder{Answer: func(cmd command.Cmd) error {
		_, err := fmt.Fprintln(cmd.Stdout, "30080/tcp -> 127.0.0.1:41000\n30080/udp -> 127.0.0.1:41009\n6443/tcp -> 127.0.0.1:41001")
		return err
	}}
	got, err := kindWith(t, "podman", runner).Ports(t.Context(), "e2e-1-control-plane")
	if err != nil {
		t.Fatal(err)
	}
	if want := (map[Port]string{{30080, "TCP"}: "127.0.0.1:41000", {30080, "UDP"}: "127.0.0.1:41009", {6443, "TCP"}: "127.0.0.1:41001"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOnlyTheListedErrorsAreRetried(t *testing.T) {
	for text, want := range map[string]bool{
		"Bind for 127.0.0.1:4000 failed: port is already allocated": true,
		"could not find a log line that matches \"Reached target\"": true,
		"network name kind already used":                            true,
		"unable to apply caps: operation not permitted":             false,
		"image not known": false,
		"command \"podman run\" failed: exit status 126: crun: cgroups in hybrid": false,
	} {
		if got := transient.MatchString(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
