package access

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
	"quayside/internal/fault"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func create(t *testing.T, db *database.DB, d Draft) (k *Key, secret string, err error) {
	t.Helper()
	err = db.InTx(context.Background(), func(tx database.Tx) (err error) {
		k, secret, err = Create(tx, d, "shell")
		return err
	})
	return k, secret, err
}

func clock(t *testing.T, db *database.DB) time.Time {
	t.Helper()
	now, err := db.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// A key has the documented form, no two are alike, and a slip in it shows
// before the database is asked.
func TestForm(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := newSecret()
		if !wellFormed(s) || len(s) != 57 || !strings.HasPrefix(s, "qs_live_") || seen[s] {
			t.Fatalf("made %q", s)
		}
		seen[s] = true
	}
	// Computed with Python's zlib.crc32 and divmod.
	if s := "qs_live_" + strings.Repeat("0", 43); checksum(s) != knownChecksum {
		t.Errorf("checksum %s", checksum(s))
	}
	s := newSecret()
	for i := range s {
		other := byte('x')
		if s[i] == other {
			other = 'y'
		}
		if wellFormed(s[:i] + string(other) + s[i+1:]) {
			t.Errorf("a slip at %d is not noticed", i)
		}
	}
	for _, bad := range []string{"", "qs_live_", s[1:], s + "0", strings.ToUpper(s)} {
		if wellFormed(bad) {
			t.Errorf("%q passes", bad)
		}
	}
}

const knownChecksum = "3gZHJh"

// A key opens what its scopes say until it is revoked or ends, and the database
// keeps nothing it could be found out from.
func TestFind(t *testing.T) {
	db, _ := dbtest.New(t)
	keys := NewKeys(db)
	now := time.Now()
	keys.now = func() time.Time { return now }
	k, secret, err := create(t, db, Draft{Name: "warehouse", Scopes: []string{"stock:write", "viewer"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := keys.Find(t.Context(), secret)
	if err != nil || c == nil || c.Name != "admin:warehouse" || !slices.Equal(c.Scopes, []string{"emails:read", "events:read", "imports:read", "orders:read", "reports:read", "stock:read", "stock:write"}) {
		t.Fatalf("found %+v, %v", c, err)
	}
	var stored string
	if err := db.Read(t.Context()).Raw(`SELECT api_keys::text FROM api_keys`).Row().Scan(&stored); err != nil || strings.Contains(stored, secret[prefixLength:prefixLength+8]) {
		t.Errorf("the row %q, %v", stored, err)
	}
	var used bool
	if err := db.Read(t.Context()).Raw(`SELECT last_used_at IS NOT NULL FROM api_keys`).Row().Scan(&used); err != nil || !used {
		t.Errorf("its use was not noted: %v", err)
	}
	for name, wrong := range map[string]string{"unknown": newSecret(), "malformed": secret[1:], "empty": ""} {
		if c, err := keys.Find(t.Context(), wrong); c != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if err := db.InTx(t.Context(), func(tx database.Tx) error { _, err := Revoke(tx, k.ID.String(), "shell"); return err }); err != nil {
		t.Fatal(err)
	}
	if c, _ := keys.Find(t.Context(), secret); c == nil {
		t.Error("it is not remembered at all")
	}
	now = now.Add(memory)
	if c, err := keys.Find(t.Context(), secret); c != nil || err != nil {
		t.Errorf("a revoked key opens: %+v, %v", c, err)
	}
	_, brief, err := create(t, db, Draft{Name: "brief", Scopes: []string{"admin"}, ExpiresAt: clock(t, db).Add(50 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; now = now.Add(memory) {
		if c, err := keys.Find(t.Context(), brief); err != nil || c == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an expired key opens")
		}
	}
}

// What nobody should have is refused, with the field named.
func TestCreateRefuses(t *testing.T) {
	db, _ := dbtest.New(t)
	now := clock(t, db)
	for field, d := range map[string]Draft{
		"name":       {Name: "a b", Scopes: []string{"admin"}},
		"scopes":     {Name: "a", Scopes: []string{"orders:burn"}},
		"expires_at": {Name: "a", Scopes: []string{"admin"}, ExpiresAt: now.Add(-time.Second)},
	} {
		_, _, err := create(t, db, d)
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Unprocessable || f.Fields[0].Location != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, d := range []Draft{{Name: "bootstrap", Scopes: []string{"admin"}}, {Name: "a"}, {Name: "a", Scopes: []string{"admin"}, ExpiresAt: now.Add(MaxAge + time.Hour)}} {
		if _, _, err := create(t, db, d); fault.KindOf(err) != fault.Unprocessable {
			t.Errorf("%+v: %v", d, err)
		}
	}
	if _, _, err := create(t, db, Draft{Name: "one", Scopes: []string{"viewer"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := create(t, db, Draft{Name: "one", Scopes: []string{"viewer"}}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a name twice: %v", err)
	}
	revoke := func() error {
		return db.InTx(t.Context(), func(tx database.Tx) error { _, err := Revoke(tx, "one", "shell"); return err })
	}
	if err := revoke(); err != nil {
		t.Fatal(err)
	}
	if err := revoke(); fault.KindOf(err) != fault.NotFound {
		t.Errorf("revoked twice: %v", err)
	}
	if _, _, err := create(t, db, Draft{Name: "one", Scopes: []string{"viewer"}}); err != nil {
		t.Errorf("the name of a revoked key: %v", err)
	}
}
