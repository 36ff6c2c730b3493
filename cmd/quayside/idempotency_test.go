//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"quayside/internal/database"
)

// A hundred requests with one Idempotency-Key at once, to two processes, are one
// order and get one answer.
func TestIdempotencyHundred(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	first := w.shop.url
	w.serve() // another process would do the same: they meet in Postgres only
	second := w.shop.url
	w.stock("mug", 1000)
	body := `{"currency":"XRP","customer":{"email":"ada@example.com"},"items":[{"sku":"mug","quantity":2,"unit_price":"5.00"}]}` // no id: each would make one up
	var mu sync.Mutex
	answers, replayed := map[string]int{}, 0
	var all sync.WaitGroup
	for i := range 100 {
		url := []string{first, second}[i%2]
		all.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/v1/orders", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			got := w.sendWith(r, "one-wish")
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprintf("%d %s", got.status, got.body)]++
			if got.header.Get("Idempotency-Replayed") == "true" {
				replayed++
			}
		})
	}
	all.Wait()
	if len(answers) != 1 || replayed != 99 {
		t.Errorf("%d different answers, %d of them repeated:\n%v", len(answers), replayed, answers)
	}
	if n := w.count(`SELECT count(*) FROM orders`); n != 1 || w.levels("mug") != "1000/2" {
		t.Errorf("%d orders, stock %s", n, w.levels("mug"))
	}
	w.checkBooks()
}

// sendWith sends r with the admin key and an Idempotency-Key.
func (w *world) sendWith(r *http.Request, key string) reply {
	w.t.Helper()
	r.Header.Set("Authorization", "Bearer "+worldKey)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	res, err := w.shop.http.Do(r)
	if err != nil {
		w.t.Error(err)
		return reply{}
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Error(err)
	}
	return reply{res.StatusCode, res.Header, string(got)}
}

// Every POST that changes something has its effect once however often it is
// repeated, and says the same again, also what has changed meanwhile.
func TestIdempotencyOfEveryPost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	wish := 0
	twice := func(path, body string) {
		t.Helper()
		wish++
		key := fmt.Sprintf("wish-%d", wish)
		one := w.ask(http.MethodPost, path, body, "Idempotency-Key", key)
		w.quiet() // letters went out
		before := w.fingerprint()
		two := w.ask(http.MethodPost, path, body, "Idempotency-Key", key)
		first := strings.TrimSpace(one.body)
		if strings.HasSuffix(path, "/keys") {
			first = regexp.MustCompile(`"key":"[^"]+"`).ReplaceAllString(first, `"key":""`)
		}
		if one.status >= 300 || two.status != one.status || strings.TrimSpace(two.body) != first || two.header.Get("Idempotency-Replayed") != "true" || one.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s, then %d %v %s", path, one.status, one.body, two.status, two.header, two.body)
		}
		if after := w.fingerprint(); after != before {
			t.Errorf("%s: the repeat changed something:\n%s\n%s", path, before, after)
		}
	}
	twice("/api/v1/products", `{"sku":"mug","name":"Mug","on_hand":50}`)
	twice("/api/v1/products/mug/adjustments", `{"delta":5,"reason":"found"}`)
	twice("/api/v1/orders", jsonOf(draft("1001", "mug")))
	twice("/api/v1/orders", jsonOf(draft("1002", "mug")))
	twice("/api/v1/keys", `{"name":"clerk","scopes":["viewer"]}`)
	e := newEvent("payment.completed", w.order("1001"), "pay_1")
	e.Data.Amount = "12.50"
	w.answered("200 OK", e)
	w.stands("1001", "paid/overpaid/queued")
	w.letter("1001", "payment")
	twice("/api/v1/cases/"+w.caseOf("OVERPAID").ID+"/resolutions", `{"action":"refund"}`)
	twice("/api/v1/orders/1001/shipments", `{"carrier":"DHL"}`)
	w.letter("1001", "way")
	w.quiet()
	parcel := "/api/v1/orders/1001/shipments/" + w.order("1001").Shipments[0].ID
	twice(parcel+"/delivery", `{}`)
	twice("/api/v1/orders/1001/returns", `{"items":[1],"restock":true,"reason":"wrong colour"}`)
	twice("/api/v1/orders/1001/refunds", `{"amount":"4"}`)
	twice("/api/v1/orders/1001/waivers", `{"note":"a tip"}`)
	refund := "/api/v1/refunds/" + w.order("1001").Refunds[0].ID
	twice(refund+"/dispatch", `{"tx_hash":"`+strings.Repeat("AB", 32)+`","address":"rTheCustomersOwnAccount"}`)
	twice(refund+"/confirmation", "")
	twice("/api/v1/refunds/"+w.order("1001").Refunds[1].ID+"/withdrawal", `{}`)
	twice("/api/v1/orders/1002/cancellation", `{"reason":"no"}`)
	twice("/api/v1/orders/1002/reopening", `{"reason":"yes"}`)
	twice("/api/v1/events/"+e.ID+"/replays", `{}`)
	twice("/api/v1/events/"+e.ID+"/replays", `{"dry_run":true}`)
	twice("/api/v1/emails/"+w.text(`SELECT id::text FROM letters WHERE kind = 'order_shipped' AND state = 'sent'`)+"/resends", `{}`)
	w.quiet()
}

// A key means one wish of one caller: with another body it is refused, for
// another path or by another caller it is another key, and a refused request
// uses none up.
func TestIdempotencyKeyMeansOneWish(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.stock("mug", 3)
	post := func(path, body, key string, headers ...string) reply {
		return w.ask(http.MethodPost, path, body, append([]string{"Idempotency-Key", key}, headers...)...)
	}
	adjust := "/api/v1/products/mug/adjustments"
	for _, tc := range []struct {
		what   string
		r      reply
		status int
		code   string
	}{
		{"refused", post(adjust, `{"delta":-9,"reason":"r"}`, "a"), 409, "insufficient_stock"},
		{"the key of a refused one, another body", post(adjust, `{"delta":1,"reason":"r"}`, "a"), 201, ""},
		{"another body", post(adjust, `{"delta":2,"reason":"r"}`, "a"), 422, "idempotency_key_reused"},
		{"other bytes", post(adjust, `{"delta":1, "reason":"r"}`, "a"), 422, "idempotency_key_reused"},
		{"another path", post("/api/v1/products", `{"sku":"cup","name":"Cup","on_hand":1}`, "a"), 201, ""},
		{"another caller", post(adjust, `{"delta":4,"reason":"r"}`, "a", "Authorization", "Bearer "+w.key("other", "stock:write")), 201, ""},
		{"empty", post(adjust, `{"delta":1,"reason":"r"}`, " "), 400, "invalid_idempotency_key"},
		{"too long", post(adjust, `{"delta":1,"reason":"r"}`, strings.Repeat("k", 256)), 400, "invalid_idempotency_key"},
		{"the longest", post(adjust, `{"delta":1,"reason":"r"}`, strings.Repeat("k", 255)), 201, ""},
		{"not ASCII", post(adjust, `{"delta":1,"reason":"r"}`, "ключ"), 400, "invalid_idempotency_key"},
	} {
		if tc.r.status != tc.status || tc.r.code() != tc.code {
			t.Errorf("%s: %d %s, want %d %s", tc.what, tc.r.status, tc.r.body, tc.status, tc.code)
		}
	}
	if got := w.levels("mug"); got != "9/0" {
		t.Errorf("stock %s", got)
	}
}

// Who comes while the first is at work waits for it, and is told to come again
// when that takes too long.
func TestIdempotencyWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.stock("mug", 3)
	body := `{"delta":1,"reason":"r"}`
	held, done := make(chan struct{}), make(chan struct{})
	go func() { // the first, at work for a long time
		_ = w.db.InTx(t.Context(), func(tx database.Tx) error {
			err := tx.Exec(`INSERT INTO idempotency_keys (caller, operation, key, digest, at) VALUES ('bootstrap', 'POST /api/v1/products/mug/adjustments', 'slow', 'x', now())`).Error
			close(held)
			<-done
			return fmt.Errorf("it failed: %w", err)
		})
	}()
	<-held
	if r := w.ask(http.MethodPost, "/api/v1/products/mug/adjustments", body, "Idempotency-Key", "slow"); r.status != 409 || r.code() != "idempotency_key_in_use" {
		t.Errorf("while the first is at work: %d %s", r.status, r.body)
	}
	close(done)
	w.await("the key to be free again", func() bool {
		return w.ask(http.MethodPost, "/api/v1/products/mug/adjustments", body, "Idempotency-Key", "slow").status == 201
	})
	if got := w.levels("mug"); got != "4/0" {
		t.Errorf("stock %s", got)
	}
}
