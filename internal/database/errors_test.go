package database_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
)

// Every row makes a real error in Postgres. The kind decides whether PayQI and
// the queue try again; what is none of ours stays as it is.
func TestClassify(t *testing.T) {
	db := things(t, database.Options{MaxConns: 4})
	exec(t, db, `INSERT INTO things (id) VALUES ('taken')`)
	exec(t, db, `CREATE TABLE parts (thing text NOT NULL REFERENCES things)`)
	exec(t, db, `CREATE UNIQUE INDEX a_note_is_used_once ON things (note)`)
	hold(t, db)
	for name, tc := range map[string]struct {
		kind      fault.Kind
		statement string
		args      []any
	}{
		"NUL byte":               {fault.Unprocessable, insertThing, []any{"a\x00b", 1}},
		"NUL in JSON":            {fault.Unprocessable, `SELECT ('"\u0000"'::jsonb) #>> '{}'`, nil},
		"bad UTF-8":              {fault.Unprocessable, insertThing, []any{"\xff", 1}},
		"CHECK":                  {fault.Unprocessable, insertThing, []any{"x", 1000}},
		"CHECK of a domain":      {fault.Unprocessable, `SELECT 'NaN'::amount`, nil},
		"reference":              {fault.Unprocessable, `INSERT INTO parts VALUES ('nobody')`, nil},
		"NULL":                   {fault.Unprocessable, `INSERT INTO parts VALUES (NULL)`, nil},
		"number out of range":    {fault.Unprocessable, `SELECT '99999999999999999999999'::bigint`, nil},
		"date out of range":      {fault.Unprocessable, `SELECT '2026-02-30'::date`, nil},
		"no uuid":                {fault.Unprocessable, `SELECT 'x'::uuid`, nil},
		"too deep":               {fault.Unprocessable, `SELECT ?::text::json`, []any{strings.Repeat("[", 100_000)}},
		"locked row":             {fault.Unavailable, `SET LOCAL lock_timeout = '20ms'; UPDATE things SET n = 2 WHERE id = 'taken'`, nil},
		"slow statement":         {fault.Unavailable, `SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(10)`, nil},
		"ended backend":          {fault.Unavailable, `SELECT pg_terminate_backend(pg_backend_pid())`, nil},
		"read-only":              {fault.Unavailable, `SET TRANSACTION READ ONLY; DELETE FROM things`, nil},
		"disk full":              {fault.Unavailable, `DO $$ BEGIN RAISE disk_full; END $$`, nil},
		"too many connections":   {fault.Unavailable, `DO $$ BEGIN RAISE too_many_connections; END $$`, nil},
		"unique":                 {fault.Internal, `INSERT INTO things (id, note) VALUES ('other', '')`, nil},
		"wrong SQL":              {fault.Internal, `SELEC 1`, nil},
		"no such table":          {fault.Internal, `SELECT * FROM nowhere`, nil},
		"refused by our trigger": {fault.Internal, `TRUNCATE timeline`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := db.InTx(t.Context(), func(tx database.Tx) error { return tx.Exec(tc.statement, tc.args...).Error })
			if err == nil || fault.KindOf(err) != tc.kind {
				t.Fatalf("kind %v, want %v: %v", fault.KindOf(err), tc.kind, err)
			}
			if tc.kind != fault.Internal && strings.ContainsAny(fault.Message(err), `"'$`) {
				t.Errorf("the message shows more than a sentence: %s", fault.Message(err))
			}
			if got := database.Violates(err, "a_note_is_used_once"); got != (name == "unique") {
				t.Errorf("Violates: %v", got)
			}
		})
	}
}

// hold keeps a lock on the row "taken" until the test ends.
func hold(t *testing.T, db *database.DB) {
	t.Helper()
	locked, done, free := make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		done <- db.InTx(context.WithoutCancel(t.Context()), func(tx database.Tx) error {
			err := tx.Exec(`SELECT 1 FROM things WHERE id = 'taken' FOR UPDATE`).Error
			close(locked)
			<-free
			return err
		})
	}()
	<-locked
	t.Cleanup(func() {
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A server that is away, or that takes connections and says nothing, is
// unavailable, and nobody waits for it longer than they wanted to.
func TestUnreachableServer(t *testing.T) {
	for name, address := range map[string]string{
		"away": "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable", "hung": silent(t),
		"unknown": "postgres://u:hunter2@host.invalid/x", "all of several away": "postgres://u:hunter2@127.0.0.1:1,127.0.0.1:2/x",
	} {
		t.Run(name, func(t *testing.T) {
			db, err := database.Open(address, database.Options{MaxConns: 2})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begun := time.Now()
			for verb, err := range map[string]error{
				"InTx": db.InTx(ctx, func(database.Tx) error { return nil }), "Ping": db.Ping(ctx), "Durable": db.Durable(ctx),
			} {
				if fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s: kind %v, %v", verb, fault.KindOf(err), err)
				}
			}
			if waited := time.Since(begun); waited > 3*time.Second {
				t.Errorf("waited %s", waited)
			}
		})
	}
}

// A backend that dies between two statements of a transaction: nothing is
// committed, the caller may try again, and the pool finds a new connection.
func TestBackendDiesInsideTransaction(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		var pid int
		if err := tx.Exec(insertThing, "a", 1).Raw(`SELECT pg_backend_pid()`).Row().Scan(&pid); err != nil {
			return err
		}
		exec(t, db, `SELECT pg_terminate_backend($1)`, pid)
		return tx.Exec(insertThing, "b", 1).Error
	})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("kind %v: %v", fault.KindOf(err), err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// What has a kind keeps it, and what is not Postgres's is left alone.
func TestClassifyLeavesOthersAlone(t *testing.T) {
	conflict := fault.New(fault.Conflict, "c", "no")
	plain := errors.New("plain")
	for _, err := range []error{nil, conflict, plain, context.Canceled} {
		if got := database.Classify(err); got != err { //nolint:errorlint // the very same
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := database.Classify(io.ErrUnexpectedEOF); fault.KindOf(got) != fault.Unavailable || !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("a cut connection is %v", got)
	}
}
