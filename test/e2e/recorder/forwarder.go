package recorder

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// Forwarder posts every event that is made or changes to the Gateway, as the API server
// serves it. It is safe for concurrent use.
type Forwarder struct {
	sender *signals.Sender
	mu     sync.Mutex
	sent   []Forwarded
	ended  error // why it forwards no more
}

// Forwarded is one event that was posted, and what came of it.
type Forwarded struct {
	Reason   string
	Change   watch.EventType // Added, or Modified when the recorder has counted it again
	Body     string
	Response *signals.Response // nil when no answer came
	Err      error
}

// Forward watches the events of a namespace by one of the APIs, from now on until ctx ends.
func Forward(ctx context.Context, c *cluster.Cluster, api API, namespace string, sender *signals.Sender) (*Forwarder, error) {
	version, err := schema.ParseGroupVersion(string(api))
	if err != nil {
		return nil, err
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(version.WithKind("EventList"))
	if err := c.API.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
		return nil, fmt.Errorf("%s events of %s: %w", api, namespace, err)
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
	changes, err := c.API.Watch(ctx, list, client.InNamespace(namespace), from)
	if err != nil {
		return nil, fmt.Errorf("%s events of %s: %w", api, namespace, err)
	}
	f := &Forwarder{sender: sender}
	go f.run(ctx, changes)
	return f, nil
}

func (f *Forwarder) run(ctx context.Context, changes watch.Interface) {
	defer changes.Stop()
	for change := range changes.ResultChan() {
		event, ok := change.Object.(*unstructured.Unstructured)
		if !ok || change.Type == watch.Error {
			f.end(fmt.Errorf("watch of events: %v", change.Object))
			return
		}
		if change.Type != watch.Deleted {
			f.post(ctx, change.Type, event)
		}
	}
	f.end(fmt.Errorf("watch of events: ended: %w", context.Cause(ctx)))
}

func (f *Forwarder) post(ctx context.Context, change watch.EventType, event *unstructured.Unstructured) {
	reason, _, _ := unstructured.NestedString(event.Object, "reason")
	done := Forwarded{Reason: reason, Change: change}
	body, err := event.MarshalJSON()
	if err == nil {
		done.Body = string(body)
		done.Response, err = f.sender.Post(ctx, signals.EventPath, body)
	}
	done.Err = err
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, done)
}

func (f *Forwarder) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = err
}

// Sent returns what was posted for events with this reason. The error says why no more
// will come.
func (f *Forwarder) Sent(reason string) ([]Forwarded, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := slices.Clone(f.sent)
	return slices.DeleteFunc(sent, func(one Forwarded) bool { return one.Reason != reason }), f.ended
}
