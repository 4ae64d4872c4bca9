package datastorage_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/cluster"
)

// account is a new account of the run that is bound to these Roles.
func account(ctx context.Context, name string, roles ...string) *audit.Trail {
	GinkgoHelper()
	return must(storage.As(must(run.Account(ctx, kube, name, roles...))))
}

var _ = Describe("A caller", func() {
	DescribeTable("is not let in with", func(ctx SpecContext, authorization string) {
		answer := must(storage.Do(ctx, http.MethodGet, audit.EventsPath, nil, func(r *http.Request) {
			r.Header.Set("Authorization", authorization)
		}))
		Expect(answer).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
		Expect(answer.Header.Get("WWW-Authenticate")).To(ContainSubstring("Bearer"))
	},
		Entry("an empty header", SpecTimeout(brief), ""),
		Entry("something that is no token", SpecTimeout(brief), "Bearer not-a-token"),
		Entry("a user and password", SpecTimeout(brief), "Basic YWRtaW46YWRtaW4="),
	)

	It("is not let in without a token", SpecTimeout(brief), func(ctx SpecContext) {
		anonymous := must(storage.As(""))
		Expect(must(anonymous.Write(ctx, audit.NewEvent(correlation())))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
		Expect(must(anonymous.Post(ctx, audit.VerifyPath, []byte(`{}`)))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is not let in with a token that has expired", SpecTimeout(brief), func(ctx SpecContext) {
		expired := must(storage.As(must(cluster.Expire(run.Tokens["both"], must(world.SigningKey(ctx))))))
		Expect(must(expired.Write(ctx, audit.NewEvent(correlation())))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("is not let in with a token for another audience", SpecTimeout(brief), func(ctx SpecContext) {
		foreign := must(storage.As(must(kube.Token(ctx, run.Name("both"), "https://elsewhere.example.org"))))
		Expect(must(foreign.Write(ctx, audit.NewEvent(correlation())))).To(BeProblem(http.StatusUnauthorized, "unauthorized"))
	})

	It("that may only read cannot write", SpecTimeout(brief), func(ctx SpecContext) {
		limited := account(ctx, uniqueName("reader"), reader)
		Eventually(limited.Of).WithContext(ctx).WithArguments(correlation()).Should(BeEmpty(), "a refusal is remembered for two seconds")
		event := audit.NewEvent(correlation())
		Expect(must(limited.Write(ctx, event))).To(BeProblem(http.StatusForbidden, "forbidden"))
		Expect(must(found(ctx, event.CorrelationID))).To(BeEmpty())
	})

	It("that may only write cannot read", SpecTimeout(brief), func(ctx SpecContext) {
		limited := account(ctx, uniqueName("writer"), writer)
		Eventually(func(ctx context.Context) (*Answer, error) { return limited.Write(ctx, audit.NewEvent(correlation())) }).
			WithContext(ctx).Should(HaveStatus(http.StatusCreated), "a refusal is remembered for two seconds")
		Expect(must(limited.Do(ctx, http.MethodGet, audit.EventsPath, nil))).To(BeProblem(http.StatusForbidden, "forbidden"))
		Expect(must(limited.Post(ctx, audit.VerifyPath, []byte(`{"correlation_id":"x"}`)))).To(BeProblem(http.StatusForbidden, "forbidden"))
	})

	It("is let in some seconds after it was given the permission", SpecTimeout(brief), func(ctx SpecContext) {
		name := uniqueName("later")
		later := account(ctx, name)
		Expect(must(later.Do(ctx, http.MethodGet, audit.EventsPath, nil))).To(HaveStatus(http.StatusForbidden))
		Expect(kube.Allow(ctx, run.Name(name), reader, run.Run)).To(Succeed())
		Eventually(func(ctx context.Context) (*Answer, error) {
			return later.Do(ctx, http.MethodGet, audit.EventsPath, nil)
		}).
			WithContext(ctx).Should(HaveStatus(http.StatusOK), "a refusal is remembered for two seconds")
	})

	It("cannot pass for somebody else by its headers", SpecTimeout(brief), func(ctx SpecContext) {
		liar := account(ctx, uniqueName("liar"))
		answer := must(liar.Do(ctx, http.MethodGet, audit.EventsPath, nil, func(r *http.Request) {
			r.Header.Set("Impersonate-User", "system:admin")
			r.Header.Set("X-Auth-Request-User", "system:admin")
		}))
		Expect(answer).To(BeProblem(http.StatusForbidden, "forbidden"))
	})

	It("never finds its token in the log", SpecTimeout(brief), func(ctx SpecContext) {
		answer := must(storage.Write(ctx, audit.NewEvent(correlation())))
		var log string
		Eventually(func(ctx context.Context) (string, error) {
			lines, err := kube.Logs(ctx, "datastorage")
			log = strings.Join(lines, "\n")
			return log, err
		}).WithContext(ctx).Should(ContainSubstring(answer.RequestID()), "an answer arrives before the line about it is where the kubelet reads")
		signature := run.Tokens["both"][strings.LastIndex(run.Tokens["both"], ".")+1:]
		Expect(strings.Contains(log, signature)).To(BeFalse(), "the log holds the token's signature")
	})
})

var _ = Describe("The connection", func() {
	// ask sends a request with other TLS settings.
	ask := func(ctx SpecContext, config *tls.Config) error {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		request := must(http.NewRequestWithContext(ctx, http.MethodGet, storage.URL+"/readyz", nil))
		_, err := Send(client, request)
		return err
	}

	It("is trusted by whoever has the environment's CA", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(ask(ctx, must(kube.TLS(ctx, service)))).To(Succeed())
	})

	It("is not trusted by anybody else", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(ask(ctx, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: service})).To(MatchError(ContainSubstring("unknown authority")))
	})

	It("is not made with a TLS version of the past", SpecTimeout(brief), func(ctx SpecContext) {
		old := must(kube.TLS(ctx, service))
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		Expect(ask(ctx, old)).To(MatchError(ContainSubstring("protocol version")))
	})

	It("is not made in the clear", SpecTimeout(brief), func(ctx SpecContext) {
		answer := must(get(ctx, strings.Replace(storage.URL, "https://", "http://", 1)+audit.EventsPath))
		Expect(answer).To(HaveStatus(http.StatusBadRequest))
	})
})
