//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"quayside/internal/devstack"
)

// adminKey opens the admin API of the world's own program.
const adminKey = "qs_torture_only_never_a_real_key"

// postgresSettings let deadlocks be found soon; durability is devstack's and always on.
var postgresSettings = []string{"shared_buffers=128MB", "deadlock_timeout=300ms", "log_min_messages=fatal", "autovacuum_naptime=10s"}

// world is everything a run needs, all of it its own: servers, proxies in
// between, and processes of the program.
type world struct {
	dir     string // everything is in it
	program string // quayside, built for this run
	cookie  string // a row of the database that proves that it is ours

	mu       sync.Mutex
	postgres *devstack.Postgres // replaced by every restart
	redis    *process
	redisAt  string // host:port
	asked    *redis.Client
	mail     *mailServer
	pool     *pgxpool.Pool // past the proxies
	actors   []*actor      // the processes of the program
	mailLine *line
	secrets  []string                         // that serve takes, the newest first
	signing  atomic.Pointer[string]           // with which PayQI signs
	trouble  func(format string, args ...any) // tells of what must not happen
}

// actor is one process of the program, over all its lives.
type actor struct {
	role, name string // serve or work, and a number
	addr       string // of serve
	pg, redis  *line
	mu         sync.Mutex
	life       *process
	held       bool   // it is meant to be down, or is about to be
	doomed     string // the crash point that its next life meets, POINT=MODE
}

// newWorld starts everything. program is built already.
func newWorld(ctx context.Context, dir, program string, trouble func(string, ...any)) (w *world, err error) {
	w = &world{dir: dir, program: program, cookie: uuid.NewString(), trouble: trouble, secrets: []string{"torture-secret-number-0"}}
	w.signing.Store(&w.secrets[0])
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.startPostgres(ctx); err != nil {
		return w, err
	}
	if w.pool, err = pgxpool.New(ctx, w.postgres.URL+"&application_name=torture"); err != nil {
		return w, err
	}
	if w.redisAt, err = freeAddr(); err != nil {
		return w, err
	}
	if err := w.run(ctx, "migrate"); err != nil {
		return w, err
	}
	if _, err := w.pool.Exec(ctx, `CREATE SCHEMA torture`); err != nil {
		return w, err
	}
	if _, err := w.pool.Exec(ctx, `CREATE TABLE torture.cookie AS SELECT $1::text AS cookie`, w.cookie); err != nil {
		return w, err
	}
	w.asked = redis.NewClient(&redis.Options{Addr: w.redisAt, MaxRetries: -1, ReadTimeout: time.Second, ContextTimeoutEnabled: true})
	if err := w.startRedis(ctx); err != nil {
		return w, err
	}
	if w.mail, err = startMailServer(ctx); err != nil {
		return w, err
	}
	if w.mailLine, err = openLine("mail", w.mail.addr()); err != nil {
		return w, err
	}
	err = w.cast(ctx)
	return w, err
}

// cast starts two processes of each role, each with lines of its own.
func (w *world) cast(ctx context.Context) (err error) {
	pg, err := url.Parse(w.postgres.URL)
	if err != nil {
		return err
	}
	for _, role := range []string{"serve", "work"} {
		for n := 1; n <= 2; n++ {
			a := &actor{role: role, name: role + strconv.Itoa(n)}
			if a.pg, err = openLine(a.name+"-postgres", pg.Host); err != nil {
				return err
			}
			if a.redis, err = openLine(a.name+"-redis", w.redisAt); err != nil {
				return err
			}
			if a.addr, err = freeAddr(); err != nil {
				return err
			}
			w.actors = append(w.actors, a)
			if err := w.raise(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) of(role string) (found []*actor) {
	for _, a := range w.actors {
		if a.role == role || role == "" || a.name == role {
			found = append(found, a)
		}
	}
	return found
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// startPostgres starts the server on the data it had before. After a kill its
// last processes may take a moment to go.
func (w *world) startPostgres(ctx context.Context) error {
	var last error
	err := await(ctx, 30*time.Second, "Postgres to start", func() bool {
		var p *devstack.Postgres
		p, last = devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: filepath.Join(w.dir, "postgres"), Settings: postgresSettings})
		if last == nil {
			w.mu.Lock()
			w.postgres = p
			w.mu.Unlock()
		}
		return last == nil || ctx.Err() != nil
	})
	return errors.Join(err, last)
}

// ownPostgres is an error unless the server that answers has our data and our cookie.
func (w *world) ownPostgres(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var dir, cookie string
	err := w.pool.QueryRow(ctx, `SELECT current_setting('data_directory'), (SELECT cookie FROM torture.cookie)`).Scan(&dir, &cookie)
	if err != nil {
		return fmt.Errorf("is this Postgres ours? %w", err)
	}
	if !strings.HasPrefix(dir, w.postgres.Dir+"/") || cookie != w.cookie {
		return fmt.Errorf("the Postgres with its data in %s is not ours: not touched", dir)
	}
	return nil
}

func (w *world) startRedis(ctx context.Context) (err error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("%w: install Redis", err)
	}
	dir := filepath.Join(w.dir, "redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(w.redisAt)
	if err != nil {
		return err
	}
	w.redis, err = startProcess("redis", binary, dir, filepath.Join(w.dir, "redis.log"), nil, "--port", port, "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--daemonize", "no")
	if err != nil {
		return err
	}
	return await(ctx, 10*time.Second, "Redis to start", func() bool { return listening(w.redisAt) && w.ownRedis(ctx) == nil })
}

// listening spares go-redis its complaints about refused connections.
func listening(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second) //nolint:noctx // a second at most, on this machine
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// ownRedis is an error unless the server that answers is the process that we
// started, with our directory.
func (w *world) ownRedis(ctx context.Context) error {
	info, err := w.asked.Info(ctx, "server").Result()
	if err != nil {
		return fmt.Errorf("is this Redis ours? %w", err)
	}
	dir, err := w.asked.ConfigGet(ctx, "dir").Result()
	if err != nil {
		return fmt.Errorf("is this Redis ours? %w", err)
	}
	if !strings.Contains(info, fmt.Sprintf("\r\nprocess_id:%d\r\n", w.redis.pid())) || dir["dir"] != filepath.Join(w.dir, "redis") {
		return fmt.Errorf("the Redis at %s is not ours: not touched", w.redisAt)
	}
	return w.redis.own()
}

// environment of a process of the program, as its operator would write it.
func (w *world) environment(a *actor) []string {
	database, redisAt, mailAt, addr := w.postgres.URL, w.redisAt, "127.0.0.1:9", "127.0.0.1:0"
	if a != nil {
		u, err := url.Parse(database)
		if err != nil {
			return nil // it was parsed before
		}
		u.Host = a.pg.addr
		database, redisAt, mailAt, addr = u.String(), a.redis.addr, w.mailLine.addr, a.addr
	}
	env := []string{
		"DATABASE_URL=" + database, "REDIS_URL=redis://" + redisAt + "/0", "SMTP_URL=smtp://" + mailAt, "LISTEN_ADDR=" + addr,
		"PUBLIC_URL=https://shop.example", "MAIL_FROM=Shop <orders@shop.example>", "ORDER_TTL=24h",
		"PAYQI_WEBHOOK_SECRET=" + strings.Join(w.secrets, ","), "ADMIN_API_KEY=" + adminKey, "LOG_FORMAT=json", "GOTRACEBACK=all",
	}
	if a != nil { // read by builds with crash points only
		env = append(env, "CRASH_LOG="+w.pointsOf(a), "CRASH_AT="+a.doomed)
	}
	return env
}

// run runs a command of the program that ends; what it said is in the error.
func (w *world) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, w.program, args...) //nolint:gosec // the program we built
	cmd.Env, cmd.Dir = w.environment(nil), w.dir
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("quayside %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	return nil
}

// started is what a process of the program says when it has looked at its
// settings, Postgres and its schema, and begins.
func (a *actor) started(p *process) bool {
	return p.said(map[string]string{"serve": `"msg":"serving"`, "work": `"msg":"working"`}[a.role])
}

// raise gives an actor a new life, and waits until serve is ready for traffic
// and a worker works.
func (w *world) raise(ctx context.Context, a *actor) error {
	p, err := startProcess(a.name, w.program, w.dir, filepath.Join(w.dir, a.name+".log"), w.environment(a), a.role)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.life, a.held = p, false
	a.mu.Unlock()
	go w.mind(ctx, a, p)
	return await(ctx, 20*time.Second, a.name+" to be ready", func() bool {
		if a.role == "serve" {
			return a.answers(ctx)
		}
		return a.started(a.now())
	})
}

// mind starts an actor again that ended without being asked, as its supervisor
// would, and tells of it.
func (w *world) mind(ctx context.Context, a *actor, p *process) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return
	}
	p.mu.Lock()
	asked := p.asked
	p.mu.Unlock()
	if asked || ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	doomed := a.doomed != ""
	a.doomed = ""
	a.mu.Unlock()
	if doomed { // as it was meant to
		if err := w.raise(ctx, a); err != nil && ctx.Err() == nil {
			w.trouble("%s could not be started again: %v", a.name, err)
		}
		return
	}
	if a.started(p) || !p.said("the database") { // otherwise it found no Postgres to start with, and says so by ending
		w.trouble("%s ended by itself: %v; the end of %s.log says why", a.name, cmpErr(p.err), a.name)
	}
	if sleep(ctx, 500*time.Millisecond) == nil && !a.down() {
		if err := w.raise(ctx, a); err != nil && ctx.Err() == nil {
			w.trouble("%s could not be started again: %v", a.name, err)
		}
	}
}

func (a *actor) down() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// now is the actor's present life.
func (a *actor) now() *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.life
}

// fell ends an actor with a signal; it stays down until it is raised.
func (a *actor) fell(s syscall.Signal, patience time.Duration) error {
	a.mu.Lock()
	a.held = true
	p := a.life
	a.mu.Unlock()
	return p.end(s, patience)
}

func (a *actor) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// close ends everything. What it leaves in dir is for whoever looks for a cause.
func (w *world) close() {
	for _, a := range w.actors {
		if p := a.now(); p != nil && !p.ended() {
			_ = p.signal(syscall.SIGCONT)
			_ = a.fell(syscall.SIGKILL, 5*time.Second)
		}
		a.pg.down()
		a.redis.down()
	}
	if w.mailLine != nil {
		w.mailLine.down()
	}
	if w.mail != nil {
		w.mail.close()
	}
	if w.asked != nil {
		_ = w.asked.Close()
	}
	w.redis.reap()
	if w.pool != nil {
		w.pool.Close()
	}
	if w.postgres != nil {
		_ = w.postgres.Stop()
	}
}

// one reads a single value, past the proxies.
func one[T any](ctx context.Context, w *world, query string, args ...any) (v T, err error) {
	err = w.pool.QueryRow(ctx, query, args...).Scan(&v)
	return v, err
}

// rows reads the rows of a query into structs, by name.
func rows[T any](ctx context.Context, w *world, query string, args ...any) ([]T, error) {
	r, err := w.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowToStructByName[T])
}
