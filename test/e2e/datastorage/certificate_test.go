package datastorage_test

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
)

// What is rolled out with a fault must not take the place of what serves. Serial because the
// ports for health and metrics lead to pods that are not ready, too: meanwhile to either.
var _ = Describe("A DataStorage that trusts another authority than the one PostgreSQL's certificate is of", Label("fault"), Serial, func() {
	It("does not start, and the one before it goes on serving", SpecTimeout(broken), func(ctx SpecContext) {
		startup, trust, err := world.Distrust(ctx, dataStorageApp)
		DeferCleanup(func(ctx SpecContext) { Expect(trust(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		Expect(startup).To(And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", ContainSubstring("database_unreachable"))))
		Expect(must(storage.Write(ctx, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
		Expect(must(world.Pods(ctx, dataStorageApp))).To(HaveLen(2), "nobody has asked for the end of the one before")
	})
})
