package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clientgotesting "k8s.io/client-go/testing"
)

// apiServer answers reviews and counts them. "token-<user>" authenticates <user>.
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
		var name string
		if _, err := fmt.Sscanf(review.Spec.Token, "token-%s", &name); err == nil {
			review.Status.Authenticated = true
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
	reviewer := New(Options{Client: server, Attributes: attributes})
	for name, c := range map[string]struct {
		method, authorization string
		status                int
	}{
		"no token":               {"POST", "", 401},
		"another scheme":         {"POST", "Basic dXNlcg==", 401},
		"an empty token":         {"POST", "Bearer ", 401},
		"two words":              {"POST", "Bearer token-ann x", 401},
		"an invalid token":       {"POST", "Bearer nonsense", 401},
		"not allowed":            {"POST", "Bearer token-bob", 403},
		"another verb":           {"GET", "Bearer token-ann", 403},
		"allowed":                {"POST", "Bearer token-ann", 200},
		"a scheme in lower case": {"POST", "bearer token-ann", 200},
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
		reviewer := New(Options{Client: server, Attributes: attributes})
		expect := func(status int, reviews int64) {
			t.Helper()
			w := get(t.Context(), reviewer, "POST", "Bearer token-ann")
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
	reviewer := New(Options{Client: server, Attributes: attributes, Size: 10})
	get(t.Context(), reviewer, "POST", "Bearer token-ann")
	for i := range 100 {
		get(t.Context(), reviewer, "POST", fmt.Sprintf("Bearer nonsense%d", i))
	}
	before := server.tokenReviews.Load()
	if w := get(t.Context(), reviewer, "POST", "Bearer token-ann"); w.Code != 200 || server.tokenReviews.Load() != before {
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
		reviewer := New(Options{Client: server, Attributes: attributes})
		first, giveUp := context.WithCancel(t.Context())
		var ok, gone atomic.Int64
		for i := range 50 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			go func() {
				if get(ctx, reviewer, "POST", "Bearer token-ann").Code == 200 {
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
	reviewer := New(Options{Client: server, Attributes: attributes})
	w := get(t.Context(), reviewer, "POST", "Bearer token-ann")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	server.fail.Store(nil)
	if w := get(t.Context(), reviewer, "POST", "Bearer token-ann"); w.Code != 200 {
		t.Errorf("got %d once the API server answers", w.Code)
	}
}
