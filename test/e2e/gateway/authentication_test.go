package gateway_test

import (
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/signals"
)

var _ = Describe("A sender", func() {
	DescribeTable("is not let in with", func(ctx SpecContext, authorization string) {
		ns := workload(ctx)
		response := must(gateway.Webhook(ctx, signals.Notify(alert(ns)), signals.Header("Authorization", authorization)))
		Expect(response).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
		Expect(response.Header.Get("WWW-Authenticate")).To(ContainSubstring("Bearer"))
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	},
		Entry("no token", SpecTimeout(brief), ""),
		Entry("an empty token", SpecTimeout(brief), "Bearer "),
		Entry("something that is no token", SpecTimeout(brief), "Bearer not-a-token"),
		Entry("a user and password", SpecTimeout(brief), "Basic YWRtaW46YWRtaW4="),
		Entry("a token that nobody signed", SpecTimeout(brief), "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."),
	)

	It("is not let in with a token that has expired", SpecTimeout(brief), func(ctx SpecContext) {
		expired := must(cluster.Expire(run.Tokens["sender"], must(world.SigningKey(ctx))))
		Expect(must(gateway.As(expired).Alerts(ctx, alert(workload(ctx))))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is not let in with a token for another audience", SpecTimeout(brief), func(ctx SpecContext) {
		foreign := must(kube.Token(ctx, run.Name("sender"), "https://elsewhere.example.org"))
		Expect(must(gateway.As(foreign).Alerts(ctx, alert(workload(ctx))))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is not let in with a token for the API server", SpecTimeout(brief), func(ctx SpecContext) {
		own := must(kube.Token(ctx, run.Name("sender")))
		Expect(must(gateway.As(own).Alerts(ctx, alert(workload(ctx))))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is not let in with a token whose account is gone", SpecTimeout(brief), func(ctx SpecContext) {
		name := uniqueName("gone")
		token := must(run.Account(ctx, kube, name, "gateway-signal-sender"))
		Expect(kube.Remove(ctx, run.Name(name))).To(Succeed())
		Expect(must(gateway.As(token).Alerts(ctx, alert(workload(ctx))))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is let in by its Role", SpecTimeout(brief), func(ctx SpecContext) {
		token := must(run.Account(ctx, kube, uniqueName("allowed"), "gateway-signal-sender"))
		Expect(kube.AwaitAccess(ctx, token, "create", "gateway-service")).To(Succeed())
		Expect(must(gateway.As(token).Alerts(ctx, alert(workload(ctx))))).To(HaveStatus(http.StatusCreated))
	})

	It("is refused without the permission", SpecTimeout(brief), func(ctx SpecContext) {
		token := must(run.Account(ctx, kube, uniqueName("denied")))
		ns := workload(ctx)
		Expect(must(gateway.As(token).Alerts(ctx, alert(ns)))).To(BeProblem(http.StatusForbidden, "forbidden"))
		Expect(remediations(ctx, identity(ns))).To(BeEmpty())
	})

	It("is refused with the permission to read only", SpecTimeout(brief), func(ctx SpecContext) {
		name := uniqueName("reader")
		Expect(kube.Role(ctx, run.Name(name), run.Run, "get", "gateway-service")).To(Succeed())
		token := must(run.Account(ctx, kube, name, run.Name(name)))
		Expect(must(gateway.As(token).Alerts(ctx, alert(workload(ctx))))).To(BeProblem(http.StatusForbidden, "forbidden"))
	})

	It("is let in some seconds after it was given the permission", SpecTimeout(brief), func(ctx SpecContext) {
		name, ns := uniqueName("later"), workload(ctx)
		sender := gateway.As(must(run.Account(ctx, kube, name)))
		Expect(must(sender.Alerts(ctx, alert(ns)))).To(HaveStatus(http.StatusForbidden))
		Expect(kube.Allow(ctx, run.Name(name), "gateway-signal-sender", run.Run)).To(Succeed())
		Eventually(func(ctx SpecContext) (*signals.Response, error) { return sender.Alerts(ctx, alert(ns)) }).
			WithContext(ctx).Should(HaveStatus(http.StatusCreated), "a refusal is remembered for two seconds")
	})

	It("is refused some seconds after it lost the permission", SpecPriority(first), SpecTimeout(brief), func(ctx SpecContext) {
		name, ns := uniqueName("lost"), workload(ctx)
		sender := gateway.As(must(run.Account(ctx, kube, name, "gateway-signal-sender")))
		Expect(kube.AwaitAccess(ctx, sender.Token, "create", "gateway-service")).To(Succeed())
		Expect(must(sender.Alerts(ctx, alert(ns)))).To(HaveStatus(http.StatusCreated))
		Expect(kube.Deny(ctx, run.Name(name), "gateway-signal-sender")).To(Succeed())
		Eventually(func(ctx SpecContext) (*signals.Response, error) { return sender.Alerts(ctx, alert(ns)) }).
			WithContext(ctx).WithTimeout(brief).Should(HaveStatus(http.StatusForbidden), "a permission is remembered for five seconds")
	})

	DescribeTable("cannot pass for somebody else by the header", func(ctx SpecContext, header string) {
		token := must(run.Account(ctx, kube, uniqueName("liar")))
		response := must(gateway.As(token).Webhook(ctx, signals.Notify(alert(workload(ctx))),
			signals.Header(header, "system:serviceaccount:"+kube.Target.Namespace+":"+run.Name("sender"))))
		Expect(response).To(BeProblem(http.StatusForbidden, "forbidden"))
	},
		Entry("Impersonate-User", SpecTimeout(brief), "Impersonate-User"),
		Entry("X-Auth-Request-User", SpecTimeout(brief), "X-Auth-Request-User"),
	)

	It("is the actor of the audit events, whatever its headers say", SpecTimeout(brief), func(ctx SpecContext) {
		response := must(gateway.Webhook(ctx, signals.Notify(alert(workload(ctx))), signals.Header("X-Auth-Request-User", "somebody-else")))
		Eventually(events.Of).WithContext(ctx).WithArguments(response.Name).Should(ContainElement(
			HaveField("ActorID", HaveValue(Equal("system:serviceaccount:"+kube.Target.Namespace+":"+run.Name("sender"))))))
	})

	It("never finds its token in the Gateway's log", SpecTimeout(brief), func(ctx SpecContext) {
		response := created(ctx, alert(workload(ctx)))
		refused := must(gateway.As("not-a-token-but-a-secret").Alerts(ctx, alert(workload(ctx))))
		log := logged(ctx, response, refused)
		signature := run.Tokens["sender"][strings.LastIndex(run.Tokens["sender"], ".")+1:]
		Expect(strings.Contains(log, signature)).To(BeFalse(), "the log holds the token's signature")
		Expect(strings.Contains(log, "not-a-token-but-a-secret")).To(BeFalse(), "the log holds a refused token")
	})
})
