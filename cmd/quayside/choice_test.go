//go:build unix

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"quayside/internal/orders"
)

const (
	customersAccount = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh" // the first of the XRP Ledger
	slipOfThePen     = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTi"
)

// goneOrder is an order over two mugs and a coffee, 15 XRP, whose money came too
// late: of the mugs one is left.
func (w *world) goneOrder(id string) orders.View {
	w.t.Helper()
	w.stock("mug-"+id, 2)
	w.stock("coffee-"+id, 1)
	o := w.open(id, "mug-"+id, "expires_in", 1, "items", []map[string]any{
		{"sku": "mug-" + id, "quantity": 2, "unit_price": "5.00"}, {"sku": "coffee-" + id, "quantity": 1, "unit_price": "5.00"},
	})
	w.stands(id, "expired/unpaid/none")
	w.restock("mug-"+id, -1)
	w.tell("payment.completed", o)
	return w.stands(id, "paid/paid/on_hold")
}

func (w *world) restock(sku string, delta int) {
	w.t.Helper()
	w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/products/"+sku+"/adjustments", map[string]any{"delta": delta, "reason": "counted"}, nil))
}

// choose sends a customer's form, as the page or as a program, and returns the
// answer, after the redirect if there is one.
func (w *world) choose(o orders.View, accept string, form ...string) reply {
	w.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	return w.ask(http.MethodPost, w.link(o), values.Encode(), "Authorization", "", "Content-Type", "application/x-www-form-urlencoded", "Accept", accept)
}

// version is the order's, as its page shows it.
func (w *world) version(o orders.View) string {
	w.t.Helper()
	return w.text(`SELECT timeline_length FROM orders WHERE id = ?`, o.ID)
}

const asPage, asJSON = "text/html,application/xhtml+xml,*/*;q=0.8", "application/json"

// A customer whose goods are gone has what is there sent: the rest is due back,
// and nobody had to be asked.
func TestCustomerTakesPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	o := w.goneOrder("part")
	r := w.look(http.MethodGet, w.link(o))
	contains(t, "the page", r.body, "1 × A coffee-part, and 10.00 XRP for what is missing go back to you", "Wait for the goods", "pay back 15.00 XRP")
	if strings.Contains(r.body, `http-equiv="refresh"`) {
		t.Error("the page reloads itself while somebody types")
	}
	c := w.caseOf("STOCK_GONE")
	if c.Facts["now_available"] != "line 2" {
		t.Errorf("the case says %v", c.Facts)
	}
	seen := w.version(o)
	if r := w.choose(o, asJSON, "choice", "part", "version", seen, "lines", "1", "lines", "2"); r.status != 409 || r.code() != "order_changed" {
		t.Errorf("more than there is: %d %s", r.status, r.body)
	}
	r = w.choose(o, asPage, "choice", "part", "version", seen, "lines", "2")
	if r.status != 200 || !strings.Contains(r.body, "getting your order ready") { // after the redirect to the page
		t.Fatalf("part: %d %v %s", r.status, r.header, r.body)
	}
	v := w.stands("part", "paid/overpaid/queued")
	if v.RefundDue.String() != "10.00" || !v.Items[0].GivenUp || v.Items[1].GivenUp {
		t.Errorf("after the choice: %+v", v)
	}
	if cause := w.text(`SELECT cause FROM timeline WHERE order_id = 'part' AND kind = 'decided'`); cause != "customer" {
		t.Errorf("decided by %s", cause)
	}
	w.letter("part", "payment")
	if got := w.reported("XRP"); got != "15.00 = 5.00 + 10.00 + 0.00 + 0.00 + 0.00 true" {
		t.Errorf("money: %s", got)
	}
	if r := w.choose(o, asPage, "choice", "refund", "version", w.version(o), "address", customersAccount); r.status != 200 || !strings.Contains(r.body, "getting your order ready") {
		t.Errorf("chosen again: %d %s", r.status, r.body)
	}
	w.stands("part", "paid/overpaid/queued")
	w.quiet()
}

// Who waits is noted once, may choose otherwise later, and is served when all is there again.
func TestCustomerWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	o := w.goneOrder("wait")
	for range 3 {
		if r := w.choose(o, asJSON, "choice", "wait", "version", w.version(o)); r.status != 200 || !strings.Contains(r.body, `{"choice":"wait","chosen":true`) {
			t.Fatalf("wait: %d %s", r.status, r.body)
		}
	}
	if n := w.count(`SELECT count(*) FROM timeline WHERE order_id = 'wait' AND kind = 'decided'`); n != 1 {
		t.Errorf("waiting three times makes %d steps", n)
	}
	if c := w.caseOf("STOCK_GONE"); c.Facts["customer_chose"] != "wait" {
		t.Errorf("the case says %v", c.Facts)
	}
	contains(t, "the page", w.look(http.MethodGet, w.link(o)).body, "You have chosen to wait", "This is what you have chosen")
	shown := w.version(o)
	w.restock("mug-wait", 5)
	if c := w.caseOf("STOCK_GONE"); c.Facts["now_available"] != "everything" {
		t.Errorf("the case says %v", c.Facts)
	}
	contains(t, "its explanation", w.ask(http.MethodGet, "/api/v1/orders/wait/explanation", "").body, "now available: everything")
	contains(t, "the page", w.look(http.MethodGet, w.link(o)).body, "the goods are there again", "2 × A mug-wait, 1 × A coffee-wait.")
	if r := w.choose(o, asPage, "choice", "part", "version", shown, "lines", "1", "lines", "2"); r.status != 200 || !strings.Contains(r.body, "getting your order ready") {
		t.Errorf("send it: %d %s", r.status, r.body)
	}
	w.stands("wait", "paid/paid/queued")
	if r := w.choose(o, asJSON, "choice", "wait", "version", w.version(o)); r.status != 409 {
		t.Errorf("waiting for what is there: %d %s", r.status, r.body)
	}
	w.quiet()
}

// Who wants the money back says where to, and slips of the pen are found; a
// twice pressed button cancels once; what is wrong changes nothing.
func TestCustomerWantsMoneyBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	o := w.goneOrder("back")
	seen, before := w.version(o), w.fingerprint()
	for name, tc := range map[string]struct {
		form   []string
		status int
		says   string
	}{
		"nothing":         {nil, 422, "choose one"},
		"unknown":         {[]string{"choice", "gift", "version", seen}, 422, "choose one"},
		"no version":      {[]string{"choice", "wait"}, 422, "version"},
		"old version":     {[]string{"choice", "wait", "version", "1"}, 409, "look again"},
		"no address":      {[]string{"choice", "refund", "version", seen}, 422, "which address"},
		"a slip":          {[]string{"choice", "refund", "version", seen, "address", slipOfThePen}, 422, "XRP Ledger"},
		"another ledger":  {[]string{"choice", "refund", "version", seen, "address", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}, 422, "XRP Ledger"},
		"tag too large":   {[]string{"choice", "refund", "version", seen, "address", customersAccount, "destination_tag", "4294967296"}, 422, "destination tag"},
		"tag in words":    {[]string{"choice", "refund", "version", seen, "address", customersAccount, "destination_tag", "one"}, 422, "destination tag"},
		"nothing to send": {[]string{"choice", "address", "version", seen, "address", customersAccount}, 409, "look again"},
		"too long":        {[]string{"choice", "refund", "version", seen, "address", strings.Repeat("r", 9000)}, 413, ""},
	} {
		if r := w.choose(o, asJSON, tc.form...); r.status != tc.status || !strings.Contains(r.body, tc.says) {
			t.Errorf("%s: %d %s, want %d %q", name, r.status, r.body, tc.status, tc.says)
		}
	}
	if r := w.ask(http.MethodPost, w.link(o), `{"choice":"wait"}`, "Authorization", ""); r.status != 422 {
		t.Errorf("JSON: %d %s", r.status, r.body)
	}
	page := w.choose(o, asPage, "choice", "refund", "version", seen, "address", slipOfThePen, "destination_tag", "7").body
	contains(t, "the page", page, "not an address of the XRP Ledger", slipOfThePen, `value="7"`, `id="choose-refund" open`)
	if after := w.fingerprint(); after != before {
		t.Errorf("refused choices changed the shop:\n%s\n%s", before, after)
	}
	if r := w.choose(o, asPage, "choice", "refund", "version", seen, "address", " "+customersAccount+" ", "destination_tag", "0"); r.status != 200 || !strings.Contains(r.body, "Cancelled") {
		t.Fatalf("refund: %d %s", r.status, r.body)
	}
	if r := w.choose(o, asPage, "choice", "refund", "version", seen, "address", customersAccount); r.status != 200 || !strings.Contains(r.body, "Cancelled") {
		t.Errorf("pressed twice: %d %s", r.status, r.body)
	}
	v := w.stands("back", "cancelled/refunded/none")
	if len(v.Refunds) != 1 || v.Refunds[0].Amount.String() != "15.00" || *v.Refunds[0].Address != customersAccount || *v.Refunds[0].DestinationTag != "0" || v.Refunds[0].DecidedBy != "customer" {
		t.Fatalf("refunds: %+v", v.Refunds)
	}
	contains(t, "the page", w.look(http.MethodGet, w.link(o)).body, "We will send 15.00 XRP back to you", customersAccount)
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/refunds/"+v.Refunds[0].ID+"/dispatch", map[string]string{"tx_hash": strings.Repeat("AB", 32)}, nil))
	contains(t, "the page", w.look(http.MethodGet, w.link(o)).body, "We have sent 15.00 XRP back to you", "https://livenet.xrpl.org/transactions/"+strings.Repeat("AB", 32))
	if got := w.reported("XRP"); got != "15.00 = 0.00 + 0.00 + 15.00 + 0.00 + 0.00 true" {
		t.Errorf("money: %s", got)
	}
	w.quiet()
}

// A refund that a person approved without an address asks the customer for it.
func TestCustomerSaysWhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 5)
	w.tell("payment.completed", w.open("1001", "mug"))
	o := w.stands("1001", "paid/paid/queued")
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/cancellation", map[string]any{"reason": "sold out"}, nil))
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/refunds", map[string]any{}, nil))
	contains(t, "the page", w.look(http.MethodGet, w.link(o)).body, "please say below where to send it", "Where shall the money go?")
	if r := w.choose(o, asJSON, "choice", "address", "version", w.version(o), "address", customersAccount, "destination_tag", "7"); r.status != 200 || !strings.Contains(r.body, `"choices":[]`) {
		t.Errorf("address: %d %s", r.status, r.body)
	}
	if refund := w.order("1001").Refunds[0]; refund.Address == nil || *refund.Address != customersAccount || *refund.DestinationTag != "7" || refund.State != "approved" {
		t.Errorf("refund: %+v", refund)
	}
	if r := w.choose(o, asJSON, "choice", "address", "version", w.version(o), "address", slipOfThePen); r.status != 422 {
		t.Errorf("a slip: %d %s", r.status, r.body)
	}
	if r := w.choose(o, asJSON, "choice", "address", "version", w.version(o), "address", "rrrrrrrrrrrrrrrrrrrrrhoLvTp"); r.status != 409 {
		t.Errorf("another address by whoever has the link: %d %s", r.status, r.body)
	}
	w.quiet()
}

// In a browser: the form goes through under the page's own policy, a slip of the
// pen is shown where it was made, what is typed stays, and the page shows the end.
func TestPageOffersChoice(t *testing.T) {
	t.Parallel()
	b, ok := newBrowser(t)
	if !ok {
		return
	}
	w := newWorld(t)
	w.cfg.ShopName = "Harbour Goods"
	w.serve()
	w.work()
	o := w.goneOrder("gone")
	p := w.openTab(b, w.shop.url+w.link(o))
	p.media("light")
	p.shows("Paid, but goods are missing", "choose below", "Have sent what is there", "Wait for the goods", "Have your money back")
	p.accessible("goods gone")
	p.photograph("choice")
	js[bool](p, `document.querySelector('#choose-refund summary').click(), true`)
	js[bool](p, fmt.Sprintf(`(document.getElementById('to').value = %q, document.querySelector('#choose-refund button').click(), true)`, slipOfThePen))
	p.waits("what is wrong", `!!document.querySelector('.wrong')?.textContent.includes('not an address of the XRP Ledger')`)
	p.accessible("a slip")
	if typed := js[string](p, `document.getElementById('to').value`); typed != slipOfThePen {
		t.Errorf("what was typed is gone: %q", typed)
	}
	js[bool](p, fmt.Sprintf(`(document.getElementById('to').value = %q, document.getElementById('tag-to').value = '7', document.querySelector('#choose-refund button').click(), true)`, customersAccount))
	p.shows("Cancelled", "We will send 15.00 XRP back to you", "Your money back", customersAccount)
	p.accessible("cancelled")
	if there := js[string](p, `location.pathname`); there != w.link(o) {
		t.Errorf("the page is at %s", there)
	}
	p.quiet()
}
