package reload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// pair writes a key pair of that serial number.
func pair(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestARenewedCertificateIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		if _, err := TLS(certFile, keyFile); err == nil {
			t.Error("files that are not there: got no error")
		}
		pair(t, certFile, keyFile, 1)
		config, err := TLS(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		served := func(want int64) {
			t.Helper()
			got, err := config.GetCertificate(nil)
			if err != nil || got.Leaf.SerialNumber.Int64() != want {
				t.Errorf("got %v, %v, want number %d", got.Leaf.SerialNumber, err, want)
			}
		}
		served(1)
		pair(t, certFile, keyFile, 2)
		served(1) // not read for every connection
		<-time.After(maxAge)
		served(2)
		write(t, certFile, "half written")
		<-time.After(maxAge)
		served(2)
		pair(t, certFile, keyFile, 3)
		served(3) // what could not be read is tried again at once
	})
}

func TestARenewedSecretIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "password")
		secret := Secret(path)
		if _, err := secret(); err == nil {
			t.Error("a file that is not there: got no error")
		}
		write(t, path, "one\n")
		if got, err := secret(); got != "one" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		write(t, path, "two\r\n")
		<-time.After(maxAge)
		if got, err := secret(); got != "two" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got, err := Secret("")(); got != "" || err != nil {
			t.Errorf("no path: got %q, %v", got, err)
		}
	})
}
