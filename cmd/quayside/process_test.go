//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/orders"
	"quayside/migrations"
)

// load is a number of orders and the completed event of each.
type load struct {
	w      *world
	orders []orders.View
	stored atomic.Int64 // events that were answered 200
}

// newLoad opens n orders.
func (w *world) newLoad(n int) *load {
	w.t.Helper()
	w.stock("load", int64(2*n))
	l := &load{w: w, orders: make([]orders.View, n)}
	l.each(func(i int) error {
		return w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/orders", draft(fmt.Sprintf("load-%d", i), "load"), &l.orders[i])
	})
	return l
}

// each does a thing for every order, eight at a time.
func (l *load) each(do func(i int) error) {
	l.w.t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(l.orders); i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					l.w.t.Errorf("order %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// send tells of every payment, in the background; wait waits for the answers.
func (l *load) send() (wait func()) {
	l.w.t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		l.each(func(i int) error {
			a, err := l.w.payqi.tell(l.w.t.Context(), newEvent("payment.completed", l.orders[i], "pay_"+l.orders[i].ID))
			if err == nil && a.String() != "200 OK" {
				err = errors.New(a.String())
			}
			l.stored.Add(1)
			return err
		})
	})
	return wg.Wait
}

func (l *load) paid() int {
	return l.w.count(`SELECT count(*) FROM orders WHERE status = 'paid'`)
}

// underWay waits until a part of the load is applied and a part is not.
func (l *load) underWay() {
	l.w.t.Helper()
	l.w.await("the load to be under way", func() bool { return l.paid() >= len(l.orders)/6 })
}

// allPaid waits until every order is paid, at most limit, and says how long that took.
func (l *load) allPaid(limit time.Duration) time.Duration {
	l.w.t.Helper()
	return l.w.within(limit, "all orders to be paid", func() bool { return l.paid() == len(l.orders) })
}

// Serve and two workers as separate processes take an order from creation to
// its last letter.
func TestProcessesWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serveApart()
	w.workApart()
	w.workApart()
	w.stock("mug", 10)
	o := w.open("walk", "mug")
	w.tell("payment.created", o)
	contains(t, "the first letter", w.letter("walk", "received").Text, "10.00 XRP", demoAddress, "https://shop.example/o/")
	w.tell("payment.completed", o)
	w.stands("walk", "paid/paid/queued")
	w.letter("walk", "payment received")
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/walk/shipments", map[string]any{"carrier": "DHL", "tracking_number": "JD0146"}, nil))
	contains(t, "the last letter", w.letter("walk", "on its way").Text, "JD0146", "https://shop.example/o/")
	w.quiet()
}

// Told to stop under load, serve says so to the load balancer, answers every
// request of those it let in, has stored what it said it stored, and exits 0.
func TestServeStopsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serveApart()
	var stored sync.Map
	var wg sync.WaitGroup
	var answered, refused atomic.Int64
	for range 32 {
		wg.Go(func() {
			for {
				e := newEvent("payment.created", orders.View{ID: "nobody", Currency: "XRP"}, "pay_test_"+randomHex(8))
				a, err := w.payqi.tell(t.Context(), e)
				switch {
				case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET): // the door is closed, or closed on the queue before it
					return
				case err != nil:
					t.Errorf("let in and not answered: %v", err)
					return
				case a.Status == http.StatusOK:
					stored.Store(e.ID, true)
					answered.Add(1)
				case a.Status == http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					t.Errorf("answered %s", a)
				}
			}
		})
	}
	w.await("load", func() bool { return answered.Load() > 200 })
	p.signal(syscall.SIGTERM)
	w.await("the load balancer to be told", func() bool {
		r, err := w.shop.http.Get(w.shop.url + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = r.Body.Close() }()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), "stopping")
	})
	wg.Wait()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("%d answered 200, %d answered 503", answered.Load(), refused.Load())
	stored.Range(func(id, _ any) bool {
		if w.count(`SELECT count(*) FROM inbox WHERE key = ?`, id) != 1 {
			t.Errorf("%s was answered 200 and is not stored", id)
		}
		return true
	})
}

// Told to stop under load, a worker finishes what it has begun and exits 0,
// with Redis and without; the rest is the next one's.
func TestWorkStopsUnderLoad(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(*testing.T) *world{"redis": newWorld, "redis away": newWorldAway} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := build(t)
			w.serveApart()
			p := w.workApart()
			l := w.newLoad(100)
			sent := l.send()
			l.underWay()
			w.await("letters to be under way", func() bool { return w.count(`SELECT count(*) FROM letters WHERE state = 'sent'`) > 10 })
			p.signal(syscall.SIGTERM)
			told := time.Now()
			if code := p.exit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			t.Logf("measured: it ended %.1f s after SIGTERM", time.Since(told).Seconds())
			sent()
			if n := w.count(`SELECT count(*) FROM inbox_open WHERE attempts > 0`); n != 0 {
				t.Errorf("%d events were begun and not finished", n)
			}
			if n := w.count(`SELECT count(*) FROM letters WHERE state IN ('sending', 'unknown', 'queued') AND attempts > 0`); n != 0 {
				t.Errorf("%d letters were begun and not finished", n)
			}
			t.Logf("%d of %d were paid and %d letters sent when it stopped", l.paid(), len(l.orders), w.count(`SELECT count(*) FROM letters WHERE state = 'sent'`))
			w.workApart()
			l.allPaid(patience)
			w.quiet()
		})
	}
}

// A worker that is killed in the middle of a load loses nothing: the one that
// is left applies it all within seconds (reliability: 5 s; 15 s on a slow machine).
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serveApart()
	p := w.workApart()
	w.workApart()
	l := w.newLoad(300)
	sent := l.send()
	l.underWay()
	p.signal(syscall.SIGKILL)
	killed := time.Now()
	left := len(l.orders) - l.paid()
	sent()
	l.allPaid(15 * time.Second)
	t.Logf("measured: %d orders left at the kill were paid %.1f s after it", left, time.Since(killed).Seconds())

	// A letter that was at the mail server's door may have got in: nobody sends
	// it again before a quarter of an hour, which we do not wait for here.
	w.await("the letters of the living", func() bool {
		return w.count(`SELECT count(*) FROM letters WHERE state = 'queued' AND not_before <= now() OR state = 'sending' AND started_at > now() - interval '5 seconds'`) == 0
	})
	lost, err := w.db.Exec(t.Context(), `UPDATE letters SET started_at = started_at - interval '15 minutes' WHERE state = 'sending'`)
	w.must(err)
	w.quiet()
	if n := w.count(`SELECT count(*) FROM letters WHERE state = 'unknown'`); n != int(lost) {
		t.Errorf("%d letters are unknown, %d were in the hands of the worker that was killed", n, lost)
	}
}

// Redis forgetting everything in the middle of a load loses nothing
// (reliability: 3 s; 10 s on a slow machine).
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if w.redis == nil {
		t.Skip("there is no Redis to flush")
	}
	w.serveApart()
	w.workApart()
	l := w.newLoad(200)
	sent := l.send()
	l.underWay()
	for range 5 {
		w.must(w.redis.FlushAll(t.Context()))
	}
	sent()
	w.must(w.redis.FlushAll(t.Context()))
	flushed, left := time.Now(), len(l.orders)-l.paid()
	l.allPaid(10 * time.Second)
	t.Logf("measured: %d orders left at the last flush were paid %.1f s after it", left, time.Since(flushed).Seconds())
	w.quiet()
}

// While Redis hangs, webhooks are answered as fast as ever and the sweep
// applies the events; when it is back nobody has noticed. When it hangs again
// both processes still stop in order.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if w.redis == nil {
		t.Skip("there is no Redis to stop")
	}
	serve, work := w.serveApart(), w.workApart()
	l := w.newLoad(20)
	w.must(w.redis.Pause())
	var slowest time.Duration
	for _, o := range l.orders {
		began := time.Now()
		w.tell("payment.completed", o)
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 500*time.Millisecond {
		t.Errorf("the slowest webhook took %s", slowest)
	}
	applied := l.allPaid(patience)
	w.must(w.redis.Resume())
	resumed := time.Now()
	w.stock("mug", 2)
	w.tell("payment.completed", w.open("after", "mug"))
	w.stands("after", "paid/paid/queued")
	w.quiet()
	t.Logf("measured: slowest webhook %s; all applied by the sweep after %s; quiet %s after Redis was back", slowest, applied, time.Since(resumed))

	w.must(w.redis.Pause())
	told := time.Now()
	serve.signal(syscall.SIGTERM)
	work.signal(syscall.SIGTERM)
	for _, p := range []*program{serve, work} {
		if code := p.exit(); code != 0 {
			t.Errorf("%v: exit code %d", p.cmd.Args[1:], code)
		}
		t.Logf("measured: %v ended %.1f s after SIGTERM while Redis hangs", p.cmd.Args[1:], time.Since(told).Seconds())
	}
}

// A mail server that is away delays no order: the letters wait and go out when
// it is back.
func TestMailServerAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serveApart("--with-worker")
	w.stock("mug", 10)
	w.must(w.mail.SetFault(devstack.RefuseConnections))
	o := w.open("unheard", "mug")
	w.tell("payment.completed", o)
	w.stands("unheard", "paid/paid/queued")
	w.await("an attempt to fail", func() bool {
		return w.count(`SELECT count(*) FROM letters WHERE kind = 'payment_confirmed' AND state = 'queued' AND attempts = 1 AND last_error <> '' AND not_before > now()`) == 1
	})
	w.must(w.mail.SetFault(devstack.None))
	_, err := w.db.Exec(t.Context(), `UPDATE letters SET not_before = now()`) // instead of 15 s
	w.must(err)
	w.letter("unheard", "payment received")
	w.quiet()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// While Postgres is away webhooks are answered 503 with Retry-After and serve
// says it is alive but not ready; what was answered 200 before is there after
// the crash, and all goes on by itself when Postgres is back.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	var pg *devstack.Postgres
	t.Cleanup(func() {
		if pg != nil {
			_ = pg.Stop()
		}
	})
	start := func() *devstack.Postgres {
		pg, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return pg
	}
	pg = start()
	db, err := database.Open(pg.URL, database.Options{Name: "migrate", MaxConns: 2, Timeout: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Migrate(t.Context(), migrations.FS)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	w := newWorldOn(t, pg.URL)
	w.cfg.RedisURL = secret(w.startRedis())
	serve, work := w.serveApart(), w.workApart()
	w.stock("mug", 10)
	before, after := w.open("before", "mug"), w.open("after", "mug")
	w.tell("payment.completed", before)

	w.must(syscall.Kill(pg.PID(), syscall.SIGQUIT)) // immediate shutdown: a crash
	if err := <-pg.Done(); err == nil {
		t.Error("Postgres ended in order")
	}
	w.must(pg.Stop())
	e := newEvent("payment.completed", after, "pay_after")
	for range 3 {
		body := jsonOf(e)
		r := w.ask(http.MethodPost, "/webhooks/payqi", body, "X-PayQI-Signature", signed(body))
		if r.status != 503 || r.header.Get("Retry-After") == "" || r.body != "Error" {
			t.Errorf("webhook: %d %q %v", r.status, r.body, r.header)
		}
	}
	if r := w.ask(http.MethodGet, "/healthz", ""); r.status != 200 {
		t.Errorf("healthz: %d", r.status)
	}
	if r := w.ask(http.MethodGet, "/readyz", ""); r.status != 503 {
		t.Errorf("readyz: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/orders", ""); r.status != 503 || r.code() == "" || strings.Contains(r.body, "127.0.0.1") {
		t.Errorf("orders: %d %s", r.status, r.body)
	}

	was := pg.URL
	if pg = start(); pg.URL != was {
		t.Fatalf("Postgres came back at %s", pg.URL)
	}
	back := time.Now()
	w.await("the webhook to be taken", func() bool {
		a, err := w.payqi.tell(t.Context(), e)
		return err == nil && a.Status == 200
	})
	w.stands("before", "paid/paid/queued")
	w.stands("after", "paid/paid/queued")
	w.letter("after", "payment received")
	t.Logf("measured: all is well %s after Postgres is back", time.Since(back))
	w.await("readiness", func() bool { return w.ask(http.MethodGet, "/readyz", "").status == 200 })
	w.quiet()
	for _, p := range []*program{serve, work} {
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != 0 {
			t.Errorf("%v: exit code %d", p.cmd.Args[1:], code)
		}
	}
}

// reachableDir is a directory that the database's own user can go through.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "quayside-reach-*") //nolint:usetesting // t.TempDir is under one that only root gets through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Neither serve nor work starts on a database without its schema, and both say
// what to do.
func TestRefusesUnmigratedDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.env()
	env["DATABASE_URL"] = dbtest.Empty(t)
	for _, command := range []string{"serve", "work", "check"} {
		p := process(t, env, command)
		if code := p.exit(); code != exitFail || !strings.Contains(p.stderr.String(), "the database has no schema yet: run `quayside migrate`") {
			t.Errorf("%s: exit %d, %s", command, code, p.stderr.String())
		}
	}
}

// Two migrations at once are one migration: both succeed, one of them works.
func TestMigrateTwiceAtOnce(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DATABASE_URL": dbtest.Empty(t)}
	a, b := process(t, env, "migrate"), process(t, env, "migrate")
	if a.exit() != 0 || b.exit() != 0 {
		t.Fatalf("%s%s", a.stderr.String(), b.stderr.String())
	}
	both := a.stdout.String() + b.stdout.String()
	if n := strings.Count(both, "up to date\n"); n != 2 {
		t.Errorf("%d of them say that it is up to date:\n%s", n, both)
	}
	applied := regexp.MustCompile(`applied (\S+) in`).FindAllStringSubmatch(both, -1)
	seen := map[string]bool{}
	for _, m := range applied {
		if seen[m[1]] {
			t.Errorf("%s was applied twice", m[1])
		}
		seen[m[1]] = true
	}
	if len(seen) == 0 {
		t.Errorf("none was applied:\n%s", both)
	}
}
