package request

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestARefusedSenderGetsItsAnswer sends as a slow sender does, which is not done when it is
// refused.
func TestARefusedSenderGetsItsAnswer(t *testing.T) {
	const size = 2 << 20
	server := httptest.NewServer(Discard(size)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})))
	t.Cleanup(server.Close)
	for name, c := range map[string]struct {
		head    string
		parts   []int // of the body, which has size bytes, with a second between them
		again   bool  // another request follows on the connection
		atLeast time.Duration
	}{
		"that sends all":            {"", []int{size / 2, size / 2}, true, time.Second},
		"that sends no more":        {"", []int{size / 2}, false, discardTime},
		"that asks before it sends": {"Expect: 100-continue\r\n", nil, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			begun := time.Now()
			if err := conn.SetDeadline(begun.Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			answers := bufio.NewReader(conn)
			for range map[bool]int{false: 1, true: 2}[c.again] {
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n", size, c.head)
				for i, n := range c.parts {
					if i > 0 {
						<-time.After(time.Second)
					}
					if _, err := conn.Write(make([]byte, n)); err != nil {
						t.Fatal(err)
					}
				}
				answer, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = answer.Body.Close()
				if took := time.Since(begun); answer.StatusCode != http.StatusServiceUnavailable || took < c.atLeast || took > c.atLeast+5*time.Second {
					t.Errorf("got %s after %s", answer.Status, took)
				}
			}
		})
	}
}

// TestOnlyAStrangersBodyIsLeft: it may cost nothing.
func TestOnlyAStrangersBodyIsLeft(t *testing.T) {
	for status, want := range map[int]int{http.StatusUnauthorized: 1000, http.StatusForbidden: 0, http.StatusServiceUnavailable: 0} {
		left := strings.NewReader(strings.Repeat("x", 1000))
		Discard(2000)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			w.WriteHeader(status)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", left))
		if left.Len() != want {
			t.Errorf("%d: %d bytes are left, want %d", status, left.Len(), want)
		}
	}
}
