package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clientauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	clientgotesting "k8s.io/client-go/testing"
)

// token is a token of the cluster's for the service. Nobody signed it: that is the API
// server's business.
func token(user string) string { return forge(user, "cluster", "svc", time.Now().Add(time.Hour)) }

func forge(user, issuer, audience string, expiry time.Time) string {
	payload := fmt.Sprintf(`{"iss":%q,"aud":[%q],"exp":%d,"sub":%q}`, issuer, audience, expiry.Unix(), user)
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// newReviewer returns a reviewer for tokens of the cluster's for the service.
func newReviewer(server *apiServer, change func(*Options)) *Reviewer {
	opts := Options{Client: server, Attributes: attributes, Audience: "svc", Issuer: func() string { return "cluster" }}
	if change != nil {
		change(&opts)
	}
	return New(opts)
}

// known returns the user of a token, or "" for one that was not issued.
func (s *apiServer) known(token string) string {
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var c struct{ Sub string }
	_ = json.Unmarshal(payload, &c)
	if strings.HasPrefix(c.Sub, "nonsense") {
		return ""
	}
	return c.Sub
}

// apiServer answers reviews and counts them.
type apiServer struct {
	*fake.Clientset
	tokenReviews, accessReviews atomic.Int64
	may                         func(authorizationv1.SubjectAccessReviewSpec) bool
	fail                        atomic.Pointer[error]
	hold                        chan struct{} // token reviews wait for it when it is not nil
}

func newAPIServer() *apiServer {
	s := &apiServer{Clientset: fake.NewClientset()}
	s.may = func(authorizationv1.SubjectAccessReviewSpec) bool { return true }
	s.PrependReactor("create", "tokenreviews", func(a clientgotesting.Action) (bool, runtime.Object, error) {
		s.tokenReviews.Add(1)
		if s.hold != nil {
			<-s.hold
		}
		if err := s.fail.Load(); err != nil {
			return true, nil, *err
		}
		review := a.(clientgotesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		if name := s.known(review.Spec.Token); name != "" && slices.Equal(review.Spec.Audiences, []string{"svc"}) {
			review.Status.Authenticated = true
			review.Status.Audiences = review.Spec.Audiences
			review.Status.User = authenticationv1.UserInfo{Username: name, UID: "u1", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
		}
		return true, review, nil
	})
	s.PrependReactor("create", "subjectaccessreviews", func(a clientgotesting.Action) (bool, runtime.Object, error) {
		s.accessReviews.Add(1)
		review := a.(clientgotesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		review.Status.Allowed = s.may(review.Spec)
		return true, review, nil
	})
	return s
}

var attributes = authorizationv1.ResourceAttributes{Namespace: "ns", Resource: "services", Name: "svc"}

// get sends one request with the given Authorization header through reviewer and
// returns the answer; the handler behind it answers the user's name.
func get(ctx context.Context, reviewer *Reviewer, method, authorization string) *httptest.ResponseRecorder {
	verb := func(r *http.Request) string {
		if r.Method == http.MethodGet {
			return "get"
		}
		return "create"
	}
	r := httptest.NewRequestWithContext(ctx, method, "/", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	r.Header.Set("Impersonate-User", "root")
	r.Header.Set("Impersonate-Extra-Scopes", "all")
	r.Header.Set("X-Auth-Request-User", "root")
	w := httptest.NewRecorder()
	reviewer.Middleware(verb)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, User(r.Context()), len(r.Header))
	})).ServeHTTP(w, r)
	return w
}

func TestMiddlewareDecides(t *testing.T) {
	server := newAPIServer()
	server.may = func(spec authorizationv1.SubjectAccessReviewSpec) bool {
		return spec.User == "ann" && spec.UID == "u1" && spec.Groups[0] == "g" && spec.Extra["k"][0] == "v" &&
			*spec.ResourceAttributes == authorizationv1.ResourceAttributes{Namespace: "ns", Resource: "services", Name: "svc", Verb: "create"}
	}
	reviewer := newReviewer(server, nil)
	for name, c := range map[string]struct {
		method, authorization string
		status                int
	}{
		"no token":               {"POST", "", 401},
		"another scheme":         {"POST", "Basic dXNlcg==", 401},
		"an empty token":         {"POST", "Bearer ", 401},
		"two words":              {"POST", "Bearer " + token("ann") + " x", 401},
		"an invalid token":       {"POST", "Bearer " + token("nonsense"), 401},
		"not allowed":            {"POST", "Bearer " + token("bob"), 403},
		"another verb":           {"GET", "Bearer " + token("ann"), 403},
		"allowed":                {"POST", "Bearer " + token("ann"), 200},
		"a scheme in lower case": {"POST", "bearer " + token("ann"), 200},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(t.Context(), reviewer, c.method, c.authorization)
			if w.Code != c.status {
				t.Fatalf("got %d %s, want %d", w.Code, w.Body, c.status)
			}
			if (c.status == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("got WWW-Authenticate %q", w.Header().Get("WWW-Authenticate"))
			}
			// The handler saw no header at all: token and identity are dropped.
			if c.status == 200 && w.Body.String() != "ann0" {
				t.Errorf("got %q", w.Body)
			}
		})
	}
}

func TestDecisionsAreRememberedForTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		allowed := true
		server.may = func(authorizationv1.SubjectAccessReviewSpec) bool { return allowed }
		reviewer := newReviewer(server, nil)
		ann := token("ann")
		expect := func(status int, reviews int64) {
			t.Helper()
			w := get(t.Context(), reviewer, "POST", "Bearer "+ann)
			if w.Code != status || server.tokenReviews.Load() != reviews || server.accessReviews.Load() != reviews {
				t.Errorf("got %d after %d reviews, want %d after %d", w.Code, server.tokenReviews.Load(), status, reviews)
			}
		}
		expect(200, 1)
		allowed = false
		<-time.After(10*time.Second - 1)
		expect(200, 1)
		<-time.After(1)
		expect(403, 2)
		allowed = true
		<-time.After(2*time.Second - 1)
		expect(403, 2)
		<-time.After(1)
		expect(200, 3)
	})
}

func TestAFloodOfInvalidTokensKeepsWhatWorks(t *testing.T) {
	server := newAPIServer()
	reviewer := newReviewer(server, func(o *Options) { o.Size = 10 })
	get(t.Context(), reviewer, "POST", "Bearer "+token("ann"))
	for i := range 100 {
		get(t.Context(), reviewer, "POST", "Bearer "+token(fmt.Sprint("nonsense", i)))
	}
	before := server.tokenReviews.Load()
	if w := get(t.Context(), reviewer, "POST", "Bearer "+token("ann")); w.Code != 200 || server.tokenReviews.Load() != before {
		t.Errorf("got %d after %d reviews", w.Code, server.tokenReviews.Load()-before)
	}
	if n := reviewer.decisions.denied.Len(); n > 10 {
		t.Errorf("got %d remembered, want at most 10", n)
	}
}

func TestRequestsTogetherShareOneReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		server.hold = make(chan struct{})
		reviewer := newReviewer(server, nil)
		first, giveUp := context.WithCancel(t.Context())
		var ok, gone atomic.Int64
		for i := range 50 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			go func() {
				if get(ctx, reviewer, "POST", "Bearer "+token("ann")).Code == 200 {
					ok.Add(1)
				} else {
					gone.Add(1)
				}
			}()
			synctest.Wait()
		}
		// The request that began the review goes away; the others still get theirs.
		giveUp()
		synctest.Wait()
		close(server.hold)
		synctest.Wait()
		if ok.Load() != 49 || gone.Load() != 1 || server.tokenReviews.Load() != 1 {
			t.Errorf("got %d served, %d gone, %d reviews", ok.Load(), gone.Load(), server.tokenReviews.Load())
		}
	})
}

func TestAFailedReviewIsNotADecision(t *testing.T) {
	server := newAPIServer()
	broken := errors.New("connection refused")
	server.fail.Store(&broken)
	reviewer := newReviewer(server, nil)
	w := get(t.Context(), reviewer, "POST", "Bearer "+token("ann"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	server.fail.Store(nil)
	if w := get(t.Context(), reviewer, "POST", "Bearer "+token("ann")); w.Code != 200 {
		t.Errorf("got %d once the API server answers", w.Code)
	}
}

// TestStrangersCostNothing: what cannot be a token for the service is refused without a call.
func TestStrangersCostNothing(t *testing.T) {
	server := newAPIServer()
	reviewer := newReviewer(server, nil)
	hour := time.Now().Add(time.Hour)
	for name, token := range map[string]string{
		"a word":                       "x1",
		"no JSON":                      "e30.bm9wZQ.c2ln",
		"no base64":                    "e30.!.c2ln",
		"not signed":                   forge("ann", "cluster", "svc", hour) + ".more",
		"another issuer":               forge("ann", "https://elsewhere", "svc", hour),
		"another audience":             forge("ann", "cluster", "https://kubernetes.default.svc", hour),
		"expired":                      forge("ann", "cluster", "svc", time.Now().Add(-time.Second)),
		"an audience that is a number": "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"cluster","aud":7}`)) + ".c2ln",
	} {
		if w := get(t.Context(), reviewer, "POST", "Bearer "+token); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, w.Code)
		}
	}
	if n := server.tokenReviews.Load(); n != 0 {
		t.Errorf("the API server was asked %d times", n)
	}
	if w := get(t.Context(), reviewer, "POST", "Bearer "+forge("ann", "cluster", "svc", hour)); w.Code != http.StatusOK {
		t.Errorf("a good one: got %d", w.Code)
	}
}

// TestAQueueOfStrangersKeepsNobodyWaiting: those that are known have reviews of their own.
func TestAQueueOfStrangersKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &slow{apiServer: newAPIServer()}
		reviewer := newReviewer(server.apiServer, func(o *Options) { o.Client = server })
		ann := token("ann")
		if w := get(t.Context(), reviewer, "POST", "Bearer "+ann); w.Code != http.StatusOK {
			t.Fatalf("got %d", w.Code)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble: the decision is forgotten
		server.hold = make(chan struct{})
		codes := make(chan int, 1000)
		for i := range 1000 {
			go func() { codes <- get(t.Context(), reviewer, "POST", "Bearer "+token(fmt.Sprint("nonsense", i))).Code }()
		}
		synctest.Wait()
		if n := server.begun.Load(); n != 1+maxReviews {
			t.Errorf("%d reviews at once, want %d", n-1, maxReviews)
		}
		if n := len(codes); n != 1000-maxReviews-maxWaiting {
			t.Errorf("%d were told to come back at once", n)
		}
		go func() { codes <- get(t.Context(), reviewer, "POST", "Bearer "+ann).Code }()
		synctest.Wait()
		if n := server.begun.Load(); n != 2+maxReviews {
			t.Error("the known sender waits for strangers")
		}
		close(server.hold)
		for range 1001 {
			<-codes
		}
	})
}

// slow is an API server whose token reviews wait for hold, all at the same time, which the
// fake's own do not: it answers one call after the other.
type slow struct {
	*apiServer
	begun atomic.Int64
	hold  chan struct{}
}

func (s *slow) AuthenticationV1() clientauthenticationv1.AuthenticationV1Interface {
	return slowGroup{s.apiServer.AuthenticationV1(), s}
}

type slowGroup struct {
	clientauthenticationv1.AuthenticationV1Interface
	slow *slow
}

func (g slowGroup) TokenReviews() clientauthenticationv1.TokenReviewInterface {
	return slowReviews{g.AuthenticationV1Interface.TokenReviews(), g.slow}
}

type slowReviews struct {
	clientauthenticationv1.TokenReviewInterface
	slow *slow
}

func (r slowReviews) Create(ctx context.Context, review *authenticationv1.TokenReview, opts metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.slow.begun.Add(1)
	if r.slow.hold != nil {
		<-r.slow.hold
	}
	return r.TokenReviewInterface.Create(ctx, review, opts)
}

// TestWhoCouldNotBeJudgedIsToldToComeBack: a review that failed inside is not a no.
func TestWhoCouldNotBeJudgedIsToldToComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		who    authenticationv1.TokenReviewStatus
		may    authorizationv1.SubjectAccessReviewStatus
		status int
	}{
		"storage is away":      {authenticationv1.TokenReviewStatus{Error: "etcdserver: request timed out"}, authorizationv1.SubjectAccessReviewStatus{}, 503},
		"a bad signature":      {authenticationv1.TokenReviewStatus{Error: "[invalid bearer token, go-jose: error in cryptographic primitive]"}, authorizationv1.SubjectAccessReviewStatus{}, 401},
		"no account":           {authenticationv1.TokenReviewStatus{Error: `serviceaccounts "ann" not found`}, authorizationv1.SubjectAccessReviewStatus{}, 401},
		"no reason":            {authenticationv1.TokenReviewStatus{}, authorizationv1.SubjectAccessReviewStatus{}, 401},
		"no audience":          {authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "ann"}}, authorizationv1.SubjectAccessReviewStatus{Allowed: true}, 401},
		"a broken webhook":     {known(), authorizationv1.SubjectAccessReviewStatus{EvaluationError: "webhook away"}, 503},
		"refused":              {known(), authorizationv1.SubjectAccessReviewStatus{Reason: "RBAC"}, 403},
		"allowed all the same": {known(), authorizationv1.SubjectAccessReviewStatus{Allowed: true, EvaluationError: "one of two is away"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			server := &apiServer{Clientset: fake.NewClientset()}
			server.PrependReactor("create", "tokenreviews", func(clientgotesting.Action) (bool, runtime.Object, error) {
				return true, &authenticationv1.TokenReview{Status: c.who}, nil
			})
			server.PrependReactor("create", "subjectaccessreviews", func(clientgotesting.Action) (bool, runtime.Object, error) {
				return true, &authorizationv1.SubjectAccessReview{Status: c.may}, nil
			})
			w := get(t.Context(), newReviewer(server, nil), "POST", "Bearer "+token("ann"))
			if w.Code != c.status || (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("got %d, Retry-After %q, want %d", w.Code, w.Header().Get("Retry-After"), c.status)
			}
		})
	}
}

// known is the review of a good token.
func known() authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{"svc"}, User: authenticationv1.UserInfo{Username: "ann"}}
}

func TestIssuer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(forge("me", "https://cluster", "api", time.Now())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cluster := range map[string]*rest.Config{
		"https://cluster": {BearerTokenFile: file},
		"cluster":         {BearerToken: token("me")},
		"":                {},
	} {
		if got := Issuer(cluster)(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
