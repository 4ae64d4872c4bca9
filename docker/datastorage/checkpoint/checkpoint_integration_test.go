//go:build integration

package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/checkpoint"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

// trail is an audit trail in a schema of its own.
type trail struct {
	*checkpoint.Keeper
	t      *testing.T
	config *pgxpool.Config
	redis  *queue.Queue
}

func newTrail(t *testing.T) *trail {
	t.Helper()
	config := testenv.Migrated(t)
	store, err := postgres.Open(config.Copy(), postgres.Timeouts{Write: 20 * time.Second, Drain: 20 * time.Second, Verify: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	_, redis, _ := testenv.Redis(t)
	return &trail{t: t, config: config, redis: redis, Keeper: &checkpoint.Keeper{Store: store, Outside: redis, Key: audit.Key(strings.Repeat("k", 32)), Log: slog.New(slog.DiscardHandler)}}
}

// write stores events of a chain, at some time.
func (l *trail) write(chain string, n int, at time.Time) {
	l.t.Helper()
	var events []audit.Event
	for range n {
		e := testenv.Event(l.t, chain, nil)
		e.Timestamp = at.UTC().Truncate(time.Microsecond)
		events = append(events, e)
	}
	if _, err := l.Store.Write(l.t.Context(), events); err != nil {
		l.t.Fatal(err)
	}
}

// sign closes what was written. Transactions of other tests may have to end before.
func (l *trail) sign() audit.Checkpoint {
	l.t.Helper()
	for {
		mark, err := l.Store.Mark(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		newest, err := l.Take(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		if newest.Upto >= mark.Sequence {
			return newest
		}
	}
}

// forge changes the database as its owner can.
func (l *trail) forge(sql string) {
	l.t.Helper()
	testenv.Exec(l.t, l.config, "SET session_replication_role = replica; "+sql)
}

// cutAt moves the end of a chain, so that it looks as if it never had been longer.
func cutAt(chain string, position int) string {
	return fmt.Sprintf(`DELETE FROM audit_events WHERE correlation_id = '%[1]s' AND chain_position > %[2]d;
		UPDATE audit_chains SET length = %[2]d, last_hash = (SELECT event_hash FROM audit_events WHERE correlation_id = '%[1]s' AND chain_position = %[2]d)
		WHERE correlation_id = '%[1]s';`, chain, position)
}

func gone(chain string) string {
	return fmt.Sprintf("DELETE FROM audit_events WHERE correlation_id = '%[1]s'; DELETE FROM audit_chains WHERE correlation_id = '%[1]s';", chain)
}

func describe(broken *audit.Break) string {
	if broken == nil {
		return "whole"
	}
	return fmt.Sprintf("%s at %d", broken.Reason, broken.Position)
}

func (l *trail) chain(name string) string {
	l.t.Helper()
	got, err := l.VerifyChain(l.t.Context(), name, audit.Verified{})
	if err != nil || !got.Complete {
		l.t.Fatalf("got %+v, %v", got, err)
	}
	return describe(got.Broken)
}

func (l *trail) all() (string, int64) {
	l.t.Helper()
	got, err := l.VerifyAll(l.t.Context(), audit.Place{})
	if err != nil || !got.Complete && got.Broken == nil {
		l.t.Fatalf("got %+v, %v", got, err)
	}
	return describe(got.Broken), got.Total
}

func (l *trail) want(chain, all string) {
	l.t.Helper()
	if got := l.chain("c-1"); got != chain {
		l.t.Errorf("the chain: got %s, want %s", got, chain)
	}
	if got, _ := l.all(); got != all {
		l.t.Errorf("everything: got %s, want %s", got, all)
	}
}

// TestWhatTheOwnerOfTheDatabaseRemovesIsFound has three checkpoints: 1 closes the events
// 1 to 3 of the chain, 2 the events 4 and 5, and 3 an event of another chain.
func TestWhatTheOwnerOfTheDatabaseRemovesIsFound(t *testing.T) {
	const whole = "whole"
	for name, c := range map[string]struct{ sql, chain, all string }{
		"nothing":                       {"", whole, whole},
		"the end of a chain":            {cutAt("c-1", 4), "missing at 5", "missing at 2"},
		"the end, and where it was":     {cutAt("c-1", 3) + "DELETE FROM audit_signed_ends WHERE length > 3", whole, "missing at 2"},
		"a whole chain":                 {gone("c-1"), "missing at 1", "missing at 1"},
		"a whole chain and its ends":    {gone("c-1") + "DELETE FROM audit_signed_ends", whole, "missing at 1"},
		"a checkpoint":                  {"DELETE FROM audit_checkpoints WHERE number = 2", whole, "missing at 2"},
		"the newest, with what it says": {gone("c-2") + "DELETE FROM audit_checkpoints WHERE number = 3; DELETE FROM audit_signed_ends WHERE correlation_id = 'c-2'", whole, "missing at 3"},
		"everything":                    {gone("c-1") + gone("c-2") + "DELETE FROM audit_checkpoints; DELETE FROM audit_signed_ends", whole, "missing at 1"},
		"the end of a month":            {"DROP TABLE audit_events_" + time.Now().UTC().Format("2006_01"), "missing at 1", "missing at 1"},
		"an event for another":          {"UPDATE audit_events SET event_outcome = 'failure' WHERE correlation_id = 'c-2'", whole, "changed at 3"},
		"an event and its hash":         {`UPDATE audit_events SET previous_hash = '\x00', event_hash = sha256('') WHERE correlation_id = 'c-2'`, whole, "changed at 3"},
		"what a checkpoint says":        {cutAt("c-1", 3) + "UPDATE audit_checkpoints SET events = 0 WHERE number = 2", "missing at 4", "changed at 2"},
		"nothing, but adds one":         {`INSERT INTO audit_events SELECT * FROM audit_events WHERE correlation_id = 'c-2'`, whole, "unknown at 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTrail(t)
			for _, events := range []int{3, 2} {
				l.write("c-1", events, time.Now())
				l.sign()
			}
			l.write("c-2", 1, time.Now())
			if newest := l.sign(); newest.Number != 3 || newest.Events != 1 {
				t.Fatalf("got %+v", newest)
			}
			if c.sql != "" {
				l.forge(c.sql)
			}
			l.want(c.chain, c.all)
		})
	}
}

// TestNoCheckpointIsTakenOverAMissingOne: it would hide what is missing.
func TestNoCheckpointIsTakenOverAMissingOne(t *testing.T) {
	l := newTrail(t)
	for range 2 {
		l.write("c-1", 1, time.Now())
		l.sign()
	}
	l.forge("CREATE TABLE kept AS SELECT * FROM audit_checkpoints; DELETE FROM audit_checkpoints WHERE number = 2")
	l.write("c-2", 1, time.Now())
	for range 3 {
		if newest, err := l.Take(t.Context()); !errors.Is(err, audit.ErrTampered) || newest.Number != 1 {
			t.Errorf("got %+v, %v", newest, err)
		}
	}
	l.forge("INSERT INTO audit_checkpoints SELECT * FROM kept WHERE number = 2")
	if newest := l.sign(); newest.Number != 3 {
		t.Errorf("got %+v", newest)
	}
	l.want("whole", "whole")
	// Nor with another key, which somebody may have put there.
	l.Key = audit.Key(strings.Repeat("x", 32))
	if _, err := l.Take(t.Context()); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("another key: got %v", err)
	}
}

// TestAnEventThatIsStillBeingWrittenIsClosedLater holds a write open that began before others.
func TestAnEventThatIsStillBeingWrittenIsClosedLater(t *testing.T) {
	l := newTrail(t)
	l.write("c-1", 1, time.Now())
	slow := testenv.Begin(t, l.config, `INSERT INTO audit_event_ids VALUES (gen_random_uuid(), now());
		INSERT INTO audit_events (event_date, event_id, version, event_type, event_timestamp, event_category, event_action, event_outcome, correlation_id,
		event_data, chain_position, previous_hash, event_hash) SELECT event_date, gen_random_uuid(), version, event_type, event_timestamp, event_category,
		event_action, event_outcome, 'slow', event_data, chain_position, previous_hash, event_hash FROM audit_events`)
	l.write("c-1", 1, time.Now())
	for range 3 {
		if newest, err := l.Take(t.Context()); err != nil || newest.Number != 0 {
			t.Errorf("while it is written: got %+v, %v", newest, err)
		}
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if newest := l.sign(); newest.Events != 3 {
		t.Errorf("got %+v", newest)
	}
}

func TestManyEventsAreClosedInParts(t *testing.T) {
	l := newTrail(t)
	l.write("c-1", 1, time.Now())
	l.forge(`INSERT INTO audit_events (event_date, event_id, version, event_type, event_timestamp, event_category, event_action, event_outcome, correlation_id,
		event_data, chain_position, previous_hash, event_hash) SELECT event_date, gen_random_uuid(), version, event_type, event_timestamp, event_category,
		event_action, event_outcome, 'many-' || n, event_data, 1, previous_hash, event_hash FROM audit_events, generate_series(1, 20500) AS n`)
	if newest := l.sign(); newest.Number != 3 || newest.Events != 501 {
		t.Errorf("got %+v", newest)
	}
}

// TestVerificationGoesOnWhereItEnded makes each statement take so long that a part ends
// after two of them.
func TestVerificationGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	l := newTrail(t)
	for range 2 {
		l.write("c-1", 450, time.Now())
		l.sign()
	}
	testenv.Exec(t, l.config, "ALTER TABLE audit_events RENAME TO kept")
	testenv.Exec(t, l.config, "CREATE VIEW audit_events AS WITH slow AS MATERIALIZED (SELECT pg_sleep(0.4)) SELECT kept.* FROM slow, kept")
	var got audit.Report
	var places []string
	for !got.Complete {
		var err error
		if got, err = l.Store.VerifyAll(t.Context(), l.Key, audit.Checkpoint{}, got.Place); err != nil || got.Broken != nil {
			t.Fatalf("after %v: got %+v, %v", places, got, err)
		}
		places = append(places, fmt.Sprintf("%d+%d", got.Checkpoint, got.Events))
	}
	if got := strings.Join(places, " "); got != "0+400 1+350 2+0" {
		t.Errorf("got %s", got)
	}
	if got.Total != 900 {
		t.Errorf("got %d events", got.Total)
	}
	if got, err := l.VerifyAll(t.Context(), audit.Place{}); err != nil || !got.Complete || got.Total != 900 {
		t.Errorf("in one answer: got %+v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1400*time.Millisecond)
	defer cancel()
	if got, err := l.VerifyAll(ctx, audit.Place{}); err != nil || got.Events != 400 {
		t.Errorf("in too little time: got %+v, %v", got, err)
	}
}

// TestAChainIsVerifiedBesideEverything: verifying all that there is takes long, and who asks
// for one chain meanwhile is answered.
func TestAChainIsVerifiedBesideEverything(t *testing.T) {
	t.Parallel()
	l := newTrail(t)
	l.write("c-1", 1, time.Now())
	for range 10 {
		l.write("c-2", 500, time.Now())
	}
	l.sign()
	testenv.Exec(t, l.config, "ALTER TABLE audit_events RENAME TO kept")
	testenv.Exec(t, l.config, "CREATE VIEW audit_events AS WITH slow AS MATERIALIZED (SELECT pg_sleep(0.3)) SELECT kept.* FROM slow, kept")
	ctx, stop := context.WithCancel(t.Context())
	all, ctx := errgroup.WithContext(ctx)
	begun := make(chan struct{}, 2)
	for range cap(begun) {
		all.Go(func() error {
			begun <- struct{}{}
			for place := (audit.Place{}); ; {
				got, err := l.VerifyAll(ctx, place)
				if err != nil || got.Broken != nil {
					return fmt.Errorf("got %+v, %w", got, err)
				}
				place = got.Place
			}
		})
	}
	<-begun
	<-begun
	for range 3 {
		asked := time.Now()
		if got, err := l.VerifyChain(t.Context(), "c-1", audit.Verified{}); err != nil || got.Length != 1 || time.Since(asked) > 4*time.Second {
			t.Errorf("got %+v, %v after %s", got, err, time.Since(asked))
		}
	}
	stop()
	if err := all.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// statements counts what is asked of the database.
type statements struct{ n int }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n++
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestManySmallCheckpointsAreVerifiedTogether has as many as three minutes have.
func TestManySmallCheckpointsAreVerifiedTogether(t *testing.T) {
	t.Parallel()
	l := newTrail(t)
	for range 20 {
		l.write("c-1", 2, time.Now())
		l.sign()
	}
	asked := &statements{}
	config := l.config.Copy()
	config.ConnConfig.Tracer = asked
	store, err := postgres.Open(config, postgres.Timeouts{Verify: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	l.Store = store
	if got, total := l.all(); got != "whole" || total != 40 || asked.n > 12 {
		t.Errorf("got %s, %d events, %d statements", got, total, asked.n)
	}
	l.forge("DELETE FROM audit_events WHERE chain_position = 21")
	if got, total := l.all(); got != "missing at 11" || total != 21 {
		t.Errorf("got %s after %d events", got, total)
	}
}

// remove removes the oldest month, which is that of an instant.
func (l *trail) remove(of time.Time) (audit.Checkpoint, error) {
	conn, err := pgx.ConnectConfig(l.t.Context(), l.config.ConnConfig)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	defer func() { _ = conn.Close(l.t.Context()) }()
	outside, err := l.redis.Checkpoint(l.t.Context())
	if err != nil {
		return audit.Checkpoint{}, err
	}
	months, err := postgres.Months(l.t.Context(), conn)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	if len(months) == 0 || !months[0].Equal(time.Date(of.Year(), of.Month(), 1, 0, 0, 0, 0, time.UTC)) {
		return audit.Checkpoint{}, fmt.Errorf("got months %v", months)
	}
	return postgres.RemoveMonth(l.t.Context(), conn, l.Key, outside, months[0])
}

// TestAMonthIsRemovedBesideAMigration that locks the whole table, as ALTER TABLE and TRUNCATE
// do, while what is removed is being signed: the one waits for the other, and neither is ended
// as a deadlock.
func TestAMonthIsRemovedBesideAMigration(t *testing.T) {
	l := newTrail(t)
	old := time.Date(2020, 1, 15, 12, 0, 0, 0, time.UTC)
	l.write("c-1", 2, old)
	l.sign()
	signing := testenv.Begin(t, l.config, "LOCK TABLE audit_removed_runs IN ACCESS EXCLUSIVE MODE")
	removed, altered := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := l.remove(old)
		removed <- err
	}()
	testenv.Waits(t, signing, removed)
	migration := testenv.Begin(t, l.config, "SELECT")
	go func() {
		_, err := migration.Exec(t.Context(), "ALTER TABLE audit_events ADD COLUMN more text")
		altered <- err
	}()
	testenv.WaitsItself(t, signing, migration.Conn(), altered)
	if err := errors.Join(signing.Commit(t.Context()), <-removed, <-altered, migration.Commit(t.Context())); err != nil {
		t.Error(err)
	}
	l.want("whole", "whole")
}

// TestAMonthIsRemovedByPolicy has a chain whose first event is of a month long ago.
func TestAMonthIsRemovedByPolicy(t *testing.T) {
	l := newTrail(t)
	old := time.Date(2020, 1, 15, 12, 0, 0, 0, time.UTC)
	l.write("c-1", 2, old)
	l.write("c-2", 1, old)
	l.write("c-1", 3, time.Now())
	if _, err := l.remove(old); !errors.Is(err, audit.ErrTampered) || !strings.Contains(err.Error(), "month 2020-01: 3 events are stored and 0 are signed") {
		t.Errorf("before it is signed: got %v", err)
	}
	l.sign()
	if removed, err := l.remove(old); err != nil || removed.Events != 3 {
		t.Fatalf("got %+v, %v", removed, err)
	}
	l.want("whole", "whole")
	if got, err := l.VerifyChain(t.Context(), "c-1", audit.Verified{}); err != nil || got.Length != 3 || got.Removed != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := l.VerifyChain(t.Context(), "c-2", audit.Verified{}); err != nil || got.Broken != nil || got.Removed != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	testenv.Exec(t, l.config, "DO $$ BEGIN IF (SELECT count(*) FROM audit_event_ids) <> 3 THEN RAISE 'ids are left'; END IF; END $$")
	// What follows goes on in the same chains, and what is removed otherwise is found as ever.
	l.write("c-1", 1, time.Now())
	l.write("c-3", 2, time.Now())
	l.sign()
	l.want("whole", "whole")
	l.forge("DELETE FROM audit_events WHERE correlation_id = 'c-3' AND chain_position = 1")
	if got := l.chain("c-3"); got != "missing at 1" {
		t.Errorf("the beginning of a chain of which nothing was removed by policy: got %s", got)
	}
	l.forge("UPDATE audit_removed_runs SET last_position = 3 WHERE correlation_id = 'c-1'; DELETE FROM audit_events WHERE correlation_id = 'c-1' AND chain_position = 3")
	l.want("missing at 1", "missing at 2")
	l.forge("UPDATE audit_removed_runs SET last_position = 2 WHERE correlation_id = 'c-1'")
	l.want("missing at 3", "missing at 2")
	l.forge(cutAt("c-1", 4))
	l.want("missing at 3", "missing at 2")
}
