// Package devstack is what `quayside dev` and the tests run on when nothing is set up: a private
// PostgreSQL, a Redis and a mail catcher, all on loopback ports, all gone with the process.
//
// Nothing here is for production; `quayside serve` and `quayside work` get theirs from the settings.
package devstack

import (
	"net"
	"strconv"
)

// anyPort is where a service listens when its caller does not care.
const anyPort = "127.0.0.1:0"

// localURL is an address as a client on this machine dials it: 0.0.0.0 and :: become loopback.
func localURL(scheme string, addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return scheme + "://" + addr.String()
	}
	host := tcp.IP.String()
	if tcp.IP == nil || tcp.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
