package gateway_test

import (
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// deployment names a namespace's App.
func deployment(ns *workloads.Namespace) signals.Reference {
	return signals.Reference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns.Name, Name: ns.App}
}

var _ = Describe("A Kubernetes event", func() {
	It("of type Warning becomes a RemediationRequest", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := must(gateway.Event(ctx, signals.Warning("FailedCreate", deployment(ns))))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(remediation(ctx, response).Spec).To(MatchFields(IgnoreExtras, Fields{
			"SignalName": Equal("FailedCreate"), "Severity": Equal("warning"), "SignalType": Equal("alert"),
			"SignalFingerprint": Equal(identity(ns)),
			"TargetResource":    MatchFields(IgnoreExtras, Fields{"Kind": Equal("Deployment"), "Name": Equal(ns.App), "Namespace": Equal(ns.Name)}),
		}))
	})

	It("of type Error becomes a RemediationRequest with the severity error", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("NodeLost", deployment(workload(ctx)))
		event.Type = "Error"
		response := must(gateway.Event(ctx, event))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(remediation(ctx, response).Spec.Severity).To(Equal("error"))
	})

	It("comes from another source than an alert", SpecTimeout(brief), func(ctx SpecContext) {
		ns, other := workload(ctx), workload(ctx)
		byEvent := remediation(ctx, must(gateway.Event(ctx, signals.Warning("BackOff", deployment(ns)))))
		byAlert := remediation(ctx, created(ctx, alert(other)))
		Expect(byEvent.Spec.SignalSource).To(And(Not(BeEmpty()), Not(Equal(byAlert.Spec.SignalSource))))
	})

	It("about a pod is a problem of the pod's Deployment", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		_, pod := must2(ns.DeploymentWithPod(ctx, "app"))
		response := must(gateway.Event(ctx, signals.Warning("BackOff", signals.Reference{APIVersion: "v1", Kind: "Pod", Namespace: ns.Name, Name: pod.Name})))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("keeps its labels and annotations, and who reported it", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("BackOff", deployment(workload(ctx)))
		event.Metadata["labels"] = map[string]string{"team": "shop"}
		event.Metadata["annotations"] = map[string]string{"runbook": "restart"}
		event.Source, event.Reporter = nil, "kubelet"
		Expect(remediation(ctx, must(gateway.Event(ctx, event))).Spec).To(MatchFields(IgnoreExtras, Fields{
			"SignalLabels":      Equal(map[string]string{"team": "shop", "type": "Warning", "reason": "BackOff", "component": "kubelet"}),
			"SignalAnnotations": Equal(map[string]string{"runbook": "restart", "message": event.Message}),
		}))
	})

	It("is about its own namespace when its object names none", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		event := signals.Warning("BackOff", deployment(ns))
		event.InvolvedObject.Namespace = ""
		response := must(gateway.Event(ctx, event))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("of the events.k8s.io API is understood", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		about := deployment(ns)
		response := must(gateway.JSON(ctx, signals.EventPath, map[string]any{
			"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": map[string]any{"name": ns.App + ".1", "namespace": ns.Name},
			"type": "Warning", "reason": "FailedCreate", "note": "quota", "action": "Scaling", "regarding": about,
			"reportingController": "deployment-controller", "reportingInstance": "one",
			"eventTime": time.Now().UTC().Add(-time.Hour).Format(metav1.RFC3339Micro),
			"series":    map[string]any{"count": 3, "lastObservedTime": time.Now().UTC().Format(metav1.RFC3339Micro)},
		}))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(remediation(ctx, response).Spec).To(MatchFields(IgnoreExtras, Fields{
			"SignalFingerprint": Equal(identity(ns)), "SignalAnnotations": HaveKeyWithValue("message", "quota"),
			"SignalLabels": HaveKeyWithValue("component", "deployment-controller"),
		}))
	})

	It("may be about any kind of the cluster, in a managed namespace", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		about := signals.Reference{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role", Namespace: ns.Name, Name: "reader"}
		response := must(gateway.Event(ctx, signals.Warning("Broken", about)))
		Expect(response).To(HaveStatus(http.StatusCreated))
		Expect(response.Fingerprint).To(Equal(fingerprint(ns.Name + ":Role.rbac.authorization.k8s.io:reader")))
	})

	It("is not acted on when its kind is cluster-scoped and nobody lets the Gateway read it", SpecTimeout(brief), func(ctx SpecContext) {
		about := signals.Reference{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Namespace: managed(ctx).Name, Name: "reader"}
		response := must(gateway.Event(ctx, signals.Warning("Broken", about)))
		Expect(response).To(beRejectedFor(unmanagedScope))
		Expect(response.Rejection.Resource).To(Equal("ClusterRole/reader"))
	})

	It("about a pod that is gone makes nothing", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("BackOff", signals.Reference{APIVersion: "v1", Kind: "Pod", Namespace: workload(ctx).Name, Name: "ghost"})
		Expect(must(gateway.Event(ctx, event))).To(beRejectedFor(noSuchObject))
	})

	It("of type Normal is refused", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("Scheduled", deployment(workload(ctx)))
		event.Type = "Normal"
		response := must(gateway.Event(ctx, event))
		Expect(response).To(BeProblem(http.StatusBadRequest, badSignal))
		Expect(response.Problem().Detail).To(ContainSubstring("type"))
	})

	DescribeTable("is refused without", func(ctx SpecContext, field string, remove func(*signals.Event)) {
		event := signals.Warning("BackOff", deployment(workload(ctx)))
		remove(&event)
		response := must(gateway.Event(ctx, event))
		Expect(response).To(BeProblem(http.StatusBadRequest, badSignal))
		Expect(response.Problem().Detail).To(ContainSubstring(field))
	},
		Entry("its type", SpecTimeout(brief), "type", func(e *signals.Event) { e.Type = "" }),
		Entry("its reason", SpecTimeout(brief), "reason", func(e *signals.Event) { e.Reason = "" }),
		Entry("the kind it is about", SpecTimeout(brief), "involvedObject.kind", func(e *signals.Event) { e.InvolvedObject.Kind = "" }),
		Entry("the name it is about", SpecTimeout(brief), "involvedObject.name", func(e *signals.Event) { e.InvolvedObject.Name = "" }),
	)
})
