package testservers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// machine is a Runner whose servers run until their context ends, with what else
// the package needs of the outside world.
type machine struct {
	*testing.T
	temp    string          // folder of temporary files
	missing map[string]bool // programs that are not installed
	fails   func(program string) error
	output  map[string]string // what a program says before it fails

	mu      sync.Mutex
	cmds    []command.Cmd
	running map[string]int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	return &machine{T: t, temp: temp, missing: map[string]bool{}, output: map[string]string{}, running: map[string]int{}}
}

func (m *machine) options() Options {
	m.Helper()
	// As a server of its own: nobody listens until it runs.
	ping := func(program string) func(context.Context, string) error {
		return func(context.Context, string) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.running[program] == 0 && !m.missing[program] {
				return errors.New("connection refused")
			}
			return nil
		}
	}
	return Options{Runner: m, Dir: m.TempDir(), host: host{
		find: func(program string) (string, error) {
			if m.missing[program] {
				return "", errors.New(program + ": not found in PATH")
			}
			path := filepath.Join(m.TempDir(), program)
			return path, os.WriteFile(path, nil, 0o755)
		},
		account:  func() (account, error) { return account{uid: -1, gid: -1, prefix: []string{"setpriv", "--"}}, nil },
		postgres: ping("postgres"), redis: ping("redis-server"),
	}}
}

func (m *machine) Run(ctx context.Context, cmd command.Cmd) error {
	args := cmd.Args
	if args[0] == "setpriv" {
		args = args[2:]
	}
	program := filepath.Base(args[0])
	m.mu.Lock()
	m.cmds = append(m.cmds, cmd)
	m.mu.Unlock()
	if m.fails != nil {
		if err := m.fails(program); err != nil {
			if cmd.Stderr != nil {
				if _, err := io.WriteString(cmd.Stderr, m.output[program]); err != nil {
					return err
				}
			}
			return err
		}
	}
	switch program {
	case "initdb":
		if err := os.Mkdir(args[2], 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(args[2], "postgresql.conf"), nil, 0o600)
	case "postgres", "redis-server":
		m.count(program, 1)
		defer m.count(program, -1)
		<-ctx.Done()
		return ctx.Err()
	case "podman":
		switch args[1] {
		case "port":
			_, err := io.WriteString(cmd.Stdout, "127.0.0.1:40001\n[::1]:40001\n")
			return err
		case "ps":
			_, err := io.WriteString(cmd.Stdout, m.output["podman ps"])
			return err
		}
	}
	return nil
}

func (m *machine) count(program string, by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[program] += by
}

// commands are those that ran, with the program's name for its path.
func (m *machine) commands(program string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for _, cmd := range m.cmds {
		args := slices.Clone(cmd.Args)
		if args[0] == "setpriv" {
			args = args[2:]
		}
		args[0] = filepath.Base(args[0])
		if args[0] == program {
			lines = append(lines, strings.Join(args, " "))
		}
	}
	return lines
}

// left fails the test if a server runs or a folder is left.
func (m *machine) left() {
	m.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for program, n := range m.running {
		if n != 0 {
			m.Errorf("%s: %d left running", program, n)
		}
	}
	entries, err := os.ReadDir(m.temp)
	if err != nil {
		m.Fatal(err)
	}
	for _, entry := range entries {
		m.Errorf("left %s", entry.Name())
	}
}

func value(env []string, key string) string {
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, key+"="); ok {
			return value
		}
	}
	return ""
}

func TestInstalledProgramsAreUsed(t *testing.T) {
	m := newMachine(t)
	assets := t.TempDir()
	for _, program := range []string{"kube-apiserver", "etcd"} {
		if err := os.WriteFile(filepath.Join(assets, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	opts := m.options()
	opts.APIServer = assets
	servers, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	env := servers.Env()
	if got := value(env, "E2E_TEST_POSTGRES_DSN"); !strings.HasPrefix(got, "postgres://e2e:") || !strings.Contains(got, "@127.0.0.1:") {
		t.Errorf("got DSN %q", got)
	}
	if got := value(env, "E2E_TEST_REDIS_ADDR"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("got address %q", got)
	}
	if got := value(env, "KUBEBUILDER_ASSETS"); got != assets {
		t.Errorf("got assets %q, want %q", got, assets)
	}
	redis := m.commands("redis-server")
	if len(redis) != 1 || !strings.Contains(redis[0], "--bind 127.0.0.1 ") || !strings.HasSuffix(redis[0], "--save  --appendonly no") {
		t.Errorf("ran %q", redis)
	}
	initdb := m.commands("initdb")
	if len(initdb) != 1 {
		t.Fatalf("ran %q", initdb)
	}
	data := strings.Fields(initdb[0])[2]
	config, err := os.ReadFile(filepath.Join(data, "postgresql.conf"))
	if err != nil || !bytes.Contains(config, []byte("listen_addresses = '127.0.0.1'")) {
		t.Errorf("got configuration %q, %v", config, err)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := m.commands("pg_ctl"), []string{"pg_ctl stop -D " + data + " -m immediate"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Errorf("second time: %v", err)
	}
	m.left()
}

func TestServersOutliveTheContextOfTheirStart(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	servers, err := Start(ctx, m.options())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	m.mu.Lock()
	if m.running["postgres"] != 1 || m.running["redis-server"] != 1 {
		t.Errorf("running: %v", m.running)
	}
	m.mu.Unlock()
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	m.left()
}

func TestContainersAreUsedWhereProgramsAreMissing(t *testing.T) {
	m := newMachine(t)
	m.missing["postgres"], m.missing["redis-server"] = true, true
	opts := m.options()
	opts.Container = func(_ context.Context, name string) (string, string, error) {
		return "podman", "localhost/" + name + ":1", nil
	}
	servers, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := value(servers.Env(), "E2E_TEST_REDIS_ADDR"); got != "127.0.0.1:40001" {
		t.Errorf("got %q", got)
	}
	runs := slices.DeleteFunc(m.commands("podman"), func(line string) bool { return !strings.HasPrefix(line, "podman run") })
	if len(runs) != 2 {
		t.Fatalf("ran %q", runs)
	}
	for _, want := range []string{
		"--publish 127.0.0.1::5432 --env POSTGRES_USER --env POSTGRES_DB --env POSTGRES_PASSWORD localhost/postgres:1 postgres -c fsync=off",
		"--publish 127.0.0.1::6379 localhost/redis:1 redis-server --bind 0.0.0.0 --protected-mode no",
	} {
		if !slices.ContainsFunc(runs, func(line string) bool { return strings.Contains(line, want) }) {
			t.Errorf("none of %q has %q", runs, want)
		}
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got := m.commands("podman"); !slices.ContainsFunc(got, func(line string) bool {
		return strings.HasPrefix(line, "podman rm --force --volumes e2e-test-postgres-")
	}) {
		t.Errorf("ran %q, want the containers removed", got)
	}
	m.left()
}

func TestWhatAKilledRunLeftIsRemoved(t *testing.T) {
	m := newMachine(t)
	m.missing["postgres"] = true
	m.output["podman ps"] = "4711\n4712\n"
	opts := m.options()
	opts.Container = func(_ context.Context, name string) (string, string, error) { return "podman", "ref", nil }
	own, other := identity(opts.Dir), identity(t.TempDir())
	for _, id := range []string{own, other} {
		if err := os.MkdirAll(filepath.Join(m.temp, FolderPrefix+id+"-postgres-1", "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	servers, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	podman := m.commands("podman")
	want := []string{"podman ps --all --quiet --filter label=" + Label + "=" + own, "podman rm --force --volumes 4711 4712"}
	if len(podman) < 3 || !slices.Equal(podman[:2], want) || !strings.Contains(podman[2], "--label "+Label+"="+own+" ") {
		t.Errorf("ran %q, want %q before the server", podman, want)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(m.temp, FolderPrefix+other+"-postgres-1")); err != nil {
		t.Error(err)
	} else {
		m.left()
	}
}

func TestWhatAnotherCheckoutUsesIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	other := filepath.Join(m.temp, FolderPrefix+identity(t.TempDir())+"-postgres-1")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	servers, err := Start(t.Context(), m.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(other); err != nil {
		t.Error(err)
	}
}

func TestOneRunAtATimeUsesAFolder(t *testing.T) {
	m := newMachine(t)
	opts := m.options()
	servers, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "wait until it has ended") {
		t.Errorf("got %v, want a refusal", err)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	again, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	m.left()
}

func TestThePasswordIsInNoCommandLine(t *testing.T) {
	for _, missing := range []bool{false, true} {
		m := newMachine(t)
		m.missing["postgres"] = missing
		opts := m.options()
		opts.Container = func(context.Context, string) (string, string, error) { return "podman", "ref", nil }
		servers, err := Start(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(value(servers.Env(), "E2E_TEST_POSTGRES_DSN"), "e2e:")
		password, _, _ := strings.Cut(rest, "@")
		if len(password) < 20 {
			t.Errorf("password of %d characters", len(password))
		}
		for _, cmd := range m.cmds {
			if strings.Contains(strings.Join(cmd.Args, " "), password) {
				t.Errorf("%s: has the password", cmd.Args[0])
			}
		}
		if err := servers.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	exit := &command.Error{Args: []string{"redis-server"}, ExitCode: 1}
	tests := []struct {
		name   string
		change func(*machine, *Options)
		want   []string
	}{
		{"no program and no container", func(m *machine, _ *Options) { m.missing["redis-server"] = true },
			[]string{"redis-server: not found in PATH; run: go tool mage setup"}},
		{"no image", func(m *machine, o *Options) {
			m.missing["postgres"] = true
			o.Container = func(context.Context, string) (string, string, error) { return "", "", errors.New("no engine") }
		}, []string{"postgres in a container, because of postgres: not found in PATH: no engine"}},
		{"a server that ends", func(m *machine, _ *Options) {
			m.output["redis-server"] = "Fatal: bad address\n"
			m.fails = func(program string) error {
				if program == "redis-server" || program == "postgres" {
					return exit
				}
				return nil
			}
		}, []string{"redis: it ended before it answered; last: connection refused; redis.log:\nFatal: bad address", "postgres: it ended"}},
		{"a folder that cannot be made", func(m *machine, _ *Options) {
			m.fails = func(program string) error {
				if program == "initdb" {
					return &command.Error{Args: []string{"initdb"}, ExitCode: 1, Stderr: "no space left"}
				}
				return nil
			}
		}, []string{"postgres: initdb: exit 1: no space left"}},
		{"an API server without its programs", func(_ *machine, o *Options) { o.APIServer = "nowhere" },
			[]string{"API server for tests: stat nowhere/kube-apiserver"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			opts := m.options()
			test.change(m, &opts)
			_, err := Start(t.Context(), opts)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			m.left()
		})
	}
}

func TestAServerThatEndsIsStartedOnAnotherPort(t *testing.T) {
	m := newMachine(t)
	var mu sync.Mutex
	starts := 0
	m.fails = func(program string) error {
		mu.Lock()
		defer mu.Unlock()
		if program != "redis-server" {
			return nil
		}
		if starts++; starts < 3 {
			return &command.Error{Args: []string{program}, ExitCode: 1}
		}
		return nil
	}
	servers, err := Start(t.Context(), m.options())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.commands("redis-server"); len(got) != 3 {
		t.Errorf("ran %q, want three starts", got)
	}
	if err := servers.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	m.left()
}

func TestPingRedis(t *testing.T) {
	tests := []struct{ name, answer, want string }{
		{"answers", "+PONG\r\n", ""},
		{"is loading", "-LOADING Redis is loading\r\n", "LOADING"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := pingRedis(t.Context(), listen(t, test.answer))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
