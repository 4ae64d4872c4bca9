// Package recorder makes Kubernetes events as controllers make them, with client-go's own
// recorders, and forwards them to the Gateway as event exporters do.
package recorder

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
)

// API is one of the two in which Kubernetes writes and serves the same events.
type API string

// The APIs of events, by their group and version.
const (
	Core   API = "v1"
	Events API = "events.k8s.io/v1"
)

// Recorder makes events about objects. It is safe for concurrent use.
type Recorder struct {
	record func(about client.Object, kind, reason, note string)
}

// New starts a recorder that writes by one of the APIs, until ctx ends. The name is the
// reporting component's.
func New(ctx context.Context, c *cluster.Cluster, api API, name string) (*Recorder, error) {
	switch api {
	case Core:
		broadcaster := record.NewBroadcaster(record.WithContext(ctx))
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.Kube.CoreV1().Events("")})
		context.AfterFunc(ctx, broadcaster.Shutdown)
		recorder := broadcaster.NewRecorder(c.API.Scheme(), corev1.EventSource{Component: name})
		return &Recorder{func(about client.Object, kind, reason, note string) { recorder.Event(about, kind, reason, note) }}, nil
	case Events:
		broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.Kube.EventsV1()})
		if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, broadcaster.Shutdown)
		recorder := broadcaster.NewRecorder(c.API.Scheme(), name)
		return &Recorder{func(about client.Object, kind, reason, note string) {
			recorder.Eventf(about, nil, kind, reason, "Testing", "%s", note)
		}}, nil
	}
	return nil, fmt.Errorf("events: no API %q", api)
}

// Warning records a Warning about an object. The same one again is not another event: the
// recorder counts it on the first.
func (r *Recorder) Warning(about client.Object, reason, note string) {
	r.record(about, corev1.EventTypeWarning, reason, note)
}

// Normal records an event of type Normal about an object.
func (r *Recorder) Normal(about client.Object, reason, note string) {
	r.record(about, corev1.EventTypeNormal, reason, note)
}
