package datastorage_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/test/e2e/audit"
)

// everything verifies all that is signed.
const everything = ""

// Serial because what others forge is no longer whole for a while.
var _ = Describe("When the database's owner has removed", Serial, Ordered, ContinueOnFailure, func() {
	const (
		theEnd = `DELETE FROM audit_events WHERE correlation_id = $1 AND chain_position > 3`
		itsEnd = `UPDATE audit_chains SET length = 3, last_hash = (SELECT event_hash FROM audit_events WHERE correlation_id = $1 AND chain_position = 3)
			WHERE correlation_id = $1`
		all         = "DELETE FROM audit_events WHERE correlation_id = $1"
		theirEnd    = "DELETE FROM audit_chains WHERE correlation_id = $1"
		signedEnds  = "DELETE FROM audit_signed_ends WHERE correlation_id = $1"
		checkpoints = "DELETE FROM audit_checkpoints WHERE upto_sequence >= (SELECT min(sequence) FROM audit_events WHERE correlation_id = $1)"
	)

	// A checkpoint closes an event a moment after it was stored: these wait for that together.
	var chains []string
	BeforeAll(func(ctx SpecContext) {
		for range 4 {
			chain := correlation()
			stored(ctx, audit.Events(chain, 5)...)
			chains = append(chains, chain)
		}
		signed(ctx, chains[len(chains)-1])
	}, NodeTimeout(brief))

	DescribeTable("and everything speaks of a shorter chain, it is found:", func(ctx SpecContext, n int, byChain int64, statements ...string) {
		Expect(must(storage.Verify(ctx, everything)).Valid).To(BeTrue())
		forge(ctx, chains[n], statements...)
		report := must(storage.Verify(ctx, everything))
		Expect(report.Valid).To(BeFalse())
		Expect(report.FirstBroken).To(HaveValue(HaveField("Reason", client.ChainBreakReason("missing"))))
		report = must(storage.Verify(ctx, chains[n]))
		Expect(report.Valid).To(Equal(byChain == 0))
		if byChain > 0 {
			Expect(report.FirstBroken).To(HaveValue(And(HaveField("Position", byChain), HaveField("Reason", client.ChainBreakReason("missing")))))
		}
	},
		Entry("the end of a chain", SpecTimeout(brief), 0, int64(4), theEnd, itsEnd),
		Entry("a whole chain", SpecTimeout(brief), 1, int64(1), all, theirEnd),
		Entry("a whole chain with all that was signed of it since", SpecTimeout(brief), 2, int64(0), checkpoints, signedEnds, all, theirEnd),
	)

	It("a checkpoint, no other is taken, and the metrics say so", SpecTimeout(brief), func(ctx SpecContext) {
		forge(ctx, chains[3], checkpoints)
		Eventually(func() float64 { return counted(ctx).Value("datastorage_checkpoint_tampered") }).Should(BeEquivalentTo(1))
	})
})

var _ = Describe("A month that was removed by policy", SpecPriority(first), func() {
	It("leaves the rest verifiable", SpecTimeout(broken), func(ctx SpecContext) {
		// The API takes no event of a month long ago; what waits in the queue was taken once.
		chain := correlation()
		old := audit.NewEvent(chain)
		old.EventTimestamp = time.Date(2020, 1, 31, 23, 59, 59, 0, time.UTC)
		enqueue(ctx, old)
		Eventually(found).WithContext(ctx).WithArguments(chain).Should(HaveLen(1))
		stored(ctx, audit.Events(chain, 2)...)
		signed(ctx, chain)

		cron := &batchv1.CronJob{}
		Expect(kube.API.Get(ctx, ctrlclient.ObjectKey{Namespace: kube.Target.Namespace, Name: "retention"}, cron)).To(Succeed())
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: cron.Namespace, Name: uniqueName("retention")}, Spec: cron.Spec.JobTemplate.Spec}
		Expect(kube.API.Create(ctx, job)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) error {
			return kube.API.Delete(ctx, job, ctrlclient.PropagationPolicy(metav1.DeletePropagationBackground))
		})
		complete(ctx, job)

		Expect(must(found(ctx, chain))).To(HaveLen(2))
		Expect(must(storage.Verify(ctx, chain))).To(HaveValue(Equal(client.ChainReport{Valid: true, Length: 2, Removed: new(int64(1))})))
		_, err := database(ctx).Exec(ctx, "SELECT pg_advisory_lock($1)", forgeries)
		Expect(err).NotTo(HaveOccurred())
		Expect(must(storage.Verify(ctx, everything))).To(HaveField("Valid", true))
	})
})
