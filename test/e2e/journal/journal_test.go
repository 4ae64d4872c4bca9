package journal_test

import (
	"net/http"
	"testing"

	"kubernaut.ai/e2e/test/e2e/journal"
)

type closer struct {
	http.RoundTripper
	closed bool
}

func (c *closer) CloseIdleConnections() { c.closed = true }

func TestIdleConnectionsAreClosed(t *testing.T) {
	next := &closer{}
	client := &http.Client{Transport: new(journal.Journal).Transport(next)}
	client.CloseIdleConnections()
	if !next.closed {
		t.Error("the transport that has the connections was not told")
	}
}
