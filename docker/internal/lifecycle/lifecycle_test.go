package lifecycle

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var silent = slog.New(slog.DiscardHandler)

// journal remembers what happened in which order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func bind(t *testing.T, name string, handler http.HandlerFunc) *Server {
	t.Helper()
	s, err := Bind(name, "127.0.0.1:0", &http.Server{Handler: handler}, silent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(s *Server) (*http.Response, error) {
	resp, err := http.Get("http://" + s.Addr())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// ask begins a request.
func ask(s *Server) (answered <-chan error) {
	done := make(chan error, 1)
	go func() {
		_, err := get(s)
		done <- err
	}()
	return done
}

// awaitClosed returns when the server accepts no connection any more.
func awaitClosed(s *Server) {
	for {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

func TestRunEndsInOrderAndLosesNoRequest(t *testing.T) {
	var j journal
	inHand, release := make(chan struct{}), make(chan struct{})
	api := bind(t, "api", func(_ http.ResponseWriter, r *http.Request) {
		close(inHand)
		<-release
		if r.Context().Err() != nil {
			j.add("request cut")
		}
		j.add("request answered")
	})
	ops := bind(t, "ops", func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Service{
			Log: silent, Servers: []*Server{api}, Ops: []*Server{ops}, DrainDelay: time.Millisecond,
			NotReady: func() { j.add("not ready") },
			Tasks: []Task{{"task", func(ctx context.Context) error {
				<-ctx.Done()
				j.add("task ended")
				return ctx.Err()
			}}},
			Hooks: []Hook{
				{"flush", func(ctx context.Context) error {
					resp, err := get(ops)
					if err != nil {
						return err
					}
					j.add("flushed " + resp.Status)
					return ctx.Err()
				}},
				{"close", func(context.Context) error { j.add("closed"); return nil }},
			},
		})
	}()
	answered := ask(api)
	<-inHand
	cancel()
	awaitClosed(api) // with the request in hand
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("request in hand: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	want := []string{"not ready", "request answered", "task ended", "flushed 200 OK", "closed"}
	if !slices.Equal(j.lines, want) {
		t.Errorf("got %q, want %q", j.lines, want)
	}
	if _, err := get(ops); err == nil {
		t.Error("ops still answers")
	}
}

func TestRunServesAsLongAsCallersCome(t *testing.T) {
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	const delay = 200 * time.Millisecond
	go func() {
		ended <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, NotReady: func() {}, DrainDelay: delay})
	}()
	cancel()
	for begun := time.Now(); time.Since(begun) < 2*delay; {
		conn, err := net.Dial("tcp", api.Addr())
		if err != nil {
			t.Fatalf("%s after the signal: %v", time.Since(begun), err)
		}
		_ = conn.Close()
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// Senders that wait for their answers send nothing else: endpoints may not have moved.
func TestRunServesAsLongAsCallersWait(t *testing.T) {
	inHand, release := make(chan struct{}), make(chan struct{})
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {
		close(inHand)
		<-release
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	const delay = 300 * time.Millisecond
	go func() {
		ended <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, NotReady: func() {}, DrainDelay: delay})
	}()
	answered := ask(api)
	<-inHand
	cancel()
	<-time.After(2 * delay)
	conn, err := net.Dial("tcp", api.Addr())
	if err != nil {
		t.Errorf("a second caller: %v", err)
	} else {
		_ = conn.Close()
	}
	close(release)
	if err := errors.Join(<-answered, <-ended); err != nil {
		t.Error(err)
	}
}

func TestLingerEnds(t *testing.T) {
	const delay = time.Second
	for _, c := range []struct {
		what              string
		draining, silence time.Duration
		waits             bool
		want              time.Duration
	}{
		{"nobody comes", delay, time.Hour, false, 0},
		{"somebody has just come", delay, 0, false, quiet},
		{"a little while ago", delay, 300 * time.Millisecond, false, 200 * time.Millisecond},
		{"the third try of Kubernetes has moved nothing yet", delay + 7*time.Second, 0, false, quiet},
		{"they never cease", delay + maxLinger - time.Millisecond, 0, false, time.Millisecond},
		{"they never cease, and wait", delay + maxLinger, 0, true, 0},
		{"somebody waits, who may come again", delay, time.Second, true, quiet},
		{"for long", delay + maxWait - time.Millisecond, time.Second, true, time.Millisecond},
		{"for too long", delay + maxWait, time.Second, true, 0},
		{"and others come", delay + maxWait, 0, true, quiet},
	} {
		if got := linger(delay, c.draining, c.silence, c.waits); max(0, got) != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
	if got := linger(0, 0, 0, true); got > 0 {
		t.Errorf("without a delay: got %s", got)
	}
}

func TestRunServesDuringTheDrainDelay(t *testing.T) {
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	notReady := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, DrainDelay: 200 * time.Millisecond, NotReady: func() { close(notReady) }})
	}()
	if resp, err := get(api); err != nil || resp.Close {
		t.Fatalf("before: got %+v, %v", resp, err)
	}
	cancel()
	<-notReady
	for closing := false; !closing; {
		resp, err := get(api)
		if err != nil {
			t.Fatalf("while draining: %v", err)
		}
		closing = resp.Close
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunCutsRequestsThatDoNotEnd(t *testing.T) {
	inHand := make(chan struct{})
	api := bind(t, "api", func(_ http.ResponseWriter, r *http.Request) {
		close(inHand)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, NotReady: func() {}, ShutdownTimeout: 20 * time.Millisecond})
	}()
	go func() { _, _ = get(api) }()
	<-inHand
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "api server: requests were cut") {
		t.Errorf("got %v", err)
	}
}

// late is a listener that accepts nothing until it is told to, as one whose process gets no
// processor time.
type late struct {
	*net.TCPListener
	begin chan struct{}
}

func (l late) Accept() (net.Conn, error) {
	<-l.begin
	return l.TCPListener.Accept()
}

func TestConnectionsThatWaitToBeAcceptedAreServedBeforeTheEnd(t *testing.T) {
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {})
	begin := make(chan struct{})
	api.listener = late{api.listener.(*net.TCPListener), begin}
	ctx, cancel := context.WithCancel(t.Context())
	const delay = 300 * time.Millisecond
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Service{Log: silent, NotReady: func() {}, Servers: []*Server{api}, DrainDelay: delay})
	}()
	conn, err := net.Dial("tcp", api.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	cancel()
	time.AfterFunc(delay+100*time.Millisecond, func() { close(begin) }) // after the end of the delay
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Errorf("the connection came before the end and got: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunEndsWhenATaskFails(t *testing.T) {
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {})
	ready := true
	err := Run(t.Context(), Service{
		Log: silent, Servers: []*Server{api}, NotReady: func() { ready = false }, DrainDelay: time.Hour,
		Tasks: []Task{{"drain", func(context.Context) error { return errors.New("boom") }}},
		Hooks: []Hook{{"flush", func(context.Context) error { return errors.New("no peer") }}},
	})
	if err == nil || fmt.Sprint(err) != "drain: boom\nflush: no peer" || ready {
		t.Errorf("got %v, ready %v", err, ready)
	}
}

func TestATaskThatPanicsEndsTheServiceInOrder(t *testing.T) {
	flushed := false
	err := Run(t.Context(), Service{
		Log: silent, NotReady: func() {},
		Tasks: []Task{{"task", func(context.Context) error { panic("boom") }}},
		Hooks: []Hook{{"flush", func(context.Context) error { flushed = true; return nil }}},
	})
	if err == nil || !strings.Contains(err.Error(), "task: panicked: boom") || !flushed {
		t.Errorf("got %v, flushed %t", err, flushed)
	}
}

func TestRunTellsATaskThatDoesNotEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := make(chan struct{})
	defer close(never)
	err := Run(ctx, Service{
		Log: silent, NotReady: func() {}, ShutdownTimeout: 10 * time.Millisecond,
		Tasks: []Task{{"stuck", func(context.Context) error { <-never; return nil }}},
	})
	if err == nil || !strings.Contains(err.Error(), "not ended after 10ms") {
		t.Errorf("got %v", err)
	}
}

func TestBindNamesThePortThatIsTaken(t *testing.T) {
	first := bind(t, "api", nil)
	defer first.Close()
	_, err := Bind("metrics", first.Addr(), &http.Server{}, silent)
	if err == nil || !strings.Contains(err.Error(), "metrics server: listen tcp "+first.Addr()) {
		t.Errorf("got %v", err)
	}
}

func TestBindBoundsHeaders(t *testing.T) {
	s := bind(t, "api", nil)
	defer s.Close()
	if s.http.ReadHeaderTimeout == 0 || s.http.MaxHeaderBytes == 0 {
		t.Error("a server without bounds")
	}
}

func TestTLSServesHTTP2AndLetsSendersGo(t *testing.T) {
	// httptest has a certificate for 127.0.0.1 at hand.
	borrowed := httptest.NewTLSServer(nil)
	defer borrowed.Close()
	api, err := Bind("api", "127.0.0.1:0", &http.Server{
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		TLSConfig: &tls.Config{Certificates: borrowed.TLS.Certificates, MinVersion: tls.VersionTLS12},
	}, silent)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, NotReady: func() {}}) }()
	client := borrowed.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	for _, draining := range []bool{false, true, true} {
		api.draining.Store(draining)
		resp, err := client.Get("https://" + api.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("got %s, want HTTP/2", resp.Proto)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// endsWith runs api until a connection has been accepted that nothing was read from, and
// returns when no more are: as when a process gets no processor time at its end.
func endsWith(t *testing.T, api *Server) (late net.Conn, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		end <- Run(ctx, Service{Log: silent, Servers: []*Server{api}, NotReady: func() {}, ShutdownTimeout: 4 * time.Second})
	}()
	late, err := net.Dial("tcp", api.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	for api.inHand.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	cancel()
	awaitClosed(api)
	<-time.After(50 * time.Millisecond) // for net/http to be told, where it is told at once
	return late, end
}

func TestConnectionsThatWereAcceptedAreServedBeforeTheEnd(t *testing.T) {
	api := bind(t, "api", func(http.ResponseWriter, *http.Request) {})
	follow := api.http.ConnState
	api.http.ConnState = func(conn net.Conn, state http.ConnState) {
		follow(conn, state)
		if state == http.StateActive { // its request has been read, and its handler gets no processor time
			<-time.After(100 * time.Millisecond)
		}
	}
	late, ended := endsWith(t, api)
	fmt.Fprint(late, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(late), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the connection came before the end and got: %v, %v", resp, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRunEndsThoughAConnectionCameLate: its handshake ends after the server was told to shut
// down, and it asks for nothing, as one of several that a client has opened at once.
func TestRunEndsThoughAConnectionCameLate(t *testing.T) {
	borrowed := httptest.NewUnstartedServer(nil)
	borrowed.StartTLS()
	t.Cleanup(borrowed.Close)
	api, err := Bind("api", "127.0.0.1:0", &http.Server{TLSConfig: &tls.Config{Certificates: borrowed.TLS.Certificates}}, silent)
	if err != nil {
		t.Fatal(err)
	}
	late, ended := endsWith(t, api)
	conn := tls.Client(late, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	// The preface of HTTP/2, and no settings.
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
