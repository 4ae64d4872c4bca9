// Package datastorage_test says what must be true of a deployed DataStorage. It connects
// to the environment that target.json describes, and builds and deploys nothing.
package datastorage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/faults"
	"kubernaut.ai/e2e/test/e2e/journal"
	"kubernaut.ai/e2e/test/e2e/session"
	"kubernaut.ai/e2e/test/e2e/stores"
	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

const (
	// brief bounds a spec that only asks and is answered: a write takes milliseconds, the
	// largest batch well under a second. What takes longer hangs.
	brief = 20 * time.Second
	// settled bounds what the service does by itself: drain its queue after a back-off of
	// up to five seconds, probe a dependency, forget a decision.
	settled = 15 * time.Second
	// broken bounds a spec that takes something away and waits until it is back: some
	// pods start one after the other, each in a few seconds.
	broken = 60 * time.Second
)

const (
	first = 1
	// last puts specs that break things behind the others, also where only one process
	// runs and Serial alone orders nothing.
	last = -1
)

// The problems by which a body or query is refused.
const (
	malformed  = "malformed-body"
	badRequest = "invalid-request"
)

// service is what senders need a permission on.
const service = "data-storage-service"

// The Roles of callers.
const (
	reader = "data-storage-reader"
	writer = "data-storage-writer"
)

// What every process of the suite has. Set once, before the first spec.
var (
	run     *session.Session
	kube    *cluster.Cluster
	storage *audit.Trail // may read and write
	world   *faults.Injector
	said    = &journal.Journal{}

	opsClient = &http.Client{Transport: said.Transport(&http.Transport{DisableKeepAlives: true}), Timeout: settled}
	healthAt  string // host:port of /healthz and /readyz
	metricsAt string // host:port of /metrics
)

// The apps of the environment.
var (
	dataStorageApp = faults.App{Name: "datastorage"}
	postgresApp    = faults.App{Name: "postgresql", Stateful: true}
	redisApp       = faults.App{Name: "redis", Stateful: true}
)

func TestDataStorage(t *testing.T) {
	RegisterFailHandler(Fail)
	session.Format()
	SetDefaultEventuallyTimeout(settled)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "DataStorage")
}

// The first process makes the accounts and waits until the very tokens that will be used
// are let through; the others connect.
var _ = SynchronizedBeforeSuite(func(ctx SpecContext) []byte {
	wd := must(os.Getwd())
	run = session.Begin(must(target.Read(os.Getenv, wd)))
	kube = must(cluster.Connect(run.Target))
	Expect(run.Sweep(ctx, kube, os.Getenv)).To(Succeed())
	run.Tokens["both"] = must(run.Account(ctx, kube, "both", reader, writer))
	Expect(kube.AwaitAccess(ctx, run.Tokens["both"], "get", service)).To(Succeed())
	Expect(kube.AwaitAccess(ctx, run.Tokens["both"], "create", service)).To(Succeed())
	if os.Getenv(session.EnvAlone) != "" {
		sweepTrail(ctx)
	}
	return must(run.Encode())
}, func(ctx SpecContext, payload []byte) {
	run = must(session.Decode(payload))
	kube = must(cluster.Connect(run.Target))
	world = &faults.Injector{Cluster: kube, Runner: command.Local{}, Tell: tell}
	healthAt = must(run.Target.Address("data-storage-ops", "health"))
	metricsAt = must(run.Target.Address("data-storage-ops", "metrics"))
	storage = must(audit.Connect(ctx, kube, run.Tokens["both"], said.Transport))
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK)) // after a restart of the node it looks for what it depends on
}, NodeTimeout(broken))

var _ = BeforeEach(func() {
	said.Reset()
	DeferOnFailure(func(ctx SpecContext) {
		AddReportEntry("what was said", session.Evidence(ctx, kube, said, "datastorage"))
	}, NodeTimeout(settled))
})

// At the end the world is whole again, whatever the faults were.
var _ = SynchronizedAfterSuite(func() {}, func(ctx SpecContext) {
	if world == nil {
		return // the environment was never reached, which has been said
	}
	for _, app := range []faults.App{dataStorageApp, postgresApp, redisApp} {
		Expect(world.AwaitReady(ctx, app)).To(Succeed())
	}
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
}, NodeTimeout(broken))

// trailBound is how many events earlier runs may have left, each some 16,000. They are verified
// a dozen times in a run: 150,000 of them made it 40 s longer.
const trailBound = 50_000

// sweepTrail empties the stores when what earlier runs have left in them is too much, or does
// not verify: a run was killed while a spec had forged a chain, or a DataStorage that has been
// mended since stored it wrongly. Specs that verify everything would fail for ever.
func sweepTrail(ctx context.Context) {
	GinkgoHelper()
	trail := must(audit.Connect(ctx, kube, run.Tokens["both"], said.Transport))
	var report *client.ChainReport
	verify := func(ctx context.Context) (err error) {
		report, err = trail.Verify(ctx, everything)
		return err
	}
	Eventually(verify).WithContext(ctx).Should(Succeed(), "after a restart of the node its connection to the API server is to be made again")
	if report.Valid && report.Length <= trailBound {
		return
	}
	AddReportEntry("the audit trail that earlier runs left is too long or does not verify: the stores are emptied", string(must(json.Marshal(report))))
	injector := &faults.Injector{Cluster: kube, Runner: command.Local{}}
	up, err := injector.Down(ctx, dataStorageApp)
	if err == nil {
		err = stores.Empty(ctx, kube)
	}
	Expect(errors.Join(err, up(ctx))).To(Succeed())
	Eventually(verify).WithContext(ctx).Should(Succeed(), "the Service leads to DataStorage again")
	Expect(report.Valid).To(BeTrue(), "what is empty is whole")
}

// What a run made stays only if a spec failed: it is evidence then. Audit events stay in
// any case; nothing can remove them.
var _ = ReportAfterSuite("leaves nothing behind", func(ctx SpecContext, report Report) {
	if kube != nil && report.SuiteSucceeded {
		Expect(run.End(ctx, kube)).To(Succeed())
	}
}, NodeTimeout(broken))

// tell keeps for the page of the run what a spec broke.
func tell(name, fault string) { AddReportEntry(name, fault, ReportEntryVisibilityNever) }

// must returns what a helper found, or fails the spec with the helper's own words.
func must[T any](value T, err error) T {
	GinkgoHelper()
	Expect(err).NotTo(HaveOccurred())
	return value
}

// uniqueName is a name that nothing else has: <prefix>-<process>-<8 hex>.
func uniqueName(prefix string) string {
	return fmt.Sprintf("%s-%d-%s", prefix, GinkgoParallelProcess(), uuid.NewString()[:8])
}

// correlation is a chain of the spec's own.
func correlation() string { return uniqueName("ds") }

// stored writes events in one batch, which must succeed.
func stored(ctx context.Context, events ...client.EventRequest) {
	GinkgoHelper()
	Expect(must(storage.WriteAll(ctx, events))).To(HaveStatus(http.StatusCreated))
}

// database connects to PostgreSQL until the end of the spec.
func database(ctx context.Context) *pgx.Conn {
	GinkgoHelper()
	conn := must(stores.Postgres(ctx, kube, ""))
	DeferCleanup(func(ctx SpecContext) { _ = conn.Close(ctx) }) // a fault may have ended it
	return conn
}

// queue connects to Redis until the end of the spec.
func queue(ctx context.Context) *redis.Client {
	GinkgoHelper()
	rdb := must(stores.Redis(ctx, kube))
	DeferCleanup(rdb.Close)
	return rdb
}

// ready asks DataStorage whether it is ready.
func ready(ctx context.Context) (*Answer, error) { return get(ctx, "http://"+healthAt+"/readyz") }

// get reads a URL on a connection of its own, so that it reaches the pod that serves now.
func get(ctx context.Context, url string) (*Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return Send(opsClient, request)
}
