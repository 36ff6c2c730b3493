package web

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var forwardedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "quayside_forwarded_total",
	Help: "Requests with X-Forwarded-For or -Proto; believed is yes when they came from one of TRUSTED_PROXIES.",
}, []string{"believed"})

// noteForwarding counts requests whose forwarding headers are believed and
// those where they are not. The first of the latter that came from a private
// address is told in the log: that is rarely a forger and mostly a proxy that
// nobody has named.
func noteForwarding(proxies []netip.Prefix, log *slog.Logger) gin.HandlerFunc {
	for _, believed := range []string{"yes", "no"} {
		forwardedTotal.WithLabelValues(believed) // so that it shows as 0
	}
	var told sync.Once
	return func(c *gin.Context) {
		if !forwarded(c.Request.Header) {
			return
		}
		peer := peerAddr(c)
		if trusted(peer, proxies) {
			forwardedTotal.WithLabelValues("yes").Inc()
			return
		}
		forwardedTotal.WithLabelValues("no").Inc()
		if peer.IsPrivate() || peer.IsLoopback() {
			told.Do(func() {
				log.Warn("forwarding headers ignored; if this peer is your proxy, name it in TRUSTED_PROXIES", "peer", peer.String())
			})
		}
	}
}

// forwarded reports whether somebody says to pass on a request for another.
func forwarded(h http.Header) bool {
	return len(h.Values("X-Forwarded-For")) > 0 || len(h.Values("X-Forwarded-Proto")) > 0
}

func trusted(peer netip.Addr, proxies []netip.Prefix) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(peer) })
}
