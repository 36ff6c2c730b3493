package database_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
)

type thing struct {
	ID    string          `json:"id"`
	N     int64           `json:"n"`
	Note  string          `json:"note"`
	Price decimal.Decimal `json:"price"`
	At    *time.Time      `json:"at"`
	Owner *uuid.UUID      `json:"owner"`
}

const thingColumns = `id, n, note, price, at, owner`

func inTx(t *testing.T, db *database.DB, fn func(tx database.Tx) error) {
	t.Helper()
	if err := db.InTx(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, db *database.DB) (all []thing) {
	t.Helper()
	if err := db.Read(t.Context()).Raw(`SELECT ` + thingColumns + ` FROM things ORDER BY id`).Scan(&all).Error; err != nil {
		t.Fatal(err)
	}
	return all
}

// Rows come back as they went in: to the last digit and microsecond, and with
// whatever letters a customer has in the name.
func TestInsertKeepsValues(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	at := time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)
	owner := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	rows := []thing{
		{ID: "a", N: 999, Note: `Zoë's "?" @now @rows $1 \ 日本` + "\n\t\u2028", Price: decimal.RequireFromString("12345678901234567890.123456789012345678"), At: &at, Owner: &owner},
		{ID: "b", N: -5, Price: decimal.RequireFromString("0.000000000000000001")},
	}
	inTx(t, db, func(tx database.Tx) error { return database.Insert(tx, "things", thingColumns, rows) })
	got := load(t, db)
	for i := range got {
		if got[i].At != nil {
			*got[i].At = got[i].At.UTC()
		}
	}
	if diff := cmp.Diff(rows, got, cmp.Comparer(decimal.Decimal.Equal)); diff != "" {
		t.Error(diff)
	}
}

// Update writes the columns it names and no others. A row that is not there is
// an error, and then nothing is written.
func TestUpdate(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	inTx(t, db, func(tx database.Tx) error {
		return database.Insert(tx, "things", "id, n, note", []thing{{ID: "a", N: 1, Note: "old"}, {ID: "b", N: 2, Note: "old"}})
	})
	inTx(t, db, func(tx database.Tx) error {
		return database.Update(tx, "things", "n", []thing{{ID: "b", N: 20, Note: "not this"}, {ID: "a", N: 10}})
	})
	err := db.InTx(t.Context(), func(tx database.Tx) error {
		return database.Update(tx, "things", "n, note", []thing{{ID: "a", N: 11}, {ID: "nobody", N: 12}})
	})
	contains(t, err, "things", "1 of 2 rows")
	got := load(t, db)
	if len(got) != 2 || got[0].N != 10 || got[1].N != 20 || got[0].Note != "old" || got[1].Note != "old" {
		t.Errorf("got %+v", got)
	}
}

// No rows are no statement.
func TestNoRows(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	inTx(t, db, func(tx database.Tx) error {
		for _, err := range []error{
			database.Insert[thing](tx, "nowhere", "x", nil), database.InsertOr(tx, "nowhere", "x", []thing{}, ""),
			database.Update[thing](tx, "nowhere", "x", nil), database.Upsert[thing](tx, "nowhere", "x", nil, ""),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		return nil
	})
}

// With a tail that says so, rows that are there already are passed over, and
// counted as not inserted.
func TestInsertOrDoNothing(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	insert := func(ids ...string) (n int64) {
		var rows []thing
		for _, id := range ids {
			rows = append(rows, thing{ID: id})
		}
		inTx(t, db, func(tx database.Tx) (err error) {
			n, err = database.InsertCount(tx, "things", "id, n", rows, "ON CONFLICT DO NOTHING")
			return err
		})
		return n
	}
	if first, second := insert("a", "b"), insert("b", "c"); first != 2 || second != 1 {
		t.Errorf("inserted %d, then %d", first, second)
	}
}

// An Upsert whose WHERE refuses a row, because another transaction was there
// first, runs again and in the end gives up as unavailable.
func TestUpsertRefused(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	const tail = `ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n WHERE things.n < EXCLUDED.n`
	runs := 0
	upsert := func(n int64) error {
		return db.InTx(t.Context(), func(tx database.Tx) error {
			runs++
			return database.Upsert(tx, "things", "id, n", []thing{{ID: "a", N: n}}, tail)
		})
	}
	if err := upsert(5); err != nil {
		t.Fatal(err)
	}
	if err := upsert(6); err != nil || runs != 2 {
		t.Fatalf("%v after %d runs", err, runs)
	}
	if err := upsert(6); fault.KindOf(err) != fault.Unavailable || runs != 6 {
		t.Errorf("%v after %d runs", err, runs)
	}
}

// A statement of one's own reads the rows and the transaction's instant by name.
func TestExecRows(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	inTx(t, db, func(tx database.Tx) error {
		n, err := tx.ExecRows(`INSERT INTO things (id, at) SELECT id, @now FROM json_populate_recordset(NULL::things, @rows)`, []thing{{ID: "a"}, {ID: "b"}})
		if n != 2 {
			t.Errorf("%d rows", n)
		}
		if err == nil && one[int64](t, db, `SELECT count(*) FROM things`) != 0 {
			t.Error("seen by others before the commit")
		}
		var same int64
		_ = tx.Raw(`SELECT count(*) FROM things WHERE at = now()`).Row().Scan(&same)
		if same != 2 {
			t.Errorf("%d rows have the transaction's instant", same)
		}
		return err
	})
	inTx(t, db, func(tx database.Tx) error {
		if _, err := tx.ExecRows(`SELECT @rows`, make(chan int)); err == nil || !strings.Contains(err.Error(), "encode rows") {
			t.Errorf("rows that cannot be encoded: %v", err)
		}
		return nil
	})
}

// Array makes a slice one argument; nil is the empty array, not NULL.
func TestArray(t *testing.T) {
	db := things(t, database.Options{MaxConns: 2})
	u1, u2 := uuid.New(), uuid.New()
	for name, tc := range map[string]struct {
		query string
		args  []any
	}{
		"strings":   {`SELECT count(*) FROM unnest(ARRAY['a','b,"{}','c']) x WHERE x = ANY(?)`, []any{database.Array([]string{"a", `b,"{}`, "z"})}},
		"numbers":   {`SELECT count(*) FROM generate_series(1, 9) x WHERE x = ANY(?)`, []any{database.Array([]int64{3, 5, 99})}},
		"uuids":     {`SELECT count(*) FROM unnest(?::uuid[]) x WHERE x = ANY(?)`, []any{database.Array([]uuid.UUID{u1, u2}), database.Array([]uuid.UUID{u2, u1})}},
		"nil":       {`SELECT 2 + COALESCE(cardinality(?::text[]), 99)`, []any{database.Array[string](nil)}},
		"in a word": {`SELECT cardinality(?::text[])`, []any{database.Array([]string{"a", "b"})}},
	} {
		if got := one[int64](t, db, tc.query, tc.args...); got != 2 {
			t.Errorf("%s: %d, want 2", name, got)
		}
	}
	inTx(t, db, func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO things (id) SELECT unnest(?::text[])`, database.Array([]string{"a", "b"})).Error
	})
	if rows, err := db.Exec(t.Context(), `DELETE FROM things WHERE id = ANY($1)`, []string{"a", "b"}); rows != 2 || err != nil {
		t.Errorf("DB.Exec with a plain slice: %d rows, %v", rows, err)
	}
}
