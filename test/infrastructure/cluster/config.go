package cluster

import (
	"cmp"
	_ "embed" // of what kubeadm and containerd are told
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
)

// Spec is the cluster to create.
type Spec struct {
	Image    string            // of the nodes; must be in the engine's store
	Ports    []Port            // node ports to map to free ports of 127.0.0.1
	OwnCNI   bool              // the node image brings its own network configuration, kind's is left out
	CgroupV1 bool              // the host has cgroup v1, which the kubelet refuses unless told otherwise
	Patches  string            // host folder with kubeadm patches; empty for none
	Mounts   map[string]string // host folder to the path in the control plane's node where it is mounted, writable
	Archives string            // host folder with the archives that Import loads; empty for none
}

// Port is a node port. TCP and UDP may share a number.
type Port struct {
	Number   int32
	Protocol string // TCP, UDP or SCTP; empty is TCP
}

// String returns, for example, "30080/TCP".
func (p Port) String() string {
	return fmt.Sprintf("%d/%s", p.Number, cmp.Or(p.Protocol, string(v1alpha4.PortMappingProtocolTCP)))
}

var (
	//go:embed kubeadm.yaml
	kubeadmPatches string
	//go:embed cgroup-v1.yaml
	cgroupV1Kubelet string
	//go:embed cgroup-v1.toml
	cgroupV1Containerd string
)

// Where a node finds the folder with kubeadm patches, and that with image archives.
const (
	patchesPath  = "/kind/patches"
	archivesPath = "/kind/archives"
)

// config is the typed form of Spec that kind takes.
func (s Spec) config() *v1alpha4.Cluster {
	control := v1alpha4.Node{Role: v1alpha4.ControlPlaneRole, Image: s.Image}
	for _, port := range s.Ports {
		// Host port 0 lets kind take a free one. 127.0.0.1 and not localhost: that
		// is ::1 on some hosts, where the engines publish IPv4.
		control.ExtraPortMappings = append(control.ExtraPortMappings, v1alpha4.PortMapping{
			ContainerPort: port.Number, Protocol: v1alpha4.PortMappingProtocol(port.Protocol), ListenAddress: "127.0.0.1",
		})
	}
	for _, host := range slices.Sorted(maps.Keys(s.Mounts)) {
		control.ExtraMounts = append(control.ExtraMounts, v1alpha4.Mount{HostPath: host, ContainerPath: s.Mounts[host]})
	}
	if s.Archives != "" {
		control.ExtraMounts = append(control.ExtraMounts, v1alpha4.Mount{HostPath: s.Archives, ContainerPath: archivesPath, Readonly: true})
	}
	cluster := &v1alpha4.Cluster{
		TypeMeta:             v1alpha4.TypeMeta{APIVersion: "kind.x-k8s.io/v1alpha4", Kind: "Cluster"},
		Networking:           v1alpha4.Networking{APIServerAddress: "127.0.0.1", DisableDefaultCNI: s.OwnCNI},
		KubeadmConfigPatches: strings.Split(kubeadmPatches, "---\n"),
	}
	if s.CgroupV1 {
		cluster.KubeadmConfigPatches = append(cluster.KubeadmConfigPatches, cgroupV1Kubelet)
		cluster.ContainerdConfigPatches = append(cluster.ContainerdConfigPatches, cgroupV1Containerd)
	}
	if s.Patches != "" {
		control.ExtraMounts = append(control.ExtraMounts, v1alpha4.Mount{HostPath: s.Patches, ContainerPath: patchesPath, Readonly: true})
		cluster.KubeadmConfigPatches = append(cluster.KubeadmConfigPatches, "kind: InitConfiguration\npatches:\n  directory: "+patchesPath+"\n")
	}
	cluster.Nodes = []v1alpha4.Node{control}
	v1alpha4.SetDefaultsCluster(cluster)
	return cluster
}

// kernelSettings are sysctls of every node. A restart of the node loses them.
//
// Linux rations its refusals to one a second for each sender (icmp_ratelimit, ms), and who
// gets none waits for a time-out instead: what a spec sees of a store that is away would
// depend on how often it was tried in that second. So the nodes refuse every connection
// that leads nowhere: to a Service without endpoints, to a pod that is gone.
var kernelSettings = map[string]string{"net.ipv4.icmp_ratelimit": "0"}

// Identity is what a cluster is made of, by part, for its record: two clusters of the same
// Identity are alike.
type Identity map[string]string

// Identity returns what a cluster of this Spec is made of on an engine. Of the settings and
// of the patches' files it holds a hash.
func (s Spec) Identity(engine string) (Identity, error) {
	config := s.config()
	config.Nodes[0].Image, config.Nodes[0].ExtraPortMappings, config.Nodes[0].ExtraMounts = "", nil, nil
	settings, err := json.Marshal([]any{config, kernelSettings})
	if err != nil {
		return nil, err
	}
	digest, err := fingerprint.New().Text("settings", string(settings)).Sum()
	if err != nil {
		return nil, err
	}
	identity := Identity{
		"engine": engine, "node image": s.Image, "node ports": fmt.Sprint(s.Ports), "mounts": fmt.Sprint(s.Mounts), // maps print sorted
		"settings": digest, "archives": s.Archives,
	}
	if s.Patches != "" {
		identity["kubeadm patches"], err = fingerprint.New().Dir(os.DirFS(s.Patches), ".", nil).Sum()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return identity, nil
}

// Differs says in what an Identity is not that of the cluster that is there, its first part
// in the order of their names; empty if it is the same.
func (i Identity) Differs(there Identity) string {
	parts := slices.AppendSeq(slices.Collect(maps.Keys(i)), maps.Keys(there))
	slices.Sort(parts)
	for _, part := range parts {
		if i[part] != there[part] {
			return fmt.Sprintf("its %s: %s before, %s now", part, cmp.Or(there[part], "none"), cmp.Or(i[part], "none"))
		}
	}
	return ""
}
