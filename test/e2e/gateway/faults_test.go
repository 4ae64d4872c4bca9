package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/faults"
	"kubernaut.ai/e2e/test/e2e/metrics"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// perSecond is how fast a storm sends.
const perSecond = 50

// senders is how many wait for their answers at once: while all of them do, a storm is
// slower, so that a busy machine does not make it a test of overload.
const senders = 20

// targets is how many workloads a storm is about.
const targets = 10

// storm sends alerts all the time, each on a connection of its own, as many senders do.
type storm struct {
	alerts []signals.Alert
	marks  []string // their fingerprints
	sender *signals.Sender
	stop   context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	accepted map[string]int // by fingerprint: answered 201 or 202
	unsure   map[string]int // by fingerprint: no answer came in time
	failures []string       // what came instead of 201 or 202, and when
}

// blow begins a storm; it ends with calm, at the latest with the spec.
func blow(ctx context.Context) *storm {
	GinkgoHelper()
	alerts, marks := many(ctx, targets)
	sending, stop := context.WithCancel(ctx)
	s := &storm{
		alerts: alerts, marks: marks, stop: stop, done: make(chan struct{}), accepted: map[string]int{}, unsure: map[string]int{},
		sender: &signals.Sender{URL: gateway.URL, Token: gateway.Token,
			Client: &http.Client{Transport: said.Transport(&http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}), Timeout: settled}},
	}
	go s.run(sending)
	return s
}

func (s *storm) run(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	var sending errgroup.Group
	sending.SetLimit(senders)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			_ = sending.Wait() // send never fails
			return
		case <-tick.C:
			sending.Go(func() error {
				s.send(context.WithoutCancel(ctx), i%targets)
				return nil
			})
		}
	}
}

func (s *storm) send(ctx context.Context, n int) {
	begun, mark := time.Now(), s.marks[n]
	response, err := s.sender.Alerts(ctx, s.alerts[n])
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.unsure[mark]++
		s.failures = append(s.failures, fmt.Sprintf("%s, %s: %v", begun.Format(time.StampMilli), time.Since(begun), err))
	case response.Code == http.StatusCreated || response.Code == http.StatusAccepted:
		s.accepted[mark]++
	default:
		s.failures = append(s.failures, fmt.Sprintf("%s, %s: %s", begun.Format(time.StampMilli), time.Since(begun), response))
		if response.Code == http.StatusGatewayTimeout {
			s.unsure[mark]++ // it may have been counted
		}
	}
}

// seen is how many requests have been accepted so far.
func (s *storm) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, count := range s.accepted {
		n += count
	}
	return n
}

// blows waits until the storm has had n more signals accepted.
func (s *storm) blows(ctx context.Context, n int) {
	GinkgoHelper()
	until := s.seen() + n
	Eventually(s.seen).WithContext(ctx).WithTimeout(broken).Should(BeNumerically(">=", until), "signals are accepted")
}

// calm ends the storm when its last request is answered, and checks that everything that
// was accepted is in the cluster, and nothing else but what got no answer.
func (s *storm) calm(ctx context.Context) {
	GinkgoHelper()
	s.stop()
	Eventually(s.done).WithContext(ctx).WithTimeout(broken).Should(BeClosed())
	for i, mark := range s.marks {
		found := remediations(ctx, mark)
		Expect(found).To(HaveLen(1), "app-%d was accepted %d times", i, s.accepted[mark])
		Expect(found[0].Status.Deduplication.OccurrenceCount).To(And(
			BeNumerically(">=", s.accepted[mark]), BeNumerically("<=", s.accepted[mark]+s.unsure[mark])), "occurrences of app-%d", i)
	}
}

// detached takes a Service's endpoints for the rest of the spec, and returns what gives
// them back. Connections that are open stay.
func detached(ctx context.Context, namespace, service string) (attach func(context.Context) error) {
	GinkgoHelper()
	attach, err := world.Detach(ctx, namespace, service)
	DeferCleanup(func(ctx SpecContext) { Expect(attach(ctx)).To(Succeed()) }, NodeTimeout(broken))
	Expect(err).NotTo(HaveOccurred())
	return attach
}

// unreachable cuts DataStorage off for the rest of the spec, connections that are open
// included, and returns what mends it.
func unreachable(ctx context.Context) (attach func(context.Context) error) {
	GinkgoHelper()
	attach = detached(ctx, "", "data-storage-service")
	signal(ctx, dataStorageApp, "SIGKILL") // ends the connections that are open
	return attach
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

// whole waits until the Gateway is ready as its senders see it.
func whole(ctx context.Context) {
	GinkgoHelper()
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
	Expect(world.AwaitReady(ctx, gatewayApp)).To(Succeed())
	Eventually(func(ctx context.Context) (*Answer, error) { return get(ctx, gateway.URL+"/") }).WithContext(ctx).
		Should(HaveStatus(http.StatusNotFound), "the Service leads to the Gateway again")
}

var _ = Describe("When DataStorage is away", Serial, Label("fault"), SpecPriority(last), func() {
	It("signals are still taken, readiness falls and returns, and every audit event arrives once", SpecTimeout(broken), func(ctx SpecContext) {
		first := created(ctx, alert(workload(ctx)))
		attach := unreachable(ctx)
		ns := workload(ctx)
		second := created(ctx, alert(ns))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Eventually(ready).WithContext(ctx).Should(And(HaveStatus(http.StatusServiceUnavailable), HaveField("Body", ContainSubstring("datastorage"))))
		Expect(must(get(ctx, "http://"+healthAt+"/healthz"))).To(HaveStatus(http.StatusOK))
		Expect(attach(ctx)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
		Expect(eventTypes(audited(ctx, second.Name, 3))).To(ConsistOf("gateway.signal.received", "gateway.crd.created", "gateway.signal.deduplicated"))
		audited(ctx, first.Name, 2)
		Expect(counted(ctx).Value("audit_events_dropped_total")).To(BeZero())
	})

	It("every audit event arrives, also those of a Gateway that is killed meanwhile, and the one that starts is ready afterwards", SpecTimeout(broken), func(ctx SpecContext) {
		attach := unreachable(ctx)
		ns := workload(ctx)
		response := created(ctx, alert(ns))
		for range 5 {
			Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		}
		restart(ctx)
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(ns)) }).WithContext(ctx).
			Should(HaveStatus(http.StatusAccepted), "the new process takes signals")
		Expect(must(get(ctx, "http://"+healthAt+"/healthz"))).To(HaveStatus(http.StatusOK))
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusServiceUnavailable))
		Expect(attach(ctx)).To(Succeed())
		whole(ctx)
		audited(ctx, response.Name, 8)
		Expect(counted(ctx).Value("audit_events_dropped_total")).To(BeZero())
		created(ctx, alert(workload(ctx)))
	})
})

var _ = Describe("When names do not resolve", Serial, Label("fault"), SpecPriority(last), func() {
	It("a Gateway that starts waits for them, and then sends its audit events", SpecTimeout(broken), func(ctx SpecContext) {
		attach := detached(ctx, "kube-system", "kube-dns")
		restart(ctx)
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusServiceUnavailable))
		Expect(attach(ctx)).To(Succeed())
		whole(ctx)
		audited(ctx, created(ctx, alert(workload(ctx))).Name, 2)
	})
})

var _ = Describe("When PostgreSQL and Redis are away", Serial, Label("fault"), SpecPriority(last), func() {
	It("signals are still taken and every audit event arrives once", SpecTimeout(broken), func(ctx SpecContext) {
		refused := func(ctx context.Context) (float64, error) {
			counted, err := metrics.Scrape(ctx, opsClient, must(run.Target.Address("data-storage-ops", "metrics")))
			return counted.Value("datastorage_events_total", "result", "refused"), err
		}
		before := must(refused(ctx))
		up, err := world.Cut(ctx, postgresApp, redisApp)
		DeferCleanup(func(ctx SpecContext) { Expect(up(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		ns := workload(ctx)
		response := created(ctx, alert(ns))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Eventually(refused).WithContext(ctx).Should(BeNumerically(">", before), "DataStorage can take nothing")
		Expect(up(ctx)).To(Succeed())
		audited(ctx, response.Name, 3)
		Expect(must(events.Verify(ctx, response.Name))).To(HaveField("Valid", true))
	})
})

var _ = Describe("When the Gateway's pod goes under load", Serial, Label("fault"), SpecPriority(last), func() {
	It("nothing that was accepted is lost after its process is killed, nor after it is deleted, and Alertmanager sends until it is taken", SpecTimeout(broken), func(ctx SpecContext) {
		ns := workload(ctx)
		restarted := notify(ctx, "restarted", alert(ns))
		storm := blow(ctx)
		storm.blows(ctx, perSecond/2)
		Eventually(restarted.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">=", 1)))
		killed := signal(ctx, gatewayApp, "SIGKILL")
		attach := detached(ctx, "", "gateway-service") // for longer than the kubelet takes to start it
		Eventually(restarted.sent).WithContext(ctx).Should(HaveField("Refused", BeNumerically(">=", 1)), "the fault happened")
		Expect(world.AwaitRestart(ctx, gatewayApp, killed)).To(Succeed())
		Expect(attach(ctx)).To(Succeed())
		storm.blows(ctx, perSecond/2)
		pods := must(world.Delete(ctx, gatewayApp))
		Expect(world.AwaitPods(ctx, gatewayApp, replaced(pods))).To(Succeed())
		before := must(restarted.sent(ctx)).Delivered()
		storm.blows(ctx, perSecond/2)
		storm.calm(ctx)
		Eventually(restarted.sent).WithContext(ctx).Should(HaveField("Delivered()", BeNumerically(">", before)))
		got := restarted.tallied(ctx, identity(ns))
		Expect(got.Sent.Failed).To(BeZero(), "Alertmanager gives nothing up")
		// A process that is killed may have counted what it did not answer.
		Expect(got.Counted).To(And(BeNumerically(">=", got.Sent.Delivered()), BeNumerically("<=", got.Sent.Requests)))
	})
})

// The process is told once: what the specs look at happens within its drain delay.
var _ = Describe("When the Gateway is told to end", Serial, Ordered, ContinueOnFailure, Label("fault"), SpecPriority(last), func() {
	var (
		ns, meanwhile *workloads.Namespace
		unready       *Answer
		served        *signals.Response // once it was not ready
		inFlight      map[int]int
		late          *Answer // begun once it was not ready, finished when it took nothing new
		code          int32   // the process ended with
	)
	BeforeAll(func(ctx SpecContext) {
		ns, meanwhile = workload(ctx), workload(ctx)
		all := holdAll(ctx, 30, sized(ns, 4<<10))
		// Its pod goes with what it might leave in its spool: no other process sends that.
		pod := must(world.Delete(ctx, gatewayApp))[0]
		DeferCleanup(whole, NodeTimeout(broken))
		ready := func(ctx context.Context) (*Answer, error) { return kube.Ask(ctx, pod.Name, "8081", "/readyz") }
		Eventually(ready).WithContext(ctx).WithPolling(10 * time.Millisecond).Should(HaveStatus(http.StatusServiceUnavailable))
		unready, served = must(ready(ctx)), send(ctx, alert(meanwhile))
		begun := must(hold(ctx, sized(ns, 4<<10))) // the time that it may take runs from here
		inFlight = finishAll(all)
		// Not asked before it says so: who asks is a caller, for whom it goes on.
		Expect(kube.AwaitLog(ctx, &pod, "drained")).To(Succeed())
		Eventually(takesNothing).WithContext(ctx).WithArguments(must(kube.PodTransport("https:"+pod.Name, "8080"))).WithPolling(10*time.Millisecond).
			Should(Succeed(), "the drain delay ends")
		late = must(begun.finish()) // nothing but the last flush sends its audit event
		code = must(world.ExitCode(ctx, pod))
	}, NodeTimeout(broken))

	It("it answers the requests in flight, flushes its audit events and exits with 0", SpecTimeout(broken), func(ctx SpecContext) {
		Expect(inFlight).To(Equal(map[int]int{http.StatusCreated: 1, http.StatusAccepted: 29}))
		Expect(late).To(HaveStatus(http.StatusAccepted))
		Expect(code).To(BeZero())
		found := remediations(ctx, identity(ns))
		Expect(found).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(31))))
		audited(ctx, found[0].Name, 32)
	})

	It("it is not ready from that moment, and serves until the others know", SpecTimeout(broken), func(ctx SpecContext) {
		Expect(unready.Body).To(ContainSubstring("shutting_down"))
		Expect(served).To(HaveStatus(http.StatusCreated))
		Expect(remediations(ctx, identity(meanwhile))).To(HaveLen(1))
	})
})

// halved is how many alerts a group has that a pause is to meet in its middle: the Gateway
// is busy with it for longer than it takes to stop the API server.
const halved = 200

// many makes workloads of a spec's own and returns an alert about each, and their
// fingerprints.
func many(ctx context.Context, n int) (alerts []signals.Alert, marks []string) {
	GinkgoHelper()
	ns := managed(ctx)
	var making errgroup.Group
	making.SetLimit(senders)
	for i := range n {
		name := fmt.Sprintf("app-%d", i)
		making.Go(func() error {
			_, err := ns.ReplicaSet(ctx, name)
			return err
		})
		alerts = append(alerts, signals.Firing("Down", "namespace", ns.Name, "replicaset", name))
		marks = append(marks, fingerprint(ns.Name+":ReplicaSet:"+name))
	}
	Expect(making.Wait()).To(Succeed())
	return alerts, marks
}

// none is the count of a problem that has no RemediationRequest.
const none = int64(-1)

// counts is how many of the problems have been counted how often. One whose RemediationRequest
// has no count yet has been counted 0 times.
func counts(ctx context.Context, marks []string) map[int64]int {
	GinkgoHelper()
	of := map[string]int64{}
	for _, mark := range marks {
		of[mark] = none
	}
	var list v1alpha1.RemediationRequestList
	Expect(kube.API.List(ctx, &list, client.InNamespace(kube.Target.Namespace))).To(Succeed())
	for _, rr := range list.Items {
		if count, ok := of[rr.Spec.SignalFingerprint]; ok {
			of[rr.Spec.SignalFingerprint] = max(count, 0) + occurrences(rr)
		}
	}
	found := map[int64]int{}
	for _, count := range of {
		found[count]++
	}
	return found
}

// It is stopped once, in the middle of a group of alerts and for as long as the Gateway takes
// to give up, while everything is asked.
var _ = Describe("When the API server does not answer", Serial, Ordered, ContinueOnFailure, Label("fault"), SpecPriority(last), func() {
	var (
		ns              *workloads.Namespace
		known, stranger *signals.Response
		unready, alive  *Answer
		group           *notifying
		marks           []string
	)
	BeforeAll(func(ctx SpecContext) {
		ns = workload(ctx)
		sender := gateway.As(must(run.Account(ctx, kube, uniqueName("known"), "gateway-signal-sender")))
		unknown := gateway.As(must(run.Account(ctx, kube, uniqueName("new"), "gateway-signal-sender")))
		alerts, fingerprints := many(ctx, halved)
		marks = fingerprints
		// From now on: a watch begins with all that the specs before have left.
		var now v1alpha1.RemediationRequestList
		Expect(kube.API.List(ctx, &now, client.InNamespace(kube.Target.Namespace), client.Limit(1))).To(Succeed())
		changes := must(kube.API.Watch(ctx, &v1alpha1.RemediationRequestList{}, client.InNamespace(kube.Target.Namespace),
			&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: now.ResourceVersion}}))
		defer changes.Stop()
		Expect(kube.AwaitAccess(ctx, sender.Token, "create", "gateway-service")).To(Succeed())
		freeze := freezes(ctx)
		group = notify(ctx, "paused", alerts...)
		Eventually(changes.ResultChan()).WithContext(ctx).Should(Receive(HaveField("Object", And(
			HaveField("Spec.SignalFingerprint", BeElementOf(marks)), HaveField("Status.Deduplication", Not(BeNil()))))))
		// Last of all, because the Gateway forgets three seconds later whom it knows. Whom other specs send as may be forgotten
		// in the next moment.
		Expect(must(sender.Alerts(ctx, alert(ns)))).To(HaveStatus(http.StatusCreated))
		Expect(freeze.Begin(ctx)).To(Succeed())
		var asking errgroup.Group
		asking.Go(func() (err error) { known, err = sender.Alerts(ctx, alert(ns)); return err })
		asking.Go(func() (err error) { stranger, err = unknown.Alerts(ctx, alert(ns)); return err })
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusServiceUnavailable))
		unready, alive = must(ready(ctx)), must(get(ctx, "http://"+healthAt+"/healthz"))
		Expect(asking.Wait()).To(Succeed())
		Eventually(group.sent).WithContext(ctx).Should(HaveField("Refused", BeNumerically(">", 0)))
		Expect(freeze.Thaw(ctx)).To(Succeed())
	}, NodeTimeout(broken))

	It("signals are refused for now, and taken again afterwards", SpecTimeout(broken), func(ctx SpecContext) {
		Expect(known.Code).To(BeElementOf(http.StatusServiceUnavailable, http.StatusGatewayTimeout), known.String())
		Expect(known).NotTo(BeProblem(http.StatusServiceUnavailable, "access-review-failed"))
		Expect(known.RetryAfter()).To(BeNumerically(">", 0))
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(ns)) }).WithContext(ctx).
			Should(HaveStatus(http.StatusAccepted), "the circuit breaker lets the Gateway try again")
	})

	It("a sender that is not known yet is told to come back", SpecTimeout(broken), func(SpecContext) {
		Expect(stranger).To(And(BeProblem(http.StatusServiceUnavailable, "access-review-failed"), beSecured()))
		Expect(stranger.RetryAfter()).To(BeNumerically(">", 0))
	})

	It("the Gateway is not ready, and ready again afterwards", SpecTimeout(broken), func(ctx SpecContext) {
		Expect(unready).To(HaveStatus(http.StatusServiceUnavailable))
		Expect(alive).To(HaveStatus(http.StatusOK))
		Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
	})

	It("Alertmanager tries a group again that was stopped in its middle, and nobody is counted twice", SpecTimeout(broken), func(ctx SpecContext) {
		// Some had been counted when the pause came, and Alertmanager was told that not all were.
		Eventually(group.sent).WithContext(ctx).WithTimeout(brief).Should(HaveField("Delivered()", 1))
		Expect(must(group.sent(ctx)).Failed).To(BeZero())
		Expect(counts(ctx, marks)).NotTo(HaveKey(none))
		Eventually(counts).WithContext(ctx).WithArguments(marks).Should(Equal(map[int64]int{1: halved}), "the first count is written after the request")
	})
})

var _ = Describe("When the Gateway loses its own permissions", Serial, Label("fault"), SpecPriority(last), func() {
	It("signals are refused for now, and taken again when it has them back", SpecTimeout(broken), func(ctx SpecContext) {
		ns := workload(ctx)
		grant, err := world.Revoke(ctx, "gateway")
		DeferCleanup(func(ctx SpecContext) { Expect(grant(ctx)).To(Succeed()) }, NodeTimeout(broken))
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(ns)) }).WithContext(ctx).
			Should(HaveStatus(http.StatusServiceUnavailable), "the authorizer learns of it by a watch")
		response := send(ctx, alert(ns))
		Expect(response.RetryAfter()).To(BeNumerically(">", 0))
		Expect(string(response.Body)).NotTo(ContainSubstring("serviceaccount"), "the inside stays inside")
		Expect(grant(ctx)).To(Succeed())
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(ns)) }).WithContext(ctx).
			Should(Or(HaveStatus(http.StatusCreated), HaveStatus(http.StatusAccepted)))
		mark := identity(ns)
		Eventually(events.Of).WithContext(ctx).WithArguments("rr-" + mark[:12]).Should(And(Not(BeEmpty()), HaveEach(beFailure(ns, mark))))
	})
})

var _ = Describe("At the quota of RemediationRequests", Serial, Label("fault"), SpecPriority(last), func() {
	It("new problems are refused for now, those that are known are taken, and all of them afterwards", SpecTimeout(broken), func(ctx SpecContext) {
		const count = "count/remediationrequests.kubernaut.ai"
		known := workload(ctx)
		created(ctx, alert(known))
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: kube.Target.Namespace, Name: run.Name(uniqueName("full"))},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{count: resource.MustParse("0")}},
		}
		Expect(kube.API.Create(ctx, quota)).To(Succeed())
		lift := func(ctx context.Context) error { return client.IgnoreNotFound(kube.API.Delete(ctx, quota)) }
		DeferCleanup(func(ctx SpecContext) { Expect(lift(ctx)).To(Succeed()) }, NodeTimeout(settled))
		Expect(cluster.Await(ctx, kube, quota, func(quota *corev1.ResourceQuota) (bool, string) {
			_, used := quota.Status.Used[count]
			return used, "not counted yet"
		})).To(Succeed())
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(workload(ctx))) }).WithContext(ctx).
			Should(HaveStatus(http.StatusServiceUnavailable), "the API server learns of it by a watch")

		fresh, before := workload(ctx), counted(ctx)
		response := send(ctx, alert(fresh))
		Expect(response).To(BeProblem(http.StatusServiceUnavailable, "quota-exceeded"), "Alertmanager drops what is answered 403")
		Expect(response.RetryAfter()).To(BeNumerically(">", 0))
		Expect(counted(ctx).Value("gateway_crd_creation_errors_total", "error_type", "quota") - before.Value("gateway_crd_creation_errors_total", "error_type", "quota")).
			To(BeEquivalentTo(1))
		Expect(send(ctx, alert(known))).To(HaveStatus(http.StatusAccepted))
		Expect(counted(ctx).Value("gateway_circuit_breaker_state")).To(BeZero())
		Expect(lift(ctx)).To(Succeed())
		Eventually(func(ctx context.Context) (*signals.Response, error) { return gateway.Alerts(ctx, alert(fresh)) }).WithContext(ctx).
			Should(HaveStatus(http.StatusCreated))
	})
})

var _ = Describe("When one sender keeps asking for what does not exist", Serial, Label("fault"), SpecPriority(last), func() {
	It("no other is harmed", SpecTimeout(broken), func(ctx SpecContext) {
		var bad []signals.Alert
		for range 60 {
			bad = append(bad, signals.Firing("Down", "namespace", uniqueName("nowhere"), "pod", "ghost"))
		}
		Expect(together(ctx, bad...)).To(Equal(map[int]int{http.StatusOK: 60}))
		Expect(counted(ctx).Value("gateway_circuit_breaker_state")).To(BeZero())
		created(ctx, alert(workload(ctx)))
	})
})

var _ = Describe("When many send the worst bodies there are at once", Serial, Label("fault"), SpecPriority(last), func() {
	It("the Gateway's process goes on, and takes small ones meanwhile", SpecTimeout(broken), func(ctx SpecContext) {
		ns := workload(ctx)
		before := must(world.Pods(ctx, gatewayApp))
		// Each fills the largest body that is taken; none of them is padded with what costs nothing.
		fill := func(head, unit, tail string) []byte {
			n := (limitBytes - len(head) - len(tail)) / len(unit)
			return []byte(head + strings.TrimSuffix(strings.Repeat(unit, n), ",") + tail)
		}
		common := fmt.Sprintf(`{"commonLabels":{"alertname":"Down","namespace":%q,"replicaset":"app"},"alerts":[`, ns.Name)
		large := must(json.Marshal(signals.Notify(copies(8, alert(ns).With("description", strings.Repeat("x", 100<<10)))...)))
		bodies := [][]byte{
			fill(common, `{},`, `{"startsAt":"2026-01-01T00:00:00Z"}]}`),
			fill(`{"alerts":[{"labels":{"alertname":"Down"},"x":[`, `1,`, `1]}]}`),
			fill(`{"alerts":[{"labels":{"alertname":"Down"},"x":[`, `{"":{}},`, `{}]}]}`),
			fill(`{"alerts":`, `[`, ``),
			fill(`{"alerts":[{"labels":{"alertname":"Down","x":"`, `\u0000`, `"}}]}`),
			large,
		}
		var mu sync.Mutex
		codes := map[int]int{}
		var storm errgroup.Group
		for i := range 120 {
			storm.Go(func() error {
				response, err := gateway.Post(ctx, signals.PrometheusPath, bodies[i%len(bodies)])
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				codes[response.Code]++
				return nil
			})
		}
		for range 20 {
			Expect(send(ctx, alert(ns)).Code).To(BeElementOf(http.StatusCreated, http.StatusAccepted), "a small one")
		}
		Expect(storm.Wait()).To(Succeed(), "every body is answered")
		Expect(codes[http.StatusServiceUnavailable]).To(BeNumerically(">", 0), "the bound was met: %v", codes)
		after := must(world.Pods(ctx, gatewayApp))
		Expect(after).To(HaveLen(len(before)))
		for i := range after {
			Expect(after[i].Status.ContainerStatuses[0].RestartCount).To(Equal(before[i].Status.ContainerStatuses[0].RestartCount), "%s was killed: %v", after[i].Name, codes)
		}
	})
})

// freezes gets ready to stop the API server. It is continued at the end of the spec in any
// case, and the spec ends when the cluster is well again.
func freezes(ctx context.Context) *faults.Freeze {
	GinkgoHelper()
	freeze := must(world.PrepareFreeze(ctx))
	DeferCleanup(func(ctx SpecContext) {
		Expect(freeze.Thaw(ctx)).To(Succeed())
		whole(ctx)
	}, NodeTimeout(broken))
	return freeze
}

// takesNothing says that a pod, which is still there, accepts no connection: the API server
// does not get one.
func takesNothing(ctx context.Context, pod http.RoundTripper) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://gateway/", nil)
	if err != nil {
		return err
	}
	answer, err := Send(&http.Client{Transport: pod}, request)
	if err == nil && answer.Code != http.StatusServiceUnavailable && answer.Code != http.StatusBadGateway {
		err = fmt.Errorf("still serves: %s", answer)
	}
	return err
}

// restart kills the Gateway's process and returns when the kubelet has started another.
func restart(ctx context.Context) {
	GinkgoHelper()
	Expect(world.AwaitRestart(ctx, gatewayApp, signal(ctx, gatewayApp, "SIGKILL"))).To(Succeed())
}

// replaced says that new pods run in place of the old ones, ready or not.
func replaced(old []corev1.Pod) func([]corev1.Pod) bool {
	return func(now []corev1.Pod) bool {
		for _, pod := range now {
			for _, before := range old {
				if pod.Name == before.Name {
					return false
				}
			}
			if pod.Status.Phase != corev1.PodRunning {
				return false
			}
		}
		return len(now) > 0
	}
}
