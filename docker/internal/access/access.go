// Package access lets a request in when Kubernetes knows its bearer token and
// allows its sender what the request does: a TokenReview, then a
// SubjectAccessReview, with the decision remembered for a few seconds. Without the
// memory every request costs two calls, which has saturated an API server under
// parallel tests.
package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kubernaut.ai/e2e/docker/internal/panics"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/trace"
)

const (
	// defaultAllowTTL is how long a permission that was taken away still works.
	defaultAllowTTL = 10 * time.Second
	// defaultDenyTTL is how long a permission that was given does not work yet;
	// it is short because people wait for that one.
	defaultDenyTTL = 2 * time.Second
	// defaultSize bounds each of the two memories. An entry is about 200 bytes.
	defaultSize = 4096
	// reviewTimeout bounds both calls together, which take milliseconds. Senders wait
	// five seconds, and the one that is told to come back has to hear it before.
	reviewTimeout = 3 * time.Second
	// reviewRetryAfter is what senders are told when a review failed.
	reviewRetryAfter = time.Second
)

// Options configures a Reviewer.
type Options struct {
	// Client needs permission to create TokenReviews and SubjectAccessReviews: a
	// binding to the ClusterRole system:auth-delegator.
	Client kubernetes.Interface
	// Attributes is what a sender must be allowed to act on. The verb is left
	// out: it belongs to the request.
	Attributes authorizationv1.ResourceAttributes
	// AllowTTL is how long a yes is remembered; zero means 10 s.
	AllowTTL time.Duration
	// DenyTTL is how long a no is remembered; zero means 2 s.
	DenyTTL time.Duration
	// Audience is what a token must be for. Required: a token that serves for one service
	// only opens nothing else when it is stolen.
	Audience string
	// Issuer returns who issues the cluster's tokens, or "" while that is not known; see
	// Issuer. Nil is never known.
	Issuer func() string
	// Size bounds the remembered decisions, yes and no separately; zero means 4096.
	Size int
}

// Reviewer decides about tokens. It is safe for concurrent use.
type Reviewer struct {
	client     kubernetes.Interface
	attributes authorizationv1.ResourceAttributes
	audience   string
	issuer     func() string
	decisions  *decisions
	flight     singleflight.Group

	// Tokens that were good before are reviewed apart, so that those of strangers, of
	// which there is no end, do not keep them waiting.
	friends, strangers *lane
}

// New returns a Reviewer that remembers nothing yet.
func New(opts Options) *Reviewer {
	if opts.AllowTTL <= 0 {
		opts.AllowTTL = defaultAllowTTL
	}
	if opts.DenyTTL <= 0 {
		opts.DenyTTL = defaultDenyTTL
	}
	if opts.Size < 1 {
		opts.Size = defaultSize
	}
	if opts.Issuer == nil {
		opts.Issuer = func() string { return "" }
	}
	return &Reviewer{
		client:     opts.Client,
		attributes: opts.Attributes,
		audience:   opts.Audience,
		issuer:     opts.Issuer,
		friends:    newLane(),
		strangers:  newLane(),
		decisions:  newDecisions(opts.Size, opts.AllowTTL, opts.DenyTTL),
	}
}

type userKey struct{}

// User returns the name of the authenticated sender of the request that ctx
// belongs to, or "".
func User(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// Middleware lets a request through when its sender may do what verb says of it.
// It answers 401 without a valid token, 403 when the sender is not allowed, and 503
// with Retry-After when the reviews themselves fail or could not judge. A token that
// cannot be valid costs the API server nothing. Headers by which a sender could
// name another user are dropped, and so is the token once it was reviewed.
func (v *Reviewer) Middleware(verb func(*http.Request) string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, ok := bearer(r.Header)
			dropIdentity(r.Header)
			if !ok {
				problem.Write(w, r, unauthorized("a bearer token is required"))
				return
			}
			if why := v.doubt(token); why != "" {
				problem.Write(w, r, unauthorized(why))
				return
			}
			user, err := v.review(r.Context(), token, verb(r))
			if err != nil {
				problem.Write(w, r, err)
				return
			}
			ctx := context.WithValue(r.Context(), userKey{}, user)
			ctx = trace.WithLog(ctx, trace.Log(ctx).With("user", user))
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// bearer returns the token of the request.
func bearer(header http.Header) (string, bool) {
	scheme, token, _ := strings.Cut(header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	ok := strings.EqualFold(scheme, "Bearer") && token != "" && !strings.ContainsAny(token, " \t") &&
		len(header.Values("Authorization")) == 1
	return token, ok
}

// dropIdentity removes what would let a sender pass for somebody else further on.
func dropIdentity(header http.Header) {
	for name := range header {
		if strings.HasPrefix(name, "Impersonate-") || name == "X-Auth-Request-User" || name == "Authorization" {
			header.Del(name)
		}
	}
}

// review returns the name of the token's user, from memory when a decision is
// fresh. Requests with the same token and verb that arrive together share one
// review, which outlives the request that began it.
func (v *Reviewer) review(ctx context.Context, token, verb string) (string, error) {
	key := sha256.Sum256([]byte(verb + "\x00" + token))
	if known, ok := v.decisions.get(key); ok {
		return known.answer()
	}
	queue := v.strangers
	if v.decisions.proven(key) {
		queue = v.friends
	}
	result := v.flight.DoChan(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		leave, err := queue.enter(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
		var made decision
		if err := panics.Catch(func() (err error) { // the group would end the process
			made, err = v.decide(ctx, token, verb)
			return err
		}); err != nil {
			return nil, err
		}
		v.decisions.put(key, made)
		return made, nil
	})
	select {
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			// The request's time ended in the review: it is the review that failed.
			return "", reviewFailed(ctx.Err())
		}
		return "", ctx.Err()
	case r := <-result:
		if r.Err != nil {
			return "", reviewFailed(r.Err)
		}
		return r.Val.(decision).answer()
	}
}

// reviewFailed tells a sender, of whom nothing is known, to come back.
func reviewFailed(cause error) error {
	p := problem.New(http.StatusServiceUnavailable, "access-review-failed", "access could not be reviewed; try again")
	p.RetryAfter = reviewRetryAfter
	return p.Because(cause)
}

// decide asks the API server. An error means that it could not answer, which says
// nothing about the sender.
func (v *Reviewer) decide(ctx context.Context, token, verb string) (decision, error) {
	who, err := v.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{v.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return decision{}, fmt.Errorf("TokenReview: %w", err)
	}
	if !who.Status.Authenticated {
		if cause := who.Status.Error; cause != "" && !denial(cause) {
			return decision{}, fmt.Errorf("TokenReview: could not judge: %s", cause)
		}
		return decision{}, nil
	}
	// Without an audience the token was held against the API server's own only.
	if !slices.Contains(who.Status.Audiences, v.audience) {
		return decision{}, nil
	}
	user := who.Status.User
	if user.Username == "" {
		return decision{}, errors.New("TokenReview: authenticated without a user name")
	}
	attributes := v.attributes
	attributes.Verb = verb
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for name, values := range user.Extra {
		extra[name] = authorizationv1.ExtraValue(values)
	}
	may, err := v.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			ResourceAttributes: &attributes, User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return decision{}, fmt.Errorf("SubjectAccessReview: %w", err)
	}
	if cause := may.Status.EvaluationError; cause != "" && !may.Status.Allowed {
		return decision{}, fmt.Errorf("SubjectAccessReview: could not judge: %s", cause)
	}
	return decision{user: user.Username, allowed: may.Status.Allowed}, nil
}

// denials are what kube-apiserver's authenticators say of a token that is at fault
// itself: k8s.io/kubernetes, pkg/serviceaccount/{jwt,claims}.go, and k8s.io/apiserver,
// pkg/authentication/request/bearertoken. They have no type in a review.
var denials = []string{
	"invalid bearer token", "expired", "not valid yet", "not found", "has been deleted", "invalidated", "does not match",
	"is invalid", "cryptographic primitive", "malformed", "unable to parse", "compact JWS",
}

// denial reports whether a review's error says that the token is at fault. Anything
// else, such as storage that did not answer, says nothing about the sender.
func denial(cause string) bool {
	return slices.ContainsFunc(denials, func(text string) bool { return strings.Contains(cause, text) })
}

// unauthorized is the answer to a sender nobody knows.
func unauthorized(detail string) *problem.Problem {
	p := problem.New(http.StatusUnauthorized, "unauthorized", detail)
	p.Header = http.Header{"Www-Authenticate": {"Bearer"}}
	return p
}
