package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readHeaderTimeout cuts connections that send their headers drop by drop.
	readHeaderTimeout = 5 * time.Second
	// maxHeaderBytes holds the longest ServiceAccount token many times over.
	maxHeaderBytes = 64 << 10
	// receiveBuffer bounds what a connection sends before it is read: HTTP/2 takes a
	// megabyte of each otherwise, outside of every budget.
	receiveBuffer = 128 << 10
)

// Server is an HTTP server whose port is bound already, so that its address is
// known and connections queue from the first moment. Make one with Bind.
type Server struct {
	name     string
	http     *http.Server
	listener net.Listener
	served   chan struct{} // closed when no more connections are accepted
	draining atomic.Bool
	heard    atomic.Int64       // when a caller last ceased to wait, in nanoseconds since 1970
	inHand   atomic.Int64       // how many connections and requests somebody waits at for an answer
	unread   sync.Map           // net.Conn -> nil: connections whose first request nobody handles yet
	reading  sync.WaitGroup     // counts unread
	abort    context.CancelFunc // ends the contexts of the requests in hand
}

// Bind opens addr ("host:port", port 0 for a free one) for srv. ReadHeaderTimeout,
// MaxHeaderBytes, HTTP2 and ErrorLog get defaults; TLS is served when srv.TLSConfig is set,
// which then holds the certificate.
// The caller hands the Server to Run, which closes it.
func Bind(name, addr string, srv *http.Server, log *slog.Logger) (*Server, error) {
	// Requests must outlive the signal that ends the process: they have a context
	// of their own, which ends when shutting down takes too long.
	ctx, abort := context.WithCancel(context.Background())
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		abort()
		return nil, fmt.Errorf("%s server: %w", name, err)
	}
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = readHeaderTimeout
	}
	if srv.MaxHeaderBytes == 0 {
		srv.MaxHeaderBytes = maxHeaderBytes
	}
	if srv.HTTP2 == nil {
		srv.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: receiveBuffer, MaxReceiveBufferPerStream: receiveBuffer / 2}
	}
	if srv.ErrorLog == nil {
		srv.ErrorLog = slog.NewLogLogger(log.With("server", name).Handler(), slog.LevelDebug)
	}
	s := &Server{name: name, http: srv, listener: listener, served: make(chan struct{}), abort: abort}
	srv.ConnState = s.follow
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connection{}, conn)
	}
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			// Each sender leaves after its next answer. Closing idle connections
			// instead would cut requests that are on their way.
			w.Header().Set("Connection", "close")
		}
		s.inHand.Add(1)
		defer s.answered()
		s.read(r.Context().Value(connection{}))
		handler.ServeHTTP(w, r)
	})
	return s, nil
}

// connection is the key of a request's net.Conn in its context.
type connection struct{}

// follow is told by net/http what becomes of each connection. That one of HTTP/1 is active says
// only that its request has been read; one of HTTP/2 becomes idle before its first.
func (s *Server) follow(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.inHand.Add(1)
		s.reading.Add(1)
		s.unread.Store(conn, nil)
	case http.StateIdle, http.StateClosed, http.StateHijacked:
		s.read(conn)
	case http.StateActive:
	}
}

// read is called when a connection has got so far that the end of the server cuts nothing off.
func (s *Server) read(conn any) {
	if _, was := s.unread.LoadAndDelete(conn); was {
		s.reading.Done()
		s.answered()
	}
}

// answered is called when somebody need not wait any more.
func (s *Server) answered() {
	s.heard.Store(time.Now().UnixNano())
	s.inHand.Add(-1)
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// lastHeard returns when a caller came or was answered last, now if one has just come, 1970
// if nobody has; and whether somebody waits for an answer. Callers that wait send nothing
// else, so that their silence says nothing.
func (s *Server) lastHeard(now time.Time) (at time.Time, waits bool) {
	if s.waiting() > 0 {
		return now, true
	}
	return time.Unix(0, s.heard.Load()), s.inHand.Load() > 0
}

// waiting is how many connections have come that nobody has accepted yet, as on a machine
// that is busy. Closing the listener would reset them: their callers see "connect: connection
// reset by peer".
func (s *Server) waiting() int {
	listener, ok := s.listener.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return 0
	}
	waiting := 0
	_ = raw.Control(func(fd uintptr) { // fails for a listener that is closed, where nothing waits
		// Of a socket that listens the kernel tells here how many are in its accept queue.
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			waiting = int(info.Unacked)
		}
	})
	return waiting
}

// Close gives the port of a server that was never run back.
func (s *Server) Close() error {
	s.abort()
	return s.listener.Close()
}

// serve blocks until the server is shut down.
func (s *Server) serve() error {
	defer close(s.served)
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%s server: %w", s.name, err)
	}
	return nil
}

// shutdown stops accepting, waits for the requests in hand until ctx ends, and cuts
// what is left then.
func (s *Server) shutdown(ctx context.Context) error {
	defer s.abort()
	_ = s.listener.Close() // fails when serve has failed and closed it
	<-s.served
	s.settle(ctx)
	if err := s.http.Shutdown(ctx); err != nil {
		s.abort()
		return fmt.Errorf("%s server: requests were cut: %w", s.name, errors.Join(err, s.http.Close()))
	}
	return nil
}

// settle waits until the first request of every connection is handled, for as long as headers
// may take. From when it is told to shut down, net/http closes a connection of HTTP/1 whose
// first request it reads, without an answer, and waits for ever for one of HTTP/2 whose
// handshake ends after that:
// https://github.com/golang/go/blob/go1.26.0/src/net/http/server.go#L1994 and #L1946.
func (s *Server) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.http.ReadHeaderTimeout)
	defer cancel()
	ends(ctx, &s.reading)
}
