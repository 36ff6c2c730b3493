package inventory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/fault"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func levels(s *Shelf, skus ...string) string {
	var all []string
	for _, sku := range skus {
		p := s.Product(sku)
		all = append(all, fmt.Sprintf("%s %d/%d", sku, p.OnHand, p.Reserved))
	}
	return strings.Join(all, ", ")
}

func ledger(s *Shelf) string {
	var all []string
	for _, m := range s.movements {
		all = append(all, fmt.Sprintf("%s %+d %+d", m.EffectKey, m.OnHandDelta, m.ReservedDelta))
	}
	return strings.Join(all, ", ")
}

// What each verb does to on hand and reserved, and what the ledger says of it,
// in the order of products whatever the order of lines.
func TestShelf(t *testing.T) {
	lines := []Line{{"pot", 1}, {"mug", 2}, {"pot", 3}}
	for name, tc := range map[string]struct {
		do             func(s *Shelf)
		levels, ledger string
	}{
		"reserve": {func(s *Shelf) { s.Reserve("1", 7, lines, "x") }, "mug 10/4, pot 10/4", "order/1/7/reserve/mug +0 +2, order/1/7/reserve/pot +0 +4"},
		"release": {func(s *Shelf) { s.Release("1", 7, lines[1:2], "x") }, "mug 10/0, pot 10/0", "order/1/7/release/mug +0 -2"},
		"commit":  {func(s *Shelf) { s.Commit("1", 7, lines[1:2], "x") }, "mug 8/0, pot 10/0", "order/1/7/commit/mug -2 -2"},
		"return":  {func(s *Shelf) { s.Return("1", 7, lines, "x") }, "mug 12/2, pot 14/0", "order/1/7/return/mug +2 +0, order/1/7/return/pot +4 +0"},
	} {
		s := NewShelf(Product{SKU: "mug", OnHand: 10, Reserved: 2}, Product{SKU: "pot", OnHand: 10})
		tc.do(s)
		if got := levels(s, "mug", "pot"); got != tc.levels {
			t.Errorf("%s: %s, want %s", name, got, tc.levels)
		}
		if got := ledger(s); got != tc.ledger {
			t.Errorf("%s: %s, want %s", name, got, tc.ledger)
		}
	}
}

// A reservation takes all lines or none; every product that is short is named
// once, with what all lines want of it.
func TestReserveAllOrNothing(t *testing.T) {
	s := NewShelf(Product{SKU: "cup", OnHand: 5}, Product{SKU: "mug", OnHand: 5, Reserved: 2}, Product{SKU: "pot", OnHand: 1})
	short := s.Reserve("1", 1, []Line{{"pot", 2}, {"cup", 5}, {"mug", 2}, {"gone", 1}, {"mug", 2}}, "x")
	if got := fmt.Sprint(short); got != "[{gone 1 0} {mug 4 3} {pot 2 1}]" {
		t.Error(got)
	}
	if levels(s, "cup", "mug", "pot") != "cup 5/0, mug 5/2, pot 1/0" || len(s.movements) != 0 {
		t.Errorf("took %s: %s", levels(s, "cup", "mug", "pot"), ledger(s))
	}
	if short := s.Reserve("1", 1, []Line{{"mug", 1}, {"mug", 2}}, "x"); short != nil || levels(s, "mug") != "mug 5/5" {
		t.Errorf("the last ones: %v, %s", short, levels(s, "mug"))
	}
}

// Stock that was not locked is never moved.
func TestShelfNeedsTheLock(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("moved")
		}
	}()
	NewShelf().Commit("1", 1, []Line{{"mug", 1}}, "x")
}

// A person changes what is on hand within what is reserved and what may be.
func TestAdjust(t *testing.T) {
	for delta, want := range map[int64]string{
		-3: "mug 2/2", -4: "insufficient_stock", math.MinInt64: "insufficient_stock", math.MaxInt64: "",
		1: "mug 6/2", MaxOnHand - 5: fmt.Sprintf("mug %d/2", int64(MaxOnHand)), MaxOnHand - 4: "too_much_stock",
	} {
		s := NewShelf(Product{SKU: "mug", OnHand: 5, Reserved: 2})
		got := ""
		if err := s.Adjust("mug", delta, "admin:test", "counted"); err == nil {
			got = levels(s, "mug")
		} else if e, ok := errors.AsType[*fault.Error](err); ok && e.Kind == fault.Conflict {
			got = e.Code
		}
		if want == "" { // refused, by either end
			want = got
			if !strings.Contains(got, "stock") {
				want = "a refusal"
			}
		}
		if got != want {
			t.Errorf("by %d: %s, want %s", delta, got, want)
		}
	}
	if err := NewShelf().Adjust("mug", 1, "admin:test", ""); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no such product: %v", err)
	}
}

func one[T any](t *testing.T, db *database.DB, query string, args ...any) (v T) {
	t.Helper()
	if err := db.Read(t.Context()).Raw(query, args...).Row().Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func introduce(db *database.DB, sku, name string, units int64) error {
	return db.InTx(context.Background(), func(tx database.Tx) error {
		_, err := Introduce(tx, sku, name, units, "admin:test")
		return err
	})
}

// drift is how many products differ from the sums of their ledger.
func drift(t *testing.T, db *database.DB) int {
	t.Helper()
	return one[int](t, db, `SELECT count(*) FROM (SELECT p.sku FROM products p LEFT JOIN stock_movements m USING (sku) GROUP BY p.sku
		HAVING p.on_hand <> coalesce(sum(m.on_hand_delta), 0) OR p.reserved <> coalesce(sum(m.reserved_delta), 0)) d`)
}

// A product comes in with the first row of its ledger, once; what breaks a rule is named, all of it.
func TestIntroduce(t *testing.T) {
	db, _ := dbtest.New(t)
	for _, tc := range []struct {
		sku, name string
		units     int64
		code      string
		fields    string
	}{
		{"mug", "A mug", 5, "", ""},
		{"mug", "Another", 7, "product_exists", ""},
		{"MUG", strings.Repeat("é", 200), MaxOnHand, "", ""},
		{strings.Repeat("x", 64), "x", 0, "", ""},
		{"", "", -1, "invalid_product", "sku name on_hand"},
		{strings.Repeat("x", 65), strings.Repeat("é", 201), MaxOnHand + 1, "invalid_product", "sku name on_hand"},
		{"a/b", "a\x00b", 1, "invalid_product", "sku name"},
		{"tasse-ü", "\xff", 1, "invalid_product", "sku name"},
		{"mug\n", "x", 1, "invalid_product", "sku"},
	} {
		err := introduce(db, tc.sku, tc.name, tc.units)
		e, _ := errors.AsType[*fault.Error](err)
		if e == nil {
			e = &fault.Error{}
		}
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Location)
		}
		if (err != nil) != (tc.code != "") || e.Code != tc.code || strings.Join(fields, " ") != tc.fields {
			t.Errorf("%q %q: %v %v, want %s %s", tc.sku, tc.name, err, fields, tc.code, tc.fields)
		}
	}
	if got := one[string](t, db, `SELECT concat_ws(' ', name, on_hand, reserved) FROM products WHERE sku = 'mug'`); got != "A mug 5 0" {
		t.Error(got)
	}
	if got := one[string](t, db, `SELECT string_agg(concat_ws(' ', kind, on_hand_delta, reserved_delta, cause, effect_key), ', ') FROM stock_movements WHERE sku = 'mug'`); got != "initial 5 0 admin:test initial/mug" {
		t.Error(got)
	}
	if n := drift(t, db); n != 0 {
		t.Errorf("%d products drift", n)
	}
}

// Changes at once all count, and what cannot be taken is refused without a trace.
func TestChangeAtOnce(t *testing.T) {
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 8})
	if err := introduce(db, "mug", "A mug", 10); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var refused sync.Map
	for i := range 40 {
		wg.Go(func() {
			err := db.InTx(context.Background(), func(tx database.Tx) error {
				m, err := Change(tx, "mug", -1, "admin:test", fmt.Sprint("broken ", i))
				if err == nil && (m.OnHandDelta != -1 || m.Kind != Adjust || m.Reason != fmt.Sprint("broken ", i)) {
					t.Errorf("%+v", m)
				}
				return err
			})
			if e, ok := errors.AsType[*fault.Error](err); ok && e.Code == "insufficient_stock" {
				refused.Store(i, true)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	refused.Range(func(any, any) bool { n++; return true })
	if n != 30 {
		t.Errorf("%d refused", n)
	}
	if got := one[string](t, db, `SELECT concat_ws(' ', on_hand, (SELECT count(*) FROM stock_movements)) FROM products`); got != "0 11" {
		t.Errorf("on hand and movements %s", got)
	}
	if n := drift(t, db); n != 0 {
		t.Errorf("%d products drift", n)
	}
}

// Load locks what it returns: a second one waits, and then sees the new levels.
func TestLoadLocks(t *testing.T) {
	db, _ := dbtest.NewWith(t, database.Options{Name: "test", MaxConns: 3})
	for _, sku := range []string{"mug", "pot"} {
		if err := introduce(db, sku, "A "+sku, 10); err != nil {
			t.Fatal(err)
		}
	}
	loaded, done := make(chan struct{}), make(chan error)
	go func() {
		<-loaded
		done <- db.InTx(context.Background(), func(tx database.Tx) error {
			s, err := Load(tx, []string{"pot", "mug", "none", "mug"})
			if err == nil && (levels(s, "mug", "pot") != "mug 10/3, pot 10/0" || s.Product("none") != nil) {
				t.Errorf("loaded %s", levels(s, "mug", "pot"))
			}
			return err
		})
	}()
	err := db.InTx(context.Background(), func(tx database.Tx) error {
		s, err := Load(tx, []string{"mug"})
		if err != nil {
			return err
		}
		s.Reserve("1", 1, []Line{{"mug", 3}}, "x")
		close(loaded)
		for one[int](t, db, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()`) == 0 {
			if tx.Statement.Context.Err() != nil {
				return tx.Statement.Context.Err()
			}
			select {
			case err := <-done:
				return fmt.Errorf("the second did not wait: %w", err)
			default:
			}
		}
		return s.Save(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An effect on stock happens once: the same step of one reservation is refused by the ledger.
func TestEffectOnce(t *testing.T) {
	db, _ := dbtest.New(t)
	if err := introduce(db, "mug", "A mug", 10); err != nil {
		t.Fatal(err)
	}
	reserve := func(number int) error {
		return db.InTx(context.Background(), func(tx database.Tx) error {
			s, err := Load(tx, []string{"mug"})
			if err != nil {
				return err
			}
			s.Reserve("1", number, []Line{{"mug", 1}}, "x")
			return s.Save(tx)
		})
	}
	if err := errors.Join(reserve(1), reserve(2)); err != nil {
		t.Error(err)
	}
	if err := reserve(2); !database.Violates(err, "an_effect_on_stock_happens_once") {
		t.Errorf("twice: %v", err)
	}
	if got := one[string](t, db, `SELECT concat_ws(' ', on_hand, reserved) FROM products`); got != "10 2" {
		t.Error(got)
	}
}
