package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// judgeProxies compares what is in front of serve with whom it believes.
func (d *doctor) judgeProxies(r *report) {
	if d.role == "work" || d.role == "migrate" || d.mistaken("TRUSTED_PROXIES") {
		return
	}
	u, err := url.Parse(d.cfg.PublicURL)
	behind := err == nil && u.Scheme == "https" && d.cfg.TLSCertFile == ""
	for _, p := range d.cfg.TrustedProxies {
		if n := tooWide(p); n != "" {
			r.wrong("TRUSTED_PROXIES", p+" is "+n+": each of them could claim any address, and that a plain request was https", "name the proxies themselves, such as 127.0.0.1,::1 or 10.0.0.7")
		}
	}
	nobody := len(d.cfg.TrustedProxies) == 0
	switch {
	case behind && nobody && d.cfg.RequireHTTPS:
		r.wrong("TRUSTED_PROXIES", "is empty, while REQUIRE_HTTPS is on and serve has no certificate of its own: every request is refused", "name the proxy that has the certificate; on this machine:", "TRUSTED_PROXIES=127.0.0.1,::1")
	case behind && nobody:
		r.warn("TRUSTED_PROXIES", "is empty, while PUBLIC_URL is https and serve has no certificate of its own: all clients seem to be the proxy, and one who guesses admin keys locks out the others", "name the proxy; on this machine:", "TRUSTED_PROXIES=127.0.0.1,::1")
	case behind && !d.cfg.RequireHTTPS && everywhere(d.cfg.ListenAddr):
		r.warn("LISTEN_ADDR", d.cfg.ListenAddr+" is open to the network in plain text, past the proxy", "listen on this machine only, or refuse what did not come by https:", "LISTEN_ADDR=127.0.0.1:8080", "REQUIRE_HTTPS=true")
	}
	d.judgeForwarding(r, nobody)
	if len(r.findings) == 0 {
		r.fine("settings", "%s", d.proxySummary(behind))
	}
}

// judgeForwarding looks at what serve has met.
func (d *doctor) judgeForwarding(r *report, nobody bool) {
	switch {
	case d.httpsRefused && !nobody:
		r.wrong("X-Forwarded-Proto", "TRUSTED_PROXIES is set, yet serve takes https for plain text: the proxy's address is not among it, or it does not send X-Forwarded-Proto", "docs/https.md has the lines; with LOG_LEVEL=debug serve logs whom it takes the client for")
	case d.metrics == nil:
	case d.metrics.forwarded["no"] > 0 && nobody:
		r.warn("X-Forwarded-For", fmt.Sprintf("%.0f requests came with it, and nobody is believed", d.metrics.forwarded["no"]), "if that is your proxy, name its address; serve's log has it (\"forwarding headers ignored\"):", "TRUSTED_PROXIES=127.0.0.1,::1")
	case d.metrics.forwarded["no"] > 0:
		r.warn("X-Forwarded-For", fmt.Sprintf("%.0f requests came with it from others than TRUSTED_PROXIES; they were not believed", d.metrics.forwarded["no"]), "a proxy you forgot, or somebody who tries; serve's log names private addresses")
	case d.metrics.forwarded["yes"] > 0:
		r.fine("X-Forwarded-For", "%.0f requests came through trusted proxies", d.metrics.forwarded["yes"])
	}
}

func (d *doctor) proxySummary(behind bool) string {
	switch {
	case d.cfg.TLSCertFile != "":
		return "serve speaks HTTPS by itself"
	case behind:
		return "behind " + strings.Join(d.cfg.TrustedProxies, ", ")
	}
	return "none in front"
}

// tooWide says how many a network lets in that are strangers: more than the
// largest that a proxy service publishes. A private network is the operator's own.
func tooWide(proxy string) string {
	network, err := netip.ParsePrefix(proxy)
	if err != nil {
		return ""
	}
	least := 10 // IPv4
	if network.Addr().Is6() {
		least = 24
	}
	if network.Bits() >= least || private(network) {
		return ""
	}
	return "a part of the internet with more addresses than any proxy has"
}

// private reports whether all of a network is.
func private(network netip.Prefix) bool {
	for _, own := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10"} {
		p := netip.MustParsePrefix(own)
		if p.Bits() <= network.Bits() && p.Contains(network.Addr()) {
			return true
		}
	}
	return false
}

// everywhere reports whether an address is open to other machines.
func everywhere(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip, perr := netip.ParseAddr(host)
	return err == nil && (host == "" || perr == nil && ip.IsUnspecified())
}
