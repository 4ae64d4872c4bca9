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

	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/request"
)

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
	// Memory recognises notifications that come again.
	Memory *intake.Memory
	// MaxConcurrent is how many requests are worked on at once, until their work ends;
	// more are told to come back: 503 for Alertmanager, 429 for others.
	MaxConcurrent int
	// BodyMemory is how many bytes of memory bodies may take together, with what is made
	// of them; at least MinBodyMemory. More wait a moment and are then told to come back.
	BodyMemory int64
	// Timeout bounds the work on one request.
	Timeout time.Duration
	Now     func() time.Time
}

// api serves the routes.
type api struct {
	Options
	slots  chan struct{} // one for each request that is worked on
	bodies *budget
}

// New returns the API's handler.
func New(opts Options) http.Handler {
	a := &api{opts, make(chan struct{}, opts.MaxConcurrent), newBudget(opts.BodyMemory)}
	router := chi.NewRouter()
	router.Use(request.Middleware(opts.Log), a.measure)
	if opts.CORS != nil {
		router.Use(cors.Handler(*opts.CORS))
	}
	router.Use(a.deadline)
	router.NotFound(problem.NotFound)
	router.MethodNotAllowed(problem.MethodNotAllowed(router))
	router.Group(func(r chi.Router) {
		// Whom nobody knows takes no place from those who are known.
		r.Use(request.Discard(MaxBodyBytes), opts.Authenticate, a.limit)
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

// handle adapts an endpoint: it answers what the endpoint returns, or its error.
func (a *api) handle(execute func(r *http.Request, body []byte, sent time.Time) (answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := a.Now()
		ctx, delivery := a.Memory.Begin(r.Context())
		answered, err := func() (answer, error) {
			sent, err := timestamp(r.Header, now)
			if err != nil {
				return answer{}, err
			}
			if err := acceptable(r); err != nil {
				return answer{}, err
			}
			free, err := a.bodies.take(ctx, r.ContentLength)
			if err != nil {
				return answer{}, overloaded(r, "too much is being worked on").Because(err)
			}
			var done func()
			ctx, done = coalesce.Keep(ctx, free)
			defer done()
			r := r.WithContext(ctx)
			body, err := read(w, r)
			if err != nil {
				return answer{}, err
			}
			return execute(r, body, sent)
		}()
		if err != nil {
			a.count(err)
			problem.Write(w, r, asProblem(err))
			delivery.End(false)
			return
		}
		delivery.End(answered.write(w, r) && waits(ctx))
	}
}
