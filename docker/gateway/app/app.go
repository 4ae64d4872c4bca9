// Package app puts the Gateway together and runs it.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/audit"
	"kubernaut.ai/e2e/docker/gateway/httpapi"
	"kubernaut.ai/e2e/docker/gateway/intake"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/kubernetesevent"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/prometheus"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/scope"
	"kubernaut.ai/e2e/docker/gateway/target"
	"kubernaut.ai/e2e/docker/internal/access"
	"kubernaut.ai/e2e/docker/internal/health"
	"kubernaut.ai/e2e/docker/internal/lifecycle"
	"kubernaut.ai/e2e/docker/internal/ops"
	"kubernaut.ai/e2e/docker/internal/reload"
)

// serviceName is the Service that a sender must be allowed to create on.
const serviceName = "gateway-service"

// shutdownTimeout bounds each part of the end: the requests in hand, and above all
// the audit events that still wait, which a busy DataStorage takes its time for.
const shutdownTimeout = 15 * time.Second

// reportsTimeout is how much of that is left to work whose senders have gone: a write
// that the API server does not answer must not take the time of the audit events.
const reportsTimeout = shutdownTimeout / 3

// opsTimeout bounds requests for health and metrics.
const opsTimeout = 10 * time.Second

// Options is what the process gives to the Gateway.
type Options struct {
	ConfigFile string
	Namespace  string // the Gateway's own: POD_NAMESPACE
	Pod        string // the pod's name for the log: POD_NAME; may be empty
	Log        io.Writer
	Cluster    *rest.Config // nil for the cluster that the process runs in
}

// App is a Gateway that is bound to its ports. It is run once.
type App struct {
	api, health, metrics *lifecycle.Server
	service              lifecycle.Service
}

// APIAddr returns the address of the API.
func (a *App) APIAddr() string { return a.api.Addr() }

// HealthAddr returns the address of /healthz and /readyz.
func (a *App) HealthAddr() string { return a.health.Addr() }

// MetricsAddr returns the address of /metrics.
func (a *App) MetricsAddr() string { return a.metrics.Addr() }

// Run runs a Gateway until ctx ends. It returns nil after a clean end.
func Run(ctx context.Context, opts Options) error {
	a, err := New(opts)
	if err != nil {
		return err
	}
	// client-go and controller-runtime write through these, of which a process has one.
	klog.SetSlogLogger(a.service.Log)
	ctrllog.SetLogger(logr.FromSlogHandler(a.service.Log.Handler()))
	return a.Run(ctx)
}

// Run serves until ctx ends, then drains. It returns nil after a clean end.
func (a *App) Run(ctx context.Context) error { return lifecycle.Run(ctx, a.service) }

// New reads the configuration, puts the parts together and binds the ports. It calls
// nobody: a cluster or DataStorage that is not there yet shows in /readyz.
func New(opts Options) (*App, error) {
	if opts.Namespace == "" {
		return nil, errors.New("POD_NAMESPACE: not set; allowed: the namespace that the Gateway runs in")
	}
	cfg, err := loadConfig(opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewJSONHandler(opts.Log, &slog.HandlerOptions{Level: cfg.Logging.level()}))
	if opts.Pod != "" {
		log = log.With("pod", opts.Pod)
	}
	cluster, err := connect(opts.Cluster)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return assemble(opts, cfg, log, cluster)
}

// cluster is what the Gateway calls the API server with.
type cluster struct {
	config   *rest.Config
	objects  client.WithWatch
	reviews  kubernetes.Interface
	metadata metadata.Interface
}

// connect makes the clients. They share their connections. Nothing limits their
// rate: the limit of requests does, and the API server's own fairness.
func connect(cfg *rest.Config) (cluster, error) {
	if cfg == nil {
		var err error
		if cfg, err = rest.InClusterConfig(); err != nil {
			return cluster{}, err
		}
	}
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), "gateway")
	cfg.QPS = -1
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return cluster{}, err
	}
	objects, err := kube.NewClient(cfg, httpClient)
	if err != nil {
		return cluster{}, err
	}
	reviews, err := kubernetes.NewForConfigAndClient(cfg, httpClient)
	if err != nil {
		return cluster{}, err
	}
	meta, err := metadata.NewForConfigAndClient(metadata.ConfigFor(cfg), httpClient)
	if err != nil {
		return cluster{}, err
	}
	return cluster{cfg, objects, reviews, meta}, nil
}

// dataStorageClients returns an HTTP client that sends the token for DataStorage, and one
// for probes, which need none. client-go reads the files again: the token's before it
// expires, the CA's every five minutes.
func dataStorageClients(cfg DataStorageConfig) (writes, probes *http.Client, err error) {
	trust := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: cfg.CAFile}, UserAgent: "gateway"}
	if probes, err = rest.HTTPClientFor(trust); err != nil {
		return nil, nil, fmt.Errorf("datastorage.caFile: %w", err)
	}
	known := rest.CopyConfig(trust)
	known.BearerTokenFile = cfg.TokenFile
	writes, err = rest.HTTPClientFor(known)
	return writes, probes, err
}

// assemble makes the parts, innermost first.
func assemble(opts Options, cfg Config, log *slog.Logger, cluster cluster) (*App, error) {
	set := metrics.New()
	writes, probes, err := dataStorageClients(cfg.DataStorage)
	if err != nil {
		return nil, err
	}
	store, err := audit.NewDataStorage(cfg.DataStorage.URL, writes, cfg.DataStorage.Timeout)
	if err != nil {
		return nil, err
	}
	buffer := cfg.DataStorage.Buffer
	trail, err := audit.NewTrail(audit.Options{
		Store: store, Log: log, Dropped: set.Dropped,
		Size: buffer.Size, BatchSize: buffer.BatchSize, FlushInterval: buffer.FlushInterval, Dir: buffer.Dir,
	})
	if err != nil {
		return nil, fmt.Errorf("datastorage.buffer.dir: %w", err)
	}
	guard := kube.NewGuard(cfg.Server.K8sRetryAfter, set.Breaker)
	objects := kube.Guarded(cluster.objects, guard)
	kinds := kube.NewKinds(cluster.reviews.Discovery().RESTClient(), cluster.metadata, guard)
	managed, err := scope.New(objects, cluster.metadata)
	if err != nil {
		return nil, err
	}
	timeout := cfg.Server.K8sRequestTimeout
	reviewer := access.New(access.Options{
		Client:     cluster.reviews,
		Attributes: authorizationv1.ResourceAttributes{Namespace: opts.Namespace, Resource: "services", Name: serviceName},
		Audience:   cfg.Auth.Audience,
		Issuer:     access.Issuer(cluster.config),
		AllowTTL:   cfg.Auth.AllowCacheTTL,
		DenyTTL:    cfg.Auth.DenyCacheTTL,
	})
	book := remediation.NewBook(objects, opts.Namespace, timeout)
	api := httpapi.New(httpapi.Options{
		Log:     log,
		Metrics: set,
		Intake: &intake.Intake{
			Owners: owner.NewResolver(objects, kinds, timeout), Scope: managed,
			Book: book, Trail: trail, Metrics: set,
		},
		Memory:        intake.NewMemory(),
		Alerts:        &prometheus.Parser{Targets: target.New(cfg.Targets), Clusters: cfg.Clusters},
		Events:        &kubernetesevent.Parser{Clusters: cfg.Clusters},
		Authenticate:  reviewer.Middleware(func(*http.Request) string { return "create" }),
		CORS:          cfg.CORS.options(),
		MaxConcurrent: cfg.Server.MaxConcurrentRequests,
		BodyMemory:    cfg.Server.BodyMemory,
		Timeout:       timeout,
		Now:           time.Now,
	})
	state := health.New(log,
		health.Check{
			Reason: "api_server_unreachable", Probe: probeCluster(cluster.objects, opts.Namespace),
			Refuses: func(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) },
		},
		health.Check{Reason: "datastorage_unreachable", Probe: probeDataStorage(probes, cfg.DataStorage.HealthURL)},
	)
	a := &App{}
	if err := a.bind(cfg.Server, log, api, state, set); err != nil {
		return nil, err
	}
	a.service = lifecycle.Service{
		Log:      log,
		NotReady: state.ShutDown,
		Servers:  []*lifecycle.Server{a.api},
		Ops:      []*lifecycle.Server{a.health, a.metrics},
		Tasks: []lifecycle.Task{
			{Name: "health", Run: state.Run},
			{Name: "namespaces", Run: func(ctx context.Context) error { managed.Run(ctx); return nil }},
			{Name: "audit", Run: trail.Run},
		},
		DrainDelay:      cfg.Server.DrainDelay,
		ShutdownTimeout: max(timeout, shutdownTimeout),
		// Work goes on when its sender has gone, and is audited at its end.
		Hooks: []lifecycle.Hook{
			{Name: "reports", Run: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, reportsTimeout)
				defer cancel()
				return book.Wait(ctx)
			}},
			{Name: "audit", Run: trail.Flush},
		},
	}
	return a, nil
}

// bind opens the ports, health first, and gives them back when one is taken.
func (a *App) bind(cfg ServerConfig, log *slog.Logger, api http.Handler, state *health.Health, set *metrics.Metrics) (err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, server := range []*lifecycle.Server{a.health, a.metrics, a.api} {
			if server != nil {
				err = errors.Join(err, server.Close())
			}
		}
	}()
	if a.health, err = lifecycle.Bind("health", cfg.HealthAddr, opsServer(ops.Handler(log, map[string]http.Handler{
		"/healthz": state.Handler(), "/readyz": state.Handler(), "/startupz": state.Handler(),
	})), log); err != nil {
		return err
	}
	if a.metrics, err = lifecycle.Bind("metrics", cfg.MetricsAddr, opsServer(ops.Handler(log, map[string]http.Handler{
		"/metrics": set.Handler(),
	})), log); err != nil {
		return err
	}
	server := &http.Server{
		Handler:      api,
		ReadTimeout:  cfg.ReadTimeout,
		WriteTimeout: cfg.WriteTimeout,
		IdleTimeout:  cfg.IdleTimeout,
	}
	if cfg.TLS.CertFile != "" {
		if server.TLSConfig, err = reload.TLS(cfg.TLS.CertFile, cfg.TLS.KeyFile); err != nil {
			return fmt.Errorf("server.tls: %w", err)
		}
	}
	a.api, err = lifecycle.Bind("api", cfg.ListenAddr, server, log)
	return err
}

// opsServer returns a server for probes and scrapes.
func opsServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadTimeout: opsTimeout, WriteTimeout: opsTimeout}
}

// probeCluster reads what every request has to read, past every cache: it fails
// without the API server, the resource definition, or the permission.
func probeCluster(c client.Client, namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		return c.List(ctx, &v1alpha1.RemediationRequestList{}, client.InNamespace(namespace), client.Limit(1))
	}
}

// probeDataStorage asks whether DataStorage is ready.
func probeDataStorage(c *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := c.Do(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		// Read to the end, so that the connection can be used again.
		if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<10)); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: status %d", url, answer.StatusCode)
		}
		return nil
	}
}
