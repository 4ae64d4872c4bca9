package gateway_test

import (
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
)

var _ = Describe("An alert's X-Timestamp", func() {
	DescribeTable("is in the window when it lies", func(ctx SpecContext, offset time.Duration) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Timestamp(offset)))
		Expect(response).To(HaveStatus(http.StatusCreated))
	},
		Entry("at this moment", SpecTimeout(brief), time.Duration(0)),
		Entry("almost five minutes back", SpecTimeout(brief), -5*time.Minute+settled*2),
		Entry("almost two minutes ahead", SpecTimeout(brief), 2*time.Minute-settled),
	)

	DescribeTable("is refused when it lies", func(ctx SpecContext, offset time.Duration) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Timestamp(offset)))
		Expect(response).To(BeProblem(http.StatusBadRequest, outsideWindow))
		Expect(response.Problem().Detail).To(ContainSubstring("X-Timestamp"))
	},
		Entry("more than five minutes back", SpecTimeout(brief), -5*time.Minute-settled),
		Entry("more than two minutes ahead", SpecTimeout(brief), 2*time.Minute+settled*2),
	)

	DescribeTable("is refused when it is", func(ctx SpecContext, value string) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Header("X-Timestamp", value)))
		Expect(response).To(BeProblem(http.StatusBadRequest, outsideWindow))
	},
		Entry("negative", SpecTimeout(brief), "-1"),
		Entry("not a number", SpecTimeout(brief), "yesterday"),
		Entry("a formatted time", SpecTimeout(brief), "2026-01-01T00:00:00Z"),
		Entry("larger than any time", SpecTimeout(brief), "99999999999999999999"),
	)

	It("may be absent, as Alertmanager leaves it", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx)))))).To(HaveStatus(http.StatusCreated))
	})
})

var _ = Describe("Without X-Timestamp an alert", func() {
	It("may have begun long ago, because Alertmanager sends it again", SpecTimeout(brief), func(ctx SpecContext) {
		created(ctx, alert(workload(ctx)).Began(time.Now().Add(-72*time.Hour)))
	})

	It("may not begin more than two minutes ahead", SpecTimeout(brief), func(ctx SpecContext) {
		response := send(ctx, alert(workload(ctx)).Began(time.Now().Add(2*time.Minute+settled*2)))
		Expect(response).To(BeProblem(http.StatusBadRequest, outsideWindow))
	})

	It("must say when it began", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(send(ctx, alert(workload(ctx)).Began(time.Time{}))).To(HaveStatus(http.StatusBadRequest))
	})

	It("that begins ahead of its time touches no other of its webhook", SpecTimeout(brief), func(ctx SpecContext) {
		ns, ahead := workload(ctx), workload(ctx)
		response := send(ctx, alert(ns), alert(ahead).Began(time.Now().Add(2*time.Minute+settled*2)))
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Summary).To(PointTo(Equal(signals.Summary{Total: 2, Created: 1, Failed: 1})))
		Expect(response.Results[1].Error).To(ContainSubstring("alerts[1].startsAt"))
		Expect(remediations(ctx, identity(ns))).To(HaveLen(1))
		Expect(remediations(ctx, identity(ahead))).To(BeEmpty())
	})
})

var _ = Describe("An event's time", func() {
	DescribeTable("is refused when its last timestamp lies", func(ctx SpecContext, offset time.Duration) {
		event := signals.Warning("BackOff", deployment(workload(ctx)))
		event.LastTimestamp = time.Now().Add(offset).UTC()
		event.FirstTimestamp = event.LastTimestamp.Add(-time.Minute)
		Expect(must(gateway.Event(ctx, event))).To(BeProblem(http.StatusBadRequest, outsideWindow))
	},
		Entry("more than five minutes back", SpecTimeout(brief), -5*time.Minute-settled),
		Entry("more than two minutes ahead", SpecTimeout(brief), 2*time.Minute+settled*2),
	)

	It("is the newest of all that it gives", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("FailedScheduling", deployment(workload(ctx)))
		event.FirstTimestamp, event.LastTimestamp = time.Time{}, time.Time{}
		event.EventTime = time.Now().UTC().Add(-35 * time.Minute)
		Expect(must(gateway.Event(ctx, event))).To(BeProblem(http.StatusBadRequest, outsideWindow))
		event.Series = &signals.Series{Count: 7, LastObservedTime: time.Now().UTC().Add(-5 * time.Second)}
		Expect(must(gateway.Event(ctx, event))).To(HaveStatus(http.StatusCreated))
	})

	It("is its first timestamp when it has no last", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("BackOff", deployment(workload(ctx)))
		event.LastTimestamp = time.Time{}
		Expect(must(gateway.Event(ctx, event))).To(HaveStatus(http.StatusCreated))
	})

	It("is refused when it has neither", SpecTimeout(brief), func(ctx SpecContext) {
		event := signals.Warning("BackOff", deployment(workload(ctx)))
		event.FirstTimestamp, event.LastTimestamp = time.Time{}, time.Time{}
		Expect(must(gateway.Event(ctx, event))).To(HaveStatus(http.StatusBadRequest))
	})
})
