package orders

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quayside/internal/database"
	"quayside/internal/web"
)

// patience is for what should take milliseconds.
const patience = 30 * time.Second

// front is a shop whose page and twins are served over HTTP, by a server that
// has little patience: a stream must outlive its limits.
type front struct {
	*shop
	url    string
	client *http.Client
	server *http.Server
}

func newFront(t *testing.T) *front {
	t.Helper()
	return newFrontOf(t, (*httptest.Server).Start)
}

func newFrontOf(t *testing.T, start func(*httptest.Server)) *front {
	t.Helper()
	s := newShop(t)
	s.product("mug", 100)
	e, err := web.NewEngine(web.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	e.GET("/o/:token", s.book.StatusPage)
	e.GET("/o/:token/status", s.book.StatusAsJSON)
	e.GET("/o/:token/events", s.book.StatusEvents)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = web.NewServer("", e)
	ts.Config.ReadTimeout, ts.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	ts.Config.RegisterOnShutdown(s.book.EndStreams)
	s.book.watch.every = 5 * time.Millisecond
	start(ts)
	t.Cleanup(ts.CloseClientConnections)
	return &front{shop: s, url: ts.URL, client: ts.Client(), server: ts.Config}
}

func (f *front) token(order string) string {
	f.Helper()
	return one[string](f.shop, `SELECT status_token FROM orders WHERE id = ?`, order)
}

// read asks for a path and reads the whole answer.
func (f *front) read(path string) (*http.Response, string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	res, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.Fatal(err)
	}
	return res, string(body)
}

// ear is a client's end of a stream.
type ear struct {
	*front
	status int
	header http.Header
	lines  chan string // closed at the end of the stream
	leave  func()
}

func (f *front) listen(token string) *ear {
	f.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/o/"+token+"/events", nil)
	if err != nil {
		f.Fatal(err)
	}
	res, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	e := &ear{front: f, status: res.StatusCode, header: res.Header, lines: make(chan string, 1000)}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer close(e.lines)
		for in := bufio.NewScanner(res.Body); in.Scan(); {
			e.lines <- in.Text()
		}
	}()
	e.leave = func() { cancel(); <-gone; _ = res.Body.Close() }
	f.Cleanup(e.leave)
	return e
}

// line waits for the next line until limit; ok is false at the end.
func (e *ear) line(limit <-chan time.Time) (s string, ok bool) {
	e.Helper()
	select {
	case s, ok = <-e.lines:
		return s, ok
	case <-limit:
		e.Fatal("waited in vain for the stream")
	}
	return "", false
}

// until reads on to a line that begins with start.
func (e *ear) until(start string) string {
	e.Helper()
	limit := time.After(patience)
	for {
		s, ok := e.line(limit)
		if !ok {
			e.Fatalf("the stream ended before %q", start)
		}
		if strings.HasPrefix(s, start) {
			return s
		}
	}
}

// over reads on to the end of the stream.
func (e *ear) over() {
	e.Helper()
	limit := time.After(patience)
	for ok := true; ok; {
		_, ok = e.line(limit)
	}
}

// state waits for the next message and returns its id and state.
func (e *ear) state() (id string, state Scene) {
	e.Helper()
	id = strings.TrimPrefix(e.until("id: "), "id: ")
	if s := e.until("event: "); s != "event: status" {
		e.Errorf("got %q", s)
	}
	var s struct {
		State   Scene
		Version int
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(e.until("data: "), "data: ")), &s); err != nil || fmt.Sprint(s.Version) != id {
		e.Errorf("message %s: %v", id, err)
	}
	return id, s.State
}

// waitFor reads on to a state.
func (e *ear) waitFor(want Scene) {
	e.Helper()
	for {
		if _, got := e.state(); got == want {
			return
		}
	}
}

// eventually waits for others to make something so.
func (f *front) eventually(what string, holds func() bool) {
	f.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		if time.Since(began) > patience {
			f.Fatalf("waited in vain for %s", what)
		}
	}
}

func (w *watch) open() (streams int, looking bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.streams, w.stop != nil
}

// woken waits until there is news for a reader.
func (f *front) woken(r *reader) {
	f.Helper()
	select {
	case <-r.wake:
	case <-time.After(patience):
		f.Fatal("the reader was not woken")
	}
}

// A stream begins with the present state, tells of each change, and outlives
// the server's limits for an ordinary answer.
func TestStreamTellsChanges(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){
		"plain": (*httptest.Server).Start,
		"HTTP/2": func(ts *httptest.Server) {
			ts.EnableHTTP2 = true
			ts.StartTLS()
		},
	} {
		t.Run(name, func(t *testing.T) { tellsChanges(newFrontOf(t, start)) })
	}
}

func tellsChanges(f *front) {
	t := f.T
	f.book.watch.heartbeat = 100 * time.Millisecond
	f.open(draft("1001", "mug"))
	e := f.listen(f.token("1001"))
	if first, _ := e.line(time.After(patience)); first != "retry: 2000" {
		t.Errorf("the first line is %q", first)
	}
	first, state := e.state()
	f.want("at first", string(state), "awaiting_payment")
	for range 5 { // longer than both limits
		e.until(": ")
	}
	f.hear(f.of("1001", news(PaymentPendingEvent, "a")))
	e.waitFor(SceneAwaitingConfirmation)
	f.hear(f.of("1001", completed("a", "4")))
	e.waitFor(SceneUnderpaid)
	f.hear(f.of("1001", completed("b", "6")))
	e.waitFor(ScenePaid)
	if err := f.ship("1001"); err != nil {
		t.Fatal(err)
	}
	e.waitFor(SceneShipped)
	_, body := f.read("/o/" + f.token("1001") + "/status")
	var now struct{ Version int }
	if err := json.Unmarshal([]byte(body), &now); err != nil || fmt.Sprint(now.Version) == first {
		t.Errorf("the twin's version is %d after %s", now.Version, first)
	}
}

// Nothing that the page shows changes without a new version, else it would
// change only when somebody reloads it.
func TestEveryVisibleChangeIsANewVersion(t *testing.T) {
	f := newFront(t)
	tag := int64(7)
	details := news(PaymentCreatedEvent, "a")
	details.PayAddress, details.DestinationTag = anXRP, &tag
	elsewhere := news(PaymentPendingEvent, "a")
	elsewhere.PayAddress = "rElsewhere"
	bitcoins := completed("c", "1")
	bitcoins.Currency = "BTC"
	contradiction := completed("b", "11")
	hear := func(n News) func() { return func() { f.hear(f.of("1001", n)) } }
	f.open(draft("1001", "mug", "mug"))
	token := f.token("1001")
	type view struct {
		version int
		rest    string
	}
	look := func() view {
		_, body := f.read("/o/" + token + "/status")
		var fields map[string]any
		if err := json.Unmarshal([]byte(body), &fields); err != nil {
			t.Fatal(err)
		}
		v := view{version: int(fields["version"].(float64))}
		delete(fields, "version")
		rest, _ := json.Marshal(fields)
		v.rest = string(rest)
		return v
	}
	changes := 0
	before := look()
	for i, change := range []func(){
		hear(details), hear(news(PaymentPendingEvent, "a")), hear(elsewhere), hear(news(PaymentFailedEvent, "a")), hear(news(PaymentExpiredEvent, "a")),
		hear(details), hear(news(PaymentCreatedEvent, "d")), hear(bitcoins), hear(completed("b", "4")), hear(completed("e", "6")), hear(contradiction), hear(completed("f", "3")),
		func() { // a person closes the cases, and the next event settles the order
			f.must(func(tx database.Tx) error {
				return tx.Exec(`UPDATE cases SET state = 'closed', closed_at = ?, closed_by = 'admin:test'`, tx.Now).Error
			})
			f.hear(f.of("1001", news(PaymentCreatedEvent, "g")))
		},
		func() { _ = f.ship("1001", 1) }, func() { _ = f.ship("1001") }, func() { _ = f.cancel("1001") },
	} {
		change()
		after := look()
		if after.rest != before.rest {
			changes++
			if after.version <= before.version {
				t.Errorf("change %d shows, but the version stays %d:\n%s\n%s", i, before.version, before.rest, after.rest)
			}
		}
		before = after
	}
	if changes < 10 {
		t.Errorf("only %d of the changes show; the last:\n%s", changes, before.rest)
	}
}

// A change between the look at an order and the joining of its watch is told.
func TestStreamMissesNothingAtItsBeginning(t *testing.T) {
	f := newFront(t)
	w := f.book.watch
	f.open(draft("1001", "mug"))
	early, err := w.join("1001", 1, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.leave(early)
	f.hear(f.of("1001", completed("a", "10")))
	f.woken(early)
	if version, message := w.newest(early); version != 2 || !bytes.Contains(message, []byte(`"state":"paid"`)) {
		t.Errorf("version %d: %s", version, message)
	}
	late, err := w.join("1001", 1, []byte("first")) // it looked before the payment
	if err != nil {
		t.Fatal(err)
	}
	defer w.leave(late)
	f.woken(late)
	if version, _ := w.newest(late); version != 2 {
		t.Errorf("the late one has version %d", version)
	}
	alone, err := w.join("1001", 3, []byte("newer")) // it looked after a change not yet noticed here
	if err != nil {
		t.Fatal(err)
	}
	defer w.leave(alone)
	select {
	case <-alone.wake:
		t.Error("told of what it knows")
	default:
	}
}

// Those who do not listen hold up nobody, and find the newest state when they do.
func TestSlowReadersHoldUpNobody(t *testing.T) {
	f := newFront(t)
	w := f.book.watch
	w.every = time.Hour
	slow, _ := w.join("1001", 1, nil)
	defer w.leave(slow)
	quick, _ := w.join("1001", 1, nil)
	defer w.leave(quick)
	for version := 2; version < 1000; version++ {
		w.tell("1001", version, fmt.Append(nil, version))
		f.woken(quick)
	}
	f.woken(slow)
	if version, message := w.newest(slow); version != 999 || string(message) != "999" {
		t.Errorf("the slow one finds %d %s", version, message)
	}
}

// A reader that takes nothing is given up after a while.
func TestStalledReaderIsLeft(t *testing.T) {
	given := make(chan struct{})
	server := web.NewServer("", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(given)
		out := &stream{w, http.NewResponseController(w), 50 * time.Millisecond}
		for message := make([]byte, 1<<20); out.send(message); {
		}
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-given:
	case <-time.After(patience):
		t.Error("the reader is still waited for")
	}
}

// There are only so many streams for an order and for a process; who leaves
// makes room. Beyond, the answer says when to come again.
func TestStreamsAreBounded(t *testing.T) {
	f := newFront(t)
	w := f.book.watch
	w.perOrder, w.most = 2, 3
	f.open(draft("1001", "mug"))
	f.open(draft("1002", "mug"))
	one, other := f.token("1001"), f.token("1002")
	refused := func(token string) {
		t.Helper()
		res, body := f.read("/o/" + token + "/events")
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !strings.Contains(body, "too_many_streams") || res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("answered %d %v %s", res.StatusCode, res.Header, body)
		}
	}
	first := f.listen(one)
	f.listen(one).state()
	refused(one)
	f.listen(other).state()
	refused(other) // the process is full
	first.leave()
	f.eventually("the place to be free", func() bool { n, _ := w.open(); return n == 2 })
	f.listen(other).state()
	refused(one)
}

// What cannot be a token costs no look into the database, and what could costs one.
func TestUnknownTokens(t *testing.T) {
	f := newFront(t)
	f.open(draft("1001", "mug"))
	token := f.token("1001")
	nobody, err := database.Open("postgres://127.0.0.1:1/away", database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	f.book.db = nobody
	for _, wrong := range []string{"x", token[1:], token + "a", strings.ToUpper(token), strings.Repeat("1", len(token)), strings.Repeat("é", len(token)/2)} {
		for _, twin := range []string{"", "/status", "/events"} {
			if res, body := f.read("/o/" + wrong + twin); res.StatusCode != http.StatusNotFound {
				t.Errorf("%s%s: %d %s", wrong, twin, res.StatusCode, body)
			}
		}
	}
	res, body := f.read("/o/" + token)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !strings.Contains(body, "nothing is lost") || strings.Contains(body, token) {
		t.Errorf("without a database: %d %s", res.StatusCode, body)
	}
}

// A stream ends when it is old, when its reader goes and when the server stops;
// then nobody asks Postgres any more, and nothing is left running.
func TestStreamsEnd(t *testing.T) {
	f := newFront(t)
	f.open(draft("1001", "mug"))
	token := f.token("1001")
	w := f.book.watch
	running := goleak.IgnoreCurrent()
	if _, looking := w.open(); looking {
		t.Error("it looks although nobody does")
	}
	idle := func() {
		t.Helper()
		f.eventually("the watch to rest", func() bool { n, looking := w.open(); return n == 0 && !looking })
	}

	e := f.listen(token)
	e.state()
	if n, looking := w.open(); n != 1 || !looking {
		t.Errorf("%d streams, looking: %t", n, looking)
	}
	e.leave()
	idle()

	w.maxAge = time.Millisecond
	f.listen(token).over()
	idle()
	w.maxAge = time.Hour

	e = f.listen(token)
	e.state()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.server.Shutdown(ctx); err != nil {
		t.Errorf("the server does not stop: %v", err)
	}
	e.over()
	idle()
	if _, err := w.join("1001", 1, nil); err == nil {
		t.Error("let in after the end")
	}
	e.leave()
	f.client.CloseIdleConnections()
	if err := goleak.Find(running); err != nil {
		t.Error(err)
	}
}

// While Postgres does not answer, streams stay, and they tell what they missed.
func TestStreamsOutlastPostgres(t *testing.T) {
	f := newFront(t)
	f.book.watch.heartbeat = 20 * time.Millisecond
	f.open(draft("1001", "mug"))
	e := f.listen(f.token("1001"))
	e.state()
	away := func(statement string) {
		f.must(func(tx database.Tx) error { return tx.Exec(statement).Error })
	}
	away(`ALTER TABLE orders RENAME TO orders_away`) // every look fails
	ctx := context.Background()
	if err := f.book.watch.lookOnce(ctx); err == nil {
		t.Fatal("the look did not fail")
	}
	for range 3 {
		e.until(": ")
	}
	away(`ALTER TABLE orders_away RENAME TO orders`)
	f.hear(f.of("1001", completed("a", "10")))
	e.waitFor(ScenePaid)
}
