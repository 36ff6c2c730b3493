package devstack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions says which server StartPostgres is to run.
type PostgresOptions struct {
	Dir       string                           // holds the data, the password, the port and the log; may be empty when Throwaway
	Database  string                           // made when it is missing; "quayside" when empty
	Throwaway bool                             // fast and unsafe, for tests; such a server says on to `show quayside.throwaway`
	Settings  []string                         // more of its settings, as in shared_buffers=1GB; those about durability are not theirs to change
	Log       func(format string, args ...any) // may be nil
}

// ErrInUse is in the error of a start on a directory that another living process uses.
var ErrInUse = errors.New("in use")

// Postgres is a PostgreSQL server that lives as long as this process, or until Stop.
type Postgres struct {
	URL     string // postgres://quayside:PASSWORD@127.0.0.1:PORT/DATABASE?sslmode=disable
	Dir     string // PostgresOptions.Dir, or elsewhere when the database user cannot reach that one
	Bin     string // where its programs are: postgres, and often pgbench
	Adopted bool   // the directory came from a process that died, and its server had to end first

	opts    PostgresOptions
	as      *account // nil when postgres runs as ourselves
	lock    *lock
	scratch *scratchDir // nil unless the directory goes with the server
	proc    *process
	done    chan error

	stop    sync.Once
	stopErr error
}

const (
	superuser = "quayside"

	// startPatience includes crash recovery after a machine went down.
	startPatience = 60 * time.Second

	// portTries is how often a port may be taken between our look at it and the server's.
	portTries = 5
)

// StartPostgres runs a PostgreSQL of its own and returns once it takes connections. ctx bounds the
// start, not the life of the server. Data, password and port in Dir are those of the last run.
// As root the server runs as the owner of Dir, or as the user postgres or nobody.
//
// However this process ends, SIGKILL included, the server is shut down soon after.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	if o.Database == "" {
		o.Database = "quayside"
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	p := &Postgres{opts: o, done: make(chan error, 1)}
	if err := p.claim(); err != nil {
		return nil, err
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("postgres in %s: %w", p.Dir, err), p.release())
	}
	go p.watch()
	return p, nil
}

// PID is the process id of the postmaster.
func (p *Postgres) PID() int { return p.proc.pid() }

// Done gives one value when the server has ended, nil when Stop ended it, and is then closed.
func (p *Postgres) Done() <-chan error { return p.done }

// Stop shuts the server down, waits for it and lets go of the directory. It may be called twice.
func (p *Postgres) Stop() error {
	p.stop.Do(func() {
		first := fastShutdown
		if p.scratch != nil {
			first = immediateShutdown // nobody will read this data again
		}
		p.stopErr = errors.Join(p.proc.end(first), p.release())
	})
	return p.stopErr
}

func (p *Postgres) watch() {
	defer close(p.done)
	<-p.proc.exited
	if p.proc.asked() {
		p.done <- nil
		return
	}
	p.done <- fmt.Errorf("postgres in %s ended by itself: %w\n%s", p.Dir, p.proc.err(), tail(p.logFile()))
}

// claim finds the directory and the user, and locks the directory against other processes.
func (p *Postgres) claim() (err error) {
	switch {
	case p.opts.Dir != "":
		if p.Dir, p.as, err = settle(p.opts.Dir); err != nil {
			return err
		}
		if p.Dir != p.opts.Dir {
			p.opts.Log("postgres keeps its files in %s", p.Dir)
		}
		p.lock, err = lockDir(p.Dir, p.as)
		return err
	case p.opts.Throwaway:
		if p.scratch, err = newScratchDir(); err != nil {
			return err
		}
		p.Dir = p.scratch.path
		if p.as, err = accountFor(p.Dir); err == nil {
			err = handOver(p.Dir, p.as)
		}
		if err != nil {
			return errors.Join(err, p.scratch.remove())
		}
		return nil
	default:
		return errors.New("postgres: no directory given to keep the data in")
	}
}

func (p *Postgres) release() error {
	if p.scratch != nil {
		return p.scratch.remove()
	}
	return p.lock.release()
}

func (p *Postgres) logFile() string { return filepath.Join(p.Dir, "postgres.log") }

// start brings the cluster up in a locked directory.
func (p *Postgres) start(ctx context.Context) error {
	c, err := p.openCluster(ctx)
	if err != nil {
		return err
	}
	if err := os.Rename(p.logFile(), p.logFile()+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for try := 1; ; try++ {
		port, err := freePort(p.Dir)
		if err != nil {
			return err
		}
		if err = p.run(ctx, c, port); err == nil {
			return own(filepath.Join(p.Dir, portFile), strconv.Itoa(port), p.as)
		}
		if try == portTries || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

// openCluster finds the binaries that fit the data, makes the data on the first run, and sees to
// it that no server of an earlier process still uses it.
func (p *Postgres) openCluster(ctx context.Context) (*cluster, error) {
	have, err := existingMajor(p.Dir)
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, binariesWanted{major: have, dir: p.Dir, as: p.as, log: p.opts.Log})
	if err != nil {
		return nil, err
	}
	p.Bin = bin.dir
	c := &cluster{dir: p.Dir, data: dataDir(p.Dir, bin.major), bin: bin, as: p.as, log: p.opts.Log}
	if p.Adopted, err = c.endLeftover(ctx); err != nil {
		return nil, err
	}
	if c.password, err = c.loadPassword(have == 0); err != nil {
		return nil, err
	}
	if have == 0 {
		err = c.init(ctx, p.opts.Throwaway)
	}
	return c, err
}

// run starts the server on port and waits until the database is there.
func (p *Postgres) run(ctx context.Context, c *cluster, port int) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("not ready after %s", startPatience))
	defer cancel()
	p.proc, err = startProcess(command{
		path: filepath.Join(c.bin.dir, "postgres"), args: p.settings(c, port),
		dir: c.dir, log: p.logFile(), as: c.as,
	})
	if err != nil {
		return err
	}
	err = c.awaitReady(ctx, p.proc)
	if err == nil {
		p.URL = c.url(port, p.opts.Database)
		err = createDatabase(ctx, c.url(port, "postgres"), p.opts.Database)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w\n%s", err, tail(p.logFile()))
	return errors.Join(err, p.proc.end(fastShutdown))
}

// settings are given on the command line, where neither postgresql.conf nor ALTER SYSTEM overrides them.
func (p *Postgres) settings(c *cluster, port int) []string {
	set := []string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "timezone=UTC", "log_timezone=UTC",
		"shared_buffers=64MB", "max_connections=" + strconv.Itoa(p.connections()),
	}
	set = append(set, p.opts.Settings...) // of two with one name the later counts
	if p.opts.Throwaway {
		set = append(set, "fsync=off", "full_page_writes=off", "synchronous_commit=off", "quayside.throwaway=on")
	} else {
		set = append(set, "fsync=on", "full_page_writes=on", "synchronous_commit=on")
	}
	args := []string{"-D", c.data, "-p", strconv.Itoa(port)}
	for _, s := range set {
		args = append(args, "-c", s)
	}
	return args
}

func (p *Postgres) connections() int {
	if p.opts.Throwaway {
		return 200 // tests run side by side
	}
	return 100
}

func createDatabase(ctx context.Context, admin, name string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var there bool
	err = conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", name).Scan(&there)
	if err != nil || there {
		return err
	}
	if _, err = conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func (c *cluster) url(port int, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, c.password),
		Host: fmt.Sprintf("127.0.0.1:%d", port), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}
