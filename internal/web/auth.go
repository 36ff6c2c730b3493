package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"golang.org/x/time/rate"
)

const maxKeyBytes = 512

// gate lets holders of a key in.
type gate struct {
	digests  [][sha256.Size]byte
	failures *failures
}

func newGate(keys []string) *gate {
	if len(keys) == 0 {
		panic("web: the admin API needs a key")
	}
	g := &gate{failures: newFailures()}
	for _, key := range keys {
		if !sendable(key) {
			panic("web: an admin key must have 1 to 512 visible ASCII characters")
		}
		g.digests = append(g.digests, sha256.Sum256([]byte(key)))
	}
	return g
}

func sendable(key string) bool {
	for _, b := range []byte(key) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return key != "" && len(key) <= maxKeyBytes
}

// check answers 401 without a good key. A good key is never limited; a bad
// one uses up the failures its sender's address has.
func (g *gate) check(hc huma.Context, next func(huma.Context)) {
	if address := hc.URL(); keyInQuery(address.RawQuery) {
		failHuma(hc, Refuse(http.StatusBadRequest, "key_in_query",
			"An API key does not belong into the address, where proxies and browsers keep it. Revoke this key, and send a new one as Authorization: Bearer KEY."))
		return
	}
	c := humagin.Unwrap(hc)
	if key, ok := bearerKey(c.Request.Header); ok && g.knows(key) {
		next(huma.WithValue(hc, actorKey{}, "admin:bootstrap"))
		return
	}
	if wait := g.failures.add(c.ClientIP(), time.Now()); wait > 0 {
		p := Refuse(http.StatusTooManyRequests, "too_many_failures", "Too many failed logins from your address.")
		p.retryAfter = int(math.Ceil(wait.Seconds()))
		failHuma(hc, p)
		return
	}
	failHuma(hc, Refuse(http.StatusUnauthorized, "unauthorized", "Send a valid API key as Authorization: Bearer KEY."))
}

// bearerKey reads the one Authorization header (RFC 6750, 2.1).
func bearerKey(h http.Header) (string, bool) {
	said := h.Values("Authorization")
	if len(said) != 1 {
		return "", false
	}
	scheme, key, _ := strings.Cut(said[0], " ")
	return key, strings.EqualFold(scheme, "Bearer") && sendable(key)
}

// knows compares with every digest, so that the time tells nothing.
func (g *gate) knows(key string) bool {
	digest := sha256.Sum256([]byte(key))
	found := 0
	for _, d := range g.digests {
		found |= subtle.ConstantTimeCompare(digest[:], d[:])
	}
	return found == 1
}

func keyInQuery(raw string) bool {
	query, _ := url.ParseQuery(raw)
	for name := range query {
		switch strings.ToLower(name) {
		case "api_key", "apikey", "key", "access_token":
			return true
		}
	}
	return false
}

// failures counts failed logins by address, in memory of this process: it must
// work when Redis does not.
type failures struct {
	mu     sync.Mutex
	byAddr map[string]*rate.Limiter
}

const (
	failureBurst = 30
	failureEvery = 2 * time.Second // 30 a minute
	maxAddresses = 10_000
)

func newFailures() *failures { return &failures{byAddr: map[string]*rate.Limiter{}} }

// add counts a failure and returns 0, or how long its address has to wait.
func (f *failures) add(ip string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.byAddr[network(ip)]
	if limit == nil {
		f.makeRoom(now)
		limit = rate.NewLimiter(rate.Every(failureEvery), failureBurst)
		f.byAddr[network(ip)] = limit
	}
	r := limit.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// makeRoom forgets addresses whose failures are long past; when too many are
// fresh, a quarter of them, so that it is not done for every newcomer.
func (f *failures) makeRoom(now time.Time) {
	if len(f.byAddr) < maxAddresses {
		return
	}
	for ip, limit := range f.byAddr {
		if limit.TokensAt(now) >= failureBurst {
			delete(f.byAddr, ip)
		}
	}
	for ip := range f.byAddr {
		if len(f.byAddr) <= maxAddresses*3/4 {
			return
		}
		delete(f.byAddr, ip)
	}
}

// network is what one sender surely has for itself: an IPv4 address, a /64 of IPv6.
func network(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Unmap().Is4() {
		return ip
	}
	p, _ := addr.WithZone("").Prefix(64)
	return p.String()
}
