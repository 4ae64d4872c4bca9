package queue

import (
	"context"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// Dead is an event that was set aside.
type Dead struct {
	Entry         string    `json:"entry"` // its name, for Retry
	At            time.Time `json:"at"`    // when it was set aside
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID string    `json:"correlation_id"`
	Bytes         int       `json:"bytes"`
	Reason        string    `json:"reason"`
}

// ListDead tells each event in the dead stream, the oldest first. It holds one of them at
// a time.
func (q *Queue) ListDead(ctx context.Context, tell func(Dead) error) error {
	for after := "-"; ; {
		var found []Dead
		err := q.call(ctx, "dead letters", func(ctx context.Context) error {
			entries, err := q.client.XRangeN(ctx, q.dead(), after, "+", 1).Result()
			for _, e := range entries {
				text, _ := e.Values[eventField].(string)
				d := Dead{Entry: e.ID, Bytes: len(text)}
				d.Reason, _ = e.Values[reasonField].(string)
				d.CorrelationID, _ = e.Values[chainField].(string)
				if event, err := audit.Decode([]byte(text)); err == nil {
					d.EventID = event.ID
				}
				if d.At, err = added(e.ID); err != nil {
					return err
				}
				found = append(found, d)
			}
			return err
		})
		if err != nil || len(found) == 0 {
			return err
		}
		if err := tell(found[0]); err != nil {
			return err
		}
		after = "(" + found[0].Entry
	}
}

// Retry puts a dead entry back at the end of the queue; it reports whether it was there.
func (q *Queue) Retry(ctx context.Context, entry string) (found bool, err error) {
	err = q.call(ctx, "retry "+entry, func(ctx context.Context) error {
		n, err := retryScript.Run(ctx, q.client, q.keys, entry).Int()
		found = n == 1
		return err
	})
	return found, err
}
