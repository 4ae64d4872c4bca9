package datastorage_test

import (
	"context"
	"errors"
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
	"kubernaut.ai/e2e/test/e2e/stores"
)

// The streams of the queue in Redis.
const (
	queueStream = "audit:dlq:events"
	deadStream  = "audit:dead-letter:events"
)

// away takes apps away for the rest of the spec, all at once, and returns the way back.
func away(ctx context.Context, apps ...faults.App) (up func(context.Context) error) {
	GinkgoHelper()
	up, err := world.Down(ctx, apps...)
	DeferCleanup(func(ctx SpecContext) { Expect(up(ctx)).To(Succeed()) }, NodeTimeout(broken))
	Expect(err).NotTo(HaveOccurred())
	return up
}

// cut cuts the network to a store for the rest of the spec, connections that are open
// included, and returns what mends it. The store runs on: that takes a fraction of the
// time that a pod takes to go and to come back.
func cut(ctx context.Context, store faults.App) (mend func(context.Context) error) {
	GinkgoHelper()
	db, rdb := database(ctx), queue(ctx)
	Expect(rdb.Ping(ctx).Err()).To(Succeed()) // connects while it can
	mend, err := world.Detach(ctx, "", store.Name)
	DeferCleanup(func(ctx SpecContext) {
		Expect(mend(ctx)).To(Succeed())
		whole(ctx)
	}, NodeTimeout(broken))
	Expect(err).NotTo(HaveOccurred())
	Eventually(reach).WithContext(ctx).WithArguments(store).ShouldNot(Succeed(), "new connections are refused")
	if store == postgresApp {
		_, err = db.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	} else {
		err = rdb.ClientKillByFilter(ctx, "TYPE", "normal").Err()
	}
	Expect(err).NotTo(HaveOccurred())
	return mend
}

// reach opens a connection to a store.
func reach(ctx context.Context, store faults.App) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // not every refusal is sent
	defer cancel()
	if store == postgresApp {
		conn, err := stores.Postgres(ctx, kube, "")
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	rdb, err := stores.Redis(ctx, kube)
	if err != nil {
		return err
	}
	return errors.Join(rdb.Ping(ctx).Err(), rdb.Close())
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
func (s *stream) count(code int) func() int {
	return func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.codes[code]
	}
}

// more waits until ten more batches have been answered with a code.
func (s *stream) more(ctx context.Context, code int) {
	GinkgoHelper()
	Eventually(s.count(code)).WithContext(ctx).WithTimeout(broken).Should(BeNumerically(">=", s.count(code)()+10))
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

var _ = Describe("When PostgreSQL is away", Serial, Label("fault"), SpecPriority(last), func() {
	It("events are accepted for later and stored once, in their order, after those that were there", SpecTimeout(broken), func(ctx SpecContext) {
		chain := correlation()
		before, single, batch := audit.Events(chain, 3), audit.Events(chain, 4), audit.Events(chain, 500)
		stored(ctx, before...)
		up := away(ctx, postgresApp)
		queued(ctx, single...)
		answer := must(storage.WriteAll(ctx, batch))
		Expect(answer).To(HaveStatus(http.StatusAccepted))
		Expect(answered(answer)).To(Equal(ids(batch)))
		queued(ctx, before[0], single[0]) // sent again
		Expect(up(ctx)).To(Succeed())
		arrive(ctx, slices.Concat(before, single, batch))
	})

	It("what was accepted outlives Redis' process", SpecTimeout(broken), func(ctx SpecContext) {
		up := cut(ctx, postgresApp)
		events := audit.Events(correlation(), 5)
		queued(ctx, events...)
		signal(ctx, redisApp, "SIGKILL")
		Expect(up(ctx)).To(Succeed())
		arrive(ctx, events)
	})

	It("what was accepted outlives DataStorage's process", SpecTimeout(broken), func(ctx SpecContext) {
		up := cut(ctx, postgresApp)
		events := audit.Events(correlation(), 5)
		queued(ctx, events...)
		signal(ctx, dataStorageApp, "SIGKILL")
		Expect(up(ctx)).To(Succeed())
		arrive(ctx, events)
	})

	It("it says so, waits for it when it starts, and is ready once it is there", SpecTimeout(broken), func(ctx SpecContext) {
		up := cut(ctx, postgresApp)
		Eventually(ready).WithContext(ctx).Should(notReady("database_unreachable"))
		Expect(must(get(ctx, "http://"+healthAt+"/healthz"))).To(HaveStatus(http.StatusOK))
		answer := must(storage.Do(ctx, http.MethodGet, audit.EventsPath, nil))
		Expect(answer).To(BeProblem(http.StatusServiceUnavailable, "storage-unavailable"))
		Expect(answer.RetryAfter()).To(BeNumerically(">", 0))
		must(world.Delete(ctx, dataStorageApp))
		Eventually(func(ctx context.Context) ([]corev1.Pod, error) { return world.Pods(ctx, dataStorageApp) }).WithContext(ctx).
			Should(ConsistOf(HaveField("Status.Phase", corev1.PodRunning)))
		Eventually(ready).WithContext(ctx).Should(notReady("database_unreachable"))
		Expect(up(ctx)).To(Succeed())
		whole(ctx)
		Expect(must(world.Pods(ctx, dataStorageApp))).To(ConsistOf(HaveField("Status.ContainerStatuses", ConsistOf(HaveField("RestartCount", BeZero())))))
	})
})

var _ = Describe("When PostgreSQL ends", Serial, Label("fault"), SpecPriority(last), func() {
	It("by a kill under load, nothing accepted is lost or doubled", SpecTimeout(broken), func(ctx SpecContext) {
		load := flow(ctx)
		load.more(ctx, http.StatusCreated)
		signal(ctx, postgresApp, "SIGKILL")
		load.more(ctx, http.StatusCreated)
		load.ebb(ctx)
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
		up := away(ctx, postgresApp, redisApp)
		events := audit.Events(correlation(), 5)
		answer := must(storage.WriteAll(ctx, events))
		Expect(answer).To(BeProblem(http.StatusServiceUnavailable, "storage-unavailable"))
		Expect(answer.RetryAfter()).To(BeNumerically(">", 0))
		Expect(up(ctx)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
		Expect(must(found(ctx, events[0].CorrelationID))).To(BeEmpty())
		stored(ctx, events...)
		arrive(ctx, events)
	})
})

var _ = Describe("When DataStorage ends", Serial, Label("fault"), SpecPriority(last), func() {
	It("by a kill under load, nothing accepted is lost or doubled", SpecTimeout(broken), func(ctx SpecContext) {
		load := flow(ctx)
		load.more(ctx, http.StatusCreated)
		signal(ctx, dataStorageApp, "SIGKILL")
		load.more(ctx, http.StatusCreated)
		load.ebb(ctx)
	})

	It("because it is told to, it is not ready from that moment, exits with 0 and loses nothing", SpecTimeout(broken), func(ctx SpecContext) {
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
		fresh := account(ctx, uniqueName("fresh"), writer)
		stored(ctx, audit.NewEvent(correlation())) // the caller is known for some seconds
		thaw, err := world.FreezeAPIServer(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			Expect(thaw(ctx)).To(Succeed())
			whole(ctx)
		}, NodeTimeout(broken))
		Expect(must(storage.Write(ctx, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
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

// Serial because the counters are everybody's.
var _ = Describe("When the queue holds what can never be stored", Serial, Label("fault"), SpecPriority(last), func() {
	It("that is put aside with the reason, and what came after it is stored", SpecTimeout(broken), func(ctx SpecContext) {
		before := counted(ctx).Value("datastorage_dlq_dead_total")
		up := cut(ctx, postgresApp)
		events := audit.Events(correlation(), 4)
		queued(ctx, events[:2]...)
		poison := uniqueName("poison")
		rdb := queue(ctx)
		Expect(rdb.XAdd(ctx, &redis.XAddArgs{Stream: queueStream, Values: []string{"event", poison}}).Err()).To(Succeed())
		queued(ctx, events[2:]...)
		Expect(up(ctx)).To(Succeed())
		arrive(ctx, events)
		dead := must(rdb.XRevRangeN(ctx, deadStream, "+", "-", 1).Result())
		Expect(dead).To(ConsistOf(HaveField("Values", And(HaveKeyWithValue("event", poison), HaveKeyWithValue("reason", Not(BeEmpty()))))))
		Expect(counted(ctx).Value("datastorage_dlq_dead_total") - before).To(BeEquivalentTo(1))
	})
})
