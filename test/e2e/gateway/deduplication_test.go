package gateway_test

import (
	"context"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// work does a controller's part: it changes the status of a RemediationRequest.
func work(ctx context.Context, rr *v1alpha1.RemediationRequest, change func(*v1alpha1.RemediationRequestStatus)) {
	GinkgoHelper()
	before := client.MergeFrom(rr.DeepCopy())
	change(&rr.Status)
	Expect(kube.API.Status().Patch(ctx, rr, before)).To(Succeed())
}

var _ = Describe("A problem whose request was deleted", func() {
	It("gets a request with a name that none has had, and so audit events of its own", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		Expect(kube.API.Delete(ctx, remediation(ctx, first))).To(Succeed())
		second := created(ctx, alert(ns))
		Expect(second.Fingerprint).To(Equal(first.Fingerprint))
		Expect(second.Name).NotTo(Equal(first.Name))
		Expect(audited(ctx, second.Name, 2)).To(HaveLen(2))
	})
})

var _ = Describe("A problem that is known already", func() {
	It("is answered with 202 and the name of its RemediationRequest", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		again := send(ctx, alert(ns))
		Expect(again).To(HaveStatus(http.StatusAccepted))
		Expect(again.Result).To(MatchFields(IgnoreExtras, Fields{
			"Status": Equal("duplicate"), "Duplicate": BeTrue(), "Name": Equal(first.Name), "Fingerprint": Equal(first.Fingerprint),
			"Metadata": PointTo(MatchFields(IgnoreExtras, Fields{"Count": Equal(2)})),
		}))
	})

	It("is one problem whatever the alert is called", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		again := send(ctx, alert(ns, "alertname", "KubeContainerWaiting", "severity", "info"))
		Expect(again).To(HaveStatus(http.StatusAccepted))
		Expect(again.Name).To(Equal(first.Name))
	})

	It("is the same by its pod, by its Deployment and by an event", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
		first := created(ctx, signals.Firing("KubePodCrashLooping", "namespace", ns.Name, "pod", pod.Name))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Expect(must(gateway.Event(ctx, signals.Warning("BackOff", deployment(ns))))).To(HaveStatus(http.StatusAccepted))
		Expect(remediations(ctx, first.Fingerprint)).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(3))))
	})

	It("counts every occurrence and remembers the last", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		work(ctx, remediation(ctx, first), func(status *v1alpha1.RemediationRequestStatus) {
			status.Deduplication.LastSeenAt = metav1.NewTime(time.Now().Add(-time.Hour)) // times have whole seconds
		})
		for range 9 {
			Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		}
		seen := remediation(ctx, first).Status.Deduplication
		Expect(seen.OccurrenceCount).To(BeEquivalentTo(10))
		Expect(seen.LastSeenAt.Time).To(BeTemporally("~", time.Now(), settled))
	})

	It("keeps the moment at which it was first seen", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		again := send(ctx, alert(ns))
		Expect(again.Metadata.FirstOccurrence).To(BeTemporally("==", rr.Status.Deduplication.FirstSeenAt.Time))
		Expect(remediation(ctx, again).Status.Deduplication.FirstSeenAt).To(Equal(rr.Status.Deduplication.FirstSeenAt))
	})

	It("is another one in another cluster", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		east, west := created(ctx, alert(ns, "cluster", "east")), created(ctx, alert(ns, "cluster", "west"))
		Expect(east.Fingerprint).NotTo(Equal(west.Fingerprint))
		Expect(east.Name).NotTo(Equal(west.Name))
	})

	It("leaves what others wrote in the status alone", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) {
			status.OverallPhase, status.Message = v1alpha1.PhaseExecuting, "restarting app"
		})
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Expect(remediations(ctx, rr.Spec.SignalFingerprint)).To(ConsistOf(And(
			HaveField("Status.OverallPhase", v1alpha1.PhaseExecuting), HaveField("Status.Message", "restarting app"))))
	})

	DescribeTable("is a duplicate while its RemediationRequest is", func(ctx SpecContext, phase v1alpha1.Phase) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) { status.OverallPhase = phase })
		again := send(ctx, alert(ns))
		Expect(again).To(HaveStatus(http.StatusAccepted))
		Expect(again.Name).To(Equal(rr.Name))
	},
		Entry("in no phase yet", SpecTimeout(brief), v1alpha1.Phase("")),
		Entry("Pending", SpecTimeout(brief), v1alpha1.PhasePending),
		Entry("Processing", SpecTimeout(brief), v1alpha1.PhaseProcessing),
		Entry("Analyzing", SpecTimeout(brief), v1alpha1.PhaseAnalyzing),
		Entry("AwaitingApproval", SpecTimeout(brief), v1alpha1.PhaseAwaitingApproval),
		Entry("Executing", SpecTimeout(brief), v1alpha1.PhaseExecuting),
		Entry("Verifying", SpecTimeout(brief), v1alpha1.PhaseVerifying),
		Entry("Blocked", SpecTimeout(brief), v1alpha1.PhaseBlocked),
	)

	DescribeTable("is a new one once its RemediationRequest is", func(ctx SpecContext, phase v1alpha1.Phase) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) { status.OverallPhase = phase })
		again := created(ctx, alert(ns))
		Expect(again.Name).To(Equal("rr-" + again.Fingerprint[:12] + "-2"))
		Expect(remediations(ctx, again.Fingerprint)).To(HaveLen(2))
	},
		Entry("Completed", SpecTimeout(brief), v1alpha1.PhaseCompleted),
		Entry("Failed", SpecTimeout(brief), v1alpha1.PhaseFailed),
		Entry("TimedOut", SpecTimeout(brief), v1alpha1.PhaseTimedOut),
		Entry("Skipped", SpecTimeout(brief), v1alpha1.PhaseSkipped),
		Entry("Cancelled", SpecTimeout(brief), v1alpha1.PhaseCancelled),
	)

	It("stays a duplicate when the work ended with a manual review to be done", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) {
			status.OverallPhase = v1alpha1.PhaseCompleted
			status.CompletionStatus = &v1alpha1.CompletionStatus{Outcome: v1alpha1.OutcomeManualReviewRequired}
		})
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Expect(remediations(ctx, rr.Spec.SignalFingerprint)).To(HaveLen(1))
	})

	It("is a new one when the work ended with a remedy", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) {
			status.OverallPhase = v1alpha1.PhaseCompleted
			status.CompletionStatus = &v1alpha1.CompletionStatus{Outcome: v1alpha1.OutcomeRemediated}
		})
		Expect(created(ctx, alert(ns)).Name).NotTo(Equal(rr.Name))
	})

	DescribeTable("waits for the next allowed execution", func(ctx SpecContext, next time.Duration, status int) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns)))
		work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) {
			status.OverallPhase = v1alpha1.PhaseFailed
			status.RoutingStatus = &v1alpha1.RoutingStatus{NextAllowedExecution: new(metav1.NewTime(time.Now().Add(next)))}
		})
		Expect(send(ctx, alert(ns))).To(HaveStatus(status))
	},
		Entry("when it lies ahead", SpecTimeout(brief), time.Hour, http.StatusAccepted),
		Entry("but not when it is past", SpecTimeout(brief), -time.Hour, http.StatusCreated),
	)

	It("begins a third time after it ended twice", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		for range 2 {
			rr := remediation(ctx, created(ctx, alert(ns)))
			work(ctx, rr, func(status *v1alpha1.RemediationRequestStatus) { status.OverallPhase = v1alpha1.PhaseCompleted })
		}
		third := created(ctx, alert(ns))
		Expect(third.Name).To(HaveSuffix("-3"))
		Expect(send(ctx, alert(ns)).Name).To(Equal(third.Name))
	})
})

var _ = Describe("A RemediationRequest", func() {
	It("cannot be changed", SpecTimeout(brief), func(ctx SpecContext) {
		rr := remediation(ctx, created(ctx, alert(workload(ctx))))
		rr.Spec.Severity = "info"
		Expect(kube.API.Update(ctx, rr)).To(MatchError(ContainSubstring("spec is immutable")))
	})

	It("is found by its fingerprint", SpecTimeout(brief), func(ctx SpecContext) {
		response := created(ctx, alert(workload(ctx)))
		Expect(remediations(ctx, response.Fingerprint)).To(ConsistOf(HaveField("Name", response.Name)))
	})
})
