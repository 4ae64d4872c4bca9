package gateway_test

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
)

var _ = Describe("The Gateway", func() {
	It("lives", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(get(ctx, "http://"+healthAt+"/healthz"))).To(HaveStatus(http.StatusOK))
	})

	It("is ready", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(ready(ctx))).To(HaveStatus(http.StatusOK))
	})

	It("says so without a token, and nothing else", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(get(ctx, "http://"+healthAt+"/metrics"))).To(HaveStatus(http.StatusNotFound))
		Expect(must(get(ctx, "http://"+healthAt+"/api/v1/signals/prometheus"))).To(HaveStatus(http.StatusNotFound))
	})

	It("shows its metrics on their own port only", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(get(ctx, "http://"+metricsAt+"/metrics"))).To(HaveStatus(http.StatusOK))
		Expect(must(get(ctx, "http://"+metricsAt+"/healthz"))).To(HaveStatus(http.StatusNotFound))
	})
})
