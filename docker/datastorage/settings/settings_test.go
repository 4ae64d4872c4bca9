package settings

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/docker/internal/reload/reloadtest"
)

const valid = `
server: {drainDelay: 1s}
database: {host: postgresql, name: datastorage, user: datastorage}
redis: {addr: "redis:6379"}
checkpoints: {keyFile: /key}
logging: {level: warn}
`

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadFillsDefaults(t *testing.T) {
	s, err := Load(file(t, "config.yaml", valid))
	if err != nil {
		t.Fatal(err)
	}
	if s.Server.DrainDelay != time.Second || s.Server.ListenAddr != ":8080" || s.Server.MaxBodyBytes != 5<<20 || s.Database.Port != 5432 || s.Logging.Level != slog.LevelWarn {
		t.Errorf("got %+v", s)
	}
}

func TestAClientOfRedisIsMadeWithoutAskingAnybody(t *testing.T) {
	resolver := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = resolver })
	asked := false
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		asked = true
		return nil, errors.New("no name server")
	}}
	client, err := Redis{Addr: "redis.elsewhere:6379", PasswordFile: file(t, "password", "secret"), Timeout: time.Second}.Client()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil || asked {
		t.Errorf("got %v; a name server was asked: %t", err, asked)
	}
}

// TestManifest holds the configurations that are deployed to what is allowed.
func TestManifest(t *testing.T) {
	for cluster, delay := range map[string]time.Duration{"base": 5 * time.Second, "kind": 200 * time.Millisecond} {
		s, err := Load("../../../manifests/datastorage/" + cluster + "/config.yaml")
		if err != nil || s.Server.DrainDelay != delay {
			t.Errorf("%s: got %+v, %v", cluster, s.Server, err)
		}
	}
	if _, err := LoadDatabase("../../../manifests/migrations/base/config.yaml"); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":              {"server: {listen: x}", "server.listen: not allowed; allowed: only"},
		"a password in the file":      {"database: {password: x}", "database.password: not allowed"},
		"a bad duration":              {"database: {timeout: 5}", `database.timeout: "5" not allowed; allowed: a duration`},
		"no database":                 {"redis: {addr: 'r:1'}", `database.host: "" not allowed; allowed: a name`},
		"no Redis":                    {"database: {host: x}", `redis.addr: "" not allowed; allowed: host:port`},
		"an address without a port":   {"server: {listenAddr: localhost}", `server.listenAddr: "localhost" not allowed`},
		"no time to answer":           {"server: {requestTimeout: 20s, writeTimeout: 20s}", "server.requestTimeout: 20s not allowed; allowed: less than server.writeTimeout (20s)"},
		"no time for both stores":     {"server: {requestTimeout: 3s}", "server.requestTimeout: 3s not allowed; allowed: more than database.timeout and redis.timeout together (4s)"},
		"half of TLS":                 {"server: {tls: {certFile: x}}", "server.tls: not allowed; allowed: certFile and keyFile together"},
		"no more time for the drain":  {"database: {drainTimeout: 3s}", "database.drainTimeout: 3s not allowed; allowed: more than database.timeout (3s)"},
		"no time for a page":          {"server: {requestTimeout: 5s}", "server.requestTimeout: 5s not allowed; allowed: more than database.readTimeout (5s)"},
		"more than fits into the pod": {"server: {maxBodyBytes: 16777216}", "server.maxBodyBytes: 16777216 not allowed"},
		"half of an account":          {"database: {server: {user: x}}", "database.server: not allowed; allowed: user and passwordFile together"},
		"the owner as the server":     {"database: {user: x, server: {user: x, passwordFile: f}}", `database.server.user: "x" not allowed; allowed: another role`},
		"an unknown mode":             {"database: {sslMode: maybe}", `database.sslMode: "maybe" not allowed`},
		"a CA that is not asked":      {"database: {sslMode: require, caFile: f}", "database.caFile: \"f\" not allowed; allowed: only with database.sslMode verify-full"},
		"an unknown level":            {"logging: {level: loud}", `logging.level: "loud" not allowed; allowed: debug, info, warn or error`},
		"a negative delay":            {"server: {drainDelay: -1s}", "server.drainDelay: -1s not allowed"},
		"no key":                      {"redis: {addr: 'r:1'}", `checkpoints.keyFile: "" not allowed; allowed: a file`},
		"no interval":                 {"checkpoints: {interval: 0s}", "checkpoints.interval: 0s not allowed"},
		"no memory of what was asked": {"auth: {allowCacheTTL: 0s}", "auth.allowCacheTTL: 0s not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(file(t, "config.yaml", c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := Load(""); err == nil || !strings.Contains(err.Error(), "CONFIG_PATH") {
		t.Errorf("no path: got %v", err)
	}
}

func TestLoadDatabaseNeedsNoMore(t *testing.T) {
	if _, err := LoadDatabase(file(t, "config.yaml", "database: {host: h, name: n, user: u}")); err != nil {
		t.Error(err)
	}
	if _, err := LoadDatabase(file(t, "config.yaml", "database: {host: h}")); err == nil || !strings.Contains(err.Error(), "database.user") {
		t.Errorf("got %v", err)
	}
}

func TestPoolReadsThePasswordAndQuotes(t *testing.T) {
	d := Default().Database
	d.Host, d.Name, d.User = "postgresql", `odd ' \ name`, "user name"
	d.PasswordFile = file(t, "password", "s3cret'\n")
	pool, err := d.Pool()
	if err != nil {
		t.Fatal(err)
	}
	c := pool.ConnConfig
	if c.Host != "postgresql" || c.Database != `odd ' \ name` || c.User != "user name" || c.Password != "s3cret'" {
		t.Errorf("got %s %s %s", c.Host, c.Database, c.User)
	}
	d.PasswordFile = filepath.Join(t.TempDir(), "missing")
	if _, err := d.Pool(); err == nil || !strings.Contains(err.Error(), "database.passwordFile: open ") {
		t.Errorf("got %v", err)
	}
}

func TestAKeyIsLongEnough(t *testing.T) {
	if key, err := (Checkpoints{KeyFile: file(t, "key", strings.Repeat("k", 32)+"\n")}).Key(); err != nil || len(key) != 32 {
		t.Errorf("got %d bytes, %v", len(key), err)
	}
	for _, path := range []string{file(t, "key", "secret"), filepath.Join(t.TempDir(), "missing")} {
		if _, err := (Checkpoints{KeyFile: path}).Key(); err == nil || !strings.Contains(err.Error(), "checkpoints.keyFile: ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
}

func TestClientReadsThePassword(t *testing.T) {
	r := Default().Redis
	r.Addr, r.PasswordFile = "redis:6379", file(t, "password", "s3cret\r\n")
	client, err := r.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.Options().Password != "s3cret" {
		t.Error("got another password")
	}
}

func TestTLSNamesTheFile(t *testing.T) {
	if c, err := (TLS{}).Config(); c != nil || err != nil {
		t.Errorf("without files: got %v, %v", c, err)
	}
	if _, err := (TLS{CertFile: "/nowhere/tls.crt", KeyFile: "/nowhere/tls.key"}).Config(); err == nil || !strings.Contains(err.Error(), "server.tls: open /nowhere/tls.crt") {
		t.Errorf("got %v", err)
	}
}

// TestARenewedPasswordIsUsed: for connections that are made after it was renewed.
func TestARenewedPasswordIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := file(t, "password", "old")
		d, r := Default().Database, Default().Redis
		// An address, because a client looks a name up, which cannot be done in a bubble.
		d.Host, d.Name, d.User, d.PasswordFile, r.Addr, r.PasswordFile = "127.0.0.1", "a", "u", path, "127.0.0.1:6379", path
		pool, err := d.Pool()
		if err != nil {
			t.Fatal(err)
		}
		client, err := r.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, want := range []string{"old", "new"} {
			if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Minute)
			if err := pool.BeforeConnect(t.Context(), pool.ConnConfig); err != nil || pool.ConnConfig.Password != want {
				t.Errorf("PostgreSQL: got %q, %v, want %q", pool.ConnConfig.Password, err, want)
			}
			if _, got, err := client.Options().CredentialsProviderContext(t.Context()); err != nil || got != want {
				t.Errorf("Redis: got %q, %v, want %q", got, err, want)
			}
		}
	})
}

// TestARenewedAuthorityIsTrusted: for connections that are made after it was renewed, and
// no other authority is.
func TestARenewedAuthorityIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	addr := server.Listener.Addr().String()
	own := server.Certificate().Raw
	synctest.Test(t, func(t *testing.T) {
		d, r := Default().Database, Default().Redis
		d.Host, d.Name, d.User, d.SSLMode, d.CAFile = "127.0.0.1", "a", "u", "verify-full", file(t, "ca.crt", "")
		r.Addr, r.CAFile = addr, d.CAFile
		if _, err := d.Pool(); err == nil || !strings.Contains(err.Error(), "database.caFile: ") {
			t.Errorf("PostgreSQL, no certificate: got %v", err)
		}
		if _, err := r.Client(); err == nil || !strings.Contains(err.Error(), "redis.caFile: ") {
			t.Errorf("Redis, no certificate: got %v", err)
		}
		reloadtest.Trust(t, d.CAFile, reloadtest.Foreign(t))
		pool, err := d.Pool()
		if err != nil {
			t.Fatal(err)
		}
		client, err := r.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		postgres := func() error {
			config := pool.ConnConfig.Copy()
			if err := pool.BeforeConnect(t.Context(), config); err != nil {
				return err
			}
			return closed((&tls.Dialer{Config: config.TLSConfig}).DialContext(t.Context(), "tcp", addr))
		}
		redis := func() error { return closed(client.Options().Dialer(t.Context(), "tcp", addr)) }
		for name, dial := range map[string]func() error{"PostgreSQL": postgres, "Redis": redis} {
			if err := dial(); !errors.As(err, new(x509.UnknownAuthorityError)) {
				t.Errorf("%s with a foreign CA: got %v", name, err)
			}
		}
		reloadtest.Trust(t, d.CAFile, own)
		<-time.After(time.Minute)
		for name, dial := range map[string]func() error{"PostgreSQL": postgres, "Redis": redis} {
			if err := dial(); err != nil {
				t.Errorf("%s with the renewed CA: got %v", name, err)
			}
		}
	})
}

func closed(conn net.Conn, err error) error {
	if err != nil {
		return err
	}
	return conn.Close()
}
