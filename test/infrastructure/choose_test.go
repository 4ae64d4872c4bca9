package infrastructure

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

func TestAnotherEngineThanTheLastTimesIsNotTakenInSilence(t *testing.T) {
	const runs, broken = "echo node\n", "echo cannot connect to its socket >&2\nexit 1\n"
	for _, test := range []struct {
		name, docker, wanted string
		engine, said, err    string // parts of them
	}{
		{name: "its cluster runs", docker: runs, engine: "docker"},
		{name: "its cluster runs, and the other one is wanted", docker: runs, wanted: "podman", err: "podman: cannot connect to its socket"},
		{name: "it does not work", docker: broken, said: "docker, which was used the last time, does not work now", err: "docker: cannot connect to its socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bin := t.TempDir()
			for name, text := range map[string]string{"podman": broken, "docker": test.docker} {
				filetest.Program(t, bin, name, text)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			plan := &Plan{Root: t.TempDir(), ClusterName: "e2e-1", Config: Config{Engine: test.wanted}}
			if err := plan.cluster().Made(checkout.Record{Engine: "docker"}); err != nil {
				t.Fatal(err)
			}
			var said string
			engine, err := chooseEngine(t.Context(), plan, func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
			if engine != test.engine || !strings.Contains(said, test.said) || (test.said == "") != (said == "") {
				t.Errorf("got %q, which says %q; want %q, %q", engine, said, test.engine, test.said)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
		})
	}
}
