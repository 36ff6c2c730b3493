//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// fault is a way to harm the world.
type fault struct {
	name    string
	about   string
	targets []string      // of which the plan draws one: names or roles of actors; nil: it has none
	hold    time.Duration // how long it lasts at least; the plan may make it half as long again
	bound   time.Duration // from its end to all that was accepted before being settled, and a new order being paid
	inject  func(context.Context, *attack) error
}

// attack is a fault at work.
type attack struct {
	w        *world
	s        *sender
	probe    func(salt int) *teller
	aside    func(func()) // does it beside, before the run comes to rest
	rng      *rand.Rand
	target   string
	last     int // 1: it ends after others, for what it starts needs what they took away
	evidence []string
	undo     []func() error
	mu       sync.Mutex
}

// saw notes that the fault demonstrably happened.
func (a *attack) saw(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.evidence = append(a.evidence, fmt.Sprintf(format, args...))
}

// later is done when the fault ends, the latest first.
func (a *attack) later(f func() error) { a.undo = append(a.undo, f) }

// end undoes the harm.
func (a *attack) end() (err error) {
	for i := len(a.undo) - 1; i >= 0; i-- {
		err = errors.Join(err, a.undo[i]())
	}
	return err
}

// How soon all must be well after a fault.
const (
	soonRedis    = 3 * time.Second
	soonProcess  = 5 * time.Second
	soonPostgres = 10 * time.Second
	soonZombie   = 20 * time.Second // a frozen process holds its locks until Postgres gives it up
)

var (
	anyServe  = []string{"serve1", "serve2"}
	anyWork   = []string{"work1", "work2"}
	anyGroup  = []string{"serve", "work", "serve1", "work1", ""}
	everybody = []string{""}
)

// faults is the catalogue; docs/reliability.md says which of the known ones are not in it.
var faults = []fault{
	{"serve-kill", "SIGKILL to a serve", anyServe, time.Second, soonProcess, killing(syscall.SIGKILL)},
	{"work-kill", "SIGKILL to a worker", anyWork, time.Second, soonProcess, killing(syscall.SIGKILL)},
	{"serves-kill", "SIGKILL to both serves", []string{"serve"}, time.Second, soonProcess, killing(syscall.SIGKILL)},
	{"works-kill", "SIGKILL to both workers", []string{"work"}, 2 * time.Second, soonProcess, killing(syscall.SIGKILL)},
	{"all-kill", "SIGKILL to all four processes", everybody, time.Second, soonProcess, killing(syscall.SIGKILL)},
	{"serve-kill-blind", "a serve that has lost Postgres for two seconds gets SIGKILL", anyServe, 2 * time.Second, soonProcess, killBlind},
	{"serve-term", "SIGTERM to a serve under load", anyServe, time.Second, soonProcess, killing(syscall.SIGTERM)},
	{"work-term", "SIGTERM to a worker under load", anyWork, time.Second, soonProcess, killing(syscall.SIGTERM)},
	{"serve-freeze", "SIGSTOP to a serve, then SIGCONT", anyServe, 4 * time.Second, soonProcess, freezing},
	{"work-freeze", "SIGSTOP to a worker, then SIGCONT: it wakes up to work that others have done", anyWork, 12 * time.Second, soonZombie, freezing},
	{"work-crash-loop", "a worker is killed six times, half a second after each start", anyWork, 0, soonProcess, crashLoop},
	{"rolling-restart", "each process in turn is told to end and started again", everybody, 0, soonProcess, rollingRestart},
	{"secret-rotation", "another webhook secret, with two overlapping restarts", everybody, 0, soonProcess, rotateSecret},

	{"postgres-kill", "SIGKILL to all processes of Postgres at once, then crash recovery", nil, 2 * time.Second, soonPostgres, killPostgres},
	{"postgres-immediate", "immediate shutdown of Postgres, then crash recovery", nil, 2 * time.Second, soonPostgres, stopPostgres(syscall.SIGQUIT)},
	{"postgres-fast", "fast shutdown of Postgres, then a start", nil, 2 * time.Second, soonPostgres, stopPostgres(syscall.SIGINT)},
	{"postgres-kill-unapplied", "workers are frozen, so that nothing but intake commits; then SIGKILL to all of Postgres", nil, 0, soonPostgres, killUnapplied},
	{"postgres-hang", "SIGSTOP to all processes of Postgres", nil, 4 * time.Second, soonPostgres, hangPostgres},
	{"postgres-terminate", "every connection is terminated, five times", nil, 0, soonPostgres, terminate(5, 100)},
	{"postgres-terminate-some", "a fifth of the connections is terminated, each 200 ms", nil, 0, soonPostgres, terminate(20, 20)},
	{"postgres-locks", "somebody holds locks on all orders that wait for money", nil, 4 * time.Second, soonPostgres, holdLocks},
	{"postgres-deadlocks", "somebody updates orders and products against the order of the locks", nil, 4 * time.Second, soonPostgres, deadlocks},
	{"postgres-read-only", "default_transaction_read_only is on, as after a failover to a standby", nil, 3 * time.Second, soonPostgres, readOnly},
	{"postgres-connections", "all connections that the server has are taken", nil, 4 * time.Second, soonPostgres, exhaust},
	{"postgres-snapshot", "a transaction stays open with an old snapshot", nil, 5 * time.Second, soonPostgres, oldSnapshot},
	{"postgres-cut", "connections to Postgres are broken off, and none is to be had", anyGroup, 3 * time.Second, soonPostgres, cut(pgLine)},
	{"postgres-silence", "what Postgres answers does not arrive (half-open)", anyGroup, 4 * time.Second, soonPostgres, poison(pgLine, "timeout", "downstream", "timeout", 0)},
	{"postgres-deaf", "what is sent to Postgres does not arrive (half-open)", anyGroup, 4 * time.Second, soonPostgres, poison(pgLine, "timeout", "upstream", "timeout", 0)},
	{"postgres-latency", "every answer of Postgres takes 150 ms longer", anyGroup, 4 * time.Second, soonPostgres, poison(pgLine, "latency", "downstream", "latency", 150)},
	{"postgres-bandwidth", "Postgres answers 20 KB/s", anyGroup, 4 * time.Second, soonPostgres, poison(pgLine, "bandwidth", "downstream", "rate", 20)},
	{"postgres-reset", "connections to Postgres are reset as soon as they are used", anyGroup, 3 * time.Second, soonPostgres, poison(pgLine, "reset_peer", "downstream", "timeout", 0)},
	{"postgres-reply-lost", "connections break within an answer, that of COMMIT too", anyGroup, 4 * time.Second, soonPostgres, poison(pgLine, "limit_data", "downstream", "bytes", 6000)},

	{"redis-kill", "SIGKILL to Redis; it comes back empty", nil, 2 * time.Second, soonRedis, killRedis},
	{"redis-away", "Redis is away for longer", nil, 10 * time.Second, soonRedis, killRedis},
	{"redis-flush", "FLUSHALL, ten times", nil, 0, soonRedis, flushRedis},
	{"redis-flush-unworked", "FLUSHALL while workers are frozen and the queue is full", []string{"work"}, 2 * time.Second, soonRedis, flushUnworked},
	{"redis-hang", "SIGSTOP to Redis", nil, 5 * time.Second, soonRedis, hangRedis},
	{"redis-full", "maxmemory is reached: Redis refuses writes", nil, 4 * time.Second, soonRedis, fillRedis},
	{"redis-cut", "connections to Redis are broken off, and none is to be had", anyGroup, 3 * time.Second, soonRedis, cut(redisLine)},
	{"redis-silence", "what Redis answers does not arrive", anyGroup, 4 * time.Second, soonRedis, poison(redisLine, "timeout", "downstream", "timeout", 0)},
	{"redis-latency", "every answer of Redis takes a second", anyGroup, 4 * time.Second, soonRedis, poison(redisLine, "latency", "downstream", "latency", 1000)},
	{"redis-reset", "connections to Redis are reset as soon as they are used", anyGroup, 3 * time.Second, soonRedis, poison(redisLine, "reset_peer", "downstream", "timeout", 0)},

	{"mail-away", "nobody listens where the mail server was", nil, 3 * time.Second, soonProcess, mailAway},
	{"mail-later", "the mail server answers 451 to every recipient", nil, 3 * time.Second, soonProcess, mailGoesWrong(mailLater)},
	{"mail-never", "the mail server answers 550 to every recipient", nil, 3 * time.Second, soonProcess, mailGoesWrong(mailNever)},
	{"mail-dropped", "the mail server takes letters and hangs up instead of saying so", nil, 3 * time.Second, soonProcess, mailGoesWrong(mailDropped)},
	{"mail-slow", "the mail server takes three seconds over every letter", nil, 4 * time.Second, soonProcess, mailGoesWrong(mailSlow)},
	{"mail-silent", "the mail server never says a word", nil, 3 * time.Second, soonProcess, mailGoesWrong(mailSilent)},
	{"mail-busy", "the mail server greets with 421", nil, 3 * time.Second, soonProcess, mailGoesWrong(mailBusy)},

	{"storm-duplicates", "one event 600 times, 60 at once", nil, 0, soonProcess, duplicateStorm},
	{"storm-forged", "600 forged events, 60 at once", nil, 0, soonProcess, forgedStorm},
	{"storm-orders", "300 orders are opened and paid at once", nil, 0, soonPostgres, flood},
	{"slow-senders", "200 connections that send a byte now and then", nil, 3 * time.Second, soonProcess, slowLoris},
}

func faultNamed(name string) (fault, bool) {
	for _, f := range faults {
		if f.name == name {
			return f, true
		}
	}
	return fault{}, false
}

// killing ends processes with a signal and starts them again afterwards.
func killing(s syscall.Signal) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		for _, victim := range a.w.of(a.target) {
			if err := victim.fell(s, 45*time.Second); err != nil {
				return err
			}
			p := victim.now()
			a.saw("%s, process %d: %v", victim.name, p.pid(), cmpErr(p.err))
			if s == syscall.SIGTERM && p.err != nil {
				a.w.trouble("%s did not end in order when told to: %v", victim.name, p.err)
			}
		}
		a.later(func() error { return a.raiseAll(ctx) })
		return nil
	}
}

// killBlind kills a process that had no database: nothing it has in its memory
// alone may have been promised.
func killBlind(ctx context.Context, a *attack) error {
	if err := cut(pgLine)(ctx, a); err != nil {
		return err
	}
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	restore := a.undo
	a.undo = nil
	if err := killing(syscall.SIGKILL)(ctx, a); err != nil {
		return err
	}
	a.undo = append(a.undo, restore...) // the lines first: it needs them to start
	return nil
}

// raiseAll starts the target's processes side by side.
func (a *attack) raiseAll(ctx context.Context) error {
	var all sync.WaitGroup
	victims := a.w.of(a.target)
	errs := make([]error, len(victims))
	for i, victim := range victims {
		all.Go(func() { errs[i] = a.w.raise(ctx, victim) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func freezing(_ context.Context, a *attack) error {
	for _, victim := range a.w.of(a.target) {
		p := victim.now()
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		a.later(func() error { return p.signal(syscall.SIGCONT) })
		time.Sleep(20 * time.Millisecond)
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid())); err == nil && strings.Contains(string(state), ") T ") {
			a.saw("%s, process %d, was stopped", victim.name, p.pid())
		}
	}
	return nil
}

func crashLoop(ctx context.Context, a *attack) error {
	victim := a.w.of(a.target)[0]
	for range 6 {
		if err := victim.fell(syscall.SIGKILL, 5*time.Second); err != nil {
			return err
		}
		a.saw("%v", victim.now().err)
		if err := a.w.raise(ctx, victim); err != nil {
			return err
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func rollingRestart(ctx context.Context, a *attack) error {
	for _, victim := range a.w.actors {
		if err := victim.fell(syscall.SIGTERM, 45*time.Second); err != nil {
			return err
		}
		if err := victim.now().err; err != nil {
			a.w.trouble("%s did not end in order when told to: %v", victim.name, err)
		}
		if err := a.w.raise(ctx, victim); err != nil {
			return err
		}
		a.saw("%s was restarted", victim.name)
	}
	return nil
}

// rotateSecret does what docs/payqi.md says: the new secret beside the old one,
// PayQI changes over, then the old one goes.
func rotateSecret(ctx context.Context, a *attack) error {
	fresh := fmt.Sprintf("torture-secret-%x", a.rng.Uint64())
	restart := func(secrets ...string) error {
		a.w.secrets = secrets
		for _, victim := range a.w.of("serve") {
			if err := errors.Join(victim.fell(syscall.SIGTERM, 45*time.Second), a.w.raise(ctx, victim)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := restart(fresh, a.w.secrets[0]); err != nil {
		return err
	}
	a.w.signing.Store(&fresh)
	if err := sleep(ctx, 7*time.Second); err != nil { // longer than any request under way
		return err
	}
	a.saw("signed with the new secret alone")
	return restart(fresh)
}

// postgresTree is the postmaster and its children, all proven ours.
func (a *attack) postgresTree(ctx context.Context) ([]int, error) {
	if err := a.w.ownPostgres(ctx); err != nil {
		return nil, err
	}
	top := a.w.postgres.PID()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", top))
	if err != nil || !strings.Contains(string(line), a.w.postgres.Dir) {
		return nil, fmt.Errorf("process %d is not our Postgres: not touched (%w)", top, err)
	}
	return append([]int{top}, childrenOf(top)...), nil
}

func (a *attack) signalPostgres(ctx context.Context, s syscall.Signal) error {
	tree, err := a.postgresTree(ctx)
	if err != nil {
		return err
	}
	for _, pid := range tree {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	a.saw("%s to %d processes of Postgres", s, len(tree))
	return nil
}

func (a *attack) restartPostgresLater(ctx context.Context) {
	a.later(func() error {
		select { // it may take its time to end
		case <-a.w.postgres.Done(): //nolint:errcheck // it did not end by itself
		case <-time.After(15 * time.Second):
		}
		_ = a.w.postgres.Stop() // lets go of the directory
		was := a.w.postgres.URL
		if err := a.w.startPostgres(ctx); err != nil {
			return err
		}
		if a.w.postgres.URL != was {
			return fmt.Errorf("Postgres came back elsewhere, at %s", a.w.postgres.URL) //nolint:staticcheck // a name
		}
		return nil
	})
}

func killPostgres(ctx context.Context, a *attack) error {
	a.restartPostgresLater(ctx)
	return a.signalPostgres(ctx, syscall.SIGKILL)
}

func stopPostgres(s syscall.Signal) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		tree, err := a.postgresTree(ctx)
		if err != nil {
			return err
		}
		a.restartPostgresLater(ctx)
		a.saw("%s to the postmaster, process %d", s, tree[0])
		return syscall.Kill(tree[0], s)
	}
}

func hangPostgres(ctx context.Context, a *attack) error {
	tree, err := a.postgresTree(ctx)
	if err != nil {
		return err
	}
	for _, pid := range tree {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil {
			birth, _ := statOf(pid) // a zero birth is nobody's
			a.later(func() error {
				if now, err := statOf(pid); err != nil || now.birth != birth.birth {
					return nil //nolint:nilerr // gone: nothing to wake
				}
				return syscall.Kill(pid, syscall.SIGCONT)
			})
		}
	}
	slow, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := one[int](slow, a.w, `SELECT 1`); err != nil {
		a.saw("%d processes of Postgres stopped; it did not answer within 0.5 s", len(tree))
	}
	return nil
}

// killUnapplied makes the moment at which nothing but the writers' own flush
// keeps what was acknowledged: no worker commits, and no order is opened.
func killUnapplied(ctx context.Context, a *attack) error {
	for range 3 {
		t := a.probe(a.rng.IntN(1 << 30))
		var events []event
		for range 40 {
			if o, opened := t.open(0); opened {
				events = append(events, t.event("completed", o, t.name("pay")))
			}
		}
		b := &attack{w: a.w, s: a.s, probe: a.probe, rng: a.rng, target: "work"}
		if err := freezing(ctx, b); err != nil {
			return errors.Join(err, b.end())
		}
		var telling sync.WaitGroup
		var acked atomic.Int64
		telling.Go(func() {
			together(len(events), func(i int) {
				if t.send(events[i].ID, events[i].bytes(), truth) {
					acked.Add(1)
				}
			})
		})
		err := await(ctx, 10*time.Second, "a few events to be acknowledged", func() bool { return acked.Load() >= 10 })
		a.saw("%d events were acknowledged while no worker committed", acked.Load())
		err = errors.Join(err, killPostgres(ctx, b), sleep(ctx, 300*time.Millisecond), b.end())
		telling.Wait()
		if err != nil {
			return err
		}
	}
	return nil
}

// terminate cuts a share of the program's connections, a number of times.
func terminate(times, percent int) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		if err := a.w.ownPostgres(ctx); err != nil {
			return err
		}
		total := 0
		for range times {
			n, err := one[int](ctx, a.w, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))::int FROM pg_stat_activity
				WHERE application_name LIKE 'quayside%' AND random() * 100 < $1`, percent)
			if err != nil {
				return err
			}
			total += n
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
		if total > 0 {
			a.saw("%d connections terminated", total)
		}
		return nil
	}
}

// stranger is a connection to Postgres that is nobody's of the program.
func (a *attack) stranger(ctx context.Context) (*pgx.Conn, error) {
	if err := a.w.ownPostgres(ctx); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, a.w.postgres.URL+"&application_name=stranger")
	if err == nil {
		a.later(func() error { return conn.Close(context.WithoutCancel(ctx)) })
	}
	return conn, err
}

func holdLocks(ctx context.Context, a *attack) error {
	conn, err := a.stranger(ctx)
	if err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT 1 FROM orders WHERE status IN ('pending','payment_failed','expired') FOR UPDATE`); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `SELECT 1 FROM products ORDER BY sku LIMIT 5 FOR UPDATE`)
	if err != nil {
		return err
	}
	return a.sawWaiters(ctx, fmt.Sprintf("locks on %d products and the unpaid orders", tag.RowsAffected()))
}

// sawWaiters waits until somebody waits for a lock.
func (a *attack) sawWaiters(ctx context.Context, held string) error {
	_ = await(ctx, 3*time.Second, "somebody to wait", func() bool {
		n, err := one[int](ctx, a.w, `SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'quayside%' AND wait_event_type = 'Lock'`)
		if err == nil && n > 0 {
			a.saw("%s; %d connections waited for them", held, n)
		}
		return err == nil && n > 0
	}) // without evidence the run fails at its end
	return nil
}

func deadlocks(ctx context.Context, a *attack) error {
	const count = `SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`
	before, err := one[int](ctx, a.w, count)
	if err != nil {
		return err
	}
	under, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i := range 4 {
		conn, err := a.stranger(ctx)
		if err != nil {
			stop()
			return err
		}
		all.Go(func() {
			for under.Err() == nil { // backwards through the products, and those after the orders' own
				_, _ = conn.Exec(under, fmt.Sprintf(`DO $$ DECLARE s text; BEGIN FOR s IN SELECT sku FROM products ORDER BY sku DESC OFFSET %d LIMIT 12
					LOOP PERFORM 1 FROM products WHERE sku = s FOR UPDATE; PERFORM pg_sleep(0.01); END LOOP; END $$`, i))
			}
		})
	}
	a.later(func() error {
		stop()
		all.Wait()
		time.Sleep(time.Second) // until the server's statistics are written
		after, err := one[int](ctx, a.w, count)
		if err == nil && after > before {
			a.saw("%d deadlocks", after-before)
		}
		return err
	})
	return nil
}

func readOnly(ctx context.Context, a *attack) error {
	if err := a.w.ownPostgres(ctx); err != nil {
		return err
	}
	set := func(statement string) error {
		conn, err := pgx.Connect(ctx, a.w.postgres.URL+"&application_name=torture&default_transaction_read_only=off")
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, statement)
		if err == nil {
			_, err = conn.Exec(ctx, `SELECT pg_reload_conf()`)
		}
		return err
	}
	a.later(func() error { return set(`ALTER SYSTEM RESET default_transaction_read_only`) })
	if err := set(`ALTER SYSTEM SET default_transaction_read_only = on`); err != nil {
		return err
	}
	return await(ctx, 3*time.Second, "Postgres to be read-only", func() bool {
		mode, err := one[string](ctx, a.w, `SELECT current_setting('default_transaction_read_only')`)
		if err == nil && mode == "on" {
			a.saw("default_transaction_read_only is on")
		}
		return err == nil && mode == "on"
	})
}

// exhaust takes every connection the server has, but for one that looks.
func exhaust(ctx context.Context, a *attack) error {
	if err := a.w.ownPostgres(ctx); err != nil {
		return err
	}
	const open = `SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'`
	if _, err := one[int](ctx, a.w, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))::int FROM pg_stat_activity WHERE application_name LIKE 'quayside%'`); err != nil {
		return err
	}
	taken := 0
	for {
		conn, err := pgx.Connect(ctx, a.w.postgres.URL+"&application_name=stranger")
		if err != nil {
			break
		}
		taken++
		a.later(func() error { return conn.Close(context.WithoutCancel(ctx)) })
	}
	n, err := one[int](ctx, a.w, open)
	if taken > 0 {
		a.saw("%d connections taken, %d of the server's are open", taken, n)
	}
	return err
}

func oldSnapshot(ctx context.Context, a *attack) error {
	conn, err := a.stranger(ctx)
	if err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM inbox_open`).Scan(&n); err != nil {
		return err
	}
	a.saw("a snapshot was held")
	return nil
}

func pgLine(a *actor) *line    { return a.pg }
func redisLine(a *actor) *line { return a.redis }

// cut breaks lines off.
func cut(which func(*actor) *line) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		for _, victim := range a.w.of(a.target) {
			l := which(victim)
			l.down()
			a.later(l.up)
			if err := l.knock(ctx, a.w); err != nil {
				a.saw("%s: %v", l.name, err)
			}
		}
		return nil
	}
}

// poison does something to what flows on lines.
func poison(which func(*actor) *line, kind, direction, attribute string, value int64) func(context.Context, *attack) error {
	return func(ctx context.Context, a *attack) error {
		for _, victim := range a.w.of(a.target) {
			l := which(victim)
			a.later(l.heal)
			if err := l.poison(kind, direction, map[string]int64{attribute: value}); err != nil {
				return err
			}
		}
		l := which(a.w.of(a.target)[0])
		began := time.Now()
		err := l.knock(ctx, a.w)
		switch took := time.Since(began); {
		case err != nil:
			a.saw("%s: %v", l.name, err)
		case kind == "latency" && took >= time.Duration(value)*time.Millisecond:
			a.saw("%s: an answer took %d ms", l.name, took.Milliseconds())
		case kind == "bandwidth" && took >= 500*time.Millisecond:
			a.saw("%s: 20 KB took %d ms", l.name, took.Milliseconds())
		}
		return nil
	}
}

// knock asks the server behind a line for a sign of life.
func (l *line) knock(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if l.upstream == w.redisAt {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
			return err
		}
		_, err = bufio.NewReader(conn).ReadString('\n')
		return err
	}
	u, err := url.Parse(w.postgres.URL)
	if err != nil {
		return err
	}
	u.Host = l.addr
	var long string // longer than limit_data lets through
	conn, err := pgx.Connect(ctx, u.String()+"&application_name=torture")
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT repeat('x', 20000)`).Scan(&long)
		_ = conn.Close(ctx)
	}
	if err != nil {
		return errors.New("no answer of Postgres arrives")
	}
	return nil
}

func killRedis(ctx context.Context, a *attack) error {
	if err := a.w.ownRedis(ctx); err != nil {
		return err
	}
	a.later(func() error { return a.w.startRedis(ctx) })
	err := a.w.redis.end(syscall.SIGKILL, 5*time.Second)
	a.saw("redis: %v", a.w.redis.err)
	return err
}

func flushRedis(ctx context.Context, a *attack) error {
	keys := int64(0)
	for range 10 {
		if err := a.w.ownRedis(ctx); err != nil {
			return err
		}
		n, err := a.w.asked.DBSize(ctx).Result()
		keys += n
		if err := errors.Join(err, a.w.asked.FlushAll(ctx).Err(), sleep(ctx, 100*time.Millisecond)); err != nil {
			return err
		}
	}
	if keys > 0 {
		a.saw("%d keys flushed", keys)
	}
	return nil
}

// flushUnworked flushes bells that nobody has heard.
func flushUnworked(ctx context.Context, a *attack) error {
	if err := freezing(ctx, a); err != nil {
		return err
	}
	a.evidence = nil // that workers were frozen is not the point
	if err := a.w.ownRedis(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	waiting, err := a.w.asked.LLen(ctx, "asynq:{money}:pending").Result()
	if err == nil && waiting > 0 {
		a.saw("%d bells flushed that no worker had heard", waiting)
	}
	return errors.Join(err, a.w.asked.FlushAll(ctx).Err())
}

func hangRedis(ctx context.Context, a *attack) error {
	if err := a.w.ownRedis(ctx); err != nil {
		return err
	}
	p := a.w.redis
	a.later(func() error { return p.signal(syscall.SIGCONT) })
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := a.w.asked.Ping(ctx).Err(); err != nil {
		a.saw("Redis did not answer within a second")
	}
	return nil
}

func fillRedis(ctx context.Context, a *attack) error {
	if err := a.w.ownRedis(ctx); err != nil {
		return err
	}
	a.later(func() error { return a.w.asked.ConfigSet(ctx, "maxmemory", "0").Err() })
	if err := a.w.asked.ConfigSet(ctx, "maxmemory", "100kb").Err(); err != nil {
		return err
	}
	if err := a.w.asked.Set(ctx, "torture", "x", time.Second).Err(); err != nil {
		a.saw("Redis: %v", err)
	}
	return nil
}

func mailAway(_ context.Context, a *attack) error {
	a.w.mailLine.down()
	a.later(a.w.mailLine.up)
	if !listening(a.w.mailLine.addr) {
		a.saw("nobody listens at %s", a.w.mailLine.addr)
	}
	a.payOne()
	return nil
}

// payOne sees to it that there is a letter to send. It does not wait: another
// fault may have taken Postgres away.
func (a *attack) payOne() {
	t := a.probe(a.rng.IntN(1 << 30))
	a.aside(func() { t.simple("completed") })
}

func mailGoesWrong(f mailFault) func(context.Context, *attack) error {
	return func(_ context.Context, a *attack) error {
		a.w.mail.set(f)
		a.later(func() error {
			if n := a.w.mail.met(); n > 0 {
				a.saw("%d letters met it", n)
			}
			a.w.mail.set(mailWell)
			return nil
		})
		a.payOne()
		return nil
	}
}

// together does something n times, by at most 60 at once.
func together(n int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(60, n) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
}

func duplicateStorm(_ context.Context, a *attack) error {
	t := a.probe(a.rng.IntN(1 << 30))
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		var acked atomic.Int64
		together(600, func(int) {
			if t.send(e.ID, e.bytes(), truth) {
				acked.Add(1)
			}
		})
		a.saw("%d of 600 deliveries of one event were acknowledged", acked.Load())
	}
	return nil
}

func forgedStorm(_ context.Context, a *attack) error {
	t := a.probe(a.rng.IntN(1 << 30))
	if o, opened := t.open(0); opened {
		var events []event
		for range 600 {
			events = append(events, t.event("completed", o, t.name("pay")))
		}
		together(600, func(i int) { t.send(events[i].ID, events[i].bytes(), forged) })
		a.saw("600 forged events were refused")
	}
	return nil
}

func flood(_ context.Context, a *attack) error {
	number := a.rng.IntN(1 << 30)
	together(300, func(i int) { a.probe(number+i).simple("created", "completed") })
	a.saw("300 orders were opened and paid")
	return nil
}

func slowLoris(ctx context.Context, a *attack) error {
	open := 0
	for _, serve := range a.w.of("serve") {
		for range 100 {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", serve.addr)
			if err != nil {
				return err
			}
			open++
			a.later(func() error { _ = conn.Close(); return nil })
			go func() {
				for _, b := range []byte("POST /webhooks/payqi HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 500\r\n\r\n" + strings.Repeat("x", 500)) {
					if _, err := conn.Write([]byte{b}); err != nil || sleep(ctx, 100*time.Millisecond) != nil {
						return
					}
				}
			}()
		}
	}
	a.saw("%d connections, a byte each 0.1 s", open)
	return nil
}
