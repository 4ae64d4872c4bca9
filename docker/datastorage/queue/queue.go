// Package queue is the dead-letter queue: a Redis stream that holds accepted events
// while PostgreSQL does not answer, and the drain that stores them once it does.
package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// The streams and the group of the service.
const (
	Stream     = "audit:dlq:events"
	DeadStream = "audit:dead-letter:events"
	group      = "datastorage"
)

const eventField = "event"

// Options configures a Queue.
type Options struct {
	Client     *redis.Client // the caller closes it
	Consumer   string        // this instance, as Redis shows it
	Stream     string        // "" means Stream
	DeadStream string        // "" means DeadStream
	Timeout    time.Duration // of each call
}

// Queue is safe for concurrent use.
type Queue struct {
	client       *redis.Client
	consumer     string
	stream, dead string
	timeout      time.Duration
}

// New returns a Queue. It connects to nothing yet.
func New(opts Options) *Queue {
	if opts.Stream == "" {
		opts.Stream = Stream
	}
	if opts.DeadStream == "" {
		opts.DeadStream = DeadStream
	}
	return &Queue{opts.Client, opts.Consumer, opts.Stream, opts.DeadStream, opts.Timeout}
}

// Ping returns nil when Redis answers.
func (q *Queue) Ping(ctx context.Context) error {
	return q.call(ctx, "ping", func(ctx context.Context) error { return q.client.Ping(ctx).Err() })
}

// Add appends events, all or none, in their order. It goes on when ctx is cancelled.
func (q *Queue) Add(ctx context.Context, events []audit.Event) error {
	entries := make([]string, len(events))
	for i := range events {
		entry, err := events[i].Encode()
		if err != nil {
			return fmt.Errorf("event %s: %w", events[i].ID, err)
		}
		entries[i] = string(entry)
	}
	return q.call(context.WithoutCancel(ctx), "add", func(ctx context.Context) error {
		_, err := q.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			for _, entry := range entries {
				tx.XAdd(ctx, &redis.XAddArgs{Stream: q.stream, Values: []string{eventField, entry}})
			}
			return nil
		})
		return err
	})
}

// entry is one event as it waits. Err says why it cannot be read.
type entry struct {
	id    string
	text  string
	event audit.Event
	err   error
}

// read returns up to n entries that are not acknowledged, oldest first: those that a
// consumer took and did not finish, whoever it was, before new ones. Only the
// instance that holds the drain lock may call it, because it takes from the others.
func (q *Queue) read(ctx context.Context, n int) ([]entry, error) {
	var messages []redis.XMessage
	err := q.call(ctx, "read", func(ctx context.Context) error {
		err := q.client.XGroupCreateMkStream(ctx, q.stream, group, "0").Err()
		if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
			return err
		}
		// No idle time is demanded: whoever took them does not drain any more.
		messages, _, err = q.client.XAutoClaim(ctx, &redis.XAutoClaimArgs{
			Stream: q.stream, Group: group, Consumer: q.consumer, Start: "0-0", Count: int64(n),
		}).Result()
		if err != nil || len(messages) > 0 {
			return err
		}
		// A negative Block asks without waiting.
		streams, err := q.client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Streams: []string{q.stream, ">"}, Group: group, Consumer: q.consumer, Count: int64(n), Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if len(streams) > 0 {
			messages = streams[0].Messages
		}
		return err
	})
	entries := make([]entry, len(messages))
	for i, message := range messages {
		entries[i].id = message.ID
		entries[i].text, _ = message.Values[eventField].(string)
		entries[i].event, entries[i].err = audit.Decode([]byte(entries[i].text))
	}
	return entries, err
}

// remove forgets entries that are stored.
func (q *Queue) remove(ctx context.Context, entries []entry) error {
	return q.call(ctx, "remove", func(ctx context.Context) error {
		_, err := q.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			ids := make([]string, len(entries))
			for i := range entries {
				ids[i] = entries[i].id
			}
			tx.XAck(ctx, q.stream, group, ids...)
			tx.XDel(ctx, q.stream, ids...)
			return nil
		})
		return err
	})
}

// bury moves an entry that can never be stored to the dead-letter stream.
func (q *Queue) bury(ctx context.Context, e entry, reason error) error {
	return q.call(ctx, "bury", func(ctx context.Context) error {
		_, err := q.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			tx.XAdd(ctx, &redis.XAddArgs{Stream: q.dead, Values: []string{eventField, e.text, "reason", reason.Error(), "entry", e.id}})
			tx.XAck(ctx, q.stream, group, e.id)
			tx.XDel(ctx, q.stream, e.id)
			return nil
		})
		return err
	})
}

// State is what waits.
type State struct {
	Depth  int64         // entries not stored yet
	Oldest time.Duration // how long the oldest of them has waited; zero when there is none
	Dead   int64         // entries in the dead-letter stream
}

// State looks at the streams.
func (q *Queue) State(ctx context.Context, now time.Time) (State, error) {
	var state State
	err := q.call(ctx, "state", func(ctx context.Context) error {
		var depth, dead *redis.IntCmd
		var oldest *redis.XMessageSliceCmd
		_, err := q.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			depth, dead = p.XLen(ctx, q.stream), p.XLen(ctx, q.dead)
			oldest = p.XRangeN(ctx, q.stream, "-", "+", 1)
			return nil
		})
		if err != nil {
			return err
		}
		state.Depth, state.Dead = depth.Val(), dead.Val()
		if len(oldest.Val()) > 0 {
			// An id begins with the milliseconds of its time.
			var ms int64
			if _, err := fmt.Sscanf(oldest.Val()[0].ID, "%d-", &ms); err != nil {
				return fmt.Errorf("entry id %q: %w", oldest.Val()[0].ID, err)
			}
			state.Oldest = max(0, now.Sub(time.UnixMilli(ms)))
		}
		return nil
	})
	return state, err
}

// call bounds fn and says in the error what was done.
func (q *Queue) call(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	if err := fn(ctx); err != nil {
		return fmt.Errorf("queue: %s: %w", what, err)
	}
	return nil
}
