package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Server struct {
		Addr  string        `yaml:"addr"`
		Drain time.Duration `yaml:"drain"`
		Limit uint16        `yaml:"limit"`
	} `yaml:"server"`
	Origins []string        `yaml:"origins"`
	Waits   []time.Duration `yaml:"waits"`
	TLS     *struct {
		Cert string `yaml:"cert"`
	} `yaml:"tls"`
	Debug bool `yaml:"debug"`
}

func TestDecodeKeepsDefaultsAndReadsValues(t *testing.T) {
	var got sample
	got.Server.Addr = ":8080"
	got.Server.Drain = 5 * time.Second
	err := Decode([]byte("# why\nserver:\n  drain: 1500ms # soon\n  limit: 7\norigins: [a, 'b']\nwaits: [1s]\ntls: {cert: /tls.crt}\ndebug: true\n"), &got)
	if err != nil {
		t.Fatal(err)
	}
	if got.Server.Addr != ":8080" || got.Server.Drain != 1500*time.Millisecond || got.Server.Limit != 7 ||
		len(got.Origins) != 2 || got.Waits[0] != time.Second || got.TLS.Cert != "/tls.crt" || !got.Debug {
		t.Fatalf("got %+v", got)
	}
}

func TestDecodeOfNothingKeepsDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n"} {
		got := sample{Debug: true}
		if err := Decode([]byte(text), &got); err != nil || !got.Debug {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":          {"server:\n  dran: 5s\n", "server.dran: not allowed; allowed: only addr, drain, limit"},
		"an unknown section":      {"servers: {}\n", "servers: not allowed; allowed: only debug, origins, server, tls, waits"},
		"a bad duration":          {"server:\n  drain: 5x\n", `server.drain: "5x" not allowed; allowed: a duration with a unit`},
		"a duration without unit": {"server:\n  drain: 5\n", `server.drain: "5" not allowed; allowed: a duration with a unit`},
		"an empty duration":       {"server:\n  drain: ''\n", `server.drain: "''" not allowed; allowed: a duration`},
		"a key without value":     {"server:\n  drain:\n", "server.drain: not allowed; allowed: a value"},
		"a duration in a list":    {"waits: [1s, 2y]\n", `waits[1]: "2y" not allowed`},
		"a number too large":      {"server:\n  limit: 70000\n", `server.limit: "70000" not allowed; allowed: a whole number`},
		"a text for a number":     {"server:\n  limit: many\n", `server.limit: "many" not allowed; allowed: a whole number`},
		"a word for a boolean":    {"debug: yes\n", `debug: "yes" not allowed; allowed: true or false`},
		"a list for a mapping":    {"server: [a]\n", `server: "[a]" not allowed; allowed: a mapping with addr, drain, limit`},
		"a scalar for a list":     {"origins: a\n", `origins: "a" not allowed; allowed: a list`},
		"a key written twice":     {"debug: true\ndebug: true\n", "line 2, column 1"},
		"broken YAML":             {"server: [", "line 1"},
		"a second document":       {"debug: true\n---\ndebug: true\n", "a second document"},
		"a scalar document":       {"hello\n", "document: \"hello\" not allowed"},
		"an unknown key in depth": {"tls: {crt: x}\n", "tls.crt: not allowed; allowed: only cert"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(c.text), new(sample))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestDecodeTellsEveryProblem(t *testing.T) {
	err := Decode([]byte("server: {drain: 5x, limit: x}\nfoo: 1\n"), new(sample))
	for _, want := range []string{"server.drain", "server.limit", "foo"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := Load(path, new(sample)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: got %v", err)
	}
	if err := os.WriteFile(path, []byte("foo: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, new(sample)); err == nil || !strings.Contains(err.Error(), path+": foo") {
		t.Errorf("bad file: got %v", err)
	}
}

func TestProblemsJoin(t *testing.T) {
	var p Problems
	p.Check(true, "a", 1, "anything")
	if err := p.Err(); err != nil {
		t.Fatalf("got %v, want nil", err)
	}
	p.Check(false, "server.k8sRequestTimeout", 20*time.Second, "less than server.writeTimeout (15s)")
	p.Add("logging.level", "loud", "debug, info, warn or error")
	want := "server.k8sRequestTimeout: 20s not allowed; allowed: less than server.writeTimeout (15s)\n" +
		`logging.level: "loud" not allowed; allowed: debug, info, warn or error`
	if got := p.Err().Error(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
