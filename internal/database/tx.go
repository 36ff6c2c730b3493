package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"quayside/internal/crash"
)

// Tx is an open transaction. A function that takes a Tx joins its caller's
// transaction; it never commits, and it makes no network call.
type Tx struct {
	*gorm.DB

	// Now is one instant for every row this transaction writes, UTC, in the
	// microseconds that Postgres keeps. It is Postgres's clock, so that two
	// machines whose clocks differ agree on what is due.
	Now time.Time

	after *[]func()
}

// ErrAgain says, returned or wrapped by the function InTx runs, that another
// transaction got in between: InTx rolls back and runs it again.
var ErrAgain = errors.New("another transaction was there first")

// tries of a transaction that Postgres itself has undone whole.
const maxTries = 4

// InTx runs fn in a transaction: commit on nil, roll back on error or panic.
// Only the edge opens one: an HTTP handler, a job, a sweep. When Postgres
// undoes the transaction for a deadlock or a serialization failure, fn runs
// again, so it must begin by loading what it looks at. An error at commit
// means that the outcome is unknown: look at the rows before trying again.
// Errors from Postgres come classified (see Classify).
func (db *DB) InTx(ctx context.Context, fn func(tx Tx) error) error {
	for try := 1; ; try++ {
		err := db.once(ctx, fn)
		if err == nil || try == maxTries || !undone(err) {
			return Classify(err)
		}
		if !pause(ctx, try) {
			return Classify(err)
		}
	}
}

// InSnapshot runs fn in a transaction that only reads and sees one moment of
// the whole database.
func (db *DB) InSnapshot(ctx context.Context, fn func(tx Tx) error) error {
	return Classify(db.once(ctx, fn, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}))
}

func (db *DB) once(ctx context.Context, fn func(tx Tx) error, o ...*sql.TxOptions) error {
	ctx, end := crash.Begin(ctx)
	defer end()
	var after []func()
	err := db.gorm.WithContext(ctx).Transaction(func(g *gorm.DB) error {
		now, err := db.begin(g, len(o) == 0)
		if err != nil {
			return err
		}
		crash.At(ctx, "begun")
		err = fn(Tx{DB: g, Now: now, after: &after})
		crash.At(ctx, "before commit")
		return err
	}, o...)
	if err != nil {
		return err
	}
	crash.At(ctx, "committed")
	for _, ring := range after {
		ring()
	}
	return nil
}

// byKey keeps Postgres from reading whole tables, be it for a search or to join
// them. A transaction that writes has the keys of its rows, but Postgres keeps
// the plan of a statement: made while a table was empty, it would go through all
// of it when it is not. Compiling a statement takes longer than any of these.
const byKey = `SELECT now(), set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`

// begin says how a transaction looks up its rows, and reads its clock.
func (db *DB) begin(g *gorm.DB, writes bool) (now time.Time, err error) {
	if !writes {
		return db.now(g)
	}
	var off string
	if err := g.Raw(byKey).Row().Scan(&now, &off, &off, &off, &off); err != nil {
		return now, fmt.Errorf("begin a transaction: %w", err)
	}
	if db.clock != nil {
		now = db.clock()
	}
	return now.UTC().Truncate(time.Microsecond), nil
}

// Now is the time that a transaction beginning now would have.
func (db *DB) Now(ctx context.Context) (time.Time, error) {
	now, err := db.now(db.Read(ctx))
	return now, Classify(err)
}

func (db *DB) now(g *gorm.DB) (time.Time, error) {
	if db.clock != nil {
		return db.clock().UTC().Truncate(time.Microsecond), nil
	}
	var now time.Time
	if err := g.Raw(`SELECT now()`).Row().Scan(&now); err != nil {
		return now, fmt.Errorf("read the database's clock: %w", err)
	}
	return now.UTC(), nil
}

// AfterCommit keeps fn until the transaction has committed. It is for
// doorbells only: fn returns nothing and does not block, because the row it
// points to is already safe and the sweep will ring again.
func (tx Tx) AfterCommit(fn func()) { *tx.after = append(*tx.after, fn) }

// LockPatience is how long the statements that follow in this transaction may
// wait for a lock; zero: as long as usual.
func (tx Tx) LockPatience(d time.Duration) error {
	if d == 0 {
		d = lockTimeout
	}
	if err := tx.Exec(`SELECT set_config('lock_timeout', ?, true)`, fmt.Sprintf("%dms", d.Milliseconds())).Error; err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	return nil
}

// Array makes a slice one Postgres array argument; GORM would write a plain
// slice out as ($1, $2, …).
func Array[T any](s []T) any {
	if s == nil {
		s = []T{}
	}
	return &s
}
