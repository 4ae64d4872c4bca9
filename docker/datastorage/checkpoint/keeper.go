// Package checkpoint takes checkpoints of the audit trail, and verifies the trail against
// them. What they are, and what they show, is in package audit.
package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
)

// answerIn is after how long a verification answers with what it has.
const answerIn = 3 * time.Second

// Outside is a place outside of the database that remembers the newest checkpoint.
type Outside interface {
	Checkpoint(ctx context.Context) (audit.Checkpoint, error)
	KeepCheckpoint(ctx context.Context, c audit.Checkpoint) error
}

// Observer learns what becomes of checkpoints.
type Observer interface {
	// Checkpoint tells the number of the newest one, and whether the database has it.
	Checkpoint(number int64, tampered bool)
}

// Keeper is safe for concurrent use but for Run. All fields are required.
type Keeper struct {
	Store    *postgres.Store
	Outside  Outside
	Key      audit.Key
	Observer Observer
	Log      *slog.Logger
	Interval time.Duration // between checkpoints

	mark postgres.Mark // up to here events will be closed, once they are settled
}

// Run takes a checkpoint in each interval in which events were stored, until ctx ends, and
// returns nil then. Instances take turns. It takes none while the database lacks one that
// was taken: the trace of that would be lost with the next.
func (k *Keeper) Run(ctx context.Context) error {
	for told := false; ; {
		newest, err := k.Take(ctx)
		tampered := errors.Is(err, audit.ErrTampered)
		if err == nil || tampered {
			k.Observer.Checkpoint(newest.Number, tampered)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil && !told:
			level := slog.LevelWarn
			if tampered {
				level = slog.LevelError
			}
			k.Log.Log(ctx, level, "no checkpoint is taken", "error", err)
		case err == nil && told:
			k.Log.Info("checkpoints are taken again")
		}
		told = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.Interval):
		}
	}
}

// Take closes the events that were stored when it was called last, once all that were being
// stored then are there too. It returns the newest checkpoint.
func (k *Keeper) Take(ctx context.Context) (audit.Checkpoint, error) {
	outside, err := k.Outside.Checkpoint(ctx)
	if err != nil {
		return outside, err
	}
	now, err := k.Store.Mark(ctx)
	if err != nil {
		return outside, err
	}
	settled := k.mark.Settled(now)
	upto := int64(0)
	if settled {
		upto, k.mark = k.mark.Sequence, now
	}
	newest := outside
	for more := true; more; {
		if newest, more, err = k.Store.TakeCheckpoint(ctx, k.Key, newest, upto); err != nil {
			return newest, err
		}
	}
	if newest.Number > outside.Number {
		err = k.Outside.KeepCheckpoint(ctx, newest)
	}
	return newest, err
}

// VerifyChain computes a chain again, as far as that goes in answerIn; see postgres.Store.
func (k *Keeper) VerifyChain(ctx context.Context, correlation string, from audit.Verified) (audit.Verified, error) {
	err := inParts(func() (done bool, err error) {
		found, err := k.Store.VerifyChain(ctx, k.Key, correlation, from)
		if err == nil {
			from = found
		}
		return found.Complete || found.Broken != nil, err
	})
	return from, err
}

// VerifyAll compares all that is signed with its checkpoints, as far as that goes in
// answerIn; see postgres.Store.
func (k *Keeper) VerifyAll(ctx context.Context, from audit.Place) (audit.Report, error) {
	report := audit.Report{Place: from}
	// Before the database is looked at, which then has this one or a later one.
	outside, err := k.Outside.Checkpoint(ctx)
	if err != nil {
		return report, err
	}
	err = inParts(func() (done bool, err error) {
		found, err := k.Store.VerifyAll(ctx, k.Key, outside, report.Place)
		if err == nil {
			report = found
		}
		return found.Complete || found.Broken != nil, err
	})
	return report, err
}

// inParts verifies one part after the other; between two of them others have their turn.
// What was found counts, also when it is too late for the next one.
func inParts(part func() (done bool, err error)) error {
	for n, begun := 0, time.Now(); ; n++ {
		done, err := part()
		if n > 0 && errors.Is(err, audit.ErrTooSlow) {
			return nil
		}
		if err != nil || done || time.Since(begun) > answerIn {
			return err
		}
	}
}
