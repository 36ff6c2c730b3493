// Package database opens Postgres and owns the one way to run a transaction.
// It is the only package that knows the Postgres driver.
package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"quayside/internal/crash"
	"quayside/internal/fault"
)

// Options of a pool. A process opens one for each kind of work that must not
// wait for another: intake has its own, so no slow list delays a webhook.
type Options struct {
	Name     string           // application_name in pg_stat_activity
	MaxConns int              // at least 2
	Clock    func() time.Time // nil: Postgres's own, read once per transaction
	Timeout  time.Duration    // of one statement, inside the server; zero: 5 s, negative: none
}

// Limits inside the server: a statement or a lock that takes longer is given
// up, and a connection that forgot its transaction is closed.
const (
	statementTimeout = 5 * time.Second
	lockTimeout      = 2 * time.Second
	idleInTxTimeout  = 10 * time.Second
	connectTimeout   = 3 * time.Second
)

// DB is a pool. It can read; writing happens in a Tx.
type DB struct {
	gorm  *gorm.DB
	sql   *sql.DB
	pool  *pgxpool.Pool
	clock func() time.Time
}

// Open makes a pool for url (postgres://…, several hosts allowed). It does not
// connect: a server that is down at start is found by Ready or the first use.
func Open(url string, o Options) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", hideURL(err))
	}
	cfg.MaxConns = int32(max(2, min(o.MaxConns, 1000)))
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = 30*time.Minute, 5*time.Minute
	c := cfg.ConnConfig
	c.ConnectTimeout = connectTimeout
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2}}
	c.DialFunc = dialer.DialContext
	if hosts(c) > 1 && c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // after a failover the first may be a standby
	}
	set := func(name, value string) {
		if _, given := c.RuntimeParams[name]; !given {
			c.RuntimeParams[name] = value
		}
	}
	set("application_name", "quayside "+o.Name)
	set("timezone", "UTC")
	set("statement_timeout", millis(max(0, cmp.Or(o.Timeout, statementTimeout))))
	set("lock_timeout", millis(lockTimeout))
	set("random_page_cost", "1.1") // we read a few rows by key; at the default of 4, meant for discs that turn, whole tables are read instead
	set("idle_in_transaction_session_timeout", millis(idleInTxTimeout))

	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	db := &DB{pool: pool, sql: stdlib.OpenDBFromPool(pool), clock: o.Clock}
	db.gorm, err = gorm.Open(postgres.New(postgres.Config{Conn: db.sql}), &gorm.Config{
		Logger:                 slowLog{logger.Discard},
		SkipDefaultTransaction: true, // InTx is the only transaction
		DisableAutomaticPing:   true,
		NowFunc:                func() time.Time { return time.Now().UTC() },
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	return db, nil
}

// hosts counts the servers c may connect to; one of them tried with TLS and
// without is still one.
func hosts(c *pgx.ConnConfig) int {
	seen := map[string]bool{net.JoinHostPort(c.Host, fmt.Sprint(c.Port)): true}
	for _, f := range c.Fallbacks {
		seen[net.JoinHostPort(f.Host, fmt.Sprint(f.Port))] = true
	}
	return len(seen)
}

func millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// hideURL keeps a password that stands in a malformed URL out of logs: pgx
// prints the whole string.
func hideURL(err error) error {
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		return errors.New("is not a Postgres address such as postgres://user:password@host:5432/name")
	}
	return err
}

// Read returns a session for queries that need no transaction; with a context
// of [Inside] it reads in that one.
func (db *DB) Read(ctx context.Context) *gorm.DB {
	if tx, ok := ctx.Value(insideKey{}).(*gorm.DB); ok {
		return tx
	}
	return db.gorm.WithContext(ctx)
}

type insideKey struct{}

// Inside returns ctx in which Read sees what tx has written. It is for who
// answers a request within its transaction.
func Inside(ctx context.Context, tx Tx) context.Context {
	return context.WithValue(ctx, insideKey{}, tx.DB)
}

// Exec runs one statement by itself, with $1 placeholders; slices are arrays.
// It is for the few writes that are a single statement: an attempt counted, a
// bell noted.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (rows int64, err error) {
	tag, err := db.pool.Exec(ctx, query, args...)
	return tag.RowsAffected(), Classify(err)
}

// Column runs one statement by itself, with $1 placeholders, and collects its
// only column. It is the short way for the hottest statements.
func Column[T any](ctx context.Context, db *DB, query string, args ...any) ([]T, error) {
	ctx, end := crash.Begin(ctx)
	defer end()
	crash.At(ctx, "before its statement")
	rows, err := db.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, Classify(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[T])
	crash.At(ctx, "after its statement")
	return got, Classify(err)
}

// Ping asks the server for a sign of life.
func (db *DB) Ping(ctx context.Context) error { return Classify(db.pool.Ping(ctx)) }

// Stats tells how busy the pool is: connections in use, idle, and the most there may be.
func (db *DB) Stats() (inUse, idle, most int32) {
	s := db.pool.Stat()
	return s.AcquiredConns(), s.IdleConns(), s.MaxConns()
}

// Close releases the pool.
func (db *DB) Close() error {
	err := db.sql.Close()
	db.pool.Close()
	return err
}

// minMajor is the oldest Postgres whose features the schema uses and that is still maintained.
const minMajor = 14

// Flaw is a setting of the server that makes it unsafe for money.
type Flaw struct{ What, Mend string }

// Durable checks that what the server calls committed is on disk. The throw-away
// server of the tests, which says so of itself, is let through.
func (db *DB) Durable(ctx context.Context) error {
	flaws, err := db.Flaws(ctx)
	if err != nil {
		return err
	}
	var wrong []error
	for _, f := range flaws {
		wrong = append(wrong, fmt.Errorf("%s; %s", f.What, f.Mend))
	}
	if len(wrong) > 0 {
		return fault.Wrap(fault.Unprocessable, "database_not_durable", errors.Join(wrong...), "this database is not safe for money")
	}
	return nil
}

// Flaws is Durable with each reason by itself.
func (db *DB) Flaws(ctx context.Context) (flaws []Flaw, err error) {
	var s struct {
		Fsync, Synchronous, FullPage, Encoding, Throwaway string
		Version                                           int
		Recovering                                        bool
	}
	err = db.Read(ctx).Raw(`SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous,
		current_setting('full_page_writes') AS full_page, current_setting('server_encoding') AS encoding,
		COALESCE(current_setting('quayside.throwaway', true), '') AS throwaway,
		current_setting('server_version_num')::int / 10000 AS version, pg_is_in_recovery() AS recovering`).Scan(&s).Error
	if err != nil {
		return nil, fmt.Errorf("ask the database for its settings: %w", Classify(err))
	}
	refuse := func(bad bool, what, mend string) {
		if bad {
			flaws = append(flaws, Flaw{what, mend})
		}
	}
	refuse(s.Version < minMajor, fmt.Sprintf("the database is PostgreSQL %d", s.Version), fmt.Sprintf("version %d or newer is needed", minMajor))
	refuse(s.Encoding != "UTF8", "the database's encoding is "+s.Encoding, "create it with ENCODING 'UTF8'")
	refuse(s.Recovering, "the database is a standby that takes no writes", "point DATABASE_URL at the primary")
	if s.Throwaway != "on" {
		refuse(s.Fsync == "off", "the database runs with fsync = off: a power cut would lose payments", "ALTER SYSTEM SET fsync = on")
		refuse(s.Synchronous == "off", "the database runs with synchronous_commit = off: a crash would lose payments",
			"ALTER SYSTEM SET synchronous_commit = on, and ALTER ROLE or DATABASE where it is set there")
		refuse(s.FullPage == "off", "the database runs with full_page_writes = off: a power cut could corrupt it", "ALTER SYSTEM SET full_page_writes = on")
	}
	return flaws, nil
}
