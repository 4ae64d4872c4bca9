//go:build integration

package postgres_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

// key signs checkpoints.
var key = audit.Key("a key for tests, of 32 characters")

// open returns a store on a schema of its own.
func open(t testing.TB) (*postgres.Store, *pgxpool.Config) {
	t.Helper()
	config := testenv.Migrated(t)
	return openOn(t, config), config
}

func openOn(t testing.TB, config *pgxpool.Config) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(config.Copy(), postgres.Timeouts{Write: 20 * time.Second, Read: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

func write(t testing.TB, store *postgres.Store, events ...audit.Event) []audit.Receipt {
	t.Helper()
	receipts, err := store.Write(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	return receipts
}

func find(t testing.TB, store *postgres.Store, q postgres.Query) postgres.Page {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	page, err := store.Find(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func wantChain(t testing.TB, store *postgres.Store, correlation string, length int64) {
	t.Helper()
	got, err := store.VerifyChain(t.Context(), key, correlation, audit.Verified{})
	if err != nil || !got.Complete || got.Broken != nil || got.Length != length {
		t.Errorf("chain %s: got %+v, error %v; want %d and whole", correlation, got, err, length)
	}
}

func TestAnEventComesBackAsItWasWritten(t *testing.T) {
	store, _ := open(t)
	full := testenv.Event(t, "c-1", func(e *audit.Event) {
		e.ActorType, e.ActorID, e.ResourceType, e.ResourceID = "service", "gateway", "Pod", "p-1"
		e.Namespace, e.ClusterID, e.Severity = "ns", "cluster", "critical"
		e.DurationMS, e.ErrorCode, e.ErrorMessage, e.ParentID = new(int64(7)), "E1", "größer \"quoted\"\n", new(uuid.New())
	})
	bare := testenv.Event(t, "c-1", nil)
	write(t, store, full, bare)
	for i, want := range []audit.Event{full, bare} {
		got, err := store.Get(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Position != int64(i+1) {
			t.Errorf("got position %d, want %d", got.Position, i+1)
		}
		text := got.Event.Encode()
		decoded, err := audit.Decode(text) // data in canonical form
		if err != nil {
			t.Fatal(err)
		}
		gotText, wantText := decoded.Encode(), want.Encode()
		if string(gotText) != string(wantText) {
			t.Errorf("got %s\nwant %s", gotText, wantText)
		}
	}
	wantChain(t, store, "c-1", 2)
	if _, err := store.Get(t.Context(), uuid.New()); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("unknown id: got %v", err)
	}
}

func TestWritingAgainStoresNothing(t *testing.T) {
	store, _ := open(t)
	first, second := testenv.Event(t, "c-1", nil), testenv.Event(t, "c-1", nil)
	write(t, store, first)
	again := first
	receipts := write(t, store, again, second, second, again)
	for i, want := range []audit.Receipt{
		{ID: first.ID, Timestamp: first.Timestamp, Duplicate: true}, {ID: second.ID, Timestamp: second.Timestamp},
		{ID: second.ID, Timestamp: second.Timestamp, Duplicate: true}, {ID: first.ID, Timestamp: first.Timestamp, Duplicate: true},
	} {
		if receipts[i].ID != want.ID || !receipts[i].Timestamp.Equal(want.Timestamp) || receipts[i].Duplicate != want.Duplicate {
			t.Errorf("receipt %d: got %+v, want %+v", i, receipts[i], want)
		}
	}
	if page := find(t, store, postgres.Query{}); page.Total != 2 {
		t.Errorf("got %d events, want 2", page.Total)
	}
	wantChain(t, store, "c-1", 2)
	wantChain(t, store, "c-2", 0)
}

func TestAnIDIsOfOneEvent(t *testing.T) {
	store, config := open(t)
	first := testenv.Event(t, "c-1", nil)
	write(t, store, first)
	other := testenv.Event(t, "c-1", func(e *audit.Event) { e.ID, e.Timestamp, e.Outcome = first.ID, first.Timestamp, "failure" })
	var conflict *audit.ConflictError
	_, err := store.Write(t.Context(), []audit.Event{testenv.Event(t, "c-1", nil), other})
	if !errors.As(err, &conflict) || conflict.ID != first.ID || conflict.Index != 1 || !errors.Is(err, audit.ErrRejected) {
		t.Errorf("got %v", err)
	}
	twice := testenv.Event(t, "c-1", nil)
	changed := twice
	changed.Severity = "high"
	if _, err := store.Write(t.Context(), []audit.Event{twice, changed}); !errors.As(err, &conflict) {
		t.Errorf("in one batch: got %v", err)
	}
	// Another writer may send the same event.
	same := first
	same.RecordedBy = "somebody else"
	if receipts := write(t, store, same); !receipts[0].Duplicate {
		t.Errorf("got %+v", receipts)
	}
	wantChain(t, store, "c-1", 1)
	// Nobody knows what an event said that was stored before contents were.
	testenv.Exec(t, config, "ALTER TABLE audit_event_ids DISABLE TRIGGER USER; UPDATE audit_event_ids SET content = NULL")
	if receipts := write(t, store, other); !receipts[0].Duplicate {
		t.Errorf("got %+v", receipts)
	}
}

// TestAPageIsBoundedByBytes reads events that together do not fit into the memory of a pod.
func TestAPageIsBoundedByBytes(t *testing.T) {
	store, _ := open(t)
	large := []byte(`{"text":"` + strings.Repeat("x", 400_000) + `"}`)
	for range 3 {
		var events []audit.Event
		for range 3 {
			events = append(events, testenv.Event(t, "c-1", func(e *audit.Event) { e.Data = large }))
		}
		write(t, store, events...)
	}
	seen := 0
	for q := (postgres.Query{CorrelationID: "c-1", Limit: 1000}); ; {
		page := find(t, store, q)
		if len(page.Events) == 0 || len(page.Events) > 3 || page.Total != 9 {
			t.Fatalf("got %d events of %d", len(page.Events), page.Total)
		}
		seen += len(page.Events)
		if q.After = page.Next; page.Next == nil {
			break
		}
	}
	if seen != 9 {
		t.Errorf("got %d events, want 9", seen)
	}
}

func TestTheTotalIsBounded(t *testing.T) {
	store, config := open(t)
	write(t, store, testenv.Event(t, "c-1", nil))
	testenv.Exec(t, config, fmt.Sprintf(`INSERT INTO audit_events (event_date, event_id, version, event_type, event_timestamp, event_category, event_action,
		event_outcome, correlation_id, event_data, chain_position, previous_hash, event_hash)
		SELECT event_date, gen_random_uuid(), version, event_type, event_timestamp, event_category, event_action,
		event_outcome, correlation_id, event_data, chain_position + n, previous_hash, event_hash FROM audit_events, generate_series(1, %d) AS n`, postgres.MaxTotal))
	if page := find(t, store, postgres.Query{Limit: 1}); page.Total != postgres.MaxTotal || !page.More {
		t.Errorf("got %d, more %v", page.Total, page.More)
	}
	testenv.Exec(t, config, "ANALYZE audit_events")
	// A filter that selects nothing must not look at everything.
	for _, column := range []string{"correlation_id", "event_type", "event_category", "severity"} {
		plan := explain(t, config, "SELECT * FROM audit_events WHERE "+column+" = 'nothing' ORDER BY event_timestamp DESC, sequence DESC LIMIT 101")
		if !strings.Contains(plan, "Index Scan") || !strings.Contains(plan, "Index Cond: (("+column) {
			t.Errorf("%s: got %s", column, plan)
		}
	}
}

func explain(t *testing.T, config *pgxpool.Config, sql string) string {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), "EXPLAIN "+sql)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestALongChainIsVerifiedInParts(t *testing.T) {
	store, config := open(t)
	for range 3 {
		var events []audit.Event
		for range 250 {
			events = append(events, testenv.Event(t, "c-1", nil))
		}
		write(t, store, events...)
	}
	// Each row takes so long that a part ends before the chain does.
	testenv.Exec(t, config, "ALTER TABLE audit_events RENAME TO kept")
	columns := "version, event_type, event_timestamp, event_category, event_action, event_outcome, correlation_id, actor_type, actor_id, " +
		"resource_type, resource_id, namespace, cluster_id, severity, duration_ms, error_code, error_message, parent_event_id, recorded_by, " +
		"chain_position, previous_hash, event_hash, sequence, event_data"
	testenv.Exec(t, config, "CREATE VIEW audit_events AS SELECT "+columns+", CASE WHEN pg_sleep(0.0025) IS NOT NULL THEN event_id END AS event_id FROM kept")
	var from audit.Verified
	parts := 0
	for {
		got, err := store.VerifyChain(t.Context(), key, "c-1", from)
		if err != nil || got.Broken != nil {
			t.Fatalf("after %d: got %+v, %v", from.Last.Position, got, err)
		}
		parts++
		if got.Complete {
			if got.Length != 750 {
				t.Errorf("got length %d", got.Length)
			}
			break
		}
		if got.Last.Position <= from.Last.Position {
			t.Fatalf("no progress at %d", from.Last.Position)
		}
		from = got
	}
	if parts < 2 {
		t.Error("the chain was verified at once")
	}
}

func TestABatchIsStoredWhollyOrNotAtAll(t *testing.T) {
	store, _ := open(t)
	bad := testenv.Event(t, "c-1", nil)
	bad.Outcome = "unheard of"
	_, err := store.Write(t.Context(), []audit.Event{testenv.Event(t, "c-1", nil), bad})
	if !errors.Is(err, audit.ErrRejected) || errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if page := find(t, store, postgres.Query{}); page.Total != 0 {
		t.Errorf("got %d events, want none", page.Total)
	}
	write(t, store, testenv.Event(t, "c-1", nil))
	wantChain(t, store, "c-1", 1)
}

func TestConcurrentWritersKeepTheirChains(t *testing.T) {
	store, _ := open(t)
	const writers, batches, size, chains = 8, 20, 25, 6
	shared := make([]audit.Event, size) // every writer sends these too, in another order
	for i := range shared {
		shared[i] = testenv.Event(t, fmt.Sprintf("c-%d", i%chains), nil)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for range batches {
				var events []audit.Event
				for range size {
					events = append(events, testenv.Event(t, fmt.Sprintf("c-%d", random.IntN(chains)), nil))
				}
				events = append(events, shared...)
				random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
				if _, err := store.Write(t.Context(), events); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := find(t, store, postgres.Query{Limit: 1}).Total
	if want := int64(writers*batches*size + size); total != want {
		t.Errorf("got %d events, want %d", total, want)
	}
	for c := range chains {
		correlation := fmt.Sprintf("c-%d", c)
		wantChain(t, store, correlation, find(t, store, postgres.Query{CorrelationID: correlation, Limit: 1}).Total)
	}
}

// Waiting for others' chains cost a quarter of the time of a load of batches.
func TestAWriterWaitsForItsOwnChainsOnly(t *testing.T) {
	store, config := open(t)
	stripe := func(correlation string) uint32 {
		sum := sha256.Sum256([]byte(correlation))
		return binary.BigEndian.Uint32(sum[:4]) % 2048
	}
	const held = "held"
	neighbour := ""
	for i := 0; neighbour == ""; i++ {
		if name := fmt.Sprintf("c-%d", i); stripe(name) == stripe(held) {
			neighbour = name
		}
	}
	many := make([]audit.Event, 0, 300) // more chains than are locked one by one
	for i := range cap(many) - 1 {
		many = append(many, testenv.Event(t, fmt.Sprintf("many-%d", i), nil))
	}
	many = append(many, testenv.Event(t, held, nil))

	// Somebody is writing an event of the same id: the writer stands still with its locks.
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	first := testenv.Event(t, held, nil)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO audit_event_ids (event_id, event_timestamp, content) VALUES ($1, now(), 0)", first.ID); err != nil {
		t.Fatal(err)
	}
	standing := make(chan error, 1)
	go func() {
		_, err := store.Write(t.Context(), []audit.Event{first})
		standing <- err
	}()
	testenv.Waits(t, tx, standing)
	within := func(d time.Duration, events ...audit.Event) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := store.Write(ctx, events)
		return err
	}
	if err := within(10*time.Second, testenv.Event(t, neighbour, nil)); err != nil {
		t.Errorf("a chain of the same stripe: %v", err)
	}
	if err := within(time.Second, testenv.Event(t, held, nil)); err == nil {
		t.Error("the same chain was written beside the one that writes it")
	}
	if err := within(time.Second, many...); err == nil {
		t.Error("the same chain was written with many others beside the one that writes it")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-standing; err != nil {
		t.Fatal(err)
	}
	write(t, store, many...)
	wantChain(t, store, held, 2)
}

func TestChainsShowTampering(t *testing.T) {
	// A role that owns the tables can switch the triggers off.
	const off, on = "ALTER TABLE audit_events DISABLE TRIGGER USER; ", "; ALTER TABLE audit_events ENABLE TRIGGER USER"
	for name, c := range map[string]struct {
		sql      string // $n is the id of event n
		position int64
		reason   string
		length   int64
	}{
		"a changed column":  {"UPDATE audit_events SET event_outcome = 'failure' WHERE event_id = $3", 3, audit.Changed, 5},
		"changed data":      {`UPDATE audit_events SET event_data = event_data || '{"z":1.5}' WHERE event_id = $3`, 3, audit.Changed, 5},
		"a changed hash":    {`UPDATE audit_events SET event_hash = '\x00' WHERE event_id = $3`, 3, audit.Changed, 5},
		"a removed row":     {"DELETE FROM audit_events WHERE event_id = $3", 3, audit.Missing, 4},
		"the last removed":  {"DELETE FROM audit_events WHERE event_id = $5", 5, audit.Missing, 4},
		"a reordered row":   {"UPDATE audit_events SET chain_position = 6 - chain_position WHERE event_id IN ($2, $4)", 2, audit.Changed, 5},
		"another chain's":   {"UPDATE audit_events SET correlation_id = 'c-2' WHERE event_id = $1", 1, audit.Missing, 4},
		"a row with no end": {"INSERT INTO audit_events SELECT event_date, nextval('audit_events_sequence'), gen_random_uuid(), version, event_type, event_timestamp, event_category, event_action, event_outcome, correlation_id, actor_type, actor_id, resource_type, resource_id, namespace, cluster_id, severity, duration_ms, error_code, error_message, parent_event_id, event_data, 6, event_hash, event_hash FROM audit_events WHERE event_id = $5", 6, audit.Unknown, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, config := open(t)
			sql := c.sql
			for i := range 5 {
				e := testenv.Event(t, "c-1", nil)
				write(t, store, e)
				sql = strings.ReplaceAll(sql, fmt.Sprintf("$%d", i+1), "'"+e.ID.String()+"'")
			}
			wantChain(t, store, "c-1", 5)
			testenv.Exec(t, config, off+sql+on)
			got, err := store.VerifyChain(t.Context(), key, "c-1", audit.Verified{})
			if err != nil || got.Broken == nil || got.Broken.Position != c.position || got.Broken.Reason != c.reason || got.Length != c.length {
				t.Errorf("got %+v, break %+v, error %v", got, got.Broken, err)
			}
		})
	}
}

func TestEventsAreImmutable(t *testing.T) {
	store, config := open(t)
	e := testenv.Event(t, "c-1", nil)
	write(t, store, e)
	partition := "audit_events_" + e.Timestamp.Format("2006_01")
	for _, sql := range []string{
		"UPDATE audit_events SET event_outcome = 'failure'",
		"UPDATE audit_events SET event_data = '{}'",
		"UPDATE " + partition + " SET event_outcome = 'failure'",
		"DELETE FROM audit_events",
		"DELETE FROM " + partition,
		"TRUNCATE audit_events",
		"TRUNCATE " + partition,
		"UPDATE audit_event_ids SET event_timestamp = now()",
		"DELETE FROM audit_event_ids",
		"DELETE FROM audit_chains",
		"TRUNCATE audit_chains",
		"DELETE FROM audit_checkpoints",
		"UPDATE audit_checkpoints SET events = 0",
		"DELETE FROM audit_signed_ends",
		"TRUNCATE audit_signed_ends",
	} {
		if err := testenv.TryExec(t, config, sql); err == nil || !strings.Contains(err.Error(), "23514") {
			t.Errorf("%s: got %v, want SQLSTATE 23514", sql, err)
		}
	}
	wantChain(t, store, "c-1", 1)
}

// TestTheServersRoleCanOnlyDoWhatTheServerDoes migrates as a role that owns the tables and
// may nothing else, writes as the server's role, and tries what somebody would who has
// taken the server over.
func TestTheServersRoleCanOnlyDoWhatTheServerDoes(t *testing.T) {
	super := testenv.Schema(t)
	as := func(role string) *pgxpool.Config {
		role += "_" + strings.ReplaceAll(uuid.NewString(), "-", "")
		config := super.Copy()
		config.ConnConfig.User, config.ConnConfig.Password = role, "secret"
		return config
	}
	owner, config := as("owner"), as("server")
	config.ConnConfig.Password = "it's a secret"
	testenv.Exec(t, super, "CREATE ROLE "+owner.ConnConfig.User+" LOGIN CREATEROLE PASSWORD 'secret'")
	defer func() { // before the schema goes
		for _, role := range []string{config.ConnConfig.User, owner.ConnConfig.User} {
			testenv.Exec(t, super, "REASSIGN OWNED BY "+role+" TO CURRENT_USER; DROP OWNED BY "+role+"; DROP ROLE "+role)
		}
	}()
	testenv.Exec(t, super, "ALTER SCHEMA "+super.ConnConfig.RuntimeParams["search_path"]+" OWNER TO "+owner.ConnConfig.User)
	if _, err := migrations.Up(t.Context(), owner.ConnConfig.Copy(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	var runs errgroup.Group
	for range 4 { // again, as every deployment does, and at once
		runs.Go(func() error {
			return migrations.Grant(t.Context(), owner.ConnConfig.Copy(), config.ConnConfig.User, config.ConnConfig.Password)
		})
	}
	if err := runs.Wait(); err != nil {
		t.Fatal(err)
	}
	store := openOn(t, config)
	e := testenv.Event(t, "c-1", func(e *audit.Event) { e.RecordedBy = "system:serviceaccount:ns:writer" })
	write(t, store, e, testenv.Event(t, "c-1", nil)) // into a month that it has to make
	write(t, store, testenv.Event(t, "c-1", nil))
	wantChain(t, store, "c-1", 3)
	if got, err := store.Get(t.Context(), e.ID); err != nil || got.RecordedBy != e.RecordedBy {
		t.Errorf("got %+v, %v", got, err)
	}
	if page := find(t, store, postgres.Query{}); page.Total != 3 {
		t.Errorf("got %d events", page.Total)
	}
	if err := errors.Join(store.CheckSchema(t.Context()), store.AddMonths(t.Context(), time.Now())); err != nil {
		t.Error(err)
	}
	if newest, _, err := store.TakeCheckpoint(t.Context(), key, audit.Checkpoint{}, math.MaxInt64); err != nil || newest.Events != 3 {
		t.Errorf("got %+v, %v", newest, err)
	}
	partition := "audit_events_" + e.Timestamp.Format("2006_01")
	for _, sql := range []string{
		"ALTER TABLE audit_events DISABLE TRIGGER USER", "ALTER TABLE " + partition + " DISABLE TRIGGER USER",
		"SET session_replication_role = replica", "UPDATE audit_events SET event_outcome = 'failure'", "DELETE FROM audit_events",
		"DELETE FROM " + partition, "TRUNCATE audit_events", "DROP TABLE " + partition, "DROP TABLE audit_events",
		"DELETE FROM audit_event_ids", "DELETE FROM audit_chains", "UPDATE audit_chains SET correlation_id = 'c-2'",
		"DELETE FROM audit_checkpoints", "UPDATE audit_checkpoints SET events = 0", "DELETE FROM audit_signed_ends", "UPDATE audit_signed_ends SET length = 1",
		"UPDATE goose_db_version SET is_applied = false", "CREATE TABLE more (x int)",
		"COPY (SELECT 1) TO PROGRAM 'true'", "SELECT pg_read_file('/etc/passwd')", "CREATE ROLE more",
	} {
		if err := testenv.TryExec(t, config, sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: got %v, want SQLSTATE 42501", sql, err)
		}
	}
	wantChain(t, store, "c-1", 3)
}

// TestTheWriterIsPartOfTheHash changes who wrote an event.
func TestTheWriterIsPartOfTheHash(t *testing.T) {
	store, config := open(t)
	write(t, store, testenv.Event(t, "c-1", func(e *audit.Event) { e.RecordedBy = "the gateway" }))
	wantChain(t, store, "c-1", 1)
	testenv.Exec(t, config, "ALTER TABLE audit_events DISABLE TRIGGER USER; UPDATE audit_events SET recorded_by = 'somebody else'")
	if got, err := store.VerifyChain(t.Context(), key, "c-1", audit.Verified{}); err != nil || got.Broken == nil || got.Broken.Reason != audit.Changed {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFilters(t *testing.T) {
	store, _ := open(t)
	base := time.Now().UTC().Truncate(time.Hour)
	for i := range 12 {
		write(t, store, testenv.Event(t, fmt.Sprintf("c-%d", i%2), func(e *audit.Event) {
			e.Timestamp = base.Add(-time.Duration(i) * time.Hour)
			e.Type, e.Category = fmt.Sprintf("type-%d", i%3), fmt.Sprintf("category-%d", i%4)
			e.Outcome = []string{"success", "failure", "pending"}[i%3]
			e.Severity = []string{"", "low"}[i/6]
		}))
	}
	for name, c := range map[string]struct {
		query postgres.Query
		total int64
	}{
		"none":            {postgres.Query{}, 12},
		"correlation_id":  {postgres.Query{CorrelationID: "c-0"}, 6},
		"type":            {postgres.Query{Type: "type-1"}, 4},
		"category":        {postgres.Query{Category: "category-3"}, 3},
		"outcome":         {postgres.Query{Outcome: "pending"}, 4},
		"severity":        {postgres.Query{Severity: "low"}, 6},
		"since, included": {postgres.Query{Since: base.Add(-2 * time.Hour)}, 3},
		"until, included": {postgres.Query{Until: base.Add(-9 * time.Hour)}, 3},
		"since and until": {postgres.Query{Since: base.Add(-9 * time.Hour), Until: base.Add(-2 * time.Hour)}, 8},
		"all together":    {postgres.Query{CorrelationID: "c-0", Type: "type-0", Category: "category-0", Outcome: "success", Since: base.Add(-24 * time.Hour), Until: base}, 1},
		"nothing":         {postgres.Query{CorrelationID: "c-9"}, 0},
		"not SQL":         {postgres.Query{CorrelationID: "' OR true --"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			page := find(t, store, c.query)
			if page.Total != c.total || int64(len(page.Events)) != c.total || page.Next != nil {
				t.Errorf("got total %d and %d events, next %v; want %d", page.Total, len(page.Events), page.Next, c.total)
			}
			if !slices.IsSortedFunc(page.Events, func(a, b audit.Stored) int { return b.Timestamp.Compare(a.Timestamp) }) {
				t.Error("not newest first")
			}
		})
	}
}

func TestPagesByOffset(t *testing.T) {
	store, _ := open(t)
	for range 25 {
		write(t, store, testenv.Event(t, "c-1", nil))
	}
	var ids []uuid.UUID
	for offset := 0; offset < 30; offset += 10 {
		page := find(t, store, postgres.Query{Limit: 10, Offset: offset})
		if page.Total != 25 || (page.Next != nil) != (offset < 20) {
			t.Errorf("offset %d: got total %d, next %v", offset, page.Total, page.Next)
		}
		for _, e := range page.Events {
			ids = append(ids, e.ID)
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	if len(ids) != 25 || len(slices.Compact(ids)) != 25 {
		t.Errorf("got %d ids, %d of them different", len(ids), len(slices.Compact(ids)))
	}
}

func TestPagesByCursorStayStableWhileEventsAreWritten(t *testing.T) {
	store, _ := open(t)
	at := time.Now()
	var want []uuid.UUID // newest first; all of one microsecond
	for range 50 {
		e := testenv.Event(t, "c-1", func(e *audit.Event) { e.Timestamp = at })
		write(t, store, e)
		want = slices.Insert(want, 0, e.ID)
	}
	var got []uuid.UUID
	for q := (postgres.Query{CorrelationID: "c-1", Limit: 7}); ; {
		page := find(t, store, q)
		for _, e := range page.Events {
			got = append(got, e.ID)
		}
		// Newer ones, and one of the same microsecond: they come first.
		write(t, store, testenv.Event(t, "c-1", func(e *audit.Event) { e.Timestamp = time.Now().Add(time.Minute) }),
			testenv.Event(t, "c-1", func(e *audit.Event) { e.Timestamp = at }))
		if page.Next == nil {
			break
		}
		q.After = page.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d events, want the %d first ones once each, newest first", len(got), len(want))
	}
}

func TestWritesFindTheirMonth(t *testing.T) {
	store, config := open(t)
	// Nothing was made in advance: each month is made by the first write into it.
	var events []audit.Event
	for _, at := range []string{"2027-12-31T23:59:59.999999Z", "2028-01-01T00:00:00Z", "2028-02-29T12:00:00Z", "2028-02-29T23:59:59.999999Z", "2028-03-01T00:00:00Z", "2026-04-30T23:59:59Z"} {
		e := testenv.Event(t, "c-1", nil)
		var err error
		if e.Timestamp, err = time.Parse(time.RFC3339Nano, at); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	write(t, store, events...)
	for partition, n := range map[string]int{"2027_12": 1, "2028_01": 1, "2028_02": 2, "2028_03": 1, "2026_04": 1} {
		testenv.Exec(t, config, fmt.Sprintf(`DO $$ BEGIN IF (SELECT count(*) FROM audit_events_%s) <> %d THEN
			RAISE EXCEPTION 'wrong number of rows'; END IF; END $$`, partition, n))
	}
	for _, e := range events {
		if got, err := store.Get(t.Context(), e.ID); err != nil || !got.Timestamp.Equal(e.Timestamp) {
			t.Errorf("%s: got %s, %v", e.Timestamp, got.Timestamp, err)
		}
	}
	wantChain(t, store, "c-1", int64(len(events)))
}

func TestMonthsAreMadeOnceHoweverManyMakeThem(t *testing.T) {
	store, config := open(t)
	now := time.Date(2028, 1, 3, 0, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := store.AddMonths(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, month := range []string{"2027_12", "2028_01", "2028_02", "2028_03"} {
		testenv.Exec(t, config, "SELECT 1 FROM audit_events_"+month)
	}
	if err := testenv.TryExec(t, config, "SELECT 1 FROM audit_events_2028_04"); err == nil {
		t.Error("a month beyond was made")
	}
}

// TestAMonthIsMadeBesideReadersAndWriters: a verification reads for seconds, and neither the
// month nor those who write wait for it.
func TestAMonthIsMadeBesideReadersAndWriters(t *testing.T) {
	store, config := open(t)
	write(t, store, testenv.Event(t, "c-1", nil))
	testenv.Begin(t, config, "SELECT count(*) FROM audit_events; LOCK TABLE audit_events IN ROW EXCLUSIVE MODE")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := store.AddMonths(ctx, time.Date(2028, 1, 3, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Error(err)
	}
}

// TestTheFirstMonthIsMadeBesideAMigration that changes the table's rights, and so what the
// catalog says of the table, in the same moment.
func TestTheFirstMonthIsMadeBesideAMigration(t *testing.T) {
	store, config := open(t)
	tx := testenv.Begin(t, config, "GRANT SELECT ON audit_events TO CURRENT_USER")
	done := make(chan error, 1)
	go func() { done <- store.AddMonths(t.Context(), time.Date(2028, 1, 3, 0, 0, 0, 0, time.UTC)) }()
	testenv.Waits(t, tx, done)
	if err := errors.Join(tx.Commit(t.Context()), <-done); err != nil {
		t.Error(err)
	}
}

func TestSchemaIsCheckedAndMigrationsConverge(t *testing.T) {
	config := testenv.Schema(t)
	store := openOn(t, config)
	if err := store.CheckSchema(t.Context()); err == nil {
		t.Error("an empty schema passed")
	}
	if _, err := store.Write(t.Context(), []audit.Event{testenv.Event(t, "c-1", nil)}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a write without a schema: got %v, want it to be worth another attempt", err)
	}
	var wg sync.WaitGroup
	applied := make([]int, 2)
	for i := range applied {
		wg.Go(func() {
			var err error
			if applied[i], err = migrations.Up(t.Context(), config.ConnConfig.Copy(), slog.New(slog.DiscardHandler)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if applied[0]+applied[1] != int(migrations.Version) {
		t.Errorf("two at once applied %v steps, want %d together", applied, migrations.Version)
	}
	if n, err := migrations.Up(t.Context(), config.ConnConfig.Copy(), slog.New(slog.DiscardHandler)); n != 0 || err != nil {
		t.Errorf("again: got %d, %v", n, err)
	}
	if err := store.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	write(t, store, testenv.Event(t, "c-1", nil))
	testenv.Exec(t, config, "DELETE FROM goose_db_version WHERE version_id > 0")
	if err := store.CheckSchema(t.Context()); err == nil || !strings.Contains(err.Error(), "datastorage migrate") || !postgres.Refuses(err) {
		t.Errorf("an older schema: got %v", err)
	}
}

func TestADatabaseThatIsAwayIsUnavailable(t *testing.T) {
	config := testenv.Schema(t)
	away := config.Copy()
	away.ConnConfig.Port, away.ConnConfig.Fallbacks = 1, nil
	store := openOn(t, away)
	if err := store.Ping(t.Context()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("ping: got %v", err)
	}
	if _, err := store.Write(t.Context(), []audit.Event{testenv.Event(t, "c-1", nil)}); !errors.Is(err, audit.ErrUnavailable) || errors.Is(err, audit.ErrRejected) {
		t.Errorf("write: got %v", err)
	}
}

// BenchmarkWriteBatchOf100 writes what the Gateway does: two events of some 1,300 bytes for
// each of fifty requests.
func BenchmarkWriteBatchOf100(b *testing.B) {
	store, _ := open(b)
	if err := store.AddMonths(b.Context(), time.Now()); err != nil {
		b.Fatal(err)
	}
	data := []byte(`{"signal":"RequestLatencyHigh","labels":{"namespace":"production","pod":"checkout-7d9f6c5b8-x2x7k"},"payload":"` +
		strings.Repeat("0123456789abcdef", 70) + `"}`)
	b.RunParallel(func(pb *testing.PB) {
		worker := uuid.NewString()
		for pb.Next() {
			events := make([]audit.Event, 100)
			for i := range events {
				events[i] = testenv.Event(b, fmt.Sprint(worker, i/2), func(e *audit.Event) { e.Data = data })
			}
			if _, err := store.Write(b.Context(), events); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "events/s")
}

// randomJSON writes a JSON value as careless senders do.
func randomJSON(random *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[random.IntN(len(options))] }
	text := func() string {
		return pick(`""`, `"a"`, `"B"`, `"aa"`, `"é"`, `"\u00e9"`, `"<&>"`, `"\u2028"`, `"\ud83d\ude00"`, `"😀"`, `"\ud800"`, `"\n\t\\\"\/"`, `"\u0001\u007f"`, `"Z"`, `"10"`, `"9"`)
	}
	kind := random.IntN(8)
	if depth == 0 {
		kind = 0
	}
	var parts []string
	switch {
	case kind < 2 && depth > 0 || kind == 2:
		for range random.IntN(5) {
			parts = append(parts, text()+pick(":", " : ", ":\n")+randomJSON(random, max(depth-1, 0)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case kind == 3:
		for range random.IntN(5) {
			parts = append(parts, randomJSON(random, depth-1))
		}
		return "[" + strings.Join(parts, pick(",", " , ")) + "]"
	case kind == 4:
		return text()
	case kind == 5:
		return pick("true", "false", "null")
	default:
		whole := pick("0", "-0", "1", "-1", "10", "123456789012345678901234567890", fmt.Sprint(random.Int64()), fmt.Sprint(-random.Int64()))
		return whole + pick("", "", ".0", ".00", ".5", ".10", ".000001") + pick("", "", "", "e0", "e1", "E+2", "e-1", "e-7", "e20", "e300", "e-300")
	}
}

// TestCanonicalFormSurvivesPostgres guards the assumption that chains rest on: what
// jsonb gives back has the canonical form of what it was given.
func TestCanonicalFormSurvivesPostgres(t *testing.T) {
	store, _ := open(t)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	const n = 500
	var events []audit.Event
	for i := range n {
		e := audit.Event{
			ID: uuid.New(), Version: "1.0", Type: "t", Timestamp: time.Now(), Category: "c", Action: "a", Outcome: "success",
			CorrelationID: fmt.Sprint("c-", i), ErrorMessage: "\u2028<é😀", Data: []byte(`{"v":` + randomJSON(random, 4) + "}"),
		}
		text := string(e.Data)
		if err := e.Normalize(time.Now()); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		events = append(events, e)
	}
	write(t, store, events...)
	for _, e := range events {
		if found, err := store.VerifyChain(t.Context(), key, e.CorrelationID, audit.Verified{}); err != nil || found.Broken != nil {
			got, _ := store.Get(t.Context(), e.ID)
			t.Fatalf("got %+v, %v\nwritten %s\nread    %s", found.Broken, err, e.Data, got.Data)
		}
	}
}

func TestReadersMeetNoBrokenConnection(t *testing.T) {
	config := testenv.Migrated(t)
	named := config.Copy()
	named.ConnConfig.RuntimeParams["application_name"] = t.Name()
	db := openOn(t, named)
	for name, read := range map[string]func() error{
		"page":   func() error { _, err := db.Find(t.Context(), postgres.Query{Limit: 1}); return err },
		"verify": func() error { _, err := db.VerifyChain(t.Context(), key, "c", audit.Verified{}); return err },
	} {
		for range 2 {
			if err := read(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			testenv.Exec(t, config, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '"+t.Name()+"'")
		}
	}
}

// TestItIsTold: a password that is wrong from a database that is away.
func TestItIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*pgxpool.Config)
		refused bool
	}{
		"a wrong password":         {func(c *pgxpool.Config) { c.ConnConfig.Password = "wrong" }, true},
		"a role that is not there": {func(c *pgxpool.Config) { c.ConnConfig.User = "nobody" }, true},
		"a port of nobody's":       {func(c *pgxpool.Config) { c.ConnConfig.Port = 1 }, false},
	} {
		config := testenv.Schema(t).Copy() // the schema is removed by the other
		c.change(config)
		store, err := postgres.Open(config, postgres.Timeouts{})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Ping(t.Context()); err == nil || postgres.Refuses(err) != c.refused {
			t.Errorf("%s: got %v, want refused: %t", name, err, c.refused)
		}
		store.Close()
	}
}
