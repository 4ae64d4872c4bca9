//go:build integration

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	datastorage "kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/kubetest"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
)

const gatewayNamespace = "kubernaut-system"

var (
	admin   *rest.Config
	senders atomic.Int64 // names the service accounts
)

func TestMain(m *testing.M) {
	os.Exit(kubetest.Run(m, func(cfg *rest.Config) {
		admin = cfg
		if err := install(context.Background(), cfg); err != nil { //nolint:forbidigo // TestMain has no test whose context this could be
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}))
}

// install applies what the Gateway's manifests say of accounts and permissions, so
// that the tests run with those and no others.
func install(ctx context.Context, cfg *rest.Config) error {
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err
	}
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gatewayNamespace}}); err != nil {
		return err
	}
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../../../manifests/gateway/base")
	if err != nil {
		return err
	}
	for _, r := range rendered.Resources() {
		content, err := r.Map()
		if err != nil {
			return err
		}
		if err := c.Create(ctx, &unstructured.Unstructured{Object: content}); err != nil {
			return fmt.Errorf("%s: %w", r.CurId(), err)
		}
	}
	return nil
}

// token returns a token of a service account for these audiences.
func token(t *testing.T, namespace, account string, audiences ...string) string {
	t.Helper()
	set, err := kubernetes.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	request, err := set.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// storage stands in for DataStorage: it remembers the events that it accepted.
type storage struct {
	*httptest.Server
	down atomic.Bool

	mu     sync.Mutex
	events []datastorage.EventRequest
	tokens []string
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/readyz":
			_, _ = io.WriteString(w, `{"status":"ready"}`)
		default:
			var batch []datastorage.EventRequest
			if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
				t.Error(err)
			}
			s.mu.Lock()
			s.events = append(s.events, batch...)
			s.tokens = append(s.tokens, r.Header.Get("Authorization"))
			s.mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"event_ids":[]}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// types counts the accepted events of a request by type. An event sent twice counts once.
func (s *storage) types(request string) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[uuid.UUID]bool{}
	types := map[string]int{}
	for _, event := range s.events {
		if event.CorrelationID == request && !seen[*event.EventID] {
			seen[*event.EventID] = true
			types[event.EventType]++
		}
	}
	return types
}

// proxy stands between a Gateway and the API server, and can go away.
type proxy struct {
	addr, target string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	server, _, err := rest.DefaultServerUrlFor(admin)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: "127.0.0.1:0", target: server.Host}
	p.open(t)
	t.Cleanup(p.close)
	return p
}

// open accepts connections, at the same address as before.
func (p *proxy) open(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.addr, p.listener = listener.Addr().String(), listener
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
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
}

// close ends every connection and refuses new ones.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// gateway is a Gateway that runs as its own service account.
type gateway struct {
	*App
	storage *storage
	proxy   *proxy
	log     *safeBuffer
	stop    func() error // ends it as SIGTERM does, and returns what Run returned
}

type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func start(t *testing.T, store *storage) *gateway {
	t.Helper()
	p := newProxy(t)
	file, storageFile := t.TempDir()+"/token", t.TempDir()+"/token"
	for file, text := range map[string]string{file: token(t, gatewayNamespace, "gateway"), storageFile: token(t, gatewayNamespace, "gateway", "data-storage-service")} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := &safeBuffer{}
	a, err := New(Options{
		ConfigFile: write(t, fmt.Sprintf(`
server: {listenAddr: '127.0.0.1:0', healthAddr: '127.0.0.1:0', metricsAddr: '127.0.0.1:0', maxConcurrentRequests: 1000, drainDelay: 300ms}
datastorage: {url: %s, tokenFile: %s, buffer: {flushInterval: 50ms, dir: %s}}
`, store.URL, storageFile, t.TempDir())),
		Namespace: gatewayNamespace, Pod: "gateway-" + uuid.NewString()[:4], Log: log,
		Cluster: &rest.Config{
			Host: "https://" + p.addr, BearerTokenFile: file,
			TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	g := &gateway{App: a, storage: store, proxy: p, log: log}
	g.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("gateway: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log)
		}
	})
	g.ready(t, http.StatusOK)
	return g
}

// ready waits until /readyz answers with that status, and returns the body.
func (g *gateway) ready(t *testing.T, status int) string {
	t.Helper()
	var body string
	eventually(t, fmt.Sprintf("/readyz %d", status), func() bool {
		answer, err := http.Get("http://" + g.HealthAddr() + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		body = string(text)
		return answer.StatusCode == status
	})
	return body
}

// eventually looks every 50 ms, for at most 20 s: the slowest thing waited for is the
// circuit breaker, which stays open for five.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 20s", what)
		}
	}
}

// world is a managed namespace with a deployment, and a sender who may send.
type world struct {
	client    client.Client
	namespace string
	account   string
	token     string
}

func newWorld(t *testing.T, labels map[string]string) *world {
	t.Helper()
	c := kubetest.Any(t, admin)
	w := &world{client: c, namespace: kubetest.Namespace(t, c, labels), account: fmt.Sprint("sender-", senders.Add(1))}
	w.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: w.account}})
	w.deployment(t, "web")
	w.token = token(t, w.namespace, w.account, "gateway-service")
	return w
}

func managed(t *testing.T) *world {
	w := newWorld(t, map[string]string{"kubernaut.ai/managed": "true"})
	w.allow(t)
	return w
}

func (w *world) create(t *testing.T, obj client.Object) {
	t.Helper()
	if err := w.client.Create(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

// allow lets the sender send.
// allow returns when the API server grants it.
func (w *world) allow(t *testing.T) {
	t.Helper()
	w.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: gatewayNamespace, Name: w.account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "gateway-signal-sender"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.namespace, Name: w.account}},
	})
	// The API server judges by what it has seen of its own store, some milliseconds later.
	review := authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + w.namespace + ":" + w.account,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: gatewayNamespace, Resource: "services", Name: "gateway-service", Verb: "create"},
	}
	eventually(t, "the sender's permission", func() bool {
		asked := &authorizationv1.SubjectAccessReview{Spec: review}
		return w.client.Create(t.Context(), asked) == nil && asked.Status.Allowed
	})
}

func (w *world) deployment(t *testing.T, name string) {
	t.Helper()
	labels := map[string]string{"app": name}
	w.create(t, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	})
}

// answer is what the Gateway said.
type answer struct {
	Code   int
	Header http.Header
	Body   struct {
		Status                 any // a text, or the number of a problem
		Fingerprint            string
		RemediationRequestName string
		Metadata               struct{ Count int64 }
		Rejection              struct{ Reason, Resource, Action string }
		Type, Detail           string
	}
}

// send posts a webhook with one alert about a deployment. It reports only what kept
// it from getting an answer.
func (w *world) send(ctx context.Context, g *gateway, deployment, token string) (answer, error) {
	body := fmt.Sprintf(`{"alerts":[{"labels":{"alertname":"A","severity":"critical","namespace":%q,"deployment":%q},"startsAt":"2026-03-01T11:00:00Z"}]}`, w.namespace, deployment)
	return w.post(ctx, g, "/api/v1/signals/prometheus", body, token)
}

// post sends any body to a path. It reports only what kept it from getting an answer.
func (w *world) post(ctx context.Context, g *gateway, path, body, token string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.APIAddr()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Impersonate-User", "system:admin")
	r.Header.Set("X-Auth-Request-User", "system:admin")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got := answer{Code: resp.StatusCode, Header: resp.Header}
	return got, json.NewDecoder(resp.Body).Decode(&got.Body)
}

// must is send for the sender's own token, which has to be answered with that code.
func (w *world) must(t *testing.T, g *gateway, deployment string, code int) answer {
	t.Helper()
	got, err := w.send(t.Context(), g, deployment, w.token)
	if err != nil || got.Code != code {
		t.Fatalf("got %d %+v, %v, want %d", got.Code, got.Body, err, code)
	}
	return got
}

func (w *world) request(t *testing.T, name string) *v1alpha1.RemediationRequest {
	t.Helper()
	rr := &v1alpha1.RemediationRequest{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: gatewayNamespace, Name: name}, rr); err != nil {
		t.Fatal(err)
	}
	return rr
}

func TestSignalToRequest(t *testing.T) {
	g, w := start(t, newStorage(t)), managed(t)
	yes := true
	deployment := &appsv1.Deployment{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "web"}, deployment); err != nil {
		t.Fatal(err)
	}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web-1", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: deployment.UID, Controller: &yes}}},
		Spec: appsv1.ReplicaSetSpec{Selector: deployment.Spec.Selector, Template: deployment.Spec.Template},
	}
	w.create(t, set)
	w.create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web-1-x", Labels: map[string]string{"app": "web"}, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: set.UID, Controller: &yes}}},
		Spec: deployment.Spec.Template.Spec,
	})
	w.create(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "front"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	})

	first := w.must(t, g, "web", http.StatusCreated)
	rr := w.request(t, first.Body.RemediationRequestName)
	if rr.Spec.TargetResource.Name != "web" || rr.Status.Deduplication == nil || rr.Status.Deduplication.OccurrenceCount != 1 || rr.Spec.SignalFingerprint != first.Body.Fingerprint {
		t.Errorf("got %+v", rr)
	}
	second := w.must(t, g, "web", http.StatusAccepted)
	if second.Body.RemediationRequestName != rr.Name || second.Body.Metadata.Count != 2 {
		t.Errorf("got %+v", second.Body)
	}
	for path, body := range map[string]string{
		"prometheus":       fmt.Sprintf(`{"alerts":[{"labels":{"alertname":"B","namespace":%q,"pod":"web-1-x"},"startsAt":"2026-03-01T11:00:00Z"}]}`, w.namespace),
		"prometheus?":      fmt.Sprintf(`{"alerts":[{"labels":{"alertname":"C","namespace":%q,"service":"front"},"startsAt":"2026-03-01T11:00:00Z"}]}`, w.namespace),
		"kubernetes-event": fmt.Sprintf(`{"type":"Warning","reason":"BackOff","involvedObject":{"kind":"Pod","namespace":%q,"name":"web-1-x"},"lastTimestamp":%q}`, w.namespace, time.Now().UTC().Format(time.RFC3339)),
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.APIAddr()+"/api/v1/signals/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted || !strings.Contains(string(text), rr.Name) {
			t.Errorf("%s: got %d %s", path, resp.StatusCode, text)
		}
	}
	if n := w.request(t, rr.Name).Status.Deduplication.OccurrenceCount; n != 5 {
		t.Errorf("got count %d, want 5", n)
	}
	eventually(t, "audit events", func() bool {
		types := g.storage.types(rr.Name)
		return types["gateway.signal.received"] == 1 && types["gateway.crd.created"] == 1 && types["gateway.signal.deduplicated"] == 4
	})
	g.storage.mu.Lock()
	defer g.storage.mu.Unlock()
	if !strings.HasPrefix(g.storage.tokens[0], "Bearer ey") || *g.storage.events[0].ActorID != "system:serviceaccount:"+w.namespace+":"+w.account {
		t.Errorf("got token %.12s…, actor %s", g.storage.tokens[0], *g.storage.events[0].ActorID)
	}
	if strings.Contains(g.log.String(), w.token) {
		t.Error("the token is in the log")
	}
}

func TestWhoMaySend(t *testing.T) {
	g, w := start(t, newStorage(t)), newWorld(t, map[string]string{"kubernaut.ai/managed": "true"})
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"nobody":           {"", http.StatusUnauthorized},
		"a broken token":   {"abc", http.StatusUnauthorized},
		"for the cluster":  {token(t, w.namespace, w.account), http.StatusUnauthorized},
		"another audience": {token(t, w.namespace, w.account, "somebody-else"), http.StatusUnauthorized},
		"not allowed":      {w.token, http.StatusForbidden},
	} {
		if got, err := w.send(t.Context(), g, "web", c.token); err != nil || got.Code != c.code {
			t.Errorf("%s: got %d %+v, %v, want %d", name, got.Code, got.Body, err, c.code)
		}
	}
	w.allow(t)
	eventually(t, "a permission given later", func() bool {
		got, err := w.send(t.Context(), g, "web", w.token)
		return err == nil && got.Code == http.StatusCreated
	})
}

func TestOptingIn(t *testing.T) {
	g, w := start(t, newStorage(t)), newWorld(t, nil)
	w.allow(t)
	got := w.must(t, g, "web", http.StatusOK)
	if want := "kubectl label namespace " + w.namespace + " kubernaut.ai/managed=true --overwrite"; got.Body.Status != "rejected" || got.Body.Rejection.Action != want {
		t.Errorf("got %+v", got.Body)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	if err := w.client.Patch(t.Context(), namespace, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"kubernaut.ai/managed":"true"}}}`))); err != nil {
		t.Fatal(err)
	}
	w.must(t, g, "web", http.StatusCreated) // at once: the cache does not know yet
	if got := w.must(t, g, "none", http.StatusOK); got.Body.Rejection.Reason != "resource_not_found" || got.Body.Rejection.Resource != "Deployment/"+w.namespace+"/none" {
		t.Errorf("got %+v", got.Body)
	}
}

// TestKindsOfTheCluster sends events about kinds that the Gateway asks the API server
// for, with the permissions of the manifests.
func TestKindsOfTheCluster(t *testing.T) {
	g, w := start(t, newStorage(t)), managed(t)
	event := func(kind, apiVersion, name string) answer {
		body := fmt.Sprintf(`{"type":"Warning","reason":"R","lastTimestamp":%q,"involvedObject":{"apiVersion":%q,"kind":%q,"namespace":%q,"name":%q}}`,
			time.Now().UTC().Format(time.RFC3339), apiVersion, kind, w.namespace, name)
		got, err := w.post(t.Context(), g, "/api/v1/signals/kubernetes-event", body, w.token)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := event("Role", "rbac.authorization.k8s.io/v1", "reader")
	want := signal.Fingerprint("", resource.Ref{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role", Namespace: w.namespace, Name: "reader"})
	if got.Code != http.StatusCreated || got.Body.Fingerprint != want {
		t.Errorf("a kind with a namespace that may not be read: got %d %+v", got.Code, got.Body)
	}
	if rr := w.request(t, got.Body.RemediationRequestName); rr.Spec.TargetResource.APIVersion != "rbac.authorization.k8s.io/v1" || rr.Spec.TargetReason == "" {
		t.Errorf("got %+v", rr.Spec)
	}
	if got := event("ClusterRole", "rbac.authorization.k8s.io/v1", "reader"); got.Code != http.StatusOK || got.Body.Rejection.Resource != "ClusterRole/reader" {
		t.Errorf("one without: got %d %+v", got.Code, got.Body)
	}
	for _, kind := range []string{"Dragon of example.org/v1", "Role of rbac.authorization.k8s.io/v9", "Pod of v9"} {
		name, apiVersion, _ := strings.Cut(kind, " of ")
		if got := event(name, apiVersion, "x"); kind != "Pod of v9" && (got.Code != http.StatusBadRequest || !strings.Contains(got.Body.Detail, kind)) ||
			kind == "Pod of v9" && got.Body.Rejection.Reason != "resource_not_found" {
			t.Errorf("%s: got %d %+v", kind, got.Code, got.Body)
		}
	}
	// Who lets the Gateway read a kind lets it see that an object is gone, or has opted out.
	w.create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: w.account}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}}}})
	w.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "reads"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: w.account},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: gatewayNamespace, Name: "gateway"}},
	})
	w.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "out", Labels: map[string]string{"kubernaut.ai/managed": "false"}}})
	eventually(t, "the permission", func() bool { return event("ConfigMap", "v1", "gone").Body.Rejection.Reason == "resource_not_found" })
	if got := event("ConfigMap", "v1", "out"); got.Body.Rejection.Reason != "unmanaged_resource" {
		t.Errorf("got %d %+v", got.Code, got.Body)
	}
}

func TestContention(t *testing.T) {
	store := newStorage(t)
	replicas := []*gateway{start(t, store), start(t, store)}
	for _, c := range []struct{ fingerprints, each int }{{1, 200}, {50, 10}} {
		t.Run(fmt.Sprintf("%d × %d", c.fingerprints, c.each), func(t *testing.T) {
			w := managed(t)
			names := make([]string, c.fingerprints)
			for f := range names {
				names[f] = fmt.Sprint("app-", f)
				w.deployment(t, names[f])
			}
			var mu sync.Mutex
			codes := map[int]int{}
			requests := map[string]int64{} // highest count that was answered
			var slowest time.Duration
			var group sync.WaitGroup
			start := time.Now()
			for f := range c.fingerprints {
				for i := range c.each {
					group.Go(func() {
						began := time.Now()
						got, err := w.send(t.Context(), replicas[i%2], names[f], w.token)
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						codes[got.Code]++
						requests[got.Body.RemediationRequestName] = max(requests[got.Body.RemediationRequestName], got.Body.Metadata.Count)
						slowest = max(slowest, time.Since(began))
					})
				}
			}
			group.Wait()
			t.Logf("%d requests in %s, the slowest in %s", c.fingerprints*c.each, time.Since(start), slowest)
			if codes[http.StatusCreated] != c.fingerprints || codes[http.StatusAccepted] != c.fingerprints*(c.each-1) || len(requests) != c.fingerprints {
				t.Errorf("got %v and %d requests", codes, len(requests))
			}
			if slowest > 15*time.Second {
				t.Errorf("the slowest answer took %s", slowest)
			}
			for name, count := range requests {
				if stored := w.request(t, name).Status.Deduplication.OccurrenceCount; stored != int64(c.each) || count != stored {
					t.Errorf("%s: got count %d, answered %d, want %d", name, stored, count, c.each)
				}
			}
			eventually(t, "audit events", func() bool {
				for name := range requests {
					types := store.types(name)
					if types["gateway.crd.created"] != 1 || types["gateway.signal.deduplicated"] != c.each-1 {
						return false
					}
				}
				return true
			})
		})
	}
}

func TestDataStorageAway(t *testing.T) {
	g, w := start(t, newStorage(t)), managed(t)
	g.storage.down.Store(true)
	if body := g.ready(t, http.StatusServiceUnavailable); !strings.Contains(body, "datastorage_unreachable") {
		t.Errorf("got %s", body)
	}
	first := w.must(t, g, "web", http.StatusCreated)
	for range 20 {
		w.must(t, g, "web", http.StatusAccepted)
	}
	g.storage.down.Store(false)
	g.ready(t, http.StatusOK)
	eventually(t, "every event", func() bool {
		types := g.storage.types(first.Body.RemediationRequestName)
		return types["gateway.crd.created"] == 1 && types["gateway.signal.deduplicated"] == 20
	})
}

func TestAPIServerAway(t *testing.T) {
	g, w := start(t, newStorage(t)), managed(t)
	w.must(t, g, "web", http.StatusCreated)
	g.proxy.close()
	seen := map[string]bool{}
	for range 8 {
		got := w.must(t, g, "web", http.StatusServiceUnavailable)
		if got.Header.Get("Retry-After") == "" {
			t.Errorf("got %v", got.Header)
		}
		seen[got.Body.Type] = true
	}
	if !seen["https://kubernaut.ai/problems/api-server-unavailable"] || !seen["https://kubernaut.ai/problems/circuit-open"] || len(seen) != 2 {
		t.Errorf("got %v", seen)
	}
	if body := g.ready(t, http.StatusServiceUnavailable); !strings.Contains(body, "api_server_unreachable") {
		t.Errorf("got %s", body)
	}
	g.proxy.open(t)
	g.ready(t, http.StatusOK)
	eventually(t, "the circuit to close", func() bool {
		got, err := w.send(t.Context(), g, "web", w.token)
		return err == nil && got.Code == http.StatusAccepted
	})
}

// TestTermination ends a Gateway under load: what it answered is stored, nobody who
// was accepted is cut, and the audit events are all there.
func TestTermination(t *testing.T) {
	g, w := start(t, newStorage(t)), managed(t)
	first := w.must(t, g, "web", http.StatusCreated)
	var accepted atomic.Int64
	var moved atomic.Bool // no more requests are sent here, as when a Service's endpoints have moved
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() {
			for !moved.Load() {
				got, err := w.send(t.Context(), g, "web", w.token)
				if err != nil || got.Code != http.StatusAccepted {
					t.Errorf("got %d %+v, %v", got.Code, got.Body, err)
					return
				}
				accepted.Add(1)
			}
		})
	}
	eventually(t, "load", func() bool { return accepted.Load() > 100 })
	ended := make(chan error)
	go func() { ended <- g.stop() }()
	if body := g.ready(t, http.StatusServiceUnavailable); !strings.Contains(body, "shutting_down") {
		t.Errorf("got %s", body)
	}
	moved.Store(true)
	if err := <-ended; err != nil {
		t.Errorf("got %v, want a clean end", err)
	}
	group.Wait()
	want := accepted.Load() + 1
	if n := w.request(t, first.Body.RemediationRequestName).Status.Deduplication.OccurrenceCount; n != want {
		t.Errorf("got count %d, want %d", n, want)
	}
	if n := g.storage.types(first.Body.RemediationRequestName)["gateway.signal.deduplicated"]; int64(n) != want-1 {
		t.Errorf("got %d events, want %d", n, want-1)
	}
	for _, said := range []string{"shutting down", "drained"} {
		if !strings.Contains(g.log.String(), said) {
			t.Errorf("got log %s, want %q in it", g.log, said)
		}
	}
}

// TestPermissions holds the manifests to what is not needed.
func TestPermissions(t *testing.T) {
	cfg := rest.AnonymousClientConfig(admin)
	cfg.BearerToken = token(t, gatewayNamespace, "gateway")
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.CoreV1().Secrets(gatewayNamespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("secrets: got %v", err)
	}
	if _, err := set.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("config maps: got %v", err)
	}
	if err := set.AppsV1().Deployments("default").Delete(t.Context(), "x", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("deployments: got %v", err)
	}
}
