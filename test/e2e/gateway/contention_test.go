package gateway_test

import (
	"context"
	"net/http"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/e2e/signals"
)

// together sends the alerts at the same time, each in a webhook of its own, with at most
// as many in flight as the Gateway serves at once, and counts the answers by their codes.
// A request that gets no answer fails the spec.
func together(ctx context.Context, alerts ...signals.Alert) map[int]int {
	GinkgoHelper()
	var mu sync.Mutex
	codes := map[int]int{}
	senders, ctx := errgroup.WithContext(ctx)
	senders.SetLimit(maxConcurrent(ctx))
	for _, alert := range alerts {
		senders.Go(func() error {
			response, err := gateway.Alerts(ctx, alert)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			codes[response.Code]++
			return nil
		})
	}
	Expect(senders.Wait()).To(Succeed())
	return codes
}

// copies is the same alert n times.
func copies(n int, alert signals.Alert) []signals.Alert {
	alerts := make([]signals.Alert, n)
	for i := range alerts {
		alerts[i] = alert
	}
	return alerts
}

// Serial because these fill the Gateway up to its limit.
var _ = Describe("Many signals at once", Serial, func() {
	It("about one new problem make one RemediationRequest with an exact count", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		Expect(together(ctx, copies(50, alert(ns))...)).To(Equal(map[int]int{http.StatusCreated: 1, http.StatusAccepted: 49}))
		Expect(remediations(ctx, identity(ns))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(50))))
	})

	It("about a known problem are all counted", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		first := created(ctx, alert(ns))
		Expect(together(ctx, copies(50, alert(ns))...)).To(Equal(map[int]int{http.StatusAccepted: 50}))
		Expect(remediation(ctx, first).Status.Deduplication.OccurrenceCount).To(BeEquivalentTo(51))
	})

	It("in one webhook about one problem make one RemediationRequest", SpecTimeout(brief), func(ctx SpecContext) {
		ns := workload(ctx)
		response := send(ctx, copies(20, alert(ns))...)
		Expect(response.Summary).To(HaveValue(Equal(signals.Summary{Total: 20, Created: 1, Deduplicated: 19})))
		Expect(remediations(ctx, response.Results[0].Fingerprint)).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(20))))
	})
})

// With two replicas the API server alone can say who was first. They are brought up once.
var _ = Describe("Two replicas", Serial, Ordered, ContinueOnFailure, Label("fault"), SpecPriority(last), func() {
	BeforeAll(func(ctx SpecContext) {
		DeferCleanup(func(ctx SpecContext) { Expect(world.Up(ctx, gatewayApp, 1)).To(Succeed()) }, NodeTimeout(broken))
		Expect(world.Up(ctx, gatewayApp, 2)).To(Succeed())
		gateway.Client.CloseIdleConnections() // new connections, which reach both
	}, NodeTimeout(broken))

	It("make one RemediationRequest of 200 concurrent first signals, and count 200", SpecTimeout(broken), func(ctx SpecContext) {
		ns := workload(ctx)
		Expect(together(ctx, copies(200, alert(ns))...)).To(Equal(map[int]int{http.StatusCreated: 1, http.StatusAccepted: 199}))
		Expect(remediations(ctx, identity(ns))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(200))))
	})

	It("make 50 RemediationRequests of 50 problems that come ten times each", SpecTimeout(broken), func(ctx SpecContext) {
		problems, marks := many(ctx, 50)
		var alerts []signals.Alert
		for _, problem := range problems {
			alerts = append(alerts, copies(10, problem)...)
		}
		Expect(together(ctx, alerts...)).To(Equal(map[int]int{http.StatusCreated: 50, http.StatusAccepted: 450}))
		Expect(counts(ctx, marks)).To(Equal(map[int64]int{10: 50}))
	})

	It("are replaced one by one without a request that fails, and Alertmanager notices nothing", SpecTimeout(broken), func(ctx SpecContext) {
		ns := workload(ctx)
		rolled := notify(ctx, "rolled", alert(ns))
		storm := blow(ctx)
		Eventually(rolled.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">=", 1)))
		storm.blows(ctx, perSecond/2)
		Expect(world.Restart(ctx, gatewayApp)).To(Succeed())
		before := must(rolled.sent(ctx)).Delivered()
		storm.blows(ctx, perSecond/2)
		storm.calm(ctx)
		Expect(storm.failures).To(BeEmpty())
		Eventually(rolled.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">", before)))
		got := rolled.tallied(ctx, identity(ns))
		Expect(got.Sent.Failed).To(BeZero())
		Expect(got.Counted).To(Equal(got.Sent.Delivered()))
	})
})
