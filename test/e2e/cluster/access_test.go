package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestExpire(t *testing.T) {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		block  *pem.Block
		verify func(digest, signature []byte) bool
	}{
		"with an ECDSA key": {
			block: &pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER},
			verify: func(digest, signature []byte) bool {
				r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
				return len(signature) == 64 && ecdsa.Verify(&ecKey.PublicKey, digest, r, s)
			},
		},
		"with an RSA key": {
			block: &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)},
			verify: func(digest, signature []byte) bool {
				return rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA256, digest, signature) == nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"system:serviceaccount:ns:sender","exp":99999999999}`))
			expired, err := Expire("header."+claims+".signature", pem.EncodeToMemory(test.block))
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(expired, ".")
			digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
			signature, err := base64.RawURLEncoding.DecodeString(parts[2])
			if err != nil || !test.verify(digest[:], signature) {
				t.Errorf("signature of %s does not verify (%v)", expired, err)
			}
			var got struct {
				Sub string
				Exp int64
			}
			raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
			if err := json.Unmarshal(raw, &got); err != nil {
				t.Fatal(err)
			}
			if got.Sub != "system:serviceaccount:ns:sender" || time.Unix(got.Exp, 0).After(time.Now()) {
				t.Errorf("claims %+v, want the same subject and an end in the past", got)
			}
		})
	}
}

func TestExpireRefuses(t *testing.T) {
	for name, token := range map[string]string{
		"what is no JWT":            "token",
		"claims that are no base64": "a.!.c",
		"claims that are no JSON":   "a.YQ.c",
		"a key that is no PEM":      "a.e30.c",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Expire(token, []byte("no key")); err == nil {
				t.Errorf("Expire(%q) = %q, want an error", token, got)
			}
		})
	}
}
