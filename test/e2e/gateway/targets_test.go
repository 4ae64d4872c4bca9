package gateway_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/signals"
)

// What exporters write beside what they measure. Every other spec's alerts are those of
// kube-state-metrics in the most used chart; these are of others.
var _ = Describe("An alert is about", func() {
	It("the Deployment, when the exporter's labels were kept and those of the metric renamed", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := created(ctx, signals.Firing("KubeDeploymentReplicasMismatch", "deployment", ns.App, "exported_namespace", ns.Name))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
		Expect(response.Target).To(And(HavePrefix("kube-state-metrics/deployment: "), ContainSubstring("pod, service")))
	})

	It("nothing, when its namespace is one thing's and its pod another's", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Pod(ctx, "controller-0"))
		response := send(ctx, signals.Bare("CertificateNotReady", "namespace", ns.Name, "pod", "controller-0", "service", "controller",
			"instance", "10.244.0.31:9402", "exported_namespace", ns.Name, "name", "shop-tls"))
		Expect(response).To(beRejectedFor(noObject))
	})

	It("the node that an agent names, and never the agent's pod", SpecTimeout(brief), func(ctx SpecContext) {
		ns, node := managed(ctx), kube.Target.Nodes[0]
		must(ns.Pod(ctx, "node-exporter-x"))
		for _, label := range []string{"node", "nodename", "instance"} {
			response := send(ctx, signals.Bare("NodeClockSkewDetected", "job", "node-exporter", "namespace", ns.Name, "pod", "node-exporter-x",
				"service", "node-exporter", "container", "node-exporter", "instance", "192.0.2.11:9100", label, node))
			Expect(response).To(beRejectedFor(unmanagedScope))
			Expect(response.Rejection.Resource).To(Equal("Node/" + node))
		}
	})

	It("the node that an agent's pod runs on, when it names none", SpecTimeout(brief), func(ctx SpecContext) {
		pods := &corev1.PodList{}
		Expect(kube.API.List(ctx, pods, client.InNamespace("kube-system"), client.MatchingLabels{"k8s-app": "kube-proxy"})).To(Succeed())
		Expect(pods.Items).NotTo(BeEmpty())
		pod := pods.Items[0]
		response := send(ctx, signals.Bare("NodeClockSkewDetected", "job", "node-exporter", "namespace", pod.Namespace, "pod", pod.Name,
			"container", "node-exporter", "instance", "192.0.2.11:9100"))
		Expect(response).To(beRejectedFor(unmanagedScope))
		Expect(response.Rejection.Resource).To(Equal("Node/" + pod.Spec.NodeName))
	})

	It("no exporter of something else", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Pod(ctx, "postgres-exporter-x"))
		Expect(send(ctx, signals.Bare("PostgresqlDown", "job", "postgres-exporter", "namespace", ns.Name, "pod", "postgres-exporter-x",
			"service", "postgres-exporter", "container", "exporter", "endpoint", "http", "instance", "10.244.2.70:9187"))).To(beRejectedFor(noObject))
	})

	It("the pod of an application that measures itself", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
		response := created(ctx, signals.Bare("Errors", "job", "app", "namespace", ns.Name, "pod", pod.Name, "service", "app", "container", "app",
			"endpoint", "http", "instance", "10.244.1.7:8080", "node", kube.Target.Nodes[0]))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
		Expect(remediation(ctx, response).Spec.TargetReason).To(Equal("application/pod: pod names the Pod"))
	})

	It("the Service that is down, whoever is behind it", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must2(ns.DeploymentWithPod(ctx, "app"))
		must(ns.Service(ctx, "node-exporter", "app"))
		response := created(ctx, signals.Bare("TargetDown", "job", "node-exporter", "namespace", ns.Name, "service", "node-exporter"))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("what OpenTelemetry's attributes name, and not the collector", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := created(ctx, signals.Bare("DeploymentUnavailable", "k8s_namespace_name", ns.Name, "k8s_deployment_name", ns.App,
			"namespace", "telemetry", "pod", "collector-0", "service", "collector", "instance", "10.244.2.110:8889"))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("a workload whose type is another label", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		Expect(created(ctx, signals.Bare("WorkloadCpuHigh", "namespace", ns.Name, "workload", ns.App, "workload_type", "deployment")).
			Fingerprint).To(Equal(identity(ns)))
	})

	It("nothing that a person could act on, when only the scrape is named", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(send(ctx, signals.Bare("Watchdog"))).To(beRejectedFor(noObject))
	})
})
