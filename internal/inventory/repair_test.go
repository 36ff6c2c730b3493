package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/fault"
)

func repair(db *database.DB, sku string) error {
	return db.InTx(context.Background(), func(tx database.Tx) error {
		_, _, err := Repair(tx, sku, "admin:test", "counted")
		return err
	})
}

func audit(t *testing.T, db *database.DB) (all []Account) {
	t.Helper()
	err := db.InSnapshot(t.Context(), func(tx database.Tx) (err error) { all, err = Audit(tx, "", 10); return err })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func checkpointNow(db *database.DB) error {
	return db.InTx(context.Background(), func(tx database.Tx) error {
		all, err := Audit(tx, "", 10)
		if err != nil {
			return err
		}
		return Checkpoint(tx, all)
	})
}

// A ledger that has drifted is corrected to the levels, once, however many try
// at once, and whatever moves meanwhile.
func TestRepair(t *testing.T) {
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 8})
	for _, sku := range []string{"mug", "pot"} {
		if err := introduce(db, sku, "A "+sku, 10); err != nil {
			t.Fatal(err)
		}
	}
	if err := repair(db, "mug"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("nothing to repair: %v", err)
	}
	if err := repair(db, "cup"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no such product: %v", err)
	}
	if _, err := db.Exec(t.Context(), `UPDATE products SET on_hand = 13, reserved = 2 WHERE sku = 'mug'`); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(audit(t, db)); got != "[{mug 13 2 10 0 1 1 false} {pot 10 0 10 0 1 2 false}]" {
		t.Errorf("audit: %s", got)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _ = repair(db, "mug") })
		wg.Go(func() { _ = change(db, "mug", 1) })
	}
	wg.Wait()
	if n := drift(t, db); n != 0 {
		t.Errorf("%d products drift", n)
	}
	got := one[string](t, db, `SELECT string_agg(concat_ws(' ', sku, on_hand_delta, reserved_delta, cause, reason), ', ') FROM stock_movements WHERE kind = 'correct'`)
	if got != "mug 3 2 admin:test counted" {
		t.Errorf("corrections: %s", got)
	}
	if got := one[string](t, db, `SELECT on_hand || '/' || reserved FROM products WHERE sku = 'mug'`); got != "21/2" {
		t.Errorf("levels: %s", got)
	}
}

// Who repairs waits for who repairs already, and then finds nothing to do.
func TestRepairWaits(t *testing.T) {
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 4})
	if err := introduce(db, "mug", "A mug", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `UPDATE products SET on_hand = 13`); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		if _, _, err := Repair(tx, "mug", "admin:test", "counted"); err != nil {
			return err
		}
		go func() { second <- repair(db, "mug") }()
		for one[int](t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 0 {
			select {
			case err := <-second:
				second <- err
				return nil // it did not wait
			case <-t.Context().Done():
				return t.Context().Err()
			default:
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-second; fault.KindOf(err) != fault.Conflict || drift(t, db) != 0 {
		t.Errorf("second: %v, %d drift", err, drift(t, db))
	}
}

func change(db *database.DB, sku string, delta int64) error {
	return db.InTx(context.Background(), func(tx database.Tx) error {
		_, err := Change(tx, sku, delta, "admin:test", "bought")
		return err
	})
}

// Checkpoints that are written while stock moves say what the ledger adds up to
// that far, and an account is the same with them as without.
func TestCheckpoint(t *testing.T) {
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 8})
	if err := introduce(db, "mug", "A mug", 10); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var failed sync.Map
	for range 6 {
		wg.Go(func() {
			for range 20 {
				if err := change(db, "mug", 1); err != nil {
					failed.Store(err, true)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if err := errors.Join(checkpointNow(db), change(db, "mug", 1)); err != nil { // so that each has something new to say
				failed.Store(err, true)
			}
		}
	})
	wg.Wait()
	failed.Range(func(err, _ any) bool { t.Error(err); return true })
	if n := one[int](t, db, `SELECT count(*) FROM stock_checkpoints`); n < 2 {
		t.Errorf("%d checkpoints", n)
	}
	wrong := one[int](t, db, `SELECT count(*) FROM stock_checkpoints c
		WHERE on_hand <> (SELECT sum(on_hand_delta) FROM stock_movements m WHERE m.sku = c.sku AND m.entry <= c.through)`)
	if wrong != 0 {
		t.Errorf("%d checkpoints are wrong", wrong)
	}
	if err := checkpointNow(db); err != nil {
		t.Fatal(err)
	}
	if a := audit(t, db)[0]; a.Drifts() || a.OnHand != 150 || a.Tail != 0 {
		t.Errorf("account: %+v", a)
	}
	if err := change(db, "mug", -30); err != nil {
		t.Fatal(err)
	}
	if a := audit(t, db)[0]; a.Drifts() || a.LedgerOnHand != 120 || a.Tail != 1 {
		t.Errorf("account: %+v", a)
	}
}

// A ledger longer than one look takes is added up in several, and is no drift before.
func TestAuditOfALongLedger(t *testing.T) {
	db, _ := dbtest.New(t)
	if err := introduce(db, "mug", "A mug", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, cause, effect_key, at)
		SELECT gen_random_uuid(), 'mug', 'adjust', 1, 0, 'admin:test', 'adjust/' || i, now() FROM generate_series(1, $1) i`, longestTail); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `UPDATE products SET on_hand = 11`); err != nil {
		t.Fatal(err)
	}
	if a := audit(t, db)[0]; a.Drifts() || !a.Cut || a.Tail != longestTail {
		t.Errorf("cut: %+v", a)
	}
	if err := checkpointNow(db); err != nil {
		t.Fatal(err)
	}
	if a := audit(t, db)[0]; !a.Drifts() || a.Cut || a.Tail != 1 || a.LedgerOnHand != 10+longestTail {
		t.Errorf("whole: %+v", a)
	}
}
