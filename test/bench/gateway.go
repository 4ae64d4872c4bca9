package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/metrics"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/workloads"
)

// removers is how many requests are removed at once.
const removers = 16

// maxProblems bounds how many RemediationRequests a run opens. Each takes some 4 KiB
// in etcd and in the API server's memory.
const maxProblems = 20_000

// eventsOfCreated is how many audit events a signal makes that opens a request; one
// that is counted makes one.
const eventsOfCreated = 2

// gateway is what the Gateway's scenarios work on.
type gateway struct {
	*bed
	namespace string
	problems  []*problem // one for each sender
	storm     *problem   // one for all senders
	opened    opened     // by the scenario of new signals
}

// problem is an alert about a workload whose request is open.
type problem struct {
	alert    signals.Alert
	request  string       // name of its RemediationRequest
	counted  atomic.Int64 // duplicates that were answered with 202
	doubtful atomic.Int64 // duplicates without such an answer: counted or not
}

// opened are the requests that new signals opened.
type opened struct {
	mu       sync.Mutex
	requests []string
	doubtful int
}

// newGateway makes a workload with a pod for each sender, and opens a request for each.
func (b *bed) newGateway(ctx context.Context) (*gateway, error) {
	g := &gateway{bed: b, namespace: b.run.Name(purpose)}
	b.status("making %d workloads", senders+1)
	namespace, err := workloads.NewNamespace(ctx, b.kube, g.namespace, b.run.Run, workloads.LabelManaged, "true")
	if err != nil {
		return nil, err
	}
	for i := range senders + 1 {
		// The Gateway walks from the pod over its ReplicaSet to its Deployment, as it
		// does for most alerts.
		_, pod, err := namespace.DeploymentWithPod(ctx, fmt.Sprintf("workload-%d", i))
		if err != nil {
			return nil, err
		}
		p := &problem{alert: signals.Firing("RequestLatencyHigh", "namespace", g.namespace, "pod", pod.Name)}
		answer, err := b.sender.Alerts(ctx, p.alert)
		if err != nil {
			return nil, err
		}
		if answer.Code != http.StatusCreated {
			return nil, fmt.Errorf("first signal about Pod/%s: %s", pod.Name, answer)
		}
		p.request = answer.Name
		g.problems = append(g.problems, p)
	}
	g.storm, g.problems = g.problems[senders], g.problems[:senders]
	return g, nil
}

// scenarios are the Gateway's. Duplicates come before and after the new signals: with
// them thousands of requests are there.
func (g *gateway) scenarios() []scenario {
	duplicates := []bound{{what: rate, least: 300, unit: "/s"}, {what: p99, most: 100, unit: "ms"}}
	fresh := planFor(senders)
	fresh.MaxCalls = maxProblems
	return []scenario{
		{
			name: "gateway: duplicates of 16 problems", unit: "signals", perCall: 1, plan: planFor(senders), goals: duplicates,
			call:  func(ctx context.Context, worker, _ int) error { return g.repeat(ctx, g.problems[worker]) },
			check: func(ctx context.Context) ([]string, error) { return g.checkCounts(ctx, g.problems...) },
		},
		{
			name: "gateway: duplicates of one problem", unit: "signals", perCall: 1, plan: planFor(senders), goals: duplicates,
			call:  func(ctx context.Context, _, _ int) error { return g.repeat(ctx, g.storm) },
			check: func(ctx context.Context) ([]string, error) { return g.checkCounts(ctx, g.storm) },
		},
		{
			name: "gateway: new problems", unit: "signals", perCall: 1, plan: fresh,
			call: g.open, check: g.checkOpened,
		},
		{
			name: "gateway: duplicates beside those", unit: "signals", perCall: 1, plan: planFor(senders), goals: duplicates,
			call:  func(ctx context.Context, worker, _ int) error { return g.repeat(ctx, g.problems[worker]) },
			check: func(ctx context.Context) ([]string, error) { return g.checkCounts(ctx, g.problems...) },
		},
	}
}

// repeat sends a duplicate.
func (g *gateway) repeat(ctx context.Context, p *problem) error {
	answer, err := g.sender.Alerts(ctx, p.alert)
	if err == nil && answer.Code == http.StatusAccepted && answer.Name == p.request {
		p.counted.Add(1)
		return nil
	}
	p.doubtful.Add(1)
	return refusal(answer, err)
}

// open sends a signal about a problem that is new: the same workload in another cluster.
func (g *gateway) open(ctx context.Context, worker, n int) error {
	answer, err := g.sender.Alerts(ctx, g.problems[worker].alert.With("cluster", fmt.Sprintf("cluster-%d", n)))
	g.opened.mu.Lock()
	defer g.opened.mu.Unlock()
	if err == nil && answer.Code == http.StatusCreated {
		g.opened.requests = append(g.opened.requests, answer.Name)
		return nil
	}
	g.opened.doubtful++
	return refusal(answer, err)
}

// refusal is an answer that is no success in a few words, which are the same for
// every request.
func refusal(answer *signals.Response, err error) error {
	switch {
	case err != nil:
		return errors.New("no answer") // its text names the connection
	case answer.Code >= http.StatusBadRequest:
		return fmt.Errorf("%d %s", answer.Code, path.Base(answer.Problem().Type))
	default:
		return fmt.Errorf("%d %s", answer.Code, answer.Status)
	}
}

// checkCounts compares the occurrences that are stored with the answers.
func (g *gateway) checkCounts(ctx context.Context, all ...*problem) ([]string, error) {
	var wrong, requests []string
	var events, doubtful int64
	for _, p := range all {
		rr := &v1alpha1.RemediationRequest{}
		if err := g.kube.API.Get(ctx, client.ObjectKey{Namespace: g.target.Namespace, Name: p.request}, rr); err != nil {
			return nil, err
		}
		var stored int64
		if seen := rr.Status.Deduplication; seen != nil {
			stored = seen.OccurrenceCount
		}
		answered := 1 + p.counted.Load()
		if stored < answered || stored > answered+p.doubtful.Load() {
			wrong = append(wrong, fmt.Sprintf("%s counts %d occurrences; %d were answered, %d are in doubt", p.request, stored, answered, p.doubtful.Load()))
		}
		requests = append(requests, p.request)
		events += eventsOfCreated + p.counted.Load()
		doubtful += p.doubtful.Load()
	}
	more, err := g.checkAudit(ctx, requests, events, doubtful)
	return append(wrong, more...), err
}

// checkOpened compares the requests that are there with the answers.
func (g *gateway) checkOpened(ctx context.Context) ([]string, error) {
	present, err := g.requests(ctx, g.namespace)
	if err != nil {
		return nil, err
	}
	var others []string // that were there before
	for _, p := range append(slices.Clone(g.problems), g.storm) {
		others = append(others, p.request)
	}
	g.opened.mu.Lock()
	defer g.opened.mu.Unlock()
	answered := g.opened.requests
	var wrong []string
	if unique := len(set(answered)); unique != len(answered) {
		wrong = append(wrong, fmt.Sprintf("%d answers named %d requests", len(answered), unique))
	}
	there := set(present)
	missing := slices.DeleteFunc(slices.Clone(answered), func(name string) bool { return there[name] })
	if len(missing) > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d requests that were answered are not there, such as %s", len(missing), len(answered), missing[0]))
	}
	if extra := len(present) - len(others) - len(answered); extra > g.opened.doubtful {
		wrong = append(wrong, fmt.Sprintf("%d requests are there beyond the %d that were answered; %d are in doubt", extra, len(answered), g.opened.doubtful))
	}
	more, err := g.checkAudit(ctx, answered, int64(len(answered))*eventsOfCreated, 0)
	return append(wrong, more...), err
}

// checkAudit waits until the Gateway has handed its audit events to DataStorage.
func (g *gateway) checkAudit(ctx context.Context, requests []string, events, doubtful int64) ([]string, error) {
	wrong, err := g.awaitStored(ctx, requests, events, events+doubtful)
	if err != nil || wrong == "" {
		return nil, err
	}
	families, err := metrics.Scrape(ctx, g.scrape, g.metrics["gateway"])
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("audit: %s; the Gateway has dropped %.0f since it was started", wrong, families.Value("audit_events_dropped_total"))}, nil
}

// requests are the names of the requests about workloads in this namespace.
func (b *bed) requests(ctx context.Context, namespace string) ([]string, error) {
	var list v1alpha1.RemediationRequestList
	if err := b.kube.API.List(ctx, &list, client.InNamespace(b.target.Namespace)); err != nil {
		return nil, err
	}
	var names []string
	for _, rr := range list.Items {
		if rr.Spec.TargetResource.Namespace == namespace {
			names = append(names, rr.Name)
		}
	}
	return names, nil
}

// forget removes the run's requests. There may be thousands, so many at once.
func (b *bed) forget(ctx context.Context) error {
	names, err := b.requests(ctx, b.run.Name(purpose))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(removers)
	for _, name := range names {
		group.Go(func() error {
			rr := &v1alpha1.RemediationRequest{}
			rr.Namespace, rr.Name = b.target.Namespace, name
			return client.IgnoreNotFound(b.kube.API.Delete(ctx, rr))
		})
	}
	return group.Wait()
}

func set(names []string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}
