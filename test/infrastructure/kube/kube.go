// Package kube is what several parts of the harness need of a cluster's API: the way
// from a kubeconfig to a client, watches and tries that end with a reason, and what
// troubles a node, an event or a container's log tell.
package kube

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/discovery"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Config reads a kubeconfig file. Requests are not limited on this side: the API
// server's own priority and fairness protects it.
func Config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	config.QPS = -1
	return config, nil
}

// Interface is what the harness uses of client-go's clientset. The whole of it has fifty
// groups more, a hundred packages that the magefiles would be compiled of.
type Interface interface {
	AppsV1() appsv1.AppsV1Interface
	CoordinationV1() coordinationv1.CoordinationV1Interface
	CoreV1() corev1.CoreV1Interface
	DiscoveryV1() discoveryv1.DiscoveryV1Interface
	Discovery() discovery.DiscoveryInterfaces
}

// Client returns a client for the cluster that a kubeconfig file names. It sends
// nothing yet.
func Client(kubeconfig string) (Interface, error) {
	config, err := Config(kubeconfig)
	if err != nil {
		return nil, err
	}
	return ClientFor(config)
}

// ClientFor returns a client for the cluster that config reaches.
func ClientFor(config *rest.Config) (Interface, error) {
	connections, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	apps, errApps := appsv1.NewForConfigAndClient(config, connections)
	coordination, errCoordination := coordinationv1.NewForConfigAndClient(config, connections)
	core, errCore := corev1.NewForConfigAndClient(config, connections)
	endpoints, errEndpoints := discoveryv1.NewForConfigAndClient(config, connections)
	found, errFound := discovery.NewDiscoveryClientForConfigAndClient(config, connections)
	return clients{apps, coordination, core, endpoints, found}, errors.Join(errApps, errCoordination, errCore, errEndpoints, errFound)
}

type clients struct {
	apps         *appsv1.AppsV1Client
	coordination *coordinationv1.CoordinationV1Client
	core         *corev1.CoreV1Client
	endpoints    *discoveryv1.DiscoveryV1Client
	discovery    *discovery.DiscoveryClient
}

func (c clients) AppsV1() appsv1.AppsV1Interface { return c.apps }

func (c clients) CoordinationV1() coordinationv1.CoordinationV1Interface { return c.coordination }

func (c clients) CoreV1() corev1.CoreV1Interface { return c.core }

func (c clients) DiscoveryV1() discoveryv1.DiscoveryV1Interface { return c.endpoints }

func (c clients) Discovery() discovery.DiscoveryInterfaces { return c.discovery }

// Quiet silences client-go's own log, which goes to standard error: what matters of
// it is in the errors.
func Quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, klog.Logger{})
}
