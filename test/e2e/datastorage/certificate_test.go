package datastorage_test

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
)

// What is rolled out with a fault must not take the place of what serves.
var _ = Describe("A DataStorage that trusts another authority than the one PostgreSQL's certificate is of", Serial, Label("fault"), SpecPriority(last), func() {
	It("does not start, and the one before it goes on serving", SpecTimeout(broken), func(ctx SpecContext) {
		before := must(world.Pods(ctx, dataStorageApp))
		trust, err := world.Distrust(ctx, dataStorageApp)
		DeferCleanup(func(ctx SpecContext) { Expect(trust(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		pod := must(world.AwaitUnstarted(ctx, dataStorageApp, before))
		inside := &http.Client{Transport: must(kube.PodTransport(pod.Name, "8081"))}
		started := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://datastorage/startupz", nil))
		Expect(must(Send(inside, started))).To(And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", ContainSubstring("database_unreachable"))))

		Expect(must(storage.Write(ctx, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
		for _, old := range before {
			Expect(must(world.Pods(ctx, dataStorageApp))).To(ContainElement(HaveField("UID", old.UID)), "nobody has asked for its end")
		}
	})
})
