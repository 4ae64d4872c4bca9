package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func TestProbe(t *testing.T) {
	random := regexp.MustCompile(`e2e-probe-\w+`)
	t.Run("asks a privileged container of an image it makes, and removes both", func(t *testing.T) {
		f := newFake(t, nil)
		if err := ProbeEngine(t.Context(), f.options(), "podman"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range f.ran("podman") {
			got = append(got, strings.ReplaceAll(random.ReplaceAllString(line, "NAME"), f.root, "ROOT"))
		}
		want := []string{
			"podman version --format {{.Client.Version}}",
			"podman import --change LABEL e2e.kubernaut.ai/probe=true - localhost/NAME",
			"podman run --detach --name NAME --label e2e.kubernaut.ai/probe=true --privileged --cgroupns=private --memory 256m --cpu-shares 512 --pids-limit 128 " +
				"--volume /lib/modules:/lib/modules:ro --volume ROOT/.e2e/build/NAME:/probe:ro --publish 127.0.0.1::80 localhost/NAME /probe-program",
			"podman port NAME 80/tcp",
			"podman rm --force NAME",
			"podman rmi --force localhost/NAME",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if left, err := filepath.Glob(filepath.Join(f.root, ".e2e/build/e2e-probe-*")); len(left) > 0 || err != nil {
			t.Errorf("left %q, %v", left, err)
		}
	})
	t.Run("compiles its program once, without a home", func(t *testing.T) {
		t.Setenv("HOME", "")
		t.Setenv("XDG_CACHE_HOME", "")
		f := newFake(t, nil)
		for range 2 {
			if err := ProbeEngine(t.Context(), f.options(), "podman"); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.ran("go build"); len(got) != 1 {
			t.Errorf("got %d builds, want 1: %q", len(got), got)
		}
	})
	t.Run("removes what it made when the container fails and when the caller gives up", func(t *testing.T) {
		f := newFake(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		f.podman = func() error { cancel(); return refuse(noLimits) }
		if err := ProbeEngine(ctx, f.options(), "podman"); err == nil {
			t.Error("got no error")
		}
		if got := append(f.ran("podman rmi"), f.ran("podman rm ")...); len(got) != 2 {
			t.Errorf("got %q, want both removals", got)
		}
	})
	t.Run("refuses an engine on another machine", func(t *testing.T) {
		f := newFake(t, nil)
		f.published = "127.0.0.1:9"
		err := ProbeEngine(t.Context(), f.options(), "podman")
		if want := "podman: a port that it publishes at 127.0.0.1:9 cannot be reached (connection refused); is the engine on another machine"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	})
	t.Run("refuses an engine that sees other folders", func(t *testing.T) {
		f := newFake(t, nil)
		f.answers = func(string) (string, error) { return "open /probe/token: no such file or directory", nil }
		err := ProbeEngine(t.Context(), f.options(), "podman")
		if want := "podman: a folder of this machine is another one in its containers; is the engine"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	})
}

func TestAskWaitsForAListener(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for n := 0; ; n++ { // as one that forwards a port before anybody listens there
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if n > 1 {
				_, _ = conn.Write([]byte("token"))
			}
			_ = conn.Close()
		}
	}()
	if got, err := ask(t.Context(), listener.Addr().String(), time.Second); got != "token" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name      string
		installed []string
		wanted    string
		podman    error
		want      string
		err       string
		said      string
	}{
		{name: "podman comes first", installed: []string{"podman", "docker"}, want: "podman"},
		{name: "docker where podman is not installed", installed: []string{"docker"}, want: "docker"},
		{name: "docker where podman runs nothing", installed: []string{"podman", "docker"}, podman: refuse(noLimits), want: "docker",
			said: "podman: running a privileged container: crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied; docker is used instead"},
		{name: "the wanted one alone", installed: []string{"podman", "docker"}, wanted: "docker", want: "docker"},
		{
			name: "a wanted one that does not work is not replaced", installed: []string{"podman"}, wanted: "docker",
			err: "no container engine works here; run: go tool mage setup\n  docker: not installed",
		},
		{
			name: "one line for each that was tried", installed: []string{"podman"}, podman: refuse(noLimits),
			err: "no container engine works here; run: go tool mage setup\n" +
				"  podman: running a privileged container: crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied\n" +
				"  docker: not installed",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, nil)
			f.programs = map[string]bool{}
			for _, name := range test.installed {
				f.programs[name] = true
			}
			f.podman = func() error { return test.podman }
			opts := f.options()
			opts.Engine = test.wanted
			var said string
			opts.Say = func(format string, args ...any) { said += fmt.Sprintf(format, args...) }
			got, err := Choose(t.Context(), opts)
			if said != test.said {
				t.Errorf("said %q, want %q", said, test.said)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (err != nil || test.err != "") && (err == nil || err.Error() != test.err) {
				t.Errorf("got error\n%v\nwant\n%s", err, test.err)
			}
		})
	}
}

func TestOtherSystemsAreRefusedInOneLine(t *testing.T) {
	f := newFake(t, nil)
	opts := f.options()
	opts.machine.os = "darwin"
	if _, err := Choose(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "runs need Linux") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if got := f.recorder.Calls(); len(got) != 0 {
		t.Errorf("ran %q", got)
	}
}

func TestBriefIsTheLineThatSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ name, stderr, want string }{
		{"podman", "Resolving\nError: crun: no\n", "crun: no"},
		{"docker's hint", "docker: Error response from daemon: no space.\nSee 'docker run --help'.\n", "Error response from daemon: no space."},
		{"docker's new hint", "docker: no space\n\nRun 'docker run --help' for more information\n", "no space"},
		{"nothing", "", "exit 126"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := brief{refuse(test.stderr)}
			if got := err.Error(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			var failed *command.Error
			if !errors.As(err, &failed) {
				t.Error("the command's own error is lost")
			}
		})
	}
}
