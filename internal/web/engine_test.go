package web

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What matches no route, or no method of one, is refused in the sender's language.
func TestUnmatched(t *testing.T) {
	s := newToy(t)
	for _, c := range []struct {
		method, target string
		status         int
		code           string // "" for plain text
	}{
		{"GET", "/nothing", 404, "not_found"},
		{"GET", "/api/v1/nothing", 404, "not_found"},
		{"GET", "/api/v1/toys/", 404, "not_found"},
		{"GET", "/API/v1/toys", 404, "not_found"},
		{"GET", "//api/v1/toys", 404, "not_found"},
		{"GET", "/api/v1/failures/a%2Fb", 404, "not_found"},
		{"GET", "/o/a%2fb", 404, "not_found"},
		{"GET", "/o/..%2f..%2fetc", 404, "not_found"},
		{"DELETE", "/api/v1/toys", 405, "method_not_allowed"},
		{"GET", "/webhooks/payqi", 405, ""},
		{"PUT", "/webhooks/payqi", 405, ""},
		{"DELETE", "/webhooks/payqi", 405, ""},
		{"PATCH", "/webhooks/payqi", 405, ""},
		{"HEAD", "/webhooks/payqi", 405, ""},
		{"OPTIONS", "/webhooks/payqi", 405, ""},
		{"TRACE", "/webhooks/payqi", 405, ""},
		{"POST", "/webhooks/PAYQI", 404, ""},
		{"POST", "//webhooks/payqi", 404, "not_found"},
		{"POST", "/webhooks/payqi%2f", 404, ""},
		{"POST", "/webhooks/payqi%2F", 404, ""},
		{"POST", "/webhooks/payqi;x=1", 404, ""},
		{"GET", "/o/a%00b", 400, "invalid_address"},
		{"GET", "/o/a%ff", 400, "invalid_address"},
		{"GET", "/o/a?x=%00", 400, "invalid_address"},
		{"GET", "/o/a?x=%C3%28", 400, "invalid_address"},
		{"GET", "/o/a?x=%zz", 400, "invalid_address"},
		{"POST", "/webhooks/payqi?x=%00", 400, ""},
	} {
		w := s.send(t, request{method: c.method, target: c.target})
		if w.Code != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, w.Code, c.status)
			continue
		}
		if c.code != "" {
			if p := problemIn(t, w); p.Code != c.code {
				t.Errorf("%s %s: code %s", c.method, c.target, p.Code)
			}
		} else if ct := w.Header().Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
			t.Errorf("%s %s: content type %s", c.method, c.target, ct)
		}
		if c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.target)
		}
	}
	w := s.send(t, request{method: "GET", target: "/webhooks/payqi"})
	if w.Body.String() != "Method not allowed" || w.Header().Get("Allow") != "POST" {
		t.Errorf("webhook 405 is %q, Allow %q", w.Body, w.Header().Get("Allow"))
	}
	if w := s.send(t, request{method: "POST", target: "/webhooks/payqi?a=b"}); w.Code != 200 {
		t.Errorf("a query on the webhook route gave %d", w.Code)
	}
}

// Every answer carries the security headers and a request id; one that comes
// in is kept when it is harmless.
func TestHeaders(t *testing.T) {
	s := newToy(t)
	v7 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, target := range []string{"/healthz", "/nothing", "/api/v1/toys", "/api/v1/nothing", "/docs", "/plain/panic", "/o/%00"} {
		h := s.send(t, request{method: "GET", target: target}).Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", target, h)
		}
		if !v7.MatchString(h.Get("X-Request-Id")) {
			t.Errorf("%s: request id %q", target, h.Get("X-Request-Id"))
		}
		if api := strings.HasPrefix(target, "/api/"); api != (h.Get("Cache-Control") == "no-store") {
			t.Errorf("%s: cache control %q", target, h.Get("Cache-Control"))
		}
		if h.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s: HSTS without REQUIRE_HTTPS", target)
		}
	}
	for id, kept := range map[string]bool{
		"abc-DEF_1.2": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		"a b": false, "": false, "a\nb": false, "é": false, "<x>": false,
	} {
		w := s.send(t, request{method: "GET", target: "/healthz", header: http.Header{"X-Request-Id": {id}}})
		if (w.Header().Get("X-Request-Id") == id) != kept {
			t.Errorf("inbound id %q gave %q", id, w.Header().Get("X-Request-Id"))
		}
	}
	w := s.send(t, request{method: "GET", target: "/healthz", header: http.Header{"X-Request-Id": {"a", "b"}}})
	if !v7.MatchString(w.Header().Get("X-Request-Id")) {
		t.Error("one of two inbound ids was kept")
	}
}

// With RequireHTTPS a plain request is refused unless a trusted proxy says it
// came in by TLS; probes from loopback stay open.
func TestRequireHTTPS(t *testing.T) {
	s := newToy(t, func(o *Options) { o.RequireHTTPS, o.TrustedProxies = true, []string{"10.0.0.0/8", "::1", "192.0.2.7"} })
	for _, c := range []struct {
		name, peer, target string
		proto              []string
		tls                bool
		status             int
	}{
		{"plain", "203.0.113.1:5", "/o/x", nil, false, 403},
		{"tls", "203.0.113.1:5", "/o/x", nil, true, 200},
		{"anybody's word", "203.0.113.1:5", "/o/x", []string{"https"}, false, 403},
		{"proxy's word", "10.1.2.3:5", "/o/x", []string{"https"}, false, 200},
		{"proxy's word, mapped", "[::ffff:10.1.2.3]:5", "/o/x", []string{"https"}, false, 200},
		{"single proxy", "192.0.2.7:5", "/o/x", []string{"HTTPS"}, false, 200},
		{"its neighbour", "192.0.2.8:5", "/o/x", []string{"https"}, false, 403},
		{"proxy says http", "10.1.2.3:5", "/o/x", []string{"http"}, false, 403},
		{"proxy says nothing", "10.1.2.3:5", "/o/x", nil, false, 403},
		{"two words", "10.1.2.3:5", "/o/x", []string{"https", "http"}, false, 403},
		{"a list", "10.1.2.3:5", "/o/x", []string{"https, http"}, false, 403},
		{"probe", "127.0.0.1:5", "/healthz", nil, false, 200},
		{"probe v6", "[::1]:5", "/healthz", nil, false, 200},
		{"probe from outside", "203.0.113.1:5", "/healthz", nil, false, 403},
		{"balancer's probe", "10.1.2.3:5", "/healthz", nil, false, 200},
		{"probe passed on", "127.0.0.1:5", "/healthz", []string{"http"}, false, 403},
		{"loopback elsewhere", "127.0.0.1:5", "/o/x", nil, false, 403},
		{"webhook", "203.0.113.1:5", "/webhooks/payqi", nil, false, 403},
	} {
		w := s.send(t, request{method: map[bool]string{true: "POST", false: "GET"}[c.target == "/webhooks/payqi"], target: c.target, change: func(r *http.Request) {
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-Proto"] = c.proto
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
		}})
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d", c.name, w.Code, c.status)
		}
		if c.status == 403 && c.target == "/o/x" && problemIn(t, w).Code != "https_required" {
			t.Errorf("%s: %s", c.name, w.Body)
		}
		if secure := c.status == 200 && c.target == "/o/x"; secure != (w.Header().Get("Strict-Transport-Security") != "") {
			t.Errorf("%s: HSTS %q", c.name, w.Header().Get("Strict-Transport-Security"))
		}
	}
}

// Forwarding headers of a peer that is not a trusted proxy mean nothing.
func TestClientIP(t *testing.T) {
	trusting := newToy(t, func(o *Options) { o.TrustedProxies = []string{"10.0.0.1"} })
	for _, c := range []struct {
		s          *toy
		peer, want string
		header     string
		value      string
	}{
		{newToy(t), "203.0.113.1:5", "203.0.113.1", "X-Forwarded-For", "1.2.3.4"},
		{trusting, "203.0.113.1:5", "203.0.113.1", "X-Forwarded-For", "1.2.3.4"},
		{trusting, "10.0.0.1:5", "1.2.3.4", "X-Forwarded-For", "9.9.9.9, 1.2.3.4"},
		{trusting, "10.0.0.1:5", "2001:db8::1", "X-Forwarded-For", "2001:db8::1"},
		{trusting, "10.0.0.1:5", "10.0.0.1", "X-Forwarded-For", "garbage"},
		{trusting, "10.0.0.1:5", "10.0.0.1", "X-Real-Ip", "1.2.3.4"},
		{trusting, "10.0.0.1:5", "10.0.0.1", "Forwarded", "for=1.2.3.4"},
	} {
		w := c.s.send(t, request{method: "GET", target: "/o/x", change: func(r *http.Request) {
			r.RemoteAddr = c.peer
			r.Header.Set(c.header, c.value)
		}})
		if w.Body.String() != c.want {
			t.Errorf("%s with %s %q: %s, want %s", c.peer, c.header, c.value, w.Body, c.want)
		}
	}
	for _, c := range []struct{ lines, want string }{ // two lines are one list (RFC 9110, 5.3): HAProxy adds one of its own
		{"1.2.3.4|198.51.100.7", "198.51.100.7"},
		{"1.2.3.4|198.51.100.7, 10.0.0.1", "198.51.100.7"},
	} {
		w := trusting.send(t, request{
			method: "GET", target: "/o/x", header: http.Header{"X-Forwarded-For": strings.Split(c.lines, "|")},
			change: func(r *http.Request) { r.RemoteAddr = "10.0.0.1:5" },
		})
		if w.Body.String() != c.want {
			t.Errorf("%s: %s, want %s", c.lines, w.Body, c.want)
		}
	}
	for _, bad := range []string{"nonsense", "10.0.0.0/33", "example.com", ""} {
		if _, err := NewEngine(Options{TrustedProxies: []string{bad}}); err == nil {
			t.Errorf("trusted proxy %q was taken", bad)
		}
	}
}

// Headers that ask for another method or address are ignored.
func TestOverridesIgnored(t *testing.T) {
	s := newToy(t)
	w := s.send(t, request{method: "GET", target: "/webhooks/payqi", header: http.Header{"X-Http-Method-Override": {"POST"}, "X-Original-Url": {"/healthz"}}})
	if w.Code != 405 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// atInfo is a log that was not asked for more.
type atInfo struct{ slog.Handler }

func (atInfo) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// A request is one line with the route's pattern, and no secret of it is there.
func TestLogLine(t *testing.T) {
	s := newToy(t, func(o *Options) { o.Log = slog.New(atInfo{o.Log.Handler()}) })
	s.send(t, request{
		method: "POST", target: "/api/v1/toys?canary-query=canary-query",
		body:   `{"canary-body":"canary-body"}`,
		header: http.Header{"X-Payqi-Signature": {"canary-signature"}, "Cookie": {"canary-cookie"}, "User-Agent": {"canary-agent"}},
		change: func(r *http.Request) { r.RemoteAddr = "203.0.113.77:1234" },
	})
	s.send(t, request{method: "POST", target: "/api/v1/toys", body: `{"canary-body":"canary-body"}`})
	s.send(t, request{method: "POST", target: "/api/v1/toys", header: http.Header{"Authorization": {"Bearer canary-key"}}})
	s.send(t, request{method: "GET", target: "/o/canary-token"})
	s.send(t, request{method: "CANARY-METHOD", target: "/canary-path"})
	s.send(t, request{method: "GET", target: "/o/canary-token%00"})
	text := s.log.String()
	if strings.Contains(strings.ToLower(text), "canary") || strings.Contains(text, "203.0.113.77") || strings.Contains(text, goodKey) {
		t.Errorf("a secret is in the log:\n%s", text)
	}
	all := s.log.all(t)
	if len(all) != 6 {
		t.Fatalf("%d lines for 6 requests:\n%s", len(all), text)
	}
	for _, l := range all {
		for _, key := range []string{"method", "route", "status", "elapsed_ms", "request_id", "bytes"} {
			if _, ok := l[key]; !ok || l["msg"] != "request" {
				t.Errorf("line without %s: %v", key, l)
			}
		}
	}
	if all[3]["route"] != "/o/:token" || all[4]["route"] != "unmatched" || all[4]["method"] != "OTHER" {
		t.Errorf("routes: %v, %v", all[3], all[4])
	}
}

// The level says who should look, and handlers add what they know.
func TestLogLevels(t *testing.T) {
	for _, c := range []struct {
		method, target, level string
		status                float64
	}{
		{"GET", "/o/x", "INFO", 200},
		{"GET", "/nothing", "INFO", 404},
		{"GET", "/healthz", "DEBUG", 200},
		{"GET", "/plain/plain", "ERROR", 500},
		{"GET", "/plain/unavailable", "WARN", 503},
		{"GET", "/plain/notimplemented", "WARN", 501},
		{"POST", "/webhooks/broken/invalid", "WARN", 400},
		{"POST", "/webhooks/broken/plain", "WARN", 503},
		{"GET", "/webhooks/payqi", "WARN", 405},
		{"POST", "/webhooks/payqi", "INFO", 200},
	} {
		s := newToy(t)
		s.send(t, request{method: c.method, target: c.target})
		if l := s.log.only(t); l["level"] != c.level || l["status"] != c.status {
			t.Errorf("%s %s: %v", c.method, c.target, l)
		}
	}
	s := newToy(t)
	s.send(t, request{method: "POST", target: "/webhooks/payqi"})
	if l := s.log.only(t); l["verdict"] != "accepted" || l["bytes"] != 2.0 {
		t.Errorf("line %v", l)
	}
	s = newToy(t)
	s.send(t, request{method: "POST", target: "/api/v1/toys", body: toyJSON})
	if l := s.log.only(t); l["actor"] != "admin:bootstrap" || l["ran"] != true {
		t.Errorf("line %v", l)
	}
}

// A panic is a 500 whose stack is in the log; the webhook's sender is asked to
// come back; half an answer is cut off.
func TestPanics(t *testing.T) {
	for _, target := range []string{"/plain/panic", "/api/v1/failures/panic"} {
		s := newToy(t)
		w := s.send(t, request{method: "GET", target: target, header: http.Header{"X-Secret": {"canary-header"}}})
		if p := problemIn(t, w); p.Status != 500 || p.Code != "internal" || strings.Contains(w.Body.String(), "canary") {
			t.Errorf("%s: %s", target, w.Body)
		}
		l := s.log.only(t)
		if l["error"] != "panic: canary-panic" || !strings.Contains(l["stack"].(string), "toy_test.go") || strings.Contains(s.log.String(), "canary-header") {
			t.Errorf("%s: line %v", target, l)
		}
	}
	s := newToy(t)
	w := s.send(t, request{method: "POST", target: "/webhooks/broken/panic"})
	if w.Code != 503 || w.Body.String() != "Error" || w.Header().Get("Retry-After") == "" {
		t.Errorf("webhook: %d %q %v", w.Code, w.Body, w.Header())
	}

	server := httptest.NewServer(newToy(t))
	defer server.Close()
	for _, target := range []string{"/half", "/plain/abort", "/api/v1/failures/abort"} {
		q, _ := http.NewRequest(http.MethodGet, server.URL+target, nil)
		q.Header.Set("Authorization", "Bearer "+goodKey)
		r, err := server.Client().Do(q)
		if err == nil {
			_, err = io.ReadAll(r.Body)
			_ = r.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: a whole answer with status %d", target, r.StatusCode)
		}
	}
}

// The histogram counts by pattern and by known methods.
func TestMetrics(t *testing.T) {
	s := newToy(t)
	before := series()
	for _, token := range []string{"a", "b", "c"} {
		s.send(t, request{method: "GET", target: "/o/" + token + "?metrics"})
		s.send(t, request{method: "MADE-UP-" + token, target: "/made-up/" + token})
	}
	if grown := series() - before; grown > 2 {
		t.Errorf("%d new series for one route and one unknown method", grown)
	}
}

func series() int {
	c := make(chan prometheus.Metric, 10_000)
	requestSeconds.Collect(c)
	return len(c)
}
