package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// Lister is the part of a client that a watch needs; typed and dynamic clients have it.
type Lister[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// Source is what a watch sees, and what keeps it from seeing it.
type Source struct {
	listWatch cache.ListWatch

	mu   sync.Mutex
	last error // of the last list or watch, nil when it went well
}

// From returns the source of the objects of one client. narrow selects some of them;
// nil takes all.
func From[L runtime.Object](client Lister[L], narrow func(*metav1.ListOptions)) *Source {
	source := &Source{}
	options := func(options metav1.ListOptions) metav1.ListOptions {
		if narrow != nil {
			narrow(&options)
		}
		return options
	}
	source.listWatch = cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, given metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, options(given))
			return list, source.note(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, given metav1.ListOptions) (watch.Interface, error) {
			events, err := client.Watch(ctx, options(given))
			return events, source.note(ctx, err)
		},
	}
	return source
}

// note keeps an error that the cluster is to blame for.
func (s *Source) note(ctx context.Context, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.last = err
	}
	return err
}

// list returns what a source has now.
func list[T any, P object[T]](ctx context.Context, source *Source) ([]P, error) {
	found, err := source.listWatch.ListWithContextFunc(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var objs []P
	err = meta.EachListItem(found, func(item runtime.Object) error {
		if obj, ok := item.(P); ok {
			objs = append(objs, obj)
		}
		return nil
	})
	return objs, err
}

// object is a pointer to a Kubernetes object.
type object[T any] interface {
	*T
	runtime.Object
}

// Until watches a source, through interruptions, until enough says so of the objects
// that are there: it is called when they have been listed, and after each change. seen
// is shown every object and every change of one before that; nil looks at nothing. The
// error holds the cause of ctx and, if the API server could not be asked, why.
func Until[T any, P object[T]](ctx context.Context, source *Source, seen func(watch.EventType, P), enough func(store []P) bool) error {
	if there, err := list[T, P](ctx, source); err == nil && enough(there) {
		return nil // without a watch, whose first look takes 100 ms
	}
	var store cache.Store
	now := func() []P {
		var objs []P
		for _, item := range store.List() {
			if obj, ok := item.(P); ok {
				objs = append(objs, obj)
			}
		}
		return objs
	}
	listed := func(synced cache.Store) (bool, error) {
		store = synced
		return enough(now()), nil
	}
	changed := func(event watch.Event) (bool, error) {
		obj, ok := event.Object.(P)
		if !ok {
			return false, nil
		}
		if seen != nil {
			seen(event.Type, obj)
		}
		return enough(now()), nil
	}
	_, err := watchtools.UntilWithSync(Quiet(ctx), &source.listWatch, P(new(T)), listed, changed)
	if err == nil || ctx.Err() == nil {
		return err
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.last != nil && !errors.Is(source.last, context.Cause(ctx)) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), source.last)
	}
	return context.Cause(ctx)
}
