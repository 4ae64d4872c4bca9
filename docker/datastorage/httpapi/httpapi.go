// Package httpapi is the service's API over HTTP: the server interface generated from
// the OpenAPI document, and what stands before it.
package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	nethttpmiddleware "github.com/oapi-codegen/nethttp-middleware"

	"golang.org/x/sync/semaphore"

	"kubernaut.ai/e2e/docker/datastorage/api"
	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/metrics"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/internal/access"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/request"
)

// The paths that store events.
const (
	eventsPath = "/api/v1/audit/events"
	batchPath  = eventsPath + "/batch"
)

const (
	// maxRequests bounds what is in hand: a request costs some 50 KiB beside its body,
	// and a sender whose request waits for long would rather come back.
	maxRequests = 384
	// senderRequests is what one sender may have of them: whoever holds his connections
	// leaves room for others.
	senderRequests = maxRequests / 3
	// maxReads bounds what readers take: a page, or the largest event, and what
	// PostgreSQL's answer takes beside it, some 15 MiB together.
	maxReads = 4
)

// reader gives events back.
type reader interface {
	Get(ctx context.Context, id uuid.UUID) (audit.Stored, error)
	Find(ctx context.Context, q postgres.Query) (postgres.Page, error)
}

// verifier computes again what was written.
type verifier interface {
	VerifyChain(ctx context.Context, correlation string, from audit.Verified) (audit.Verified, error)
	VerifyAll(ctx context.Context, from audit.Place) (audit.Report, error)
}

// Options configures the API. All fields are required.
type Options struct {
	Accepter accepter
	Reader   reader
	Verifier verifier
	// Access lets a request through when its sender may do the verb.
	Access func(verb func(*http.Request) string) func(http.Handler) http.Handler
	// Ready answers /readyz.
	Ready   http.HandlerFunc
	Metrics *metrics.Metrics
	Log     *slog.Logger
	// Timeout ends the context of a request.
	Timeout time.Duration
	// MaxBodyBytes is the largest body that is read.
	MaxBodyBytes int64
	// Now is the clock.
	Now func() time.Time
}

// New returns the handler of the API's listener.
func New(opts Options) (http.Handler, error) {
	spec, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	router := chi.NewRouter()
	router.Use(request.Middleware(opts.Log), opts.Metrics.Middleware, deadline(opts.Timeout))
	router.NotFound(problem.NotFound)
	router.MethodNotAllowed(problem.MethodNotAllowed(router))
	router.Get("/readyz", opts.Ready)
	decoder, err := newDecoder(spec, opts.MaxBodyBytes)
	if err != nil {
		return nil, err
	}
	discard := request.Discard(opts.MaxBodyBytes)
	writes := &writer{decoder, newLanes(opts.MaxBodyBytes), opts.Accepter, opts.Now}
	inHand := &requests{of: map[string]int{}}
	router.Group(func(guarded chi.Router) {
		guarded.Use(discard, opts.Access(verb), inHand.limit, refuseUnknown(spec))
		guarded.Post(eventsPath, writes.handle(decoder.one, alone, func(receipts []audit.Receipt) any {
			return server.EventCreated{EventID: receipts[0].ID, EventTimestamp: receipts[0].Timestamp}
		}))
		guarded.Post(batchPath, writes.handle(decoder.batch, inBatch, func(receipts []audit.Receipt) any {
			return server.EventsCreated{EventIds: idsOf(receipts)}
		}))
	})
	router.Group(func(guarded chi.Router) {
		guarded.Use(discard, opts.Access(verb), inHand.limit, limitReads(), limitVerify, refuseUnknown(spec), validate(spec))
		server.HandlerWithOptions(
			server.NewStrictHandlerWithOptions(&handler{opts.Reader, opts.Verifier, opts.Now}, nil, server.StrictHTTPServerOptions{
				RequestErrorHandlerFunc:  badRequest,
				ResponseErrorHandlerFunc: answerError,
			}),
			server.ChiServerOptions{BaseRouter: guarded, ErrorHandlerFunc: badRequest},
		)
	})
	return router, nil
}

// Routes lists what New serves, and the answers that are to be expected.
func Routes() []metrics.Route {
	write := []int{201, 202, 400, 401, 403, 409, 413, 415, 500, 503, 504}
	read := []int{200, 400, 401, 403, 500, 503, 504}
	return []metrics.Route{
		{Method: http.MethodPost, Endpoint: eventsPath, Statuses: write},
		{Method: http.MethodPost, Endpoint: batchPath, Statuses: write},
		{Method: http.MethodGet, Endpoint: eventsPath, Statuses: read},
		{Method: http.MethodGet, Endpoint: eventsPath + "/{event_id}", Statuses: append([]int{404}, read...)},
		{Method: http.MethodPost, Endpoint: "/api/v1/audit/verify-chain", Statuses: append([]int{413, 415}, read...)},
		{Method: http.MethodGet, Endpoint: "/readyz", Statuses: []int{200, 503}},
	}
}

// verb is what a sender must be allowed to do: to create in order to write, to get in
// order to read, which verifying a chain is too.
func verb(r *http.Request) string {
	if r.Method == http.MethodPost && r.URL.Path != "/api/v1/audit/verify-chain" {
		return "create"
	}
	return "get"
}

// deadline bounds each request.
func deadline(timeout time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// validate checks requests against the OpenAPI document.
func validate(spec *openapi3.T) func(http.Handler) http.Handler {
	return nethttpmiddleware.OapiRequestValidatorWithOptions(spec, &nethttpmiddleware.Options{
		Options: openapi3filter.Options{
			// Tokens are reviewed before; the document only tells of them.
			AuthenticationFunc:  openapi3filter.NoopAuthenticationFunc,
			SkipSettingDefaults: true,
		},
		ErrorHandlerWithOpts: func(_ context.Context, err error, w http.ResponseWriter, r *http.Request, _ nethttpmiddleware.ErrorHandlerOpts) {
			badRequest(w, r, err)
		},
		// Numbers in the value that was validated have lost digits.
		DiscardValidatedValue: true,
	})
}

// requests counts what is in hand, by sender.
type requests struct {
	mu  sync.Mutex
	all int
	of  map[string]int
}

// limit refuses requests while there are too many, of this sender or of all.
func (c *requests) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender := access.User(r.Context())
		if !c.begin(sender) {
			p := problem.New(http.StatusServiceUnavailable, "overloaded", "too many requests are in hand")
			p.RetryAfter = retryAfter
			problem.Write(w, r, p)
			return
		}
		defer c.end(sender)
		next.ServeHTTP(w, r)
	})
}

func (c *requests) begin(sender string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == maxRequests || c.of[sender] == senderRequests {
		return false
	}
	c.all++
	c.of[sender]++
	return true
}

func (c *requests) end(sender string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[sender]--; c.of[sender] == 0 {
		delete(c.of, sender)
	}
}

// limitReads lets a few reads go on at once, their answers included; others wait. Who
// verifies waits at the store, for each part anew.
func limitReads() func(http.Handler) http.Handler {
	places := semaphore.NewWeighted(maxReads)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				next.ServeHTTP(w, r)
				return
			}
			if err := places.Acquire(r.Context(), 1); err != nil {
				problem.Write(w, r, overloaded(r.Context().Err()))
				return
			}
			defer places.Release(1)
			next.ServeHTTP(w, r)
		})
	}
}
