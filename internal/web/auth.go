package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"golang.org/x/time/rate"
)

const maxKeyBytes = 512

// Caller is who holds a key, and what it allows.
type Caller struct {
	Name    string   // who acts: admin:NAME
	ID      string   // of the key
	Scopes  []string // what it may do
	Limited bool     // to callRate requests a second
}

// Keyring knows the keys that people were given. Find returns nil for one that
// opens nothing. Errors: Unavailable.
type Keyring interface {
	Find(ctx context.Context, key string) (*Caller, error)
}

// AllScopes stands for every scope there is and will be.
const AllScopes = "*"

var bootstrap = &Caller{Name: "admin:bootstrap", ID: "bootstrap", Scopes: []string{AllScopes}}

func (c *Caller) has(scope string) bool {
	return slices.Contains(c.Scopes, scope) || slices.Contains(c.Scopes, AllScopes)
}

// gate lets holders of a key in, as far as its scopes go.
type gate struct {
	digests  [][sha256.Size]byte
	ring     Keyring // may be nil
	failures *limits // by address
	calls    *limits // by key
}

const (
	failureBurst = 30
	failureEvery = 2 * time.Second // 30 a minute
	callRate     = 50              // requests a second of one key
	callBurst    = 100
)

func newGate(keys []string, ring Keyring) *gate {
	g := &gate{
		ring:     ring,
		failures: newLimits(rate.Every(failureEvery), failureBurst), calls: newLimits(callRate, callBurst),
	}
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

// check answers 401 without a good key, and 403 when it has not the scopes that
// the operation declares. A bad key uses up the failures its sender's address has.
func (g *gate) check(hc huma.Context, next func(huma.Context)) {
	if address := hc.URL(); keyInQuery(address.RawQuery) {
		failHuma(hc, Refuse(http.StatusBadRequest, "key_in_query",
			"An API key does not belong into the address, where proxies and browsers keep it. Revoke this key, and send a new one as Authorization: Bearer KEY."))
		return
	}
	caller, err := g.caller(humagin.Unwrap(hc))
	if err == nil {
		err = g.permit(caller, hc.Operation())
	}
	if err != nil {
		failHuma(hc, err)
		return
	}
	next(huma.WithContext(hc, As(hc.Context(), caller)))
}

// caller is who knocks. Errors: Unauthorized, or 429 after too many of those;
// Unavailable.
func (g *gate) caller(c *gin.Context) (*Caller, error) {
	if key, ok := bearerKey(c.Request.Header); ok {
		if g.knows(key) {
			return bootstrap, nil
		}
		if g.ring != nil {
			caller, err := g.ring.Find(c.Request.Context(), key)
			if caller != nil || err != nil {
				return caller, err
			}
		}
	}
	if wait := g.failures.add(network(c.ClientIP()), time.Now()); wait > 0 {
		return nil, later("too_many_failures", "Too many failed logins from your address.", wait)
	}
	return nil, Refuse(http.StatusUnauthorized, "unauthorized", "Send a valid API key as Authorization: Bearer KEY.")
}

// permit refuses a caller without the scopes of an operation, or in a hurry.
func (g *gate) permit(caller *Caller, op *huma.Operation) error {
	if caller.Limited {
		if wait := g.calls.add(caller.ID, time.Now()); wait > 0 {
			return later("too_many_requests", "Too many requests with this key.", wait)
		}
	}
	for _, scope := range scopesOf(op) {
		if !caller.has(scope) {
			return Refuse(http.StatusForbidden, "missing_scope", "This key may not do that: it lacks the scope %s.", scope)
		}
	}
	return nil
}

func later(code, text string, wait time.Duration) error {
	p := Refuse(http.StatusTooManyRequests, code, "%s", text)
	p.retryAfter = int(math.Ceil(wait.Seconds()))
	return p
}

// Needs is the Security of an operation that takes a key with all these scopes.
func Needs(scopes ...string) []map[string][]string {
	return []map[string][]string{{"bearer": scopes}}
}

func scopesOf(op *huma.Operation) []string { return op.Security[0]["bearer"] }

type callerKey struct{}

// As returns ctx in which caller acts.
func As(ctx context.Context, caller *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// Actor returns who acts: admin:NAME, admin:bootstrap for a key of [APIOptions];
// "" where nobody has logged in.
func Actor(ctx context.Context) string {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c.Name
	}
	return ""
}

// CallerID returns the id of the key of who acts, "" where nobody has logged in.
func CallerID(ctx context.Context) string {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c.ID
	}
	return ""
}

// Allowed reports whether who acts has a scope.
func Allowed(ctx context.Context, scope string) bool {
	c, ok := ctx.Value(callerKey{}).(*Caller)
	return ok && c.has(scope)
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

// limits counts what somebody does too often, in memory of this process: it must
// work when Redis does not.
type limits struct {
	rate  rate.Limit
	burst int

	mu  sync.Mutex
	who map[string]*rate.Limiter
}

const maxWho = 10_000

func newLimits(r rate.Limit, burst int) *limits {
	return &limits{rate: r, burst: burst, who: map[string]*rate.Limiter{}}
}

// add counts one more and returns 0, or how long who has to wait.
func (f *limits) add(who string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.who[who]
	if limit == nil {
		f.makeRoom(now)
		limit = rate.NewLimiter(f.rate, f.burst)
		f.who[who] = limit
	}
	r := limit.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// makeRoom forgets those whose doings are long past; when too many are
// fresh, a quarter of them, so that it is not done for every newcomer.
func (f *limits) makeRoom(now time.Time) {
	if len(f.who) < maxWho {
		return
	}
	for who, limit := range f.who {
		if limit.TokensAt(now) >= float64(f.burst) {
			delete(f.who, who)
		}
	}
	for who := range f.who {
		if len(f.who) <= maxWho*3/4 {
			return
		}
		delete(f.who, who)
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
