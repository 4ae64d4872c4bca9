package journal

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-ID", "id-of-"+r.URL.Path[1:])
		_, _ = io.Copy(w, r.Body)
	}))
	defer server.Close()
	var j Journal
	client := &http.Client{Transport: j.Transport(http.DefaultTransport)}
	post := func(path, body string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer secret")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}

	t.Run("passes the answer on", func(t *testing.T) {
		if got := post("/first", "hello"); got != "hello" {
			t.Errorf("answer %q, want hello", got)
		}
	})
	t.Run("remembers what was said, and no credential", func(t *testing.T) {
		got := j.Exchanges()[0].String()
		for _, want := range []string{"POST " + server.URL + "/first", "hello", "200", "id-of-first"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q does not hold %q", got, want)
			}
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%q holds the token", got)
		}
	})
	t.Run("cuts what is long", func(t *testing.T) {
		post("/long", strings.Repeat("x", 2*shownBytes))
		last := j.Exchanges()[len(j.Exchanges())-1]
		if len(last.Body) > shownBytes+20 || len(last.Answer) > shownBytes+20 {
			t.Errorf("kept %d and %d bytes, want about %d", len(last.Body), len(last.Answer), shownBytes)
		}
	})
	t.Run("forgets the oldest", func(t *testing.T) {
		for range 2 * kept {
			post("/more", "x")
		}
		if got := len(j.Exchanges()); got != kept {
			t.Errorf("%d exchanges, want %d", got, kept)
		}
	})
	t.Run("remembers that no answer came", func(t *testing.T) {
		server.Close()
		j.Reset()
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if response, err := client.Do(request); err == nil {
			_ = response.Body.Close()
			t.Fatal("an answer came from a closed server")
		}
		if got := j.Exchanges(); len(got) != 1 || got[0].Err == nil {
			t.Errorf("exchanges %v, want one with an error", got)
		}
	})
}
