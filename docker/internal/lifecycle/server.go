package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	// tellAgain is how long a connection that came at the last moment delays the end.
	tellAgain = time.Second
)

// Server is an HTTP server whose port is bound already, so that its address is
// known and connections queue from the first moment. Make one with Bind.
type Server struct {
	name     string
	http     *http.Server
	listener net.Listener
	draining atomic.Bool
	accepted atomic.Int64       // when the last connection came, in nanoseconds since 1970
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
	s := &Server{name: name, http: srv, listener: listener, abort: abort}
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.accepted.Store(time.Now().UnixNano())
		}
	}
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			// Each sender leaves after its next answer. Closing idle connections
			// instead would cut requests that are on their way.
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	return s, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// lastConnection returns when the last connection came, now if some are still to be
// accepted; 1970 if none has.
func (s *Server) lastConnection(now time.Time) time.Time {
	if s.waiting() > 0 {
		return now
	}
	return time.Unix(0, s.accepted.Load())
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
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s server: %w", s.name, err)
	}
	return nil
}

// tell tells all connections that the server ends, and waits a while until they have gone.
// net/http tells those of HTTP/2 only once, and waits for ever for one whose handshake ends
// after that: https://github.com/golang/go/blob/go1.26.0/src/net/http/server.go#L1946.
func (s *Server) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tellAgain)
	defer cancel()
	return s.http.Shutdown(ctx)
}

// shutdown stops accepting, waits for the requests in hand until ctx ends, and cuts
// what is left then.
func (s *Server) shutdown(ctx context.Context) error {
	defer s.abort()
	err := s.tell(ctx)
	for errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = s.tell(ctx)
	}
	if err != nil {
		s.abort()
		return fmt.Errorf("%s server: requests were cut: %w", s.name, errors.Join(err, s.http.Close()))
	}
	return nil
}
