// Package bench loads the services of a deployed environment and reports what they
// did: calls a second with percentiles, CPU and memory, and whether everything that
// was answered is stored. It is no test: a goal that is missed is reported and is no
// error. Load comes from this process, through the ports of 127.0.0.1, so everything
// shares one machine.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/test/bench/usage"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/session"
	"kubernaut.ai/e2e/test/e2e/signals"
	"kubernaut.ai/e2e/test/e2e/stores"
	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/command"
)

const (
	// whole bounds the benchmark. Its scenarios take two minutes, checking and
	// removing what they stored takes one more; those that are to be endured take longer.
	whole = 15*time.Minute + 2*endured
	// endured is how long the services have to endure everything.
	endured = 20 * time.Minute
	// tidying bounds the removal of what the benchmark made.
	tidying = 3 * time.Minute
	// quiet is how long the machine is looked at before the first load.
	quiet = 3 * time.Second
	// settling bounds the wait for services that were deployed a moment ago, and for a
	// cluster that still deletes what a suite has made.
	settling = 2 * time.Minute
	// idle is how many cores an idle cluster keeps busy, and some more.
	idle = 0.5
	// answerTimeout bounds a call: longer than the services' own deadlines.
	answerTimeout = 30 * time.Second
)

// purpose is in the names of what a run makes in the cluster.
const purpose = "bench"

// bed is what the scenarios work with.
type bed struct {
	target  *target.Target
	runner  command.Runner
	status  func(format string, args ...any)
	run     *session.Session
	kube    *cluster.Cluster
	sender  *signals.Sender
	trail   *audit.Trail
	store   *pgx.Conn
	metrics map[string]string // host:port of each service's metrics
	scrape  *http.Client
}

// Services loads the Gateway and DataStorage of the environment one scenario after
// the other, those whose names focus matches, prints the report on out and writes it to
// bench.json in the folder evidence. progress gets a line for each step. Its error says
// that the benchmark could not run, or what was answered and is not stored.
func Services(ctx context.Context, t *target.Target, focus *regexp.Regexp, evidence string, out, progress io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, whole, fmt.Errorf("not done after %s", whole))
	defer cancel()
	status := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }
	report, err := measureAll(ctx, t, command.Local{}, focus, status)
	if report == nil {
		return err
	}
	file := filepath.Join(evidence, "bench.json")
	err = errors.Join(err, report.write(file), report.Print(out))
	status("%s; %s", report.summary(), file)
	if len(report.Problems) > 0 {
		err = errors.Join(err, errors.New(strings.Join(report.Problems, "\n")))
	}
	return err
}

// measureAll runs the scenarios whose names focus matches. The report holds those that
// were finished; it is nil when none could begin.
func measureAll(ctx context.Context, t *target.Target, runner command.Runner, focus *regexp.Regexp, status func(string, ...any)) (report *Report, err error) {
	status("connecting")
	b, err := newBed(ctx, t, runner, status)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	report, err = b.newReport(ctx)
	if err != nil {
		return nil, err
	}
	gateway, err := b.newGateway(ctx)
	if err != nil {
		return nil, err
	}
	dataStorage, err := b.dataStorageScenarios()
	if err != nil {
		return nil, err
	}
	all := slices.Concat(gateway.scenarios(), dataStorage)
	if focus.String() != "" { // only who asks for it
		all = append(all, gateway.endurance(endured), gateway.endurance(endured/4))
	}
	for _, next := range all {
		if !focus.MatchString(next.name) {
			continue
		}
		status("%s", next.name)
		measured, err := b.measure(ctx, next)
		if err != nil {
			return report, fmt.Errorf("%s: %w", next.name, err)
		}
		report.Scenarios = append(report.Scenarios, measured)
		status("%s: %s; checking", next.name, measured.brief())
		problems, err := next.check(ctx)
		if err != nil {
			return report, fmt.Errorf("%s: check: %w", next.name, err)
		}
		for _, problem := range problems {
			report.Problems = append(report.Problems, next.name+": "+problem)
		}
	}
	report.judge()
	return report, nil
}

func newBed(ctx context.Context, t *target.Target, runner command.Runner, status func(string, ...any)) (*bed, error) {
	b := &bed{
		target: t, runner: runner, status: status, run: session.Begin(t), metrics: map[string]string{},
		scrape: &http.Client{Timeout: answerTimeout},
	}
	for service, ops := range map[string]string{"gateway": "gateway-ops", "datastorage": "data-storage-ops"} {
		address, err := t.Address(ops, "metrics")
		if err != nil {
			return nil, err
		}
		b.metrics[service] = address
	}
	var err error
	if b.kube, err = cluster.Connect(t); err != nil {
		return nil, err
	}
	b.store, err = stores.Postgres(ctx, b.kube, "")
	return b, err
}

// connect makes the account that sends and waits until it may.
func (b *bed) connect(ctx context.Context) error {
	token, err := b.run.Account(ctx, b.kube, purpose, "gateway-signal-sender", "data-storage-writer", "data-storage-reader")
	if err != nil {
		return err
	}
	for _, right := range [][2]string{{"create", "gateway-service"}, {"create", "data-storage-service"}, {"get", "data-storage-service"}} {
		if err := b.kube.AwaitAccess(ctx, token, right[0], right[1]); err != nil {
			return err
		}
	}
	address, err := b.target.Address("gateway-service", "api")
	if err != nil {
		return err
	}
	// As many connections as senders, kept open: what is measured is the service.
	config, err := b.kube.TLS(ctx, "gateway-service")
	if err != nil {
		return err
	}
	b.sender = &signals.Sender{URL: "https://" + address, Token: token, Client: &http.Client{
		Timeout: answerTimeout, Transport: &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: senders},
	}}
	b.trail, err = audit.Connect(ctx, b.kube, token, func(inner http.RoundTripper) http.RoundTripper { return inner })
	if err == nil {
		b.trail.HTTP.Timeout = answerTimeout
	}
	return err
}

// newReport looks at the machine while there is no load yet.
func (b *bed) newReport(ctx context.Context) (*Report, error) {
	before, after, err := b.settle(ctx)
	if err != nil {
		return nil, err
	}
	_, busy := after.node.Since(before.node)
	report := &Report{
		Cluster: b.target.Cluster, Variant: b.target.Variant, Started: time.Now().UTC(), CPUs: after.node.CPUs, BusyBefore: busy,
		ResidentBeforeMiB: map[string]float64{},
	}
	for name, service := range after.services {
		report.ResidentBeforeMiB[name] = service.ResidentBytes / mebibyte
	}
	return report, nil
}

// settle looks twice, until each service is the same process both times and the
// machine is quiet: after a deployment ports may lead to the pod before for some
// seconds, and after a suite namespaces are being deleted for a minute. Nothing tells
// when either is over, so it has to be tried. A machine that does not become quiet is
// no error; the report says how busy it was.
func (b *bed) settle(ctx context.Context) (before, after moment, err error) {
	deadline := time.Now().Add(settling)
	for {
		var busy float64
		if before, err = b.moment(ctx); err == nil {
			err = pause(ctx, quiet)
		}
		if err == nil {
			after, err = b.moment(ctx)
		}
		if err == nil {
			_, busy = after.node.Since(before.node)
			_, _, err = after.since(before)
		}
		if err == nil && busy <= idle || time.Now().After(deadline) {
			return before, after, err
		}
		if err == nil {
			b.status("waiting for a quiet machine: %.1f cores are busy", busy)
		} else {
			b.status("waiting for the services: %v", err)
		}
		if err := pause(ctx, time.Second); err != nil {
			return before, after, err
		}
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close removes what the run made. Audit events stay; nothing can remove them.
func (b *bed) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tidying)
	defer cancel()
	b.status("removing what the benchmark made")
	return errors.Join(b.store.Close(ctx), b.forget(ctx), b.run.End(ctx, b.kube))
}

// moment is who has used how much until now.
type moment struct {
	node     usage.Node
	services map[string]usage.Service
	self     time.Duration
	at       time.Time
}

func (b *bed) moment(ctx context.Context) (moment, error) {
	m := moment{services: map[string]usage.Service{}}
	var err error
	for i, name := range b.target.Nodes {
		node, err := usage.ReadNode(ctx, b.runner, b.target.Engine, name)
		if err != nil {
			return m, err
		}
		if i == 0 {
			m.node = node
			continue
		}
		for program, used := range node.Programs {
			m.node.Programs[program] += used
		}
	}
	for service, address := range b.metrics {
		if m.services[service], err = usage.ReadService(ctx, b.scrape, address); err != nil {
			return m, err
		}
	}
	m.at = time.Now()
	m.self, err = usage.Self()
	return m, err
}
