package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/web"
)

// asClerk is ctx of a request of somebody.
func asClerk(ctx context.Context) context.Context {
	ctx = web.By(ctx, web.Request{Operation: "edit-thing", Method: "PATCH", Path: "/thing"})
	return web.As(ctx, &web.Caller{Name: "admin:clerk", ID: "k1"})
}

func enter(db *database.DB, subject string, meanwhile func()) error {
	ctx := asClerk(context.Background())
	return db.InTx(ctx, func(tx database.Tx) error {
		if err := Record(ctx, tx, Change{Subject: subject, After: map[string]any{"a": subject}}); err != nil {
			return err
		}
		meanwhile()
		return nil
	})
}

// chain computes the chain anew, by the description alone, and returns the
// entries in its order.
func chain(t *testing.T, db *database.DB) (ids []int64) {
	t.Helper()
	var rows []struct {
		Number                                                    int64
		Hash                                                      []byte
		ID                                                        int64
		At                                                        time.Time
		Actor, KeyID, Operation, Method, Path, Subject, RequestID string
		ChangeDigest                                              []byte
	}
	if err := db.Read(t.Context()).Raw(`SELECT * FROM audit_seals s JOIN audit_log a ON a.id = s.entry_id ORDER BY number`).Scan(&rows).Error; err != nil {
		t.Fatal(err)
	}
	var before []byte
	for i, r := range rows {
		line, err := json.Marshal([]any{r.ID, r.At.UnixMicro(), r.Actor, r.KeyID, r.Operation, r.Method, r.Path, r.Subject, r.RequestID, hex.EncodeToString(r.ChangeDigest)})
		if err != nil {
			t.Fatal(err)
		}
		line = bytes.ReplaceAll(line, []byte(","), []byte(", ")) // as Postgres writes lists; no text here has a comma
		sum := sha256.Sum256(append(before, line...))
		if r.Number != int64(i+1) || !bytes.Equal(r.Hash, sum[:]) {
			t.Fatalf("seal %d is number %d of entry %d, hash %x, want %x", i+1, r.Number, r.ID, r.Hash, sum)
		}
		before, ids = r.Hash, append(ids, r.ID)
	}
	return ids
}

// An entry that commits later than one with a higher id is sealed behind it,
// and neither is forgotten.
func TestSealOutOfOrder(t *testing.T) {
	db, _ := dbtest.New(t)
	err := enter(db, "thing/1", func() {
		if err := enter(db, "thing/2", func() {}); err != nil {
			t.Error(err)
		}
		if err := Seal(t.Context(), db); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Seal(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(chain(t, db)); got != "[2 1]" {
		t.Errorf("sealed in the order %s", got)
	}
}

// However many seal at once while others write, there is one chain with each
// entry in it once; those of a transaction that was undone are nowhere.
func TestSealAtOnce(t *testing.T) {
	db, _ := dbtest.New(t)
	const writers, each = 4, 200
	undone := errors.New("undone")
	stop := make(chan struct{})
	var writing, sealing sync.WaitGroup
	for range 3 {
		sealing.Go(func() {
			for {
				if err := Seal(context.Background(), db); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range writers {
		writing.Go(func() {
			for j := range each {
				err := enter(db, fmt.Sprintf("thing/%d-%d", i, j), func() {})
				if err != nil {
					t.Error(err)
				}
				ctx := asClerk(context.Background())
				_, err = Once(ctx, db, func(ctx context.Context, _ database.Tx) (*int, error) {
					Changed(ctx, "thing/never", nil, 1)
					return nil, undone
				})
				if !errors.Is(err, undone) {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	sealing.Wait()
	if err := Seal(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for _, id := range chain(t, db) {
		seen[id] = true
	}
	last, waiting, err := LastSeal(database.Tx{DB: db.Read(t.Context())})
	if err != nil || len(seen) != writers*each || last.Number != writers*each || waiting != 0 {
		t.Errorf("%d entries, last seal %s, %d wait, %v", len(seen), last, waiting, err)
	}
}

// A write that does not say what it has changed has no effect.
func TestUntoldWrite(t *testing.T) {
	db, _ := dbtest.New(t)
	_, err := Once(asClerk(t.Context()), db, func(_ context.Context, tx database.Tx) (*Key, error) {
		k, _, err := Create(tx, Draft{Name: "one", Scopes: []string{"viewer"}}, "admin:clerk")
		return k, err
	})
	keys, lerr := List(t.Context(), db)
	if !errors.Is(err, errUntold) || lerr != nil || len(keys) != 0 {
		t.Errorf("%v; keys %v, %v", err, keys, lerr)
	}
}

// An entry holds what is not the same before and after, and nothing else.
func TestDifference(t *testing.T) {
	for _, tc := range []struct {
		before, after any
		want          string
	}{
		{nil, map[string]any{"a": 1}, `- {"a":1}`},
		{map[string]any{"a": 1, "b": 2}, map[string]any{"a": 1, "b": 3, "c": 4}, `{"b":2} {"b":3,"c":4}`},
		{map[string]any{"a": 1, "b": 2}, map[string]any{"a": 1}, `{"b":2} {}`},
		{map[string]any{"a": []int{1}}, nil, `{"a":[1]} -`},
	} {
		before, after, err := difference(tc.before, tc.after)
		if got := told(before) + " " + told(after); err != nil || got != tc.want {
			t.Errorf("%v, %v: %s, want %s (%v)", tc.before, tc.after, got, tc.want, err)
		}
	}
}

func told(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}
