package coalesce

import (
	"context"
	"sync/atomic"
)

type keepKey struct{}

// keeper counts who still needs what a caller has taken.
type keeper struct {
	users   atomic.Int64
	release func()
}

func (k *keeper) done() {
	if k.users.Add(-1) == 0 {
		k.release()
	}
}

// Keep returns a context for calls of Do by a caller that has taken something bounded,
// such as a place among so many. release, which gives it back, is called once: when done
// has been called and no work that the context was handed to is under way. So what is
// bounded is work, also when nobody waits for it any more.
func Keep(ctx context.Context, release func()) (keeping context.Context, done func()) {
	k := &keeper{release: release}
	if outer, ok := ctx.Value(keepKey{}).(*keeper); ok {
		outer.users.Add(1)
		k.release = func() { release(); outer.done() }
	}
	k.users.Store(1)
	return context.WithValue(ctx, keepKey{}, k), k.done
}

// keep holds on to what ctx keeps until the returned function is called.
func keep(ctx context.Context) (done func()) {
	k, ok := ctx.Value(keepKey{}).(*keeper)
	if !ok {
		return func() {}
	}
	k.users.Add(1)
	return k.done
}
