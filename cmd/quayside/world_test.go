//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

const (
	worldSecret = "whsec_CANARYSECRET_of_a_test_world"
	worldKey    = "qs_CANARYKEY_of_a_test_world_000"

	worldPayQIKey = "payqi_CANARYKEY_of_a_test_world"

	// patience is how long a thing may take that should take milliseconds. Nothing
	// waits for all of it unless the test fails.
	patience = 30 * time.Second
)

// world is a service's surroundings: a database, a Redis and a mail server of
// its own, and what is needed to speak to the service as a shop and as PayQI.
// When the test ends every invariant must hold.
type world struct {
	t     *testing.T
	cfg   config
	db    *database.DB        // to look with
	api   *payqiAPI           // nil until withPayQI
	redis *devstack.RealRedis // nil without a redis-server, and when it is away
	mail  *devstack.MailCatcher
	shop  *shopClient // nil until something serves
	payqi *player
}

// newWorld makes a world on a fresh database with a Redis that works.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newWorldOn(t, dbtest.URL(t))
	w.cfg.RedisURL = secret(w.startRedis())
	return w
}

// newWorldAway is newWorld with nobody at Redis's address.
func newWorldAway(t *testing.T) *world {
	t.Helper()
	w := newWorldOn(t, dbtest.URL(t))
	w.cfg.RedisURL = "redis://127.0.0.1:1/0"
	return w
}

// newWorldOn makes a world on a database that the caller provides, without Redis.
func newWorldOn(t *testing.T, databaseURL string) *world {
	t.Helper()
	w := &world{t: t}
	w.db = dbtest.Open(t, databaseURL, database.Options{Name: "look", MaxConns: 4, Timeout: -1})
	var err error
	w.mail, err = devstack.StartMailCatcher(t.Context(), "", "")
	w.must(err)
	t.Cleanup(func() { _ = w.mail.Close() })
	t.Cleanup(w.checkBooks)
	w.cfg = w.load(map[string]string{
		"DATABASE_URL": databaseURL, "SMTP_URL": w.mail.SMTPURL, "LISTEN_ADDR": "127.0.0.1:0", "PUBLIC_URL": "https://shop.example",
		"MAIL_FROM": "Test Shop <orders@shop.example>", "SHOP_NAME": "Test Shop",
		"PAYQI_WEBHOOK_SECRET": worldSecret, "ADMIN_API_KEY": worldKey,
	})
	return w
}

// withPayQI gives the houses opened from now on access to a PayQI that is played.
func (w *world) withPayQI() {
	w.t.Helper()
	api, address, err := startPayQIAPI(w.t.Context(), worldPayQIKey)
	w.must(err)
	w.t.Cleanup(func() { _ = api.Close() })
	w.api, w.cfg.PayQIAPIURL, w.cfg.PayQIAPIKey = api, address, worldPayQIKey
}

func (w *world) load(settings map[string]string) config {
	w.t.Helper()
	cfg, err := loadConfig(from(settings), needs{})
	w.must(err)
	return cfg
}

// startRedis prefers the real one; a machine without it gets the one of dev.
func (w *world) startRedis() (address string) {
	w.t.Helper()
	r, err := devstack.StartRealRedis(w.t.Context())
	if errors.Is(err, devstack.ErrNoRedisServer) {
		w.t.Log("no redis-server in PATH: this test runs on miniredis instead")
		mini, err := devstack.StartRedis(w.t.Context(), "")
		w.must(err)
		w.t.Cleanup(mini.Close)
		return mini.URL
	}
	w.must(err)
	w.t.Cleanup(func() { _ = r.Stop() })
	w.redis = r
	return r.URL
}

// env is the world as settings for a separate process.
func (w *world) env() map[string]string {
	return map[string]string{
		"DATABASE_URL": w.cfg.DatabaseURL.reveal(), "REDIS_URL": w.cfg.RedisURL.reveal(), "SMTP_URL": w.cfg.SMTPURL.reveal(),
		"LISTEN_ADDR": w.cfg.ListenAddr, "PUBLIC_URL": w.cfg.PublicURL, "MAIL_FROM": w.cfg.MailFrom, "SHOP_NAME": w.cfg.ShopName,
		"PAYQI_WEBHOOK_SECRET": worldSecret, "ADMIN_API_KEY": worldKey, "LOG_FORMAT": "json",
		"PAYQI_API_URL": w.cfg.PayQIAPIURL, "PAYQI_API_KEY": w.cfg.PayQIAPIKey.reveal(),
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// serve answers HTTP in this process until the test ends.
func (w *world) serve() {
	w.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	w.keep(func(ctx context.Context, h *house) error { return h.serve(ctx, l, 0) })
	w.speakTo("http://" + l.Addr().String())
}

// work works in this process until the test ends; quiet has come by then.
func (w *world) work() {
	w.t.Helper()
	w.keep(func(ctx context.Context, h *house) error { return h.work(ctx) })
	w.t.Cleanup(func() {
		if !w.t.Failed() {
			w.quiet()
		}
	})
}

// keep runs a house until the test is over.
func (w *world) keep(run func(ctx context.Context, h *house) error) {
	w.t.Helper()
	h, err := openHouse(w.t.Context(), w.cfg)
	w.must(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var g errgroup.Group
	g.Go(func() error { return run(ctx, h) })
	w.t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			w.t.Errorf("the house ended with %v", err)
		}
		h.close()
	})
}

// speakTo points shop and payqi at a service and waits until it is ready.
func (w *world) speakTo(url string) {
	w.t.Helper()
	w.shop, w.payqi = newShopClient(url, worldKey), newPayQI(url, worldSecret)
	if w.api != nil {
		w.api.tellTo(w.payqi)
	}
	w.shop.http = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	w.t.Cleanup(func() { w.shop.http.CloseIdleConnections(); w.payqi.http.CloseIdleConnections() })
	w.await("the service to be ready", func() bool {
		return w.shop.call(context.Background(), http.MethodGet, "/readyz", nil, nil) == nil
	})
}

// await waits until something is so. Others make it so; there is no other notice.
func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	w.within(patience, what, holds)
}

func (w *world) within(limit time.Duration, what string, holds func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > limit {
			w.t.Fatalf("waited %s in vain for %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// count asks the database for a number.
func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	if err := w.db.Read(context.Background()).Raw(query, args...).Scan(&n).Error; err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// text asks the database for a text.
func (w *world) text(query string, args ...any) (s string) {
	w.t.Helper()
	if err := w.db.Read(context.Background()).Raw(query, args...).Scan(&s).Error; err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return s
}

// quiet waits until nothing is left to do for a worker.
func (w *world) quiet() {
	w.t.Helper()
	deadline := time.Now().Add(2 * patience)
	for {
		left := w.text(`SELECT concat_ws(', ',
			(SELECT 'event ' || max(inbox_id::text) || ' of ' || count(*) FROM inbox_open WHERE state = 'received' HAVING count(*) > 0),
			(SELECT 'letter ' || max(id::text) || ' of ' || count(*) FROM letters WHERE state = 'sending' OR state = 'queued' AND not_before <= now() HAVING count(*) > 0),
			(SELECT 'request ' || max(id::text) || ' of ' || count(*) FROM shipment_requests r WHERE state = 'queued' AND not_before <= now()
				AND NOT EXISTS (SELECT 1 FROM cases c WHERE c.order_id = r.order_id AND c.state = 'open' AND c.blocks) HAVING count(*) > 0),
			(SELECT 'import ' || max(id::text) FROM imports WHERE state = 'waiting' AND not_before <= now() HAVING count(*) > 0),
			(SELECT 'deadline of ' || max(id) FROM orders WHERE status IN ('pending','payment_failed') AND deadline <= now() HAVING count(*) > 0))`)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no quiet: there is still %s", left)
		}
		<-time.After(25 * time.Millisecond)
	}
}

// checkBooks is `quayside check --full`, which holds at every moment, quiet or not;
// and no letter came twice.
func (w *world) checkBooks() {
	broken, err := checkInvariants(context.Background(), w.db, w.cfg.PaymentTolerance.String(), true)
	if err != nil {
		w.t.Errorf("check the books: %v", err)
	}
	for _, f := range broken {
		w.t.Errorf("broken: %s\n  %s", f.name, strings.Join(f.rows, "\n  "))
	}
	came := map[string]bool{}
	for _, m := range w.mail.Messages() {
		if came[m.MessageID] {
			w.t.Errorf("a letter came twice: %s to %s", m.Subject, m.To)
		}
		came[m.MessageID] = true
	}
}

// stock adds a product.
func (w *world) stock(sku string, onHand int64) {
	w.t.Helper()
	w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/products", map[string]any{"sku": sku, "name": "A " + sku, "on_hand": onHand}, nil))
}

// levels are a product's on_hand/reserved.
func (w *world) levels(sku string) string {
	w.t.Helper()
	return w.text(`SELECT on_hand || '/' || reserved FROM products WHERE sku = ?`, sku)
}

// draft is the body of POST /orders for two units at 5 XRP each.
func draft(id, sku string) map[string]any {
	return map[string]any{
		"id": id, "currency": "XRP", "customer": map[string]any{"email": mailbox(id), "name": "Ada"},
		"items": []map[string]any{{"sku": sku, "quantity": 2, "unit_price": "5.00"}},
	}
}

func mailbox(order string) string { return order + "@customers.example" }

// open opens an order over two units, with changes to the draft: "expires_in", 1, …
func (w *world) open(id, sku string, changes ...any) (o orders.View) {
	w.t.Helper()
	body := draft(id, sku)
	for i := 0; i < len(changes); i += 2 {
		body[changes[i].(string)] = changes[i+1]
	}
	w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/orders", body, &o))
	return o
}

func (w *world) order(id string) orders.View {
	w.t.Helper()
	o, err := w.shop.order(w.t.Context(), id)
	w.must(err)
	return o
}

// stands waits until an order's three statuses are want, as in paid/paid/queued.
func (w *world) stands(id, want string) orders.View {
	w.t.Helper()
	var o orders.View
	standing := func() string { return fmt.Sprintf("%s/%s/%s", o.Status, o.PaymentStatus, o.FulfillmentStatus) }
	for deadline := time.Now().Add(patience); ; {
		if o = w.order(id); standing() == want {
			return o
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("order %s is %s, want %s", id, standing(), want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// tell sends an event that must be stored for the first time.
func (w *world) tell(eventType string, o orders.View) {
	w.t.Helper()
	w.answered("200 OK", newEvent(eventType, o, "pay_"+o.ID))
}

// answered sends an event and looks at the answer.
func (w *world) answered(want string, e eventOf) {
	w.t.Helper()
	a, err := w.payqi.tell(w.t.Context(), e)
	w.must(err)
	if a.String() != want {
		w.t.Fatalf("%s of %s was answered %q, want %q", e.Type, e.Data.ID, a, want)
	}
}

// letter waits until a letter whose subject holds words has reached the
// customer of an order.
func (w *world) letter(order, words string) devstack.Mail {
	w.t.Helper()
	return w.letterTo(mailbox(order), words)
}

func (w *world) letterTo(address, words string) devstack.Mail {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	m, err := w.mail.WaitFor(ctx, func(m devstack.Mail) bool {
		return len(m.To) == 1 && m.To[0] == address && strings.Contains(m.Subject, words)
	})
	if err != nil {
		w.t.Fatalf("no letter %q to %s: %v; the database says %s", words, address, err,
			w.text(`SELECT COALESCE(string_agg(kind || ' ' || state || ' ' || last_error, ', '), 'none') FROM letters WHERE address = ?`, address))
	}
	return m
}

// letters are the subjects of all that has reached the customer of an order.
func (w *world) letters(order string) (subjects []string) {
	for _, m := range w.mail.Messages() {
		if m.To[0] == mailbox(order) {
			subjects = append(subjects, m.Subject)
		}
	}
	return subjects
}

// reply is an HTTP answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request as it is, with the admin key unless headers say otherwise.
func (w *world) ask(method, path, body string, headers ...string) reply {
	w.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.shop.url+path, strings.NewReader(body))
	w.must(err)
	r.Header.Set("Authorization", "Bearer "+worldKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Del(headers[i]); headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := w.shop.http.Do(r)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	w.must(err)
	return reply{res.StatusCode, res.Header, string(got)}
}

// code is the code of a problem, "" when the body is none.
func (r reply) code() string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(r.body), &p)
	return p.Code
}

// program is quayside as a process of its own.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout safeBuffer
	stderr safeBuffer
	ended  chan struct{}
}

// process runs quayside with args in a process of its own: this test binary,
// which TestMain turns into it. The process sees env and nothing of ours, is
// alone in its process group, and is killed when the test ends or this
// process does.
func process(t *testing.T, env map[string]string, args ...string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return processOf(t, exe, nil, env, args...)
}

func processOf(t *testing.T, exe string, as *syscall.Credential, env map[string]string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(exe, args...), ended: make(chan struct{})}
	p.cmd.Env = []string{asQuayside + "=1", "PATH=" + os.Getenv("PATH")}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	if _, err := p.cmd.StdinPipe(); err != nil { // open for as long as we live
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("quayside %s said:\n%s%s", strings.Join(args, " "), tailOf(p.stdout.String()), tailOf(p.stderr.String()))
		}
	})
	return p
}

// process runs quayside with the settings of the world.
func (w *world) process(args ...string) *program {
	w.t.Helper()
	return process(w.t, w.env(), args...)
}

// serveApart serves in a process of its own.
func (w *world) serveApart(args ...string) *program {
	w.t.Helper()
	p := w.process(append([]string{"serve"}, args...)...)
	w.speakTo("http://" + p.said("serving")["addr"].(string))
	return p
}

// workApart works in a process of its own.
func (w *world) workApart() *program {
	w.t.Helper()
	p := w.process("work")
	p.said("working")
	return p
}

// signal sends a signal to the process, which is not waited for before it ended.
func (p *program) signal(s syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = p.cmd.Process.Signal(s)
	}
}

// exit waits for the end and returns the exit code, -1 for a signal.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * patience):
		p.t.Fatalf("quayside %v does not end", p.cmd.Args[1:])
	}
	return p.cmd.ProcessState.ExitCode()
}

// said waits for a log line with this message.
func (p *program) said(msg string) map[string]any {
	p.t.Helper()
	var found map[string]any
	p.until(fmt.Sprintf("a log line %q", msg), func() bool {
		for line := range strings.Lines(p.stderr.String()) {
			var l map[string]any
			if json.Unmarshal([]byte(line), &l) == nil && l["msg"] == msg {
				found = l
			}
		}
		return found != nil
	})
	return found
}

// until waits for something the process does, and fails at once if it ended.
func (p *program) until(what string, holds func() bool) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("waited in vain for %s", what)
		case <-p.ended:
			if !holds() {
				p.t.Fatalf("quayside %v ended before %s", p.cmd.Args[1:], what)
			}
		}
	}
}

// safeBuffer is a buffer that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func tailOf(s string) string { return s[max(0, len(s)-6000):] }

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// signed is the signature of a body.
func signed(body string) string { return webhooks.Sign(worldSecret, []byte(body)) }
