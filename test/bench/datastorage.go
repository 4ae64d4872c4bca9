package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/signals"
)

const (
	// batch is what the Gateway writes at once. A new signal makes two events, so a
	// batch is of half as many chains.
	batch         = 100
	chainsOfBatch = batch / eventsOfCreated
	// chainLength is how many single events share a correlation id, one after the other.
	chainLength = 100

	// landing is how long accepted events may take to be in PostgreSQL: the Gateway
	// sends every second, and the queue is drained after a back-off of some seconds.
	landing      = 60 * time.Second
	landingCheck = 250 * time.Millisecond
	// verifiers is how many chains are verified at once.
	verifiers = 2
)

// ledger is what DataStorage has answered in one scenario.
type ledger struct {
	*bed
	data json.RawMessage // of every event

	mu       sync.Mutex
	chains   map[string]bool // correlation ids
	answered int64           // events that were answered with 201 or 202
	doubtful int64           // events without such an answer: stored or not
}

// dataStorageScenarios are those of DataStorage.
func (b *bed) dataStorageScenarios() ([]scenario, error) {
	data, err := eventData()
	if err != nil {
		return nil, err
	}
	single := &ledger{bed: b, data: data, chains: map[string]bool{}}
	batches := &ledger{bed: b, data: data, chains: map[string]bool{}}
	return []scenario{
		{
			name: "datastorage: single events", unit: "events", perCall: 1, plan: planFor(writers),
			goals: []bound{{what: rate, least: 2500, unit: "/s"}, {what: p99, most: 50, unit: "ms"}},
			call: func(ctx context.Context, worker, n int) error {
				chain := fmt.Sprintf("bench-%s-single-%d-%d", b.run.Run, worker, n/(writers*chainLength))
				return single.write(ctx, []client.EventRequest{single.event(chain)})
			},
			check: single.check,
		},
		{
			name: "datastorage: batches of 100 events", unit: "events", perCall: batch, plan: planFor(batchWriters),
			goals: []bound{{what: rate, least: 15000, unit: "/s"}},
			call: func(ctx context.Context, worker, _ int) error {
				events := make([]client.EventRequest, batch)
				for i := range events {
					events[i] = batches.event(fmt.Sprintf("bench-%s-batch-%d-%d", b.run.Run, worker, i/eventsOfCreated%chainsOfBatch))
				}
				return batches.write(ctx, events)
			},
			check: batches.check,
		},
	}, nil
}

// eventData is what the Gateway writes about a signal.
func eventData() (json.RawMessage, error) {
	alert := signals.Firing("RequestLatencyHigh", "namespace", "production", "pod", "checkout-7d9f6c5b8-x2x7k")
	payload, err := json.Marshal(signals.Notify(alert))
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"signal_type": "alert", "signal_name": "RequestLatencyHigh", "namespace": "production",
		"fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "severity": "critical",
		"resource_kind": "Pod", "resource_name": "checkout-7d9f6c5b8-x2x7k", "remediation_request": "rr-9f86d081884c-1",
		"deduplication_status": "duplicate", "occurrence_count": 42, "original_payload": string(payload),
		"signal_labels": alert.Labels, "signal_annotations": alert.Annotations,
	})
}

// event is an event of this moment.
func (l *ledger) event(chain string) client.EventRequest {
	event := audit.NewEvent(chain)
	event.EventType, event.EventCategory, event.EventAction = "bench.signal.deduplicated", "bench", "deduplicated"
	event.ActorType, event.ActorID = new("user"), new("system:serviceaccount:monitoring:alertmanager")
	event.ResourceType, event.ResourceID, event.Namespace = new("Pod"), new("checkout-7d9f6c5b8-x2x7k"), new("production")
	event.Severity, event.EventData = new("critical"), l.data
	return event
}

// write writes one event by itself, and more in a batch.
func (l *ledger) write(ctx context.Context, events []client.EventRequest) error {
	var got *answer.Answer
	var err error
	if len(events) == 1 {
		got, err = l.trail.Write(ctx, events[0])
	} else {
		got, err = l.trail.WriteAll(ctx, events)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range events {
		l.chains[event.CorrelationID] = true
	}
	switch {
	case err != nil:
		l.doubtful += int64(len(events))
		return errors.New("no answer") // its text names the connection
	case got.Code == http.StatusCreated:
		l.answered += int64(len(events))
		return nil
	case got.Code == http.StatusAccepted:
		// It will be stored, but was not measured doing it.
		l.answered += int64(len(events))
		return errors.New("202 queued")
	default:
		l.doubtful += int64(len(events))
		return fmt.Errorf("%d %s", got.Code, path.Base(got.Problem().Type))
	}
}

// check compares what is stored with the answers, and has DataStorage verify every chain.
func (l *ledger) check(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	chains := slices.Sorted(maps.Keys(l.chains))
	wrong, err := l.awaitStored(ctx, chains, l.answered, l.answered+l.doubtful)
	if err != nil || wrong != "" {
		return []string{wrong}, err
	}
	return l.verify(ctx, chains)
}

// verify returns the chains that are broken.
func (b *bed) verify(ctx context.Context, chains []string) ([]string, error) {
	broken := make([]string, len(chains))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(verifiers)
	for i, chain := range chains {
		group.Go(func() error {
			report, err := b.trail.Verify(ctx, chain)
			if err == nil && !report.Valid {
				broken[i] = fmt.Sprintf("chain %s is broken: %+v", chain, report.FirstBroken)
			}
			return err
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(broken, func(text string) bool { return text == "" }), err
}

// awaitStored waits until at least that many events of these correlation ids are in
// PostgreSQL. It returns what is wrong, or "".
func (b *bed) awaitStored(ctx context.Context, correlations []string, least, most int64) (wrong string, err error) {
	ctx, cancel := context.WithTimeout(ctx, landing)
	defer cancel()
	tick := time.NewTicker(landingCheck)
	defer tick.Stop()
	for {
		var stored int64
		// Not through DataStorage, which is what is checked.
		err := b.store.QueryRow(ctx, "SELECT count(*) FROM audit_events WHERE correlation_id = ANY($1)", correlations).Scan(&stored)
		switch {
		case err != nil:
			return "", fmt.Errorf("counting audit events: %w", err)
		case stored > most:
			return fmt.Sprintf("%d events are stored; %d were answered, %d are in doubt", stored, least, most-least), nil
		case stored >= least:
			return "", nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Sprintf("%d events are stored after %s; %d were answered", stored, landing, least), nil
		}
	}
}
