package app

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/cors"

	"kubernaut.ai/e2e/docker/gateway/httpapi"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/target"
	"kubernaut.ai/e2e/docker/internal/config"
)

// Config is what the configuration file says. It does not change after loadConfig.
type Config struct {
	Server      ServerConfig      `yaml:"server"`
	CORS        CORSConfig        `yaml:"cors"`
	DataStorage DataStorageConfig `yaml:"datastorage"`
	Auth        AuthConfig        `yaml:"auth"`
	Targets     target.Rules      `yaml:"targets"`  // which object an alert is about, beside the built-in table
	Clusters    target.Clusters   `yaml:"clusters"` // whose signals are taken
	Logging     LoggingConfig     `yaml:"logging"`
}

// ServerConfig is about the listeners.
type ServerConfig struct {
	ListenAddr            string        `yaml:"listenAddr"`            // the API; host:port, default :8080
	HealthAddr            string        `yaml:"healthAddr"`            // default :8081
	MetricsAddr           string        `yaml:"metricsAddr"`           // default :9090
	MaxConcurrentRequests int           `yaml:"maxConcurrentRequests"` // worked on at once, default 100; more are told to come back
	BodyMemory            int64         `yaml:"bodyMemory"`            // bytes of memory that bodies may take with what is made of them; default half of GOMEMLIMIT, 128 MiB without
	ReadTimeout           time.Duration `yaml:"readTimeout"`           // of a whole request, default 10s
	WriteTimeout          time.Duration `yaml:"writeTimeout"`          // from the end of the headers to that of the answer, default 30s
	IdleTimeout           time.Duration `yaml:"idleTimeout"`           // of a connection between requests, default 2m
	K8sRequestTimeout     time.Duration `yaml:"k8sRequestTimeout"`     // of the work on one request, default 15s
	K8sRetryAfter         time.Duration `yaml:"k8sRetryAfter"`         // for which an API server that does not answer is left alone, default 5s
	DrainDelay            time.Duration `yaml:"drainDelay"`            // from not being ready to not accepting, default 5s; ten seconds more while callers keep coming
	TLS                   TLSConfig     `yaml:"tls"`                   // of the API; none when empty
}

// TLSConfig names PEM files. They are read again when they change.
type TLSConfig struct {
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// CORSConfig says what browsers may do. Without an allowed origin there is no CORS.
type CORSConfig struct {
	AllowedOrigins   []string      `yaml:"allowedOrigins"`
	AllowedMethods   []string      `yaml:"allowedMethods"` // default POST
	AllowedHeaders   []string      `yaml:"allowedHeaders"` // default Authorization, Content-Type, X-Timestamp
	ExposedHeaders   []string      `yaml:"exposedHeaders"` // default X-Request-ID, Retry-After
	AllowCredentials bool          `yaml:"allowCredentials"`
	MaxAge           time.Duration `yaml:"maxAge"` // of a preflight answer, default 5m
}

// DataStorageConfig says where audit events go.
type DataStorageConfig struct {
	URL       string        `yaml:"url"`       // required
	HealthURL string        `yaml:"healthUrl"` // default url + /readyz
	Timeout   time.Duration `yaml:"timeout"`   // of one write, default 5s
	TokenFile string        `yaml:"tokenFile"` // a ServiceAccount token for DataStorage's audience; none is sent when empty
	CAFile    string        `yaml:"caFile"`    // PEM; the built-in roots when empty
	Buffer    BufferConfig  `yaml:"buffer"`
}

// BufferConfig bounds the audit events that wait.
type BufferConfig struct {
	Size          int           `yaml:"size"`          // events, default 10000
	BatchSize     int           `yaml:"batchSize"`     // events in one write, default 100
	FlushInterval time.Duration `yaml:"flushInterval"` // longest wait for a batch to fill, default 1s
	Dir           string        `yaml:"dir"`           // where they outlive the process; memory only when empty
}

// AuthConfig is about tokens and remembered access decisions.
type AuthConfig struct {
	Audience      string        `yaml:"audience"`      // that senders' tokens must be for, default gateway-service
	AllowCacheTTL time.Duration `yaml:"allowCacheTTL"` // default 10s
	DenyCacheTTL  time.Duration `yaml:"denyCacheTTL"`  // default 2s
}

// LoggingConfig is about the log.
type LoggingConfig struct {
	Level string `yaml:"level"` // debug, info (default), warn or error
}

const (
	// maxBatchSize is what DataStorage takes at once.
	maxBatchSize = 500
	// maxDrainDelay fits a grace period of 60 s: ten seconds more are served at most, and
	// the requests in hand, the tasks and the audit events have 15 s each.
	maxDrainDelay = 5 * time.Second
	// maxCORSAge is what browsers remember an answer for at most.
	maxCORSAge = 24 * time.Hour
)

// defaultConfig returns what a file that says nothing means.
func defaultConfig() Config {
	return Config{
		Server: ServerConfig{
			ListenAddr: ":8080", HealthAddr: ":8081", MetricsAddr: ":9090",
			MaxConcurrentRequests: 100,
			BodyMemory:            defaultBodyMemory(),
			ReadTimeout:           10 * time.Second,
			WriteTimeout:          30 * time.Second,
			IdleTimeout:           2 * time.Minute,
			K8sRequestTimeout:     15 * time.Second,
			K8sRetryAfter:         kube.OpenFor,
			DrainDelay:            5 * time.Second,
		},
		CORS: CORSConfig{
			AllowedMethods: []string{"POST"},
			AllowedHeaders: []string{"Authorization", "Content-Type", "X-Timestamp"},
			ExposedHeaders: []string{"X-Request-ID", "Retry-After"},
			MaxAge:         5 * time.Minute,
		},
		DataStorage: DataStorageConfig{
			Timeout: 5 * time.Second,
			Buffer:  BufferConfig{Size: 10_000, BatchSize: 100, FlushInterval: time.Second},
		},
		Auth:     AuthConfig{Audience: serviceName, AllowCacheTTL: 10 * time.Second, DenyCacheTTL: 2 * time.Second},
		Targets:  target.DefaultRules(),
		Clusters: target.DefaultClusters(),
		Logging:  LoggingConfig{Level: "info"},
	}
}

// defaultBodyMemory is half of what Go may use; the audit buffer, what is remembered and
// Go itself need the rest.
func defaultBodyMemory() int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // -1 only asks
		return limit / 2
	}
	return 128 << 20
}

// loadConfig reads the file over the defaults and refuses what cannot work, telling
// all of it at once.
func loadConfig(path string) (Config, error) {
	cfg := defaultConfig()
	if err := config.Load(path, &cfg); err != nil {
		return Config{}, err
	}
	if cfg.DataStorage.HealthURL == "" && cfg.DataStorage.URL != "" {
		if health, err := url.JoinPath(cfg.DataStorage.URL, "readyz"); err == nil {
			cfg.DataStorage.HealthURL = health
		}
	}
	if err := cfg.validate(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// validate returns every problem of the configuration in one error.
func (c Config) validate() error {
	var p config.Problems
	s := c.Server
	addresses := map[string]string{}
	for _, listener := range []struct{ field, addr string }{
		{"server.listenAddr", s.ListenAddr}, {"server.healthAddr", s.HealthAddr}, {"server.metricsAddr", s.MetricsAddr},
	} {
		_, port, err := net.SplitHostPort(listener.addr)
		number, notNumber := strconv.ParseUint(port, 10, 16)
		p.Check(err == nil && notNumber == nil, listener.field, listener.addr, "host:port, such as :8080, with a port of at most 65535")
		other, taken := addresses[listener.addr]
		p.Check(!taken || number == 0, listener.field, listener.addr, "another address than that of "+other)
		addresses[listener.addr] = listener.field
	}
	p.Check(s.MaxConcurrentRequests > 0, "server.maxConcurrentRequests", s.MaxConcurrentRequests, "at least 1")
	p.Check(s.BodyMemory >= httpapi.MinBodyMemory, "server.bodyMemory", s.BodyMemory,
		fmt.Sprintf("at least %d, or the largest body (%d bytes) could not be taken", httpapi.MinBodyMemory, httpapi.MaxBodyBytes))
	for _, d := range []struct {
		field string
		value time.Duration
		most  time.Duration
		why   string
	}{
		{"server.readTimeout", s.ReadTimeout, time.Minute, "a slow body keeps its room for so long"},
		{"server.writeTimeout", s.WriteTimeout, 2 * time.Minute, "no sender waits longer"},
		{"server.idleTimeout", s.IdleTimeout, time.Hour, "a connection nobody uses is kept for so long"},
		{"server.k8sRequestTimeout", s.K8sRequestTimeout, time.Minute, "no sender waits longer"},
		{"server.k8sRetryAfter", s.K8sRetryAfter, time.Minute, "signals are refused for so long"},
		{"datastorage.timeout", c.DataStorage.Timeout, time.Minute, "events wait behind one write for so long"},
		{"datastorage.buffer.flushInterval", c.DataStorage.Buffer.FlushInterval, time.Minute, "events are not in the trail for so long"},
		{"auth.allowCacheTTL", c.Auth.AllowCacheTTL, 5 * time.Minute, "a permission that was taken away works for so long"},
		{"auth.denyCacheTTL", c.Auth.DenyCacheTTL, time.Minute, "a permission that was given does not work for so long"},
	} {
		p.Check(d.value > 0 && d.value <= d.most, d.field, d.value, fmt.Sprintf("more than 0s and at most %s: %s", d.most, d.why))
	}
	p.Check(s.DrainDelay >= 0 && s.DrainDelay <= maxDrainDelay, "server.drainDelay", s.DrainDelay,
		fmt.Sprintf("0s to %s: up to ten seconds more are served, which has to fit the pod's grace period", maxDrainDelay))
	p.Check(c.Auth.Audience != "", "auth.audience", c.Auth.Audience, "what senders' tokens are for, such as "+serviceName)
	p.Check(s.K8sRequestTimeout < s.WriteTimeout, "server.k8sRequestTimeout", s.K8sRequestTimeout,
		"less than server.writeTimeout ("+s.WriteTimeout.String()+"), or its 504 could not be written")
	p.Check((s.TLS.CertFile == "") == (s.TLS.KeyFile == ""), "server.tls", nil, "certFile and keyFile together, or neither")
	anybody := slices.ContainsFunc(c.CORS.AllowedOrigins, func(origin string) bool { return strings.Contains(origin, "*") })
	p.Check(!c.CORS.AllowCredentials || !anybody, "cors.allowCredentials", true,
		"false when an origin in cors.allowedOrigins holds *: sites that nobody has named could use their visitors' credentials")
	p.Check(c.CORS.MaxAge >= 0 && c.CORS.MaxAge <= maxCORSAge, "cors.maxAge", c.CORS.MaxAge, fmt.Sprintf("0s to %s", maxCORSAge))
	checkURL(&p, "datastorage.url", c.DataStorage.URL)
	if c.DataStorage.HealthURL != "" {
		checkURL(&p, "datastorage.healthUrl", c.DataStorage.HealthURL)
	}
	p.Check(c.DataStorage.TokenFile == "" || private(c.DataStorage.URL), "datastorage.url", c.DataStorage.URL,
		"an https URL, or one of this host: datastorage.tokenFile would be sent in clear text")
	b := c.DataStorage.Buffer
	p.Check(b.Size > 0, "datastorage.buffer.size", b.Size, "at least 1")
	p.Check(b.BatchSize > 0 && b.BatchSize <= min(b.Size, maxBatchSize), "datastorage.buffer.batchSize", b.BatchSize,
		"1 to 500, and not more than datastorage.buffer.size")
	c.Targets.Check(&p, "targets")
	c.Clusters.Check(&p, "clusters")
	p.Check(c.Logging.valid(), "logging.level", c.Logging.Level, "debug, info, warn or error")
	return p.Err()
}

// checkURL records a problem unless text is a URL that can be called.
func checkURL(p *config.Problems, field, text string) {
	u, err := url.Parse(text)
	p.Check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil,
		field, text, "an http or https URL, such as https://data-storage-service:8080")
}

// private reports whether nobody on the network reads what is sent to a URL.
func private(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "https" {
		return true // what is no URL is told by checkURL
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// valid reports whether the level has one of the names that level knows.
func (l LoggingConfig) valid() bool {
	return slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level)
}

// level returns the slog level of that name.
func (l LoggingConfig) level() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // validate let only known names pass
	return level
}

// options returns what the CORS middleware needs, or nil without an allowed origin:
// the middleware takes an empty list for all of them.
func (c CORSConfig) options() *cors.Options {
	if len(c.AllowedOrigins) == 0 {
		return nil
	}
	return &cors.Options{
		AllowedOrigins:   c.AllowedOrigins,
		AllowedMethods:   c.AllowedMethods,
		AllowedHeaders:   c.AllowedHeaders,
		ExposedHeaders:   c.ExposedHeaders,
		AllowCredentials: c.AllowCredentials,
		MaxAge:           int(c.MaxAge / time.Second),
	}
}
