package web

import (
	"log"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// NewServer returns a server for h on addr (host:port) with limits that keep a
// slow or silent client from holding a connection: headers within 5 s, the
// whole request within 10 s, the answer within 15 s, idle for 60 s, headers of
// 16 KiB. A handler that streams for longer moves its own deadline with
// [http.ResponseController].
func NewServer(addr string, h http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(serverLog{}, "", 0),
	}
}

// serverLog passes what net/http complains about to slog at Warn, without the
// client's address.
type serverLog struct{}

var hostPort = regexp.MustCompile(`(\d{1,3}(\.\d{1,3}){3}|\[[\w:.%]+\]):\d+`)

func (serverLog) Write(p []byte) (int, error) {
	said := hostPort.ReplaceAllString(strings.TrimSpace(string(p)), "client")
	slog.Warn("http server", "error", said)
	return len(p), nil
}
