package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9/logging"

	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/settings"
)

// ListDead writes what was set aside to opts.Out, an event a line, as JSON.
func ListDead(ctx context.Context, opts Options) error {
	return withQueue(opts, func(q *queue.Queue) error {
		out := json.NewEncoder(opts.Out)
		return q.ListDead(ctx, func(d queue.Dead) error { return out.Encode(d) })
	})
}

// RetryDead puts events that were set aside back into the queue: those with the given
// entries, or all of them. It writes to opts.Out how many.
func RetryDead(ctx context.Context, opts Options, entries ...string) error {
	return withQueue(opts, func(q *queue.Queue) error {
		if len(entries) == 0 {
			if err := q.ListDead(ctx, func(d queue.Dead) error { entries = append(entries, d.Entry); return nil }); err != nil {
				return err
			}
		}
		for _, entry := range entries {
			found, err := q.Retry(ctx, entry)
			if err != nil {
				return err
			}
			if !found {
				return fmt.Errorf("%s: no such entry; see: datastorage dead list", entry)
			}
		}
		_, err := fmt.Fprintf(opts.Out, "%d put back\n", len(entries))
		return err
	})
}

// withQueue runs fn with the queue that the configuration names.
func withQueue(opts Options, fn func(*queue.Queue) error) error {
	s, err := settings.Load(opts.ConfigPath)
	if err != nil {
		return err
	}
	logging.Disable()
	client, err := s.Redis.Client()
	if err != nil {
		return err
	}
	return errors.Join(fn(queue.New(queue.Options{Client: client, Timeout: s.Redis.Timeout})), client.Close())
}
