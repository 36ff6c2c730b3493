package database_test

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"quayside/internal/database"
	"quayside/internal/database/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// exec runs one statement that must succeed.
func exec(t *testing.T, db *database.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%.60s: %v", statement, err)
	}
}

// one returns the single value of a query.
func one[T any](t *testing.T, db *database.DB, query string, args ...any) (value T) {
	t.Helper()
	if err := db.Read(t.Context()).Raw(query, args...).Row().Scan(&value); err != nil {
		t.Fatalf("%.60s: %v", query, err)
	}
	return value
}

// param adds connection parameters to an address.
func param(t *testing.T, address string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// silent is the address of a server that takes connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return fmt.Sprintf("postgres://u:hunter2@%s/x?sslmode=disable", l.Addr()) // the kernel accepts for it
}

func contains(t *testing.T, err error, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}
