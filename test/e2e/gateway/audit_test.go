package gateway_test

import (
	"context"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// audited waits until a RemediationRequest has n audit events and returns them, oldest
// first.
func audited(ctx context.Context, name string, n int) []client.Event {
	GinkgoHelper()
	var found []client.Event
	Eventually(func(ctx context.Context) (int, error) {
		var err error
		found, err = events.Of(ctx, name)
		return len(found), err
	}).WithContext(ctx).Should(BeNumerically(">=", n), "events are sent within a second")
	Expect(found).To(HaveLen(n))
	return found
}

// eventTypes are the event types, in order.
func eventTypes(events []client.Event) []string {
	var all []string
	for _, event := range events {
		all = append(all, event.EventType)
	}
	return all
}

// beFailure matches the event about a signal that could not be stored.
func beFailure(ns *workloads.Namespace, mark string) OmegaMatcher {
	return And(
		MatchFields(IgnoreExtras, Fields{
			"EventType": Equal("gateway.crd.failed"), "EventOutcome": Equal(client.Outcome("failure")), "ErrorMessage": HaveValue(Not(BeEmpty())),
		}),
		WithTransform(audit.Data, And(
			HaveKeyWithValue("deduplication_status", "failed"), HaveKeyWithValue("error_details", Not(BeEmpty())),
			HaveKeyWithValue("fingerprint", mark), HaveKeyWithValue("namespace", ns.Name), HaveKeyWithValue("resource_name", ns.App),
			HaveKeyWithValue("original_payload", Not(BeEmpty())),
		)))
}

var _ = Describe("The audit trail", func() {
	It("of a new problem tells that it was received and recorded", SpecTimeout(brief), func(ctx SpecContext) {
		response := created(ctx, alert(workload(ctx)))
		found := audited(ctx, response.Name, 2)
		Expect(eventTypes(found)).To(ConsistOf("gateway.signal.received", "gateway.crd.created"))
		Expect(found).To(HaveEach(MatchFields(IgnoreExtras, Fields{
			"EventCategory": Equal("gateway"), "EventOutcome": Equal(client.Outcome("success")), "CorrelationID": Equal(response.Name),
			"EventTimestamp": BeTemporally("~", time.Now(), settled),
		})))
	})

	It("of a duplicate tells which problem it was about", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		created(ctx, alert(ns))
		again := send(ctx, alert(ns))
		Expect(eventTypes(audited(ctx, again.Name, 3))).To(ContainElement("gateway.signal.deduplicated"))
	})

	DescribeTable("of a new problem holds", func(ctx SpecContext, key string, want func(ns *workloads.Namespace, response *signals.Response) any) {
		ns := workload(ctx)
		response := created(ctx, alert(ns, "team", "payments"))
		for _, event := range audited(ctx, response.Name, 2) {
			Expect(must(audit.Data(event))).To(HaveKeyWithValue(key, want(ns, response)))
		}
	},
		Entry("the signal's type", SpecTimeout(brief), "signal_type", func(*workloads.Namespace, *signals.Response) any { return "alert" }),
		Entry("the signal's name", SpecTimeout(brief), "signal_name", func(*workloads.Namespace, *signals.Response) any { return "KubeDeploymentReplicasMismatch" }),
		Entry("the namespace", SpecTimeout(brief), "namespace", func(ns *workloads.Namespace, _ *signals.Response) any { return ns.Name }),
		Entry("the fingerprint", SpecTimeout(brief), "fingerprint", func(_ *workloads.Namespace, r *signals.Response) any { return r.Fingerprint }),
		Entry("the severity", SpecTimeout(brief), "severity", func(*workloads.Namespace, *signals.Response) any { return "critical" }),
		Entry("the kind of the resource", SpecTimeout(brief), "resource_kind", func(*workloads.Namespace, *signals.Response) any { return "Deployment" }),
		Entry("the name of the resource", SpecTimeout(brief), "resource_name", func(ns *workloads.Namespace, _ *signals.Response) any { return ns.App }),
		Entry("the RemediationRequest", SpecTimeout(brief), "remediation_request", func(_ *workloads.Namespace, r *signals.Response) any { return HaveSuffix(r.Name) }),
		Entry("that it is new", SpecTimeout(brief), "deduplication_status", func(*workloads.Namespace, *signals.Response) any { return "new" }),
		Entry("the first occurrence", SpecTimeout(brief), "occurrence_count", func(*workloads.Namespace, *signals.Response) any { return BeEquivalentTo(1) }),
		Entry("the labels", SpecTimeout(brief), "signal_labels", func(*workloads.Namespace, *signals.Response) any { return HaveKeyWithValue("team", "payments") }),
		Entry("the annotations", SpecTimeout(brief), "signal_annotations", func(*workloads.Namespace, *signals.Response) any { return HaveKey("summary") }),
	)

	It("of a new problem holds the payload once, with what was received", SpecTimeout(brief), func(ctx SpecContext) {
		payloads := map[string]any{}
		for _, event := range audited(ctx, created(ctx, alert(workload(ctx))).Name, 2) {
			payloads[event.EventType] = must(audit.Data(event))["original_payload"]
		}
		Expect(payloads).To(HaveKeyWithValue("gateway.signal.received", ContainSubstring("KubeDeploymentReplicasMismatch")))
		Expect(payloads).To(HaveKeyWithValue("gateway.crd.created", BeEmpty()))
	})

	It("counts the occurrences as they come", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		var counts []any
		for _, event := range audited(ctx, first.Name, 4) {
			counts = append(counts, must(audit.Data(event))["occurrence_count"])
		}
		Expect(counts).To(ConsistOf(BeEquivalentTo(1), BeEquivalentTo(1), BeEquivalentTo(2), BeEquivalentTo(3)))
	})

	It("has one event for each of many signals", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, copies(40, alert(ns))...)
		Expect(response.Summary.Deduplicated).To(Equal(39))
		name := remediations(ctx, response.Results[0].Fingerprint)[0].Name
		found := audited(ctx, name, 41)
		Expect(must(events.Verify(ctx, name))).To(HaveField("Valid", true))
		Expect(found).To(HaveEach(HaveField("ActorID", HaveValue(ContainSubstring(run.Name("sender"))))))
	})

	It("of a signal that was rejected is empty", SpecTimeout(brief), func(ctx SpecContext) {
		ns := namespace(ctx)
		must(ns.Deployment(ctx, "app"))
		response := send(ctx, alert(ns))
		audited(ctx, created(ctx, alert(workload(ctx))).Name, 2) // what came before it would have come by now
		Expect(must(events.Of(ctx, "rr-"+response.Fingerprint[:12]))).To(BeEmpty())
		Expect(must(events.Of(ctx, "rr-"+response.Fingerprint[:12]+"-1"))).To(BeEmpty())
	})
})
