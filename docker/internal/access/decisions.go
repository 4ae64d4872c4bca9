package access

import (
	"crypto/sha256"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"kubernaut.ai/e2e/docker/internal/problem"
)

// decision is what the API server said about one token and verb. No user means
// that the token is not valid.
type decision struct {
	user    string
	allowed bool
	until   time.Time // when it is forgotten
}

// answer turns a decision into the user's name or the problem to answer.
func (d decision) answer() (string, error) {
	switch {
	case d.allowed:
		return d.user, nil
	case d.user == "":
		return "", unauthorized("the bearer token is not valid")
	default:
		return "", problem.New(http.StatusForbidden, "forbidden", "the sender is not allowed to do this")
	}
}

// key identifies a token and a verb without holding the token.
type key = [sha256.Size]byte

// decisions remembers. What was allowed and what was refused are kept apart, so
// that a flood of invalid tokens cannot push out those that work.
type decisions struct {
	allowed, denied   *lru.Cache[key, decision]
	allowTTL, denyTTL time.Duration
	good              *lru.Cache[key, struct{}] // what was allowed once
}

// newDecisions returns an empty memory; size is at least 1.
func newDecisions(size int, allowTTL, denyTTL time.Duration) *decisions {
	// The only error is a size below 1, which New does not let through.
	allowed, _ := lru.New[key, decision](size)
	denied, _ := lru.New[key, decision](size)
	good, _ := lru.New[key, struct{}](size)
	return &decisions{allowed: allowed, denied: denied, good: good, allowTTL: allowTTL, denyTTL: denyTTL}
}

// proven reports whether the key was allowed once, however long ago.
func (c *decisions) proven(k key) bool { return c.good.Contains(k) }

// get returns what is known and still fresh.
func (c *decisions) get(k key) (decision, bool) {
	for _, cache := range []*lru.Cache[key, decision]{c.allowed, c.denied} {
		if d, ok := cache.Get(k); ok {
			if time.Now().Before(d.until) {
				return d, true
			}
			cache.Remove(k)
		}
	}
	return decision{}, false
}

// put remembers d in place of what was known.
func (c *decisions) put(k key, d decision) {
	if d.allowed {
		d.until = time.Now().Add(c.allowTTL)
		c.denied.Remove(k)
		c.allowed.Add(k, d)
		c.good.Add(k, struct{}{})
		return
	}
	d.until = time.Now().Add(c.denyTTL)
	c.allowed.Remove(k)
	c.denied.Add(k, d)
}
