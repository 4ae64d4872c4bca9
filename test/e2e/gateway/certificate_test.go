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

// What is rolled out with a fault must not take the place of what serves.
var _ = Describe("A Gateway that trusts another authority than the one DataStorage's certificate is of", Serial, Label("fault"), SpecPriority(last), func() {
	It("does not start, and the one before it goes on serving", SpecTimeout(broken), func(ctx SpecContext) {
		before := must(world.Pods(ctx, gatewayApp))
		trust, err := world.Distrust(ctx, gatewayApp)
		DeferCleanup(func(ctx SpecContext) { Expect(trust(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		pod := must(world.AwaitUnstarted(ctx, gatewayApp, before))
		inside := &http.Client{Transport: must(kube.PodTransport(pod.Name, "8081"))}
		started := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/startupz", nil))
		Expect(must(Send(inside, started))).To(And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", ContainSubstring("datastorage_unreachable"))))

		created(ctx, alert(workload(ctx)))
		for _, old := range before {
			Expect(must(world.Pods(ctx, gatewayApp))).To(ContainElement(HaveField("UID", old.UID)), "nobody has asked for its end")
		}
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
