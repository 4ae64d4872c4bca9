package gateway_test

import (
	"embed"
	"fmt"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

//go:embed testdata
var testdata embed.FS

var _ = Describe("A Prometheus alert", func() {
	It("becomes a RemediationRequest in the Gateway's namespace", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := created(ctx, alert(ns))
		Expect(response.Result).To(MatchFields(IgnoreExtras, Fields{
			"Status": Equal("created"), "Duplicate": BeFalse(), "Message": Not(BeEmpty()),
			"Fingerprint": Equal(identity(ns)),
			"Name":        Equal("rr-" + response.Fingerprint[:12] + "-1"), "Namespace": Equal(kube.Target.Namespace),
			"Metadata": PointTo(MatchFields(IgnoreExtras, Fields{"Count": Equal(1)})),
		}))
		Expect(remediation(ctx, response).Spec.SignalFingerprint).To(Equal(response.Fingerprint))
	})

	DescribeTable("is recorded with", func(ctx SpecContext, field func(ns *workloads.Namespace, rr *v1alpha1.RemediationRequest) (got, want any)) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns, "team", "payments")))
		got, want := field(ns, rr)
		Expect(got).To(Equal(want))
	},
		Entry("its name", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.SignalName, "KubeDeploymentReplicasMismatch"
		}),
		Entry("its severity", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.Severity, "critical"
		}),
		Entry("the signal type alert", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.SignalType, "alert"
		}),
		Entry("the target type kubernetes", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.TargetType, v1alpha1.TargetKubernetes
		}),
		Entry("the object it is about", SpecTimeout(brief), func(ns *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.TargetResource, v1alpha1.TargetResource{Kind: "Deployment", Name: ns.App, Namespace: ns.Name, APIVersion: "apps/v1"}
		}),
		Entry("no cluster when it names none", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.ClusterID, ""
		}),
		Entry("its own labels", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.SignalLabels["team"], "payments"
		}),
		Entry("its own annotations", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return rr.Spec.SignalAnnotations["summary"], "KubeDeploymentReplicasMismatch is firing"
		}),
		Entry("the Gateway's labels", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return []string{rr.Labels["app.kubernetes.io/managed-by"], rr.Labels["app.kubernetes.io/component"]}, []string{"gateway-service", "remediation"}
		}),
		Entry("a first occurrence that is also the last", SpecTimeout(brief), func(_ *workloads.Namespace, rr *v1alpha1.RemediationRequest) (any, any) {
			return []any{rr.Status.Deduplication.OccurrenceCount, rr.Status.Deduplication.LastSeenAt}, []any{int64(1), rr.Status.Deduplication.FirstSeenAt}
		}),
	)

	It("is recorded with the times at which it began and came", SpecTimeout(brief), func(ctx SpecContext) {
		firing := alert(workload(ctx))
		rr := remediation(ctx, created(ctx, firing))
		Expect(rr.Spec.FiringTime.Time).To(BeTemporally("~", firing.StartsAt, time.Second))
		Expect(rr.Spec.ReceivedTime.Time).To(BeTemporally("~", time.Now(), settled))
		Expect(time.Parse(time.RFC3339, rr.Annotations["kubernaut.ai/created-at"])).To(BeTemporally("~", rr.Spec.ReceivedTime.Time, settled))
	})

	It("is recorded as it was received", SpecTimeout(brief), func(ctx SpecContext) {
		rr := remediation(ctx, created(ctx, alert(workload(ctx), "shard", "7")))
		Expect(rr.Spec.OriginalPayload).To(And(ContainSubstring(`"shard"`), ContainSubstring("KubeDeploymentReplicasMismatch")))
	})

	It("has the severity unknown when it states none", SpecTimeout(brief), func(ctx SpecContext) {
		rr := remediation(ctx, created(ctx, alert(workload(ctx), "severity", "")))
		Expect(rr.Spec.Severity).To(Equal("unknown"))
	})

	It("keeps a severity of the sender's own", SpecTimeout(brief), func(ctx SpecContext) {
		rr := remediation(ctx, created(ctx, alert(workload(ctx), "severity", "P0-wake-everybody")))
		Expect(rr.Spec.Severity).To(Equal("P0-wake-everybody"))
	})

	It("creates nothing once it is resolved", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, alert(ns).Resolved())
		Expect(response).To(HaveStatus(http.StatusOK))
		Expect(response.Status).To(Equal("resolved"))
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	})

	It("leaves an open RemediationRequest as it is when it is resolved", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		before := remediation(ctx, created(ctx, alert(ns)))
		Expect(send(ctx, alert(ns).Resolved())).To(HaveStatus(http.StatusOK))
		Expect(remediations(ctx, before.Spec.SignalFingerprint)).To(ConsistOf(HaveField("ResourceVersion", before.ResourceVersion)))
	})
})

var _ = Describe("The labels of an alert", func() {
	It("are overruled by the webhook's common labels", SpecTimeout(brief), func(ctx SpecContext) {
		webhook := signals.Notify(alert(workload(ctx), "severity", "info"))
		webhook.CommonLabels["severity"] = "warning"
		response := must(gateway.Webhook(ctx, webhook))
		Expect(remediation(ctx, response).Spec.Severity).To(Equal("warning"))
	})

	It("name what was measured by exported_ labels, before the exporter's own pod", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := created(ctx, signals.Firing("Down", "namespace", "monitoring", "pod", "kube-state-metrics-0",
			"exported_namespace", ns.Name, "exported_deployment", ns.App))
		Expect(response.Fingerprint).To(Equal(identity(ns)))
	})

	It("name the namespace by exported_namespace before namespace", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns, "namespace", "monitoring", "exported_namespace", ns.Name)))
		Expect(rr.Spec.TargetResource.Namespace).To(Equal(ns.Name))
	})

	It("never mean the namespace default when they name none", SpecTimeout(brief), func(ctx SpecContext) {
		name := uniqueName("gw")
		deployment := must(workloads.In(kube, "default").Deployment(ctx, name, workloads.LabelManaged, "true"))
		DeferCleanup(func(ctx SpecContext) { Expect(kube.API.Delete(ctx, deployment)).To(Succeed()) })
		Expect(send(ctx, signals.Firing("Down", "deployment", name, "namespace", ""))).To(beRejectedFor(noObject))
		Expect(remediations(ctx, fingerprint("default:Deployment:"+name))).To(BeEmpty())
	})

	It("name each alert's own cluster, though a group has none in common", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, alert(ns, "cluster", "prod-eu"), alert(ns, "cluster", "prod-us"))
		Expect(response.Summary).To(PointTo(Equal(signals.Summary{Total: 2, Created: 2})))
		for _, cluster := range []string{"prod-eu", "prod-us"} {
			Expect(remediations(ctx, fingerprint(cluster+":"+ns.Name+":Deployment:"+ns.App))).To(HaveLen(1))
		}
	})

	It("name the cluster, which is part of the fingerprint", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rr := remediation(ctx, created(ctx, alert(ns, "cluster", "prod-eu")))
		Expect(rr.Spec.ClusterID).To(Equal("prod-eu"))
		Expect(rr.Spec.SignalFingerprint).To(Equal(fingerprint("prod-eu:" + ns.Name + ":Deployment:" + ns.App)))
	})

	It("may be two hundred", SpecTimeout(brief), func(ctx SpecContext) {
		firing := alert(workload(ctx))
		for i := range 200 {
			firing = firing.With(fmt.Sprintf("label_%03d", i), fmt.Sprintf("value-%03d", i))
		}
		rr := remediation(ctx, created(ctx, firing))
		Expect(rr.Spec.SignalLabels).To(And(HaveKeyWithValue("label_000", "value-000"), HaveKeyWithValue("label_199", "value-199")))
	})

	It("may hold any script", SpecTimeout(brief), func(ctx SpecContext) {
		firing := alert(workload(ctx), "équipe", "платежи-支付-🔥")
		rr := remediation(ctx, created(ctx, firing))
		Expect(rr.Spec.SignalLabels).To(HaveKeyWithValue("équipe", "платежи-支付-🔥"))
	})

	It("may name an object with 253 characters", SpecTimeout(brief), func(ctx SpecContext) {
		ns, long := managed(ctx), strings.Repeat("a", 253)
		must(ns.ReplicaSet(ctx, long))
		rr := remediation(ctx, created(ctx, signals.Firing("Down", "namespace", ns.Name, "replicaset", long)))
		Expect(rr.Spec.TargetResource.Name).To(Equal(long))
	})

	It("may name an alert with 253 characters", SpecTimeout(brief), func(ctx SpecContext) {
		long := strings.Repeat("A", 253)
		rr := remediation(ctx, created(ctx, alert(workload(ctx), "alertname", long)))
		Expect(rr.Spec.SignalName).To(Equal(long))
	})

	DescribeTable("name the target by", func(ctx SpecContext, label, kind string, create func(SpecContext, *workloads.Namespace) error) {
		ns := managed(ctx)
		Expect(create(ctx, ns)).To(Succeed())
		rr := remediation(ctx, created(ctx, signals.Firing("Down", "namespace", ns.Name, label, "app")))
		Expect(rr.Spec.TargetResource).To(MatchFields(IgnoreExtras, Fields{"Kind": Equal(kind), "Name": Equal("app")}))
		Expect(rr.Spec.TargetReason).To(HavePrefix("kube-state-metrics/" + label + ": "))
	},
		Entry("pod", SpecTimeout(brief), "pod", "Pod", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.Pod(ctx, "app")
			return err
		}),
		Entry("deployment", SpecTimeout(brief), "deployment", "Deployment", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.Deployment(ctx, "app")
			return err
		}),
		Entry("statefulset", SpecTimeout(brief), "statefulset", "StatefulSet", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.StatefulSet(ctx, "app")
			return err
		}),
		Entry("daemonset", SpecTimeout(brief), "daemonset", "DaemonSet", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.DaemonSet(ctx, "app")
			return err
		}),
		Entry("replicaset", SpecTimeout(brief), "replicaset", "ReplicaSet", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.ReplicaSet(ctx, "app")
			return err
		}),
		Entry("cronjob", SpecTimeout(brief), "cronjob", "CronJob", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.CronJob(ctx, "app")
			return err
		}),
		Entry("job_name", SpecTimeout(brief), "job_name", "Job", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, _, err := ns.JobWithPod(ctx, "app", nil)
			return err
		}),
		Entry("persistentvolumeclaim", SpecTimeout(brief), "persistentvolumeclaim", "PersistentVolumeClaim", func(ctx SpecContext, ns *workloads.Namespace) error {
			_, err := ns.Claim(ctx, "app")
			return err
		}),
	)

	It("never name a target by what the scrape added", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, signals.Firing("Down", "namespace", ns.Name, "job", "app", "instance", "app", "endpoint", "app", "container", "app"))
		Expect(response).To(beRejectedFor(noObject))
	})
})

var _ = Describe("A webhook with several alerts", func() {
	It("is answered with 207 and one result each", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		for _, name := range []string{"app-0", "app-1", "app-2"} {
			must(ns.Deployment(ctx, name))
		}
		response := send(ctx, alert(ns, "deployment", "app-0"), alert(ns, "deployment", "app-1"), alert(ns, "deployment", "app-2"))
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Summary).To(PointTo(Equal(signals.Summary{Total: 3, Created: 3})))
		Expect(response.Results).To(HaveExactElements(
			resultOf("created", ns.Name+":Deployment:app-0"), resultOf("created", ns.Name+":Deployment:app-1"), resultOf("created", ns.Name+":Deployment:app-2")))
		Expect(remediations(ctx, fingerprint(ns.Name+":Deployment:app-1"))).To(HaveLen(1))
	})

	It("counts two alerts about one workload as one problem seen twice", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, alert(ns), alert(ns, "alertname", "KubePodCrashLooping"))
		Expect(response.Summary).To(PointTo(Equal(signals.Summary{Total: 2, Created: 1, Deduplicated: 1})))
		Expect(remediations(ctx, identity(ns))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(2))))
	})

	It("is taken as far as it is good", SpecTimeout(brief), func(ctx SpecContext) {
		ns, foreign := workload(ctx), namespace(ctx)
		must(foreign.Deployment(ctx, "app"))
		response := send(ctx, alert(ns), alert(foreign), alert(ns, "deployment", "missing"), alert(ns, "alertname", ""))
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Summary).To(PointTo(Equal(signals.Summary{Total: 4, Created: 1, Rejected: 2, Failed: 1})))
		Expect([]string{response.Results[1].Reason, response.Results[2].Reason}).To(Equal([]string{unmanagedScope, noSuchObject}))
		Expect(response.Results[3].Error).NotTo(BeNil())
	})

	It("may tell the end of one and the beginning of another", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		must(ns.Deployment(ctx, "app"))
		must(ns.Deployment(ctx, "well"))
		response := send(ctx, alert(ns), alert(ns, "deployment", "well").Resolved())
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Results).To(HaveExactElements(HaveField("Status", "created"), HaveField("Status", "resolved")))
		Expect(remediations(ctx, fingerprint(ns.Name+":Deployment:well"))).To(BeEmpty())
	})

	DescribeTable("is understood as Alertmanager wrote it:", func(ctx SpecContext, file string, want signals.Summary) {
		ns := managed(ctx)
		for _, name := range []string{"checkout", "payment", "cart"} {
			must(ns.Deployment(ctx, name))
		}
		response := must(gateway.Webhook(ctx, must(signals.Load(testdata, "testdata/"+file, ns.Name))))
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Summary).To(PointTo(Equal(want)))
	},
		Entry("grouped by namespace", SpecTimeout(brief), "grouped.json", signals.Summary{Total: 3, Created: 3}),
		Entry("firing and resolved mixed", SpecTimeout(brief), "mixed.json", signals.Summary{Total: 3, Created: 2}),
		Entry("in many scripts", SpecTimeout(brief), "unicode.json", signals.Summary{Total: 2, Created: 2}),
	)
})

// resultOf matches one result of a batch.
func resultOf(status, identity string) OmegaMatcher {
	return MatchFields(IgnoreExtras, Fields{"Status": Equal(status), "Fingerprint": Equal(fingerprint(identity)), "Error": BeNil()})
}
