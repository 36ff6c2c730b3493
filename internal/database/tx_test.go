package database_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/fault"
)

const insertThing = `INSERT INTO things (id, n) VALUES (?, ?)`

// things is a database with a table of its own.
func things(t *testing.T, o database.Options) *database.DB {
	t.Helper()
	db, _ := dbtest.NewWith(t, o)
	exec(t, db, `CREATE TABLE things (id text PRIMARY KEY, n bigint NOT NULL DEFAULT 0 CONSTRAINT n_is_small CHECK (n < 1000),
		note text NOT NULL DEFAULT '', price numeric(38,18), at timestamptz, owner uuid)`)
	return db
}

func count(t *testing.T, db *database.DB) int64 {
	t.Helper()
	return one[int64](t, db, `SELECT count(*) FROM things`)
}

// What fn wrote is there after nil, and gone after an error, a panic, or an end of the context.
func TestInTxCommitsOrRollsBack(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	write := func(tx database.Tx) error { return tx.Exec(insertThing, fmt.Sprint(time.Now().UnixNano()), 1).Error }

	if err := db.InTx(t.Context(), write); err != nil || count(t, db) != 1 {
		t.Fatalf("commit: %v, %d rows", err, count(t, db))
	}
	refusal := fault.New(fault.Conflict, "no", "no")
	if err := db.InTx(t.Context(), func(tx database.Tx) error { return errors.Join(write(tx), refusal) }); !errors.Is(err, refusal) {
		t.Errorf("fn's error does not come back: %v", err)
	}
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = db.InTx(t.Context(), func(tx database.Tx) error { _ = write(tx); panic("boom") })
	}()
	ctx, cancel := context.WithCancel(t.Context())
	err := db.InTx(ctx, func(tx database.Tx) error { cancel(); return write(tx) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want the first one alone", n)
	}
	if inUse, _, _ := db.Stats(); inUse != 0 {
		t.Errorf("%d connections were not given back", inUse)
	}
}

// A function that swallows Postgres's refusal has not succeeded: Postgres rolls back.
func TestSwallowedErrorIsNoSuccess(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	rang := false
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		tx.AfterCommit(func() { rang = true })
		_ = tx.Exec(insertThing, "a", 1).Error
		_ = tx.Exec(`SELECT 1/0`).Error
		return nil
	})
	if err == nil || rang || count(t, db) != 0 {
		t.Errorf("error %v, bell %v, %d rows", err, rang, count(t, db))
	}
}

// Bells ring once the row is there for others to see, in order, and never without it.
func TestAfterCommit(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	var rung []string
	ring := func(name string) func() {
		return func() { rung = append(rung, fmt.Sprint(name, count(t, db))) }
	}
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		tx.AfterCommit(ring("a"))
		tx.AfterCommit(ring("b"))
		if len(rung) > 0 {
			t.Error("rung before the commit")
		}
		return tx.Exec(insertThing, "x", 1).Error
	})
	if err != nil || fmt.Sprint(rung) != "[a1 b1]" {
		t.Errorf("%v, rung %v", err, rung)
	}
	rung = nil
	_ = db.InTx(t.Context(), func(tx database.Tx) error { tx.AfterCommit(ring("a")); return errors.New("no") })
	err = db.InTx(t.Context(), func(tx database.Tx) error { // refused at the commit itself
		tx.AfterCommit(ring("a"))
		return tx.Exec(`CREATE TEMP TABLE late (id text UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP;
			INSERT INTO late VALUES ('x'), ('x')`).Error
	})
	if err == nil || len(rung) > 0 {
		t.Errorf("commit refused: %v, rung %v", err, rung)
	}
}

// Two transactions that lock two rows in opposite orders: Postgres ends one,
// which runs again. Both take effect once and ring once.
func TestDeadlockIsRunAgain(t *testing.T) {
	db := things(t, database.Options{MaxConns: 4})
	exec(t, db, `INSERT INTO things (id) VALUES ('a'), ('b')`)
	var runs, rings atomic.Int64
	var both sync.WaitGroup
	both.Add(2)
	add := func(first, second string) error {
		var met sync.Once
		return db.InTx(t.Context(), func(tx database.Tx) error {
			runs.Add(1)
			tx.AfterCommit(func() { rings.Add(1) })
			if err := tx.Exec(`UPDATE things SET n = n + 1 WHERE id = ?`, first).Error; err != nil {
				return err
			}
			met.Do(func() { both.Done(); both.Wait() }) // only the first time, when both hold one
			return tx.Exec(`UPDATE things SET n = n + 1 WHERE id = ?`, second).Error
		})
	}
	other := make(chan error, 1)
	go func() { other <- add("b", "a") }()
	if err := errors.Join(add("a", "b"), <-other); err != nil {
		t.Fatal(err)
	}
	if sum := one[int64](t, db, `SELECT sum(n) FROM things`); sum != 4 || runs.Load() < 3 || runs.Load() > 4 || rings.Load() != 2 {
		t.Errorf("sum %d, %d runs, %d rings; want 4, 3 (4 when both were ended), 2", sum, runs.Load(), rings.Load())
	}
}

// ErrAgain runs the function again from the start, but not for ever.
func TestErrAgain(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	for lost, want := range map[int]fault.Kind{1: -1, 3: -1, 4: fault.Unavailable} {
		runs, rings := 0, 0
		err := db.InTx(t.Context(), func(tx database.Tx) error {
			tx.AfterCommit(func() { rings++ })
			if runs++; runs <= lost {
				return fmt.Errorf("order o1: %w", database.ErrAgain)
			}
			return nil
		})
		if want < 0 && (err != nil || runs != lost+1 || rings != 1) || want >= 0 && (fault.KindOf(err) != want || runs != 4 || rings != 0) {
			t.Errorf("lost %d times: %v after %d runs and %d rings", lost, err, runs, rings)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	err := db.InTx(ctx, func(database.Tx) error { runs++; cancel(); return database.ErrAgain })
	if err == nil || runs != 1 {
		t.Errorf("the caller has gone: %v after %d runs", err, runs)
	}
}

// One instant for all that a transaction writes: Postgres's, or the test's, in
// microseconds and UTC.
func TestNow(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		var theirs time.Time
		if err := tx.Raw(`SELECT now()`).Row().Scan(&theirs); err != nil {
			return err
		}
		if !theirs.Equal(tx.Now) || tx.Now.Location() != time.UTC {
			t.Errorf("Now is %v, Postgres says %v", tx.Now, theirs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := dbtest.NewClock(time.Date(2030, 1, 2, 3, 4, 5, 123456789, time.FixedZone("x", 3600)))
	timed, _ := dbtest.NewWith(t, database.Options{MaxConns: 2, Clock: clock.Now})
	_ = timed.InTx(t.Context(), func(tx database.Tx) error {
		if want := time.Date(2030, 1, 2, 2, 4, 5, 123456000, time.UTC); tx.Now != want {
			t.Errorf("got %v, want %v", tx.Now, want)
		}
		return nil
	})
}

// A plan that is made while a table is empty looks its rows up by key all the
// same. Outside a transaction it would read all of them.
func TestInTxLooksUpByKey(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	explain := func(g *gorm.DB) string {
		var plan []string
		err := g.Raw(`EXPLAIN UPDATE things t SET n = r.n FROM json_populate_recordset(NULL::things, '[]') r WHERE t.id = r.id`).Scan(&plan).Error
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(plan, "\n")
	}
	if outside := explain(db.Read(t.Context())); !strings.Contains(outside, "Hash Join") {
		t.Fatalf("this shows nothing: the plan is\n%s", outside)
	}
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		if inside := explain(tx.DB); !strings.Contains(inside, "Nested Loop") || !strings.Contains(inside, "Index Cond: (id = r.id)") {
			t.Errorf("the plan is\n%s", inside)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
