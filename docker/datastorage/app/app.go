// Package app is the process: it puts the parts of the service together, runs them
// and ends them.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kubernaut.ai/e2e/docker/datastorage/checkpoint"
	"kubernaut.ai/e2e/docker/datastorage/httpapi"
	"kubernaut.ai/e2e/docker/datastorage/intake"
	"kubernaut.ai/e2e/docker/datastorage/metrics"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
	"kubernaut.ai/e2e/docker/datastorage/queue"
	"kubernaut.ai/e2e/docker/datastorage/settings"
	"kubernaut.ai/e2e/docker/internal/access"
	"kubernaut.ai/e2e/docker/internal/health"
	"kubernaut.ai/e2e/docker/internal/lifecycle"
	"kubernaut.ai/e2e/docker/internal/ops"
)

// service is the Kubernetes Service that senders must be allowed to act on.
const service = "data-storage-service"

// The reasons of a service that does not reach a store.
const (
	databaseUnreachable = "database_unreachable"
	redisUnreachable    = "redis_unreachable"
)

// maxHeaderBytes holds the longest ServiceAccount token several times over.
const maxHeaderBytes = 16 << 10

// reviewQPS is a rate that access reviews never reach: what limits them is the memory
// of decisions, not a queue inside the client.
const reviewQPS = 1000

// Options is what the process was given from outside.
type Options struct {
	ConfigPath string // of the YAML file
	Pod        string // the name of this instance; "" means datastorage
	Namespace  string // where the Service is; "" means kubernaut-system
	Log        io.Writer
	Out        io.Writer // of what is asked for on the command line
	// Client reviews access; nil means that of the cluster the process runs in.
	Client kubernetes.Interface
}

// App is a service whose ports are bound.
type App struct {
	service lifecycle.Service
	api     *lifecycle.Server
	health  *lifecycle.Server
	metrics *lifecycle.Server
}

// Run runs the service until ctx ends; it returns nil after a clean end.
func Run(ctx context.Context, opts Options) error {
	app, err := New(opts)
	if err != nil {
		return err
	}
	return app.Run(ctx)
}

// New reads the configuration and binds the ports. It waits for nothing: PostgreSQL,
// Redis and the API server may come later.
func New(opts Options) (*App, error) {
	if opts.Pod == "" {
		opts.Pod = "datastorage"
	}
	if opts.Namespace == "" {
		opts.Namespace = "kubernaut-system"
	}
	s, err := settings.Load(opts.ConfigPath)
	if err != nil {
		return nil, err
	}
	log := NewLog(opts.Log, s.Logging.Level)
	// What goes wrong with Redis comes back from its calls. The library's own lines
	// say it again, and not in JSON.
	logging.Disable()

	pool, err := s.Database.Pool()
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(pool, postgres.Timeouts{Write: s.Database.Timeout, Drain: s.Database.DrainTimeout, Read: s.Database.ReadTimeout})
	if err != nil {
		return nil, err
	}
	client, err := s.Redis.Client()
	if err != nil {
		store.Close()
		return nil, err
	}
	app, err := assemble(opts, s, log, store, client)
	if err != nil {
		store.Close()
		return nil, errors.Join(err, client.Close())
	}
	return app, nil
}

// NewLog returns the logger of the process: JSON, one line per record.
func NewLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// assemble puts the parts together. It closes the ports it bound when it fails.
func assemble(opts Options, s settings.Settings, log *slog.Logger, store *postgres.Store, client *redis.Client) (*App, error) {
	dlq := queue.New(queue.Options{Client: client, Timeout: s.Redis.Timeout})
	counts := metrics.New(httpapi.Routes())
	state := health.New(log,
		health.Check{Reason: databaseUnreachable, Probe: store.Ping, Refuses: postgres.Refuses},
		health.Check{Reason: redisUnreachable, Probe: dlq.Ping, Refuses: queue.Refuses},
		health.Check{Reason: "schema_outdated", Probe: store.CheckSchema, Refuses: postgres.Refuses},
	)
	key, err := s.Checkpoints.Key()
	if err != nil {
		return nil, err
	}
	keeper := &checkpoint.Keeper{Store: store, Outside: dlq, Key: key, Observer: counts, Log: log, Interval: s.Checkpoints.Interval}
	reviewer, err := newReviewer(opts, s)
	if err != nil {
		return nil, err
	}
	handler, err := httpapi.New(httpapi.Options{
		Accepter: intake.New(intake.Options{
			Store: store, Queue: dlq, Observer: counts, Timeout: s.Database.Timeout,
			Away:      func() bool { return state.Failed(databaseUnreachable) },
			QueueAway: func() bool { return state.Failed(redisUnreachable) },
		}),
		Reader:   store,
		Verifier: keeper,
		Access:   reviewer.Middleware,
		Ready:    state.Ready,
		Metrics:  counts,
		Log:      log,
		Timeout:  s.Server.RequestTimeout, MaxBodyBytes: s.Server.MaxBodyBytes, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	app := &App{}
	err = app.bind(s.Server, log, handler,
		ops.Handler(log, map[string]http.Handler{"/healthz": state.Handler(), "/readyz": state.Handler(), "/startupz": state.Handler()}),
		ops.Handler(log, map[string]http.Handler{"/metrics": counts.Handler()}))
	if err != nil {
		return nil, err
	}
	app.service = lifecycle.Service{
		Log:        log,
		NotReady:   state.ShutDown,
		Servers:    []*lifecycle.Server{app.api},
		Ops:        []*lifecycle.Server{app.health, app.metrics},
		DrainDelay: s.Server.DrainDelay,
		// As long as the slowest request may take, so that none is cut.
		ShutdownTimeout: s.Server.RequestTimeout,
		Tasks: []lifecycle.Task{
			{Name: "health", Run: state.Run},
			{Name: "partitions", Run: func(ctx context.Context) error { return store.KeepMonths(ctx, log) }},
			{Name: "checkpoints", Run: keeper.Run},
			{Name: "drain", Run: queue.NewDrainer(dlq, store, counts, log, s.Database.Timeout).Run},
		},
		Hooks: []lifecycle.Hook{
			{Name: "database", Run: func(context.Context) error { store.Close(); return nil }},
			{Name: "redis", Run: func(context.Context) error { return client.Close() }},
		},
	}
	return app, nil
}

// newReviewer returns what decides about tokens.
func newReviewer(opts Options, s settings.Settings) (*access.Reviewer, error) {
	client := opts.Client
	var issuer func() string
	if client == nil {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("API server: %w", err)
		}
		config.QPS, config.Burst = reviewQPS, reviewQPS
		if client, err = kubernetes.NewForConfig(config); err != nil {
			return nil, fmt.Errorf("API server: %w", err)
		}
		issuer = access.Issuer(config)
	}
	return access.New(access.Options{
		Client:     client,
		Attributes: authorizationv1.ResourceAttributes{Namespace: opts.Namespace, Resource: "services", Name: service},
		Audience:   s.Auth.Audience, Issuer: issuer,
		AllowTTL: s.Auth.AllowCacheTTL, DenyTTL: s.Auth.DenyCacheTTL,
	}), nil
}

// bind opens the ports, health first.
func (a *App) bind(s settings.Server, log *slog.Logger, api, healthz, metricsz http.Handler) (err error) {
	server := func(handler http.Handler) *http.Server {
		return &http.Server{
			Handler: handler, ReadTimeout: s.ReadTimeout, WriteTimeout: s.WriteTimeout, IdleTimeout: s.IdleTimeout,
			MaxHeaderBytes: maxHeaderBytes,
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(a.health, a.metrics, a.api))
		}
	}()
	if a.health, err = lifecycle.Bind("health", s.HealthAddr, server(healthz), log); err != nil {
		return err
	}
	if a.metrics, err = lifecycle.Bind("metrics", s.MetricsAddr, server(metricsz), log); err != nil {
		return err
	}
	listening := server(api)
	if listening.TLSConfig, err = s.TLS.Config(); err != nil {
		return err
	}
	a.api, err = lifecycle.Bind("api", s.ListenAddr, listening, log)
	return err
}

func closeAll(servers ...*lifecycle.Server) error {
	var errs []error
	for _, server := range servers {
		if server != nil {
			errs = append(errs, server.Close())
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, drains, and returns nil after a clean end.
func (a *App) Run(ctx context.Context) error { return lifecycle.Run(ctx, a.service) }

// Addrs returns where the API, health and metrics are served.
func (a *App) Addrs() (api, healthz, metricsz string) {
	return a.api.Addr(), a.health.Addr(), a.metrics.Addr()
}
