package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// limitBytes is the largest body that the Gateway takes.
const limitBytes = 2 << 20

// sized is an alert as a body of exactly this many bytes.
func sized(ns *workloads.Namespace, bytes int) []byte {
	GinkgoHelper()
	firing := alert(ns)
	firing.Annotations["description"] = ""
	firing.Annotations["description"] = strings.Repeat("x", (bytes-len(must(json.Marshal(signals.Notify(firing)))))/2)
	body := must(json.Marshal(signals.Notify(firing)))
	return append(body, strings.Repeat(" ", bytes-len(body))...)
}

var _ = Describe("A body", func() {
	DescribeTable("is refused when it is", func(ctx SpecContext, path, body, slug, detail string) {
		response := must(gateway.Post(ctx, path, []byte(body), signals.Timestamp(0)))
		Expect(response).To(BeProblem(http.StatusBadRequest, slug))
		Expect(response.Problem().Detail).To(ContainSubstring(detail))
		Expect(response.Problem().Instance).To(Equal(path))
	},
		Entry("empty", SpecTimeout(brief), signals.PrometheusPath, "", malformed, "empty"),
		Entry("an empty event", SpecTimeout(brief), signals.EventPath, "", malformed, "empty"),
		Entry("not JSON", SpecTimeout(brief), signals.PrometheusPath, "alertname=Down", malformed, "byte"),
		Entry("cut off", SpecTimeout(brief), signals.PrometheusPath, `{"alerts":[{"labels":{"alertname":"Down"`, malformed, "byte"),
		Entry("a cut off event", SpecTimeout(brief), signals.EventPath, `{"type":"Warning","reason":`, malformed, "byte"),
		Entry("followed by more", SpecTimeout(brief), signals.PrometheusPath, `{"alerts":[]} {"alerts":[]}`, malformed, "byte"),
		Entry("no object", SpecTimeout(brief), signals.PrometheusPath, `["alert"]`, malformed, "object"),
		Entry("null", SpecTimeout(brief), signals.PrometheusPath, `null`, badSignal, "alerts"),
		Entry("without alerts", SpecTimeout(brief), signals.PrometheusPath, `{"version":"4"}`, badSignal, "alerts"),
		Entry("with no alert in it", SpecTimeout(brief), signals.PrometheusPath, `{"version":"4","alerts":[]}`, badSignal, "alerts"),
		Entry("of the wrong types", SpecTimeout(brief), signals.PrometheusPath, `{"alerts":"many"}`, badSignal, "alerts"),
		Entry("of labels that are no texts", SpecTimeout(brief), signals.PrometheusPath, `{"alerts":[{"labels":{"alertname":7}}]}`, badSignal, "labels"),
		Entry("nested without end", SpecTimeout(brief), signals.PrometheusPath, strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000), malformed, "nested"),
		Entry("an alert with a start that is no time", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[{"labels":{"alertname":"Down","pod":"app"},"startsAt":"yesterday"}]}`, badSignal, "startsAt"),
		Entry("an alert with a status that Alertmanager has not", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[{"status":"pending","labels":{"alertname":"Down","pod":"app"}}]}`, badSignal, "status"),
		Entry("with more alerts than one webhook may hold", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[`+strings.Repeat("{},", 2000)+`{}]}`, badSignal, "max_alerts"),
		Entry("with a key that is known written twice, in two cases", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[{"labels":{"alertname":"Down"}}],"Alerts":[{"labels":{"pod":"victim"}}]}`, malformed, "twice"),
		Entry("an alert with a severity without end", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[{"labels":{"alertname":"Down","pod":"app","severity":"`+strings.Repeat("s", 51)+`"}}]}`, badSignal, "severity"),
		Entry("an alert of a cluster with a name without end", SpecTimeout(brief), signals.PrometheusPath,
			`{"commonLabels":{"cluster":"`+strings.Repeat("c", 254)+`"},"alerts":[{"labels":{"alertname":"Down","pod":"app"}}]}`, badSignal, "cluster"),
		Entry("an alert with a NUL in a label", SpecTimeout(brief), signals.PrometheusPath,
			`{"alerts":[{"labels":{"alertname":"Down","pod":"app","note":"\u0000"}}]}`, badSignal, "NUL"),
		Entry("an event with a time that is none", SpecTimeout(brief), signals.EventPath,
			`{"type":"Warning","reason":"BackOff","involvedObject":{"kind":"Pod","namespace":"shop","name":"app"},"lastTimestamp":"noon"}`, badSignal, "lastTimestamp"),
		Entry("an event about a kind that the cluster has not", SpecTimeout(brief), signals.EventPath,
			`{"type":"Warning","reason":"BackOff","involvedObject":{"apiVersion":"example.org/v1","kind":"Dragon","name":"app"}}`, badSignal, "Dragon of example.org/v1"),
		Entry("an envelope around an event", SpecTimeout(brief), signals.EventPath,
			`{"type":"ADDED","object":{"type":"Warning","reason":"BackOff","involvedObject":{"kind":"Pod","name":"app"}}}`, badSignal, "object"),
		Entry("an event about a kind without an API", SpecTimeout(brief), signals.EventPath,
			`{"type":"Warning","reason":"BackOff","involvedObject":{"kind":"Dragon","name":"app"}}`, badSignal, "involvedObject.kind"),
		Entry("with a key written twice", SpecTimeout(brief), signals.EventPath, `{"type":"Warning","type":"Normal"}`, malformed, "twice"),
	)

	It("is refused when an alert has no name", SpecTimeout(brief), func(ctx SpecContext) {
		response := send(ctx, alert(workload(ctx), "alertname", ""))
		Expect(response).To(BeProblem(http.StatusBadRequest, badSignal))
		Expect(response.Problem().Detail).To(ContainSubstring("alertname"))
	})

	It("is refused when a name is longer than Kubernetes takes", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(send(ctx, alert(workload(ctx), "alertname", strings.Repeat("A", 254)))).To(BeProblem(http.StatusBadRequest, badSignal))
	})

	DescribeTable("is about nothing when", func(ctx SpecContext, label, value string) {
		ns := workload(ctx)
		Expect(send(ctx, alert(ns, label, value))).To(beRejectedFor(noObject))
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	},
		Entry("a target's name could not be one", SpecTimeout(brief), "deployment", "../../etc/passwd;rm -rf $HOME"),
		Entry("a namespace's name could not be one", SpecTimeout(brief), "namespace", "No Such"),
	)

	It("is refused without telling of the inside", SpecTimeout(brief), func(ctx SpecContext) {
		response := must(gateway.Post(ctx, signals.PrometheusPath, []byte(`{"alerts":{}}`)))
		Expect(string(response.Body)).NotTo(Or(ContainSubstring("Go "), ContainSubstring(".go:"), ContainSubstring("struct"), ContainSubstring("goroutine")))
	})

	It("is taken at the limit of 2 MiB", SpecTimeout(broken), func(ctx SpecContext) {
		storm := copies(19, alert(workload(ctx)))
		for i := range storm {
			storm[i].Annotations = map[string]string{"description": strings.Repeat(string(rune('a'+i)), 100<<10)}
		}
		body := must(json.Marshal(signals.Notify(storm...)))
		body = append(body, strings.Repeat(" ", limitBytes-len(body))...)
		response := must(gateway.Post(ctx, signals.PrometheusPath, body))
		Expect(response).To(HaveStatus(http.StatusMultiStatus))
		Expect(response.Summary.Created + response.Summary.Deduplicated).To(Equal(len(storm)))
	})

	It("with one alert is taken up to what the cluster stores", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(gateway.Post(ctx, signals.PrometheusPath, sized(workload(ctx), 256<<10)))).To(HaveStatus(http.StatusCreated))
		large := alert(workload(ctx))
		for _, name := range []string{"a", "b", "c", "d"} {
			large.Annotations[name] = strings.Repeat("x", 200<<10)
		}
		Expect(must(gateway.Alerts(ctx, large))).To(BeProblem(http.StatusRequestEntityTooLarge, "payload-too-large"))
	})

	DescribeTable("is refused one byte above the limit,", func(ctx SpecContext, options ...signals.Option) {
		ns := workload(ctx)
		response := must(gateway.Post(ctx, signals.PrometheusPath, sized(ns, limitBytes+1), options...))
		Expect(response).To(BeProblem(http.StatusRequestEntityTooLarge, "payload-too-large"))
		Expect(response.Problem().Detail).To(ContainSubstring("max_alerts"), "the sender is told what to do")
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	},
		Entry("with its length", SpecTimeout(brief)),
		Entry("in chunks", SpecTimeout(brief), signals.Option(signals.Chunked)),
	)

	DescribeTable("is refused as", func(ctx SpecContext, media string) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Header("Content-Type", media)))
		Expect(response).To(BeProblem(http.StatusUnsupportedMediaType, "unsupported-media-type"))
		Expect(response.Header.Get("Accept")).To(ContainSubstring("application/json"))
	},
		Entry("text", SpecTimeout(brief), "text/plain"),
		Entry("a form", SpecTimeout(brief), "application/x-www-form-urlencoded"),
		Entry("XML", SpecTimeout(brief), "application/xml"),
	)

	It("is refused when it is compressed", SpecTimeout(brief), func(ctx SpecContext) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Header("Content-Encoding", "gzip")))
		Expect(response).To(BeProblem(http.StatusUnsupportedMediaType, "unsupported-media-type"))
		Expect(response.Header.Get("Accept-Encoding")).To(Equal("identity"))
	})

	DescribeTable("is taken as", func(ctx SpecContext, media string) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Header("Content-Type", media)))
		Expect(response).To(HaveStatus(http.StatusCreated))
	},
		Entry("JSON with a character set", SpecTimeout(brief), "application/json; charset=utf-8"),
		Entry("nothing in particular", SpecTimeout(brief), ""),
	)
})

var _ = Describe("A request", func() {
	DescribeTable("for a path that nothing serves is 404:", func(ctx SpecContext, path string) {
		response := must(gateway.Post(ctx, path, []byte(`{}`)))
		Expect(response).To(BeProblem(http.StatusNotFound, "not-found"))
		Expect(response.Problem().Instance).To(Equal(path))
	},
		Entry("none", SpecTimeout(brief), "/"),
		Entry("another version", SpecTimeout(brief), "/api/v2/signals/prometheus"),
		Entry("another source", SpecTimeout(brief), "/api/v1/signals/carrier-pigeon"),
		Entry("the metrics of another port", SpecTimeout(brief), "/metrics"),
	)

	DescribeTable("with another method than POST is 405:", func(ctx SpecContext, method string) {
		response := must(gateway.Do(ctx, method, signals.PrometheusPath, nil))
		Expect(response).To(BeProblem(http.StatusMethodNotAllowed, "method-not-allowed"))
		Expect(response.Header.Get("Allow")).To(ContainSubstring(http.MethodPost))
	},
		Entry("GET", SpecTimeout(brief), http.MethodGet),
		Entry("PUT", SpecTimeout(brief), http.MethodPut),
		Entry("DELETE", SpecTimeout(brief), http.MethodDelete),
	)
})
