package datastorage_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"
	corev1 "k8s.io/api/core/v1"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/faults"
)

// The streams of the queue in Redis.
const (
	queueStream = "audit:dlq:events"
	deadStream  = "audit:dead-letter:events"
)

// cut cuts the network to stores until the end of the spec, and returns what mends it.
func cut(ctx context.Context, apps ...faults.App) (mend func(context.Context) error) {
	GinkgoHelper()
	mend, err := world.Cut(ctx, apps...)
	DeferCleanup(func(ctx SpecContext) {
		Expect(mend(ctx)).To(Succeed())
		whole(ctx)
	}, NodeTimeout(broken))
	Expect(err).NotTo(HaveOccurred())
	return mend
}

// signal sends a signal that ends an app's processes; at its end the spec waits until
// they have been started again.
func signal(ctx context.Context, app faults.App, name string) []corev1.Pod {
	GinkgoHelper()
	pods := must(world.Signal(ctx, app, name))
	DeferCleanup(func(ctx SpecContext) {
		Expect(world.AwaitRestart(ctx, app, pods)).To(Succeed())
		whole(ctx)
	}, NodeTimeout(broken))
	return pods
}

// queued writes events one after the other; each must be accepted for later.
func queued(ctx context.Context, events ...client.EventRequest) {
	GinkgoHelper()
	for _, event := range events {
		Expect(must(storage.Write(ctx, event))).To(HaveStatus(http.StatusAccepted))
	}
}

// enqueue puts events into the queue, all at once, as they wait there once they were accepted.
func enqueue(ctx context.Context, events ...client.EventRequest) {
	GinkgoHelper()
	must(queue(ctx).TxPipelined(ctx, func(all redis.Pipeliner) error {
		for _, event := range events {
			all.XAdd(ctx, &redis.XAddArgs{Stream: queueStream, Values: []any{"event", must(json.Marshal(event)), "chain", event.CorrelationID}})
		}
		return nil
	}))
}

// arrive waits until exactly these events are stored in this order, and the queue is empty.
func arrive(ctx context.Context, events []client.EventRequest) {
	GinkgoHelper()
	Eventually(found).WithContext(ctx).WithArguments(events[0].CorrelationID).Should(HaveLen(len(events)), "the queue is drained")
	Expect(must(found(ctx, events[0].CorrelationID))).To(Equal(ids(events)))
	Expect(must(storage.Verify(ctx, events[0].CorrelationID)).Valid).To(BeTrue())
	Eventually(func(ctx context.Context) (int64, error) { return queue(ctx).XLen(ctx, queueStream).Result() }).WithContext(ctx).Should(BeZero())
}

// whole waits until DataStorage is ready as its callers see it.
func whole(ctx context.Context) {
	GinkgoHelper()
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
	Expect(world.AwaitReady(ctx, dataStorageApp)).To(Succeed())
	Eventually(found).WithContext(ctx).WithArguments(correlation()).Should(BeEmpty(), "the Service leads to DataStorage again")
}

// notReady matches the answer of a service that is not ready for this reason.
func notReady(reason string) OmegaMatcher {
	return And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", MatchJSON(`{"status":"not_ready","reason":"`+reason+`"}`)))
}

// stream writes batches of a chain of its own all the time.
type stream struct {
	chain string
	stop  context.CancelFunc
	done  chan struct{}

	mu       sync.Mutex
	accepted map[string]bool
	unsure   map[string]bool // no answer came
	codes    map[int]int
}

// flow begins a stream of twenty batches of ten events each second; it ends with ebb, at the
// latest with the spec.
func flow(ctx context.Context) *stream {
	writing, stop := context.WithCancel(ctx)
	s := &stream{chain: correlation(), stop: stop, done: make(chan struct{}), accepted: map[string]bool{}, unsure: map[string]bool{}, codes: map[int]int{}}
	go func() {
		defer close(s.done)
		tick := time.NewTicker(time.Second / 20)
		defer tick.Stop()
		var writers sync.WaitGroup
		defer writers.Wait()
		for {
			select {
			case <-writing.Done():
				return
			case <-tick.C:
				writers.Go(func() { s.write(context.WithoutCancel(writing)) })
			}
		}
	}()
	return s
}

func (s *stream) write(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settled)
	defer cancel()
	events := audit.Events(s.chain, 10)
	answer, err := storage.WriteAll(ctx, events)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.codes[answer.Code]++
	}
	for _, id := range ids(events) {
		switch {
		case err != nil:
			s.unsure[id] = true
		case answer.Code == http.StatusCreated || answer.Code == http.StatusAccepted:
			s.accepted[id] = true
		}
	}
}

// count is how many batches have been answered with a code so far.
func (s *stream) count(code int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.codes[code]
}

// more waits until ten more batches have been answered with a code.
func (s *stream) more(ctx context.Context, code int) {
	GinkgoHelper()
	s.moreThan(ctx, s.count(code), code)
}

// moreThan waits until ten more batches than before have been answered with a code.
func (s *stream) moreThan(ctx context.Context, before, code int) {
	GinkgoHelper()
	Eventually(s.count).WithContext(ctx).WithArguments(code).WithTimeout(broken).Should(BeNumerically(">=", before+10))
}

// ebb ends the stream and checks that everything accepted is stored once, and nothing
// else but what got no answer.
func (s *stream) ebb(ctx context.Context) {
	GinkgoHelper()
	s.stop()
	Eventually(s.done).WithContext(ctx).WithTimeout(broken).Should(BeClosed())
	Eventually(func(ctx context.Context) (int, error) {
		present, err := found(ctx, s.chain)
		for _, id := range present {
			delete(s.accepted, id)
		}
		return len(s.accepted), err
	}).WithContext(ctx).Should(BeZero(), "every event that was accepted is stored")
	once := map[string]bool{}
	for _, id := range must(found(ctx, s.chain)) {
		Expect(once).NotTo(HaveKey(id), "an event is stored twice")
		once[id] = true
	}
	Expect(must(storage.Verify(ctx, s.chain)).Valid).To(BeTrue())
}

// It is cut off once, while everything is asked, and the others end meanwhile.
var _ = Describe("When PostgreSQL is away", Serial, Ordered, ContinueOnFailure, Label("fault"), SpecPriority(last), func() {
	var (
		events, batch, outlived  []client.EventRequest
		taken, listed, alive     *Answer
		unready, afterItsRestart *Answer
		starts, startsAfter      map[string]int32
	)
	BeforeAll(func(ctx SpecContext) {
		chain := correlation()
		there, single := audit.Events(chain, 3), audit.Events(chain, 4)
		batch, outlived = audit.Events(chain, 500), audit.Events(correlation(), 5)
		events = slices.Concat(there, single, batch)
		stored(ctx, there...)
		up := cut(ctx, postgresApp)
		queued(ctx, single...)
		taken = must(storage.WriteAll(ctx, batch))
		queued(ctx, there[0], single[0]) // sent again
		queued(ctx, outlived...)
		// The schema cannot be looked at either, which may be found first.
		Eventually(ready).WithContext(ctx).Should(notReady("database_unreachable"))
		unready, alive = must(ready(ctx)), must(get(ctx, "http://"+healthAt+"/healthz"))
		listed = must(storage.Do(ctx, http.MethodGet, audit.EventsPath, nil))

		signal(ctx, redisApp, "SIGKILL")
		starts = restarts(signal(ctx, dataStorageApp, "SIGKILL"))
		Expect(world.AwaitPods(ctx, dataStorageApp, func(pods []corev1.Pod) bool { return !maps.Equal(restarts(pods), starts) })).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusServiceUnavailable), "the new process answers")
		afterItsRestart = must(ready(ctx))
		Expect(up(ctx)).To(Succeed())
		whole(ctx)
		startsAfter = restarts(must(world.Pods(ctx, dataStorageApp)))
	}, NodeTimeout(broken))

	It("events are accepted for later and stored once, in their order, after those that were there", SpecTimeout(broken), func(ctx SpecContext) {
		Expect(taken).To(HaveStatus(http.StatusAccepted))
		Expect(answered(taken)).To(Equal(ids(batch)))
		arrive(ctx, events)
	})

	It("what was accepted outlives the processes of Redis and DataStorage", SpecTimeout(broken), func(ctx SpecContext) {
		arrive(ctx, outlived)
	})

	It("it says so, waits for it when it starts, and is ready once it is there", SpecTimeout(broken), func(ctx SpecContext) {
		Expect([]*Answer{unready, afterItsRestart}).To(HaveEach(notReady("database_unreachable")))
		Expect(alive).To(HaveStatus(http.StatusOK))
		Expect(listed).To(BeProblem(http.StatusServiceUnavailable, "storage-unavailable"))
		Expect(listed.RetryAfter()).To(BeNumerically(">", 0))
		Expect(must(ready(ctx))).To(HaveStatus(http.StatusOK))
		for pod, before := range starts {
			Expect(startsAfter).To(HaveKeyWithValue(pod, before+1), "it was started once")
		}
	})
})

var _ = Describe("When Redis is away", Serial, Label("fault"), SpecPriority(last), func() {
	It("events are stored as ever, but it is not ready and says why", SpecTimeout(broken), func(ctx SpecContext) {
		up := cut(ctx, redisApp)
		Eventually(ready).WithContext(ctx).Should(notReady("redis_unreachable"))
		events := audit.Events(correlation(), 5)
		stored(ctx, events...)
		Expect(up(ctx)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
		arrive(ctx, events)
	})
})

var _ = Describe("When PostgreSQL and Redis are away", Serial, Label("fault"), SpecPriority(last), func() {
	It("events are refused for now, and nothing of them is stored", SpecTimeout(broken), func(ctx SpecContext) {
		up := cut(ctx, postgresApp, redisApp)
		events := audit.Events(correlation(), 5)
		answer := must(storage.WriteAll(ctx, events))
		Expect(answer).To(BeProblem(http.StatusServiceUnavailable, "storage-unavailable"))
		Expect(answer.RetryAfter()).To(BeNumerically(">", 0))
		Eventually(ready).WithContext(ctx).Should(notReady("database_unreachable"))
		Expect(up(ctx)).To(Succeed())
		whole(ctx)
		Expect(must(found(ctx, events[0].CorrelationID))).To(BeEmpty())
		stored(ctx, events...)
		arrive(ctx, events)
	})
})

var _ = Describe("When processes end under load", Serial, Label("fault"), SpecPriority(last), func() {
	It("by a kill, PostgreSQL's and then DataStorage's, nothing accepted is lost or doubled", SpecTimeout(broken), func(ctx SpecContext) {
		load := flow(ctx)
		load.more(ctx, http.StatusCreated)
		// Counted from here: on a busy machine PostgreSQL may be back when signal returns.
		before := load.count(http.StatusAccepted)
		signal(ctx, postgresApp, "SIGKILL")
		load.moreThan(ctx, before, http.StatusAccepted)
		signal(ctx, dataStorageApp, "SIGKILL") // what it has queued is left to the next
		load.more(ctx, http.StatusCreated)
		load.ebb(ctx)
	})

	It("because DataStorage is told to, it is not ready from that moment, exits with 0 and loses nothing", SpecTimeout(broken), func(ctx SpecContext) {
		load := flow(ctx)
		load.more(ctx, http.StatusCreated)
		pods := must(world.Delete(ctx, dataStorageApp))
		// The drain delay is short; the Service leads to the pod until another is ready.
		Eventually(ready).WithContext(ctx).WithPolling(10 * time.Millisecond).Should(notReady("shutting_down"))
		Expect(must(world.ExitCode(ctx, pods[0]))).To(BeZero())
		load.more(ctx, http.StatusCreated)
		load.ebb(ctx)
		whole(ctx)
	})
})

var _ = Describe("When the API server does not answer", Serial, Label("fault"), SpecPriority(last), func() {
	It("callers that are known are served, others are told to come back", SpecTimeout(broken), func(ctx SpecContext) {
		freeze, err := world.PrepareFreeze(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			Expect(freeze.Thaw(ctx)).To(Succeed())
			whole(ctx)
		}, NodeTimeout(broken))
		// Known for ten seconds from now; whom other specs wrote as may be forgotten in the next moment.
		known, fresh := account(ctx, uniqueName("known"), writer), account(ctx, uniqueName("fresh"), writer)
		Eventually(known.Write).WithContext(ctx).WithArguments(audit.NewEvent(correlation())).Should(HaveStatus(http.StatusCreated), "the permission has arrived")
		Expect(freeze.Begin(ctx)).To(Succeed())
		Expect(must(known.Write(ctx, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
		answer := must(fresh.Write(ctx, audit.NewEvent(correlation())))
		Expect(answer).To(BeProblem(http.StatusServiceUnavailable, "access-review-failed"))
		Expect(answer.RetryAfter()).To(BeNumerically(">", 0))
	})
})

var _ = Describe("When the schema is older than expected", Serial, Label("fault"), SpecPriority(last), func() {
	It("it is not ready until it is brought up to date", SpecTimeout(broken), func(ctx SpecContext) {
		db := database(ctx)
		_, err := db.Exec(ctx, "CREATE TEMPORARY TABLE kept AS SELECT * FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)")
		Expect(err).NotTo(HaveOccurred())
		restore := func(ctx context.Context) error {
			_, err := db.Exec(ctx, "INSERT INTO goose_db_version OVERRIDING SYSTEM VALUE SELECT * FROM kept ON CONFLICT DO NOTHING")
			return err
		}
		DeferCleanup(func(ctx SpecContext) { Expect(restore(ctx)).To(Succeed()) }, NodeTimeout(brief))
		_, err = db.Exec(ctx, "DELETE FROM goose_db_version WHERE id IN (SELECT id FROM kept)")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ready).WithContext(ctx).Should(notReady("schema_outdated"))
		Expect(restore(ctx)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
	})
})

var _ = Describe("When the queue holds what can never be stored", Label("fault"), func() {
	It("that is put aside with the reason, and what came after it is stored", SpecTimeout(broken), func(ctx SpecContext) {
		before := counted(ctx).Value("datastorage_dlq_dead_total")
		events, poison := audit.Events(correlation(), 4), uniqueName("poison")
		enqueue(ctx, events[:2]...)
		Expect(queue(ctx).XAdd(ctx, &redis.XAddArgs{Stream: queueStream, Values: []string{"event", poison}}).Err()).To(Succeed())
		enqueue(ctx, events[2:]...)
		arrive(ctx, events)
		dead := must(queue(ctx).XRevRangeN(ctx, deadStream, "+", "-", 1).Result())
		Expect(dead).To(ConsistOf(HaveField("Values", And(HaveKeyWithValue("event", poison), HaveKeyWithValue("reason", Not(BeEmpty()))))))
		Expect(counted(ctx).Value("datastorage_dlq_dead_total") - before).To(BeEquivalentTo(1))
	})
})
