package host

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

func TestProbe(t *testing.T) {
	random := regexp.MustCompile(`localhost/e2e-probe:\w+`)
	t.Run("runs a privileged container of an image it makes and removes", func(t *testing.T) {
		f := newFake(t, nil)
		if err := ProbeEngine(t.Context(), &f.recorder, "podman"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range f.ran("podman") {
			got = append(got, random.ReplaceAllString(line, "REF"))
		}
		want := []string{
			"podman version --format {{.Client.Version}}",
			"podman import --change LABEL e2e.kubernaut.ai/probe=true - REF",
			"podman run --rm --label e2e.kubernaut.ai/probe=true --privileged --cgroupns=private --memory 256m --cpu-shares 512 --pids-limit 128 --volume /lib/modules:/lib/modules:ro --publish 127.0.0.1::80 REF /true",
			"podman rmi --force REF",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("compiles its program once", func(t *testing.T) {
		f := newFake(t, nil)
		for range 2 {
			if err := ProbeEngine(t.Context(), &f.recorder, "podman"); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.ran("go build"); len(got) != 1 {
			t.Errorf("got %d builds, want 1: %q", len(got), got)
		}
	})
	t.Run("removes the image when the container fails and when the caller gives up", func(t *testing.T) {
		f := newFake(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		f.podman = func() error { cancel(); return refuse(noLimits) }
		if err := ProbeEngine(ctx, &f.recorder, "podman"); err == nil {
			t.Error("got no error")
		}
		if got := f.ran("podman rmi"); len(got) != 1 {
			t.Errorf("got %q, want one removal", got)
		}
	})
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name      string
		installed []string
		wanted    string
		podman    error
		want      string
		err       string
	}{
		{name: "podman comes first", installed: []string{"podman", "docker"}, want: "podman"},
		{name: "docker where podman is not installed", installed: []string{"docker"}, want: "docker"},
		{name: "docker where podman runs nothing", installed: []string{"podman", "docker"}, podman: refuse(noLimits), want: "docker"},
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
			got, err := Choose(t.Context(), &f.recorder, test.wanted)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (err != nil || test.err != "") && (err == nil || err.Error() != test.err) {
				t.Errorf("got error\n%v\nwant\n%s", err, test.err)
			}
		})
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
