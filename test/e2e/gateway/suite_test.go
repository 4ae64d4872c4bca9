// Package gateway_test says what must be true of a deployed Gateway. It connects to the
// environment that target.json describes, and builds and deploys nothing.
package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/alertmanager"
	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/faults"
	"kubernaut.ai/e2e/test/e2e/journal"
	"kubernaut.ai/e2e/test/e2e/session"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/e2e/workloads"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

const (
	// brief bounds a spec that only asks and is answered. The Gateway answers within its
	// own deadline of 15 s or says 504; what takes longer hangs.
	brief = 20 * time.Second
	// settled bounds what the services do by themselves within a second or two: flush
	// audit events, probe a dependency, forget a decision. The rest is for a machine
	// with two cores on which everything runs at once.
	settled = 10 * time.Second
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

// The problems by which the Gateway refuses.
const (
	malformed     = "malformed-body"
	badSignal     = "invalid-signal"
	outsideWindow = "outside-replay-window"
)

// The reasons for which the Gateway makes nothing of a signal that it has understood.
const (
	noObject       = "no_kubernetes_object"
	noSuchObject   = "resource_not_found"
	unmanagedScope = "unmanaged_resource"
)

// beRejectedFor matches the answer to a signal that nothing is made of.
func beRejectedFor(reason string) OmegaMatcher {
	return And(HaveStatus(http.StatusOK), HaveField("Result", MatchFields(IgnoreExtras, Fields{
		"Status": Equal("rejected"), "Name": BeEmpty(), "Message": Not(BeEmpty()),
		"Rejection": PointTo(MatchFields(IgnoreExtras, Fields{"Reason": Equal(reason), "Message": Not(BeEmpty())})),
	})))
}

// What every process of the suite has. Set once, before the first spec.
var (
	run     *session.Session
	kube    *cluster.Cluster
	gateway *signals.Sender            // allowed to send
	monitor *alertmanager.Alertmanager // sends to the Gateway what it is told
	events  *audit.Trail
	world   *faults.Injector
	said    = &journal.Journal{}
	common  *workloads.Namespace // the process's, managed: a namespace for every spec would cost the controllers minutes

	opsClient *http.Client
	secure    *tls.Config // of connections to the Gateway
	healthAt  string      // host:port of /healthz and /readyz
	metricsAt string      // host:port of /metrics
)

// The apps of the environment.
var (
	gatewayApp     = faults.App{Name: "gateway"}
	dataStorageApp = faults.App{Name: "datastorage"}
	postgresApp    = faults.App{Name: "postgresql", Stateful: true}
	redisApp       = faults.App{Name: "redis", Stateful: true}
	dnsApp         = faults.App{Namespace: "kube-system", Name: "coredns", Label: "k8s-app=kube-dns"}
)

func TestGateway(t *testing.T) {
	RegisterFailHandler(Fail)
	session.Format()
	SetDefaultEventuallyTimeout(settled)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "Gateway")
}

// The first process makes the accounts and waits until the very token that will be used
// is let through; the others connect.
var _ = SynchronizedBeforeSuite(func(ctx SpecContext) []byte {
	wd := must(os.Getwd())
	run = session.Begin(must(target.Read(os.Getenv, wd)))
	kube = must(cluster.Connect(run.Target))
	Expect(run.Sweep(ctx, kube, os.Getenv)).To(Succeed())
	run.Tokens["sender"] = must(run.Account(ctx, kube, "sender", "gateway-signal-sender"))
	run.Tokens["auditor"] = must(run.Account(ctx, kube, "auditor", "data-storage-reader"))
	Expect(kube.AwaitAccess(ctx, run.Tokens["sender"], "create", "gateway-service")).To(Succeed())
	Expect(kube.AwaitAccess(ctx, run.Tokens["auditor"], "get", "data-storage-service")).To(Succeed())
	return must(run.Encode())
}, func(ctx SpecContext, payload []byte) {
	run = must(session.Decode(payload))
	kube = must(cluster.Connect(run.Target))
	world = &faults.Injector{Cluster: kube, Runner: command.Local{}, Tell: tell}
	secure = must(kube.TLS(ctx, "gateway-service"))
	opsClient = &http.Client{Transport: said.Transport(&http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}), Timeout: settled}
	healthAt = must(run.Target.Address("gateway-ops", "health"))
	metricsAt = must(run.Target.Address("gateway-ops", "metrics"))
	gateway = &signals.Sender{
		URL:    "https://" + must(run.Target.Address("gateway-service", "api")),
		Token:  run.Tokens["sender"],
		Client: &http.Client{Transport: said.Transport(newTransport())},
	}
	monitor = &alertmanager.Alertmanager{Address: must(run.Target.Address("alertmanager", "web")), Client: &http.Client{Transport: said.Transport(newTransport()), Timeout: settled}}
	events = must(audit.Connect(ctx, kube, run.Tokens["auditor"], said.Transport))
	common = managed(ctx)
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK)) // after a restart of the node it looks for what it depends on
}, NodeTimeout(broken))

var _ = BeforeEach(func() {
	said.Reset()
	DeferOnFailure(func(ctx SpecContext) {
		AddReportEntry("what was said", session.Evidence(ctx, kube, said, "gateway", "datastorage"))
	}, NodeTimeout(settled))
})

// At the end the world is whole again, whatever the faults were.
var _ = SynchronizedAfterSuite(func() {}, func(ctx SpecContext) {
	if world == nil {
		return // the environment was never reached, which has been said
	}
	for _, app := range []faults.App{gatewayApp, dataStorageApp, postgresApp, redisApp, dnsApp} {
		Expect(world.AwaitReady(ctx, app)).To(Succeed())
	}
	Eventually(ready).WithContext(ctx).Should(HaveStatus(http.StatusOK))
}, NodeTimeout(broken))

// What a run made stays only if a spec failed: it is evidence then.
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

// must2 is must for two values.
func must2[A, B any](a A, b B, err error) (A, B) {
	GinkgoHelper()
	Expect(err).NotTo(HaveOccurred())
	return a, b
}

// newTransport keeps as many connections as the largest spec sends requests at once.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: settled}).DialContext,
		TLSClientConfig:     secure,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     KeepIdle,
	}
}

// uniqueName is a name that nothing else has: <prefix>-<process>-<8 hex>.
func uniqueName(prefix string) string {
	return fmt.Sprintf("%s-%d-%s", prefix, GinkgoParallelProcess(), uuid.NewString()[:8])
}

// namespace makes the spec's own namespace with these labels.
func namespace(ctx context.Context, labels ...string) *workloads.Namespace {
	GinkgoHelper()
	return must(workloads.NewNamespace(ctx, kube, uniqueName("gw"), run.Run, labels...))
}

// managed makes the spec's own namespace, in which the Gateway may act.
func managed(ctx context.Context) *workloads.Namespace {
	GinkgoHelper()
	return namespace(ctx, workloads.LabelManaged, "true")
}

// workload makes a Deployment of the spec's own in a managed namespace that it shares.
func workload(ctx context.Context) *workloads.Namespace {
	GinkgoHelper()
	return must(common.Place(ctx, uniqueName("app")))
}

// alert is a firing alert about a namespace's App.
func alert(ns *workloads.Namespace, labels ...string) signals.Alert {
	return signals.Firing("KubeDeploymentReplicasMismatch", "namespace", ns.Name, "deployment", ns.App).With(labels...)
}

// send sends alerts in one webhook and returns the answer, whatever it is.
func send(ctx context.Context, alerts ...signals.Alert) *signals.Response {
	GinkgoHelper()
	return must(gateway.Alerts(ctx, alerts...))
}

// created sends an alert that must be a new problem.
func created(ctx context.Context, alert signals.Alert) *signals.Response {
	GinkgoHelper()
	response := send(ctx, alert)
	Expect(response).To(HaveStatus(http.StatusCreated))
	return response
}

// remediation reads the RemediationRequest of an answer.
func remediation(ctx context.Context, response *signals.Response) *v1alpha1.RemediationRequest {
	GinkgoHelper()
	request := &v1alpha1.RemediationRequest{}
	Expect(kube.API.Get(ctx, client.ObjectKey{Namespace: response.Namespace, Name: response.Name}, request)).To(Succeed(), response.String())
	return request
}

// remediations lists what a fingerprint has.
func remediations(ctx context.Context, fingerprint string) []v1alpha1.RemediationRequest {
	GinkgoHelper()
	var list v1alpha1.RemediationRequestList
	Expect(kube.API.List(ctx, &list, client.InNamespace(kube.Target.Namespace),
		client.MatchingFields{"spec.signalFingerprint": fingerprint})).To(Succeed())
	return list.Items
}

// identity is the fingerprint of the problems of a namespace's App.
func identity(ns *workloads.Namespace) string {
	return fingerprint(ns.Name + ":Deployment:" + ns.App)
}

// fingerprint is the identity of a workload's problems: SHA-256 of the parts with
// colons between them.
func fingerprint(parts string) string {
	sum := sha256.Sum256([]byte(parts))
	return hex.EncodeToString(sum[:])
}

// ready asks the Gateway whether it is ready.
func ready(ctx context.Context) (*Answer, error) { return get(ctx, "http://"+healthAt+"/readyz") }

// get reads a URL on a connection of its own, so that it reaches the pod that serves now.
func get(ctx context.Context, url string) (*Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return Send(opsClient, request)
}
