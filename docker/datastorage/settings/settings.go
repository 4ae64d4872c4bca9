// Package settings is the configuration of the service: one YAML file, read and
// checked once.
package settings

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"kubernaut.ai/e2e/docker/internal/config"
	"kubernaut.ai/e2e/docker/internal/reload"
)

// Settings is the file. What it leaves out has the value of Default.
type Settings struct {
	Server      Server      `yaml:"server"`
	Database    Database    `yaml:"database"`
	Redis       Redis       `yaml:"redis"`
	Auth        Auth        `yaml:"auth"`
	Checkpoints Checkpoints `yaml:"checkpoints"`
	Logging     Logging     `yaml:"logging"`
}

// Server is what listens.
type Server struct {
	ListenAddr  string `yaml:"listenAddr"`  // of the API
	HealthAddr  string `yaml:"healthAddr"`  // of /healthz and /readyz
	MetricsAddr string `yaml:"metricsAddr"` // of /metrics

	ReadTimeout    time.Duration `yaml:"readTimeout"`    // of a whole request
	WriteTimeout   time.Duration `yaml:"writeTimeout"`   // from a request's headers to the end of its answer
	IdleTimeout    time.Duration `yaml:"idleTimeout"`    // of a connection without a request
	RequestTimeout time.Duration `yaml:"requestTimeout"` // ends the work on a request; less than WriteTimeout, so that there is an answer
	DrainDelay     time.Duration `yaml:"drainDelay"`     // serving goes on for this long after SIGTERM, and ten seconds more while callers keep coming
	MaxBodyBytes   int64         `yaml:"maxBodyBytes"`

	TLS TLS `yaml:"tls"`
}

// TLS serves the API over TLS when both files are named.
type TLS struct {
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// Database is PostgreSQL.
type Database struct {
	Host         string        `yaml:"host"`
	Port         uint16        `yaml:"port"`
	Name         string        `yaml:"name"`
	User         string        `yaml:"user"`
	PasswordFile string        `yaml:"passwordFile"` // "" for no password
	SSLMode      string        `yaml:"sslMode"`      // as in libpq
	CAFile       string        `yaml:"caFile"`       // PEM, whom to trust with verify-full; the built-in roots when empty
	Timeout      time.Duration `yaml:"timeout"`      // of a sender's write; one that takes longer goes to the queue
	DrainTimeout time.Duration `yaml:"drainTimeout"` // of a write from the queue; one that takes longer is set aside in the end
	ReadTimeout  time.Duration `yaml:"readTimeout"`  // of a page
	Server       Account       `yaml:"server"`       // what migrations let the server use; without a user they make none
}

// Account is a role of the database.
type Account struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"passwordFile"`
}

// Password reads the password's file.
func (a Account) Password() (string, error) {
	password, err := secret(a.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("database.server.passwordFile: %w", err)
	}
	return password, nil
}

// Redis holds the dead-letter queue.
type Redis struct {
	Addr         string        `yaml:"addr"`
	PasswordFile string        `yaml:"passwordFile"` // "" for no password
	CAFile       string        `yaml:"caFile"`       // PEM, whom to trust; "" for no TLS
	Timeout      time.Duration `yaml:"timeout"`      // of one call
}

// Auth is what tokens must be for, and how long access reviews are remembered.
type Auth struct {
	Audience      string        `yaml:"audience"` // default data-storage-service
	AllowCacheTTL time.Duration `yaml:"allowCacheTTL"`
	DenyCacheTTL  time.Duration `yaml:"denyCacheTTL"`
}

// Checkpoints of the audit trail are signed.
type Checkpoints struct {
	KeyFile  string        `yaml:"keyFile"`  // at least 32 bytes that the database never sees; with another key, nothing signed before can be verified
	Interval time.Duration `yaml:"interval"` // an event is signed after one or two of them; until then its removal is not found
}

// minKey is the shortest key, in bytes: as long as what HMAC-SHA-256 makes.
const minKey = 32

// Key reads the key's file.
func (c Checkpoints) Key() ([]byte, error) {
	key, err := secret(c.KeyFile)
	if err == nil && len(key) < minKey {
		err = fmt.Errorf("%s: %d bytes; a key has at least %d", c.KeyFile, len(key), minKey)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoints.keyFile: %w", err)
	}
	return []byte(key), nil
}

// Logging is how much is logged.
type Logging struct {
	Level slog.Level `yaml:"-"`
	Name  string     `yaml:"level"` // debug, info, warn or error
}

// Default returns the settings of a file that says nothing but who the database and
// Redis are.
func Default() Settings {
	return Settings{
		Server: Server{
			ListenAddr: ":8080", HealthAddr: ":8081", MetricsAddr: ":9090",
			ReadTimeout: 15 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 60 * time.Second,
			RequestTimeout: 15 * time.Second, DrainDelay: 5 * time.Second, MaxBodyBytes: 5 << 20,
		},
		// Three seconds are a hundred times what a write takes, and leave a sender
		// that waits five time for the queue.
		Database:    Database{Port: 5432, SSLMode: "prefer", Timeout: 3 * time.Second, DrainTimeout: 10 * time.Second, ReadTimeout: 5 * time.Second},
		Redis:       Redis{Timeout: time.Second},
		Auth:        Auth{Audience: "data-storage-service", AllowCacheTTL: 10 * time.Second, DenyCacheTTL: 2 * time.Second},
		Checkpoints: Checkpoints{Interval: 10 * time.Second},
		Logging:     Logging{Name: "info"},
	}
}

// Load reads the settings of the server from the file at path.
func Load(path string) (Settings, error) {
	s, err := read(path)
	if err != nil {
		return s, err
	}
	var found config.Problems
	s.checkServer(&found)
	s.checkDatabase(&found)
	s.checkRedis(&found)
	found.Check(s.Checkpoints.KeyFile != "", "checkpoints.keyFile", s.Checkpoints.KeyFile, "a file")
	found.Check(s.Checkpoints.Interval > 0, "checkpoints.interval", s.Checkpoints.Interval, "more than 0s")
	s.checkLogging(&found)
	return s, named(path, found.Err())
}

// LoadDatabase reads what migrations need from the file at path: the rest may be left
// out.
func LoadDatabase(path string) (Settings, error) {
	s, err := read(path)
	if err != nil {
		return s, err
	}
	var found config.Problems
	s.checkDatabase(&found)
	s.checkLogging(&found)
	return s, named(path, found.Err())
}

func read(path string) (Settings, error) {
	s := Default()
	if path == "" {
		return s, errors.New("CONFIG_PATH: empty; it must name the configuration file")
	}
	return s, config.Load(path, &s)
}

func named(path string, err error) error {
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func (s *Settings) checkServer(found *config.Problems) {
	v := s.Server
	for field, addr := range map[string]string{"listenAddr": v.ListenAddr, "healthAddr": v.HealthAddr, "metricsAddr": v.MetricsAddr} {
		_, port, err := net.SplitHostPort(addr)
		found.Check(err == nil && port != "", "server."+field, addr, "host:port or :port")
	}
	for field, d := range map[string]time.Duration{
		"readTimeout": v.ReadTimeout, "writeTimeout": v.WriteTimeout, "idleTimeout": v.IdleTimeout, "requestTimeout": v.RequestTimeout,
	} {
		found.Check(d > 0, "server."+field, d, "more than 0s")
	}
	found.Check(v.DrainDelay >= 0, "server.drainDelay", v.DrainDelay, "0s or more")
	found.Check(v.RequestTimeout < v.WriteTimeout, "server.requestTimeout", v.RequestTimeout,
		fmt.Sprintf("less than server.writeTimeout (%s)", v.WriteTimeout))
	found.Check(v.RequestTimeout > s.Database.Timeout+s.Redis.Timeout, "server.requestTimeout", v.RequestTimeout,
		fmt.Sprintf("more than database.timeout and redis.timeout together (%s)", s.Database.Timeout+s.Redis.Timeout))
	found.Check(v.RequestTimeout > s.Database.ReadTimeout, "server.requestTimeout", v.RequestTimeout,
		fmt.Sprintf("more than database.readTimeout (%s)", s.Database.ReadTimeout))
	// The budget of what is in hand, and with it the pod's memory, is made for this.
	found.Check(v.MaxBodyBytes > 0 && v.MaxBodyBytes <= 8<<20, "server.maxBodyBytes", v.MaxBodyBytes, "1 to 8388608")
	found.Check((v.TLS.CertFile == "") == (v.TLS.KeyFile == ""), "server.tls", nil, "certFile and keyFile together, or neither")
	found.Check(s.Auth.Audience != "", "auth.audience", s.Auth.Audience, "what senders' tokens are for, such as data-storage-service")
	found.Check(s.Auth.AllowCacheTTL > 0, "auth.allowCacheTTL", s.Auth.AllowCacheTTL, "more than 0s")
	found.Check(s.Auth.DenyCacheTTL > 0, "auth.denyCacheTTL", s.Auth.DenyCacheTTL, "more than 0s")
}

func (s *Settings) checkDatabase(found *config.Problems) {
	v := s.Database
	for field, text := range map[string]string{"host": v.Host, "name": v.Name, "user": v.User} {
		found.Check(text != "", "database."+field, text, "a name")
	}
	found.Check((v.Server.User == "") == (v.Server.PasswordFile == ""), "database.server", nil, "user and passwordFile together, or neither")
	found.Check(v.Server.User == "" || v.Server.User != v.User, "database.server.user", v.Server.User, "another role than database.user, which owns the tables")
	found.Check(v.Port != 0, "database.port", v.Port, "1 to 65535")
	found.Check(v.Timeout > 0, "database.timeout", v.Timeout, "more than 0s")
	found.Check(v.DrainTimeout > v.Timeout, "database.drainTimeout", v.DrainTimeout, fmt.Sprintf("more than database.timeout (%s)", v.Timeout))
	found.Check(v.ReadTimeout > 0, "database.readTimeout", v.ReadTimeout, "more than 0s")
	switch v.SSLMode {
	case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		found.Add("database.sslMode", v.SSLMode, "disable, allow, prefer, require, verify-ca or verify-full")
	}
	found.Check(v.CAFile == "" || v.SSLMode == "verify-full", "database.caFile", v.CAFile, "only with database.sslMode verify-full")
}

func (s *Settings) checkRedis(found *config.Problems) {
	_, port, err := net.SplitHostPort(s.Redis.Addr)
	found.Check(err == nil && port != "", "redis.addr", s.Redis.Addr, "host:port")
	found.Check(s.Redis.Timeout > 0, "redis.timeout", s.Redis.Timeout, "more than 0s")
}

func (s *Settings) checkLogging(found *config.Problems) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[s.Logging.Name]
	found.Check(ok, "logging.level", s.Logging.Name, "debug, info, warn or error")
	s.Logging.Level = level
}

// Pool returns the configuration of the connections to PostgreSQL. It reads the files of
// the password and the CA, again for connections that are made later.
func (d Database) Pool() (*pgxpool.Config, error) {
	password, err := secret(d.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("database.passwordFile: %w", err)
	}
	// The password goes in afterwards, so that no parse error can show it.
	pool, err := pgxpool.ParseConfig(fmt.Sprintf("host='%s' port=%d dbname='%s' user='%s' sslmode=%s connect_timeout=1",
		quoted(d.Host), d.Port, quoted(d.Name), quoted(d.User), d.SSLMode))
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	pool.ConnConfig.Password = password
	renewed := reload.Secret(d.PasswordFile)
	trust := func(*pgx.ConnConfig) error { return nil }
	if d.CAFile != "" {
		roots := reload.Roots(d.CAFile)
		trust = func(c *pgx.ConnConfig) (err error) {
			c.TLSConfig.RootCAs, err = roots()
			return err
		}
		if err := trust(pool.ConnConfig); err != nil {
			return nil, fmt.Errorf("database.caFile: %w", err)
		}
	}
	pool.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) (err error) {
		c.Password, err = renewed()
		return errors.Join(err, trust(c))
	}
	return pool, nil
}

// quoted makes text fit between the quotes of a connection string.
func quoted(text string) string {
	return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text)
}

// Client returns a client of Redis; it connects when it is used. It reads the files of the
// password and the CA, again for connections that are made later. The caller closes it.
func (r Redis) Client() (*redis.Client, error) {
	password, err := secret(r.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("redis.passwordFile: %w", err)
	}
	renewed := reload.Secret(r.PasswordFile)
	options := &redis.Options{
		Addr: r.Addr, Password: password, ContextTimeoutEnabled: true,
		CredentialsProviderContext: func(context.Context) (user, password string, err error) {
			password, err = renewed()
			return "", password, err
		},
		DialTimeout: r.Timeout, ReadTimeout: r.Timeout, WriteTimeout: r.Timeout,
		// One retry finds a connection that broke while it was idle; more would
		// only use up the sender's time.
		MaxRetries: 1, DialerRetries: 1,
		// Notifications of maintenance are Redis Enterprise's. To choose their kind, a new client
		// looks the address up, and waits two seconds for a name server that does not answer.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if r.CAFile != "" {
		roots := reload.Roots(r.CAFile)
		if _, err := roots(); err != nil {
			return nil, fmt.Errorf("redis.caFile: %w", err)
		}
		options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			trusted, err := roots()
			if err != nil {
				return nil, err
			}
			dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: r.Timeout}, Config: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}
			return dialer.DialContext(ctx, network, addr)
		}
	}
	return redis.NewClient(options), nil
}

// Config returns what the API's listener needs, or nil for a listener without TLS.
func (t TLS) Config() (*tls.Config, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	config, err := reload.TLS(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("server.tls: %w", err)
	}
	return config, nil
}

// secret reads a mounted secret without the line break that editors add.
func secret(path string) (string, error) {
	return reload.Secret(path)()
}
