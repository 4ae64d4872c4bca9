// Package cluster runs one Kind cluster through kind's library, with what that
// library leaves to its callers: creation that can be canceled, a private
// kubeconfig, readiness that is watched, and images streamed into every node.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	kind "sigs.k8s.io/kind/pkg/cluster"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// nodeLabel is the label that kind puts on the containers and volumes of a cluster.
const nodeLabel = "io.x-k8s.kind.cluster"

// Kind is one Kind cluster by name, there or not. It is safe for concurrent use,
// but for Create and Delete of the same cluster.
type Kind struct {
	Name       string // of the cluster; exact
	Engine     string // podman or docker, passed to every call of kind
	Kubeconfig string // where Create writes it, mode 0600
	Runner     command.Runner
	Log        func(ctx context.Context) io.Writer // what kind says; nil discards
}

// Spec is the cluster to create.
type Spec struct {
	Image      string              // of the nodes; must be in the engine's store
	Ports      []int32             // node ports to map to free ports of 127.0.0.1
	OwnCNI     bool                // the node image brings its own network configuration, kind's is left out
	CgroupV1   bool                // the host has cgroup v1, which the kubelet refuses unless told otherwise
	Patches    string              // host folder with kubeadm patches; empty for none
	Mounts     map[string]string   // host folder to the path in the control plane's node where it is mounted, writable
	ExtraNodes []v1alpha4.Node     // besides the control plane
	Networking v1alpha4.Networking // merged below the settings made here
}

// config is the typed form of Spec that kind takes.
func (s Spec) config() *v1alpha4.Cluster {
	control := v1alpha4.Node{Role: v1alpha4.ControlPlaneRole, Image: s.Image}
	for _, port := range s.Ports {
		// Host port 0 lets kind take a free one. 127.0.0.1 and not localhost: that
		// is ::1 on some hosts, where the engines publish IPv4.
		control.ExtraPortMappings = append(control.ExtraPortMappings, v1alpha4.PortMapping{ContainerPort: port, ListenAddress: "127.0.0.1"})
	}
	cluster := &v1alpha4.Cluster{
		TypeMeta:   v1alpha4.TypeMeta{APIVersion: "kind.x-k8s.io/v1alpha4", Kind: "Cluster"},
		Nodes:      append([]v1alpha4.Node{control}, s.ExtraNodes...),
		Networking: s.Networking,
	}
	cluster.Networking.APIServerAddress = "127.0.0.1"
	cluster.Networking.DisableDefaultCNI = s.OwnCNI
	// RSA keys cost two cores 2-4 s. etcd's fsync protects against a power cut of
	// the host, which no cluster that is made anew for every run must survive, and
	// bounds writes to what the disk's cache flush allows. The API server collects its
	// garbage less often up to 1 GiB: a suite keeps it busy, and a quarter of what it did
	// was that. The controllers allow themselves 20 calls a second, and a suite makes
	// hundreds of things at once.
	cluster.KubeadmConfigPatches = []string{strings.Join([]string{
		"kind: ClusterConfiguration",
		"encryptionAlgorithm: ECDSA-P256",
		"etcd:",
		"  local:",
		"    extraArgs:",
		"    - name: unsafe-no-fsync",
		"      value: \"true\"",
		"apiServer:",
		"  extraEnvs:",
		"  - name: GOGC",
		"    value: \"300\"",
		"  - name: GOMEMLIMIT",
		"    value: 1GiB",
		"controllerManager:",
		"  extraArgs:",
		"  - name: kube-api-qps",
		"    value: \"200\"",
		"  - name: kube-api-burst",
		"    value: \"400\"",
	}, "\n")}
	// kube-proxy gathers changes of endpoints for a second; what waits for a Service
	// waits that long each time, and a pod that ends gets requests that much longer.
	cluster.KubeadmConfigPatches = append(cluster.KubeadmConfigPatches, "kind: KubeProxyConfiguration\niptables:\n  minSyncPeriod: 100ms\n")
	// The kubelet looks at its containers once a second; with EventedPLEG (alpha, off by
	// default) what the runtime tells of them only makes it look sooner. And a container
	// that ends is started again after ten seconds, twenty, forty, as what breaks for good
	// should be: here processes are killed on purpose, one spec after the other, and what
	// crashes at once should be seen to do it again soon.
	kubelet := strings.Join([]string{
		"kind: KubeletConfiguration",
		"featureGates:",
		"  EventedPLEG: true",
		"crashLoopBackOff:",
		"  maxContainerRestartPeriod: 1s",
		"",
	}, "\n")
	if s.CgroupV1 {
		// On cgroup v1 systemd in the node takes away a slice below which the kubelet is
		// about to make a pod's ("mkdir .../kubelet-kubepods-burstable.slice/...: no such
		// file or directory"): in 2 of 20 creations the API server began ten seconds late
		// for it, and the scheduler thirty. systemd lets alone what cgroupfs makes.
		kubelet += "failCgroupV1: false\ncgroupDriver: cgroupfs\n"
		cluster.ContainerdConfigPatches = append(cluster.ContainerdConfigPatches, strings.Join([]string{
			`[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]`,
			`  SystemdCgroup = false`,
			``,
		}, "\n"))
	}
	cluster.KubeadmConfigPatches = append(cluster.KubeadmConfigPatches, kubelet)
	for _, host := range slices.Sorted(maps.Keys(s.Mounts)) {
		cluster.Nodes[0].ExtraMounts = append(cluster.Nodes[0].ExtraMounts, v1alpha4.Mount{HostPath: host, ContainerPath: s.Mounts[host]})
	}
	if s.Patches != "" {
		cluster.Nodes[0].ExtraMounts = append(cluster.Nodes[0].ExtraMounts, v1alpha4.Mount{HostPath: s.Patches, ContainerPath: "/kind/patches", Readonly: true})
		cluster.KubeadmConfigPatches = append(cluster.KubeadmConfigPatches, "kind: InitConfiguration\npatches:\n  directory: /kind/patches\n")
	}
	v1alpha4.SetDefaultsCluster(cluster)
	return cluster
}

// transient are the errors of a creation that are worth one more try, and no
// others: each is a race of the host, not a fault of the configuration.
var transient = regexp.MustCompile(strings.Join([]string{
	`port is already allocated`, `address already in use`, // the port was free when it was chosen
	`could not find a log line that matches`,                              // systemd's boot message was late
	`network name .* already used`, `network with name .* already exists`, // two first clusters at once
	`OCI runtime.*(text file busy|device or resource busy)`,
	`wait-control-plane`,
}, "|"))

// Create makes the cluster and returns when its API server answers. When ctx ends
// first, the cluster's containers and volumes are removed and kind is waited for,
// within a few seconds. After a failure the half-made cluster is kept for
// diagnosis; the caller deletes it. retried is called before a second try.
func (k Kind) Create(ctx context.Context, spec Spec, retried func(error)) error {
	err := k.create(ctx, spec)
	if err != nil && ctx.Err() == nil && transient.MatchString(fullText(err)) {
		retried(err)
		if err := k.Delete(ctx); err != nil {
			return err
		}
		err = k.create(ctx, spec)
	}
	return err
}

func (k Kind) create(ctx context.Context, spec Spec) error {
	// kind merges into a file that is there; this one is private and of this cluster only.
	if err := os.Remove(k.Kubeconfig); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	provider, err := k.provider(ctx)
	if err != nil {
		return err
	}
	var created error
	done := make(chan struct{})
	go func() {
		defer close(done)
		created = provider.Create(k.Name,
			kind.CreateWithV1Alpha4Config(spec.config()),
			kind.CreateWithKubeconfigPath(k.Kubeconfig),
			kind.CreateWithRetain(true), // diagnostics come before removal
			kind.CreateWithDisplayUsage(false),
			kind.CreateWithDisplaySalutation(false),
		)
	}()
	select {
	case <-done:
		if created != nil {
			return fmt.Errorf("cluster %s: %s", k.Name, fullText(created))
		}
		// Canceled by now, it is removed as one that was canceled before.
		if err := errors.Join(os.Chmod(k.Kubeconfig, 0o600), k.refuse(ctx)); ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	// kind takes no context (kubernetes-sigs/kind#1545): without its containers it
	// comes to its end by itself. What it starts in between is removed by the
	// second round.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	err = k.Delete(cleanup)
	select {
	case <-done: // of a creation whose containers are gone, an error of no interest
		err = errors.Join(err, k.Delete(cleanup))
	case <-cleanup.Done():
		err = errors.Join(err, fmt.Errorf("cluster %s: kind did not end within %s of being canceled; run: go tool mage cluster:delete", k.Name, cancelTimeout))
	}
	return errors.Join(fmt.Errorf("cluster %s: creation canceled, its containers removed: %w", k.Name, context.Cause(ctx)), err)
}

// refuse lets the nodes refuse every connection that leads nowhere: to a Service without
// endpoints, to a pod that is gone. Linux rations its refusals to one a second for each
// sender (icmp_ratelimit, ms), and who gets none waits for a time-out instead: what a spec
// sees of a store that is away would depend on how often it was tried in that second.
func (k Kind) refuse(ctx context.Context) error {
	nodes, err := k.Nodes(ctx)
	for _, node := range nodes {
		err = errors.Join(err, k.Runner.Run(ctx, command.Cmd{Args: []string{k.Engine, "exec", node, "sysctl", "--quiet", "--write", "net.ipv4.icmp_ratelimit=0"}}))
	}
	return err
}

// cancelTimeout fits the five seconds that Mage gives an interrupted target.
const cancelTimeout = 4500 * time.Millisecond

func (k Kind) provider(ctx context.Context) (*kind.Provider, error) {
	log := io.Discard
	if k.Log != nil {
		log = k.Log(ctx)
	}
	options := []kind.ProviderOption{kind.ProviderWithLogger(logger{log})}
	switch k.Engine {
	case "podman":
		options = append(options, kind.ProviderWithPodman())
	case "docker":
		options = append(options, kind.ProviderWithDocker())
	default:
		return nil, fmt.Errorf("engine %q: kind knows podman and docker", k.Engine)
	}
	return kind.NewProvider(options...), nil
}

// Nodes returns the names of the cluster's node containers that run, sorted.
func (k Kind) Nodes(ctx context.Context) ([]string, error) {
	return k.list(ctx, "ps", "--filter", "label="+nodeLabel+"="+k.Name, "--format", "{{.Names}}")
}

// All returns the names of the cluster's node containers in any state, sorted.
func (k Kind) All(ctx context.Context) ([]string, error) {
	return k.list(ctx, "ps", "--all", "--filter", "label="+nodeLabel+"="+k.Name, "--format", "{{.Names}}")
}

func (k Kind) list(ctx context.Context, args ...string) ([]string, error) {
	out, err := command.Output(ctx, k.Runner, append([]string{k.Engine}, args...)...)
	names := strings.Fields(out)
	slices.Sort(names)
	return names, err
}

// Delete removes the cluster's containers and volumes and its kubeconfig; a
// cluster that is not there is deleted already. kind's network stays: every
// cluster of the host shares it.
func (k Kind) Delete(ctx context.Context) error {
	containers, err := k.All(ctx)
	if err != nil {
		return err
	}
	if len(containers) > 0 {
		args := []string{k.Engine, "rm", "--force", "--volumes"}
		if k.Engine == "podman" {
			args = append(args, "--time", "0") // a node has nothing to save
		}
		// Engines report "did not receive an exit event" of a container that is
		// gone all the same; what counts is what is left.
		removal := k.Runner.Run(ctx, command.Cmd{Args: append(args, containers...)})
		left, err := k.All(ctx)
		if err != nil || len(left) > 0 {
			return errors.Join(fmt.Errorf("cluster %s: containers left: %s", k.Name, strings.Join(left, ", ")), removal, err)
		}
	}
	// With podman kind names a node's volume nothing and labels it with the node's
	// name; a creation that was cut off may have left one without its container.
	control := k.Name + "-control-plane"
	if !slices.Contains(containers, control) {
		containers = append(containers, control)
	}
	for _, node := range containers {
		volumes, err := k.list(ctx, "volume", "ls", "--quiet", "--filter", "label="+node)
		if err != nil {
			return err
		}
		if len(volumes) > 0 {
			if err := k.Runner.Run(ctx, command.Cmd{Args: append([]string{k.Engine, "volume", "rm", "--force"}, volumes...)}); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(k.Kubeconfig); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Ports returns what the node's ports are mapped to: "127.0.0.1:port" by node port.
func (k Kind) Ports(ctx context.Context, node string) (map[int32]string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "port", node)
	if err != nil {
		return nil, err
	}
	ports := map[int32]string{}
	for line := range strings.Lines(out) {
		var port int32
		var address string
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%d/tcp -> %s", &port, &address); err != nil {
			return nil, fmt.Errorf("node %s: port mapping %q: %w", node, line, err)
		}
		ports[port] = address
	}
	return ports, nil
}

// Images returns the references that the node's containerd holds.
func (k Kind) Images(ctx context.Context, node string) ([]string, error) {
	out, err := command.Output(ctx, k.Runner, k.Engine, "exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
	return strings.Fields(out), err
}

// Import streams one image archive into every given node at once. save writes the
// archive; it is called once.
func (k Kind) Import(ctx context.Context, nodes []string, save func(context.Context, io.Writer) error) error {
	group, ctx := errgroup.WithContext(ctx)
	writers := make([]io.Writer, len(nodes))
	closers := make([]*io.PipeWriter, len(nodes))
	for i, node := range nodes {
		r, w := io.Pipe()
		writers[i], closers[i] = w, w
		group.Go(func() error {
			err := k.Runner.Run(ctx, command.Cmd{
				Args:  []string{k.Engine, "exec", "--interactive", node, "ctr", "--namespace", "k8s.io", "images", "import", "-"},
				Stdin: r,
			})
			if err != nil {
				err = fmt.Errorf("node %s: %w", node, err)
			}
			r.CloseWithError(err) // a writer must not wait for a reader that is gone
			return err
		})
	}
	group.Go(func() error {
		err := save(ctx, io.MultiWriter(writers...))
		for _, w := range closers {
			w.CloseWithError(err)
		}
		return err
	})
	return group.Wait()
}

// fullText is an error with the last lines of the command that caused it, which
// kind keeps apart.
func fullText(err error) string {
	text := err.Error()
	if out, ok := outputOf(err); ok && len(bytes.TrimSpace(out)) > 0 {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		text += ": " + strings.Join(lines[max(0, len(lines)-15):], "\n")
	}
	return text
}
