package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/cors"
	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/scope"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/gateway/target"
	"kubernaut.ai/e2e/docker/internal/problem"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// taker is a Taker made of a function.
type taker func(ctx context.Context, s signal.Signal) (intake.Receipt, error)

func (f taker) Take(ctx context.Context, s signal.Signal) (intake.Receipt, error) { return f(ctx, s) }

// created gives every signal a new request.
func created(_ context.Context, s signal.Signal) (intake.Receipt, error) {
	return intake.Receipt{
		Status: intake.Created, Fingerprint: signal.Fingerprint("", s.Target),
		Outcome: remediation.Outcome{Created: true, Name: "rr-1", Namespace: "kubernaut-system", Count: 1, First: now, Last: now},
	}, nil
}

// fixture is an API with what it counts and says.
type fixture struct {
	http.Handler
	metrics *metrics.Metrics
	log     *bytes.Buffer
}

func newAPI(take taker, change func(*Options)) *fixture {
	f := &fixture{metrics: metrics.New(), log: &bytes.Buffer{}}
	opts := Options{
		Log: slog.New(slog.NewJSONHandler(f.log, nil)), Metrics: f.metrics, Intake: take,
		Alerts:        &prometheus.Parser{Targets: target.New(target.DefaultRules()), Clusters: target.Clusters{Here: []string{"here"}, Taken: []string{"east"}}},
		Events:        &kubernetesevent.Parser{Clusters: target.DefaultClusters()},
		Authenticate:  func(next http.Handler) http.Handler { return next },
		MaxConcurrent: 10, BodyMemory: MinBodyMemory, Memory: intake.NewMemory(),
		Timeout: 15 * time.Second, Now: func() time.Time { return now },
	}
	if change != nil {
		change(&opts)
	}
	f.Handler = New(opts)
	return f
}

// post sends a body and returns the answer with its document.
func (f *fixture) post(t *testing.T, path, body string, header http.Header) (*http.Response, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	maps.Copy(r.Header, header)
	return f.do(t, r)
}

func (f *fixture) do(t *testing.T, r *http.Request) (*http.Response, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	var doc map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatalf("body %q: %v", w.Body, err)
		}
	}
	return w.Result(), doc
}

// scrape returns the metrics as text.
func (f *fixture) scrape(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	f.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// checkProblem holds an answer to the form of every error.
func checkProblem(t *testing.T, answer *http.Response, doc map[string]any, status int, slug, path string) {
	t.Helper()
	if answer.StatusCode != status || answer.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %s %v, want %d", answer.StatusCode, answer.Header.Get("Content-Type"), doc, status)
	}
	if doc["type"] != problem.TypeBase+slug || doc["title"] != http.StatusText(status) || doc["status"] != float64(status) ||
		doc["detail"] == "" || doc["instance"] != path || doc["request_id"] != answer.Header.Get("X-Request-ID") {
		t.Errorf("got %v, want type %s and instance %s", doc, slug, path)
	}
}

const (
	prometheusPath = "/api/v1/signals/prometheus"
	eventPath      = "/api/v1/signals/kubernetes-event"
)

// alert returns a webhook with alerts about these pods.
func alert(pods ...string) string {
	var alerts []string
	for _, pod := range pods {
		alerts = append(alerts, fmt.Sprintf(`{"status":"firing","labels":{"alertname":"A","namespace":"demo","pod":%q},"startsAt":"2026-03-01T11:00:00Z"}`, pod))
	}
	return `{"alerts":[` + strings.Join(alerts, ",") + `]}`
}

const event = `{"type":"Warning","reason":"BackOff","involvedObject":{"kind":"Pod","namespace":"demo","name":"web-1"},"lastTimestamp":"2026-03-01T11:59:00Z"}`

func TestSingleAnswers(t *testing.T) {
	rejection := &scope.Rejection{Reason: "unmanaged_resource", Resource: "Pod/demo/web-1", Message: "not managed", Action: "kubectl label …"}
	for name, c := range map[string]struct {
		receipt intake.Receipt
		status  int
		want    string
	}{
		"created": {intake.Receipt{Status: intake.Created, Fingerprint: "f", Outcome: remediation.Outcome{Created: true, Name: "rr-1", Namespace: "ns", Count: 1, First: now, Last: now}}, 201,
			`{"status":"created","message":"remediation request created","fingerprint":"f","duplicate":false,"remediationRequestName":"rr-1","remediationRequestNamespace":"ns","metadata":{"count":1,"firstOccurrence":"2026-03-01T12:00:00Z","lastOccurrence":"2026-03-01T12:00:00Z"}}`},
		"duplicate": {intake.Receipt{Status: intake.Duplicate, Fingerprint: "f", Outcome: remediation.Outcome{Name: "rr-1", Namespace: "ns", Count: 7, First: now, Last: now.Add(time.Hour)}}, 202,
			`{"status":"duplicate","message":"counted on the open remediation request","fingerprint":"f","duplicate":true,"remediationRequestName":"rr-1","remediationRequestNamespace":"ns","metadata":{"count":7,"firstOccurrence":"2026-03-01T12:00:00Z","lastOccurrence":"2026-03-01T13:00:00Z"}}`},
		"rejected": {intake.Receipt{Status: intake.Rejected, Fingerprint: "f", Rejection: rejection}, 200,
			`{"status":"rejected","message":"not managed","fingerprint":"f","duplicate":false,"rejection":{"reason":"unmanaged_resource","resource":"Pod/demo/web-1","message":"not managed","action":"kubectl label …"}}`},
		"resolved": {intake.Receipt{Status: intake.Resolved}, 200,
			`{"status":"resolved","message":"resolved alerts need no remediation","duplicate":false}`},
	} {
		for path, body := range map[string]string{prometheusPath: alert("web-1"), eventPath: event} {
			t.Run(name+" "+path, func(t *testing.T) {
				f := newAPI(func(context.Context, signal.Signal) (intake.Receipt, error) { return c.receipt, nil }, nil)
				w := httptest.NewRecorder()
				f.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
				why := `,"targetReason":"application/pod: pod names the Pod"`
				if path == eventPath {
					why = `,"targetReason":"event/involvedObject: the event is about it"`
				}
				if w.Code != c.status || strings.Replace(w.Body.String(), why, "", 1) != c.want || !strings.Contains(w.Body.String(), why) || w.Header().Get("Content-Type") != "application/json" {
					t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, c.status, c.want)
				}
			})
		}
	}
}

func TestErrors(t *testing.T) {
	requests := schema.GroupResource{Group: "kubernaut.ai", Resource: "remediationrequests"}
	gone := func(open bool) error { // as the guard makes them
		guard := kube.NewGuard(kube.OpenFor, nil)
		ctx := t.Context()
		for range 2 {
			_ = guard.Do(ctx, func(context.Context) error { return apierrors.NewTooManyRequests("secret", 3) })
			if !open {
				break
			}
		}
		var err error
		for range 3 {
			if err = guard.Do(ctx, func(context.Context) error { return apierrors.NewTooManyRequests("secret", 3) }); !open {
				break
			}
		}
		return err
	}
	for name, c := range map[string]struct {
		err    error
		status int
		slug   string
		retry  string
	}{
		"a kind that is not there":    {&owner.UnknownKindError{Ref: resource.Ref{Kind: "Dragon", APIVersion: "x.io/v1"}}, 400, "invalid-signal", ""},
		"trouble with the API server": {fmt.Errorf("list: %w", gone(false)), 503, "api-server-unavailable", "3"},
		"the circuit is open":         {gone(true), 503, "circuit-open", "5"},
		"an ended deadline":           {fmt.Errorf("get: %w", context.DeadlineExceeded), 504, "timeout", "1"},
		"no permission":               {apierrors.NewForbidden(requests, "rr-secret", errors.New("no")), 503, "gateway-not-permitted", "5"},
		"no definition":               {apierrors.NewNotFound(requests, "rr-secret"), 503, "gateway-not-permitted", "5"},
		"too large to store":          {apierrors.NewRequestEntityTooLargeError("secret"), 413, "payload-too-large", ""},
		"refused by the definition":   {apierrors.NewInvalid(schema.GroupKind{}, "rr-secret", nil), 400, "invalid-signal", ""},
		"anything else":               {errors.New("secret"), 500, "internal", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(func(context.Context, signal.Signal) (intake.Receipt, error) { return intake.Receipt{}, c.err }, nil)
			answer, doc := f.post(t, prometheusPath, alert("web-1"), nil)
			checkProblem(t, answer, doc, c.status, c.slug, prometheusPath)
			if got := answer.Header.Get("Retry-After"); got != c.retry {
				t.Errorf("got Retry-After %q, want %q", got, c.retry)
			}
			if strings.Contains(fmt.Sprint(doc), "secret") {
				t.Errorf("internals answered: %v", doc)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	limit := alert("web-1")
	limit += strings.Repeat(" ", MaxBodyBytes-len(limit))
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	stamp := func(d time.Duration) http.Header {
		return header("X-Timestamp", strconv.FormatInt(now.Add(d).Unix(), 10))
	}
	undated := strings.Replace(alert("web-1"), `,"startsAt":"2026-03-01T11:00:00Z"`, "", 1)
	for name, c := range map[string]struct {
		path, body string
		header     http.Header
		status     int
		slug       string
		detail     string
	}{
		"accepted":                     {prometheusPath, alert("web-1"), nil, 201, "", ""},
		"accepted without a type":      {prometheusPath, alert("web-1"), http.Header{"Content-Type": nil}, 201, "", ""},
		"accepted with a charset":      {prometheusPath, alert("web-1"), header("Content-Type", "application/json; charset=utf-8"), 201, "", ""},
		"a body of the largest size":   {prometheusPath, limit, nil, 201, "", ""},
		"one byte more":                {prometheusPath, limit + " ", nil, 413, "payload-too-large", "2097152 bytes; set max_alerts: 1000"},
		"another type":                 {prometheusPath, alert("web-1"), header("Content-Type", "text/plain"), 415, "unsupported-media-type", "application/json"},
		"no type at all":               {prometheusPath, alert("web-1"), header("Content-Type", ";"), 415, "unsupported-media-type", ""},
		"compressed":                   {prometheusPath, alert("web-1"), header("Content-Encoding", "gzip"), 415, "unsupported-media-type", "compressed"},
		"truncated":                    {prometheusPath, alert("web-1")[:30], nil, 400, "malformed-body", "at byte"},
		"empty":                        {eventPath, "", nil, 400, "malformed-body", "empty"},
		"a key twice":                  {eventPath, `{"type":"Warning","type":"Normal"}`, nil, 400, "malformed-body", `"type" written twice`},
		"deeply nested":                {eventPath, strings.Repeat("[", 20_000), nil, 400, "malformed-body", "nested deeper"},
		"a normal event":               {eventPath, strings.Replace(event, "Warning", "Normal", 1), nil, 400, "invalid-signal", "type: must be"},
		"no object":                    {prometheusPath, strings.Replace(alert("x"), `"pod"`, `"job"`, 1), nil, 200, "", ""},
		"too many alerts":              {prometheusPath, `{"alerts":[` + strings.Repeat("{},", 2000) + `{}]}`, nil, 400, "invalid-signal", "set max_alerts of the webhook to 2000 or less"},
		"one alert ahead of its time":  {prometheusPath, strings.Replace(alert("web-1"), "T11:00", "T12:03", 1), nil, 400, "outside-replay-window", "alerts[0].startsAt: more than 2m0s in the future"},
		"a time in the window":         {prometheusPath, undated, stamp(-5 * time.Minute), 201, "", ""},
		"a time at its other end":      {prometheusPath, undated, stamp(2 * time.Minute), 201, "", ""},
		"a time too old":               {prometheusPath, alert("web-1"), stamp(-5*time.Minute - time.Second), 400, "outside-replay-window", "X-Timestamp: older"},
		"a time ahead":                 {eventPath, event, stamp(2*time.Minute + time.Second), 400, "outside-replay-window", "in the future"},
		"a negative time":              {eventPath, event, header("X-Timestamp", "-1"), 400, "outside-replay-window", "Unix seconds"},
		"a time that is no number":     {eventPath, event, header("X-Timestamp", "now"), 400, "outside-replay-window", "Unix seconds"},
		"a fraction":                   {eventPath, event, header("X-Timestamp", "1772366400.5"), 400, "outside-replay-window", "Unix seconds"},
		"an empty time":                {eventPath, event, header("X-Timestamp", ""), 400, "outside-replay-window", "Unix seconds"},
		"two times":                    {eventPath, event, http.Header{"X-Timestamp": {"1772366400", "1772366400"}}, 400, "outside-replay-window", ""},
		"a time beyond every duration": {eventPath, event, header("X-Timestamp", "9223372036854775807"), 400, "outside-replay-window", "in the future"},
		"no time":                      {prometheusPath, undated, nil, 400, "outside-replay-window", "alerts[0].startsAt: required"},
		"an old event":                 {eventPath, strings.Replace(event, "11:59", "11:50", 1), nil, 400, "outside-replay-window", "lastTimestamp: older"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(created, nil)
			answer, doc := f.post(t, c.path, c.body, c.header)
			if c.slug == "" {
				if answer.StatusCode != c.status {
					t.Errorf("got %d %v", answer.StatusCode, doc)
				}
				return
			}
			checkProblem(t, answer, doc, c.status, c.slug, c.path)
			if detail, _ := doc["detail"].(string); !strings.Contains(detail, c.detail) {
				t.Errorf("got detail %q, want %q", detail, c.detail)
			}
			if c.status == http.StatusUnsupportedMediaType && answer.Header.Get("Accept")+answer.Header.Get("Accept-Encoding") == "" {
				t.Errorf("got %v, want what is accepted", answer.Header)
			}
		})
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := newAPI(created, nil)
	answer, doc := f.post(t, "/api/v1/signals/nagios", "{}", nil)
	checkProblem(t, answer, doc, 404, "not-found", "/api/v1/signals/nagios")
	answer, doc = f.do(t, httptest.NewRequest(http.MethodGet, eventPath, nil))
	checkProblem(t, answer, doc, 405, "method-not-allowed", eventPath)
	if answer.Header.Get("Allow") != "POST" {
		t.Errorf("got Allow %q", answer.Header.Get("Allow"))
	}
	if text := f.scrape(t); !strings.Contains(text, `gateway_http_request_duration_seconds_count{endpoint="other",method="POST",status="404"} 1`) {
		t.Error("404 is not counted under other")
	}
}

func TestHeadersOnEveryAnswer(t *testing.T) {
	f := newAPI(created, nil)
	seen := map[string]bool{}
	for _, c := range []struct{ method, path, body string }{
		{"POST", prometheusPath, alert("web-1")}, {"POST", prometheusPath, "x"}, {"GET", prometheusPath, ""}, {"POST", "/nothing", ""},
	} {
		answer, _ := f.do(t, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'none'",
			"Referrer-Policy": "no-referrer", "X-XSS-Protection": "1; mode=block",
		} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("%s %s: got %s %q", c.method, c.path, name, got)
			}
		}
		id := answer.Header.Get("X-Request-ID")
		if uuid.Validate(id) != nil || seen[id] || answer.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s %s: got %v", c.method, c.path, answer.Header)
		}
		seen[id] = true
	}
}

func TestSeveralAlerts(t *testing.T) {
	receipts := map[string]intake.Receipt{
		"new": {Status: intake.Created, Fingerprint: "f1", Outcome: remediation.Outcome{Name: "rr-1"}},
		"old": {Status: intake.Duplicate, Fingerprint: "f2", Outcome: remediation.Outcome{Name: "rr-2"}},
		"un":  {Status: intake.Rejected, Fingerprint: "f3", Rejection: &scope.Rejection{Message: "not managed"}},
	}
	take := func(_ context.Context, s signal.Signal) (intake.Receipt, error) {
		if s.Resolved {
			return intake.Receipt{Status: intake.Resolved}, nil
		}
		if receipt, found := receipts[s.Target.Name]; found {
			return receipt, nil
		}
		return intake.Receipt{}, &owner.NotFoundError{Ref: s.Target}
	}
	f := newAPI(take, nil)
	body := strings.Replace(alert("new", "old", "un", "gone", "over", "nameless"), `"alertname":"A","namespace":"demo","pod":"nameless"`, `"pod":"nameless"`, 1)
	body = strings.Replace(body, `{"status":"firing","labels":{"alertname":"A","namespace":"demo","pod":"over"}`, `{"status":"resolved","labels":{"alertname":"A","namespace":"demo","pod":"over"}`, 1)
	answer, doc := f.post(t, prometheusPath, body, nil)
	if answer.StatusCode != http.StatusMultiStatus {
		t.Fatalf("got %d %v", answer.StatusCode, doc)
	}
	want := map[string]any{"total": 6.0, "created": 1.0, "deduplicated": 1.0, "rejected": 2.0, "failed": 1.0}
	if got := doc["summary"].(map[string]any); !maps.Equal(got, want) {
		t.Errorf("got summary %v, want %v", got, want)
	}
	var statuses []string
	for _, result := range doc["results"].([]any) {
		statuses = append(statuses, result.(map[string]any)["status"].(string))
	}
	if want := []string{"created", "duplicate", "rejected", "rejected", "resolved", "failed"}; !slices.Equal(statuses, want) {
		t.Errorf("got %v, want %v", statuses, want)
	}
	gone := doc["results"].([]any)[3].(map[string]any)
	if gone["message"] != "Pod/demo/gone: not found" || gone["reason"] != "resource_not_found" || gone["error"] != nil {
		t.Errorf("got %v", gone)
	}
	text := f.scrape(t)
	for _, line := range []string{`gateway_signals_rejected_total{reason="resource_not_found"} 1`, `gateway_signals_rejected_total{reason="invalid"} 1`} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestWhatNothingIsMadeOf(t *testing.T) {
	gone := func(_ context.Context, s signal.Signal) (intake.Receipt, error) {
		return intake.Receipt{}, &owner.NotFoundError{Ref: s.Target}
	}
	for name, c := range map[string]struct {
		path, body string
		take       taker
		reason     string
		message    string
		resource   any
	}{
		"an alert about no object":      {prometheusPath, strings.Replace(alert("x"), `"pod"`, `"job"`, 1), created, "no_kubernetes_object", "nothing to act on: no label names a Kubernetes object", nil},
		"an alert of a foreign cluster": {prometheusPath, strings.Replace(alert("x"), `"pod"`, `"cluster":"west","pod"`, 1), created, "foreign_cluster", `cluster "west" is not one`, nil},
		"an alert about what is gone":   {prometheusPath, alert("web-1"), gone, "resource_not_found", "Pod/demo/web-1: not found", "Pod/demo/web-1"},
		"an event about what is gone":   {eventPath, event, gone, "resource_not_found", "Pod/demo/web-1: not found", "Pod/demo/web-1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(c.take, nil)
			answer, doc := f.post(t, c.path, c.body, nil)
			rejection, _ := doc["rejection"].(map[string]any)
			if answer.StatusCode != 200 || doc["status"] != "rejected" || rejection["reason"] != c.reason || rejection["resource"] != c.resource ||
				!strings.Contains(fmt.Sprint(rejection["message"]), c.message) || doc["message"] != rejection["message"] {
				t.Errorf("got %d %v", answer.StatusCode, doc)
			}
			if text := f.scrape(t); !strings.Contains(text, `gateway_signals_rejected_total{reason="`+c.reason+`"} 1`) {
				t.Error("it is not counted")
			}
		})
	}
}

func TestAlertsThatTheSenderHasLeftOut(t *testing.T) {
	f := newAPI(created, nil)
	for _, pods := range [][]string{{"a"}, {"a", "b"}} {
		_, doc := f.post(t, prometheusPath, strings.Replace(alert(pods...), `{"alerts"`, `{"truncatedAlerts":7,"alerts"`, 1), nil)
		if doc["truncatedAlerts"] != 7.0 {
			t.Errorf("got %v", doc)
		}
	}
	if _, doc := f.post(t, prometheusPath, alert("a"), nil); doc["truncatedAlerts"] != nil {
		t.Errorf("nothing is left out: got %v", doc)
	}
	if text := f.scrape(t); !strings.Contains(text, "gateway_alerts_truncated_total 14\n") {
		t.Error("they are not counted")
	}
	if log := f.log.String(); strings.Count(log, `"truncated_alerts":7`) != 2 || strings.Count(log, "max_alerts") != 2 {
		t.Errorf("got log %s", log)
	}
}

func TestOneAlertAtFaultTouchesNoOther(t *testing.T) {
	bodies := map[string]string{
		"ahead of its time":       strings.Replace(alert("a", "b"), "T11:00", "T12:03", 1),
		"a start that is none":    strings.Replace(alert("a", "b"), "2026-03-01T11:00:00Z", "yesterday", 1),
		"no start":                strings.Replace(alert("a", "b"), `,"startsAt":"2026-03-01T11:00:00Z"`, "", 1),
		"a label that is no text": strings.Replace(alert("a", "b"), `"pod":"a"`, `"pod":1`, 1),
		"labels that are none":    `{"alerts":[{"labels":[]},` + alert("b")[len(`{"alerts":[`):],
		"null":                    `{"alerts":[null,` + alert("b")[len(`{"alerts":[`):],
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			answer, doc := newAPI(created, nil).post(t, prometheusPath, body, nil)
			results, _ := doc["results"].([]any)
			if answer.StatusCode != 207 || len(results) != 2 {
				t.Fatalf("got %d %v", answer.StatusCode, doc)
			}
			first, second := results[0].(map[string]any), results[1].(map[string]any)
			if first["status"] != "failed" || !strings.Contains(fmt.Sprint(first["error"]), "alerts[0]") || second["status"] != "created" {
				t.Errorf("got %v and %v", first, second)
			}
		})
	}
}

func TestSeveralAlertsOfWhichOneCannotBeStoredNow(t *testing.T) {
	f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
		if s.Target.Name == "b" {
			return intake.Receipt{}, fmt.Errorf("create: %w", context.DeadlineExceeded)
		}
		return created(ctx, s)
	}, nil)
	answer, doc := f.post(t, prometheusPath, alert("a", "b", "c"), nil)
	checkProblem(t, answer, doc, 504, "timeout", prometheusPath)
	if detail := doc["detail"].(string); !strings.Contains(detail, "1 of 3 alerts are not stored") || answer.Header.Get("Retry-After") == "" {
		t.Errorf("got %q, %v", detail, answer.Header)
	}
}

func TestLimit(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
		inside <- struct{}{}
		<-leave
		return created(ctx, s)
	}, func(o *Options) { o.MaxConcurrent = 2 })
	answers := make(chan int)
	for range 2 {
		go func() {
			answer, _ := f.post(t, prometheusPath, alert("web-1"), nil)
			answers <- answer.StatusCode
		}()
		<-inside
	}
	answer, doc := f.post(t, prometheusPath, alert("web-1"), nil)
	checkProblem(t, answer, doc, 503, "overloaded", prometheusPath) // Alertmanager drops what is answered 429
	if answer.Header.Get("Retry-After") != "1" {
		t.Errorf("got Retry-After %q", answer.Header.Get("Retry-After"))
	}
	answer, doc = f.post(t, eventPath, event, nil)
	checkProblem(t, answer, doc, 429, "too-many-requests", eventPath)
	close(leave)
	for range 2 {
		if status := <-answers; status != http.StatusCreated {
			t.Errorf("one within the limit: got %d", status)
		}
	}
}

// TestTheLimitIsOneOfWork: senders that leave do not make room for more work.
func TestTheLimitIsOneOfWork(t *testing.T) {
	var working atomic.Int64
	leave := make(chan struct{})
	work := coalesce.NewGroup(time.Minute, func(context.Context, string, []signal.Signal) []coalesce.Result[intake.Receipt] {
		working.Add(1)
		<-leave
		return make([]coalesce.Result[intake.Receipt], 1)
	})
	f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
		return work.Do(ctx, s.Target.Name, s)
	},
		func(o *Options) { o.MaxConcurrent, o.Timeout = 2, 20*time.Millisecond })
	codes := map[int]int{}
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, prometheusPath, strings.NewReader(alert(fmt.Sprint("web-", i))))
		answer, _ := f.do(t, r)
		codes[answer.StatusCode]++
		cancel()
	}
	if n := working.Load(); n != 2 || codes[503] != 18 {
		t.Errorf("got %d pieces of work at once, answers %v", n, codes)
	}
	close(leave)
	if err := work.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if answer, _ := f.post(t, prometheusPath, alert("web-1"), nil); answer.StatusCode != http.StatusOK {
		t.Errorf("afterwards: got %d", answer.StatusCode)
	}
}

// TestBodiesAreBoundedBeforeTheyAreRead: what is beyond the budget is not read at all,
// a body of unknown length counts as the largest, and small ones have a lane of their own.
func TestBodiesAreBoundedBeforeTheyAreRead(t *testing.T) {
	for name, length := range map[string]int64{"as long as it says": MaxBodyBytes, "of unknown length": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inside, leave := make(chan struct{}), make(chan struct{})
				f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
					if s.Target.Name == "large" {
						inside <- struct{}{}
						<-leave
					}
					return created(ctx, s)
				}, nil)
				large := alert("large")
				large += strings.Repeat(" ", MaxBodyBytes-len(large))
				send := func(read *countingReader) *http.Response {
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, prometheusPath, read)
					r.ContentLength = length
					r.Header.Set("Expect", "100-continue") // what comes unasked is read, and thrown away
					answer, _ := f.do(t, r)
					return answer
				}
				first := make(chan *http.Response)
				go func() { first <- send(&countingReader{r: strings.NewReader(large)}) }()
				<-inside
				second := &countingReader{r: strings.NewReader(large)}
				if answer := send(second); answer.StatusCode != 503 || second.n != 0 {
					t.Errorf("beyond the budget: got %d after %d bytes", answer.StatusCode, second.n)
				}
				if answer, _ := f.post(t, prometheusPath, alert("small"), nil); answer.StatusCode != http.StatusCreated {
					t.Errorf("a small body: got %d", answer.StatusCode)
				}
				third := make(chan *http.Response)
				go func() {
					answer, _ := f.post(t, prometheusPath, strings.Replace(large, "large", "later", 1), nil)
					third <- answer
				}()
				synctest.Wait() // it waits for room
				close(leave)
				if answer := <-third; answer.StatusCode != http.StatusCreated {
					t.Errorf("one that waited: got %d", answer.StatusCode)
				}
				if answer := <-first; answer.StatusCode != http.StatusCreated {
					t.Errorf("the first: got %d", answer.StatusCode)
				}
			})
		})
	}
}

// TestGroupsAreBoundedByTheirAlerts: a small body may hold many.
func TestGroupsAreBoundedByTheirAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, leave := make(chan struct{}, 100), make(chan struct{})
		f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
			inside <- struct{}{}
			<-leave
			return created(ctx, s)
		}, func(o *Options) { o.MaxConcurrent = 100 })
		pods := make([]string, prometheus.MaxAlerts)
		for i := range pods {
			pods[i] = "a"
		}
		// Each takes 3 MB of a tenth of the memory.
		most := MinBodyMemory / 10 / (prometheus.MaxAlerts * heapPerAlert)
		codes := make(chan int, 100)
		send := func() {
			answer, _ := f.post(t, prometheusPath, strings.Replace(alert(pods...), `"namespace":"demo",`, "", 1), nil)
			codes <- answer.StatusCode
		}
		for range most + 2 {
			go send()
			synctest.Wait()
		}
		<-time.After(bodyPatience)
		synctest.Wait()
		if n := len(codes); n != 2 {
			t.Errorf("%d groups were told to come back, want 2", n)
		}
		close(leave)
		go func() {
			for n := range inside {
				_ = n // only so that nobody waits
			}
		}()
		got := map[int]int{}
		for range most + 2 {
			got[<-codes]++
		}
		close(inside)
		if got[503] != 2 || got[207] != most {
			t.Errorf("got %v", got)
		}
	})
}

// countingReader counts what is read of it.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// TestATooLargeBodyIsNotRead: its length is enough to refuse it.
func TestATooLargeBodyIsNotRead(t *testing.T) {
	f, body := newAPI(created, nil), &countingReader{r: strings.NewReader(strings.Repeat("x", MaxBodyBytes+1))}
	r := httptest.NewRequest(http.MethodPost, prometheusPath, body)
	r.ContentLength = MaxBodyBytes + 1
	r.Header.Set("Expect", "100-continue") // what comes unasked is read, and thrown away
	answer, doc := f.do(t, r)
	checkProblem(t, answer, doc, 413, "payload-too-large", prometheusPath)
	if body.n != 0 || !strings.Contains(f.scrape(t), `gateway_signals_rejected_total{reason="too_large"} 1`) {
		t.Errorf("read %d bytes", body.n)
	}
}

// TestWhatOneObjectMeetsIsItsOwn: an alert that will never be stored does not make
// Alertmanager send all others again for ever.
func TestWhatOneObjectMeetsIsItsOwn(t *testing.T) {
	internal := apierrors.NewInternalError(errors.New("webhook"))
	for name, c := range map[string]struct {
		err    error
		bodies string
		status int
	}{
		"refused by a policy":               {&remediation.RefusedError{}, alert("a", "b"), 207},
		"over the quota":                    {remediation.ErrQuota, alert("a", "b"), 503},
		"over the quota alone":              {remediation.ErrQuota, alert("b"), 503},
		"500 beside others that are stored": {internal, alert("a", "b"), 207},
		"500 alone":                         {internal, alert("b", "b"), 500},
		"trouble beside others":             {context.DeadlineExceeded, alert("a", "b"), 504},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
				if s.Target.Name == "b" {
					return intake.Receipt{}, c.err
				}
				return created(ctx, s)
			}, nil)
			if answer, doc := f.post(t, prometheusPath, c.bodies, nil); answer.StatusCode != c.status {
				t.Errorf("got %d %v, want %d", answer.StatusCode, doc, c.status)
			}
		})
	}
}

func TestAnAlertThatPanicsIsItsOwn(t *testing.T) {
	f := newAPI(func(ctx context.Context, s signal.Signal) (intake.Receipt, error) {
		if s.Target.Name == "b" {
			panic("boom")
		}
		return created(ctx, s)
	}, nil)
	answer, doc := f.post(t, prometheusPath, alert("a", "b"), nil)
	if answer.StatusCode != http.StatusMultiStatus || doc["summary"].(map[string]any)["failed"] != 1.0 || strings.Contains(fmt.Sprint(doc), "boom") {
		t.Errorf("got %d %v", answer.StatusCode, doc)
	}
}

func TestCORS(t *testing.T) {
	with := func(o *Options) {
		o.CORS = &cors.Options{AllowedOrigins: []string{"https://ui.example"}, AllowedMethods: []string{"POST"}, AllowedHeaders: []string{"Authorization"}, MaxAge: 60}
	}
	for name, c := range map[string]struct {
		change  func(*Options)
		origin  string
		allowed bool
	}{
		"an allowed origin": {with, "https://ui.example", true},
		"a refused origin":  {with, "https://evil.example", false},
		"no origin allowed": {nil, "https://ui.example", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newAPI(created, c.change)
			preflight := httptest.NewRequest(http.MethodOptions, prometheusPath, nil)
			preflight.Header.Set("Origin", c.origin)
			preflight.Header.Set("Access-Control-Request-Method", "POST")
			preflight.Header.Set("Access-Control-Request-Headers", "authorization")
			answer, _ := f.do(t, preflight)
			if got := answer.Header.Get("Access-Control-Allow-Origin"); (got == c.origin) != c.allowed {
				t.Errorf("preflight: got %d %v", answer.StatusCode, answer.Header)
			}
			answer, _ = f.post(t, prometheusPath, alert("web-1"), http.Header{"Origin": {c.origin}})
			if got := answer.Header.Get("Access-Control-Allow-Origin"); (got == c.origin) != c.allowed || answer.StatusCode != http.StatusCreated {
				t.Errorf("request: got %d %v", answer.StatusCode, answer.Header)
			}
		})
	}
}

func TestABodyThatBreaksOff(t *testing.T) {
	f := newAPI(created, nil)
	r := httptest.NewRequest(http.MethodPost, prometheusPath, io.MultiReader(strings.NewReader(`{"alerts`), broken{}))
	answer, doc := f.do(t, r)
	checkProblem(t, answer, doc, 400, "unreadable-body", prometheusPath)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("i/o timeout") }

func TestNothingOfASenderBecomesALabelOrALogLine(t *testing.T) {
	f := newAPI(created, nil)
	_, _ = f.post(t, prometheusPath, strings.Replace(alert("web-1"), `"alertname":"A"`, `"alertname":"evil-name","severity":"evil-severity"`, 1), http.Header{"Authorization": {"Bearer evil-token"}})
	_, _ = f.do(t, httptest.NewRequest("EVIL", "/evil", nil))
	if text := f.scrape(t); strings.Contains(strings.ToLower(text), "evil") {
		t.Error("a label value was made by the sender")
	}
	log := f.log.String()
	if strings.Contains(log, "evil-name") || strings.Contains(log, "evil-token") || strings.Contains(log, "alertname") {
		t.Errorf("got log %s", log)
	}
	for line := range strings.Lines(log) {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil || doc["request_id"] == nil {
			t.Errorf("got line %s", line)
		}
	}
}

// FuzzAPI holds every body to an answer below 500 while all else is well.
func FuzzAPI(f *testing.F) {
	api := newAPI(created, func(o *Options) { o.Log = slog.New(slog.DiscardHandler) })
	f.Add(alert("web-1"), "", true)
	f.Add(alert("a", "b"), "1772366400", true)
	f.Add(event, "", false)
	f.Add(`{"alerts":[{"labels":{"alertname":"\u0000"}}]}`, "0", true)
	f.Add(`{"alerts":[{},{}],"Alerts":[{},{},{}]}`, "1772366400", true)
	f.Add("{", "x", false)
	f.Fuzz(func(t *testing.T, body, stamp string, prometheus bool) {
		path := eventPath
		if prometheus {
			path = prometheusPath
		}
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		if stamp != "" {
			r.Header["X-Timestamp"] = []string{stamp}
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	})
}

// TestASenderThatCannotBeJudgedGetsItsAnswer: it is done sending when that comes.
func TestASenderThatCannotBeJudgedGetsItsAnswer(t *testing.T) {
	f := newAPI(nil, func(o *Options) {
		o.Authenticate = func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		}
	})
	body := strings.NewReader(strings.Repeat("x", MaxBodyBytes))
	f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, metrics.EndpointPrometheus, body))
	if body.Len() > 0 {
		t.Errorf("%d bytes are left", body.Len())
	}
}
