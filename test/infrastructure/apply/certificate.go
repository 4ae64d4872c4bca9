package apply

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

const (
	// lifetime of certificates outlives any test cluster.
	lifetime = 365 * 24 * time.Hour
	// renewBefore is how much of its life a certificate must have left to be kept: a
	// day is longer than any run.
	renewBefore = 24 * time.Hour
	// backdate allows for a node whose clock is behind this machine's.
	backdate = time.Hour
)

// authority signs certificates: ECDSA P-256, because a handshake with it costs a
// tenth of one with RSA.
type authority struct {
	certPEM, keyPEM []byte
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate("kubernaut e2e", now)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	certPEM, keyPEM, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return readAuthority(map[string][]byte{certKey: certPEM, keyKey: keyPEM}, now)
}

// readAuthority returns the authority that a Secret's data holds. It is an error
// when there is none or its certificate has come to its end.
func readAuthority(data map[string][]byte, now time.Time) (*authority, error) {
	pair, err := tls.X509KeyPair(data[certKey], data[keyKey])
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not ECDSA")
	}
	if !pair.Leaf.IsCA {
		return nil, errors.New("its certificate is not a CA's")
	}
	if now.After(pair.Leaf.NotAfter.Add(-renewBefore)) {
		return nil, fmt.Errorf("its certificate ends at %s", pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &authority{certPEM: data[certKey], keyPEM: data[keyKey], cert: pair.Leaf, key: key}, nil
}

// bundle is what clients must trust.
func (a *authority) bundle() []byte { return a.certPEM }

// issue makes a certificate for DNS names and IP addresses, for servers and
// clients.
func (a *authority) issue(names []string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template, err := newTemplate(names[0], now)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames, template.IPAddresses = splitNames(names)
	return sign(template, a.cert, key, a.key)
}

// signed reports whether a pair is one that issue would make for these names and
// may be kept.
func (a *authority) signed(certPEM, keyPEM []byte, names []string, now time.Time) bool {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false
	}
	if pair.Leaf.CheckSignatureFrom(a.cert) != nil || now.After(pair.Leaf.NotAfter.Add(-renewBefore)) {
		return false
	}
	dns, ips := splitNames(names)
	return slices.Equal(pair.Leaf.DNSNames, dns) && slices.EqualFunc(pair.Leaf.IPAddresses, ips, net.IP.Equal)
}

func splitNames(names []string) (dns []string, ips []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

func newTemplate(commonName string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		BasicConstraintsValid: true,
	}, nil
}

func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return certPEM, keyPEM, nil
}
