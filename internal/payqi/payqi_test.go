package payqi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quayside/internal/fault"
)

const canary = "CANARY_KEY_of_the_payqi_client"

// answering is a client of a PayQI that answers by handler.
func answering(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, canary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func show(p *Payment) string {
	tag := "-"
	if p.DestinationTag != nil {
		tag = fmt.Sprint(*p.DestinationTag)
	}
	return strings.Join([]string{p.ID, p.OrderID, p.Status, p.Amount.Decimal.String(), p.Currency, p.PayAddress, tag, p.TxHash, p.CheckoutURL}, "|")
}

// The names that PayQI may use are all understood; what contradicts itself or
// is no exact amount is not believed.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, body, want string }{
		{"the names of the contract", `{"payment_id":"p1","amount":"10.00","currency":"xrp","pay_address":"rA","destination_tag":"7","checkout_url":"https://pay.example/p1"}`, "p1|||10|XRP|rA|7||https://pay.example/p1"},
		{"other names", `{"id":"p1","status":"PENDING","address":"rA","tag":7,"payment_url":"https://pay.example/p1","metadata":{"order_id":1001}}`, "p1|1001|pending|0||rA|7||https://pay.example/p1"},
		{"a third name of the page", `{"id":"p1","url":"https://pay.example/p1"}`, "p1|||0|||-||https://pay.example/p1"},
		{"both names, one thing", `{"id":"p1","payment_id":"p1"}`, "p1|||0|||-||"},
		{"in data", `{"data":{"id":"p1"}}`, "p1|||0|||-||"},
		{"in payment", `{"success":true,"payment":{"id":"p1","tx_hash":"AB"}}`, "p1|||0|||-|AB|"},
		{"the tag in the invoice", `{"id":"pay_a_1","provider_invoice_id":"xrp_pay_a_1_4294967295"}`, "pay_a_1|||0|||4294967295||"},
		{"the invoice of another payment", `{"id":"p1","provider_invoice_id":"xrp_p2_9"}`, "p1|||0|||-||"},
		{"tag zero", `{"id":"p1","destination_tag":0}`, "p1|||0|||0||"},
		{"an exact amount", `{"id":"p1","amount":0.100000000000000001}`, "p1|||0.100000000000000001|||-||"},
		{"a page in plain http", `{"id":"p1","checkout_url":"http://pay.example/p1"}`, "p1|||0|||-||"},
		{"a page that is a script", `{"id":"p1","checkout_url":"javascript:alert(1)"}`, "p1|||0|||-||"},
		{"two ids", `{"id":"p1","payment_id":"p2"}`, "!two things"},
		{"two addresses", `{"id":"p1","pay_address":"rA","address":"rB"}`, "!two things"},
		{"two tags", `{"id":"p1","tag":1,"provider_invoice_id":"xrp_p1_2"}`, "!two things"},
		{"no id", `{"status":"created"}`, "!no payment id"},
		{"an id with a slash", `{"id":"a/b"}`, "!no payment id"},
		{"a list", `[]`, "!not a JSON object"},
		{"two documents", `{"id":"p1"}{}`, "!goes on"},
		{"HTML", `<html>`, "!not a JSON object"},
		{"an amount of NaN", `{"id":"p1","amount":"NaN"}`, "!amount"},
		{"an amount below zero", `{"id":"p1","amount":-1}`, "!amount"},
		{"an amount of 19 digits", `{"id":"p1","amount":"1000000000000000000"}`, "!amount"},
		{"a large exponent", `{"id":"p1","amount":1e99}`, "!amount"},
		{"an amount that is an object", `{"id":"p1","amount":{}}`, "!amount"},
		{"a tag too large", `{"id":"p1","tag":4294967296}`, "!destination_tag"},
		{"a tag with a fraction", `{"id":"p1","tag":1.5}`, "!destination_tag"},
		{"a tag below zero", `{"id":"p1","tag":-1}`, "!destination_tag"},
		{"an address with a line break", `{"id":"p1","address":"r\nA"}`, "!pay_address"},
		{"a status that is a list", `{"id":"p1","status":[]}`, "!no text"},
	} {
		p, err := read([]byte(tc.body))
		switch wrong, refused := strings.CutPrefix(tc.want, "!"); {
		case refused && (err == nil || !strings.Contains(err.Error(), wrong) && !strings.Contains(err.Error(), "address")):
			t.Errorf("%s: %v, want an error about %s", tc.name, err, wrong)
		case !refused && (err != nil || show(p) != tc.want):
			t.Errorf("%s: %v, %v, want %s", tc.name, show(p), err, tc.want)
		}
	}
}

// What is asked is what the contract says, with the key beside it.
func TestCreateAsks(t *testing.T) {
	t.Parallel()
	var asked, body string
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked, body = fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("Authorization"), " ", r.Header.Get("Idempotency-Key"), " ", r.Header.Get("Content-Type")), string(b)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"id":"p1"}`))
	})
	p, err := c.Create(t.Context(), Order{Key: "k1", ID: "1001", Amount: "10.00", Currency: "XRP", Description: "Order 1001"})
	if err != nil || p.ID != "p1" {
		t.Fatal(p, err)
	}
	if want := "POST /api/payments Bearer " + canary + " k1 application/json"; asked != want {
		t.Errorf("asked %s, want %s", asked, want)
	}
	var got, want any
	if json.Unmarshal([]byte(body), &got) != nil || json.Unmarshal([]byte(`{"amount":"10.00","currency":"XRP","description":"Order 1001","metadata":{"order_id":"1001"}}`), &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the body is %s", body)
	}
}

// Each way of failing has its kind: it decides what the shop is told and
// whether it is worth trying again.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		body   string
		want   fault.Kind
	}{
		{200, `{"id":"p1"}`, fault.Internal}, // no error
		{200, `{"id":"p2"}`, fault.Unavailable},
		{200, `{"id":"p1"`, fault.Unavailable},
		{200, `{"id":"p1","description":"` + strings.Repeat("x", maxAnswer) + `"}`, fault.Unavailable},
		{302, ``, fault.NotImplemented},
		{400, `{}`, fault.Unprocessable},
		{401, `{}`, fault.NotImplemented},
		{403, `{}`, fault.NotImplemented},
		{404, `{}`, fault.NotFound},
		{409, `{}`, fault.Unavailable},
		{422, `{}`, fault.Unprocessable},
		{429, `{}`, fault.Unavailable},
		{500, `{}`, fault.Unavailable},
		{503, `{}`, fault.Unavailable},
	} {
		c := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("a redirect was followed")
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tc.status)
			_, _ = w.Write([]byte(tc.body))
		})
		_, err := c.Payment(t.Context(), "p1")
		if fault.KindOf(err) != tc.want || (err == nil) != (tc.want == fault.Internal) {
			t.Errorf("%d %.40s: %v is of kind %d, want %d", tc.status, tc.body, err, fault.KindOf(err), tc.want)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the key is told: %v", err)
		}
	}
	c := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	if _, err := c.Create(t.Context(), Order{}); fault.KindOf(err) != fault.NotImplemented {
		t.Errorf("nothing at the address to create payments: %v", err)
	}
}

// After a 429 nobody asks until the time that PayQI names.
func TestRestsWhenAsked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status   int
		after    string
		min, max time.Duration
	}{
		"seconds":         {429, "120", 119 * time.Second, 120 * time.Second},
		"a date":          {429, time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 57 * time.Second, time.Minute},
		"nothing":         {429, "", 9 * time.Second, 10 * time.Second},
		"a year":          {429, "31536000", 59 * time.Minute, time.Hour},
		"503 with time":   {503, "30", 29 * time.Second, 30 * time.Second},
		"503 without":     {503, "", 0, 0},
		"500 with a time": {500, "30", 0, 0},
	} {
		var asked atomic.Int32
		c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", tc.after)
			w.WriteHeader(tc.status)
		})
		_, _ = c.Payment(t.Context(), "p1")
		if rest := c.Rest(); rest < tc.min || rest > tc.max {
			t.Errorf("%s: rests %s, want %s to %s", name, rest, tc.min, tc.max)
		}
		_, err := c.Payment(t.Context(), "p1")
		if again := asked.Load() == 2; again != (tc.max == 0) || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("%s: asked %d times, %v", name, asked.Load(), err)
		}
	}
}

// A PayQI that fails again and again is left alone; a refusal is no failure,
// and neither is a caller who has gone.
func TestLeavesAloneWhatFails(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	status := http.StatusUnprocessableEntity
	c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(status)
	})
	ask := func(ctx context.Context, times int) {
		for range times {
			_, _ = c.Payment(ctx, "p1")
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ask(gone, 2*tripAfter)
	ask(t.Context(), 2*tripAfter)
	if asked.Load() != 2*tripAfter || c.Rest() != 0 {
		t.Fatalf("asked %d times, rest %s", asked.Load(), c.Rest())
	}
	status = http.StatusInternalServerError
	ask(t.Context(), 2*tripAfter)
	if asked.Load() != 3*tripAfter || c.Rest() == 0 {
		t.Errorf("asked %d times, rest %s", asked.Load(), c.Rest())
	}
}

// The key goes to one place only, and not in plain text over a network.
func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"https://api.payqi.example", "https://api.payqi.example/v2/", "http://127.0.0.1:8090", "http://localhost:1", "http://[::1]:80"} {
		if err := CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "api.payqi.example", "http://api.payqi.example", "http://10.0.0.1", "http://localhost.example", "ftp://x", "https://", "https://u:p@x", "https://x?key=1", "https://x/#a", "https://x y"} {
		if err := CheckAddress(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	c, err := New("https://api.payqi.example", canary)
	if err != nil {
		t.Fatal(err)
	}
	if told := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(told, canary) {
		t.Error("a client prints its key")
	}
}
