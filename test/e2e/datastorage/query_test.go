package datastorage_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
)

// page reads one page of a chain.
func page(ctx context.Context, correlationID string, change func(*client.ListEventsParams)) *client.EventPage {
	GinkgoHelper()
	params := &client.ListEventsParams{CorrelationID: &correlationID}
	change(params)
	return must(storage.List(ctx, params))
}

// idsOf are the ids of a page's events, in order.
func idsOf(page *client.EventPage) []string {
	all := make([]string, len(page.Data))
	for i := range page.Data {
		all[i] = page.Data[i].EventID.String()
	}
	return all
}

var _ = Describe("A query", func() {
	DescribeTable("filters by", func(ctx SpecContext, mark func(*client.EventRequest), filter func(*client.ListEventsParams)) {
		events := audit.Events(correlation(), 3)
		mark(&events[1])
		stored(ctx, events...)
		found := page(ctx, events[0].CorrelationID, filter)
		Expect(idsOf(found)).To(ConsistOf(events[1].EventID.String()))
		Expect(found.Pagination.Total).To(BeEquivalentTo(1))
	},
		Entry("type", SpecTimeout(brief), func(e *client.EventRequest) { e.EventType = "suite.other" },
			func(p *client.ListEventsParams) { p.EventType = new("suite.other") }),
		Entry("category", SpecTimeout(brief), func(e *client.EventRequest) { e.EventCategory = "other" },
			func(p *client.ListEventsParams) { p.EventCategory = new("other") }),
		Entry("outcome", SpecTimeout(brief), func(e *client.EventRequest) { e.EventOutcome = "failure" },
			func(p *client.ListEventsParams) { p.EventOutcome = new(client.Outcome("failure")) }),
		Entry("severity", SpecTimeout(brief), func(e *client.EventRequest) { e.Severity = new("critical") },
			func(p *client.ListEventsParams) { p.Severity = new("critical") }),
		Entry("the earliest time", SpecTimeout(brief), func(e *client.EventRequest) { e.EventTimestamp = time.Now().Add(30 * time.Minute) },
			func(p *client.ListEventsParams) {
				p.Since = new(time.Now().Add(20 * time.Minute).Format(time.RFC3339))
			}),
		Entry("the latest time", SpecTimeout(brief), func(e *client.EventRequest) { e.EventTimestamp = time.Now().Add(-50 * time.Hour) },
			func(p *client.ListEventsParams) { p.Until = new("48h") }),
		Entry("the last days", SpecTimeout(brief), func(e *client.EventRequest) { e.EventTimestamp = time.Now().Add(-5 * 24 * time.Hour) },
			func(p *client.ListEventsParams) { p.Since, p.Until = new("6d"), new("4d") }),
		Entry("a date", SpecTimeout(brief), func(e *client.EventRequest) { e.EventTimestamp = time.Now().Add(-4 * 24 * time.Hour) },
			func(p *client.ListEventsParams) {
				day := time.Now().UTC().Add(-4 * 24 * time.Hour).Format(time.DateOnly)
				p.Since, p.Until = &day, &day
			}),
		Entry("everything at once", SpecTimeout(brief), func(e *client.EventRequest) {
			e.EventType, e.EventCategory, e.EventOutcome, e.Severity = "suite.all", "all", "pending", new("info")
		}, func(p *client.ListEventsParams) {
			p.EventType, p.EventCategory, p.EventOutcome, p.Severity, p.Since = new("suite.all"), new("all"), new(client.Outcome("pending")), new("info"), new("24h")
		}),
	)

	It("combines its filters with and", SpecTimeout(brief), func(ctx SpecContext) {
		events := audit.Events(correlation(), 2)
		events[0].EventType, events[1].Severity = "suite.other", new("critical")
		stored(ctx, events...)
		Expect(page(ctx, events[0].CorrelationID, func(p *client.ListEventsParams) {
			p.EventType, p.Severity = new("suite.other"), new("critical")
		}).Data).To(BeEmpty())
	})

	It("returns the newest first", SpecTimeout(brief), func(ctx SpecContext) {
		events := audit.Events(correlation(), 3)
		for i := range events {
			events[i].EventTimestamp = time.Now().Add(time.Duration([]int{-2, -1, -3}[i]) * time.Minute)
		}
		stored(ctx, events...)
		Expect(idsOf(page(ctx, events[0].CorrelationID, func(*client.ListEventsParams) {}))).
			To(Equal([]string{events[1].EventID.String(), events[0].EventID.String(), events[2].EventID.String()}))
	})

	It("returns an empty page when nothing matches", SpecTimeout(brief), func(ctx SpecContext) {
		found := page(ctx, correlation(), func(*client.ListEventsParams) {})
		Expect(found.Data).To(BeEmpty())
		Expect(found.Pagination).To(Equal(client.Pagination{Limit: 100}))
	})

	DescribeTable("is refused when", func(ctx SpecContext, name, value string) {
		answer := must(storage.Do(ctx, http.MethodGet, audit.EventsPath+"?"+name+"="+url.QueryEscape(value), nil))
		Expect(answer).To(BeProblem(http.StatusBadRequest, badRequest))
		Expect(string(answer.Body)).To(ContainSubstring(name))
	},
		Entry("the limit is 0", SpecTimeout(brief), "limit", "0"),
		Entry("the limit is more than 1000", SpecTimeout(brief), "limit", "1001"),
		Entry("the limit is no number", SpecTimeout(brief), "limit", "many"),
		Entry("the offset is negative", SpecTimeout(brief), "offset", "-1"),
		Entry("the outcome is unknown", SpecTimeout(brief), "event_outcome", "maybe"),
		Entry("the time is none", SpecTimeout(brief), "since", "yesterday"),
		Entry("the cursor was made up", SpecTimeout(brief), "cursor", "made-up"),
		Entry("a filter is misspelt", SpecTimeout(brief), "corelation_id", "rr-1"),
		Entry("a filter is empty", SpecTimeout(brief), "correlation_id", ""),
	)

	It("for an id that nobody wrote is 404", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(storage.Do(ctx, http.MethodGet, audit.EventsPath+"/"+uuid.NewString(), nil))).To(BeProblem(http.StatusNotFound, "event-not-found"))
	})

	It("for what is no id is refused", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(storage.Do(ctx, http.MethodGet, audit.EventsPath+"/42", nil))).To(BeProblem(http.StatusBadRequest, badRequest))
	})

	It("for a path that nothing serves is 404", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(storage.Do(ctx, http.MethodGet, "/api/v1/nothing", nil))).To(BeProblem(http.StatusNotFound, "not-found"))
	})

	It("with a method that is not served is 405", SpecTimeout(brief), func(ctx SpecContext) {
		answer := must(storage.Do(ctx, http.MethodDelete, audit.EventsPath, nil))
		Expect(answer).To(BeProblem(http.StatusMethodNotAllowed, "method-not-allowed"))
		Expect(answer.Header.Get("Allow")).To(And(ContainSubstring("GET"), ContainSubstring("POST")))
	})
})

var _ = Describe("Paging", func() {
	It("by offset covers everything once", SpecTimeout(brief), func(ctx SpecContext) {
		events := audit.Events(correlation(), 25)
		stored(ctx, events...)
		var all []string
		for offset := 0; offset < 25; offset += 10 {
			part := page(ctx, events[0].CorrelationID, func(p *client.ListEventsParams) { p.Limit, p.Offset = new(10), &offset })
			Expect(part.Pagination.Total).To(BeEquivalentTo(25))
			Expect(part.Pagination.HasMore).To(Equal(offset < 20))
			all = append(all, idsOf(part)...)
		}
		Expect(all).To(ConsistOf(ids(events)))
		Expect(all).To(HaveLen(25))
	})

	It("by cursor covers what was there once, while others write", SpecTimeout(brief), func(ctx SpecContext) {
		chain := correlation()
		events := audit.Events(chain, 40)
		for i := range 20 { // of one moment, so that pages end among them
			events[i].EventTimestamp = events[0].EventTimestamp
		}
		stored(ctx, events...)
		var all []string
		var cursor *string
		for {
			part := page(ctx, chain, func(p *client.ListEventsParams) { p.Limit, p.Cursor = new(7), cursor })
			all = append(all, idsOf(part)...)
			stored(ctx, audit.NewEvent(chain)) // newer than every page that is left
			if cursor = part.Pagination.NextCursor; cursor == nil {
				break
			}
		}
		Expect(all).To(HaveLen(40))
		Expect(all).To(ConsistOf(ids(events)))
	})

	It("by offset beyond the end is empty", SpecTimeout(brief), func(ctx SpecContext) {
		chain := correlation()
		stored(ctx, audit.Events(chain, 3)...)
		part := page(ctx, chain, func(p *client.ListEventsParams) { p.Offset = new(3) })
		Expect(part.Data).To(BeEmpty())
		Expect(part.Pagination).To(Equal(client.Pagination{Limit: 100, Offset: 3, Total: 3}))
	})

	It("cannot have a cursor and an offset", SpecTimeout(brief), func(ctx SpecContext) {
		chain := correlation()
		stored(ctx, audit.Events(chain, 3)...)
		first := page(ctx, chain, func(p *client.ListEventsParams) { p.Limit = new(1) })
		query := fmt.Sprintf("?correlation_id=%s&offset=1&cursor=%s", chain, url.QueryEscape(*first.Pagination.NextCursor))
		Expect(must(storage.Do(ctx, http.MethodGet, audit.EventsPath+query, nil))).To(BeProblem(http.StatusBadRequest, badRequest))
	})
})
