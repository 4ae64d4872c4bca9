//go:build integration

package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/docker/datastorage/app"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

// slow makes inserts of the type "slow" take longer than any deadline.
func (s *service) slow(t *testing.T) {
	t.Helper()
	testenv.Exec(t, s.config, `CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.event_type = 'slow') EXECUTE FUNCTION be_slow()`)
}

// stored counts the events that are in the table.
func (s *service) stored(t *testing.T, where string) string {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), s.config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var n int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM audit_events WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n)
}

// gauge reads a metric without labels.
func (s *service) gauge(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(s.scrape(t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

func TestASlowEventHoldsUpNoOther(t *testing.T) {
	s := start(t)
	s.ready(t)
	s.slow(t)
	slow := event("c-slow")
	slow.EventType = "slow"
	s.create(t, 202, slow) // its write takes too long
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	after := event("c-slow")
	s.create(t, 202, after)
	for i := range 20 {
		s.create(t, 202, event(fmt.Sprintf("c-%d", i)))
	}
	s.database.restore(t)
	until(t, "20", func(t *testing.T) string { return s.stored(t, "correlation_id <> 'c-slow'") })
	until(t, "1", func(t *testing.T) string { return s.stored(t, "correlation_id = 'c-slow'") })
	until(t, "0", func(t *testing.T) string { return s.gauge(t, "datastorage_dlq_depth") })
	if got := s.gauge(t, "datastorage_dlq_dead"); got != "1" {
		t.Errorf("%s events are set aside, want 1", got)
	}
	// Whoever mends the cause puts it back.
	testenv.Exec(t, s.config, "DROP TRIGGER slow ON audit_events")
	var list bytes.Buffer
	opts := s.opts
	opts.Out = &list
	if err := app.ListDead(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(list.String(), slow.EventID.String()) || !strings.Contains(list.String(), "took longer") {
		t.Errorf("got %s", list.String())
	}
	if err := app.RetryDead(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	until(t, "2", func(t *testing.T) string { return s.stored(t, "correlation_id = 'c-slow'") })
}

func TestOrderHoldsWhileOlderEventsWait(t *testing.T) {
	s := start(t)
	s.ready(t)
	testenv.Exec(t, s.config, `CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.event_type = 'old') EXECUTE FUNCTION be_slow()`)
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	const chains = 10
	first := make([]client.EventRequest, chains)
	for i := range first {
		first[i] = event(fmt.Sprintf("c-%d", i))
		first[i].EventType = "old"
		s.create(t, 202, first[i])
	}
	s.database.restore(t)
	until(t, "ready", s.readiness)
	wrong := 0
	for i := range first {
		second := event(first[i].CorrelationID)
		resp, err := s.api.CreateEventsWithResponse(t.Context(), []client.EventRequest{second})
		if err != nil || resp.StatusCode() > 202 {
			t.Fatalf("got %v, %v", resp, err)
		}
		until(t, "2", func(t *testing.T) string { return s.stored(t, "correlation_id = '"+second.CorrelationID+"'") })
		got, err := s.api.GetEventWithResponse(t.Context(), *second.EventID)
		if err != nil || got.StatusCode() != 200 {
			t.Fatalf("got %v, %v", got, err)
		}
		if got.JSON200.ChainPosition != 2 {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("wrong order in %d of %d chains", wrong, chains)
	}
	// Once nothing waits, events are stored at once again.
	s.create(t, 201, event("c-0"))
}

func TestGaugesMoveDuringADrain(t *testing.T) {
	s := start(t)
	s.ready(t)
	testenv.Exec(t, s.config, `CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION be_slow()`)
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	for i := range 3 {
		batch := make([]client.EventRequest, 50)
		for j := range batch {
			batch[j] = event(fmt.Sprintf("c-%d", i))
		}
		s.create(t, 202, batch...)
	}
	until(t, "150", func(t *testing.T) string { return s.gauge(t, "datastorage_dlq_depth") })
	s.database.restore(t)
	seen := map[string]bool{}
	until(t, "0", func(t *testing.T) string {
		depth := s.gauge(t, "datastorage_dlq_depth")
		seen[depth] = true
		return depth
	})
	delete(seen, "0")
	delete(seen, "150")
	if len(seen) == 0 {
		t.Error("the depth stood still while the queue was drained")
	}
	// While Redis is away what waits grows older.
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	s.create(t, 202, event("c-9"))
	until(t, "1", func(t *testing.T) string { return s.gauge(t, "datastorage_dlq_depth") })
	s.dlq.cut()
	age := func(t *testing.T) float64 {
		t.Helper()
		age, err := strconv.ParseFloat(s.gauge(t, "datastorage_dlq_oldest_age_seconds"), 64)
		if err != nil {
			t.Fatal(err)
		}
		return age
	}
	before := age(t)
	until(t, "true", func(t *testing.T) string { return fmt.Sprint(age(t) > before+1) })
	s.dlq.restore(t)
	s.database.restore(t)
	until(t, "0", func(t *testing.T) string { return s.gauge(t, "datastorage_dlq_depth") })
}

// TestReadersHurtNoWriter lets many readers wait for a month that is locked.
func TestReadersHurtNoWriter(t *testing.T) {
	s := start(t)
	s.ready(t)
	testenv.Exec(t, s.config, "SELECT audit_events_add_month('2020-01-01')")
	conn, err := pgx.ConnectConfig(t.Context(), s.config.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE audit_events_2020_01 IN ACCESS EXCLUSIVE MODE", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 40 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if i%4 == 0 {
					_, _ = s.as(t, "reader").VerifyChainWithResponse(t.Context(), client.VerifyChainJSONRequestBody{CorrelationID: "c-1"})
				} else {
					_, _ = s.as(t, "reader").ListEventsWithResponse(t.Context(), &client.ListEventsParams{})
				}
			}
		})
	}
	until(t, "true", func(t *testing.T) string {
		// A transaction sees the same activity all the time.
		return fmt.Sprint(testenv.TryExec(t, s.config, `DO $$ BEGIN IF (SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock') < 3 THEN
			RAISE EXCEPTION 'not yet'; END IF; END $$`) == nil)
	})
	began := time.Now()
	for time.Since(began) < 4*time.Second {
		if got := s.readiness(t); got != "ready" {
			t.Errorf("while readers wait the service is %s", got)
			break
		}
		resp, err := s.api.CreateEventWithResponse(t.Context(), event("c-1"))
		if err != nil || resp.StatusCode() != 201 {
			t.Errorf("while readers wait a write got %v, %v", resp, err)
			break
		}
	}
	close(stop)
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Error(err)
	}
	readers.Wait()
}

func TestAnIDIsOfOneEvent(t *testing.T) {
	s := start(t)
	s.ready(t)
	first := event("c-1")
	s.create(t, 201, first)
	s.create(t, 201, first)
	other := first
	other.EventData = json.RawMessage(`{"n":2}`)
	resp := s.create(t, 409, event("c-1"), other)
	if !strings.Contains(string(resp.Body), first.EventID.String()) || !strings.Contains(string(resp.Body), `"index":1`) {
		t.Errorf("got %s", resp.Body)
	}
	if n := s.total(t, "c-1"); n != 1 {
		t.Errorf("got %d events, want 1: a batch is stored whole or not at all", n)
	}
	zero := event("c-1")
	zero.EventID = new(uuid.UUID)
	if resp := s.create(t, 400, zero); !strings.Contains(string(resp.Body), `"path":"[0].event_id"`) {
		t.Errorf("got %s", resp.Body)
	}
	// What was queued and cannot be stored is set aside and not dropped.
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	s.create(t, 202, other)
	s.database.restore(t)
	until(t, "1", func(t *testing.T) string { return s.gauge(t, "datastorage_dlq_dead") })
}

func TestUnknownParametersAreRefused(t *testing.T) {
	s := start(t)
	s.ready(t)
	for query, want := range map[string]string{
		"corelation_id=c-1":                   "correlation_id",
		"correlation_id=":                     "correlation_id",
		"Limit=5":                             "limit",
		"limit=5&limit=6":                     "limit",
		"nonsense=1":                          "nonsense",
		"correlation_id=a;b":                  "query",
		"event_type=t&event_categroy=gateway": "event_category",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.apiURL+"/api/v1/audit/events?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token("both"))
		resp, err := s.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 400 || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %d %s, %v", query, resp.StatusCode, body, err)
		}
	}
}

func TestOpsListenersAnswerProblems(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		method, addr, path string
		status             int
	}{
		{"GET", s.health, "/nonsense", 404}, {"POST", s.health, "/healthz", 405}, {"GET", s.health, "/healthz", 200},
		{"GET", s.metric, "/nonsense", 404}, {"POST", s.metric, "/metrics", 405}, {"GET", s.metric, "/metrics", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, (&url.URL{Scheme: "http", Host: c.addr, Path: c.path}).String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		kind := resp.Header.Get("Content-Type")
		if resp.StatusCode != c.status || (c.status != 200) != (kind == "application/problem+json") || resp.Header.Get("X-Request-ID") == "" {
			t.Errorf("%s %s%s: got %d %q, id %q", c.method, c.addr, c.path, resp.StatusCode, kind, resp.Header.Get("X-Request-ID"))
		}
	}
}
