package gateway_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

var _ = Describe("A problem belongs to", func() {
	It("the Deployment of a pod's ReplicaSet", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", pod.Name))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
		Expect(remediation(ctx, response).Spec.TargetResource.Name).To(Equal(pod.Name))
	})

	It("the Deployment of a ReplicaSet", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
		response := created(ctx, signals.Firing("Stuck", "namespace", ns.Name, "replicaset", metav1.GetControllerOf(pod).Name))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("the StatefulSet of a pod", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.StatefulSetWithPod(ctx, "db"))
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", pod.Name))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":StatefulSet:db")))
	})

	It("the Job of a pod", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.JobWithPod(ctx, "import", nil))
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", pod.Name))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Job:import")))
	})

	It("the CronJob of a pod's Job", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.JobWithPod(ctx, "nightly-1", must(ns.CronJob(ctx, "nightly"))))
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", pod.Name))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":CronJob:nightly")))
	})

	It("the Deployment whose pods a Service selects", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must2(ns.DeploymentWithPod(ctx, "app"))
		must(ns.Service(ctx, "front", "app"))
		response := created(ctx, signals.Firing("Slow", "namespace", ns.Name, "service", "front"))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("the Deployment of the one pod among a Service's that has an owner", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		for _, name := range []string{"alone", "zero"} {
			must(ns.Pod(ctx, name, workloads.LabelApp, "app"))
		}
		must2(ns.DeploymentWithPod(ctx, "app"))
		must(ns.Service(ctx, "front", "app"))
		response := created(ctx, signals.Firing("Slow", "namespace", ns.Name, "service", "front"))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("a Service without a selector", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Service(ctx, "front", ""))
		response := created(ctx, signals.Firing("Slow", "namespace", ns.Name, "service", "front"))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Service:front")))
	})

	It("a Service that selects nothing", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Service(ctx, "front", "nobody"))
		response := created(ctx, signals.Firing("Slow", "namespace", ns.Name, "service", "front"))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Service:front")))
	})

	It("a pod that nobody owns", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Pod(ctx, "alone"))
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", "alone"))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Pod:alone")))
	})

	It("the last owner that still exists", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		gone := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "gone", UID: types.UID("00000000-0000-4000-8000-000000000000")}}
		pod := must(ns.PodOf(ctx, "left", gone))
		DeferCleanup(func(ctx SpecContext) { Expect(ns.Release(ctx, pod)).To(Succeed()) })
		response := created(ctx, signals.Firing("Crash", "namespace", ns.Name, "pod", "left"))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Pod:left")))
	})

	DescribeTable("nobody when there is", func(ctx SpecContext, label, name string) {
		ns := managed(ctx)
		response := send(ctx, signals.Firing("Down", "namespace", ns.Name, label, name))
		Expect(response).To(beRejectedFor(noSuchObject))
		Expect(response.Rejection.Resource).To(And(ContainSubstring(ns.Name), ContainSubstring(name)))
	},
		Entry("no such pod", SpecTimeout(brief), "pod", "ghost"),
		Entry("no such Deployment", SpecTimeout(brief), "deployment", "ghost"),
		Entry("no such Service", SpecTimeout(brief), "service", "ghost"),
	)

	It("nobody when there is no such namespace", SpecTimeout(brief), func(ctx SpecContext) {
		response := send(ctx, signals.Firing("Down", "namespace", uniqueName("nowhere"), "pod", "ghost"))
		Expect(response).To(beRejectedFor(noSuchObject))
	})
})
