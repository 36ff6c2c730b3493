package web

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serveToy runs a toy on a real listener with the limits of NewServer.
func serveToy(t *testing.T) (s *toy, addr string) {
	t.Helper()
	s = newToy(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(l.Addr().String(), s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s, l.Addr().String()
}

// raw sends bytes and returns the status line and body of the answer.
func raw(t *testing.T, addr, text string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c, text) }()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// What is not HTTP, or says two things at once, is refused on the wire.
func TestWire(t *testing.T) {
	_, addr := serveToy(t)
	head := "POST /api/v1/toys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + goodKey + "\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(toyJSON))
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"good":                {head + length + "\r\n" + toyJSON, 201},
		"no host":             {strings.Replace(head, "Host: x\r\n", "", 1) + length + "\r\n" + toyJSON, 400},
		"two hosts":           {head + "Host: y\r\n" + length + "\r\n" + toyJSON, 400},
		"two lengths":         {head + length + "Content-Length: 2\r\n\r\n" + toyJSON, 400},
		"length -1":           {head + "Content-Length: -1\r\n\r\n" + toyJSON, 400},
		"length +5":           {head + "Content-Length: +5\r\n\r\n" + toyJSON, 400},
		"huge length":         {head + "Content-Length: 99999999999999999999\r\n\r\n" + toyJSON, 400},
		"space before colon":  {head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"xchunked":            {head + "Transfer-Encoding: xchunked\r\n\r\n", 501},
		"chunked":             {head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(toyJSON), toyJSON), 201},
		"bad chunk":           {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + toyJSON, 400},
		"bare LF chunk":       {head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\n%s\n0\n\n", len(toyJSON), toyJSON), 400},
		"NUL in a key":        {strings.Replace(head, goodKey, goodKey+"\x00", 1) + length + "\r\n" + toyJSON, 400},
		"2 MB header":         {head + "X-Large: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", 431},
		"32 KB header":        {head + "X-Large: " + strings.Repeat("a", 32<<10) + "\r\n\r\n", 431},
		"space around key":    {strings.Replace(head, goodKey, goodKey+"  ", 1) + length + "\r\n" + toyJSON, 201}, // not part of the value (RFC 9110, 5.5)
		"announced too large": {head + "Content-Length: 1048577\r\n\r\n", 413},
		"absolute form":       {"GET http://elsewhere.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		"bad UTF-8 in path":   {"GET /o/a%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"HTTP/0.9":            {"GET /healthz\r\n\r\n", 400},
	} {
		if status, body := raw(t, addr, c.text); status != c.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, c.status)
		}
	}
}

// A body that stops short of its length is a refusal when the client closes
// its side, and never reaches the handler.
func TestShortBody(t *testing.T) {
	s, addr := serveToy(t)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, "POST /api/v1/toys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", goodKey, len(toyJSON)+1, toyJSON)
	_ = c.(*net.TCPConn).CloseWrite()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != http.StatusBadRequest {
		t.Fatalf("%v %v", r, err)
	}
	if strings.Contains(s.log.String(), `"ran"`) {
		t.Error("the handler ran")
	}
}

// The server has every limit, and what net/http complains about is logged
// without addresses.
func TestServer(t *testing.T) {
	s := NewServer("127.0.0.1:1", http.NotFoundHandler())
	if s.ReadHeaderTimeout != 5*time.Second || s.ReadTimeout != 10*time.Second || s.WriteTimeout != 15*time.Second ||
		s.IdleTimeout != 60*time.Second || s.MaxHeaderBytes != 16<<10 {
		t.Errorf("%+v", s)
	}
	logged := &lines{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(logged, nil)))
	defer slog.SetDefault(before)
	s.ErrorLog.Printf("http: TLS handshake error from 203.0.113.9:4711: EOF, then [2001:db8::1%%eth0]:80")
	l := logged.only(t)
	if l["level"] != "WARN" || l["error"] != "http: TLS handshake error from client: EOF, then client" {
		t.Errorf("%v", l)
	}
}
