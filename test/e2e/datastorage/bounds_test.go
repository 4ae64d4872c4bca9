package datastorage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/stores"
)

// slowType is the type of events whose inserts take longer than any deadline, after slowInserts.
const slowType = "suite.slow"

// slowInserts makes them so for the rest of the spec.
func slowInserts(ctx context.Context) {
	GinkgoHelper()
	db := database(ctx)
	_, err := db.Exec(ctx, sleeps("600")+`; CREATE TRIGGER suite_slow BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.event_type = '`+slowType+`') EXECUTE FUNCTION suite_sleep()`,
		pgx.QueryExecModeSimpleProtocol)
	DeferCleanup(func(ctx SpecContext) error {
		// A connection of its own: a fault may have ended the other. Everybody else locks the whole
		// table before its parts, and this would do so the other way round.
		conn, err := stores.Postgres(ctx, kube, "")
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "BEGIN; LOCK TABLE audit_events; DROP FUNCTION suite_sleep CASCADE; COMMIT", pgx.QueryExecModeSimpleProtocol)
		return errors.Join(err, conn.Close(ctx))
	}, NodeTimeout(brief))
	Expect(err).NotTo(HaveOccurred())
}

// sleeps makes the function that holds an insert up for some seconds.
func sleeps(seconds string) string {
	return "CREATE OR REPLACE FUNCTION suite_sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(" + seconds + "); RETURN NEW; END'"
}

// restarts are how often the processes of each pod have been started again.
func restarts(pods []corev1.Pod) map[string]int32 {
	counts := map[string]int32{}
	for _, pod := range pods {
		for _, status := range pod.Status.ContainerStatuses {
			counts[pod.Name] += status.RestartCount
		}
	}
	return counts
}

var _ = Describe("When the store takes too long over one event", Serial, Label("fault"), SpecPriority(last), func() {
	It("the others are stored, and it is set aside with the reason", SpecTimeout(broken), func(ctx SpecContext) {
		before := counted(ctx).Value("datastorage_dlq_dead_total")
		slow, after, others := audit.NewEvent(correlation()), audit.NewEvent(correlation()), audit.Events(correlation(), 20)
		slow.EventType, after.CorrelationID = slowType, slow.CorrelationID
		slowInserts(ctx)
		enqueue(ctx, append([]client.EventRequest{slow, after}, others...)...)
		Eventually(found).WithContext(ctx).WithArguments(others[0].CorrelationID).Should(Equal(ids(others)), "others overtake it")
		Eventually(func(ctx context.Context) ([]string, error) { return found(ctx, after.CorrelationID) }).WithContext(ctx).WithTimeout(broken).
			Should(Equal(ids([]client.EventRequest{after})), "its chain goes on without it")
		dead := must(queue(ctx).XRevRangeN(ctx, deadStream, "+", "-", 1).Result())
		Expect(dead).To(ConsistOf(HaveField("Values", And(
			HaveKeyWithValue("event", ContainSubstring(slow.EventID.String())), HaveKeyWithValue("reason", ContainSubstring("took longer"))))))
		Expect(counted(ctx).Value("datastorage_dlq_dead_total") - before).To(BeEquivalentTo(1))
	})
})

var _ = Describe("While older events wait", Serial, Label("fault"), SpecPriority(last), func() {
	It("newer ones of their chain wait behind them, and those of others do not", SpecTimeout(broken), func(ctx SpecContext) {
		slow, newer := audit.NewEvent(correlation()), audit.NewEvent(correlation())
		slow.EventType, newer.CorrelationID = slowType, slow.CorrelationID
		slowInserts(ctx)
		queued(ctx, slow)
		Expect(must(storage.Write(ctx, newer))).To(HaveStatus(http.StatusAccepted), "it must not overtake")
		Expect(must(storage.Write(ctx, audit.NewEvent(correlation())))).To(HaveStatus(http.StatusCreated))
		_, err := database(ctx).Exec(ctx, sleeps("0")) // for the next who tries; this needs no lock
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(ctx context.Context) ([]string, error) { return found(ctx, newer.CorrelationID) }).WithContext(ctx).WithTimeout(broken).
			Should(ContainElement(newer.EventID.String()))
		Expect(must(storage.Write(ctx, audit.NewEvent(newer.CorrelationID)))).To(HaveStatus(http.StatusCreated), "nothing waits any more")
	})
})

var _ = Describe("While readers wait for PostgreSQL", Serial, Label("fault"), SpecPriority(last), func() {
	It("writers are served as ever, and it is ready", SpecTimeout(broken), func(ctx SpecContext) {
		db := database(ctx)
		_, err := db.Exec(ctx, "SELECT audit_events_add_month('2020-01-01')")
		Expect(err).NotTo(HaveOccurred())
		tx := must(db.Begin(ctx))
		_, err = tx.Exec(ctx, "LOCK TABLE audit_events_2020_01 IN ACCESS EXCLUSIVE MODE")
		Expect(err).NotTo(HaveOccurred())
		reading, stop := context.WithCancel(ctx)
		var readers sync.WaitGroup
		for range 40 {
			readers.Go(func() {
				for reading.Err() == nil {
					_, _ = storage.Do(reading, http.MethodGet, audit.EventsPath, nil)
				}
			})
		}
		// Before the transaction's end, which is that of the connection.
		DeferCleanup(func() { stop(); readers.Wait() })
		looking := database(ctx) // a transaction sees the same activity all the time
		Eventually(func(ctx context.Context) (waiting int, err error) {
			err = looking.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&waiting)
			return waiting, err
		}).WithContext(ctx).Should(BeNumerically(">=", 3), "readers wait")
		chain := correlation()
		Consistently(func(ctx context.Context) (*Answer, error) { return storage.Write(ctx, audit.NewEvent(chain)) }).
			WithContext(ctx).WithTimeout(time.Second).Should(HaveStatus(http.StatusCreated))
		Expect(must(ready(ctx))).To(HaveStatus(http.StatusOK))
		stop()
		Expect(tx.Rollback(ctx)).To(Succeed())
	})
})

var _ = Describe("Bodies of the worst shapes, many at once", Serial, Label("fault"), SpecPriority(last), func() {
	It("end no process, and hold up no small one", SpecTimeout(broken), func(ctx SpecContext) {
		before := restarts(must(world.Pods(ctx, dataStorageApp)))
		const largest, copies = 5<<20 - 2000, 8
		bodies := make([][]byte, 0, 4)
		for _, data := range []string{
			`{"text":"` + strings.Repeat("x", largest) + `"}`,
			`{"list":[` + strings.TrimSuffix(strings.Repeat(`{"":{}},`, largest/8), ",") + `]}`,
			`{"list":[` + strings.TrimSuffix(strings.Repeat("1e9,", largest/4), ",") + `]}`,
			`{"text":"` + strings.Repeat("\xff", largest) + `"}`,
		} {
			event := must(json.Marshal(audit.NewEvent(correlation())))
			bodies = append(bodies, bytes.Replace(event, []byte(`{"written_by":"the suite"}`), []byte(data), 1))
		}
		var senders sync.WaitGroup
		// More than a pod has memory for would be in hand at once, if all were read: none ends
		// before the others have come as far. Once no more of them are read, the rest leave.
		const many = 50
		var read atomic.Int32
		waiting, end := context.WithTimeout(ctx, 7*time.Second) // a body has eight seconds to arrive
		defer end()
		noMore := time.AfterFunc(2*time.Second, end)
		for range many {
			reader, writer := io.Pipe()
			leave := context.AfterFunc(waiting, func() { _ = writer.CloseWithError(context.Cause(waiting)) })
			body := bodies[len(bodies)-1]
			last := len(body) - 1
			senders.Go(func() {
				if _, err := writer.Write(body[:last]); err != nil || !leave() {
					return
				}
				if noMore.Reset(2 * time.Second); read.Add(1) == many {
					end()
				}
				<-waiting.Done()
				_, _ = writer.Write(body[last:])
				_ = writer.Close()
			})
			senders.Go(func() {
				_, _ = storage.Post(ctx, audit.EventsPath, body, func(r *http.Request) { r.Body = reader })
			})
		}
		var sent atomic.Int32
		for _, body := range bodies {
			for range copies {
				senders.Go(func() {
					if _, err := storage.Post(ctx, audit.EventsPath, body); err == nil {
						sent.Add(1)
					}
				})
			}
		}
		for range 5 {
			// Each page of these is larger than a pod's memory allows a thousand to be.
			senders.Go(func() {
				_, _ = storage.Do(ctx, http.MethodGet, audit.EventsPath+"?limit=1000", nil)
			})
		}
		small := correlation()
		for i := range 20 {
			Expect(must(storage.Write(ctx, audit.NewEvent(fmt.Sprint(small, "-", i)))).Code).To(BeNumerically("<=", http.StatusAccepted))
		}
		senders.Wait()
		Expect(sent.Load()).To(BeEquivalentTo(copies*len(bodies)), "every body has an answer")
		after := must(world.Pods(ctx, dataStorageApp))
		Expect(restarts(after)).To(Equal(before))
		Expect(after).To(ConsistOf(HaveField("Status.Phase", corev1.PodRunning)))
	})
})
