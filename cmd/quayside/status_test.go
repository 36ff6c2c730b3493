//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"quayside/internal/orders"
)

// link is the path of an order's page.
func (w *world) link(o orders.View) string { return strings.TrimPrefix(o.StatusURL, w.cfg.PublicURL) }

// look asks for a customer's page or one of its twins, as a stranger does.
func (w *world) look(method, path string, headers ...string) reply {
	w.t.Helper()
	return w.ask(method, path, "", append([]string{"Authorization", ""}, headers...)...)
}

// status is the page's JSON twin, as far as tests look at it.
type status struct {
	State, Headline string
	Version         int
	PayURI          *string `json:"pay_uri"`
	SecondsLeft     *int    `json:"seconds_left"`
	ExplorerURL     *string `json:"explorer_url"`
	ShopName        string  `json:"shop_name"`
}

// events is an open stream of status events.
type events struct {
	w      *world
	header http.Header
	lines  *bufio.Reader
	leave  func()
}

// openStream opens a stream, which must be let in.
func (w *world) openStream(path string, headers ...string) *events {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.shop.url+path, nil)
	w.must(err)
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := (&http.Client{Transport: w.shop.http.Transport}).Do(r)
	w.must(err)
	leave := func() { cancel(); _ = res.Body.Close() }
	w.t.Cleanup(leave)
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		w.t.Fatalf("the stream was answered %d %s", res.StatusCode, body)
	}
	return &events{w, res.Header, bufio.NewReader(res.Body), leave}
}

// next waits for the next status; ok is false at the end of the stream.
func (e *events) next() (id string, s status, ok bool) {
	e.w.t.Helper()
	var name string
	for {
		line, err := e.lines.ReadString('\n')
		if err != nil {
			return "", s, false
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			e.w.must(json.Unmarshal([]byte(value), &s))
		case "":
			if name == "status" && id == fmt.Sprint(s.Version) {
				return id, s, true
			}
		}
	}
}

// until waits for a state.
func (e *events) until(state string) (id string) {
	e.w.t.Helper()
	for {
		id, s, ok := e.next()
		if !ok {
			e.w.t.Fatalf("the stream ended before it said %s", state)
		}
		if s.State == state {
			return id
		}
	}
}

// The customer's page shows the order to whoever has the link, to nobody else,
// lets no browser keep or frame it, and shows no name that could be a script.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/products", map[string]any{"sku": "mug", "name": `<script>alert("mug")</script>`, "on_hand": 5}, nil))
	o := w.open("page", "mug", "customer", map[string]any{"email": "canary@customers.example", "name": `<script>alert("name")</script>`})
	link := w.link(o)
	r := w.look(http.MethodGet, link)
	if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Fatalf("%s: %d %s", link, r.status, r.body)
	}
	contains(t, "the page", r.body, "Order page", "10.00 XRP", "&lt;script&gt;", "Test Shop", `<noscript><meta http-equiv="refresh"`)
	if strings.Count(r.body, "<script") != 1 || strings.Count(r.body, "<h1") != 1 {
		t.Errorf("the page has another script than its own, or not one headline:\n%s", r.body)
	}
	for _, secret := range []string{"alert(\"", "canary@customers.example", "src=", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(r.body, secret) {
			t.Errorf("the page has %q:\n%s", secret, r.body)
		}
	}
	policy := r.header.Get("Content-Security-Policy")
	contains(t, "its policy", policy, "default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'")
	if strings.Contains(policy, "unsafe") {
		t.Errorf("its policy is %s", policy)
	}
	guarded := map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex", "X-Content-Type-Options": "nosniff"}
	for _, path := range []string{link, link + "/status", "/o/" + strings.Repeat("a", 32), "/o/" + strings.Repeat("a", 32) + "/events"} {
		r := w.look(http.MethodGet, path)
		for name, want := range guarded {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
	}
	if r := w.look(http.MethodGet, link+"/status"); r.status != 200 || !json.Valid([]byte(r.body)) || strings.Contains(r.body, "canary") {
		t.Errorf("as JSON: %d %s", r.status, r.body)
	}
	for _, path := range []string{link, link + "/status"} {
		if r := w.look(http.MethodHead, path); r.status != 200 || r.body != "" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("HEAD %s: %d %q", path, r.status, r.body)
		}
	}
	if r := w.look(http.MethodPost, link+"/status"); r.status != 405 {
		t.Errorf("POST of the twin: %d", r.status)
	}
}

// A wrong link leads people to a page that helps, and programs to a problem.
func TestStatusPageWrongLink(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.stock("mug", 5)
	token := strings.TrimPrefix(w.link(w.open("page", "mug")), "/o/")
	flipped := strings.Map(func(c rune) rune {
		if c == 'a' {
			return 'b'
		}
		return 'a'
	}, token[:1]) + token[1:]
	for name, wrong := range map[string]string{
		"wrong": strings.Repeat("a", len(token)), "short": token[1:], "long": token + "a", "flipped": flipped, "capitals": strings.ToUpper(token),
		"the order's id": "page", "10 KB": strings.Repeat("a", 10_000), "a wildcard": "%25", "a quote": "'or'1'='1",
	} {
		r := w.look(http.MethodGet, "/o/"+wrong)
		if r.status != 404 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || strings.Contains(r.body, "10.00") ||
			!strings.Contains(r.body, "There is no order at this address") || r.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d %v %.200s", name, r.status, r.header, r.body)
		}
		for _, twin := range []string{"/status", "/events"} {
			r := w.look(http.MethodGet, "/o/"+wrong+twin)
			if r.status != 404 || r.code() != "order_not_found" || r.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s%s: %d %v %.200s", name, twin, r.status, r.header, r.body)
			}
		}
	}
	for _, path := range []string{"/o/", "/o"} {
		if r := w.look(http.MethodGet, path); r.status != 404 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

// The twins tell a shop's own page all it needs to draw itself, at once and
// after every change, whichever process made it, and a reader that comes again
// has missed nothing.
func TestStatusTwins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serveApart()
	w.workApart()
	w.stock("mug", 10)
	o := w.open("twins", "mug")
	link := w.link(o)
	stream := w.openStream(link + "/events")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream; charset=utf-8", "Access-Control-Allow-Origin": "*", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
	} {
		if got := stream.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	stream.until("awaiting_payment")
	w.tell("payment.created", o)
	for {
		_, s, ok := stream.next()
		if !ok {
			t.Fatal("the stream ended")
		}
		if s.PayURI != nil {
			if want := "xrpl:" + demoAddress + "?amount=10&dt=" + tagOf("pay_twins"); *s.PayURI != want || s.SecondsLeft == nil || *s.SecondsLeft < 1 || *s.SecondsLeft > 1800 {
				t.Errorf("pay_uri is %s, want %s; %v seconds left", *s.PayURI, want, s.SecondsLeft)
			}
			break
		}
	}
	w.tell("payment.pending", o)
	stream.until("awaiting_confirmation")
	w.tell("payment.completed", o)
	last := stream.until("paid")
	stream.leave()

	var s status
	r := w.look(http.MethodGet, link+"/status", "Origin", "https://shop.example")
	w.must(json.Unmarshal([]byte(r.body), &s))
	if r.header.Get("Access-Control-Allow-Origin") != "*" || s.State != "paid" || s.Headline != "Paid" || fmt.Sprint(s.Version) != last ||
		s.ExplorerURL == nil || !strings.HasPrefix(*s.ExplorerURL, "https://livenet.xrpl.org/transactions/") || s.PayURI != nil || s.SecondsLeft != nil || s.ShopName != "Test Shop" {
		t.Errorf("the twin says %s", r.body)
	}
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/twins/shipments", map[string]any{"carrier": "DHL"}, nil))
	again := w.openStream(link+"/events", "Last-Event-ID", last)
	if id, s, _ := again.next(); s.State != "shipped" || id == last {
		t.Errorf("to one who comes again the first message is %s of version %s after %s", s.State, id, last)
	}
}

// A stop ends open streams at once, and takes no longer for them.
func TestServeStopsWithOpenStreams(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	p := w.serveApart()
	w.stock("mug", 10)
	link := w.link(w.open("stop", "mug"))
	streams := make([]*events, 10)
	for i := range streams {
		streams[i] = w.openStream(link + "/events")
		streams[i].until("awaiting_payment")
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	for _, s := range streams {
		if _, _, more := s.next(); more {
			t.Error("a stream said something when it should end")
		}
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took >= drainPatience {
		t.Errorf("the stop took %s: it waited for the streams", took)
	}
	if _, err := w.shop.http.Get(w.shop.url + "/healthz"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the stop: %v", err)
	}
}
