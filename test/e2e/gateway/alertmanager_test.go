package gateway_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/alertmanager"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/faults"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// notifying is what a spec has the deployed Alertmanager send, by a receiver that no other
// spec has. Its alerts end with the spec, so that Alertmanager is silent afterwards.
type notifying struct {
	by       *alertmanager.Alertmanager
	receiver string
	mark     string // the label spec of its alerts, and no others
	before   alertmanager.Sent
	alerts   []signals.Alert
}

// notify posts alerts that begin now to the receiver of that name. What began longer ago
// would not wait for the rest of its group.
func notify(ctx context.Context, receiver string, alerts ...signals.Alert) *notifying {
	GinkgoHelper()
	return notifyBy(ctx, monitor, receiver, alerts...)
}

// notifyBy is notify for an Alertmanager of the spec's own.
func notifyBy(ctx context.Context, by *alertmanager.Alertmanager, receiver string, alerts ...signals.Alert) *notifying {
	GinkgoHelper()
	n := &notifying{by: by, receiver: receiver, mark: uniqueName(receiver), before: must(by.Sent(ctx, receiver))}
	now := time.Now()
	for _, alert := range alerts {
		n.alerts = append(n.alerts, n.own(alert).Began(now))
	}
	Expect(by.Post(ctx, n.alerts...)).To(Succeed())
	DeferCleanup(n.silence, NodeTimeout(settled))
	return n
}

// own is the alert as the spec posts it.
func (n *notifying) own(alert signals.Alert) signals.Alert {
	return alert.With("receiver", n.receiver).With("spec", n.mark)
}

// sent is what Alertmanager has sent for the spec so far.
func (n *notifying) sent(ctx context.Context) (alertmanager.Sent, error) {
	now, err := n.by.Sent(ctx, n.receiver)
	return now.Since(n.before), err
}

// resolve ends alerts of the spec that have not ended, and returns when the receiver has
// been told.
func (n *notifying) resolve(ctx context.Context, alerts ...signals.Alert) {
	GinkgoHelper()
	tried := must(n.sent(ctx)).Requests
	n.end(ctx, alerts...)
	Eventually(n.sent).WithContext(ctx).WithTimeout(brief).Should(HaveField("Requests", BeNumerically(">", tried)), "the receiver is told of the end at the group's next turn")
}

// end ends alerts of the spec that have not ended. The receiver is told later.
func (n *notifying) end(ctx context.Context, alerts ...signals.Alert) {
	GinkgoHelper()
	var ended []signals.Alert
	for _, alert := range alerts {
		labels := n.own(alert).Labels
		for i := range n.alerts {
			if n.alerts[i].EndsAt.IsZero() && maps.Equal(n.alerts[i].Labels, labels) {
				n.alerts[i] = n.alerts[i].Resolved()
				ended = append(ended, n.alerts[i])
			}
		}
	}
	if len(ended) > 0 {
		Expect(n.by.Post(ctx, ended...)).To(Succeed())
	}
}

// silence ends all that has not ended, of which nobody is told: the next spec, or the same in
// a run that follows at once, would count what the receiver of that name is sent.
func (n *notifying) silence(ctx SpecContext) {
	GinkgoHelper()
	Expect(n.by.Silence(ctx, "spec", n.mark)).To(Succeed())
	n.end(ctx, n.alerts...)
}

// delivered is what Alertmanager counts when it sent so many notifications, and each was
// taken at once.
func delivered(notifications int) alertmanager.Sent {
	return alertmanager.Sent{Notifications: notifications, Requests: notifications}
}

// tally is what was delivered, and what the Gateway has counted of one problem.
type tally struct {
	Sent    alertmanager.Sent
	Counted int
}

// tallied takes stock at a moment at which no notification is on its way: one is sent
// every second and is taken in milliseconds.
func (n *notifying) tallied(ctx context.Context, fingerprint string) (at tally) {
	GinkgoHelper()
	Eventually(func(ctx context.Context) (bool, error) {
		before, err := n.sent(ctx)
		if err != nil {
			return false, err
		}
		at = tally{Sent: before}
		for _, rr := range remediations(ctx, fingerprint) {
			at.Counted += int(occurrences(rr))
		}
		after, err := n.sent(ctx)
		return after == before && after.Notifications == after.Failed+after.Delivered(), err
	}).WithContext(ctx).Should(BeTrue(), "a moment at which nothing is on its way")
	return at
}

// occurrences is how often a problem has been counted: not at all while its
// RemediationRequest is made and its status is not yet.
func occurrences(rr v1alpha1.RemediationRequest) int64 {
	if rr.Status.Deduplication == nil {
		return 0
	}
	return rr.Status.Deduplication.OccurrenceCount
}

var _ = Describe("Alertmanager", func() {
	It("has an alert become a RemediationRequest about its object, whatever the exporter added", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		firing := notify(ctx, "firing", alert(ns, "team", "payments"))
		Eventually(firing.sent).WithContext(ctx).Should(Equal(delivered(1)))
		Expect(must(monitor.Alerts(ctx, "deployment", ns.App))).To(ConsistOf(HaveField("Receivers", ConsistOf(HaveField("Name", "firing")))))
		found := remediations(ctx, identity(ns))
		Expect(found).To(HaveLen(1))
		Expect(found[0].Spec.TargetResource).To(Equal(v1alpha1.TargetResource{Kind: "Deployment", Name: ns.App, Namespace: ns.Name, APIVersion: "apps/v1"}))
		Expect(found[0].Spec.FiringTime.Time).To(BeTemporally("~", firing.alerts[0].StartsAt, time.Second))
		Expect(found[0].Spec.SignalLabels).To(HaveKeyWithValue("team", "payments"))
		Expect(found[0].Spec.OriginalPayload).To(ContainSubstring(`"groupKey":"{}/{receiver=\"firing\"}:{namespace=\"` + ns.Name + `\"}"`))
	})

	It("tells the alerts of a group at once, and each makes its own RemediationRequest", SpecTimeout(brief), func(ctx SpecContext) {
		var alerts []signals.Alert
		var marks []string
		for range 2 {
			ns := managed(ctx)
			for i := range 3 {
				name := fmt.Sprintf("app-%d", i)
				must(ns.Deployment(ctx, name))
				alerts = append(alerts, alert(ns, "deployment", name))
				marks = append(marks, fingerprint(ns.Name+":Deployment:"+name))
			}
		}
		groups := notify(ctx, "grouped", alerts...)
		Eventually(groups.sent).WithContext(ctx).Should(Equal(delivered(2)))
		for _, mark := range marks {
			Expect(remediations(ctx, mark)).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(1))))
		}
	})

	It("tells of an end beside what still fires, and the end makes and counts nothing", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		for _, name := range []string{"ill", "well"} {
			must(ns.Deployment(ctx, name))
		}
		ill, well := alert(ns, "deployment", "ill"), alert(ns, "deployment", "well")
		counts := func(ctx context.Context, name string) int64 {
			found := remediations(ctx, fingerprint(ns.Name+":Deployment:"+name))
			Expect(found).To(HaveLen(1))
			return occurrences(found[0])
		}
		mixed := notify(ctx, "mixed", ill, well)
		Eventually(mixed.sent).WithContext(ctx).Should(Equal(delivered(1)))
		mixed.resolve(ctx, well)
		Expect(must(mixed.sent(ctx))).To(Equal(delivered(2)))
		Expect([]int64{counts(ctx, "ill"), counts(ctx, "well")}).To(Equal([]int64{2, 1}), "the one that still fires was told once more")
		mixed.resolve(ctx, ill)
		Expect(must(mixed.sent(ctx))).To(Equal(delivered(3)))
		Expect([]int64{counts(ctx, "ill"), counts(ctx, "well")}).To(Equal([]int64{2, 1}))
		Expect(must(monitor.Alerts(ctx, "namespace", ns.Name))).To(BeEmpty())
	})

	It("has one group be about two clusters", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		clusters := notify(ctx, "clusters", alert(ns, "cluster", "prod-eu"), alert(ns, "cluster", "prod-us"))
		Eventually(clusters.sent).WithContext(ctx).Should(Equal(delivered(1)))
		for _, cluster := range []string{"prod-eu", "prod-us"} {
			Expect(remediations(ctx, fingerprint(cluster+":"+ns.Name+":Deployment:"+ns.App))).To(ConsistOf(HaveField("Spec.ClusterID", cluster)))
		}
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	})

	It("counts no failure of an alert about no object, or about one that is gone", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		rejected := notify(ctx, "rejected", signals.Bare("Watchdog"), alert(ns, "deployment", "gone"), alert(ns))
		Eventually(rejected.sent).WithContext(ctx).Should(Equal(delivered(2)), "a group with a namespace, and one without")
		Expect(remediations(ctx, identity(ns))).To(HaveLen(1))
		Expect(remediations(ctx, fingerprint(ns.Name+":Deployment:gone"))).To(BeEmpty())
	})

	It("leaves out what is more than max_alerts, and the Gateway counts how many", SpecTimeout(brief), func(ctx SpecContext) {
		ns := managed(ctx)
		var alerts []signals.Alert
		for _, name := range []string{"app-0", "app-1", "app-2"} {
			must(ns.Deployment(ctx, name))
			alerts = append(alerts, alert(ns, "deployment", name))
		}
		before := counted(ctx).Value("gateway_alerts_truncated_total")
		truncated := notify(ctx, "truncated", alerts...)
		Eventually(truncated.sent).WithContext(ctx).Should(Equal(delivered(1)))
		stored := 0
		for _, name := range []string{"app-0", "app-1", "app-2"} {
			stored += len(remediations(ctx, fingerprint(ns.Name+":Deployment:"+name)))
		}
		Expect(stored).To(Equal(2))
		Expect(counted(ctx).Value("gateway_alerts_truncated_total")).To(Equal(before + 1))
	})

	It("sends again what still fires, and each time counts", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		repeated := notify(ctx, "repeated", alert(ns))
		Eventually(repeated.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">=", 4)))
		got := repeated.tallied(ctx, identity(ns))
		Expect(got.Sent).To(Equal(delivered(got.Sent.Notifications)))
		Expect(got.Counted).To(Equal(got.Sent.Notifications))
		Expect(remediations(ctx, identity(ns))).To(HaveLen(1))
	})
})

// It begins before the others, because it takes longest.
var _ = Describe("Alertmanager's token", SpecPriority(first), func() {
	It("is renewed without a notification that fails, though the one before has ended", SpecTimeout(broken), func(ctx SpecContext) {
		account, name := uniqueName("renewed"), run.Name(uniqueName("renewed"))
		must(run.Account(ctx, kube, account, "gateway-signal-sender"))
		// What the kubelet does for a ServiceAccount's token after at least eight minutes, it does at once for a Secret.
		first, second := secret(ctx, name+"-first", ""), secret(ctx, name+"-second", "")
		old := must(kube.BoundToken(ctx, run.Name(account), first))
		token := secret(ctx, name, old)
		own := faults.App{Name: name}
		deployOwn(ctx, own, run.Name(account), token.Name)
		pod := must(world.Pods(ctx, own))[0]
		transport := must(kube.PodTransport(pod.Name, "9093"))
		by := &alertmanager.Alertmanager{Address: "alertmanager", Client: &http.Client{Transport: transport, Timeout: settled}}
		ns := workload(ctx)
		renewed := notifyBy(ctx, by, "renewed", alert(ns))
		Eventually(renewed.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">=", 1)))

		fresh := must(kube.BoundToken(ctx, run.Name(account), second))
		token.Data = map[string][]byte{"token": []byte(fresh)}
		Expect(kube.API.Update(ctx, token)).To(Succeed())
		touch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"e2e.kubernaut.ai/renewed":"true"}}}`))
		Expect(kube.API.Patch(ctx, &pod, touch)).To(Succeed()) // the kubelet looks after a pod that changes
		Eventually(world.Mounted).WithContext(ctx).WithArguments(&pod, "token", "token").Should(Equal(fresh))
		Expect(kube.API.Delete(ctx, first)).To(Succeed())

		// Until the Gateway has forgotten that the old one was good, both would do.
		Eventually(func(ctx context.Context) (*signals.Response, error) {
			return gateway.As(old).Alerts(ctx, alert(ns).Resolved())
		}).
			WithContext(ctx).WithTimeout(brief).Should(HaveStatus(http.StatusUnauthorized), "the old token has ended")
		before := must(renewed.sent(ctx)).Delivered()
		Eventually(renewed.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">=", before+2)))
		got := renewed.tallied(ctx, identity(ns))
		Expect(got.Sent).To(Equal(delivered(got.Sent.Notifications)))
		Expect(got.Counted).To(Equal(got.Sent.Notifications))
	})
})

// secret makes a Secret of the spec's own in the services' namespace, which holds a token
// if one is given.
func secret(ctx context.Context, name, token string) *corev1.Secret {
	GinkgoHelper()
	made := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: kube.Target.Namespace, Name: name}, Data: map[string][]byte{"token": []byte(token)}}
	Expect(kube.API.Create(ctx, made)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(kube.API.Delete(ctx, made))).To(Succeed()) }, NodeTimeout(settled))
	return made
}

// deployOwn deploys a second Alertmanager as the first is deployed, but with an account and
// a token of the spec's own.
func deployOwn(ctx context.Context, own faults.App, account, token string) {
	GinkgoHelper()
	deployed := &appsv1.Deployment{}
	Expect(kube.API.Get(ctx, client.ObjectKey{Namespace: kube.Target.Namespace, Name: "alertmanager"}, deployed)).To(Succeed())
	labels := map[string]string{"app.kubernetes.io/name": own.Name, "kubernaut.ai/sends": "signals"}
	made := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: deployed.Namespace, Name: own.Name, Labels: labels}, Spec: deployed.Spec}
	made.Spec.Selector, made.Spec.Template.Labels = &metav1.LabelSelector{MatchLabels: labels}, labels
	made.Spec.Template.Spec.ServiceAccountName = account
	for i := range made.Spec.Template.Spec.Volumes {
		if volume := &made.Spec.Template.Spec.Volumes[i]; volume.Name == "token" {
			volume.Projected.Sources = []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: token}}}}
		}
	}
	Expect(kube.API.Create(ctx, made)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(kube.API.Delete(ctx, made)).To(Succeed()) }, NodeTimeout(settled))
	Expect(world.AwaitReady(ctx, own)).To(Succeed())
}
