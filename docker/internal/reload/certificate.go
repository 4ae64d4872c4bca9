// Package reload reads again what is renewed in files while a service runs: certificates,
// authorities and passwords, as Kubernetes and cert-manager bring them.
package reload

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"sync"
	"time"
)

// maxAge is how long what was renewed may lie unused. Reading is cheap; with every
// connection it would not be. Kubernetes itself takes up to a minute to bring it to a pod.
const maxAge = time.Second

// TLS returns the configuration of a server with the key pair in these PEM files, which
// is read again when it is older than a second. While the files cannot be read the
// pair that is known goes on being served; at first they have to be readable.
func TLS(certFile, keyFile string) (*tls.Config, error) {
	pair := &value[*tls.Certificate]{read: func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}}
	if _, err := pair.get(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
	}, nil
}

// Roots returns a function that tells which authorities a PEM file names, as TLS does for a
// key pair.
func Roots(caFile string) func() (*x509.CertPool, error) {
	roots := &value[*x509.CertPool]{read: func() (*x509.CertPool, error) {
		data, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, errors.New(caFile + ": holds no certificate")
		}
		return pool, nil
	}}
	return roots.get
}

// Secret returns a function that tells the text in a file without the line break that
// editors add, as TLS does for a key pair. Without a path it is empty.
func Secret(path string) func() (string, error) {
	if path == "" {
		return func() (string, error) { return "", nil }
	}
	text := &value[string]{read: func() (string, error) {
		data, err := os.ReadFile(path)
		return strings.TrimRight(string(data), "\r\n"), err
	}}
	return text.get
}

// value is what is read again. It is safe for concurrent use.
type value[T any] struct {
	read func() (T, error)

	mu    sync.Mutex
	known T
	at    time.Time // zero before the first reading
}

func (v *value[T]) get() (T, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.at.IsZero() && time.Since(v.at) < maxAge {
		return v.known, nil
	}
	fresh, err := v.read()
	switch {
	case err == nil:
		v.known, v.at = fresh, time.Now()
	case v.at.IsZero():
		return fresh, err
	}
	return v.known, nil
}
