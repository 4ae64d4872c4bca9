package datastorage_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
)

// ids are the event ids, in order.
func ids(events []client.EventRequest) []string {
	all := make([]string, len(events))
	for i := range events {
		all[i] = events[i].EventID.String()
	}
	return all
}

// answered are the ids that a batch was answered with.
func answered(answer *Answer) []string {
	GinkgoHelper()
	var body struct {
		EventIDs []string `json:"event_ids"`
	}
	Expect(answer.Decode(&body)).To(Succeed())
	return body.EventIDs
}

// found are the ids of the events of a chain, in their order.
func found(ctx context.Context, correlationID string) ([]string, error) {
	events, err := storage.Of(ctx, correlationID)
	all := make([]string, len(events))
	for i := range events {
		all[i] = events[i].EventID.String()
	}
	return all, err
}

var _ = Describe("An event", func() {
	It("is stored and answered with its id and time", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		answer := must(storage.Write(ctx, event))
		Expect(answer).To(HaveStatus(http.StatusCreated))
		var created client.EventCreated
		Expect(answer.Decode(&created)).To(Succeed())
		Expect(created.EventID).To(Equal(*event.EventID))
		Expect(created.EventTimestamp).To(BeTemporally("==", event.EventTimestamp))
	})

	It("is found by its id as it was written", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.EventData = json.RawMessage(`{"text":"żółć 🔥","number":12345678901234567890,"nested":{"list":[1,null,true]}}`)
		stored(ctx, event)
		response := must(storage.Client.GetEventWithResponse(ctx, *event.EventID))
		Expect(response.StatusCode()).To(Equal(http.StatusOK))
		Expect(*response.JSON200).To(MatchFields(IgnoreExtras, Fields{
			"EventID": Equal(*event.EventID), "Version": Equal("1.0"), "EventType": Equal("suite.event.written"), "EventCategory": Equal("suite"),
			"EventAction": Equal("written"), "EventOutcome": Equal(event.EventOutcome), "CorrelationID": Equal(event.CorrelationID),
			"EventTimestamp": BeTemporally("==", event.EventTimestamp), "ChainPosition": BeEquivalentTo(1),
		}))
		Expect(response.JSON200.EventData).To(MatchJSON(event.EventData))
		Expect(string(response.JSON200.EventData)).To(ContainSubstring("12345678901234567890"), "a number keeps all its digits")
	})

	It("keeps everything that is optional", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.ActorType, event.ActorID, event.ResourceType, event.ResourceID = new("user"), new("jane"), new("Pod"), new("app-0")
		event.Namespace, event.ClusterID, event.Severity, event.DurationMs = new("shop"), new("prod"), new("critical"), new(int64(1234))
		event.ErrorCode, event.ErrorMessage, event.ParentEventID = new("E42"), new("it broke"), new(uuid.New())
		stored(ctx, event)
		Expect(must(storage.Of(ctx, event.CorrelationID))).To(ConsistOf(MatchFields(IgnoreExtras, Fields{
			"ActorType": HaveValue(Equal("user")), "ActorID": HaveValue(Equal("jane")), "ResourceType": HaveValue(Equal("Pod")), "ResourceID": HaveValue(Equal("app-0")),
			"Namespace": HaveValue(Equal("shop")), "ClusterID": HaveValue(Equal("prod")), "Severity": HaveValue(Equal("critical")), "DurationMs": HaveValue(BeEquivalentTo(1234)),
			"ErrorCode": HaveValue(Equal("E42")), "ErrorMessage": HaveValue(Equal("it broke")), "ParentEventID": Equal(event.ParentEventID),
		})))
	})

	It("is given an id when it has none", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.EventID = nil
		var created client.EventCreated
		Expect(must(storage.Write(ctx, event)).Decode(&created)).To(Succeed())
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(created.EventID.String()))
	})

	It("is stored once however often it is sent", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		for range 3 {
			Expect(must(storage.Write(ctx, event))).To(HaveStatus(http.StatusCreated))
		}
		stored(ctx, event, event)
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
	})

	It("is stored once when many send it at the same time", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		var senders errgroup.Group
		for range 20 {
			senders.Go(func() error {
				answer, err := storage.Write(ctx, event)
				if err == nil && answer.Code != http.StatusCreated {
					err = fmt.Errorf("%s", answer)
				}
				return err
			})
		}
		Expect(senders.Wait()).To(Succeed())
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
		Expect(must(storage.Verify(ctx, event.CorrelationID)).Valid).To(BeTrue())
	})
})

var _ = Describe("A batch", func() {
	DescribeTable("is stored in its order when it holds", func(ctx SpecContext, n int) {
		events := audit.Events(correlation(), n)
		answer := must(storage.WriteAll(ctx, events))
		Expect(answer).To(HaveStatus(http.StatusCreated))
		Expect(answered(answer)).To(Equal(ids(events)))
		Expect(must(found(ctx, events[0].CorrelationID))).To(Equal(ids(events)))
	},
		Entry("one event", SpecTimeout(brief), 1),
		Entry("two", SpecTimeout(brief), 2),
		Entry("the 500 that are allowed", SpecTimeout(brief), 500),
	)

	DescribeTable("is refused when it holds", func(ctx SpecContext, n int) {
		events := audit.Events(correlation(), n)
		Expect(must(storage.WriteAll(ctx, events))).To(BeProblem(http.StatusBadRequest, badRequest))
	},
		Entry("nothing", SpecTimeout(brief), 0),
		Entry("one more than is allowed", SpecTimeout(brief), 501),
	)

	DescribeTable("is refused as a whole when one event is at fault, which it names, by", func(ctx SpecContext, field string, spoil func(*client.EventRequest)) {
		events := audit.Events(correlation(), 5)
		spoil(&events[3])
		answer := must(storage.WriteAll(ctx, events))
		Expect(answer).To(BeProblem(http.StatusBadRequest, badRequest))
		var problem client.Problem
		Expect(answer.Decode(&problem)).To(Succeed())
		Expect(problem.Index).To(HaveValue(Equal(3)))
		Expect(problem.Path).To(HaveValue(ContainSubstring(field)))
		Expect(must(found(ctx, events[0].CorrelationID))).To(BeEmpty())
	},
		Entry("its outcome", SpecTimeout(brief), "event_outcome", func(e *client.EventRequest) { e.EventOutcome = "maybe" }),
		Entry("its time", SpecTimeout(brief), "event_timestamp", func(e *client.EventRequest) { e.EventTimestamp = time.Now().Add(-8 * 24 * time.Hour) }),
	)

	It("may mix many chains", SpecTimeout(brief), func(ctx SpecContext) {
		one, two := correlation(), correlation()
		events := append(audit.Events(one, 10), audit.Events(two, 10)...)
		stored(ctx, events...)
		Expect(must(found(ctx, one))).To(Equal(ids(events[:10])))
		Expect(must(found(ctx, two))).To(Equal(ids(events[10:])))
	})

	It("is taken up to 5 MiB", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.EventData = must(json.Marshal(map[string]string{"text": strings.Repeat("x", 5<<20-2000)}))
		// A machine that has other work may take longer over it than anybody waits; then it is queued.
		Expect(must(storage.Write(ctx, event))).To(Or(HaveStatus(http.StatusCreated), HaveStatus(http.StatusAccepted)))
		Eventually(found).WithContext(ctx).WithArguments(event.CorrelationID).Should(ConsistOf(event.EventID.String()))
	})

	It("is refused beyond", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.EventData = must(json.Marshal(map[string]string{"text": strings.Repeat("x", 5<<20)}))
		Expect(must(storage.Write(ctx, event))).To(BeProblem(http.StatusRequestEntityTooLarge, "payload-too-large"))
	})
})

var _ = Describe("An event's time", func() {
	DescribeTable("is taken when it lies", func(ctx SpecContext, offset time.Duration) {
		event := audit.NewEvent(correlation())
		event.EventTimestamp = time.Now().Add(offset)
		Expect(must(storage.Write(ctx, event))).To(HaveStatus(http.StatusCreated))
	},
		Entry("almost seven days back", SpecTimeout(brief), -7*24*time.Hour+time.Minute),
		Entry("almost an hour ahead", SpecTimeout(brief), 59*time.Minute),
	)

	DescribeTable("is refused when it lies", func(ctx SpecContext, offset time.Duration) {
		event := audit.NewEvent(correlation())
		event.EventTimestamp = time.Now().Add(offset)
		answer := must(storage.Write(ctx, event))
		Expect(answer).To(BeProblem(http.StatusBadRequest, badRequest))
		Expect(answer.Problem().Detail).To(ContainSubstring("event_timestamp"))
	},
		Entry("more than seven days back", SpecTimeout(brief), -7*24*time.Hour-time.Minute),
		Entry("more than an hour ahead", SpecTimeout(brief), 61*time.Minute),
	)
})

var _ = Describe("A body", func() {
	// changed is an event whose JSON is changed by hand.
	changed := func(change func(map[string]any)) []byte {
		var fields map[string]any
		Expect(json.Unmarshal(must(json.Marshal(audit.NewEvent(correlation()))), &fields)).To(Succeed())
		change(fields)
		return must(json.Marshal(fields))
	}

	DescribeTable("is refused without", func(ctx SpecContext, field string) {
		answer := must(storage.Post(ctx, audit.EventsPath, changed(func(fields map[string]any) { delete(fields, field) })))
		Expect(answer).To(BeProblem(http.StatusBadRequest, badRequest))
		Expect(string(answer.Body)).To(ContainSubstring(field))
	},
		Entry("version", SpecTimeout(brief), "version"),
		Entry("event_type", SpecTimeout(brief), "event_type"),
		Entry("event_timestamp", SpecTimeout(brief), "event_timestamp"),
		Entry("event_category", SpecTimeout(brief), "event_category"),
		Entry("event_action", SpecTimeout(brief), "event_action"),
		Entry("event_outcome", SpecTimeout(brief), "event_outcome"),
		Entry("correlation_id", SpecTimeout(brief), "correlation_id"),
		Entry("event_data", SpecTimeout(brief), "event_data"),
	)

	DescribeTable("is refused, with the path of the fault, when", func(ctx SpecContext, field string, value any) {
		answer := must(storage.Post(ctx, audit.EventsPath, changed(func(fields map[string]any) { fields[field] = value })))
		Expect(answer).To(BeProblem(http.StatusBadRequest, badRequest))
		Expect(string(answer.Body)).To(ContainSubstring(field))
	},
		Entry("the type is too long", SpecTimeout(brief), "event_type", strings.Repeat("x", 101)),
		Entry("the action is too long", SpecTimeout(brief), "event_action", strings.Repeat("x", 51)),
		Entry("the correlation id is too long", SpecTimeout(brief), "correlation_id", strings.Repeat("x", 256)),
		Entry("the correlation id is empty", SpecTimeout(brief), "correlation_id", ""),
		Entry("the outcome is unknown", SpecTimeout(brief), "event_outcome", "maybe"),
		Entry("the time is none", SpecTimeout(brief), "event_timestamp", "yesterday"),
		Entry("the id is no UUID", SpecTimeout(brief), "event_id", "42"),
		Entry("the id is all zeros", SpecTimeout(brief), "event_id", uuid.Nil),
		Entry("the data has too many values", SpecTimeout(brief), "event_data", map[string]any{"list": make([]int, 100_001)}),
		Entry("the data is no object", SpecTimeout(brief), "event_data", []int{1, 2, 3}),
		Entry("a text is a number", SpecTimeout(brief), "event_type", 7),
		Entry("a duration is negative", SpecTimeout(brief), "duration_ms", -1),
		Entry("a field is unknown", SpecTimeout(brief), "colour", "green"),
	)

	It("may not have the id of an event that says something else", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		stored(ctx, event)
		event.EventOutcome = "failure"
		Expect(must(storage.WriteAll(ctx, []client.EventRequest{audit.NewEvent(event.CorrelationID), event}))).To(BeProblem(http.StatusConflict, "event-id-taken"))
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
	})

	It("may write a whole number in any form of JSON", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(storage.Post(ctx, audit.EventsPath, changed(func(fields map[string]any) { fields["duration_ms"] = json.RawMessage("1e3") })))).To(HaveStatus(http.StatusCreated))
	})

	DescribeTable("is refused when it is", func(ctx SpecContext, path, body, slug string) {
		Expect(must(storage.Post(ctx, path, []byte(body)))).To(BeProblem(http.StatusBadRequest, slug))
	},
		Entry("empty", SpecTimeout(brief), audit.EventsPath, "", malformed),
		Entry("not JSON", SpecTimeout(brief), audit.EventsPath, "event", malformed),
		Entry("cut off", SpecTimeout(brief), audit.EventsPath, `{"version":`, malformed),
		Entry("an array where one event is wanted", SpecTimeout(brief), audit.EventsPath, `[]`, badRequest),
		Entry("an object where a batch is wanted", SpecTimeout(brief), audit.BatchPath, `{}`, badRequest),
	)

	It("is refused as another type than JSON", SpecTimeout(brief), func(ctx SpecContext) {
		answer := must(storage.Post(ctx, audit.EventsPath, []byte("<event/>"), func(r *http.Request) { r.Header.Set("Content-Type", "application/xml") }))
		Expect(answer).To(BeProblem(http.StatusUnsupportedMediaType, "unsupported-media-type"))
	})

	It("is taken with the longest texts that are allowed", SpecTimeout(brief), func(ctx SpecContext) {
		body := changed(func(fields map[string]any) {
			fields["event_type"], fields["event_action"], fields["correlation_id"] = strings.Repeat("t", 100), strings.Repeat("a", 50), strings.Repeat("c", 219)+uuid.NewString()
		})
		Expect(must(storage.Post(ctx, audit.EventsPath, body))).To(HaveStatus(http.StatusCreated))
	})

	It("holds what would be SQL without harm", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation() + `'; DROP TABLE audit_events; --`)
		stored(ctx, event)
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
	})
})

// Serial because it takes what others need.
var _ = Describe("Callers that send slowly", Serial, func() {
	It("do not hold up the others", SpecTimeout(brief), func(ctx SpecContext) {
		for range 3 {
			slow := must((&tls.Dialer{Config: must(kube.TLS(ctx, service))}).
				DialContext(ctx, "tcp", strings.TrimPrefix(storage.URL, "https://")))
			DeferCleanup(slow.Close)
			must(fmt.Fprintf(slow, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
				audit.EventsPath, service, run.Tokens["both"], 5<<20))
		}
		soon, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		Expect(must(storage.Write(soon, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
	})
})
