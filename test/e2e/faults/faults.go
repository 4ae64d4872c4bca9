// Package faults breaks the world under test, really: processes are killed, stores are
// taken away, the API server stands still. Every fault has a way back, which the spec
// defers.
package faults

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Injector breaks one cluster.
type Injector struct {
	Cluster *cluster.Cluster
	Runner  command.Runner // runs the container engine, to reach processes on the nodes
	// Tell tells of each fault, by one of target's names; nil tells nobody.
	Tell func(name, fault string)
}

func (i *Injector) tell(name, fault string) {
	if i.Tell != nil {
		i.Tell(name, fault)
	}
}

// lasting tells that a fault begins. What it returns is the way back, after which the fault
// is told to be over.
func (i *Injector) lasting(fault string, back func(context.Context) error) func(context.Context) error {
	i.tell(target.FaultBegins, fault)
	return func(ctx context.Context) error {
		defer i.tell(target.FaultOver, fault)
		return back(ctx)
	}
}

// Signal sends a signal to the first process of each of an app's pods, and returns the
// pods as they were. The kubelet starts what ended again, in the same pods.
func (i *Injector) Signal(ctx context.Context, app App, signal string) ([]corev1.Pod, error) {
	pods, err := i.Pods(ctx, app)
	if err != nil {
		return nil, err
	}
	i.tell(target.Fault, app.Name+" gets "+signal)
	return pods, i.signalAll(ctx, pods, signal)
}

// SigningKey reads the key (PEM) that the cluster signs ServiceAccounts' tokens with.
func (i *Injector) SigningKey(ctx context.Context) ([]byte, error) {
	node, err := i.controlPlane(ctx)
	if err != nil {
		return nil, err
	}
	return i.read(ctx, node, "/etc/kubernetes/pki/sa.key")
}

// Mounted reads a file of a projected volume as the pod's containers find it now, which the
// kubelet of the pod's node writes.
func (i *Injector) Mounted(ctx context.Context, pod *corev1.Pod, volume, file string) (string, error) {
	path := fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~projected/%s/%s", pod.UID, volume, file)
	content, err := i.read(ctx, pod.Spec.NodeName, path)
	return string(content), err
}

func (i *Injector) read(ctx context.Context, node, path string) ([]byte, error) {
	var content bytes.Buffer
	err := i.Runner.Run(ctx, command.Cmd{Args: []string{i.Cluster.Target.Engine, "exec", node, "cat", path}, Stdout: &content})
	return content.Bytes(), err
}

// Paste runs a line in an administrator's shell, on the control plane's node: kubectl
// and its configuration are there, whatever this machine has.
func (i *Injector) Paste(ctx context.Context, line string) error {
	node, err := i.controlPlane(ctx)
	if err != nil {
		return err
	}
	return i.exec(ctx, node, "--env=KUBECONFIG=/etc/kubernetes/admin.conf", "sh", "-c", line)
}

func (i *Injector) controlPlane(ctx context.Context) (string, error) {
	var nodes corev1.NodeList
	if err := i.Cluster.API.List(ctx, &nodes, client.HasLabels{"node-role.kubernetes.io/control-plane"}); err != nil {
		return "", err
	}
	if len(nodes.Items) == 0 {
		return "", errors.New("no control plane node")
	}
	return nodes.Items[0].Name, nil
}

// Detach takes all endpoints from a Service, as a wrong selector or a network that is cut
// does; connections that are open stay. An empty namespace is the services'. The function
// it returns gives them back.
func (i *Injector) Detach(ctx context.Context, namespace, name string) (attach func(context.Context) error, err error) {
	service := &corev1.Service{}
	service.Namespace, service.Name = cmp.Or(namespace, i.Cluster.Target.Namespace), name
	if err := i.Cluster.API.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
		return nil, err
	}
	const label = "e2e.kubernaut.ai/detached"
	patch := func(ctx context.Context, value string) error {
		body := fmt.Sprintf(`{"spec":{"selector":{%q:%s}}}`, label, value)
		return i.Cluster.API.Patch(ctx, service, client.RawPatch("application/merge-patch+json", []byte(body)))
	}
	return i.lasting("Service "+name+" has no endpoints", func(ctx context.Context) error { return patch(ctx, "null") }), patch(ctx, `"true"`)
}

// Revoke takes all permissions in the services' namespace from a ServiceAccount of it. The
// function it returns gives them back.
func (i *Injector) Revoke(ctx context.Context, account string) (grant func(context.Context) error, err error) {
	var bindings rbacv1.RoleBindingList
	if err := i.Cluster.API.List(ctx, &bindings, client.InNamespace(i.Cluster.Target.Namespace)); err != nil {
		return nil, err
	}
	var taken []rbacv1.RoleBinding
	for _, binding := range bindings.Items {
		if slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == account && s.Kind == rbacv1.ServiceAccountKind }) {
			taken = append(taken, binding)
		}
	}
	if len(taken) == 0 {
		return nil, fmt.Errorf("ServiceAccount/%s: no RoleBinding names it", account)
	}
	grant = i.lasting("ServiceAccount "+account+" has no permissions", func(ctx context.Context) error {
		var errs []error
		for _, binding := range taken {
			binding.ResourceVersion, binding.UID = "", ""
			if err := i.Cluster.API.Create(ctx, &binding); !apierrors.IsAlreadyExists(err) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
	for n := range taken {
		if err := i.Cluster.API.Delete(ctx, taken[n].DeepCopy()); err != nil {
			return grant, fmt.Errorf("RoleBinding/%s: %w", taken[n].Name, err)
		}
	}
	return grant, nil
}

func (i *Injector) signalAll(ctx context.Context, pods []corev1.Pod, signal string) error {
	for n := range pods {
		id, err := containerID(&pods[n])
		if err != nil {
			return err
		}
		if signal == "SIGKILL" {
			if err := i.flush(ctx, &pods[n], id); err != nil {
				return fmt.Errorf("Pod/%s: %w", pods[n].Name, err)
			}
		}
		if err := i.signal(ctx, pods[n].Spec.NodeName, id, signal); err != nil {
			return fmt.Errorf("Pod/%s: %w", pods[n].Name, err)
		}
	}
	return nil
}

// signal sends a signal to a container's first process. A kind node is a container of
// the engine that has the node's name, and ctr is on every one.
func (i *Injector) signal(ctx context.Context, node, container, signal string) error {
	return i.exec(ctx, node, "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", signal, container)
}

// exec runs a program on a node. Options of the engine may come before its name.
func (i *Injector) exec(ctx context.Context, node string, args ...string) error {
	options := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "--") })
	all := slices.Concat([]string{i.Cluster.Target.Engine, "exec"}, args[:options], []string{node}, args[options:])
	return i.Runner.Run(ctx, command.Cmd{Args: all})
}

// containerID is the runtime's name of a pod's first container.
func containerID(pod *corev1.Pod) (string, error) {
	if len(pod.Status.ContainerStatuses) == 0 {
		return "", fmt.Errorf("Pod/%s: no container has started", pod.Name)
	}
	_, id, found := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	if !found {
		return "", fmt.Errorf("Pod/%s: container id %q", pod.Name, pod.Status.ContainerStatuses[0].ContainerID)
	}
	return id, nil
}
