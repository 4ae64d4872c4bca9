package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write puts a configuration into a file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	cfg, err := loadConfig(write(t, "datastorage: {url: 'https://data-storage-service:8080'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Server.ListenAddr != ":8080" || cfg.Server.MaxConcurrentRequests != 100 || cfg.Server.K8sRequestTimeout != 15*time.Second ||
		cfg.Server.DrainDelay != 5*time.Second || cfg.DataStorage.Buffer.Size != 10_000 || cfg.Auth.DenyCacheTTL != 2*time.Second {
		t.Errorf("got %+v", cfg)
	}
	if cfg.DataStorage.HealthURL != "https://data-storage-service:8080/readyz" {
		t.Errorf("got health URL %s", cfg.DataStorage.HealthURL)
	}
	if cfg.Logging.level() != slog.LevelInfo || cfg.CORS.options() != nil {
		t.Errorf("got level %s, CORS %+v", cfg.Logging.level(), cfg.CORS.options())
	}
}

func TestWhatIsWrittenWins(t *testing.T) {
	cfg, err := loadConfig(write(t, `
server:
  listenAddr: 127.0.0.1:0
  healthAddr: 127.0.0.1:0
  metricsAddr: 127.0.0.1:0
  drainDelay: 0s
cors:
  allowedOrigins: ["https://ui.example"]
  maxAge: 1m
datastorage:
  url: http://127.0.0.1:1
  healthUrl: http://127.0.0.1:2/readyz
logging: {level: debug}
`))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Server.DrainDelay != 0 || cfg.DataStorage.HealthURL != "http://127.0.0.1:2/readyz" || cfg.Logging.level() != slog.LevelDebug {
		t.Errorf("got %+v", cfg)
	}
	if o := cfg.CORS.options(); o == nil || o.MaxAge != 60 || o.AllowedMethods[0] != "POST" {
		t.Errorf("got CORS %+v", o)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing at all":            {"", `datastorage.url: "" not allowed; allowed: an http or https URL`},
		"an unknown key":            {"server: {port: 1}", "server.port: not allowed; allowed: only"},
		"a bad duration":            {"server: {readTimeout: 5}", `server.readTimeout: "5" not allowed`},
		"no time to answer":         {"server: {k8sRequestTimeout: 30s}", "server.k8sRequestTimeout: 30s not allowed; allowed: less than server.writeTimeout (30s)"},
		"no time at all":            {"server: {k8sRequestTimeout: 0s}", "server.k8sRequestTimeout: 0s not allowed; allowed: more than 0s"},
		"a negative drain":          {"server: {drainDelay: -1s}", "server.drainDelay: -1s not allowed"},
		"no requests":               {"server: {maxConcurrentRequests: 0}", "server.maxConcurrentRequests: 0 not allowed; allowed: at least 1"},
		"an address without a port": {"server: {healthAddr: localhost}", `server.healthAddr: "localhost" not allowed; allowed: host:port`},
		"one address for two":       {"server: {metricsAddr: ':8081'}", `server.metricsAddr: ":8081" not allowed; allowed: another address than that of server.healthAddr`},
		"half a certificate":        {"server: {tls: {certFile: /tls.crt}}", "server.tls: not allowed; allowed: certFile and keyFile together"},
		"credentials for everybody": {"cors: {allowedOrigins: ['*'], allowCredentials: true}", "cors.allowCredentials: true not allowed"},
		"another protocol":          {"datastorage: {url: 'ftp://x'}", `datastorage.url: "ftp://x" not allowed`},
		"a health URL without host": {"datastorage: {healthUrl: '/readyz'}", `datastorage.healthUrl: "/readyz" not allowed`},
		"a batch above the buffer":  {"datastorage: {buffer: {size: 10, batchSize: 11}}", "datastorage.buffer.batchSize: 11 not allowed"},
		"a batch above DataStorage": {"datastorage: {buffer: {batchSize: 501}}", "datastorage.buffer.batchSize: 501 not allowed; allowed: 1 to 500"},
		"a port beyond the last":    {"server: {listenAddr: ':65536'}", `server.listenAddr: ":65536" not allowed`},
		"a port that is a word":     {"server: {listenAddr: ':http'}", `server.listenAddr: ":http" not allowed`},
		"credentials for many":      {"cors: {allowedOrigins: ['https://*.example'], allowCredentials: true}", "cors.allowCredentials: true not allowed"},
		"answers for ever":          {"cors: {maxAge: 48h}", "cors.maxAge: 48h0m0s not allowed"},
		"a write that takes hours":  {"datastorage: {timeout: 1h}", "datastorage.timeout: 1h0m0s not allowed; allowed: more than 0s and at most 1m0s"},
		"a drain of an hour":        {"server: {drainDelay: 1h}", "server.drainDelay: 1h0m0s not allowed; allowed: 0s to 5s"},
		"a decision for a year":     {"auth: {allowCacheTTL: 8760h}", "auth.allowCacheTTL: 8760h0m0s not allowed"},
		"a token in clear text":     {"datastorage: {url: 'http://data-storage-service:8080', tokenFile: /token}", "datastorage.tokenFile would be sent in clear text"},
		"no audience":               {"auth: {audience: ''}", `auth.audience: "" not allowed`},
		"no room for a body":        {"server: {bodyMemory: 1000}", "server.bodyMemory: 1000 not allowed"},
		"a decision for ever":       {"auth: {allowCacheTTL: 0s}", "auth.allowCacheTTL: 0s not allowed"},
		"a level that is not one":   {"logging: {level: loud}", `logging.level: "loud" not allowed; allowed: debug, info, warn or error`},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.text)
			_, err := loadConfig(path)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestEveryProblemIsTold(t *testing.T) {
	_, err := loadConfig(write(t, "server: {maxConcurrentRequests: 0}\nlogging: {level: loud}\n"))
	for _, want := range []string{"server.maxConcurrentRequests", "logging.level", "datastorage.url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

// TestManifest holds the configurations that are deployed to what is allowed.
func TestManifest(t *testing.T) {
	for cluster, delay := range map[string]time.Duration{"base": 5 * time.Second, "kind": time.Second} {
		cfg, err := loadConfig("../../../manifests/gateway/" + cluster + "/config.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Server.DrainDelay != delay || cfg.Server.ListenAddr != ":8080" {
			t.Errorf("%s: got %+v", cluster, cfg.Server)
		}
	}
}
