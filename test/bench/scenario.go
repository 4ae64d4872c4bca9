package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kubernaut.ai/e2e/test/bench/load"
	"kubernaut.ai/e2e/test/bench/usage"
)

const (
	// warmUp fills connections, caches and pools, and lets the services' heaps grow.
	warmUp = 3 * time.Second
	// window is what is measured of each scenario: long enough for several collections
	// of garbage and for the API server's and PostgreSQL's periodic work.
	window = 15 * time.Second
	// maxCalls is more than any scenario makes in that time, by far.
	maxCalls = 200_000

	// senders is how many signals are on their way at once: two Alertmanagers send no
	// more. More would only queue on two cores.
	senders = 16
	// writers is how many single events are; the Gateway writes one batch at a time, so
	// a few batch writers stand for as many Gateways.
	writers, batchWriters = 16, 4
)

// scenario is one kind of load on one service.
type scenario struct {
	name    string
	unit    string // what is counted: signals or events
	perCall int    // how many of them a call carries
	plan    load.Plan
	call    load.Call
	goals   []bound
	// check compares what is stored with what was answered, and says what differs.
	check func(ctx context.Context) (problems []string, err error)
}

// planFor is the usual plan with so many workers.
func planFor(workers int) load.Plan {
	return load.Plan{Workers: workers, WarmUp: warmUp, Duration: window, MaxCalls: maxCalls}
}

// measure runs a scenario.
func (b *bed) measure(ctx context.Context, s scenario) (Scenario, error) {
	watches := map[string]*usage.Watch{}
	for service, address := range b.metrics {
		watches[service] = usage.Follow(ctx, b.scrape, address)
	}
	var looks []moment
	result, err := load.Run(ctx, s.plan, s.call, func(ctx context.Context) error {
		m, err := b.moment(ctx)
		looks = append(looks, m)
		return err
	})
	resident := map[string]float64{}
	for service, watch := range watches {
		peak, watchErr := watch.Stop()
		if watchErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", service, watchErr))
		}
		resident[service] = peak / mebibyte
	}
	if err != nil {
		return Scenario{}, err
	}
	cores, busy, err := looks[1].since(looks[0])
	if err != nil {
		return Scenario{}, err
	}
	measured := newScenario(s, result)
	measured.use(cores, busy, resident)
	return measured, nil
}

// shown are the programs of a node that are told apart; the others are the node's own.
var shown = []string{"kube-apiserver", "etcd", "postgres", "redis-server"}

// The parties that are no programs of the node.
const (
	theNode   = "node"  // kubelet, containerd, controllers, proxies
	generator = "load"  // this process
	elsewhere = "other" // what else the machine does
)

// since returns how many cores each party used, and the machine as a whole.
func (m moment) since(before moment) (cores map[string]float64, busy float64, err error) {
	programs, busy := m.node.Since(before.node)
	cores = map[string]float64{}
	for name, service := range m.services {
		if cores[name], err = service.Since(before.services[name]); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
		delete(programs, name)
	}
	for _, name := range shown {
		cores[name] = programs[name]
		delete(programs, name)
	}
	for _, used := range programs {
		cores[theNode] += used
	}
	cores[generator] = float64(m.self-before.self) / float64(m.at.Sub(before.at))
	rest := busy
	for _, used := range cores {
		rest -= used
	}
	cores[elsewhere] = max(rest, 0)
	return cores, busy, nil
}
