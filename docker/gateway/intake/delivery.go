package intake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

const (
	// memory is for how long a notification may come again. Alertmanager repeats one
	// that it was not answered within seconds, and until the group's next turn, which
	// is minutes later.
	memory = 10 * time.Minute
	// maxRemembered bounds the alerts that may come again, at about 300 bytes each.
	maxRemembered = 8192
)

// key identifies one alert of one notification, however often it is sent.
type key [sha256.Size]byte

// keyOf returns the key of a signal; ok is false for one that its sender did not name,
// which is never taken for another.
func keyOf(s signal.Signal) (k key, ok bool) {
	if s.Group == "" {
		return key{}, false
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %d", s.Group, s.Target.String(), s.Firing.UnixNano())
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		fmt.Fprintf(hash, " %q=%q", name, s.Labels[name])
	}
	return key(hash.Sum(nil)), true
}

// Memory knows what was stored of notifications whose senders were not told, so that an
// alert that comes again for that reason is not counted again. What was answered is
// forgotten at once: the same alert is then a new report. It is safe for concurrent use.
//
// Each Gateway remembers for itself. Alertmanager repeats a notification over the
// connection that it has, so it comes to the same one unless that one has ended.
type Memory struct {
	mu    sync.Mutex
	known *lru.Cache[key, *delivered]
}

// NewMemory returns an empty memory.
func NewMemory() *Memory {
	known, _ := lru.New[key, *delivered](maxRemembered) // the only error is a size below 1
	return &Memory{known: known}
}

// delivered is one alert of a notification, and what became of it once done is closed.
type delivered struct {
	until   time.Time // when it is forgotten
	done    chan struct{}
	receipt Receipt
	err     error
}

func (d *delivered) settle(receipt Receipt, err error) {
	d.receipt, d.err = receipt, err
	close(d.done)
}

// Delivery is one attempt to deliver a notification.
type Delivery struct {
	memory *Memory
	mu     sync.Mutex
	alerts map[key]*delivered
}

type deliveryKey struct{}

// Begin returns a context for taking the signals of one notification. The caller ends
// the delivery.
func (m *Memory) Begin(ctx context.Context) (context.Context, *Delivery) {
	d := &Delivery{memory: m, alerts: map[key]*delivered{}}
	return context.WithValue(ctx, deliveryKey{}, d), d
}

// End ends the attempt: answered says that the sender knows what became of every alert.
// If not, each is remembered, also those that are still being worked on.
func (d *Delivery) End(answered bool) {
	if answered {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memory.mu.Lock()
	defer d.memory.mu.Unlock()
	until := time.Now().Add(memory)
	for k, alert := range d.alerts {
		alert.until = until
		d.memory.known.Add(k, alert)
	}
}

// again returns what became of an alert in an earlier attempt, if it was stored then.
// An alert that is still being worked on is waited for.
func (d *Delivery) again(ctx context.Context, k key) (receipt Receipt, stored bool, err error) {
	d.memory.mu.Lock()
	alert, found := d.memory.known.Get(k)
	d.memory.known.Remove(k)
	fresh := found && time.Now().Before(alert.until)
	d.memory.mu.Unlock()
	if !fresh {
		return Receipt{}, false, nil
	}
	d.mu.Lock()
	d.alerts[k] = alert // for another attempt, should this one end without an answer too
	d.mu.Unlock()
	select {
	case <-alert.done:
		return alert.receipt, alert.err == nil, nil
	case <-ctx.Done():
		return Receipt{}, false, fmt.Errorf("an earlier attempt is still under way: %w", ctx.Err())
	}
}

// watch returns what is to be told what becomes of the alert.
func (d *Delivery) watch(k key) *delivered {
	alert := &delivered{done: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alerts[k] = alert
	return alert
}

// errRejected ends the wait for an alert that was not to be stored.
var errRejected = errors.New("not to be stored")
