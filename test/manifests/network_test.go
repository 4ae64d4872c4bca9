package manifests_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

type set = labels.Set

// peer is a pod.
type peer struct {
	namespace string
	labels    set
	ports     []int32 // that it listens on
}

const own = "kubernaut-system"

// reachable are the ports of each pod, by who may connect. Nobody else may.
var reachable = map[string]map[string][]int32{
	"gateway":     {"sender": {8080}, "prometheus": {8080, 9090}, "dns": {8080}}, // any namespace
	"datastorage": {"gateway": {8080}, "prometheus": {9090}},
	"postgresql":  {"datastorage": {5432}, "migrations": {5432}},
	"redis":       {"datastorage": {6379}, "migrations": {6379}}, // retention's pods, which have the same labels
	"dns":         {"gateway": {53}, "datastorage": {53}, "postgresql": {53}, "redis": {53}, "migrations": {53}, "intruder": {53}},
	"api server":  {"gateway": {6443}, "datastorage": {6443}},
}

// TestWhoTalksToWhom judges every pair of pods by the policies as Kubernetes does: a pod that
// some policy selects may do what some of these allow, and a connection needs both ends.
func TestWhoTalksToWhom(t *testing.T) {
	objs := overlay(t, "base")
	policies := kinds[networkingv1.NetworkPolicy](t, objs, "NetworkPolicy")
	peers := map[string]peer{
		"sender":     {"shop", set{"app": "x"}, nil},
		"prometheus": {"monitoring", set{"app": "x"}, nil},
		"intruder":   {own, set{"app": "x"}, nil},
		"dns":        {"kube-system", set{"k8s-app": "kube-dns"}, []int32{53}},
		"api server": {"", nil, []int32{6443, 10250}}, // no pod; the other is the node's kubelet
	}
	for _, pod := range pods(t, objs) {
		var ports []int32
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				ports = append(ports, port.ContainerPort)
			}
		}
		peers[pod.Labels["app.kubernetes.io/name"]] = peer{own, pod.Labels, ports}
	}
	if len(peers) != 10 {
		t.Errorf("got %d peers", len(peers))
	}
	for toName, to := range peers {
		for fromName, from := range peers {
			for _, port := range to.ports {
				if fromName == toName || from.namespace != own && to.namespace != own {
					continue
				}
				want := slices.Contains(reachable[toName][fromName], port)
				if got := leaves(t, policies, from, to, port) && enters(t, policies, from, to, port); got != want {
					t.Errorf("%s to port %d of %s: allowed: %t, want %t", fromName, port, toName, got, want)
				}
			}
		}
	}
}

func leaves(t *testing.T, policies []networkingv1.NetworkPolicy, from, to peer, port int32) bool {
	t.Helper()
	return allows(t, policies, networkingv1.PolicyTypeEgress, from, to, port)
}

func enters(t *testing.T, policies []networkingv1.NetworkPolicy, from, to peer, port int32) bool {
	t.Helper()
	return allows(t, policies, networkingv1.PolicyTypeIngress, to, from, port)
}

// allows tells whether the policies about one end of a connection allow it.
func allows(t *testing.T, policies []networkingv1.NetworkPolicy, way networkingv1.PolicyType, about, other peer, port int32) bool {
	t.Helper()
	bound := false
	for _, policy := range policies {
		if about.namespace != policy.Namespace || !slices.Contains(policy.Spec.PolicyTypes, way) || !matches(t, &policy.Spec.PodSelector, about.labels) {
			continue
		}
		bound = true
		if way == networkingv1.PolicyTypeEgress {
			for _, rule := range policy.Spec.Egress {
				if permits(t, rule.To, rule.Ports, other, port) {
					return true
				}
			}
		} else {
			for _, rule := range policy.Spec.Ingress {
				if permits(t, rule.From, rule.Ports, other, port) {
					return true
				}
			}
		}
	}
	return !bound
}

func permits(t *testing.T, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, other peer, port int32) bool {
	t.Helper()
	if !slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port }) {
		return false
	}
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		near := p.NamespaceSelector == nil && other.namespace == own ||
			p.NamespaceSelector != nil && other.namespace != "" && matches(t, p.NamespaceSelector, set{corev1.LabelMetadataName: other.namespace})
		return near && (p.PodSelector == nil || matches(t, p.PodSelector, other.labels))
	})
}

// matches is selects for a selector that may be of all.
func matches(t *testing.T, by *metav1.LabelSelector, labels map[string]string) bool {
	t.Helper()
	return len(by.MatchLabels)+len(by.MatchExpressions) == 0 || selects(t, by, labels)
}
