// Package dbtest gives each test a real Postgres database of its own, cloned
// in milliseconds from a template that is migrated once per test binary. It
// starts its own throw-away server, so that tests need no set-up and touch
// nobody's database.
package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver, for CREATE DATABASE

	"quayside/internal/database"
	"quayside/internal/devstack"
	"quayside/migrations"
)

// Clock is a clock that tests move by hand. Its zero value is not useful: see NewClock.
type Clock struct{ at atomic.Pointer[time.Time] }

// NewClock returns a clock that stands at at.
func NewClock(at time.Time) *Clock {
	c := &Clock{}
	c.Set(at)
	return c
}

// Now is what the clock shows.
func (c *Clock) Now() time.Time { return *c.at.Load() }

// Set moves the clock to at.
func (c *Clock) Set(at time.Time) { c.at.Store(&at) }

// Add moves the clock by d.
func (c *Clock) Add(d time.Duration) { c.Set(c.Now().Add(d)) }

const template = "quayside_template"

var (
	start  sync.Once
	server *devstack.Postgres
	failed error
	cloneM sync.Mutex // Postgres copies a template for one client at a time
	serial atomic.Int64
)

// Main runs the tests of a package and stops the database server afterwards.
// Use it as TestMain; without it the server ends with the process all the same.
func Main(m *testing.M) {
	code := m.Run()
	if server != nil {
		_ = server.Stop()
	}
	os.Exit(code)
}

// New returns a fresh, migrated database that follows Postgres's clock, and
// its address. The pool has two connections: a verb that used one outside its
// transaction would hang, and the test with it.
func New(t testing.TB) (*database.DB, string) {
	t.Helper()
	return NewWith(t, database.Options{Name: "test", MaxConns: 2})
}

// NewWith is New with pool options of the test's own.
func NewWith(t testing.TB, o database.Options) (*database.DB, string) {
	t.Helper()
	address := URL(t)
	return Open(t, address, o), address
}

// Open opens another pool on a database of this package.
func Open(t testing.TB, address string, o database.Options) *database.DB {
	t.Helper()
	db, err := database.Open(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// URL returns the address of a fresh, migrated database.
func URL(t testing.TB) string {
	t.Helper()
	start.Do(func() { failed = prepare() })
	if failed != nil {
		t.Fatalf("test database: %v", failed)
	}
	name := fmt.Sprintf("t%d", serial.Add(1))
	admin(t, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name, template))
	t.Cleanup(func() { admin(t, fmt.Sprintf(`DROP DATABASE %s WITH (FORCE)`, name)) })
	return at(name)
}

// Empty returns the address of a fresh database without a schema.
func Empty(t testing.TB) string {
	t.Helper()
	_ = URL(t) // starts the server
	name := fmt.Sprintf("e%d", serial.Add(1))
	admin(t, `CREATE DATABASE `+name+` TEMPLATE template0`)
	t.Cleanup(func() { admin(t, fmt.Sprintf(`DROP DATABASE %s WITH (FORCE)`, name)) })
	return at(name)
}

func prepare() (err error) {
	ctx := context.Background()
	server, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{Throwaway: true, Database: template})
	if err != nil {
		return err
	}
	db, err := database.Open(server.URL, database.Options{Name: "template", MaxConns: 2})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.Migrate(ctx, migrations.FS)
	return err
}

func admin(t testing.TB, statement string) {
	t.Helper()
	cloneM.Lock()
	defer cloneM.Unlock()
	db, err := sql.Open("pgx", at("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func at(name string) string {
	u, err := url.Parse(server.URL)
	if err != nil {
		panic(err)
	}
	u.Path = "/" + name
	return u.String()
}
