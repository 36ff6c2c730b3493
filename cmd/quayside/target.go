package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// target is where a tool sends to: an http(s) address without anything that
// could be misread, and whether it is this machine.
func parseTarget(target string) (base string, local bool, err error) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return "", false, misuse(fmt.Sprintf("%q is not an address; write for instance http://127.0.0.1:8080", target))
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", false, misuse("the address holds a user name, a query or a fragment; write for instance http://127.0.0.1:8080")
	}
	return strings.TrimRight(target, "/"), loopback(target), nil
}

// loopback reports whether target names this machine beyond doubt, by its
// address or as localhost. Any other name may lead anywhere.
func loopback(target string) bool {
	u, err := url.Parse(target)
	if err != nil || u.User != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// stayHere is a transport that connects to this machine only, whatever a name
// resolves to and whatever proxy is set.
func stayHere() *http.Transport {
	d := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !at.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("%s is not this machine; add --yes if you mean it", address)
		}
		return nil
	}}
	return &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 64}
}

// here is how this machine reaches what listens on addr, perhaps on every interface.
func here(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // settings and listeners have both
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
