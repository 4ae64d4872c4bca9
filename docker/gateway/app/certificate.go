package app

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// certificateMaxAge is how long a renewed certificate may lie unused. Kubernetes
// itself takes up to a minute to bring one to a pod.
const certificateMaxAge = 10 * time.Second

// certificate is a key pair in files. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string

	mu   sync.Mutex
	pair *tls.Certificate
	read time.Time
}

// get returns the pair, read again when what is known is older than ten seconds.
// While the files cannot be read the pair that is known goes on being served.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair != nil && time.Since(c.read) < certificateMaxAge {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.pair, c.read = &pair, time.Now()
	case c.pair == nil:
		return nil, fmt.Errorf("server.tls: %w", err)
	}
	return c.pair, nil
}
