package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/metrics"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// counted scrapes the Gateway.
func counted(ctx context.Context) metrics.Snapshot {
	GinkgoHelper()
	return must(metrics.Scrape(ctx, opsClient, metricsAt))
}

var _ = Describe("The Gateway's metrics", func() {
	DescribeTable("know from the start", func(ctx SpecContext, name string) {
		Expect(counted(ctx).Has(name)).To(BeTrue())
	},
		Entry("signals received", SpecTimeout(brief), "gateway_signals_received_total"),
		Entry("signals deduplicated", SpecTimeout(brief), "gateway_signals_deduplicated_total"),
		Entry("signals rejected", SpecTimeout(brief), "gateway_signals_rejected_total"),
		Entry("requests created", SpecTimeout(brief), "gateway_crds_created_total"),
		Entry("requests that could not be", SpecTimeout(brief), "gateway_crd_creation_errors_total"),
		Entry("how long answers take", SpecTimeout(brief), "gateway_http_request_duration_seconds"),
		Entry("the circuit breaker", SpecTimeout(brief), "gateway_circuit_breaker_state"),
		Entry("searches for owners", SpecTimeout(brief), "gateway_owner_resolution_total"),
		Entry("alerts left out", SpecTimeout(brief), "gateway_alerts_truncated_total"),
		Entry("audit events given up", SpecTimeout(brief), "audit_events_dropped_total"),
		Entry("the Go runtime", SpecTimeout(brief), "go_goroutines"),
		Entry("the process", SpecTimeout(brief), "process_cpu_seconds_total"),
	)

	It("hold nothing that a sender wrote", SpecTimeout(brief), func(ctx SpecContext) {
		mark := uniqueName("mark")
		ns := workload(ctx)
		Expect(send(ctx, alert(ns, "severity", mark, "alertname", mark, "team", mark))).To(HaveStatus(http.StatusCreated))
		must(gateway.Do(ctx, "X"+strings.ToUpper(strings.ReplaceAll(mark, "-", "")), "/"+mark, nil))
		Expect(counted(ctx).LabelValues()).NotTo(ContainElement(Or(ContainSubstring(mark), ContainSubstring(ns.Name),
			ContainSubstring(strings.ToUpper(strings.ReplaceAll(mark, "-", ""))))))
	})
})

// Serial because nobody else may send while these count.
var _ = Describe("The Gateway counts", Serial, func() {
	DescribeTable("exactly", func(ctx SpecContext, name string, labels []string, want int, do func(SpecContext)) {
		before := counted(ctx)
		do(ctx)
		Expect(counted(ctx).Value(name, labels...) - before.Value(name, labels...)).To(BeEquivalentTo(want))
	},
		Entry("the alerts of a batch", SpecTimeout(brief), "gateway_signals_received_total", []string{"source_type", "prometheus", "severity", "critical"}, 3, func(ctx SpecContext) {
			ns := workload(ctx)
			send(ctx, copies(3, alert(ns))...)
		}),
		Entry("events", SpecTimeout(brief), "gateway_signals_received_total", []string{"source_type", "kubernetes-events"}, 1, func(ctx SpecContext) {
			must(gateway.Event(ctx, signals.Warning("BackOff", deployment(workload(ctx)))))
		}),
		Entry("new problems", SpecTimeout(brief), "gateway_crds_created_total", []string{"status", "created"}, 2, func(ctx SpecContext) {
			created(ctx, alert(workload(ctx)))
			created(ctx, alert(workload(ctx)))
		}),
		Entry("duplicates", SpecTimeout(brief), "gateway_signals_deduplicated_total", nil, 4, func(ctx SpecContext) {
			ns := workload(ctx)
			send(ctx, copies(5, alert(ns))...)
		}),
		Entry("what is unmanaged", SpecTimeout(brief), "gateway_signals_rejected_total", []string{"reason", "unmanaged_resource"}, 1, func(ctx SpecContext) {
			ns := namespace(ctx)
			must(ns.Deployment(ctx, "app"))
			send(ctx, alert(ns))
		}),
		Entry("what is about no object", SpecTimeout(brief), "gateway_signals_rejected_total", []string{"reason", noObject}, 1, func(ctx SpecContext) {
			send(ctx, signals.Firing("Watchdog"))
		}),
		Entry("what is about an object that is gone", SpecTimeout(brief), "gateway_signals_rejected_total", []string{"reason", noSuchObject}, 1, func(ctx SpecContext) {
			send(ctx, alert(workload(ctx), "deployment", "ghost"))
		}),
		Entry("alerts that a sender has left out", SpecTimeout(brief), "gateway_alerts_truncated_total", nil, 7, func(ctx SpecContext) {
			webhook := signals.Notify(alert(workload(ctx)))
			webhook.TruncatedAlerts = 7
			Expect(must(gateway.Webhook(ctx, webhook)).Truncated).To(Equal(7))
		}),
		Entry("answers by their code", SpecTimeout(brief), "gateway_http_request_duration_seconds", []string{"status", "401"}, 2, func(ctx SpecContext) {
			must(gateway.As("").Alerts(ctx, signals.Firing("Down")))
			must(gateway.As("").Alerts(ctx, signals.Firing("Down")))
		}),
		Entry("searches for owners", SpecTimeout(brief), "gateway_owner_resolution_total", []string{"kind", "Deployment"}, 1, func(ctx SpecContext) {
			created(ctx, alert(workload(ctx)))
		}),
	)
})

// logged returns the Gateway's log once it tells of what was answered: an answer arrives
// before the line about it is where the kubelet reads.
func logged(ctx context.Context, answered ...*signals.Response) (log string) {
	GinkgoHelper()
	for _, response := range answered {
		Eventually(func(ctx context.Context) (string, error) {
			lines, err := kube.Logs(ctx, "gateway")
			log = strings.Join(lines, "\n")
			return log, err
		}).WithContext(ctx).Should(ContainSubstring(response.RequestID()))
	}
	return log
}

var _ = Describe("The Gateway's log", func() {
	It("is JSON with snake_case keys", SpecTimeout(brief), func(ctx SpecContext) {
		created(ctx, alert(workload(ctx)))
		for _, line := range must(kube.Logs(ctx, "gateway")) {
			var entry map[string]any
			Expect(json.Unmarshal([]byte(line), &entry)).To(Succeed(), line)
			for key := range entry {
				Expect(key).To(MatchRegexp(`^[a-z][a-z0-9_]*$`), line)
			}
		}
	})

	It("names the request on each of its lines, with its code and duration", SpecTimeout(brief), func(ctx SpecContext) {
		response := created(ctx, alert(workload(ctx)))
		Eventually(func(ctx SpecContext) ([]string, error) { return kube.Logs(ctx, "gateway") }).WithContext(ctx).Should(ContainElement(And(
			ContainSubstring(`"request_id":"`+response.RequestID()+`"`), ContainSubstring(`"status":201`), ContainSubstring(signals.PrometheusPath))))
	})

	It("holds no payload", SpecTimeout(brief), func(ctx SpecContext) {
		mark := uniqueName("payload")
		response := created(ctx, alert(workload(ctx), "secret", mark))
		Expect(logged(ctx, response)).NotTo(ContainSubstring(mark))
	})
})
