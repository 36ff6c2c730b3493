package webhooks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"quayside/internal/queue"
	"quayside/internal/web"
)

// server is the shop behind a real listener, with the limits of the real one.
type server struct {
	t    testing.TB
	addr string
}

func (s *shop) serve(change func(*http.Server)) *server {
	s.t.Helper()
	srv := web.NewServer("127.0.0.1:0", s.http)
	if change != nil {
		change(srv)
	}
	l, err := net.Listen("tcp", srv.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(func() { _ = srv.Close() })
	return &server{t: s.t, addr: l.Addr().String()}
}

func (srv *server) dial() *net.TCPConn {
	srv.t.Helper()
	c, err := net.Dial("tcp", srv.addr)
	if err != nil {
		srv.t.Fatal(err)
	}
	srv.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// raw writes a request byte for byte and returns the answer, such as "200 OK"; "" when the server hung up.
func (srv *server) raw(request string) string {
	srv.t.Helper()
	c := srv.dial()
	_, _ = io.WriteString(c, request) // the server may answer before it has read all
	return answerOn(c)
}

func answerOn(c net.Conn) string {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(text))
}

// head is the start of a signed request over a real connection, without a length.
func head(body string, headers ...string) string {
	return "POST /webhooks/payqi HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-PayQI-Signature: " + Sign(testSecret, []byte(body)) + "\r\n" +
		strings.Join(append(headers, ""), "\r\n")
}

// padded is a readable event of exactly so many bytes.
func padded(t testing.TB, id string, size int) string {
	t.Helper()
	body := event(id, "payment.created", "pay_1", "1001", "10")
	return inside(t, body, `"data":`, `"padding":"`+strings.Repeat("x", size-len(body)-len(`"padding":"",`))+`","data":`)
}

// A body may have 256 KiB and not a byte more, however its length is told.
func TestSizes(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	srv := s.serve(nil)
	for name, c := range map[string]struct {
		size int
		want string
	}{
		"24 limit-1": {MaxBody - 1, "200 OK"},
		"25 limit":   {MaxBody, "200 OK"},
		"26 limit+1": {MaxBody + 1, "413 Body too large"},
	} {
		told, chunked := padded(t, fmt.Sprint("evt_told_", c.size), c.size), padded(t, fmt.Sprint("evt_chunked_", c.size), c.size)
		is(t, name, len(told), c.size)
		s.expect(told, c.want)
		is(t, name+" told", srv.raw(head(told, fmt.Sprint("Content-Length: ", len(told)))+"\r\n"+told), map[bool]string{true: c.want, false: "200 Already processed"}[c.size > MaxBody])
		is(t, name+" chunked", srv.raw(head(chunked, "Transfer-Encoding: chunked")+"\r\n"+chunks(chunked)), c.want)
	}
	is(t, "rows", s.count("inbox"), 4)
	is(t, "bytes", one[int](s, `SELECT max(length(body)) FROM inbox`), MaxBody)
}

func chunks(body string) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(len(body), 60_000)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// The signature decides, not the content type; a compressed body is refused
// even when its signature is right; identity is no compression.
func TestContentHeaders(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for i, c := range []struct{ header, value, want string }{
		{"Content-Type", "", "200 OK"},
		{"Content-Type", "text/plain", "200 OK"},
		{"Content-Type", "multipart/form-data; boundary=x", "200 OK"},
		{"Content-Type", "application/x-www-form-urlencoded", "200 OK"},
		{"Content-Encoding", "identity", "200 OK"},
		{"Content-Encoding", "Identity", "200 OK"},
		{"Content-Encoding", "gzip", "415 Compressed bodies are not taken"},
		{"Content-Encoding", "GZIP", "415 Compressed bodies are not taken"},
		{"Content-Encoding", "br", "415 Compressed bodies are not taken"},
		{"Content-Encoding", "deflate", "415 Compressed bodies are not taken"},
		{"Content-Encoding", "identity, gzip", "415 Compressed bodies are not taken"},
	} {
		s.expect(event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1", "10"), c.want, c.header, c.value)
	}
	body := event("evt_twice", "payment.created", "pay_1", "1", "10")
	s.expect(body, "415 Compressed bodies are not taken", "Content-Encoding", "identity", "Content-Encoding", "gzip")
	s.expect(body, "200 OK", "X-HTTP-Method-Override", "DELETE", "X-Original-URL", "/admin", "X-Forwarded-For", "garbage, ::1", "Forwarded", "for=1")
	is(t, "rows", s.count("inbox"), 7)
}

// An empty body, signed, is authentic and unreadable.
func TestEmptyBody(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.accept("")
	s.expect("", "200 Already processed")
	s.work()
	is(t, "states", s.states(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 quarantined") // sha256sum </dev/null
}

// A body cut short leaves no row: the sender closes, half closes, or sends a
// chunk that is none.
func TestBodyCutShort(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	srv := s.serve(nil)
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10")
	length := fmt.Sprint("Content-Length: ", len(body))

	c := srv.dial()
	fmt.Fprintf(c, "%s\r\n%s", head(body, length), body[:len(body)/2])
	_ = c.CloseWrite()
	is(t, "half closed", answerOn(c), "400 Body incomplete")

	c = srv.dial()
	fmt.Fprintf(c, "%s\r\n%s", head(body, length), body[:len(body)-1])
	_ = c.SetLinger(0) // a reset, as when the sender's process dies
	_ = c.Close()

	is(t, "bad chunk", srv.raw(head(body, "Transfer-Encoding: chunked")+"\r\nzz\r\n"+body+"\r\n0\r\n\r\n"), "400 Body incomplete")
	is(t, "signed part", srv.raw(head(body[:100], fmt.Sprint("Content-Length: ", 100))+"\r\n"+body), "200 OK") // what was signed is what is told: authentic
	is(t, "rows", s.states(), "sha256:"+sha256Hex(body[:100])+" received")
}

// A body that does not come in the server's time is given up: 408, or the
// connection is closed when even that is too late; no row.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	srv := s.serve(func(srv *http.Server) { srv.ReadTimeout = 500 * time.Millisecond })
	body := event("evt_1", "payment.completed", "pay_1", "1001", "10")
	c := srv.dial()
	fmt.Fprintf(c, "%s\r\n%s", head(body, fmt.Sprint("Content-Length: ", len(body))), body[:20])
	if got := answerOn(c); got != "408 Body too slow" && got != "" {
		t.Errorf("answered %s", got)
	}
	is(t, "rows", s.count("inbox"), 0)
}

// A sender that hangs up after its request may have been stored: it is, once,
// and its next try is a duplicate.
func TestSenderHangsUp(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	body := event("evt_1", "payment.created", "pay_1", "1001", "10")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := s.post(signed(body).WithContext(ctx))
	if got := fmt.Sprint(w.Code, " ", w.Body); got != "503 Error" && got != "200 OK" {
		t.Error(got)
	}
	for deadline := time.Now().Add(5 * time.Second); s.count("inbox") == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // for the row
	}
	s.expect(body, "200 Already processed")
	is(t, "rows", s.count("inbox"), 1)
}

// unavailable checks a 503: its text, its Retry-After of 2 to 8 s, and that it came in time.
func (s *shop) unavailable(within time.Duration) {
	s.t.Helper()
	start := time.Now()
	w := s.post(signed(event("evt_503", "payment.created", "pay_1", "1001", "10")))
	is(s.t, "answer", fmt.Sprint(w.Code, " ", w.Header().Get("Content-Type"), " ", w.Body), "503 text/plain; charset=utf-8 Error")
	if n, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || n < 2 || n > 8 {
		s.t.Errorf("Retry-After: %q", w.Header().Get("Retry-After"))
	}
	if took := time.Since(start); took > within {
		s.t.Errorf("it took %v", took)
	}
}

// When Postgres refuses connections, or the pool is closed, the sender is told to try again.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // nobody listens there now
	dead := newShop(t, func(s *setup) { s.intake = "postgres://nobody@" + l.Addr().String() + "/none?sslmode=disable" })
	dead.unavailable(2 * time.Second)

	closed := newShop(t)
	_ = closed.in.intake.Close()
	closed.unavailable(2 * time.Second)
	is(t, "rows", closed.count("inbox"), 0)
}

// When Postgres takes connections and says nothing, the answer is 503 within about two seconds.
func TestPostgresSilent(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.intake = "postgres://nobody@" + silent(t) + "/none?sslmode=disable" })
	s.unavailable(3 * time.Second)
}

// silent is the address of a server that takes connections and never says a word.
func silent(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return l.Addr().String()
}

// When the queue is full, 503 comes at once and the body is not read; so in a
// process whose writers were never started, and one that is shutting down.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	full := NewInbox(s.in.intake, s.db, s.in.bell, s.book, s.in.opts)
	s.http = engineOf(t, full)
	s.unavailable(time.Second) // no writers

	full.queued = make(chan *delivery, 1)
	full.queued <- &delivery{}
	s.unavailable(time.Second)
	r := signed("{}")
	r.Body = io.NopCloser(unreadable{t})
	is(t, "answer", s.post(r).Code, 503)
	is(t, "offer", full.offer(&delivery{}), false) // the last place may go between the look and the offer

	<-full.queued
	full.Close()
	s.unavailable(time.Second)
	is(t, "rows", s.count("inbox"), 0)
}

// Nobody waits for the bell: with a Redis that never answers, intake is as quick as ever.
func TestBellNeverWaits(t *testing.T) {
	t.Parallel()
	rdb, err := queue.Open("redis://" + silent(t) + "/0")
	if err != nil {
		t.Fatal(err)
	}
	bell := queue.NewClient(rdb)
	t.Cleanup(func() { _ = bell.Close(); _ = rdb.Close() })
	s := newShop(t, func(s *setup) { s.bell = bell })
	s.accept(event("evt_first", "payment.created", "pay_1", "1", "10")) // opens the connections
	for i := range 20 {
		start := time.Now()
		s.accept(event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1", "10"))
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("event %d took %v", i, took)
		}
	}
	is(t, "rows", s.count("inbox"), 21)
}

// Close stores what waits: every delivery that was let in is answered and there.
func TestCloseDrains(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var waiting []*delivery
	for i := range 600 {
		body := []byte(event(fmt.Sprint("evt_", i), "payment.created", "pay_1", "1", "10"))
		d := &delivery{Event: parseEvent(body), body: body, label: "00000000", done: make(chan outcome, 1)}
		if !s.in.offer(d) {
			t.Fatal("the queue is full")
		}
		waiting = append(waiting, d)
	}
	s.in.Close()
	for i, d := range waiting {
		select {
		case o := <-d.done:
			if o.answer != stored || o.err != nil {
				t.Errorf("delivery %d: %+v", i, o)
			}
		default:
			t.Fatalf("delivery %d was not answered", i)
		}
	}
	is(t, "rows", s.count("inbox"), 600)
	s.unavailable(time.Second)
	s.in.Close() // twice is once
}
