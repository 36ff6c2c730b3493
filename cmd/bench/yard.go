//go:build linux

package main

import (
	"bytes"
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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quayside/internal/devstack"
)

// serverSettings are what somebody would give a Postgres on a machine of this
// size; durability is devstack's and always on. They hold for all who are measured.
var serverSettings = []string{
	"shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min", "max_connections=300",
	"maintenance_work_mem=1GB", "random_page_cost=1.1", "log_min_messages=error",
}

// yard is where the measuring is done: servers of our own, and the program
// built from this checkout.
type yard struct {
	dir      string // everything is in it; removed by close
	root     string // of the checkout
	program  string // quayside
	postgres *devstack.Postgres
	redis    *devstack.RealRedis
	mail     *devstack.MailCatcher
	running  []*program
	out      io.Writer
}

func openYard(ctx context.Context, out io.Writer) (y *yard, err error) {
	y = &yard{out: out}
	defer func() {
		if err != nil {
			err = errors.Join(err, y.close())
		}
	}()
	if y.dir, err = os.MkdirTemp("", "quayside-bench-*"); err != nil {
		return y, err
	}
	if err := os.Chmod(y.dir, 0o755); err != nil { //nolint:gosec // Postgres runs as another user, and must get through here
		return y, err
	}
	if y.program, y.root, err = build(ctx, y.dir); err != nil {
		return y, err
	}
	y.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: filepath.Join(y.dir, "postgres"), Settings: serverSettings})
	if err != nil {
		return y, err
	}
	if y.redis, err = devstack.StartRealRedis(ctx); err != nil {
		return y, err
	}
	y.mail, err = devstack.StartMailCatcher(ctx, "", "")
	return y, err
}

// build makes quayside from the checkout that the working directory is in.
func build(ctx context.Context, dir string) (program, root string, err error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root = filepath.Dir(strings.TrimSpace(string(mod)))
	program = filepath.Join(dir, "quayside")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/quayside") //nolint:gosec // a path of our own
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("go build ./cmd/quayside: %w\n%s", err, said)
	}
	return program, root, nil
}

func (y *yard) close() (err error) {
	for i := len(y.running) - 1; i >= 0; i-- {
		y.running[i].stop()
	}
	if y.mail != nil {
		err = errors.Join(err, y.mail.Close())
	}
	if y.redis != nil {
		err = errors.Join(err, y.redis.Stop())
	}
	if y.postgres != nil {
		err = errors.Join(err, y.postgres.Stop())
	}
	if y.dir != "" {
		err = errors.Join(err, os.RemoveAll(y.dir))
	}
	return err
}

// database makes a database, from a template when one is named, and a pool on it.
func (y *yard) database(ctx context.Context, name, template string) (*store, error) {
	admin, err := pgx.Connect(ctx, y.postgres.URL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = admin.Close(ctx) }()
	made := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize()
	if template != "" {
		made += " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	}
	if _, err := admin.Exec(ctx, made); err != nil {
		return nil, fmt.Errorf("database %s: %w", name, err)
	}
	u, err := url.Parse(y.postgres.URL)
	if err != nil {
		return nil, err
	}
	u.Path = "/" + name
	pool, err := pgxpool.New(ctx, u.String())
	if err != nil {
		return nil, err
	}
	return &store{Pool: pool, url: u.String()}, nil
}

// shop makes a database with the schema of quayside.
func (y *yard) shop(ctx context.Context, name string) (*store, error) {
	s, err := y.database(ctx, name, "")
	if err != nil {
		return nil, err
	}
	err = y.quayside(ctx, s, "migrate")
	return s, err
}

// quayside runs a command that ends; what it printed is in the error.
func (y *yard) quayside(ctx context.Context, s *store, args ...string) error {
	cmd := exec.CommandContext(ctx, y.program, args...) //nolint:gosec // the program we built
	cmd.Env = y.settings(s, "127.0.0.1:0", 0)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("quayside %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	return nil
}

// redisURL is the address of one of Redis's numbered databases.
func (y *yard) redisURL(number int) string {
	return fmt.Sprintf("redis://%s/%d", y.redis.Addr, number)
}

// settings of a quayside on s, as its operator would write them.
func (y *yard) settings(s *store, addr string, redis int) []string {
	return []string{
		"DATABASE_URL=" + s.url, "REDIS_URL=" + y.redisURL(redis), "SMTP_URL=" + y.mail.SMTPURL, "LISTEN_ADDR=" + addr,
		"PUBLIC_URL=https://shop.example", "MAIL_FROM=Shop <orders@shop.example>",
		"PAYQI_WEBHOOK_SECRET=" + secret, "ADMIN_API_KEY=" + adminKey, "LOG_FORMAT=json",
	}
}

const adminKey = "qs_bench_only_never_a_real_key"

// serve starts `quayside serve` on s and work starts `quayside work`; both use
// the numbered database of Redis.
func (y *yard) serve(ctx context.Context, s *store, redis int) (*program, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := y.start("serve", y.settings(s, addr, redis), y.program, "serve")
	if err != nil {
		return nil, err
	}
	p.addr = addr
	err = p.ready(ctx, "/readyz")
	return p, err
}

func (y *yard) work(s *store, redis int) (*program, error) {
	return y.start("work", y.settings(s, "127.0.0.1:0", redis), y.program, "work")
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// program is a running process, with its output in a file.
type program struct {
	name string
	addr string // host:port; "" when it does not listen
	cmd  *exec.Cmd
	log  *os.File
	once sync.Once
	done chan struct{}
}

// start runs a program until the yard closes or this process ends. Its output
// goes to a file, as under systemd.
func (y *yard) start(name string, env []string, path string, args ...string) (*program, error) {
	log, err := os.CreateTemp(y.dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &program{name: name, cmd: exec.Command(path, args...), log: log, done: make(chan struct{})} //nolint:noctx,gosec // stop ends it; a path of our own
	p.cmd.Env = env
	p.cmd.Dir = y.root
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(err, log.Close()))
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	y.running = append(y.running, p)
	return p, nil
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// stop kills the program and its children: nothing that is measured follows.
func (p *program) stop() {
	p.once.Do(func() {
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.done
		_ = p.log.Close()
	})
}

// ready waits until the program answers 200 at path.
func (p *program) ready(ctx context.Context, path string) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	err := await(ctx, 30*time.Second, p.name+" to be ready", func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("%s ended", p.name)
		default:
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
		if err != nil {
			return false, err
		}
		answer, err := client.Do(r)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return answer.StatusCode == http.StatusOK, answer.Body.Close()
	})
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, p.said())
	}
	return nil
}

// said is the end of the program's output.
func (p *program) said() string {
	text, _ := os.ReadFile(p.log.Name()) // for a message only
	return string(text[max(0, len(text)-2000):])
}

// await asks every 20 ms whether something holds.
func await(ctx context.Context, patience time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s in vain for %s", patience, what))
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		if yes, err := holds(); err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-every.C:
		}
	}
}

// store is a database and its address.
type store struct {
	*pgxpool.Pool
	url string
}

// one reads a single value.
func one[T any](ctx context.Context, s *store, query string, args ...any) (v T, err error) {
	if err := s.QueryRow(ctx, query, args...).Scan(&v); err != nil {
		return v, fmt.Errorf("%s: %w", strings.Join(strings.Fields(query), " "), err)
	}
	return v, nil
}

// script runs statements, one after the other, with names in braces replaced.
func (s *store) script(ctx context.Context, text []byte, names ...string) error {
	conn, err := s.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var filled bytes.Buffer
	if _, err := strings.NewReplacer(names...).WriteString(&filled, string(text)); err != nil {
		return err
	}
	_, err = conn.Conn().PgConn().Exec(ctx, filled.String()).ReadAll()
	return err
}
