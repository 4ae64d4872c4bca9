package app

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kubernaut.ai/e2e/docker/internal/reload/reloadtest"
)

// TestARenewedAuthorityIsTrusted: client-go reads the CA's file again, which a new version
// of it might not do.
func TestARenewedAuthorityIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	foreign := reloadtest.Foreign(t)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ca.crt")
		reloadtest.Trust(t, path, foreign)
		writes, probes, err := dataStorageClients(DataStorageConfig{CAFile: path})
		if err != nil {
			t.Fatal(err)
		}
		get := func(client *http.Client) error {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Close = true
			answer, err := client.Do(request)
			if err != nil {
				return err
			}
			return answer.Body.Close()
		}
		for _, client := range []*http.Client{writes, probes} {
			if err := get(client); !errors.As(err, new(x509.UnknownAuthorityError)) {
				t.Errorf("a foreign CA: got %v", err)
			}
		}
		reloadtest.Trust(t, path, server.Certificate().Raw)
		<-time.After(5 * time.Minute)
		for _, client := range []*http.Client{writes, probes} {
			if err := get(client); err != nil {
				t.Errorf("the renewed CA: got %v", err)
			}
		}
	})
}
