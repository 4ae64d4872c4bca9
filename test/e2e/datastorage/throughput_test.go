package datastorage_test

import (
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/e2e/audit"
)

// It begins before the others, because it takes longest.
var _ = Describe("A thousand events each second for ten seconds", SpecPriority(first+1), func() {
	It("are stored, none lost and none doubled", SpecTimeout(broken), func(ctx SpecContext) {
		const batches, perBatch, interval = 100, 100, 100 * time.Millisecond
		chain := correlation()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		var writers errgroup.Group
		start := time.Now()
		for i := range batches {
			writers.Go(func() error {
				answer, err := storage.WriteAll(ctx, audit.Events(fmt.Sprintf("%s-%d", chain, i%10), perBatch))
				// Queued is what the contract has for a batch that the database takes too long over.
				if err == nil && answer.Code != http.StatusCreated && answer.Code != http.StatusAccepted {
					err = fmt.Errorf("%s", answer)
				}
				return err
			})
			<-tick.C
		}
		Expect(writers.Wait()).To(Succeed())
		// At half of the rate at least: what it could do alone is the benchmark's to say, and a machine may have other work.
		Expect(time.Since(start)).To(BeNumerically("<", 2*batches*interval), "it keeps up")
		for i := range 10 {
			Eventually(storage.Verify).WithContext(ctx).WithArguments(fmt.Sprintf("%s-%d", chain, i)).
				Should(HaveField("Length", BeEquivalentTo(batches*perBatch/10)), "what was queued is stored soon")
			Expect(must(storage.Verify(ctx, fmt.Sprintf("%s-%d", chain, i))).Valid).To(BeTrue())
		}
	})
})
