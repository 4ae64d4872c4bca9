package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"kubernaut.ai/e2e/test/e2e/stores"
)

// The pace at which Cut looks whether the nodes have heard of what it did, which nobody
// tells, and how long each look may take: not every refusal is sent.
const (
	lookInterval = 50 * time.Millisecond
	lookTimeout  = time.Second
)

// Cut cuts the network to PostgreSQL, to Redis, or to both, connections that are open
// included. They run on: that takes a fraction of the time that a pod takes to go and to
// come back. The function it returns mends it; it is never nil.
func (i *Injector) Cut(ctx context.Context, apps ...App) (mend func(context.Context) error, err error) {
	var mends []func(context.Context) error
	mend = func(ctx context.Context) (err error) {
		for _, attach := range mends {
			err = errors.Join(err, attach(ctx))
		}
		return err
	}
	// Connected to while that can be done.
	db, rdb, closeBoth, err := stores.Both(ctx, i.Cluster)
	defer func() { err = errors.Join(err, closeBoth(ctx)) }()
	if err != nil {
		return mend, err
	}
	for _, app := range apps {
		attach, err := i.Detach(ctx, "", app.Name)
		if attach != nil {
			mends = append(mends, attach)
		}
		if err != nil {
			return mend, err
		}
		err = wait.PollUntilContextCancel(ctx, lookInterval, true, func(ctx context.Context) (bool, error) { return i.reach(ctx, app) != nil, nil })
		if err != nil {
			return mend, fmt.Errorf("%s: still takes connections: %w", app.Name, err)
		}
	}
	for _, app := range apps {
		if app.Name == "redis" {
			err = rdb.ClientKillByFilter(ctx, "TYPE", "normal").Err()
		} else {
			_, err = db.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
		}
		if err != nil {
			return mend, fmt.Errorf("%s: end connections: %w", app.Name, err)
		}
	}
	return mend, nil
}

// reach opens a connection to PostgreSQL or Redis.
func (i *Injector) reach(ctx context.Context, app App) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if app.Name == "redis" {
		rdb, err := stores.Redis(ctx, i.Cluster)
		if err != nil {
			return err
		}
		return errors.Join(rdb.Ping(ctx).Err(), rdb.Close())
	}
	conn, err := stores.Postgres(ctx, i.Cluster, "")
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}
