package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/api"
	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/canonical"
	"kubernaut.ai/e2e/docker/datastorage/intake"
	"kubernaut.ai/e2e/docker/datastorage/metrics"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/internal/problem"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// service stands for everything behind the API.
type service struct {
	accept   func(events []audit.Event) (bool, error) // nil accepts
	accepted []audit.Event
	find     func(q postgres.Query) (postgres.Page, error)
	get      func(id uuid.UUID) (audit.Stored, error)
	verify   func(correlation string, from audit.Verified) (audit.Verified, error)
	// verifyAll is asked when no correlation id is given.
	verifyAll func(from audit.Place) (audit.Report, error)
	mu        sync.Mutex
	verbs     []string // that were asked for
}

func (s *service) Accept(_ context.Context, events []audit.Event) ([]audit.Receipt, bool, error) {
	var queued bool
	if s.accept != nil {
		var err error
		if queued, err = s.accept(events); err != nil {
			return nil, false, err
		}
	}
	s.accepted = append(s.accepted, events...)
	receipts := make([]audit.Receipt, len(events))
	for i, e := range events {
		receipts[i] = audit.Receipt{ID: e.ID, Timestamp: e.Timestamp}
	}
	return receipts, queued, nil
}

func (s *service) Get(_ context.Context, id uuid.UUID) (audit.Stored, error) { return s.get(id) }
func (s *service) Find(_ context.Context, q postgres.Query) (postgres.Page, error) {
	return s.find(q)
}
func (s *service) VerifyChain(_ context.Context, correlation string, from audit.Verified) (audit.Verified, error) {
	return s.verify(correlation, from)
}
func (s *service) VerifyAll(_ context.Context, from audit.Place) (audit.Report, error) {
	return s.verifyAll(from)
}

// access lets everybody in but those without a token.
func (s *service) access(verb func(*http.Request) string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				problem.Write(w, r, problem.New(http.StatusUnauthorized, "unauthorized", "no token"))
				return
			}
			s.mu.Lock()
			s.verbs = append(s.verbs, verb(r))
			s.mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}
}

const maxBody = 64 << 10

func newHandler(t testing.TB, s *service) http.Handler {
	t.Helper()
	handler, err := New(Options{
		Accepter: s, Reader: s, Verifier: s, Access: s.access, Metrics: metrics.New(Routes()), Log: slog.New(slog.DiscardHandler),
		Ready:   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ready"}`) },
		Timeout: time.Minute, MaxBodyBytes: maxBody, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// send sends a request with a token and returns the answer and its body.
func send(handler http.Handler, method, path, body string, headers ...string) (*httptest.ResponseRecorder, map[string]any) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer x")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	var doc map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &doc) // nil when it is no object
	return w, doc
}

const events = "/api/v1/audit/events"

// event returns the JSON of an event with members replaced; nil removes one.
func event(changes ...any) string {
	members := map[string]any{
		"version": "1.0", "event_type": "t", "event_timestamp": "2026-11-23T12:00:00Z", "event_category": "gateway",
		"event_action": "a", "event_outcome": "success", "correlation_id": "rr-1", "event_data": map[string]any{},
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == nil {
			delete(members, changes[i].(string))
			continue
		}
		members[changes[i].(string)] = changes[i+1]
	}
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestCreateEvent(t *testing.T) {
	s := &service{}
	handler := newHandler(t, s)
	const id, parent = "6f1f0c5e-0000-4000-8000-000000000001", "6f1f0c5e-0000-4000-8000-000000000002"
	w, doc := send(handler, "POST", events, event("event_id", id, "actor_type", "service", "actor_id", "gw", "resource_type", "Pod",
		"resource_id", "p", "namespace", "ns", "cluster_id", "", "severity", "critical", "duration_ms", 7, "error_code", "E", "error_message", "m",
		"parent_event_id", parent, "event_data", json.RawMessage(`{"n":12345678901234567890.10,"a":"<&>"}`)), "Content-Type", "application/json; charset=utf-8")
	if w.Code != 201 || doc["event_id"] != id || doc["event_timestamp"] != "2026-11-23T12:00:00Z" {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	got := s.accepted[0].Encode()
	want := `{"event_id":"` + id + `","version":"1.0","event_type":"t","event_timestamp":"2026-11-23T12:00:00Z","event_category":"gateway",` +
		`"event_action":"a","event_outcome":"success","correlation_id":"rr-1","actor_type":"service","actor_id":"gw","resource_type":"Pod",` +
		`"resource_id":"p","namespace":"ns","severity":"critical","duration_ms":7,"error_code":"E","error_message":"m","parent_event_id":"` + parent +
		`","event_data":{"a":"<&>","n":12345678901234567890.10}}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if w.Header().Get("X-Request-ID") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got headers %v", w.Header())
	}
	if w, doc := send(handler, "POST", events, event()); w.Code != 201 || uuid.Validate(fmt.Sprint(doc["event_id"])) != nil {
		t.Errorf("without an id: got %d %s", w.Code, w.Body)
	}
	if fmt.Sprint(s.verbs) != "[create create]" {
		t.Errorf("got verbs %v", s.verbs)
	}
}

func TestWritesSayWhereTheyEndedUp(t *testing.T) {
	down := fmt.Errorf("%w: %w", intake.ErrRefused, fmt.Errorf("dial: %w", audit.ErrUnavailable))
	for name, c := range map[string]struct {
		accept func([]audit.Event) (bool, error)
		status int
		slug   string
	}{
		"queued":    {func([]audit.Event) (bool, error) { return true, nil }, 202, ""},
		"both down": {func([]audit.Event) (bool, error) { return false, down }, 503, "storage-unavailable"},
		"rejected":  {func([]audit.Event) (bool, error) { return false, fmt.Errorf("x: %w", audit.ErrRejected) }, 400, "invalid-request"},
		"too slow":  {func([]audit.Event) (bool, error) { return false, context.DeadlineExceeded }, 504, "timeout"},
		"a bug":     {func([]audit.Event) (bool, error) { return false, errors.New("secret detail") }, 500, "internal"},
		"a panic":   {func([]audit.Event) (bool, error) { panic("secret detail") }, 500, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			handler := newHandler(t, &service{accept: c.accept})
			for path, body := range map[string]string{events: event(), events + "/batch": "[" + event() + "," + event() + "]"} {
				w, doc := send(handler, "POST", path, body)
				if w.Code != c.status || strings.Contains(w.Body.String(), "secret") {
					t.Errorf("%s: got %d %s", path, w.Code, w.Body)
				}
				if c.slug == "" {
					if doc["status"] != "accepted" || len(doc["event_ids"].([]any)) == 0 {
						t.Errorf("%s: got %s", path, w.Body)
					}
				} else if doc["type"] != problem.TypeBase+c.slug || doc["instance"] != path || doc["request_id"] != w.Header().Get("X-Request-ID") {
					t.Errorf("%s: got %s", path, w.Body)
				}
				if again := c.status == 503 || c.status == 504; again != (w.Header().Get("Retry-After") == "1") {
					t.Errorf("got Retry-After %q", w.Header().Get("Retry-After"))
				}
			}
		})
	}
}

func TestRefusedEventsNameThePath(t *testing.T) {
	for name, c := range map[string]struct{ body, path string }{
		"a missing member":          {event("version", nil), "version"},
		"an unknown member":         {event("nonsense", 1), "nonsense"},
		"a member in other case":    {event("Version", "1.0"), "Version"},
		"a wrong type":              {event("event_type", 7), "event_type"},
		"null":                      {event("event_type", json.RawMessage("null")), "event_type"},
		"an unknown outcome":        {event("event_outcome", "maybe"), "event_outcome"},
		"an empty type":             {event("event_type", ""), "event_type"},
		"a type too long":           {event("event_type", strings.Repeat("x", 101)), "event_type"},
		"an action too long":        {event("event_action", strings.Repeat("x", 51)), "event_action"},
		"a correlation_id too long": {event("correlation_id", strings.Repeat("x", 256)), "correlation_id"},
		"data that is no object":    {event("event_data", []int{1}), "event_data"},
		"data that is null":         {event("event_data", json.RawMessage("null")), "event_data"},
		"an id of zeros":            {event("event_id", uuid.Nil), "event_id"},
		"a duration too long":       {event("duration_ms", json.RawMessage("1e19")), "duration_ms"},
		"a duration that is text":   {event("duration_ms", "7"), "duration_ms"},
		"too many values":           {event("event_data", json.RawMessage(`{"a":[`+strings.Repeat("0,", 25000)+`1e2000]}`)), "event_data.a[25000]"},
		"a member given twice":      {strings.Replace(event(), "{", `{"version":"1.0",`, 1), "version"},
		"a bad id":                  {event("event_id", "1"), "event_id"},
		"a bad parent":              {event("parent_event_id", "{6f1f0c5e-0000-4000-8000-000000000001}"), "parent_event_id"},
		"a bad time":                {event("event_timestamp", "yesterday"), "event_timestamp"},
		"a negative duration":       {event("duration_ms", -1), "duration_ms"},
		"half a millisecond":        {event("duration_ms", 0.5), "duration_ms"},
		"a time too far ahead":      {event("event_timestamp", "2026-11-23T13:00:00.000001Z"), "event_timestamp"},
		"a time too far back":       {event("event_timestamp", "2026-11-16T11:59:59Z"), "event_timestamp"},
		"a NUL":                     {event("actor_id", "\x00"), "actor_id"},
		"a NUL in the data":         {event("event_data", map[string]any{"a": []any{"\x00"}}), "event_data.a[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &service{}
			handler := newHandler(t, s)
			w, doc := send(handler, "POST", events, c.body)
			if w.Code != 400 || doc["path"] != c.path || doc["index"] != nil || !strings.HasPrefix(fmt.Sprint(doc["detail"]), c.path+": ") {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			w, doc = send(handler, "POST", events+"/batch", "["+event()+","+event()+","+c.body+"]")
			if w.Code != 400 || doc["path"] != "[2]."+c.path || doc["index"] != 2.0 {
				t.Errorf("batch: got %d %s", w.Code, w.Body)
			}
			if len(s.accepted) != 0 {
				t.Errorf("%d events were accepted", len(s.accepted))
			}
		})
	}
}

func TestNumbersMayHaveAnyForm(t *testing.T) {
	s := &service{}
	handler := newHandler(t, s)
	for text, want := range map[string]int64{"1e3": 1000, "1.0": 1, "0": 0, "-0": 0, "1.5e1": 15, "9223372036854775807": 1<<63 - 1} {
		s.accepted = nil
		w, _ := send(handler, "POST", events+"/batch", "["+event("duration_ms", json.RawMessage(text))+"]")
		if w.Code != 201 || *s.accepted[0].DurationMS != want {
			t.Errorf("%s: got %d %s", text, w.Code, w.Body)
		}
	}
}

func TestABodyHasItsPlaceBeforeItIsRead(t *testing.T) {
	taken, release := make(chan struct{}), make(chan struct{})
	s := &service{accept: func(e []audit.Event) (bool, error) {
		if e[0].Type == "held" {
			close(taken)
			<-release
		}
		return false, nil
	}}
	handler, err := New(Options{
		Accepter: s, Reader: s, Verifier: s, Access: s.access, Metrics: metrics.New(Routes()), Log: slog.New(slog.DiscardHandler),
		Ready: func(http.ResponseWriter, *http.Request) {}, Timeout: 300 * time.Millisecond, MaxBodyBytes: largeInHand, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	large := event("event_type", "held", "event_data", map[string]any{"x": strings.Repeat("x", largeInHand-1000)})
	held := make(chan int)
	go func() {
		w, _ := send(handler, "POST", events, large)
		held <- w.Code
	}()
	reads := make(chan struct{}, 1)
	r := httptest.NewRequest("POST", events, readerFunc(func([]byte) (int, error) { reads <- struct{}{}; return 0, io.EOF }))
	r.ContentLength = smallBody + 1
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Expect", "100-continue") // what comes unasked is read, and thrown away
	select {
	case <-taken:
	case code := <-held:
		t.Fatalf("the large one was refused: %d", code)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || len(reads) != 0 {
		t.Errorf("without room: got %d %s; read: %d", w.Code, w.Body, len(reads))
	}
	if w, _ := send(handler, "POST", events, event()); w.Code != 201 {
		t.Errorf("a small one beside it: got %d %s", w.Code, w.Body)
	}
	close(release)
	if code := <-held; code != 201 {
		t.Errorf("got %d", code)
	}
}

func TestASenderLeavesRoomForOthers(t *testing.T) {
	c := &requests{of: map[string]int{}}
	for i := range senderRequests {
		if !c.begin("one") {
			t.Fatalf("request %d is refused", i)
		}
	}
	if c.begin("one") {
		t.Error("one sender may have any number")
	}
	for i := range maxRequests - senderRequests {
		if !c.begin(fmt.Sprint("other ", i%3)) {
			t.Fatalf("request %d of others is refused", i)
		}
	}
	if c.begin("another") {
		t.Error("all together may have any number")
	}
	for range senderRequests {
		c.end("one")
	}
	if !c.begin("one") || c.all != maxRequests-senderRequests+1 || c.of["one"] != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestWhoSendsSlowlyHoldsUpNobody has many senders that announce a small body and send none.
func TestWhoSendsSlowlyHoldsUpNobody(t *testing.T) {
	handler := newHandler(t, &service{})
	ended := make(chan struct{})
	var slow sync.WaitGroup
	reading := make(chan struct{}, 100)
	for range 2 * smallInHand / smallBody {
		slow.Go(func() {
			r := httptest.NewRequest("POST", events, readerFunc(func([]byte) (int, error) { reading <- struct{}{}; <-ended; return 0, io.EOF }))
			r.ContentLength = maxBody
			r.Header.Set("Authorization", "Bearer x")
			handler.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	for range 2 * smallInHand / smallBody {
		<-reading
	}
	if w, _ := send(handler, "POST", events, event()); w.Code != 201 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	close(ended)
	slow.Wait()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestWhatABodyCosts is what the budgets rest on.
func TestWhatABodyCosts(t *testing.T) {
	spec, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDecoder(spec, 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	list := func(element string, n int) json.RawMessage {
		return json.RawMessage(`{"a":[` + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]}")
	}
	small := event()
	for name, body := range map[string]string{
		"empty objects": event("event_data", list("{}", 20_000)), "named objects": event("event_data", list(`{"":{}}`, 10_000)),
		"numbers": event("event_data", list("1", 20_000)), "escapes": event("event_data", list(`"\n"`, 20_000)),
		"small events": "[" + strings.TrimSuffix(strings.Repeat(small+",", 500), ",") + "]",
		"large events": "[" + strings.TrimSuffix(strings.Repeat(event("event_data", list(`{"":{}}`, 1000))+",", 20), ",") + "]",
	} {
		decode := d.one
		if body[0] == '[' {
			decode = d.batch
		}
		// The least of five: what runs beside it only adds.
		taken := uint64(math.MaxUint64)
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			events, err := decode([]byte(body))
			runtime.ReadMemStats(&after)
			if err != nil || len(events) == 0 {
				t.Errorf("%s: %v", name, err)
			}
			taken = min(taken, after.TotalAlloc-before.TotalAlloc)
		}
		if factor := float64(taken) / float64(len(body)); factor > 1+canonical.CostFactor {
			t.Errorf("%s: %d bytes take %.1f times their length, want at most %d", name, len(body), factor, 1+canonical.CostFactor)
		} else {
			t.Logf("%s: %.1f times their length", name, factor)
		}
	}
}

func TestBatchSizes(t *testing.T) {
	s := &service{}
	handler := newHandler(t, s)
	batch := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"event_type":"t","version":"1","event_timestamp":"2026-11-23T12:00:00Z","event_category":"g","event_action":"a","event_outcome":"pending","correlation_id":"c","event_data":{}},`, n), ",") + "]"
	}
	for n, status := range map[int]int{0: 400, 1: 201, 300: 201} {
		if w, _ := send(handler, "POST", events+"/batch", batch(n)); w.Code != status {
			t.Errorf("%d events: got %d %s", n, w.Code, w.Body)
		}
	}
	if len(s.accepted) != 301 {
		t.Errorf("got %d events", len(s.accepted))
	}
	// 501 events are more than this handler's limit on bytes allows; ask the rule itself.
	spec, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDecoder(spec, 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.batch([]byte(batch(501))); err == nil || !strings.Contains(err.Error(), "maximum number of items is 500") {
		t.Errorf("501 events: got %v", err)
	}
}

func TestBodies(t *testing.T) {
	full := event("event_data", map[string]any{"x": strings.Repeat("x", maxBody-len(event("event_data", map[string]any{"x": ""})))})
	if len(full) != maxBody {
		t.Fatalf("the body has %d bytes", len(full))
	}
	for name, c := range map[string]struct {
		body, contentType string
		status            int
		detail            string
	}{
		"at the limit":   {full, "application/json", 201, ""},
		"over the limit": {full + " ", "application/json", 413, "larger than 65536 bytes"},
		"no type":        {event(), "", 201, ""},
		"another type":   {event(), "text/plain", 415, "application/json"},
		"a broken type":  {event(), "application/json; =", 415, "application/json"},
		"nothing":        {"", "application/json", 400, "at byte 0"},
		"truncated":      {event()[:20], "application/json", 400, "at byte 20"},
		"longer written": {strings.Replace(event(), `"event_data":{}`, `"event_data":{"x":"`+strings.Repeat("\u2028", maxBody/4)+`"}`, 1), "application/json", 400, "when it is written out"},
		"two documents":  {event() + event(), "application/json", 400, "not JSON"},
		"deep nesting":   {strings.Repeat("[", 30000), "application/json", 400, "object"},
		"an array":       {"[]", "application/json", 400, "object"},
		"null":           {"null", "application/json", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, doc := send(newHandler(t, &service{}), "POST", events, c.body, "Content-Type", c.contentType)
			if w.Code != c.status || !strings.Contains(fmt.Sprint(doc["detail"]), c.detail) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if c.status == 415 && w.Header().Get("Accept") != "application/json" {
				t.Errorf("got Accept %q", w.Header().Get("Accept"))
			}
		})
	}
	t.Run("of unknown length over the limit", func(t *testing.T) {
		r := httptest.NewRequest("POST", events, io.MultiReader(strings.NewReader(full), strings.NewReader("  ")))
		r.Header.Set("Authorization", "Bearer x")
		w := httptest.NewRecorder()
		newHandler(t, &service{}).ServeHTTP(w, r)
		if w.Code != 413 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("that breaks off", func(t *testing.T) {
		r := httptest.NewRequest("POST", events, io.MultiReader(strings.NewReader("{"), brokenReader{}))
		r.Header.Set("Authorization", "Bearer x")
		w := httptest.NewRecorder()
		newHandler(t, &service{}).ServeHTTP(w, r)
		if w.Code != 400 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRouting(t *testing.T) {
	s := &service{get: func(uuid.UUID) (audit.Stored, error) { return audit.Stored{}, fmt.Errorf("x: %w", audit.ErrNotFound) }}
	handler := newHandler(t, s)
	for name, c := range map[string]struct {
		method, path, token string
		status              int
		slug                string
	}{
		"readiness needs no token":       {"GET", "/readyz", "", 200, ""},
		"everything else does":           {"GET", events, "", 401, "unauthorized"},
		"writing too, before its body":   {"POST", events, "", 401, "unauthorized"},
		"an unknown path":                {"GET", "/api/v1/nothing", "Bearer x", 404, "not-found"},
		"a refused method":               {"DELETE", events, "Bearer x", 405, "method-not-allowed"},
		"an event that is not there":     {"GET", events + "/6f1f0c5e-0000-4000-8000-000000000001", "Bearer x", 404, "event-not-found"},
		"an id that is none":             {"GET", events + "/7", "Bearer x", 400, "invalid-request"},
		"a batch cannot be read":         {"GET", events + "/batch", "Bearer x", 400, "invalid-request"},
		"a chain is verified by posting": {"GET", "/api/v1/audit/verify-chain", "Bearer x", 405, "method-not-allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.token != "" {
				r.Header.Set("Authorization", c.token)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			var doc map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			if w.Code != c.status || (c.slug != "" && doc["type"] != problem.TypeBase+c.slug) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if c.status == 405 && w.Header().Get("Allow") == "" {
				t.Error("got no Allow")
			}
		})
	}
}

func TestListEventsReadsItsParameters(t *testing.T) {
	day := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	place := postgres.Cursor{Timestamp: now, Sequence: 42}
	for query, want := range map[string]postgres.Query{
		"": {Limit: 100},
		"correlation_id=c&event_type=t&event_category=g&event_outcome=failure&severity=s&limit=1000&offset=7": {CorrelationID: "c", Type: "t", Category: "g", Outcome: "failure", Severity: "s", Limit: 1000, Offset: 7},
		"correlation_id=a%26b%20c":               {Limit: 100, CorrelationID: "a&b c"},
		"since=24h&until=30m":                    {Limit: 100, Since: now.Add(-24 * time.Hour), Until: now.Add(-30 * time.Minute)},
		"since=7d":                               {Limit: 100, Since: now.AddDate(0, 0, -7)},
		"since=2026-11-01&until=2026-11-02":      {Limit: 100, Since: day("2026-11-01T00:00:00Z"), Until: day("2026-11-02T23:59:59.999999Z")},
		"since=2026-11-01T01:00:00%2B01:00":      {Limit: 100, Since: day("2026-11-01T00:00:00Z")},
		"until=2028-02-29":                       {Limit: 100, Until: day("2028-02-29T23:59:59.999999Z")},
		"until=2026-11-01T00:00:00.000001Z":      {Limit: 100, Until: day("2026-11-01T00:00:00.000001Z")},
		"limit=10&cursor=" + encodeCursor(place): {Limit: 10, After: &place},
	} {
		t.Run(query, func(t *testing.T) {
			var got postgres.Query
			s := &service{find: func(q postgres.Query) (postgres.Page, error) { got = q; return postgres.Page{}, nil }}
			w, _ := send(newHandler(t, s), "GET", events+"?"+query, "")
			if w.Code != 200 || fmt.Sprint(s.verbs) != "[get]" {
				t.Fatalf("got %d %s, verbs %v", w.Code, w.Body, s.verbs)
			}
			if (got.After == nil) != (want.After == nil) || (got.After != nil && *got.After != *want.After) {
				t.Errorf("got cursor %+v", got.After)
			}
			got.After, want.After = nil, nil
			if got != want {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestListEventsRefuses(t *testing.T) {
	handler := newHandler(t, &service{})
	for query, path := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "offset=-1": "offset", "offset=99999999999": "offset",
		"event_outcome=maybe": "event_outcome", "since=yesterday": "since", "since=2026-02-30": "since", "until=7w": "until",
		"since=1h&until=2h": "since", "cursor=x": "cursor", "cursor=!": "cursor", "correlation_id=%00": "correlation_id",
		"severity=%ff": "severity", "offset=1&cursor=" + encodeCursor(postgres.Cursor{Timestamp: now}): "cursor",
		"event_type=" + strings.Repeat("x", 101): "event_type",
	} {
		w, doc := send(handler, "GET", events+"?"+query, "")
		if w.Code != 400 || doc["path"] != path {
			t.Errorf("%s: got %d %s", query, w.Code, w.Body)
		}
	}
}

func TestListEventsAnswersAPage(t *testing.T) {
	e := audit.Stored{Event: audit.Event{
		ID: uuid.New(), Version: "1", Type: "t", Timestamp: now, Category: "g", Action: "a", Outcome: "success", CorrelationID: "c",
		Severity: "low", Data: json.RawMessage(`{"a": 1.50}`),
	}, Link: audit.Link{Position: 3, Hash: audit.Hash{1}}}
	next := postgres.Cursor{Timestamp: now, Sequence: 9}
	s := &service{
		find: func(postgres.Query) (postgres.Page, error) {
			return postgres.Page{Events: []audit.Stored{e}, Total: 12, Next: &next}, nil
		},
		get: func(uuid.UUID) (audit.Stored, error) { return e, nil },
	}
	handler := newHandler(t, s)
	w, doc := send(handler, "GET", events+"?limit=1&offset=3", "")
	pagination := doc["pagination"].(map[string]any)
	if w.Code != 200 || pagination["limit"] != 1.0 || pagination["offset"] != 3.0 || pagination["total"] != 12.0 || pagination["hasMore"] != true || pagination["nextCursor"] != encodeCursor(next) {
		t.Errorf("got %s", w.Body)
	}
	if back, err := decodeCursor(encodeCursor(next)); err != nil || back != next {
		t.Errorf("got %+v, %v", back, err)
	}
	want := `{"event_id":"` + e.ID.String() + `","version":"1","event_type":"t","event_timestamp":"2026-11-23T12:00:00Z","event_category":"g",` +
		`"event_action":"a","event_outcome":"success","correlation_id":"c","severity":"low","event_data":{"a": 1.50},"chain_position":3,` +
		`"previous_hash":"` + strings.Repeat("00", 32) + `","event_hash":"01` + strings.Repeat("00", 31) + `"}`
	if w, _ := send(handler, "GET", events+"/"+e.ID.String(), ""); strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got %s\nwant %s", w.Body, want)
	}
	s.find = func(postgres.Query) (postgres.Page, error) {
		return postgres.Page{}, fmt.Errorf("x: %w", audit.ErrUnavailable)
	}
	if w, _ := send(handler, "GET", events, ""); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d", w.Code)
	}
	s.find = func(postgres.Query) (postgres.Page, error) { return postgres.Page{}, nil }
	if w, doc := send(handler, "GET", events, ""); w.Code != 200 || doc["data"] == nil || doc["pagination"].(map[string]any)["nextCursor"] != nil {
		t.Errorf("empty: got %d %s", w.Code, w.Body)
	}
}

func TestVerifyChain(t *testing.T) {
	id := uuid.New()
	found := audit.Verified{Length: 5, Complete: true, Broken: &audit.Break{Position: 3, EventID: id, Reason: audit.Changed}}
	var from audit.Verified
	s := &service{verify: func(_ string, before audit.Verified) (audit.Verified, error) { from = before; return found, nil }}
	handler := newHandler(t, s)
	const path = "/api/v1/audit/verify-chain"
	if w, _ := send(handler, "POST", path, `{"correlation_id":"c"}`); strings.TrimSpace(w.Body.String()) != `{"first_broken":{"event_id":"`+id.String()+`","position":3,"reason":"changed"},"length":5,"valid":false}` {
		t.Errorf("got %s", w.Body)
	}
	found.Broken.EventID = uuid.Nil
	if w, _ := send(handler, "POST", path, `{"correlation_id":"c"}`); strings.Contains(w.Body.String(), "event_id") {
		t.Errorf("got %s", w.Body)
	}
	found.Broken = nil
	if w, _ := send(handler, "POST", path, `{"correlation_id":"c"}`); strings.TrimSpace(w.Body.String()) != `{"length":5,"valid":true}` {
		t.Errorf("got %s", w.Body)
	}
	// A part says how far it came and is not taken for the whole.
	found.Complete, found.Last, found.Removed = false, audit.Link{Position: 7, Hash: audit.Hash{7}}, 2
	w, doc := send(handler, "POST", path, `{"correlation_id":"c"}`)
	resume, _ := doc["resume"].(string)
	if doc["valid"] != false || doc["length"] != 5.0 || doc["removed"] != 2.0 || resume == "" || doc["first_broken"] != nil {
		t.Errorf("got %s", w.Body)
	}
	if w, _ := send(handler, "POST", path, `{"correlation_id":"c","resume":"`+resume+`"}`); w.Code != 200 || from.Last != found.Last || from.Removed != 2 {
		t.Errorf("got %d %s, from %+v", w.Code, w.Body, from)
	}
	for _, resume := range []string{"x", "!", base64.RawURLEncoding.EncodeToString([]byte("-1.0." + audit.Hash{}.String())), base64.RawURLEncoding.EncodeToString([]byte("1.0.00"))} {
		if w, doc := send(handler, "POST", path, `{"correlation_id":"c","resume":"`+resume+`"}`); w.Code != 400 || doc["path"] != "resume" {
			t.Errorf("%s: got %d %s", resume, w.Code, w.Body)
		}
	}
	if w, _ := send(handler, "POST", path, `{"correlation_id":"`+strings.Repeat("c", 5000)+`"}`); w.Code != 413 {
		t.Errorf("a large body: got %d", w.Code)
	}
	for _, body := range []string{`[]`, `{"correlation_id":""}`, `{"correlation_id":"c","x":1}`, `{"correlation_id":"\u0000"}`} {
		if w, _ := send(handler, "POST", path, body); w.Code != 400 {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	}
	if fmt.Sprint(s.verbs[0]) != "get" {
		t.Errorf("got verbs %v", s.verbs)
	}
}

func TestVerifyAll(t *testing.T) {
	found := audit.Report{Place: audit.Place{Checkpoint: 3, Total: 12, Events: 2, Sequence: 40, Digest: audit.Hash{7}}}
	var from audit.Place
	handler := newHandler(t, &service{verifyAll: func(before audit.Place) (audit.Report, error) { from = before; return found, nil }})
	const path = "/api/v1/audit/verify-chain"
	w, doc := send(handler, "POST", path, `{}`)
	resume, _ := doc["resume"].(string)
	if doc["valid"] != false || doc["length"] != 12.0 || resume == "" || from != (audit.Place{}) {
		t.Errorf("got %s, from %+v", w.Body, from)
	}
	found.Complete = true
	if w, _ := send(handler, "POST", path, `{"resume":"`+resume+`"}`); strings.TrimSpace(w.Body.String()) != `{"length":12,"valid":true}` || from != found.Place {
		t.Errorf("got %s, from %+v", w.Body, from)
	}
	found.Broken = &audit.Break{Position: 4, Reason: audit.Missing}
	if w, _ := send(handler, "POST", path, `{}`); strings.TrimSpace(w.Body.String()) != `{"first_broken":{"position":4,"reason":"missing"},"length":12,"valid":false}` {
		t.Errorf("got %s", w.Body)
	}
	// That of a chain is none of everything.
	if w, doc := send(handler, "POST", path, `{"correlation_id":"c","resume":"`+resume+`"}`); w.Code != 400 || doc["path"] != "resume" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// TestOneVerificationDoesNotWaitForAnother here: they take turns at the store.
func TestOneVerificationDoesNotWaitForAnother(t *testing.T) {
	s := &service{verify: func(string, audit.Verified) (audit.Verified, error) { return audit.Verified{Complete: true}, nil }}
	handler := newHandler(t, s)
	const path = "/api/v1/audit/verify-chain"
	s.verifyAll = func(audit.Place) (audit.Report, error) {
		if w, _ := send(handler, "POST", path, `{"correlation_id":"c"}`); w.Code != 200 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		return audit.Report{Complete: true}, nil
	}
	if w, _ := send(handler, "POST", path, `{}`); w.Code != 200 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func FuzzCreateEvents(f *testing.F) {
	for _, seed := range []string{
		event(), "[" + event() + "]", "[]", "null", "", "{", `{"event_data":{"a":1e400}}`, event("event_data", json.RawMessage(`{"a":1e400,"b":[1e-9999]}`)),
		event("event_timestamp", "2026-02-30T00:00:00Z"), event("duration_ms", json.RawMessage("1e3")), event("duration_ms", json.RawMessage("9223372036854775808")),
		event("event_data", map[string]any{"\x00": 1}), event("correlation_id", "\xff"), event("event_data", json.RawMessage(`{"a":"\ud800"}`)),
		event("event_timestamp", "2026-11-23t12:00:00z"), event("event_timestamp", "2026-11-23T12:00:60Z"), event("event_id", "6F1F0C5E-0000-4000-8000-000000000001"),
	} {
		f.Add(seed)
	}
	s := &service{}
	handler := newHandler(f, s)
	f.Fuzz(func(t *testing.T, body string) {
		s.accepted = nil
		for _, path := range []string{events, events + "/batch"} {
			w, doc := send(handler, "POST", path, body)
			if w.Code >= 500 || (w.Code != 201 && doc["type"] == nil) {
				t.Fatalf("%s: got %d %s for %q", path, w.Code, w.Body, body)
			}
		}
		for _, e := range s.accepted {
			text := e.Encode()
			if _, err := audit.Decode(text); err != nil {
				t.Fatalf("accepted %s: %v", text, err)
			}
		}
	})
}

// BenchmarkBatchOf100 is everything but the stores.
func BenchmarkBatchOf100(b *testing.B) {
	handler := newHandler(b, &service{})
	one := event("event_data", map[string]any{"signal": "RequestLatencyHigh", "labels": map[string]any{"namespace": "production", "pod": "checkout-7d9f6c5b8-x2x7k"},
		"payload": strings.Repeat("0123456789abcdef", 5)}, "actor_id", "system:serviceaccount:monitoring:alertmanager", "severity", "critical", "event_id", uuid.New())
	body := "[" + strings.TrimSuffix(strings.Repeat(one+",", 100), ",") + "]"
	if len(body) > maxBody {
		b.Fatalf("the body has %d bytes", len(body))
	}
	b.ReportAllocs()
	for b.Loop() {
		if w, _ := send(handler, "POST", events+"/batch", body); w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
}

// TestACallerThatCannotBeJudgedGetsItsAnswer: it is done sending when that comes.
func TestACallerThatCannotBeJudgedGetsItsAnswer(t *testing.T) {
	handler, err := New(Options{
		Access: func(func(*http.Request) string) func(http.Handler) http.Handler {
			return func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			}
		},
		Metrics: metrics.New(Routes()), Log: slog.New(slog.DiscardHandler), Timeout: time.Minute, MaxBodyBytes: maxBody, Now: time.Now,
		Ready: func(http.ResponseWriter, *http.Request) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{events, "/api/v1/audit/verify-chain"} {
		body := strings.NewReader(strings.Repeat("x", maxBody))
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, path, body))
		if body.Len() > 0 {
			t.Errorf("%s: %d bytes are left", path, body.Len())
		}
	}
}
