//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"quayside/internal/database"
	"quayside/internal/dock"
)

// Exports over HTTP: with the number of rows ahead, as a file; who may not read
// personal data gets it masked, and the document knows each filter.
func TestExportOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 50)
	w.open("one", "mug", "customer", map[string]any{"email": "canary@customers.example", "name": "=Canary"})
	w.tell("payment.completed", w.order("one"))
	w.stands("one", "paid/paid/queued")
	w.open("two", "mug")
	r := w.ask(http.MethodGet, "/api/v1/exports/orders?status=paid", "")
	if r.status != 200 || r.header.Get("Total-Count") != "1" || r.header.Get("Content-Type") != "text/csv; charset=utf-8" ||
		r.header.Get("Content-Disposition") != `attachment; filename="orders.csv"` || strings.Count(r.body, "\r\n") != 2 ||
		!strings.Contains(r.body, `"one",paid,paid,queued,XRP,10.00,10.00,10.00,0.00,"pay_one",`) || !strings.Contains(r.body, `"canary@customers.example","'=Canary","mug:2:5",`) {
		t.Errorf("%d %v\n%s", r.status, r.header, r.body)
	}
	if r := w.ask(http.MethodHead, "/api/v1/exports/orders", ""); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", "", "Authorization", "Bearer "+w.key("eyes", "viewer")); r.status != 200 || strings.Contains(r.body, "anary") {
		t.Errorf("a viewer gets %d %s", r.status, r.body)
	}
	r = w.ask(http.MethodGet, "/api/v1/exports/payments?format=jsonl&from=2001-01-01T00:00:00Z&to=2999-01-01T00:00:00Z", "")
	if r.status != 200 || strings.Count(r.body, "\n") != 1 || !strings.Contains(r.body, `"amount":"10.00"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	for query, want := range map[string]string{
		"orders?status=lost": "422 invalid_request", "orders?state=paid": "400 unknown_parameter", "payments?from=yesterday": "400 invalid_parameter",
		"refunds?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": "422 invalid_period", "movements?format=xml": "422 invalid_request",
	} {
		r := w.ask(http.MethodGet, "/api/v1/exports/"+query, "")
		if got := fmt.Sprint(r.status, " ", r.code()); got != want || r.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	doc := w.openAPI()
	for _, table := range dock.Tables {
		op := doc.Paths["/api/v1/exports/"+table.Name]["get"]
		var has []string
		for _, p := range op.Parameters {
			if p.Name == table.Filter {
				has = p.Schema.Enum
			}
		}
		if !slices.Equal(has, table.States) {
			t.Errorf("%s: the document has %q, the table %q", table.Name, has, table.States)
		}
	}
}

// A file that is not whole cannot be taken for one: the connection is cut. Two
// exports at once are enough for one process; the third is told so, and other
// requests are answered.
func TestExportCut(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.must(w.db.InTx(t.Context(), func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO products SELECT 'sku-' || i, repeat('A long name ', 16), 0, 0, now(), now() FROM generate_series(1, 100000) i`).Error
	}))
	get := func() *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.shop.url+"/api/v1/exports/products", nil)
		w.must(err)
		r.Header.Set("Authorization", "Bearer "+worldKey)
		res, err := w.shop.http.Do(r)
		w.must(err)
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	first, second := get(), get() // neither is read: both wait for their reader
	if first.StatusCode != 200 || second.StatusCode != 200 || first.Header.Get("Total-Count") != "100000" {
		t.Fatalf("%d %d %v", first.StatusCode, second.StatusCode, first.Header)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", ""); r.status != 503 || r.code() != "busy" || r.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/orders", ""); r.status != 200 {
		t.Errorf("others meanwhile: %d", r.status)
	}
	_ = second.Body.Close() // the reader goes away
	w.await("its export to end", func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND (state = 'idle in transaction' OR query LIKE 'FETCH%' AND state = 'active')`) == 1
	})
	if n := w.count(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND (state = 'idle in transaction' OR query LIKE 'FETCH%' AND state = 'active')`); n != 1 {
		t.Fatalf("%d connections ended", n)
	}
	got, err := io.ReadAll(first.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, then %v: that looks whole", len(got), err)
	}
	if r := w.ask(http.MethodGet, "/api/v1/exports/orders", ""); r.status != 200 {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}
