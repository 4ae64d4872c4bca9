//go:build integration

package app_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clientgotesting "k8s.io/client-go/testing"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/docker/datastorage/app"
	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/testenv"
)

// patience bounds each wait of a test.
const patience = 30 * time.Second

// proxy forwards connections to a server until it is cut.
type proxy struct {
	target string
	addr   string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{target: target, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	p.restore(t)
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) restore(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.addr = listener, listener.Addr().String()
	p.mu.Unlock()
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns[in], p.conns[out] = true, true
			p.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = pair[0].Close(), pair[1].Close()
				}()
			}
		}
	}()
}

// cut refuses new connections and breaks those there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

// token is what a user's token says, which nobody has signed.
func token(user string) string {
	claims := fmt.Sprintf(`{"aud":"data-storage-service","sub":%q}`, user)
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// reviews knows the tokens of reader, writer and both, and what they may.
func reviews() *fake.Clientset {
	c := fake.NewClientset()
	c.PrependReactor("create", "tokenreviews", func(a clientgotesting.Action) (bool, runtime.Object, error) {
		review := a.(clientgotesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		for _, user := range []string{"reader", "writer", "both"} {
			if review.Spec.Token == token(user) {
				review.Status = authenticationv1.TokenReviewStatus{
					Authenticated: true, Audiences: review.Spec.Audiences, User: authenticationv1.UserInfo{Username: user},
				}
			}
		}
		return true, review, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a clientgotesting.Action) (bool, runtime.Object, error) {
		review := a.(clientgotesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		may := map[string]string{"reader": "get", "writer": "create", "both": review.Spec.ResourceAttributes.Verb}
		review.Status.Allowed = may[review.Spec.User] == review.Spec.ResourceAttributes.Verb &&
			review.Spec.ResourceAttributes.Name == "data-storage-service" && review.Spec.ResourceAttributes.Namespace == "ns"
		return true, review, nil
	})
	return c
}

// service is a running DataStorage.
type service struct {
	opts           app.Options
	config         *pgxpool.Config
	database, dlq  *proxy
	health, metric string
	api            *client.ClientWithResponses
	apiURL         string
	http           *http.Client
	stop           func() error // ends it and returns what Run returned
	log            *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts the service on an empty schema. Tests with it cannot be parallel: the
// schema is chosen through the environment, and the streams have the product's names.
func start(t *testing.T) *service {
	t.Helper()
	s := &service{config: testenv.Schema(t), log: &logBuffer{}}
	t.Setenv("PGOPTIONS", "-c search_path="+s.config.ConnConfig.RuntimeParams["search_path"])
	redis, _, _ := testenv.Redis(t)
	empty := func(ctx context.Context) {
		if err := redis.Del(ctx, queue.Options{}.Keys()...).Err(); err != nil {
			t.Error(err)
		}
	}
	empty(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		empty(ctx)
	})
	conn := s.config.ConnConfig
	s.database = newProxy(t, fmt.Sprintf("%s:%d", conn.Host, conn.Port))
	s.dlq = newProxy(t, redis.Options().Addr)

	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// httptest has a certificate for 127.0.0.1 at hand.
	borrowed := httptest.NewUnstartedServer(nil)
	borrowed.StartTLS()
	pair := borrowed.TLS.Certificates[0]
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())
	borrowed.Close()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.database.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.opts = app.Options{Namespace: "ns", Log: s.log, Client: reviews(), ConfigPath: write("config.yaml", fmt.Sprintf(`
server:
  listenAddr: 127.0.0.1:0
  healthAddr: 127.0.0.1:0
  metricsAddr: 127.0.0.1:0
  drainDelay: 100ms
  tls: {certFile: %s, keyFile: %s}
database: {host: %s, port: %s, name: %q, user: %q, passwordFile: %s, sslMode: disable, timeout: 1s, drainTimeout: 1500ms}
redis: {addr: "%s"}
checkpoints: {keyFile: %s, interval: 50ms}
logging: {level: debug}
`, write("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))),
		write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))),
		host, port, conn.Database, conn.User, write("password", conn.Password), s.dlq.addr, write("key", strings.Repeat("k", 32))))}

	running, err := app.New(s.opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- running.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	var apiAddr string
	apiAddr, s.health, s.metric = running.Addrs()
	s.apiURL = "https://" + apiAddr
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	s.api = s.as(t, "both")
	return s
}

// as returns a client with that user's token; without one for "".
func (s *service) as(t *testing.T, user string) *client.ClientWithResponses {
	t.Helper()
	c, err := client.NewClientWithResponses(s.apiURL, client.WithHTTPClient(s.http), client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		if user != "" {
			r.Header.Set("Authorization", "Bearer "+token(user))
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readiness returns the answer of /readyz on the health port.
func (s *service) readiness(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + s.health + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var state struct{ Status, Reason string }
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		t.Fatal(err)
	}
	if (resp.StatusCode == http.StatusOK) != (state.Status == "ready") {
		t.Errorf("got %d with %+v", resp.StatusCode, state)
	}
	return state.Status + state.Reason
}

// until waits until what returns want.
func until(t *testing.T, want string, what func(*testing.T) string) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		got := what(t)
		if got == want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still %s, want %s", got, want)
		case <-ticker.C:
		}
	}
}

func event(correlation string) client.EventRequest {
	return client.EventRequest{
		EventID: new(uuid.New()), Version: "1.0", EventType: "t", EventTimestamp: time.Now(), EventCategory: "test", EventAction: "a",
		EventOutcome: client.Success, CorrelationID: correlation, EventData: json.RawMessage(`{"n":1.50}`),
	}
}

func (s *service) create(t *testing.T, want int, events ...client.EventRequest) *client.CreateEventsResponse {
	t.Helper()
	resp, err := s.api.CreateEventsWithResponse(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode() != want {
		t.Fatalf("got %d %s, want %d", resp.StatusCode(), resp.Body, want)
	}
	return resp
}

// total counts the stored events of a chain, and checks the chain.
func (s *service) total(t *testing.T, correlation string) int64 {
	t.Helper()
	report, err := s.api.VerifyChainWithResponse(t.Context(), client.VerifyChainJSONRequestBody{CorrelationID: correlation})
	if err != nil {
		t.Fatal(err)
	}
	if report.StatusCode() != 200 || !report.JSON200.Valid {
		t.Fatalf("got %d %s", report.StatusCode(), report.Body)
	}
	return report.JSON200.Length
}

func (s *service) ready(t *testing.T) {
	t.Helper()
	if err := app.Migrate(t.Context(), s.opts); err != nil {
		t.Fatal(err)
	}
	until(t, "ready", s.readiness)
}

func TestServiceBecomesReadyWhenItsSchemaIs(t *testing.T) {
	s := start(t)
	until(t, "not_readyschema_outdated", s.readiness)
	// An event that comes too early is not lost.
	early := event("c-1")
	s.create(t, 202, early)
	s.ready(t)
	resp, err := s.as(t, "").GetReadinessWithResponse(t.Context())
	if err != nil || resp.StatusCode() != 200 {
		t.Errorf("over the API's port, without a token: got %v, %v", resp, err)
	}
	until(t, "1", func(t *testing.T) string { return fmt.Sprint(s.total(t, "c-1")) })
	if got, err := s.api.GetEventWithResponse(t.Context(), *early.EventID); err != nil || got.StatusCode() != 200 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := app.Migrate(t.Context(), s.opts); err != nil {
		t.Errorf("migrating again: %v", err)
	}
}

func TestAccessIsReviewed(t *testing.T) {
	s := start(t)
	s.ready(t)
	for token, want := range map[string][2]int{"": {401, 401}, "nonsense": {401, 401}, "reader": {403, 200}, "writer": {201, 403}, "both": {201, 200}} {
		c := s.as(t, token)
		written, err := c.CreateEventWithResponse(t.Context(), event("c-1"))
		if err != nil {
			t.Fatal(err)
		}
		read, err := c.ListEventsWithResponse(t.Context(), &client.ListEventsParams{})
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]int{written.StatusCode(), read.StatusCode()}; got != want {
			t.Errorf("token %q: got %v, want %v", token, got, want)
		}
	}
	for _, token := range []string{"Bearer", "nonsense"} {
		if strings.Contains(s.log.String(), token) {
			t.Errorf("%s is in the log", token)
		}
	}
}

func TestServiceIsServedOverTLSOnly(t *testing.T) {
	s := start(t)
	if _, err := (&http.Client{Transport: &http.Transport{}}).Get(s.apiURL + "/readyz"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: got %v", err)
	}
	resp, err := http.Get(strings.Replace(s.apiURL, "https", "http", 1) + "/readyz")
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: got %d", resp.StatusCode)
		}
	}
}

func TestNoAcceptedEventIsLostWhileStoresFail(t *testing.T) {
	s := start(t)
	s.ready(t)
	first, second, third := event("c-1"), event("c-1"), event("c-1")
	s.create(t, 201, first)

	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	resp := s.create(t, 202, second)
	if resp.JSON202.Status != client.EventsAcceptedStatusAccepted || resp.JSON202.EventIds[0] != *second.EventID {
		t.Errorf("got %s", resp.Body)
	}
	s.create(t, 202, first, third) // first again: it is stored already
	if resp, err := s.api.ListEventsWithResponse(t.Context(), &client.ListEventsParams{}); err != nil || resp.StatusCode() != 503 {
		t.Errorf("reading: got %v, %v", resp, err)
	}

	s.dlq.cut()
	lost := event("c-1")
	refused, err := s.api.CreateEventsWithResponse(t.Context(), []client.EventRequest{lost})
	if err != nil || refused.StatusCode() != 503 || refused.HTTPResponse.Header.Get("Retry-After") == "" {
		t.Errorf("both down: got %v, %v", refused, err)
	}
	s.dlq.restore(t)
	s.database.restore(t)
	until(t, "ready", s.readiness)
	until(t, "3", func(t *testing.T) string { return fmt.Sprint(s.total(t, "c-1")) })
	s.create(t, 201, first, second, third, lost) // what was refused is sent again
	if n := s.total(t, "c-1"); n != 4 {
		t.Errorf("got %d events, want 4", n)
	}
	for i, e := range []client.EventRequest{first, second, third, lost} {
		got, err := s.api.GetEventWithResponse(t.Context(), *e.EventID)
		if err != nil || got.StatusCode() != 200 || got.JSON200.ChainPosition != int64(i+1) {
			t.Errorf("event %d: got %s, %v", i, got.Body, err)
		}
	}

	s.dlq.cut()
	until(t, "not_readyredis_unreachable", s.readiness)
	s.create(t, 201, event("c-2")) // the queue is not needed
	s.dlq.restore(t)
	until(t, "ready", s.readiness)
	metrics := s.scrape(t)
	for _, line := range []string{
		"datastorage_dlq_depth 0", "datastorage_dlq_dead_total 0", "datastorage_dlq_drained_total 3",
		`datastorage_events_total{result="queued"} 3`, `datastorage_events_total{result="refused"} 1`,
		`datastorage_events_total{result="stored"} 3`, `datastorage_events_total{result="duplicate"} 3`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no line %q in the metrics", line)
		}
	}
}

func (s *service) scrape(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + s.metric + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestServiceEndsCleanlyUnderLoad(t *testing.T) {
	s := start(t)
	s.ready(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var stored int64
	enough := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				resp, err := s.api.CreateEventsWithResponse(t.Context(), []client.EventRequest{event("c-1"), event("c-1")})
				if err != nil {
					return // cut before it was accepted
				}
				switch resp.StatusCode() {
				case http.StatusCreated:
				case http.StatusAccepted:
					continue // a busy machine takes longer than the store is given
				default:
					t.Errorf("got %d %s", resp.StatusCode(), resp.Body)
					return
				}
				mu.Lock()
				if stored += 2; stored == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	gone := make(chan struct{})
	go func() { wg.Wait(); close(gone) }()
	select {
	case <-enough:
	case <-gone:
		t.Fatalf("no writer is left, %d events were stored", stored)
	}
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	wg.Wait()
	testenv.Exec(t, s.config, fmt.Sprintf(`DO $$ BEGIN IF (SELECT count(*) FROM audit_events) < %d THEN
		RAISE EXCEPTION 'fewer events than were answered 201'; END IF; END $$`, stored))
}

func TestMigrateWaitsForTheDatabase(t *testing.T) {
	s := start(t)
	s.database.cut()
	until(t, "not_readydatabase_unreachable", s.readiness)
	done := make(chan error, 1)
	go func() { done <- app.Migrate(t.Context(), s.opts) }()
	until(t, "true", func(*testing.T) string {
		return fmt.Sprint(strings.Contains(s.log.String(), "waiting for the database"))
	})
	s.database.restore(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	until(t, "ready", s.readiness)
}

// TestOldMonthsAreRemovedWhileTheServiceRuns: those that are old enough, and no other.
func TestOldMonthsAreRemovedWhileTheServiceRuns(t *testing.T) {
	s := start(t)
	s.ready(t)
	s.create(t, http.StatusCreated, event("c-1"), event("c-1"))
	testenv.Exec(t, s.config, "SELECT audit_events_add_month('2020-01-15')")
	var out bytes.Buffer
	opts := s.opts
	opts.Out = &out
	if err := app.Retain(t.Context(), opts, app.MinRetention-time.Hour); err == nil || !strings.Contains(err.Error(), "late events") {
		t.Errorf("too young: got %v", err)
	}
	for range 2 { // the second time nothing is left to do
		if err := app.Retain(t.Context(), opts, app.MinRetention); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.String(); !strings.HasPrefix(got, "2020-01 removed, 0 events, checkpoint ") || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
	until(t, "true 2", func(t *testing.T) string {
		report, err := s.api.VerifyChainWithResponse(t.Context(), client.VerifyChainJSONRequestBody{})
		if err != nil || report.JSON200 == nil {
			return fmt.Sprint(report, err)
		}
		return fmt.Sprint(report.JSON200.Valid, report.JSON200.Length)
	})
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("server: {drainDelay: soon}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(app.Options{ConfigPath: path, Log: io.Discard}); err == nil || !strings.Contains(err.Error(), `server.drainDelay: "soon" not allowed`) {
		t.Errorf("got %v", err)
	}
}
