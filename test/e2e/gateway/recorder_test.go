package gateway_test

import (
	"context"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/recorder"
)

// recording is a recorder of one API, and a forwarder of what it makes in one namespace.
type recording struct {
	*recorder.Recorder
	forwarder *recorder.Forwarder
	reason    string // of the spec's own events
}

// record starts recorder and forwarder; both end with the spec.
func record(ctx SpecContext, writes, serves recorder.API, namespace string) recording {
	GinkgoHelper()
	running, stop := context.WithCancel(ctx)
	DeferCleanup(func(SpecContext) { stop() })
	return recording{
		forwarder: must(recorder.Forward(running, kube, serves, namespace, gateway)),
		Recorder:  must(recorder.New(running, kube, writes, "e2e-controller")),
		reason:    "Spec" + uniqueName("")[1:],
	}
}

// answers waits for the answers to n events of the spec, and returns them.
func (r recording) answers(ctx context.Context, n int) []recorder.Forwarded {
	GinkgoHelper()
	Eventually(r.forwarder.Sent).WithContext(ctx).WithArguments(r.reason).Should(HaveLen(n))
	sent := must(r.forwarder.Sent(r.reason))
	for _, one := range sent {
		Expect(one.Err).NotTo(HaveOccurred())
	}
	return sent
}

var _ = Describe("The events that client-go records", func() {
	DescribeTableSubtree("by", func(writes, serves recorder.API) {
		It("become a RemediationRequest when they warn of a Deployment", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			deployment := must(ns.Deployment(ctx, "app"))
			events := record(ctx, writes, serves, ns.Name)
			events.Warning(deployment, events.reason, "no quota")
			sent := events.answers(ctx, 1)
			Expect(sent[0].Response).To(HaveStatus(http.StatusCreated), sent[0].Body)
			Expect(remediation(ctx, sent[0].Response).Spec).To(SatisfyAll(
				HaveField("SignalName", events.reason), HaveField("SignalFingerprint", identity(ns)), HaveField("Severity", "warning"),
				HaveField("SignalLabels", HaveKeyWithValue("component", "e2e-controller")),
				HaveField("SignalAnnotations", HaveKeyWithValue("message", "no quota"))))
		})

		It("are a problem of the Deployment when they warn of its pod", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
			events := record(ctx, writes, serves, ns.Name)
			events.Warning(pod, events.reason, "back-off restarting failed container")
			sent := events.answers(ctx, 1)
			// The scheduler warns of the pod too, by events of its own, and is forwarded as well.
			Expect(sent[0].Response.Code).To(BeElementOf(http.StatusCreated, http.StatusAccepted), sent[0].Body)
			Expect(sent[0].Response.Fingerprint).To(Equal(identity(ns)))
		})

		It("are a problem of an object of any kind, here a custom one", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			custom := &v1alpha1.RemediationRequest{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "mine"},
				Spec: v1alpha1.RemediationRequestSpec{
					SignalFingerprint: identity(ns), SignalName: "Made", Severity: "info", SignalType: "alert", TargetType: v1alpha1.TargetKubernetes,
					TargetResource: v1alpha1.TargetResource{Kind: "Deployment", Name: "app", Namespace: ns.Name}, ReceivedTime: metav1.Now(),
				},
			}
			Expect(kube.API.Create(ctx, custom)).To(Succeed())
			events := record(ctx, writes, serves, ns.Name)
			events.Warning(custom, events.reason, "stuck")
			sent := events.answers(ctx, 1)
			Expect(sent[0].Response).To(HaveStatus(http.StatusCreated), sent[0].Body)
			Expect(sent[0].Response.Fingerprint).To(Equal(fingerprint(ns.Name + ":RemediationRequest.kubernaut.ai:mine")))
		})

		It("are counted on the first when the recorder makes a series of them", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			deployment := must(ns.Deployment(ctx, "app"))
			events := record(ctx, writes, serves, ns.Name)
			events.Warning(deployment, events.reason, "no quota")
			events.answers(ctx, 1)
			events.Warning(deployment, events.reason, "no quota")
			sent := events.answers(ctx, 2)
			Expect(sent[1].Change).To(Equal(watch.Modified), "the recorder made no series: %s", sent[1].Body)
			Expect(sent[1].Response).To(HaveStatus(http.StatusAccepted), sent[1].Body)
			Expect(remediations(ctx, identity(ns))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(2))))
		})

		It("are of now when their series is, however long ago it began", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			deployment := must(ns.Deployment(ctx, "app"))
			events := record(ctx, writes, serves, ns.Name)
			// As a recorder has it on its next heartbeat: it tells of a series every half hour.
			must(kube.Kube.EventsV1().Events(ns.Name).Create(ctx, &eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "app.series"},
				EventTime:  metav1.NewMicroTime(time.Now().Add(-35 * time.Minute)),
				Series:     &eventsv1.EventSeries{Count: 7, LastObservedTime: metav1.NowMicro()},
				Regarding:  corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns.Name, Name: deployment.Name, UID: deployment.UID},
				Type:       corev1.EventTypeWarning, Reason: events.reason, Action: "Testing", Note: "no quota",
				ReportingController: "e2e-controller", ReportingInstance: "e2e-controller-0",
			}, metav1.CreateOptions{}))
			sent := events.answers(ctx, 1)
			Expect(sent[0].Response).To(HaveStatus(http.StatusCreated), sent[0].Body)
			Expect(sent[0].Response.Fingerprint).To(Equal(identity(ns)))
		})

		It("are refused when they are Normal", SpecTimeout(brief), func(ctx SpecContext) {
			ns := managed(ctx)
			deployment := must(ns.Deployment(ctx, "app"))
			events := record(ctx, writes, serves, ns.Name)
			events.Normal(deployment, events.reason, "scaled up")
			sent := events.answers(ctx, 1)
			Expect(sent[0].Response).To(BeProblem(http.StatusBadRequest, badSignal), sent[0].Body)
			Expect(sent[0].Response.Problem().Detail).To(ContainSubstring("type"))
			Expect(remediations(ctx, identity(ns))).To(BeEmpty())
		})

		It("are about the node, in no namespace, when they warn of one", SpecTimeout(brief), func(ctx SpecContext) {
			node := &corev1.Node{}
			Expect(kube.API.Get(ctx, client.ObjectKey{Name: kube.Target.Nodes[0]}, node)).To(Succeed())
			events := record(ctx, writes, serves, metav1.NamespaceDefault) // where those of cluster-scoped objects lie
			events.Warning(node, events.reason, "out of disk")
			sent := events.answers(ctx, 1)
			Expect(sent[0].Response).To(HaveStatus(http.StatusOK), sent[0].Body)
			Expect(sent[0].Response.Rejection).To(HaveValue(SatisfyAll(
				HaveField("Reason", "unmanaged_resource"), HaveField("Resource", SatisfyAll(ContainSubstring("Node"), ContainSubstring(node.Name))))))
		})
	},
		Entry("core/v1", recorder.Core, recorder.Core),
		Entry("core/v1, watched by events.k8s.io/v1", recorder.Core, recorder.Events),
		Entry("events.k8s.io/v1, watched by core/v1", recorder.Events, recorder.Core),
		Entry("events.k8s.io/v1", recorder.Events, recorder.Events),
	)
})
