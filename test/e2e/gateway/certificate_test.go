package gateway_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
)

// What is rolled out with a fault must not take the place of what serves. Serial because the
// ports for health and metrics lead to pods that are not ready, too: meanwhile to either.
var _ = Describe("A Gateway that trusts another authority than the one DataStorage's certificate is of", Label("fault"), Serial, func() {
	It("does not start, and the one before it goes on serving", SpecTimeout(broken), func(ctx SpecContext) {
		startup, trust, err := world.Distrust(ctx, gatewayApp)
		DeferCleanup(func(ctx SpecContext) { Expect(trust(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		Expect(startup).To(And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", ContainSubstring("datastorage_unreachable"))))
		created(ctx, alert(workload(ctx)))
		Expect(must(world.Pods(ctx, gatewayApp))).To(HaveLen(2), "nobody has asked for the end of the one before")
	})
})

var _ = Describe("The Gateway's certificate", func() {
	It("is renewed while signals come, none of which fails", SpecTimeout(broken), func(ctx SpecContext) {
		serial := func(ctx context.Context) (string, error) {
			conn, err := (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", strings.TrimPrefix(gateway.URL, "https://"))
			if err != nil {
				return "", err
			}
			defer func() { _ = conn.Close() }()
			return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
		}
		old := must(serial(ctx))
		storm := blow(ctx) // each signal on a connection of its own
		storm.blows(ctx, 10)
		next := must(world.Renew(ctx, gatewayApp, "gateway-tls")).String()
		Expect(next).NotTo(Equal(old))
		Eventually(serial).WithContext(ctx).Should(Equal(next), "the new certificate is served")
		storm.blows(ctx, 10)
		storm.calm(ctx)
		Expect(storm.failures).To(BeEmpty())
	})
})
