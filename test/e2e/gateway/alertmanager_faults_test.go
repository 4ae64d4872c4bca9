package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// halved is how many alerts a group has that a pause is to meet in its middle: the Gateway
// is busy with it for longer than it takes to stop the API server.
const halved = 200

// many makes workloads of a spec's own and returns an alert about each, and their
// fingerprints.
func many(ctx context.Context, n int) (alerts []signals.Alert, marks []string) {
	GinkgoHelper()
	ns := managed(ctx)
	for i := range n {
		name := fmt.Sprintf("app-%d", i)
		must(ns.ReplicaSet(ctx, name))
		alerts = append(alerts, signals.Firing("Down", "namespace", ns.Name, "replicaset", name))
		marks = append(marks, fingerprint(ns.Name+":ReplicaSet:"+name))
	}
	return alerts, marks
}

// counts is how many of the problems have been counted how often; a problem without a
// RemediationRequest has not at all.
func counts(ctx context.Context, marks []string) map[int64]int {
	GinkgoHelper()
	of := map[string]int64{}
	for _, mark := range marks {
		of[mark] = 0
	}
	var list v1alpha1.RemediationRequestList
	Expect(kube.API.List(ctx, &list, client.InNamespace(kube.Target.Namespace))).To(Succeed())
	for _, rr := range list.Items {
		if _, ok := of[rr.Spec.SignalFingerprint]; ok {
			of[rr.Spec.SignalFingerprint] += occurrences(rr)
		}
	}
	found := map[int64]int{}
	for _, count := range of {
		found[count]++
	}
	return found
}

// fill begins n requests with the same body at once, and leaves out those that the Gateway
// refused because it was full: it may have another sender's in hand.
func fill(ctx context.Context, n int, body []byte) []*held {
	GinkgoHelper()
	all := make([]*held, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if one, err := hold(ctx, body); err == nil {
				all[i] = one
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(one *held) bool { return one == nil })
}

var _ = Describe("Alertmanager tries again", Serial, Label("fault"), SpecPriority(last), func() {
	It("what a Gateway that has too much to do did not take", SpecTimeout(broken), func(ctx SpecContext) {
		busy, ns, limit := workload(ctx), workload(ctx), maxConcurrent(ctx)
		all := fill(ctx, limit, sized(busy, 4<<10))
		overloaded := notify(ctx, "overloaded", alert(ns))
		Eventually(overloaded.sent).WithContext(ctx).Should(HaveField("Refused", BeNumerically(">", 0)), "the Gateway has too much to do")
		finishAll(all)
		Eventually(overloaded.sent).WithContext(ctx).Should(HaveField("Delivered()", 1))
		Expect(must(overloaded.sent(ctx)).Failed).To(BeZero())
		overloaded.silence(ctx)
		Expect(remediations(ctx, identity(ns))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(1))))
	})
})
