package datastorage_test

import (
	"context"
	"encoding/json"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/metrics"
)

// counted scrapes DataStorage.
func counted(ctx context.Context) metrics.Snapshot {
	GinkgoHelper()
	return must(metrics.Scrape(ctx, opsClient, metricsAt))
}

var _ = Describe("DataStorage", func() {
	It("lives", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(get(ctx, "http://"+healthAt+"/healthz"))).To(HaveStatus(http.StatusOK))
	})

	It("is ready, and says so on its API as well, without a token", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(ready(ctx))).To(HaveStatus(http.StatusOK))
		Expect(must(must(storage.As("")).Do(ctx, http.MethodGet, "/readyz", nil))).To(HaveStatus(http.StatusOK))
	})

	It("answers with a request id of its own and the security headers", SpecTimeout(brief), func(ctx SpecContext) {
		one, two := must(storage.Write(ctx, audit.NewEvent(correlation()))), must(storage.Do(ctx, http.MethodGet, "/nothing", nil))
		Expect(one.RequestID()).NotTo(Or(BeEmpty(), Equal(two.RequestID())))
		for _, answer := range []*Answer{one, two} {
			Expect(answer.Header).To(And(HaveKeyWithValue("X-Content-Type-Options", []string{"nosniff"}), HaveKeyWithValue("X-Frame-Options", []string{"DENY"}),
				HaveKeyWithValue("Content-Security-Policy", []string{"default-src 'none'"})))
		}
	})

	It("logs JSON that names the request", SpecTimeout(brief), func(ctx SpecContext) {
		answer := must(storage.Write(ctx, audit.NewEvent(correlation())))
		Eventually(func(ctx context.Context) ([]string, error) { return kube.Logs(ctx, "datastorage") }).WithContext(ctx).
			Should(ContainElement(ContainSubstring(`"request_id":"` + answer.RequestID() + `"`)))
		for _, line := range must(kube.Logs(ctx, "datastorage")) {
			Expect(json.Valid([]byte(line))).To(BeTrue(), "%q", line)
		}
	})

	DescribeTable("counts from the start", func(ctx SpecContext, name string) {
		Expect(counted(ctx).Has(name)).To(BeTrue())
	},
		Entry("events", SpecTimeout(brief), "datastorage_events_total"),
		Entry("requests", SpecTimeout(brief), "datastorage_http_request_duration_seconds"),
		Entry("the depth of its queue", SpecTimeout(brief), "datastorage_dlq_depth"),
		Entry("the age of the oldest entry", SpecTimeout(brief), "datastorage_dlq_oldest_age_seconds"),
		Entry("what was drained", SpecTimeout(brief), "datastorage_dlq_drained_total"),
		Entry("what can never be stored", SpecTimeout(brief), "datastorage_dlq_dead_total"),
	)

	It("labels nothing with what a caller wrote", SpecTimeout(brief), func(ctx SpecContext) {
		mark := uniqueName("mark")
		event := audit.NewEvent(mark)
		event.EventType, event.EventCategory = mark, mark
		stored(ctx, event)
		must(storage.Do(ctx, http.MethodGet, "/"+mark, nil))
		Expect(counted(ctx).LabelValues()).NotTo(ContainElement(ContainSubstring(mark)))
	})
})

// Serial because nobody else may write while this counts.
var _ = Describe("DataStorage's counters", Serial, func() {
	It("grow by exactly what was written", SpecTimeout(brief), func(ctx SpecContext) {
		before := counted(ctx)
		events := audit.Events(correlation(), 7)
		stored(ctx, events...)
		stored(ctx, events[:2]...)
		after := counted(ctx)
		Expect(after.Value("datastorage_events_total", "result", "stored") - before.Value("datastorage_events_total", "result", "stored")).To(BeEquivalentTo(7))
		Expect(after.Value("datastorage_events_total", "result", "duplicate") - before.Value("datastorage_events_total", "result", "duplicate")).To(BeEquivalentTo(2))
	})
})
