package faults

import (
	"cmp"
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
		for _, app := range apps {
			err = errors.Join(err, i.untilReach(ctx, app, true))
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
		if err := i.untilReach(ctx, app, false); err != nil {
			return mend, err
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

// untilReach waits until an app takes connections, or none: what leads to it follows its
// Service up to a second later.
func (i *Injector) untilReach(ctx context.Context, app App, wanted bool) error {
	var seen error
	err := wait.PollUntilContextCancel(ctx, lookInterval, true, func(ctx context.Context) (bool, error) {
		seen = i.reach(ctx, app)
		return (seen == nil) == wanted, nil
	})
	if err != nil {
		return fmt.Errorf("%s: should take connections: %t; it answers: %w: %w", app.Name, wanted, cmp.Or(seen, errors.New("yes")), err)
	}
	return nil
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
