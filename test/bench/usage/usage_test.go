package usage

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

const proc = `cpu  1000 200 3000 50000 600 0 70 8 9 0
cpu0 500 100 1500 25000 300 0 35 4 0 0
cpu1 500 100 1500 25000 300 0 35 4 0 0
intr 18183738 0 0
ctxt 43094349
procs_running 2
5001.32 4138.99
1 (systemd) S 0 1 1 0 -1 4194560 7829 2635190 6 299 10 20 30 40 20 0 1 0 445404 27262976
568 (kube-apiserver) S 335 568 568 0 -1 4194560 165798 624 2 0 6713 1542 0 0 20 0 12 0 445842 1882505216
18424 (postgres) S 18312 18424 18424 0 -1 4194560 9289 141617 0 3 4 20 82 75 20 0 1 0 476951 148934656
18439 (postgres) S 18424 18439 18439 0 -1 4194368 221 0 0 0 1 2 0 0 20 0 1 0 476968 149069824
7 (a (strange) one) S 1 7 7 0 -1 4194560 1 1 1 1 5 5 0 0 20 0 1 0 1 1
`

func TestParseNode(t *testing.T) {
	got, err := parseNode(proc)
	if err != nil {
		t.Fatal(err)
	}
	if want := 42700 * time.Millisecond; got.Busy != want {
		t.Errorf("busy: got %s, want %s without idle, iowait, steal and guests", got.Busy, want)
	}
	if got.CPUs != 2 || got.Uptime.Round(10*time.Millisecond) != 5001320*time.Millisecond {
		t.Errorf("got %d CPUs at %s", got.CPUs, got.Uptime)
	}
	for program, want := range map[string]time.Duration{
		"kube-apiserver": 82550 * time.Millisecond, "systemd": time.Second, "a (strange) one": 100 * time.Millisecond,
		"postgres": 1840 * time.Millisecond, // the server, its children that ended, and one that lives
	} {
		if got.Programs[program] != want {
			t.Errorf("%s: got %s, want %s", program, got.Programs[program], want)
		}
	}
}

func TestSinceCountsCores(t *testing.T) {
	before := Node{Uptime: 100 * time.Second, Busy: 50 * time.Second, Programs: map[string]time.Duration{"etcd": time.Second, "runc": 9 * time.Second}}
	after := Node{Uptime: 110 * time.Second, Busy: 68 * time.Second, Programs: map[string]time.Duration{"etcd": 6 * time.Second, "runc": time.Second, "new": time.Second}}
	programs, busy := after.Since(before)
	if busy != 1.8 || programs["etcd"] != 0.5 || programs["runc"] != 0 || programs["new"] != 0.1 {
		t.Errorf("got %v busy, %v", busy, programs)
	}
}

func TestReadNode(t *testing.T) {
	answers := func(text string, err error) *command.Recorder {
		return &command.Recorder{Answer: func(cmd command.Cmd) error {
			_, _ = io.WriteString(cmd.Stdout, text)
			return err
		}}
	}
	vanished := errors.New("exit 1: cat: /proc/99/stat: No such file or directory")
	t.Run("runs one command in the node", func(t *testing.T) {
		runner := answers(proc, nil)
		if _, err := ReadNode(t.Context(), runner, "podman", "node-1"); err != nil {
			t.Fatal(err)
		}
		if calls := runner.Calls(); len(calls) != 1 || strings.Join(calls[0][:4], " ") != "podman exec node-1 find" {
			t.Errorf("got %q", calls)
		}
	})
	t.Run("does without a process that has ended", func(t *testing.T) {
		if _, err := ReadNode(t.Context(), answers(proc, vanished), "podman", "node-1"); err != nil {
			t.Errorf("got %v", err)
		}
	})
	t.Run("returns the command's failure", func(t *testing.T) {
		if _, err := ReadNode(t.Context(), answers("", vanished), "podman", "node-1"); !errors.Is(err, vanished) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refuses what is not a node's", func(t *testing.T) {
		if _, err := ReadNode(t.Context(), answers("hello\n", nil), "podman", "node-1"); err == nil {
			t.Error("got no error")
		}
	})
}

// exposing serves the process metrics of a service; each scrape finds more memory,
// up to the third, and less after it.
func exposing(t *testing.T, names ...string) (address string, third <-chan struct{}) {
	t.Helper()
	var scrapes atomic.Int64
	seen := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1)
		for _, name := range names {
			value := 10 * n
			if n > 3 {
				value = 1
			}
			fmt.Fprintf(w, "# TYPE %s gauge\n%s %d\n", name, name, value)
		}
		if n == 4 {
			close(seen)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), seen
}

func TestFollowKeepsThePeak(t *testing.T) {
	address, seen := exposing(t, "process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds")
	watch := Follow(t.Context(), http.DefaultClient, address)
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatal("was not scraped four times in a minute")
	}
	if peak, err := watch.Stop(); err != nil || peak != 30 {
		t.Errorf("got %v, %v; want 30", peak, err)
	}
}

func TestReadServiceNamesWhatIsMissing(t *testing.T) {
	address, _ := exposing(t, "process_cpu_seconds_total", "process_start_time_seconds")
	_, err := ReadService(t.Context(), http.DefaultClient, address)
	if err == nil || !strings.Contains(err.Error(), "has no process_resident_memory_bytes") {
		t.Errorf("got %v", err)
	}
}

func TestSinceOfService(t *testing.T) {
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	before := Service{At: at, CPU: time.Second, Start: 1}
	cores, err := Service{At: at.Add(10 * time.Second), CPU: 4 * time.Second, Start: 1}.Since(before)
	if err != nil || math.Abs(cores-0.3) > 1e-9 {
		t.Errorf("got %v, %v; want 0.3", cores, err)
	}
	if _, err := (Service{At: at.Add(10 * time.Second), CPU: time.Second, Start: 2}).Since(before); err == nil {
		t.Error("another process: got no error")
	}
}

func TestSelfGrows(t *testing.T) {
	before, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after == before; {
		if after, err = Self(); err != nil {
			t.Fatal(err)
		}
	}
}
