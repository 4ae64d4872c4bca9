// Package queue is the dead-letter queue: a Redis stream that holds accepted events
// while PostgreSQL does not answer, and the drain that stores them once it does.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// The keys of the service in Redis.
const (
	// Stream holds the events that wait.
	Stream = "audit:dlq:events"
	// DeadStream holds those that were set aside, with the reason.
	DeadStream = "audit:dead-letter:events"
)

// The fields of an entry; the last only in the dead stream.
const (
	eventField  = "event"
	chainField  = "chain"
	reasonField = "reason"
)

// deadBytes bounds the dead stream: a quarter of the memory that the manifest gives
// Redis. What finds no room there stays in the queue, where others overtake it.
const deadBytes = 32 << 20

// ErrDeadFull is in the chain of the error when the dead stream takes no more.
var ErrDeadFull = errors.New("the dead-letter stream is full; see: datastorage dead list")

// Each change is one script, because what belongs together must change together: the
// entries and the hash of the chains that wait. Only what adds entries needs memory; what
// removes them works when Redis is full.
var (
	// addScript takes pairs of correlation id and event.
	addScript = redis.NewScript(`
		for i = 1, #ARGV, 2 do
			local id = redis.call('XADD', KEYS[1], '*', 'event', ARGV[i+1], 'chain', ARGV[i])
			redis.call('HSET', KEYS[2], ARGV[i], id)
		end`)
	// readScript returns entries after an id, as many as have so many bytes and no more
	// than so many, but at least one.
	readScript = redis.NewScript(`
		local found, bytes, after = {}, 0, ARGV[1]
		while #found < tonumber(ARGV[2]) do
			local entry = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
			if not entry then break end
			for _, text in ipairs(entry[2]) do bytes = bytes + #text end
			if #found > 0 and bytes > tonumber(ARGV[3]) then break end
			found[#found+1], after = entry, entry[1]
		end
		return found`)
	// stateScript tells what waits, without the first entry itself, which may be large.
	stateScript = redis.NewScript(`
		local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
		return {redis.call('XLEN', KEYS[1]), redis.call('XLEN', KEYS[3]), entry and entry[1] or ''}`)
	// removeScript takes pairs of entry and correlation id.
	removeScript = redis.NewScript(`
		for i = 1, #ARGV, 2 do
			redis.call('XDEL', KEYS[1], ARGV[i])
			if redis.call('HGET', KEYS[2], ARGV[i+1]) == ARGV[i] then redis.call('HDEL', KEYS[2], ARGV[i+1]) end
		end`)
	// buryScript takes entry, reason, and how many bytes the dead stream may take.
	buryScript = redis.NewScript(`
		local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
		if not entry then return 'gone' end
		local fields = {}
		for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i+1] end
		local event, chain = fields.event or '', fields.chain or ''
		local used = redis.call('MEMORY', 'USAGE', KEYS[3])
		if used and used + #event > tonumber(ARGV[3]) then return 'full' end
		redis.call('XADD', KEYS[3], '*', 'event', event, 'chain', chain, 'reason', ARGV[2], 'entry', ARGV[1])
		redis.call('XDEL', KEYS[1], ARGV[1])
		if redis.call('HGET', KEYS[2], chain) == ARGV[1] then redis.call('HDEL', KEYS[2], chain) end
		return 'buried'`)
	// retryScript puts a dead entry back, at the end of the queue.
	retryScript = redis.NewScript(`
		local entry = redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1])[1]
		if not entry then return 0 end
		local fields = {}
		for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i+1] end
		local id = redis.call('XADD', KEYS[1], '*', 'event', fields.event, 'chain', fields.chain or '')
		redis.call('HSET', KEYS[2], fields.chain or '', id)
		redis.call('XDEL', KEYS[3], ARGV[1])
		return 1`)
)

// Options configures a Queue.
type Options struct {
	Client     *redis.Client // the caller closes it
	Stream     string        // "" means Stream
	DeadStream string        // "" means DeadStream
	Timeout    time.Duration // of each call
	DeadBytes  int64         // what the dead stream may take in Redis; 0 means 32 MiB
}

// Keys are those of a Queue: the stream, a hash with the last entry of each correlation id
// that waits, the dead stream, and the newest checkpoint, which is kept here so that it is
// also known outside of the database that it is about.
func (o Options) Keys() []string {
	stream := cmp.Or(o.Stream, Stream)
	return []string{stream, stream + ":chains", cmp.Or(o.DeadStream, DeadStream), stream + ":checkpoint"}
}

// Queue is safe for concurrent use.
type Queue struct {
	client    *redis.Client
	keys      []string
	timeout   time.Duration
	deadBytes int64
}

// New returns a Queue. It connects to nothing yet.
func New(opts Options) *Queue {
	return &Queue{opts.Client, opts.Keys(), opts.Timeout, cmp.Or(opts.DeadBytes, deadBytes)}
}

func (q *Queue) chains() string     { return q.keys[1] }
func (q *Queue) dead() string       { return q.keys[2] }
func (q *Queue) checkpoint() string { return q.keys[3] }

// Ping returns nil when Redis answers.
func (q *Queue) Ping(ctx context.Context) error {
	return q.call(ctx, "ping", func(ctx context.Context) error { return q.client.Ping(ctx).Err() })
}

// Refuses reports whether an error says that Redis does not let this process in.
func Refuses(err error) bool {
	return slices.ContainsFunc([]string{"WRONGPASS", "NOAUTH", "NOPERM"}, func(prefix string) bool { return redis.HasErrorPrefix(err, prefix) })
}

// Add appends events, all or none, in their order. It goes on when ctx is cancelled. After
// an error they may have been added nevertheless: an answer can be late.
func (q *Queue) Add(ctx context.Context, events []audit.Event) error {
	args := make([]any, 0, 2*len(events))
	for i := range events {
		args = append(args, events[i].CorrelationID, events[i].Encode())
	}
	return q.call(context.WithoutCancel(ctx), "add", func(ctx context.Context) error {
		return none(addScript.Run(ctx, q.client, q.keys, args...).Err())
	})
}

// none is for scripts that return nothing.
func none(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// Waiting reports whether events of one of these correlation ids wait.
func (q *Queue) Waiting(ctx context.Context, correlations []string) (waiting bool, err error) {
	err = q.call(ctx, "look", func(ctx context.Context) error {
		values, err := q.client.HMGet(ctx, q.chains(), correlations...).Result()
		for _, value := range values {
			waiting = waiting || value != nil
		}
		return err
	})
	return waiting, err
}

// entry is one event as it waits. Err says why it cannot be read.
type entry struct {
	id    string
	text  string
	chain string
	event audit.Event
	err   error
}

// read returns the oldest entries after the one with the given id ("0-0": from the
// beginning): at most n, and no more than so many bytes of them, but at least one. They
// stay where they are until they are removed.
func (q *Queue) read(ctx context.Context, after string, n, bytes int) ([]entry, error) {
	var found []any
	err := q.call(ctx, "read", func(ctx context.Context) (err error) {
		found, err = readScript.RunRO(ctx, q.client, q.keys[:1], after, n, bytes).Slice()
		return err
	})
	entries := make([]entry, len(found))
	for i := range found {
		pair, _ := found[i].([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("queue: read: an entry without fields: %v", found[i])
		}
		id, _ := pair[0].(string)
		list, _ := pair[1].([]any)
		fields := map[string]any{}
		for j := 0; j+1 < len(list); j += 2 {
			name, _ := list[j].(string)
			fields[name] = list[j+1]
		}
		entries[i] = decoded(id, fields)
	}
	return entries, err
}

// get returns one entry, or none when it is gone.
func (q *Queue) get(ctx context.Context, id string) ([]entry, error) {
	var entries []entry
	err := q.call(ctx, "read", func(ctx context.Context) error {
		messages, err := q.client.XRange(ctx, q.keys[0], id, id).Result()
		for _, message := range messages {
			entries = append(entries, decoded(message.ID, message.Values))
		}
		return err
	})
	return entries, err
}

// decoded reads the fields of an entry.
func decoded(id string, fields map[string]any) entry {
	e := entry{id: id}
	e.text, _ = fields[eventField].(string)
	e.chain, _ = fields[chainField].(string)
	if e.event, e.err = audit.Decode([]byte(e.text)); e.err == nil {
		e.chain = e.event.CorrelationID
	}
	return e
}

// remove forgets entries that are stored.
func (q *Queue) remove(ctx context.Context, entries []entry) error {
	args := make([]any, 0, 2*len(entries))
	for i := range entries {
		args = append(args, entries[i].id, entries[i].chain)
	}
	return q.call(ctx, "remove", func(ctx context.Context) error {
		return none(removeScript.Run(ctx, q.client, q.keys[:2], args...).Err())
	})
}

// bury moves an entry to the dead stream; it reports whether it was there. The error wraps
// ErrDeadFull when there is no room: in that stream, or in Redis.
func (q *Queue) bury(ctx context.Context, id string, reason error) (buried bool, err error) {
	err = q.call(ctx, "bury", func(ctx context.Context) error {
		what, err := buryScript.Run(ctx, q.client, q.keys, id, reason.Error(), q.deadBytes).Text()
		switch {
		case err != nil && strings.Contains(err.Error(), "OOM "):
			return fmt.Errorf("%w: %w", ErrDeadFull, err)
		case what == "full":
			return ErrDeadFull
		}
		buried = what == "buried"
		return err
	})
	return buried, err
}

// State is what waits.
type State struct {
	Depth  int64     // entries not stored yet
	Oldest time.Time // when the oldest of them was added; zero when there is none
	Dead   int64     // entries in the dead-letter stream
}

// State looks at the streams.
func (q *Queue) State(ctx context.Context) (State, error) {
	var state State
	err := q.call(ctx, "state", func(ctx context.Context) error {
		found, err := stateScript.RunRO(ctx, q.client, q.keys).Slice()
		if err != nil {
			return err
		}
		state.Depth, _ = found[0].(int64)
		state.Dead, _ = found[1].(int64)
		if id, _ := found[2].(string); id != "" {
			state.Oldest, err = added(id)
		}
		return err
	})
	return state, err
}

// added is when an entry was added: its id begins with the milliseconds.
func added(id string) (time.Time, error) {
	var ms int64
	if _, err := fmt.Sscanf(id, "%d-", &ms); err != nil {
		return time.Time{}, fmt.Errorf("entry id %q: %w", id, err)
	}
	return time.UnixMilli(ms), nil
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
