package database_test

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/devstack"
	"quayside/internal/fault"
	"quayside/migrations"
)

// Open refuses what is no address without repeating it: it holds a password.
func TestOpenRefusesWithoutPrintingThePassword(t *testing.T) {
	for _, address := range []string{"postgres://u:hunter2@h:99999/x", "postgres://u:hunter2@h/x?sslmode=maybe", "u:hunter2@h", "postgres://u:hunter2@h/x\x00"} {
		db, err := database.Open(address, database.Options{})
		if err == nil {
			_ = db.Close()
			t.Errorf("%q taken", address)
			continue
		}
		contains(t, err, "DATABASE_URL")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("prints the password: %v", err)
		}
	}
}

// Every connection has its limits, unless the operator's address says otherwise.
func TestConnectionSettings(t *testing.T) {
	address := dbtest.URL(t)
	for name, tc := range map[string]struct {
		address string
		o       database.Options
		want    string
	}{
		"usual":     {address, database.Options{Name: "intake"}, "quayside intake 5s 2s 10s UTC"},
		"migrating": {address, database.Options{Name: "m", Timeout: -1}, "quayside m 0 2s 10s UTC"},
		"operator's": {
			param(t, address, "statement_timeout", "7000", "application_name", "mine", "lock_timeout", "1000"),
			database.Options{},
			"mine 7s 1s 10s UTC",
		},
	} {
		db := dbtest.Open(t, tc.address, tc.o)
		got := one[string](t, db, `SELECT concat_ws(' ', current_setting('application_name'), current_setting('statement_timeout'),
			current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), current_setting('timezone'))`)
		if got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// With several hosts the one that takes writes is used: after a failover the
// first in the list may be back as a standby.
func TestSeveralHosts(t *testing.T) {
	address := dbtest.URL(t)
	host := address[strings.Index(address, "@")+1 : strings.LastIndex(address, "/")]
	db := dbtest.Open(t, strings.Replace(address, host, "127.0.0.1:1,"+host, 1), database.Options{MaxConns: 2})
	exec(t, db, `SELECT 1`)
	exec(t, dbtest.Open(t, address, database.Options{}), `ALTER DATABASE `+one[string](t, db, `SELECT current_database()`)+` SET default_transaction_read_only = on`)
	_ = db.Close()
	standby := dbtest.Open(t, strings.Replace(address, host, "127.0.0.1:1,"+host, 1), database.Options{MaxConns: 2})
	if err := standby.Ping(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a server that takes no writes was taken: %v", err)
	}
}

// A pool never holds fewer than two connections, nor more than it may.
func TestPoolSize(t *testing.T) {
	address := dbtest.URL(t)
	for given, want := range map[int]int32{-1: 2, 0: 2, 7: 7, 1 << 40: 1000} {
		if _, _, most := dbtest.Open(t, address, database.Options{MaxConns: given}).Stats(); most != want {
			t.Errorf("MaxConns %d: %d, want %d", given, most, want)
		}
	}
}

// A server that would lose payments in a crash is refused, each reason named.
// The marker of the throw-away server is taken off by a connection parameter.
func TestDurable(t *testing.T) {
	db, address := dbtest.New(t)
	if err := db.Durable(t.Context()); err != nil {
		t.Errorf("the throw-away server: %v", err)
	}
	unsafe := dbtest.Open(t, param(t, address, "quayside.throwaway", "off"), database.Options{}).Durable(t.Context())
	contains(t, unsafe, "fsync = off", "synchronous_commit = off", "full_page_writes = off")
	if fault.KindOf(unsafe) != fault.Unprocessable {
		t.Errorf("kind %v", fault.KindOf(unsafe))
	}
	some := dbtest.Open(t, param(t, address, "quayside.throwaway", "off", "synchronous_commit", "on"), database.Options{}).Durable(t.Context())
	contains(t, some, "fsync = off")
	if strings.Contains(some.Error(), "synchronous_commit") {
		t.Errorf("synchronous_commit is on: %v", some)
	}
}

// A server as an operator runs it passes; one whose database or role was told
// not to wait for the disk does not.
func TestDurableOnARealServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "quayside-durable-*") //nolint:usetesting // into t.TempDir no other user can be let
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // Postgres does not run as root
		t.Fatal(err)
	}
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Database: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	db := dbtest.Open(t, server.URL, database.Options{})
	if err := db.Durable(t.Context()); err != nil {
		t.Errorf("as it is: %v", err)
	}
	exec(t, db, `ALTER DATABASE shop SET synchronous_commit = off`)
	contains(t, dbtest.Open(t, server.URL, database.Options{}).Durable(t.Context()), "synchronous_commit = off")
	contains(t, dbtest.Open(t, param(t, server.URL, "synchronous_commit", "off"), database.Options{}).Durable(t.Context()), "synchronous_commit = off")
	exec(t, db, `CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	contains(t, dbtest.Open(t, strings.Replace(server.URL, "/shop", "/latin", 1), database.Options{}).Durable(t.Context()), "encoding is LATIN1")
}

// Four at once, on an empty database and on one that is behind: one applies
// everything, three find nothing to do, and none fails.
func TestMigrateAtOnce(t *testing.T) {
	address := dbtest.Empty(t)
	files := fstest.MapFS{"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (id int);")}}
	fourAtOnce(t, address, files, 1)
	files["00002_b.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nSELECT pg_sleep(0.2); CREATE TABLE b (id int);")} // slow, so that all four meet
	files["00003_c.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE c (id int);")}
	fourAtOnce(t, address, files, 2)
}

func fourAtOnce(t *testing.T, address string, files fstest.MapFS, pending int) {
	t.Helper()
	var wg sync.WaitGroup
	applied := make([]int, 4)
	for i := range applied {
		db := dbtest.Open(t, address, database.Options{MaxConns: 2})
		wg.Go(func() {
			done, err := db.Migrate(t.Context(), files)
			if err != nil {
				t.Error(err)
			}
			applied[i] = len(done)
		})
	}
	wg.Wait()
	slices.Sort(applied)
	if !slices.Equal(applied, []int{0, 0, 0, pending}) {
		t.Errorf("applied %v, want all %d by one of them", applied, pending)
	}
}

// The schema this program carries is the one it then knows.
func TestOwnSchemaIsKnown(t *testing.T) {
	db, _ := dbtest.New(t)
	if err := db.SchemaKnown(t.Context(), migrations.FS); err != nil {
		t.Error(err)
	}
}

// A migration that fails leaves the ones before it, nothing of itself, and the
// lock free for the next try.
func TestMigrateFails(t *testing.T) {
	db := dbtest.Open(t, dbtest.Empty(t), database.Options{MaxConns: 2})
	file := func(sql string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql)} }
	files := fstest.MapFS{
		"00001_a.sql": file("CREATE TABLE a (id int);"),
		"00002_b.sql": file("CREATE TABLE b (id int); INSERT INTO nowhere VALUES (1);"),
	}
	done, err := db.Migrate(t.Context(), files)
	contains(t, err, "migrate: ", "00002_b.sql", "nowhere")
	if len(done) != 1 || done[0].Name != "00001_a.sql" {
		t.Errorf("applied %+v", done)
	}
	if got := one[string](t, db, `SELECT concat_ws(' ', to_regclass('a'), to_regclass('b'))`); got != "a" {
		t.Errorf("tables %q, want a", got)
	}
	files["00002_b.sql"] = file("CREATE TABLE b (id int);")
	if done, err := db.Migrate(t.Context(), files); err != nil || len(done) != 1 {
		t.Errorf("mended: %+v, %v", done, err)
	}
}

// serve and work refuse a schema that is missing, older or newer than theirs,
// and say what to do.
func TestSchemaKnown(t *testing.T) {
	db := dbtest.Open(t, dbtest.Empty(t), database.Options{MaxConns: 2})
	file := &fstest.MapFile{Data: []byte("-- +goose Up\nSELECT 1;\n")}
	old, both := fstest.MapFS{"00001_a.sql": file}, fstest.MapFS{"00001_a.sql": file, "00002_b.sql": file}
	refused := func(files fstest.MapFS, wants ...string) {
		t.Helper()
		err := db.SchemaKnown(t.Context(), files)
		contains(t, err, wants...)
		if fault.KindOf(err) != fault.Unprocessable {
			t.Errorf("kind %v", fault.KindOf(err))
		}
	}
	apply := func(files fstest.MapFS) {
		t.Helper()
		if _, err := db.Migrate(t.Context(), files); err != nil {
			t.Fatal(err)
		}
	}
	refused(old, "no schema yet", "quayside migrate")
	apply(old)
	if err := db.SchemaKnown(t.Context(), old); err != nil {
		t.Error(err)
	}
	refused(both, "is version 1, this program needs 2", "quayside migrate")
	apply(both)
	refused(old, "is version 2, newer than the 1", "newer quayside")
}

// A statement over a second is told, without the customer's data in it.
func TestSlowStatementIsTold(t *testing.T) {
	db, _ := dbtest.New(t)
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	exec := func(statement string, args ...any) { _ = db.Read(t.Context()).Exec(statement, args...).Error }
	exec(`SELECT pg_sleep(1.01), ?::text`, "CANARY")
	exec(`SELECT ?::text, 1/0`, "CANARY") // returned, so not logged
	got := out.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=WARN msg="slow statement" sql="SELECT pg_sleep(1.01), $1`) || strings.Contains(got, "CANARY") {
		t.Errorf("logged %q", got)
	}
}
