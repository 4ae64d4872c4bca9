package apply

import (
	"cmp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// NodePort is a port of a Service that every node listens on.
type NodePort struct {
	Service  string
	Port     string // the port's name; its number when it has none
	NodePort int32
	Protocol string // TCP, UDP or SCTP
}

// NodePorts returns the fixed node ports that the Services among objs ask for, in
// the order of the objects.
func NodePorts(objs []*unstructured.Unstructured) []NodePort {
	var found []NodePort
	for _, obj := range objs {
		if obj.GetKind() != "Service" || obj.GroupVersionKind().Group != "" {
			continue
		}
		ports, _, _ := unstructured.NestedSlice(obj.Object, "spec", "ports")
		for _, item := range ports {
			port, _ := item.(map[string]any)
			nodePort, _, _ := unstructured.NestedInt64(port, "nodePort")
			if nodePort == 0 {
				continue
			}
			name, _, _ := unstructured.NestedString(port, "name")
			if name == "" {
				number, _, _ := unstructured.NestedInt64(port, "port")
				name = strconv.FormatInt(number, 10)
			}
			protocol, _, _ := unstructured.NestedString(port, "protocol")
			found = append(found, NodePort{
				Service: obj.GetName(), Port: name, NodePort: int32(nodePort), Protocol: cmp.Or(protocol, string(corev1.ProtocolTCP)),
			})
		}
	}
	return found
}
