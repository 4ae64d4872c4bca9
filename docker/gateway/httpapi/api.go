// Package httpapi is the Gateway's API: it reads signals out of requests and says
// what became of them.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"

	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/request"
)

// MaxBodyBytes is the largest body that is read. It is a sixth of what etcd stores
// in one object, in which the body appears twice.
const MaxBodyBytes = 256 << 10

// busyRetryAfter is what a sender beyond the limit is told: most requests take
// some ten milliseconds.
const busyRetryAfter = time.Second

// Taker stores signals.
type Taker interface {
	Take(ctx context.Context, s signal.Signal) (intake.Receipt, error)
}

// Options configures the API. All fields but CORS are required.
type Options struct {
	Log     *slog.Logger
	Metrics *metrics.Metrics
	Intake  Taker
	Alerts  *prometheus.Parser
	Events  *kubernetesevent.Parser
	// Authenticate lets in who may send signals.
	Authenticate func(http.Handler) http.Handler
	// CORS is nil when no origin is allowed.
	CORS *cors.Options
	// MaxConcurrent is how many requests are worked on at once; more get 429.
	MaxConcurrent int
	// Timeout bounds the work on one request.
	Timeout time.Duration
	Now     func() time.Time
}

// api serves the routes.
type api struct{ Options }

// New returns the API's handler.
func New(opts Options) http.Handler {
	a := &api{opts}
	router := chi.NewRouter()
	router.Use(request.Middleware(opts.Log), a.measure)
	if opts.CORS != nil {
		router.Use(cors.Handler(*opts.CORS))
	}
	router.Use(a.limit, a.deadline)
	router.NotFound(problem.NotFound)
	router.MethodNotAllowed(problem.MethodNotAllowed(router))
	router.Group(func(r chi.Router) {
		r.Use(opts.Authenticate)
		r.Post(metrics.EndpointPrometheus, a.handle(a.prometheus))
		r.Post(metrics.EndpointEvent, a.handle(a.event))
	})
	return router
}

// measure records the duration of every request under its route.
func (a *api) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		answer := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(answer, r)
		status := answer.Status()
		if status == 0 {
			status = http.StatusOK
		}
		a.Metrics.Request(r.URL.Path, r.Method, status, time.Since(start))
	})
}

// limit answers 429 when too many requests are being worked on. It does not queue:
// the sender's own queue has more patience than its connection.
func (a *api) limit(next http.Handler) http.Handler {
	slots := make(chan struct{}, a.MaxConcurrent)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			p := problem.New(http.StatusTooManyRequests, "too-many-requests", "too many requests at once; try again")
			p.RetryAfter = busyRetryAfter
			problem.Write(w, r, p)
		}
	})
}

// deadline bounds the work on a request.
func (a *api) deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), a.Timeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// handle adapts an endpoint: it answers what the endpoint returns, or its error.
func (a *api) handle(execute func(r *http.Request, body []byte, sent time.Time) (answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := a.Now()
		answered, err := func() (answer, error) {
			sent, err := timestamp(r.Header, now)
			if err != nil {
				return answer{}, err
			}
			body, err := read(w, r)
			if err != nil {
				return answer{}, err
			}
			return execute(r, body, sent)
		}()
		if err != nil {
			p := asProblem(err)
			a.count(err)
			problem.Write(w, r, p)
			return
		}
		answered.write(w, r)
	}
}
