package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// Checkpoint returns the newest checkpoint, of which only the number and the MAC are kept;
// the zero Checkpoint when there is none.
func (q *Queue) Checkpoint(ctx context.Context) (c audit.Checkpoint, err error) {
	err = q.call(ctx, "checkpoint", func(ctx context.Context) error {
		text, err := q.client.Get(ctx, q.checkpoint()).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		var mac []byte
		if err == nil {
			_, err = fmt.Sscanf(text, "%d %x", &c.Number, &mac)
		}
		copy(c.MAC[:], mac)
		return err
	})
	return c, err
}

// KeepCheckpoint keeps the newest checkpoint.
func (q *Queue) KeepCheckpoint(ctx context.Context, c audit.Checkpoint) error {
	return q.call(ctx, "keep checkpoint", func(ctx context.Context) error {
		return q.client.Set(ctx, q.checkpoint(), fmt.Sprintf("%d %s", c.Number, c.MAC), 0).Err()
	})
}
