package request

import (
	"io"
	"net/http"
	"time"
)

// discardTime is how long a sender may take to send what nobody wants: many are refused at once
// on a busy machine. It fits between the deadlines of a request and of its answer.
const discardTime = 4 * time.Second

// Discard reads up to limit bytes of what its handler has left of a body, and throws them
// away, before the answer goes out. A sender that is refused while it still writes would
// have its connection reset otherwise, and many never see the answer then. The body
// of one who is answered 401 is left: strangers cost nothing. It comes before what judges
// callers, which may be at a loss.
func Discard(limit int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// HTTP/2 ends the request alone, and who asks before the body is sent sends none.
			if r.ContentLength == 0 || r.ProtoMajor != 1 || r.Header.Get("Expect") != "" {
				next.ServeHTTP(w, r)
				return
			}
			body := &body{ReadCloser: r.Body}
			sent := *r
			sent.Body = body
			next.ServeHTTP(w, &sent)
			if body.ended || w.Header().Get("WWW-Authenticate") != "" {
				return // a deadline would end what the server reads now: the next request
			}
			connection := http.NewResponseController(w)
			_ = connection.SetReadDeadline(time.Now().Add(discardTime)) // a recorder in tests has none
			_, _ = io.CopyN(io.Discard, body, limit)
			if !body.ended {
				_ = connection.SetReadDeadline(time.Time{})
			}
		})
	}
}

// body knows whether there is more of it.
type body struct {
	io.ReadCloser
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err != nil
	return n, err
}
