package web

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate and its key in two PEM files. They are looked
// at for each new connection and read again when they have changed, so that a
// renewed certificate needs no restart.
type Certificate struct {
	certFile, keyFile string

	mu   sync.Mutex
	now  *tls.Certificate
	seen [2]fileState // when it was last tried to read them
}

type fileState struct {
	modified  time.Time
	sizeBytes int64
}

// NewCertificate reads both files. Errors: one cannot be read, or they do not
// belong together.
func NewCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	c.seen = c.look()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE and TLS_KEY_FILE: %w", err)
	}
	c.now = &pair
	return c, nil
}

// TLS is a configuration for servers: TLS 1.2 or newer, with what the files
// hold at the time.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

// get answers a handshake. Files that cannot be used leave the certificate
// that was: half of a renewal is written, or the operator slipped.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.look()
	if state == c.seen {
		return c.now, nil
	}
	c.seen = state // each state is tried, and complained of, once
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		slog.Warn("changed certificate files cannot be used, going on with the old ones", "error", err)
		return c.now, nil
	}
	c.now = &pair
	slog.Info("certificate renewed")
	return c.now, nil
}

// look follows links, as those that certbot and Kubernetes swap.
func (c *Certificate) look() (state [2]fileState) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			state[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return state
}
