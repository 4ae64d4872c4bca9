package access

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// claims are what is read of a token before anybody is asked about it. None of it is
// believed: a token that does not claim it cannot be valid, one that does is reviewed.
type claims struct {
	Issuer   string    `json:"iss"`
	Audience audiences `json:"aud"`
	Expiry   float64   `json:"exp"` // seconds since 1970; 0 for none
}

// audiences is one text or a list of them (RFC 7519, section 4.1.3).
type audiences []string

// UnmarshalJSON takes both forms.
func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// read returns the claims of a JSON Web Token.
func read(token string) (claims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] == "" || parts[2] == "" {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, false
	}
	var c claims
	return c, json.Unmarshal(payload, &c) == nil
}

// doubt says why a token cannot be valid, or "" if it may be.
func (v *Reviewer) doubt(token string) string {
	c, ok := read(token)
	issuer := v.issuer()
	switch {
	case !ok:
		return "the bearer token is not a ServiceAccount token"
	case issuer != "" && c.Issuer != issuer:
		return "the bearer token is not one of this cluster"
	case !slices.Contains(c.Audience, v.audience):
		return "the bearer token is not for the audience " + v.audience
	case c.Expiry != 0 && time.Now().After(time.Unix(int64(c.Expiry), 0)):
		return "the bearer token has expired"
	}
	return ""
}

// issuerAge is how long a known issuer is believed. It changes when somebody
// reconfigures the API server.
const issuerAge = time.Minute

// Issuer returns a function that tells who issues the cluster's tokens: the issuer of
// the process's own, which it is connected to the cluster with. It returns "" while that
// is not known, as for a client certificate.
func Issuer(cluster *rest.Config) func() string {
	var mu sync.Mutex
	var issuer string
	var known time.Time
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(known) < issuerAge {
			return issuer
		}
		token := cluster.BearerToken
		if cluster.BearerTokenFile != "" {
			if data, err := os.ReadFile(cluster.BearerTokenFile); err == nil {
				token = string(data)
			}
		}
		if c, ok := read(strings.TrimSpace(token)); ok {
			issuer, known = c.Issuer, time.Now()
		}
		return issuer
	}
}
