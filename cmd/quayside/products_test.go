//go:build unix

package main

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// skus are those of a list of products.
func (w *world) skus(query string) string {
	w.t.Helper()
	r := w.ask(http.MethodGet, "/api/v1/products"+query, "")
	if r.status != http.StatusOK {
		w.t.Fatalf("%s: %d %s", query, r.status, r.body)
	}
	var all []string
	for _, m := range regexp.MustCompile(`"sku":"([^"]*)"`).FindAllStringSubmatch(r.body, -1) {
		all = append(all, m[1])
	}
	return strings.Join(all, " ")
}

// A product is renamed, runs low, is archived and taken back; while it is
// archived nobody can order it, and the order that has it goes on.
func TestProductsAreEdited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/products", map[string]any{"sku": "pot", "name": "Pot", "on_hand": 5, "low_stock_threshold": 5}, nil))
	o := w.open("before", "mug")
	const mug = "/api/v1/products/mug"
	edit := func(body string) reply {
		t.Helper()
		r := w.ask(http.MethodPatch, mug, body)
		if r.status != http.StatusOK {
			t.Fatalf("%s: %d %s", body, r.status, r.body)
		}
		return r
	}
	if r := edit(`{"name":"Cup","low_stock_threshold":8,"archived":true}`); !strings.Contains(r.body, `"name":"Cup"`) || !strings.Contains(r.body, `"low_stock":true`) {
		t.Errorf("edited: %s", r.body)
	}
	for query, want := range map[string]string{
		"": "mug pot", "?archived=true": "mug", "?archived=false": "pot", "?low_stock=true": "mug pot", "?low_stock=false": "", "?archived=false&low_stock=true": "pot",
	} {
		if got := w.skus(query); got != want {
			t.Errorf("products%s: %q, want %q", query, got, want)
		}
	}
	before := w.fingerprint()
	if r := w.ask(http.MethodPost, "/api/v1/orders", jsonOf(draft("after", "mug"))); r.status != http.StatusConflict || r.code() != "product_archived" || !strings.Contains(r.body, "items[0].sku") {
		t.Errorf("ordered though archived: %d %s", r.status, r.body)
	}
	if w.fingerprint() != before {
		t.Error("a refused order left something behind")
	}
	w.tell("payment.completed", o)
	w.stands("before", "paid/paid/queued")
	since := w.text(`SELECT archived_at::text FROM products WHERE sku = 'mug'`)
	edit(`{"archived":true,"low_stock_threshold":7}`)
	if again := w.text(`SELECT archived_at::text FROM products WHERE sku = 'mug'`); again != since {
		t.Errorf("archived at %s, then at %s", since, again)
	}
	if got := w.skus("?low_stock=false"); got != "mug" {
		t.Errorf("8 of 7: low are not %q", got)
	}
	edit(`{"archived":false}`)
	w.open("after", "mug")
	w.quiet()
}

// An edit of what somebody else has edited meanwhile is refused, and of many
// at once that have read the same, one happens; who has read it is not told again.
func TestProductsETag(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.stock("mug", 10)
	const mug = "/api/v1/products/mug"
	etag := w.ask(http.MethodGet, mug, "").header.Get("ETag")
	if r := w.ask(http.MethodGet, mug, "", "If-None-Match", "W/"+etag); r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != etag {
		t.Errorf("known: %d %q", r.status, r.body)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[int]int{}
	for range 8 {
		wg.Go(func() {
			r := w.ask(http.MethodPatch, mug, `{"name":"Cup"}`, "If-Match", etag)
			mu.Lock()
			answers[r.status]++
			mu.Unlock()
			if r.status != http.StatusOK && r.code() != "precondition_failed" {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	wg.Wait()
	if answers[http.StatusOK] != 1 || answers[http.StatusPreconditionFailed] != 7 {
		t.Errorf("answers: %v", answers)
	}
	r := w.ask(http.MethodGet, mug, "", "If-None-Match", etag)
	if r.status != http.StatusOK || !strings.Contains(r.body, "Cup") {
		t.Errorf("changed: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodPatch, mug, `{"name":"Mug"}`, "If-Match", r.header.Get("ETag")); r.status != http.StatusOK {
		t.Errorf("read again: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodPatch, mug, `{"name":"Pot"}`); r.status != http.StatusOK {
		t.Errorf("without a condition: %d %s", r.status, r.body)
	}
}
