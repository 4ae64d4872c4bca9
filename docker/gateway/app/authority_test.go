package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestARenewedAuthorityIsTrusted: client-go reads the CA's file again, which a new version
// of it might not do.
func TestARenewedAuthorityIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	foreign, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ca.crt")
		trust := func(der []byte) {
			if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		trust(foreign)
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
		trust(server.Certificate().Raw)
		<-time.After(5 * time.Minute)
		for _, client := range []*http.Client{writes, probes} {
			if err := get(client); err != nil {
				t.Errorf("the renewed CA: got %v", err)
			}
		}
	})
}
