//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"quayside/internal/devstack"
	"quayside/internal/orders"
)

// caseOf waits for an open case with this code.
func (w *world) caseOf(code string) (c orders.CaseView) {
	w.t.Helper()
	w.await("a case "+code, func() bool {
		var page struct{ Data []orders.CaseView }
		w.must(w.shop.call(w.t.Context(), http.MethodGet, "/api/v1/cases?state=open&code="+code, nil, &page))
		if len(page.Data) > 0 {
			c = page.Data[0]
		}
		return len(page.Data) > 0
	})
	return c
}

func (w *world) resolve(c orders.CaseView, body any) (after orders.CaseView) {
	w.t.Helper()
	w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/cases/"+c.ID+"/resolutions", body, &after))
	return after
}

// reported is the money report of a currency, in one line.
func (w *world) reported(currency string) string {
	w.t.Helper()
	var report orders.MoneyReport
	w.must(w.shop.call(w.t.Context(), http.MethodGet, "/api/v1/reports/money", nil, &report))
	for _, m := range report.Data {
		if m.Currency == currency {
			return fmt.Sprintf("%s = %s + %s + %s + %s + %s %v", m.Received, m.Applied, m.RefundDue, m.Refunded, m.Kept, m.Unmatched, m.Balanced)
		}
	}
	return "none"
}

// From a signed webhook to a decision: half the money comes, a person takes it
// as enough, the order ships; the rest comes after all and goes back, with the
// address, the transaction and the confirmation in the order's timeline.
func TestDecideOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	o := w.open("1001", "mug")
	e := newEvent("payment.completed", o, "pay_1")
	e.Data.Amount = "4.5"
	w.answered("200 OK", e)
	w.stands("1001", "pending/underpaid/none")
	c := w.caseOf("UNDERPAID")
	if !c.Blocks || strings.Join(c.Actions, " ") != "wait accept refund" || c.Facts["expected"] != "10.00" || c.Facts["received"] != "4.50" {
		t.Errorf("case: %+v", c)
	}
	path := "/api/v1/cases/" + c.ID
	for _, tc := range []struct{ body, status, says string }{
		{`{}`, "422", "action"},
		{`{"action":"accept"}`, "422", "note"},
		{`{"action":"ship"}`, "422", "wait, accept, refund"},
		{`{"action":"accept","note":"x","why":"y"}`, "400", "why"},
		{`{"action":"refund","address":"r x","note":"x"}`, "422", "address"},
		{`{"action":"refund","destination_tag":4294967296,"note":"x"}`, "422", "destination_tag"},
		{`{"action":7}`, "400", "action"},
	} {
		r := w.ask(http.MethodPost, path+"/resolutions", tc.body)
		if fmt.Sprint(r.status) != tc.status || !strings.Contains(r.body, tc.says) {
			t.Errorf("%s: %d %s, want %s and %q", tc.body, r.status, r.body, tc.status, tc.says)
		}
	}
	for _, bad := range []string{"x", "00000000-0000-0000-0000-000000000000"} {
		if r := w.ask(http.MethodPost, "/api/v1/cases/"+bad+"/resolutions", `{"action":"wait"}`); r.status != http.StatusNotFound {
			t.Errorf("case %s: %d %s", bad, r.status, r.body)
		}
	}
	after := w.resolve(c, map[string]string{"action": "accept", "note": "a friend of the house"})
	if after.State != "closed" || after.Resolution == nil || *after.Resolution != "accept: a friend of the house" || len(after.Actions) != 0 {
		t.Errorf("decided: %+v", after)
	}
	w.stands("1001", "paid/paid/queued")
	if r := w.ask(http.MethodPost, path+"/resolutions", `{"action":"wait"}`); r.status != http.StatusConflict {
		t.Errorf("decided twice: %d %s", r.status, r.body)
	}

	late := newEvent("payment.completed", o, "pay_2")
	late.Data.Amount = "5.5"
	w.answered("200 OK", late)
	c = w.caseOf("DUPLICATE_PAYMENT")
	if got := w.reported("XRP"); got != "10.00 = 4.50 + 5.50 + 0.00 + 0.00 + 0.00 true" {
		t.Errorf("money: %s", got)
	}
	w.resolve(c, map[string]any{"action": "refund", "address": "rTheCustomersOwnAccount", "destination_tag": 0})
	v := w.order("1001")
	if len(v.Refunds) != 1 || v.Refunds[0].Amount.String() != "5.50" || v.Refunds[0].State != "approved" || *v.Refunds[0].DestinationTag != "0" {
		t.Fatalf("refunds: %+v", v.Refunds)
	}
	refund := "/api/v1/refunds/" + v.Refunds[0].ID
	w.must(w.shop.call(t.Context(), http.MethodPost, refund+"/dispatch", map[string]string{"tx_hash": strings.Repeat("AB", 32)}, nil))
	w.must(w.shop.call(t.Context(), http.MethodPost, refund+"/confirmation", nil, nil))
	if got := w.reported("XRP"); got != "10.00 = 4.50 + 0.00 + 5.50 + 0.00 + 0.00 true" {
		t.Errorf("money: %s", got)
	}
	var steps struct {
		Data []struct{ Kind, Cause string }
	}
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/orders/1001/timeline", nil, &steps))
	all, _ := json.Marshal(steps.Data)
	for _, kind := range []string{"decided", "refund_sent", "refund_confirmed"} {
		if !strings.Contains(string(all), `{"Kind":"`+kind+`","Cause":"admin:`) {
			t.Errorf("no step %s by a person in %s", kind, all)
		}
	}
	w.quiet()
}

// Refunds without a case: what is due of a cancelled order goes back in parts,
// can be taken back until it is sent, and no more goes back than is due.
func TestRefundOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	w.tell("payment.completed", w.open("1001", "mug"))
	w.stands("1001", "paid/paid/queued")
	if r := w.ask(http.MethodPost, "/api/v1/orders/1001/refunds", `{}`); r.status != http.StatusConflict || !strings.Contains(r.body, "no_refund_due") {
		t.Errorf("nothing is due: %d %s", r.status, r.body)
	}
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/cancellation", map[string]string{"reason": "ordered twice"}, nil))
	for _, bad := range []string{`{"amount":"0"}`, `{"amount":"-1"}`, `{"amount":"10.01"}`, `{"amount":1}`, `{"address":"x"}`, `{"destination_tag":1}`, `{"note":"a\u0007"}`} {
		if r := w.ask(http.MethodPost, "/api/v1/orders/1001/refunds", bad); r.status < 400 || r.status >= 500 {
			t.Errorf("%s: %d %s", bad, r.status, r.body)
		}
	}
	var list orders.RefundList
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/refunds", map[string]string{"amount": "4", "address": "rTheCustomersOwnAccount"}, &list))
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/waivers", map[string]string{"amount": "1", "note": "handling, as agreed"}, nil))
	if got := w.reported("XRP"); got != "10.00 = 0.00 + 5.00 + 4.00 + 1.00 + 0.00 true" {
		t.Errorf("money: %s", got)
	}
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/refunds/"+list.Data[0].ID+"/withdrawal", map[string]string{"note": "wrong amount"}, nil))
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/refunds", map[string]string{}, &list))
	if got := w.reported("XRP"); got != "10.00 = 0.00 + 0.00 + 9.00 + 1.00 + 0.00 true" || w.order("1001").PaymentStatus != "refunded" {
		t.Errorf("money: %s, %s", got, w.order("1001").PaymentStatus)
	}
	id := list.Data[0].ID
	if r := w.ask(http.MethodPost, "/api/v1/refunds/"+id+"/dispatch", `{"tx_hash":"ABABABAB"}`); r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, "address") {
		t.Errorf("sent nowhere: %d %s", r.status, r.body)
	}
	w.must(w.shop.call(t.Context(), http.MethodPut, "/api/v1/refunds/"+id+"/destination", map[string]string{"address": "rTheCustomersOwnAccount"}, nil))
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/refunds/"+id+"/dispatch", map[string]string{"tx_hash": "ABABABAB"}, nil))
	var page struct{ Data []orders.RefundView }
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/refunds?order_id=1001", nil, &page))
	var states []string
	for _, r := range page.Data {
		states = append(states, string(r.State))
	}
	if strings.Join(states, " ") != "sent waived withdrawn" {
		t.Errorf("refunds, newest first: %q", states)
	}
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/refunds/"+id, nil, nil))
	for _, empty := range []string{"?from=2100-01-01T00:00:00Z", "?to=2000-01-01T00:00:00Z"} {
		if r := w.ask(http.MethodGet, "/api/v1/reports/money"+empty, ""); r.status != http.StatusOK || strings.TrimSpace(r.body) != `{"data":[]}` {
			t.Errorf("%s: %d %s", empty, r.status, r.body)
		}
	}
	w.quiet()
}

// From a signed webhook to a letter that no mailbox takes, to the address set
// right: the customer is told, and so of all that comes after.
func TestMailDeadOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 10)
	w.tell("payment.completed", w.open("1001", "mug", "customer", map[string]any{"email": "ada@" + devstack.NoMailbox}))
	w.stands("1001", "paid/paid/queued")
	c := w.caseOf("MAIL_DEAD")
	if c.Blocks || c.OrderID == nil || *c.OrderID != "1001" || strings.Join(c.Actions, " ") != "retry readdress acknowledge" {
		t.Errorf("case: %+v", c)
	}
	path := "/api/v1/cases/" + c.ID + "/resolutions"
	if r := w.ask(http.MethodPost, path, `{"action":"readdress","address":"ada"}`); r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, "address") {
		t.Errorf("no address: %d %s", r.status, r.body)
	}
	if after := w.resolve(c, map[string]string{"action": "readdress", "address": "ada@right.example"}); after.State != "closed" {
		t.Errorf("decided: %+v", after)
	}
	w.letterTo("ada@right.example", "payment received")
	w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/1001/shipments", map[string]any{}, nil))
	w.letterTo("ada@right.example", "on its way")
	if v := w.order("1001"); v.Customer.Email != "ada@right.example" {
		t.Errorf("the order says %s", v.Customer.Email)
	}
	w.quiet()
}
