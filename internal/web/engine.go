// Package web is what every HTTP route shares: the engine with its log line,
// limits and refusals, problem answers, the admin API with its login, pages of
// lists and the form of money. It knows no domain.
package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
)

// Options says how the engine meets the network.
type Options struct {
	// TrustedProxies are addresses or CIDR ranges whose X-Forwarded-For and
	// X-Forwarded-Proto are believed. Empty: nobody is.
	TrustedProxies []string
	// RequireHTTPS refuses plain requests with 403 https_required and sends
	// HSTS. /healthz, /readyz and /metrics stay open to what asks for itself
	// from loopback or a trusted proxy's address: the probes of a balancer.
	RequireHTTPS bool
	Log          *slog.Logger // nil: slog.Default()
}

// probes are asked every few seconds by machines of the house.
var probes = []string{"/healthz", "/readyz", "/metrics"}

// NewEngine returns an engine on which routes are registered as usual.
// Every request gets a request id, one log line, security headers and recovery
// from panics; what matches no route gets a 404 or 405 problem, in plain text
// under /webhooks/. Errors: a proxy that is neither an address nor a range.
func NewEngine(o Options) (*gin.Engine, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	proxies, err := parseProxies(o.TrustedProxies)
	if err != nil {
		return nil, err
	}
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	if err := e.SetTrustedProxies(cidrs(proxies)); err != nil {
		return nil, fmt.Errorf("trusted proxies: %w", err)
	}
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false

	e.Use(observe(o.Log), noteForwarding(proxies, o.Log), secureHeaders, recovery)
	if o.RequireHTTPS {
		e.Use(requireHTTPS(proxies))
	}
	e.Use(saneAddress)
	e.NoRoute(noRoute)
	e.NoMethod(func(c *gin.Context) {
		Fail(c, Refuse(http.StatusMethodNotAllowed, "method_not_allowed", "Method not allowed"))
	})
	return e, nil
}

// AnswerHEAD answers HEAD wherever e answers GET, without the body (RFC 9110,
// 9.3.2), except for routes that never end by themselves, such as streams of
// events. Call it when all routes are there.
func AnswerHEAD(e *gin.Engine, except ...string) {
	for _, r := range e.Routes() {
		if r.Method == http.MethodGet && !slices.Contains(except, r.Path) {
			e.HEAD(r.Path, r.HandlerFunc) // net/http leaves out the body
		}
	}
}

func parseProxies(list []string) ([]netip.Prefix, error) {
	var proxies []netip.Prefix
	for _, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil {
			proxies = append(proxies, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("trusted proxy %q is neither an address nor a range such as 10.0.0.0/8", s)
		}
		proxies = append(proxies, prefix.Masked())
	}
	return proxies, nil
}

func cidrs(proxies []netip.Prefix) []string {
	var list []string
	for _, p := range proxies {
		list = append(list, p.String())
	}
	return list
}

func noRoute(c *gin.Context) {
	Fail(c, Refuse(http.StatusNotFound, "not_found", "There is nothing at this address."))
}

func secureHeaders(c *gin.Context) {
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	if c.Request.TLS != nil {
		c.Header("Strict-Transport-Security", hsts) // only over TLS (RFC 6797, 7.2)
	}
	if strings.HasPrefix(c.Request.URL.Path, "/api/") {
		c.Header("Cache-Control", "no-store")
	}
}

// hsts tells browsers to come by TLS for a year.
const hsts = "max-age=31536000"

// requireHTTPS lets TLS through, and what a trusted proxy says came in by TLS.
// It does not redirect: a webhook that follows a redirect arrives as a GET
// without its body.
func requireHTTPS(proxies []netip.Prefix) gin.HandlerFunc {
	return func(c *gin.Context) {
		peer := peerAddr(c)
		if c.Request.TLS != nil {
			return
		}
		if forwardedTLS(c, peer, proxies) {
			c.Header("Strict-Transport-Security", hsts)
			return
		}
		house := peer.IsLoopback() || trusted(peer, proxies)
		if house && !forwarded(c.Request.Header) && slices.Contains(probes, c.FullPath()) {
			return
		}
		Fail(c, Refuse(http.StatusForbidden, "https_required", "This server answers only over https."))
	}
}

func forwardedTLS(c *gin.Context, peer netip.Addr, proxies []netip.Prefix) bool {
	if !trusted(peer, proxies) {
		return false
	}
	said := c.Request.Header.Values("X-Forwarded-Proto")
	return len(said) == 1 && strings.EqualFold(said[0], "https")
}

// peerAddr is who opened the connection; the zero Addr for a unix socket.
func peerAddr(c *gin.Context) netip.Addr {
	ap, err := netip.ParseAddrPort(c.Request.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// saneAddress refuses what no route and no database column can hold. gin
// matches on the decoded path, so an encoded slash would reach other routes.
func saneAddress(c *gin.Context) {
	u := c.Request.URL
	query, err := url.QueryUnescape(u.RawQuery)
	if err != nil || !storable(query) || !storable(u.Path) {
		Fail(c, Refuse(http.StatusBadRequest, "invalid_address",
			"The address is not valid: it must be percent-encoded UTF-8 without NUL."))
		return
	}
	if strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") {
		noRoute(c)
	}
}

func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
