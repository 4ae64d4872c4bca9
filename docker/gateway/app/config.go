package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/go-chi/cors"

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
	MaxConcurrentRequests int           `yaml:"maxConcurrentRequests"` // default 100; more get 429
	ReadTimeout           time.Duration `yaml:"readTimeout"`           // of a whole request, default 10s
	WriteTimeout          time.Duration `yaml:"writeTimeout"`          // from the end of the headers to that of the answer, default 30s
	IdleTimeout           time.Duration `yaml:"idleTimeout"`           // of a connection between requests, default 2m
	K8sRequestTimeout     time.Duration `yaml:"k8sRequestTimeout"`     // of the work on one request, default 15s
	DrainDelay            time.Duration `yaml:"drainDelay"`            // from not being ready to not accepting, default 5s; twice that more while callers keep coming
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
	CAFile    string        `yaml:"caFile"`    // PEM; the built-in roots when empty
	Buffer    BufferConfig  `yaml:"buffer"`
}

// BufferConfig bounds the audit events that wait.
type BufferConfig struct {
	Size          int           `yaml:"size"`          // events, default 10000
	BatchSize     int           `yaml:"batchSize"`     // events in one write, default 100
	FlushInterval time.Duration `yaml:"flushInterval"` // longest wait for a batch to fill, default 1s
}

// AuthConfig is about remembered access decisions.
type AuthConfig struct {
	AllowCacheTTL time.Duration `yaml:"allowCacheTTL"` // default 10s
	DenyCacheTTL  time.Duration `yaml:"denyCacheTTL"`  // default 2s
}

// LoggingConfig is about the log.
type LoggingConfig struct {
	Level string `yaml:"level"` // debug, info (default), warn or error
}

// maxBatchSize is what DataStorage takes at once.
const maxBatchSize = 500

// defaultConfig returns what a file that says nothing means.
func defaultConfig() Config {
	return Config{
		Server: ServerConfig{
			ListenAddr: ":8080", HealthAddr: ":8081", MetricsAddr: ":9090",
			MaxConcurrentRequests: 100,
			ReadTimeout:           10 * time.Second,
			WriteTimeout:          30 * time.Second,
			IdleTimeout:           2 * time.Minute,
			K8sRequestTimeout:     15 * time.Second,
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
		Auth:     AuthConfig{AllowCacheTTL: 10 * time.Second, DenyCacheTTL: 2 * time.Second},
		Targets:  target.DefaultRules(),
		Clusters: target.DefaultClusters(),
		Logging:  LoggingConfig{Level: "info"},
	}
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
		p.Check(err == nil && port != "", listener.field, listener.addr, "host:port, such as :8080")
		other, taken := addresses[listener.addr]
		p.Check(!taken || port == "0", listener.field, listener.addr, "another address than that of "+other)
		addresses[listener.addr] = listener.field
	}
	p.Check(s.MaxConcurrentRequests > 0, "server.maxConcurrentRequests", s.MaxConcurrentRequests, "at least 1")
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"server.readTimeout", s.ReadTimeout}, {"server.writeTimeout", s.WriteTimeout},
		{"server.idleTimeout", s.IdleTimeout}, {"server.k8sRequestTimeout", s.K8sRequestTimeout},
		{"datastorage.timeout", c.DataStorage.Timeout}, {"datastorage.buffer.flushInterval", c.DataStorage.Buffer.FlushInterval},
		{"auth.allowCacheTTL", c.Auth.AllowCacheTTL}, {"auth.denyCacheTTL", c.Auth.DenyCacheTTL},
	} {
		p.Check(d.value > 0, d.field, d.value, "more than 0s")
	}
	p.Check(s.DrainDelay >= 0, "server.drainDelay", s.DrainDelay, "0s or more")
	p.Check(s.K8sRequestTimeout < s.WriteTimeout, "server.k8sRequestTimeout", s.K8sRequestTimeout,
		"less than server.writeTimeout ("+s.WriteTimeout.String()+"), or its 504 could not be written")
	p.Check((s.TLS.CertFile == "") == (s.TLS.KeyFile == ""), "server.tls", nil, "certFile and keyFile together, or neither")
	p.Check(!c.CORS.AllowCredentials || !slices.Contains(c.CORS.AllowedOrigins, "*"), "cors.allowCredentials", true,
		"false when cors.allowedOrigins holds *: every site could use its visitors' credentials")
	p.Check(c.CORS.MaxAge >= 0, "cors.maxAge", c.CORS.MaxAge, "0s or more")
	checkURL(&p, "datastorage.url", c.DataStorage.URL)
	if c.DataStorage.HealthURL != "" {
		checkURL(&p, "datastorage.healthUrl", c.DataStorage.HealthURL)
	}
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
