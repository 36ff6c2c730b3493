package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a certificate for localhost, and its key, in PEM.
func pair(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// put replaces a file in one step, as certbot does, at a time no other had.
func put(t *testing.T, path string, body []byte, version int) {
	t.Helper()
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000+int64(version), 0)
	if err := os.Chtimes(path+".new", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A renewed certificate is used from the next connection on. While the files
// do not fit each other, or one is away, the old one goes on, and that is said
// once for each state.
func TestCertificateIsRenewed(t *testing.T) {
	logged := &lines{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(logged, nil)))
	defer slog.SetDefault(before)

	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := NewCertificate(certFile, keyFile); err == nil || !strings.Contains(err.Error(), "TLS_CERT_FILE") {
		t.Errorf("no files: %v", err)
	}
	cert1, key1 := pair(t, 1)
	cert2, key2 := pair(t, 2)
	put(t, certFile, cert1, 1)
	put(t, keyFile, key2, 1)
	if _, err := NewCertificate(certFile, keyFile); err == nil {
		t.Error("another certificate's key was taken")
	}
	put(t, keyFile, key1, 2)
	c, err := NewCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	addr := serveTLS(t, c)
	serves := func(when string, want int64) {
		t.Helper()
		for range 2 {
			if got := serialAt(t, addr); got != want {
				t.Errorf("%s: certificate %d, want %d", when, got, want)
			}
		}
	}
	serves("at first", 1)
	put(t, certFile, cert2, 3)
	serves("half renewed", 1)
	put(t, keyFile, key2, 3)
	serves("renewed", 2)
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	serves("key away", 2)
	put(t, certFile, cert1, 4)
	put(t, keyFile, key1, 4)
	serves("renewed again", 1)
	if n := strings.Count(logged.String(), "cannot be used"); n != 2 {
		t.Errorf("said %d times that files cannot be used:\n%s", n, logged)
	}
}

func serveTLS(t *testing.T, c *Certificate) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(l.Addr().String(), newToy(t))
	server.TLSConfig = c.TLS()
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

func serialAt(t *testing.T, addr string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// HTTPS by ourselves is HTTP/2, TLS 1.2 at least, and tells browsers to stay.
func TestHTTPSByItself(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := pair(t, 1)
	put(t, certFile, cert, 1)
	put(t, keyFile, key, 1)
	c, err := NewCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	addr := serveTLS(t, c)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}}
	defer client.CloseIdleConnections()
	r, err := client.Get("https://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK || r.ProtoMajor != 2 || r.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%s %s, HSTS %q", r.Proto, r.Status, r.Header.Get("Strict-Transport-Security"))
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	if status, _ := raw(t, addr, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); status != http.StatusBadRequest {
		t.Errorf("plain HTTP on the port of HTTPS: %d", status)
	}
}
