package gateway_test

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// beRejected matches the answer to a signal about something unmanaged.
func beRejected() OmegaMatcher {
	return And(HaveStatus(http.StatusOK), HaveField("Result", MatchFields(IgnoreExtras, Fields{
		"Status": Equal("rejected"), "Name": BeEmpty(),
		"Rejection": PointTo(MatchFields(IgnoreExtras, Fields{
			"Reason": Equal("unmanaged_resource"), "Message": Not(BeEmpty()), "Action": HavePrefix("kubectl label"),
		})),
	})))
}

var _ = Describe("The Gateway acts", func() {
	It("in a namespace that is labelled managed", SpecTimeout(brief), func(ctx SpecContext) {
		created(ctx, alert(workload(ctx)))
	})

	DescribeTable("not in a namespace", func(ctx SpecContext, labels ...string) {
		ns := namespace(ctx, labels...)
		must(ns.Deployment(ctx, "app"))
		Expect(send(ctx, alert(ns))).To(beRejected())
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	},
		Entry("without a label", SpecTimeout(brief)),
		Entry("that opts out", SpecTimeout(brief), workloads.LabelManaged, "false"),
		Entry("with another value", SpecTimeout(brief), workloads.LabelManaged, "yes"),
	)

	It("on a resource that opts in by itself", SpecTimeout(brief), func(ctx SpecContext) {
		ns := namespace(ctx)
		must(ns.Deployment(ctx, "app", workloads.LabelManaged, "true"))
		created(ctx, alert(ns))
	})

	It("not on a resource that opts out of a managed namespace", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Deployment(ctx, "app", workloads.LabelManaged, "false"))
		Expect(send(ctx, alert(ns))).To(beRejected())
	})

	It("not for a Service that opts in before a Deployment that opts out", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must2(ns.DeploymentWithPod(ctx, "app"))
		Expect(ns.LabelDeployment(ctx, "app", workloads.LabelManaged, "false")).To(Succeed())
		service := must(ns.Service(ctx, "front", "app"))
		Expect(workloads.Label(ctx, kube, service, workloads.LabelManaged, "true")).To(Succeed())
		Expect(send(ctx, signals.Firing("Slow", "namespace", ns.Name, "service", "front"))).To(beRejected())
	})

	It("on a cluster-scoped object with its own label", SpecTimeout(brief), func(ctx SpecContext) {
		volume := must(workloads.NewVolume(ctx, kube, uniqueName("gw"), run.Run, workloads.LabelManaged, "true"))
		rr := remediation(ctx, created(ctx, signals.Firing("VolumeFull", "namespace", "kube-system", "persistentvolume", volume.Name)))
		Expect(rr.Spec.TargetResource).To(MatchFields(IgnoreExtras, Fields{"Kind": Equal("PersistentVolume"), "Namespace": BeEmpty()}))
	})

	It("not on a cluster-scoped object without", SpecTimeout(brief), func(ctx SpecContext) {
		volume := must(workloads.NewVolume(ctx, kube, uniqueName("gw"), run.Run))
		response := send(ctx, signals.Firing("VolumeFull", "namespace", managed(ctx).Name, "persistentvolume", volume.Name))
		Expect(response).To(beRejected())
		Expect(response.Rejection.Resource).To(ContainSubstring(volume.Name))
	})

	It("on a node only if the node is labelled", SpecTimeout(brief), func(ctx SpecContext) {
		response := send(ctx, signals.Firing("NodeNotReady", "node", kube.Target.Nodes[0]))
		Expect(response).To(beRejected())
		Expect(response.Rejection.Resource).To(ContainSubstring(kube.Target.Nodes[0]))
	})

	It("in a namespace that was labelled the moment before", SpecTimeout(brief), func(ctx SpecContext) {
		ns := namespace(ctx)
		must(ns.Deployment(ctx, "app"))
		Expect(send(ctx, alert(ns))).To(beRejected())
		Expect(ns.Label(ctx, workloads.LabelManaged, "true")).To(Succeed())
		created(ctx, alert(ns))
	})

	It("on a resource that was labelled the moment before", SpecTimeout(brief), func(ctx SpecContext) {
		ns := namespace(ctx)
		must(ns.Deployment(ctx, "app"))
		Expect(send(ctx, alert(ns))).To(beRejected())
		Expect(ns.LabelDeployment(ctx, "app", workloads.LabelManaged, "true")).To(Succeed())
		created(ctx, alert(ns))
		Expect(ns.LabelDeployment(ctx, "app", workloads.LabelManaged, "false")).To(Succeed())
		Eventually(func(ctx SpecContext) (*signals.Response, error) { return gateway.Alerts(ctx, alert(ns)) }).
			WithContext(ctx).Should(beRejected(), "what is remembered of it is two seconds old at most")
		Expect(ns.LabelDeployment(ctx, "app", workloads.LabelManaged, "true")).To(Succeed())
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
	})

	It("no more once the label is gone", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Deployment(ctx, "app"))
		Expect(ns.Label(ctx, workloads.LabelManaged, "")).To(Succeed())
		Eventually(func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Alerts(ctx, alert(ns))
		}).
			WithContext(ctx).Should(beRejected(), "the Gateway learns by a watch that the label is gone")
	})

	It("as its own hint says, pasted into kubectl", SpecTimeout(brief), func(ctx SpecContext) {
		ns := namespace(ctx)
		must(ns.Deployment(ctx, "app"))
		hint := send(ctx, alert(ns)).Rejection.Action
		Expect(world.Paste(ctx, hint)).To(Succeed())
		created(ctx, alert(ns))
	})
})
