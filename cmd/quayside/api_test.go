//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"quayside/internal/database"
	"quayside/internal/devstack"
	"quayside/internal/dock"
	"quayside/internal/orders"
	"quayside/internal/webhooks"
)

// fingerprint is the content of every table a request could change.
func (w *world) fingerprint() string {
	w.t.Helper()
	var all []string
	for _, table := range []string{"products", "stock_movements", "stock_checkpoints", "orders", "order_items", "timeline", "payments", "inbox", "inbox_open", "replays", "cases", "shipments", "shipment_lines", "shipment_requests", "letters", "refunds", "returns", "return_lines", "api_keys", "idempotency_keys", "checkouts", "inquiries", "imports", "import_batches", "import_errors", "audit_log", "audit_unsealed", "audit_seals"} {
		all = append(all, table+" "+w.text(`SELECT count(*) || ' ' || COALESCE(md5(string_agg(r::text, '|' ORDER BY r::text)), '') FROM `+table+` r`))
	}
	return strings.Join(all, "\n")
}

// stockroom is a world that serves but does not work, with a product, an open
// order and a paid one.
func stockroom(t *testing.T) *world {
	t.Helper()
	w := newWorldAway(t)
	w.serve()
	w.stock("mug", 10)
	w.open("open", "mug")
	return w
}

// Whatever the admin API is asked that it should not be, it refuses with a
// problem and a code, never with a 500, and changes nothing.
func TestAPIBadRequests(t *testing.T) {
	t.Parallel()
	w := stockroom(t)
	good := jsonOf(draft("new", "mug"))
	swap := func(was, is string) string {
		body := strings.Replace(good, was, is, 1)
		if body == good {
			t.Fatalf("no %s in %s", was, good)
		}
		return body
	}
	const orders, products = "/api/v1/orders", "/api/v1/products"
	before := w.fingerprint()
	for _, tc := range []struct {
		name, method, path, body string
		status                   string // those that are right
		headers                  []string
	}{
		// Who asks (ADM 1–20).
		{"no key", "GET", orders, "", "401", []string{"Authorization", ""}},
		{"empty bearer", "GET", orders, "", "401", []string{"Authorization", "Bearer "}},
		{"basic", "GET", orders, "", "401", []string{"Authorization", "Basic cXM6cXM="}},
		{"wrong key", "GET", orders, "", "401", []string{"Authorization", "Bearer qs_not_the_key_of_this_world"}},
		{"key with a blank", "GET", orders, "", "401", []string{"Authorization", "Bearer  " + worldKey}},
		{"key with a tail", "GET", orders, "", "401", []string{"Authorization", "Bearer " + worldKey + " x"}},
		{"prefix of the key", "GET", orders, "", "401", []string{"Authorization", "Bearer " + worldKey[:len(worldKey)-1]}},
		{"long key", "GET", orders, "", "401", []string{"Authorization", "Bearer " + strings.Repeat("k", 10_000)}},
		{"key in the query", "GET", orders + "?api_key=" + worldKey, "", "400", nil},
		{"key in the query too", "GET", orders + "?access_token=x", "", "400", nil},
		// Bodies.
		{"no body", "POST", orders, "", "400 415 422", nil},
		{"not JSON", "POST", orders, "{", "400", nil},
		{"two documents", "POST", orders, good + good, "400", nil},
		{"null", "POST", orders, "null", "400 422", nil},
		{"array", "POST", orders, "[]", "400 422", nil},
		{"a key twice", "POST", orders, swap(`"currency":"XRP"`, `"currency":"XRP","currency":"XRP"`), "400 422", nil},
		{"a key in other case", "POST", orders, swap(`"currency"`, `"Currency"`), "400 422", nil},
		{"bad UTF-8", "POST", orders, swap("Ada", "\xff"), "400", nil},
		{"NUL", "POST", orders, swap("Ada", `A\u0000`), "400 422", nil},
		{"form", "POST", orders, "id=new", "415", []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"too large", "POST", orders, swap("Ada", strings.Repeat("A", 2<<20)), "413", nil},
		{"deep", "POST", orders, swap(`"currency"`, `"metadata":{"a":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`},"currency"`), "400 422", nil},
		// Mass assignment (ADM 26–28).
		{"status", "POST", orders, swap("{", `{"status":"paid",`), "400 422", nil},
		{"paid", "POST", orders, swap("{", `{"amount_paid":"10.00",`), "400 422", nil},
		{"token", "POST", orders, swap("{", `{"status_token":"x",`), "400 422", nil},
		{"customer is null", "POST", orders, `{"currency":"XRP","customer":null,"items":[]}`, "400 422", nil},
		{"customer is missing", "POST", orders, `{"currency":"XRP","items":[{"sku":"mug","quantity":1,"unit_price":"1"}]}`, "400 422", nil},
		{"reserved", "POST", products, `{"sku":"a","name":"a","on_hand":1,"reserved":1}`, "400 422", nil},
		// Orders.
		{"known id", "POST", orders, swap(`"new"`, `"open"`), "409", nil},
		{"id with a slash", "POST", orders, swap(`"new"`, `"a/b"`), "422", nil},
		{"id too long", "POST", orders, swap(`"new"`, `"`+strings.Repeat("a", 65)+`"`), "422", nil},
		{"id with a newline", "POST", orders, swap(`"new"`, `"a\nb"`), "422", nil},
		{"unknown product", "POST", orders, swap(`"mug"`, `"no-such-mug"`), "422", nil},
		{"more than there is", "POST", orders, swap(`"quantity":2`, `"quantity":9`), "409", nil},
		{"quantity 0", "POST", orders, swap(`"quantity":2`, `"quantity":0`), "422", nil},
		{"quantity -1", "POST", orders, swap(`"quantity":2`, `"quantity":-1`), "422", nil},
		{"quantity 1.5", "POST", orders, swap(`"quantity":2`, `"quantity":1.5`), "400 422", nil},
		{"quantity 1e3", "POST", orders, swap(`"quantity":2`, `"quantity":1e3`), "400 422", nil},
		{"quantity as text", "POST", orders, swap(`"quantity":2`, `"quantity":"2"`), "400 422", nil},
		{"quantity of 20 digits", "POST", orders, swap(`"quantity":2`, `"quantity":99999999999999999999`), "400 422", nil},
		{"quantity over a million", "POST", orders, swap(`"quantity":2`, `"quantity":1000001`), "422", nil},
		{"price as a number", "POST", orders, swap(`"unit_price":"5.00"`, `"unit_price":5.00`), "400 422", nil},
		{"price below zero", "POST", orders, swap(`"5.00"`, `"-5.00"`), "400 422", nil},
		{"price of zero", "POST", orders, swap(`"5.00"`, `"0"`), "422", nil},
		{"price NaN", "POST", orders, swap(`"5.00"`, `"NaN"`), "400 422", nil},
		{"price 1e18", "POST", orders, swap(`"5.00"`, `"1e18"`), "400 422", nil},
		{"price 1e1000000000", "POST", orders, swap(`"5.00"`, `"1e1000000000"`), "400 422", nil},
		{"price with 7 decimals", "POST", orders, swap(`"5.00"`, `"0.0000001"`), "422", nil},
		{"price in full width", "POST", orders, swap(`"5.00"`, `"５"`), "400 422", nil},
		{"total beyond the database", "POST", orders, swap(`"5.00"`, `"999999999999999999"`), "422", nil},
		{"currency in small letters", "POST", orders, swap(`"XRP"`, `"xrp"`), "422", nil},
		{"currency with a Cyrillic letter", "POST", orders, swap(`"XRP"`, `"ХRP"`), "422", nil},
		{"no lines", "POST", orders, `{"currency":"XRP","customer":{"email":"a@b.example"},"items":[]}`, "422", nil},
		{"101 lines", "POST", orders, `{"currency":"XRP","customer":{"email":"a@b.example"},"items":[` + strings.TrimSuffix(strings.Repeat(`{"sku":"mug","quantity":1,"unit_price":"1"},`, 101), ",") + `]}`, "422", nil},
		{"address with a second one", "POST", orders, swap(mailbox("new"), `a@b.example,c@d.example`), "422", nil},
		{"address with a header", "POST", orders, swap(mailbox("new"), `a@b.example\r\nBcc: c@d.example`), "422", nil},
		{"address in quotes", "POST", orders, swap(mailbox("new"), `\"a b\"@c.example`), "422", nil},
		{"no address", "POST", orders, swap(mailbox("new"), ``), "422", nil},
		{"expires at once", "POST", orders, swap("{", `{"expires_in":0,`), "422", nil},
		{"expires in a year", "POST", orders, swap("{", `{"expires_in":31536000,`), "422", nil},
		{"expires in text", "POST", orders, swap("{", `{"expires_in":"60",`), "400 422", nil},
		{"metadata is a list", "POST", orders, swap("{", `{"metadata":[],`), "400 422", nil},
		// Products and their stock (ADM 30–38).
		{"known product", "POST", products, `{"sku":"mug","name":"mug","on_hand":1}`, "409", nil},
		{"product without a name", "POST", products, `{"sku":"a","on_hand":1}`, "422", nil},
		{"product with quotes", "POST", products, `{"sku":"a' OR '1'='1","name":"a","on_hand":1}`, "422", nil},
		{"stock below zero", "POST", products, `{"sku":"a","name":"a","on_hand":-1}`, "422", nil},
		{"stock beyond all", "POST", products, `{"sku":"a","name":"a","on_hand":9223372036854775808}`, "400 422", nil},
		{"stock missing", "POST", products, `{"sku":"a","name":"a"}`, "422", nil},
		{"below what is reserved", "POST", products + "/mug/adjustments", `{"delta":-9,"reason":"r"}`, "409", nil},
		{"adjust by nothing", "POST", products + "/mug/adjustments", `{"delta":0,"reason":"r"}`, "422", nil},
		{"adjust without a reason", "POST", products + "/mug/adjustments", `{"delta":1}`, "422", nil},
		{"adjust beyond all", "POST", products + "/mug/adjustments", `{"delta":1000000000000,"reason":"r"}`, "409 422", nil},
		{"adjust by a fraction", "POST", products + "/mug/adjustments", `{"delta":0.5,"reason":"r"}`, "400 422", nil},
		{"adjust with NUL", "POST", products + "/mug/adjustments", `{"delta":1,"reason":"a\u0000"}`, "400 422", nil},
		{"edit to no name", "PATCH", products + "/mug", `{"name":""}`, "422", nil},
		{"edit to a name with NUL", "PATCH", products + "/mug", `{"name":"a\u0000"}`, "400 422", nil},
		{"edit stock", "PATCH", products + "/mug", `{"on_hand":7}`, "400 422", nil},
		{"edit to a negative threshold", "PATCH", products + "/mug", `{"low_stock_threshold":-1}`, "422", nil},
		{"edit what is not", "PATCH", products + "/no-such-mug", `{"name":"x"}`, "404", nil},
		{"adjust what is not", "POST", products + "/no-such-mug/adjustments", `{"delta":1,"reason":"r"}`, "404", nil},
		// What is done to orders.
		{"ship what is unpaid", "POST", orders + "/open/shipments", `{}`, "409", nil},
		{"ship what is not", "POST", orders + "/none/shipments", `{}`, "404", nil},
		{"ship line 0", "POST", orders + "/open/shipments", `{"items":[0]}`, "409 422", nil},
		{"ship with a line break", "POST", orders + "/open/shipments", `{"tracking_number":"a\nb"}`, "422", nil},
		{"label a parcel that is not", "PATCH", orders + "/open/shipments/x", `{}`, "404", nil},
		{"label with a line break", "PATCH", orders + "/open/shipments/00000000-0000-0000-0000-000000000000", `{"carrier":"a\nb"}`, "422", nil},
		{"deliver a parcel that is not", "POST", orders + "/open/shipments/00000000-0000-0000-0000-000000000000/delivery", `{}`, "404", nil},
		{"deliver at no time", "POST", orders + "/open/shipments/x/delivery", `{"delivered_at":"yesterday"}`, "400 422", nil},
		{"return what did not ship", "POST", orders + "/open/returns", `{"items":[1],"restock":true,"reason":"r"}`, "409", nil},
		{"return nothing", "POST", orders + "/open/returns", `{"items":[],"restock":true,"reason":"r"}`, "422", nil},
		{"return without saying where to", "POST", orders + "/open/returns", `{"items":[1],"reason":"r"}`, "422", nil},
		{"return line 0", "POST", orders + "/open/returns", `{"items":[0],"restock":true,"reason":"r"}`, "422", nil},
		{"return for less than nothing", "POST", orders + "/open/returns", `{"items":[1],"restock":true,"refund":"-1","reason":"r"}`, "409 422", nil},
		{"cancel without a reason", "POST", orders + "/open/cancellation", `{}`, "422", nil},
		{"cancel with a control character", "POST", orders + "/open/cancellation", `{"reason":"a\u0007"}`, "422", nil},
		{"cancel what is not", "POST", orders + "/none/cancellation", `{"reason":"r"}`, "404", nil},
		{"id in the body", "POST", orders + "/open/cancellation", `{"reason":"r","id":"other"}`, "400 422", nil},
		// Payments.
		{"create a payment without a key of PayQI", "POST", orders + "/open/payments", "", "501", nil},
		{"create a payment of an amount", "POST", orders + "/open/payments", `{"amount":"1"}`, "400 501", nil},
		{"link to what is not", "PUT", orders + "/none/payments/pay_1", `{}`, "404", nil},
		{"link a test payment", "PUT", orders + "/open/payments/pay_test_1", `{}`, "422", nil},
		{"link no id", "PUT", orders + "/open/payments/a%20b", `{}`, "422", nil},
		{"link an address with a line break", "PUT", orders + "/open/payments/pay_1", `{"pay_address":"r\nA"}`, "422", nil},
		{"link a tag below zero", "PUT", orders + "/open/payments/pay_1", `{"destination_tag":-1}`, "422", nil},
		{"link as completed", "PUT", orders + "/open/payments/pay_1", `{"amount":"10"}`, "400 422", nil},
		// Replays (ADM 66, 67).
		{"replay what is not", "POST", "/api/v1/events/none/replays", `{}`, "404", nil},
		{"replay what is not, by our id", "POST", "/api/v1/events/0197c3a0-5b1e-7c39-9d1f-2f6d6c1f5a10/replays", "", "404", nil},
		{"replay without a key", "POST", "/api/v1/events/none/replays", "", "401", []string{"Authorization", ""}},
		{"replay with a line break", "POST", "/api/v1/events/none/replays", `{"note":"a\nb"}`, "422", nil},
		{"replay with a long note", "POST", "/api/v1/events/none/replays", `{"note":"` + strings.Repeat("a", 501) + `"}`, "422", nil},
		{"replay with a note that is none", "POST", "/api/v1/events/none/replays", `{"note":1}`, "400 422", nil},
		{"replay with a state", "POST", "/api/v1/events/none/replays", `{"state":"applied"}`, "400 422", nil},
		{"replay with NUL", "POST", "/api/v1/events/none/replays", `{"note":"a\u0000"}`, "400 422", nil},
		{"replay a list", "POST", "/api/v1/events/none/replays", `[]`, "400 422", nil},
		// Statistics (ADM 55).
		{"a period that ends before it begins", "GET", "/api/v1/stats?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "", "422", nil},
		{"a period of nothing", "GET", "/api/v1/stats?from=2026-02-01T00:00:00Z&to=2026-02-01T00:00:00Z", "", "422", nil},
		{"1000 years", "GET", "/api/v1/stats?from=1026-02-01T00:00:00Z&to=2026-02-01T00:00:00Z", "", "422", nil},
		{"a year by the hour", "GET", "/api/v1/stats?from=2025-02-01T00:00:00Z&to=2026-02-01T00:00:00Z&interval=hour", "", "422", nil},
		{"an interval that is none", "GET", "/api/v1/stats?interval=day'--", "", "422", nil},
		{"a time that is none", "GET", "/api/v1/stats?from=yesterday", "", "400 422", nil},
		{"a date without a time", "GET", "/api/v1/stats?from=2026-02-01", "", "400 422", nil},
		{"an unknown figure", "GET", "/api/v1/stats?currency=XRP", "", "400", nil},
		// Search (ADM 50–53).
		{"search for nothing", "GET", orders + "?q=", "", "400", nil},
		{"search for two letters", "GET", orders + "?q=ab", "", "422", nil},
		{"search for blanks", "GET", orders + "?q=%20%20%20%20", "", "422", nil},
		{"search for 10 KB", "GET", orders + "?q=" + strings.Repeat("a", 10_000), "", "422", nil},
		{"search twice", "GET", orders + "?q=abc&q=def", "", "400 422", nil},
		{"search behind a bad cursor", "GET", orders + "?q=abc&after=WyJhIiwiYiJd", "", "400", nil},
		{"search for bad bytes", "GET", orders + "?q=%ff%ff%ff", "", "400", nil},
		// Lists (ADM 39–57).
		{"limit -1", "GET", orders + "?limit=-1", "", "422", nil},
		{"limit 0", "GET", orders + "?limit=0", "", "422", nil},
		{"limit 201", "GET", orders + "?limit=201", "", "422", nil},
		{"limit abc", "GET", orders + "?limit=abc", "", "400 422", nil},
		{"limit twice", "GET", orders + "?limit=1&limit=2", "", "400 422", nil},
		{"offset", "GET", orders + "?offset=1", "", "400 422", nil},
		{"sort", "GET", orders + "?sort=(select+1)", "", "400 422", nil},
		{"fields", "GET", orders + "?fields=status_token", "", "400 422", nil},
		{"array", "GET", orders + "?status[]=paid", "", "400 422", nil},
		{"operator", "GET", orders + "?filter[id][$ne]=", "", "400 422", nil},
		{"unknown status", "GET", orders + "?status=paid'--", "", "422", nil},
		{"bad time", "GET", orders + "?created_from=yesterday", "", "400 422", nil},
		{"bad cursor", "GET", orders + "?after=x", "", "400", nil},
		{"cursor of another list", "GET", orders + "?after=WyJhIl0", "", "400", nil},
		{"cursor with a time that is none", "GET", orders + "?after=WyJhIiwiYiJd", "", "400", nil},
		{"bad cursor of products", "GET", products + "?after=%00", "", "400 422", nil},
		{"bad cursor of events", "GET", "/api/v1/events?after=WyJhIl0", "", "400", nil},
		{"bad cursor of cases", "GET", "/api/v1/cases?after=WyJhIl0", "", "400", nil},
		{"bad cursor of a ledger", "GET", products + "/mug/movements?after=WyJhIl0", "", "400", nil},
		{"bad cursor of a timeline", "GET", orders + "/open/timeline?after=WyJhIl0", "", "400", nil},
		{"bad bytes in the query", "GET", orders + "?email=%ff", "", "400", nil},
		{"NUL in the query", "GET", orders + "?email=%00", "", "400", nil},
		// Paths (ADM 68–70).
		{"no such audit entry", "GET", "/api/v1/audit/0", "", "404", nil},
		{"an audit entry that is no number", "GET", "/api/v1/audit/one", "", "404", nil},
		{"change an audit entry", "PATCH", "/api/v1/audit/1", `{}`, "405", nil},
		{"bad cursor of the audit log", "GET", "/api/v1/audit?after=WyJhIl0", "", "400", nil},
		{"audit from no time", "GET", "/api/v1/audit?from=yesterday", "", "400 422", nil},
		{"no such order", "GET", orders + "/none", "", "404", nil},
		{"no such event", "GET", "/api/v1/events/none", "", "404", nil},
		{"no such product", "GET", products + "/none", "", "404", nil},
		{"NUL in the path", "GET", orders + "/%00", "", "400 404", nil},
		{"bad bytes in the path", "GET", orders + "/%ff", "", "400 404", nil},
		{"dots", "GET", orders + "/..%2f..%2fetc%2fpasswd", "", "400 404", nil},
		{"long id", "GET", orders + "/" + strings.Repeat("a", 5000), "", "404 422", nil},
		{"SQL in the path", "GET", orders + "/" + url.PathEscape("' OR pg_sleep(9)--"), "", "404 422", nil},
		{"no such route", "GET", "/api/v1/secrets", "", "404", nil},
		{"other method", "DELETE", orders + "/open", "", "405", nil},
		{"overridden method", "POST", orders + "/open", `{}`, "405", []string{"X-HTTP-Method-Override", "GET"}},
	} {
		r := w.ask(tc.method, tc.path, tc.body, tc.headers...)
		if !slices.Contains(strings.Fields(tc.status), fmt.Sprint(r.status)) {
			t.Errorf("%s: %d, want %s: %.300s", tc.name, r.status, tc.status, r.body)
		}
		if r.code() == "" || r.header.Get("Content-Type") != "application/problem+json" || r.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d is no problem: %.300s", tc.name, r.status, r.body)
		}
		if strings.Contains(r.body, "SQLSTATE") || strings.Contains(r.body, worldKey) {
			t.Errorf("%s: says too much: %s", tc.name, r.body)
		}
	}
	if after := w.fingerprint(); after != before {
		t.Errorf("the database changed:\n%s\n\n%s", before, after)
	}
}

// openAPI is as much of the document as the tests look at.
type openAPI struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name   string
			Schema schema
		}
		Responses map[string]struct {
			Content map[string]struct{ Schema schema }
		}
	}
	Components struct{ Schemas map[string]schema }
}

type schema struct {
	Ref        string `json:"$ref"`
	Properties map[string]schema
	Required   []string
	Enum       []string
	Items      *schema
}

func (w *world) openAPI() (doc openAPI) {
	w.t.Helper()
	r := w.ask(http.MethodGet, "/openapi.json", "", "Authorization", "")
	if r.status != 200 {
		w.t.Fatalf("openapi.json: %d", r.status)
	}
	w.must(json.Unmarshal([]byte(r.body), &doc))
	return doc
}

// No operation that is documented answers without a key, and each says so in
// the same way.
func TestAPINeedsAKey(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.cfg.TrustedProxies = []string{"127.0.0.1", "::1"} // each request is from elsewhere: an address has thirty failures
	w.serve()
	n := 0
	for path, operations := range w.openAPI().Paths {
		for method := range operations {
			n++
			path = strings.NewReplacer("{id}", "x", "{sku}", "x", "{payment_id}", "x").Replace(path)
			r := w.ask(strings.ToUpper(method), path, "", "Authorization", "", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", n))
			if r.status != 401 || r.code() != "unauthorized" || r.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s: %d %s", method, path, r.status, r.body)
			}
		}
	}
	if n < 14 {
		t.Errorf("only %d operations are documented", n)
	}
}

// fits compares an answer with its schema: every key is documented, and every
// required one is there.
func (doc openAPI) fits(s schema, v any, at string) (wrong []string) {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = doc.Components.Schemas[name]
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Properties == nil {
			return nil // free, as metadata is
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			property, known := s.Properties[key]
			if !known {
				wrong = append(wrong, at+"."+key+" is not documented")
			}
			wrong = append(wrong, doc.fits(property, v[key], at+"."+key)...)
		}
		for _, key := range s.Required {
			if _, there := v[key]; !there {
				wrong = append(wrong, at+"."+key+" is required and missing")
			}
		}
	case []any:
		for i, item := range v {
			if s.Items != nil {
				wrong = append(wrong, doc.fits(*s.Items, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	}
	return wrong
}

// What the main operations answer is what the OpenAPI document says.
func TestAPIAnswersAsDocumented(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withPayQI()
	w.serve()
	w.work()
	doc := w.openAPI()
	played := map[string]bool{}
	w.playAPI(func(operation string, want int, method, path, body string, headers ...string) reply {
		t.Helper()
		played[operation] = true
		r := w.ask(method, path, body, headers...)
		if r.status != want {
			t.Fatalf("%s: %d %s", operation, r.status, r.body)
		}
		if strings.HasPrefix(operation, "export-") { // files, not JSON: TestExportOverHTTP
			return r
		}
		var v any
		w.must(json.Unmarshal([]byte(r.body), &v))
		for _, operations := range doc.Paths {
			for _, o := range operations {
				if o.OperationID == operation {
					content, documented := o.Responses[fmt.Sprint(want)]
					if !documented || content.Content["application/json"].Schema.Ref == "" {
						t.Errorf("%s: its %d is not documented", operation, want)
					}
					for _, complaint := range doc.fits(content.Content["application/json"].Schema, v, operation) {
						t.Error(complaint)
					}
				}
			}
		}
		return r
	})
	for _, operations := range doc.Paths {
		for _, o := range operations {
			if !played[o.OperationID] {
				t.Errorf("not played: %s", o.OperationID)
			}
		}
	}
}

// playAPI has every operation of the API succeed once at least; check asks for it.
func (w *world) playAPI(check func(operation string, want int, method, path, body string, headers ...string) reply) {
	w.t.Helper()
	check("create-product", 201, "POST", "/api/v1/products", `{"sku":"mug","name":"Mug","on_hand":50}`)
	check("adjust-stock", 201, "POST", "/api/v1/products/mug/adjustments", `{"delta":1,"reason":"found one"}`)
	check("create-order", 201, "POST", "/api/v1/orders", jsonOf(draft("one", "mug")))
	w.tell("payment.completed", w.order("one"))
	w.tell("payment.expired", w.open("two", "mug"))
	w.stands("one", "paid/paid/queued")
	w.stands("two", "expired/unpaid/none")
	e := newEvent("payment.completed", w.order("two"), "pay_other")
	e.Data.Currency = "RLUSD" // a case
	w.answered("200 OK", e)
	w.await("the case", func() bool { return w.count(`SELECT count(*) FROM cases`) == 1 })
	stale := newEvent("payment.pending", w.open("three", "mug"), "pay_three")
	_, err := w.payqi.send(w.t.Context(), []byte(jsonOf(stale)), signGood, "1")
	w.must(err)
	check("ship-order", 201, "POST", "/api/v1/orders/one/shipments", `{"carrier":"DHL"}`)
	parcel := "/api/v1/orders/one/shipments/" + w.order("one").Shipments[0].ID
	check("edit-shipment", 200, "PATCH", parcel, `{"tracking_number":"JD1"}`)
	check("deliver-shipment", 200, "POST", parcel+"/delivery", `{}`)
	check("return-goods", 201, "POST", "/api/v1/orders/one/returns", `{"items":[1],"restock":true,"reason":"wrong colour"}`)
	check("create-key", 201, "POST", "/api/v1/keys", `{"name":"clerk","scopes":["viewer"]}`)
	check("list-keys", 200, "GET", "/api/v1/keys", "")
	check("revoke-key", 200, "DELETE", "/api/v1/keys/clerk", "")
	check("cancel-order", 200, "POST", "/api/v1/orders/two/cancellation", `{"reason":"no"}`)
	check("show-order", 200, "GET", "/api/v1/orders/one", "")
	check("list-orders", 200, "GET", "/api/v1/orders", "")
	check("show-timeline", 200, "GET", "/api/v1/orders/one/timeline", "")
	check("show-product", 200, "GET", "/api/v1/products/mug", "")
	check("edit-product", 200, "PATCH", "/api/v1/products/mug", `{"low_stock_threshold":3}`)
	check("list-products", 200, "GET", "/api/v1/products", "")
	check("list-movements", 200, "GET", "/api/v1/products/mug/movements", "")
	check("list-events", 200, "GET", "/api/v1/events", "")
	check("show-event", 200, "GET", "/api/v1/events/"+e.ID, "")
	check("list-cases", 200, "GET", "/api/v1/cases", "")
	check("replay-event", 200, "POST", "/api/v1/events/"+w.text(`SELECT id FROM events WHERE state = 'refused'`)+"/replays", `{"note":"believed","dry_run":true}`)
	check("replay-event", 202, "POST", "/api/v1/events/"+w.text(`SELECT id FROM events WHERE state = 'refused'`)+"/replays", `{"note":"believed"}`)
	check("replay-event", 200, "POST", "/api/v1/events/"+e.ID+"/replays", "")
	check("show-event", 200, "GET", "/api/v1/events/"+w.text(`SELECT inbox_id FROM replays`), "")
	check("show-stats", 200, "GET", "/api/v1/stats", "")
	check("show-stats", 200, "GET", "/api/v1/stats?interval=week", "")
	check("list-orders", 200, "GET", "/api/v1/orders?q=customers.example", "")
	check("list-emails", 200, "GET", "/api/v1/emails?order_id=one", "")
	w.letter("one", "payment received")
	w.await("the letter to be noted as sent", func() bool {
		return w.count(`SELECT count(*) FROM letters WHERE order_id = 'one' AND kind = 'order_shipped' AND state = 'sent'`) == 1
	})
	email := w.text(`SELECT id FROM letters WHERE order_id = 'one' AND kind = 'order_shipped'`)
	check("show-email", 200, "GET", "/api/v1/emails/"+email, "")
	check("resend-email", 201, "POST", "/api/v1/emails/"+email+"/resends", `{"note":"it was lost"}`)
	check("explain-order", 200, "GET", "/api/v1/orders/two/explanation", "")
	check("show-case", 200, "GET", "/api/v1/cases/"+w.text(`SELECT id FROM cases WHERE code = 'WRONG_CURRENCY'`), "")
	check("resolve-case", 201, "POST", "/api/v1/cases/"+w.text(`SELECT id FROM cases WHERE code = 'WRONG_CURRENCY'`)+"/resolutions", `{"action":"refund"}`)
	check("reopen-order", 200, "POST", "/api/v1/orders/two/reopening", `{"reason":"it is wanted"}`)
	w.tell("payment.completed", w.open("four", "mug"))
	w.stands("four", "paid/paid/queued")
	check("cancel-order", 200, "POST", "/api/v1/orders/four/cancellation", `{"reason":"no"}`)
	check("waive-refund", 201, "POST", "/api/v1/orders/four/waivers", `{"amount":"1","note":"handling"}`)
	check("approve-refund", 201, "POST", "/api/v1/orders/four/refunds", `{"amount":"4"}`)
	refund := "/api/v1/refunds/" + w.text(`SELECT id FROM refunds WHERE order_id = 'four' AND state = 'approved'`)
	check("withdraw-refund", 200, "POST", refund+"/withdrawal", `{}`)
	check("approve-refund", 201, "POST", "/api/v1/orders/four/refunds", `{}`)
	refund = "/api/v1/refunds/" + w.text(`SELECT id FROM refunds WHERE order_id = 'four' AND state = 'approved'`)
	check("address-refund", 200, "PUT", refund+"/destination", `{"address":"rTheCustomersOwnAccount"}`)
	check("dispatch-refund", 200, "POST", refund+"/dispatch", `{"tx_hash":"ABABABAB"}`)
	check("confirm-refund", 200, "POST", refund+"/confirmation", "")
	check("show-refund", 200, "GET", refund, "")
	check("list-refunds", 200, "GET", "/api/v1/refunds?state=confirmed", "")
	check("link-payment", 200, "PUT", "/api/v1/orders/three/payments/pay_of_three", `{"pay_address":"rShop","destination_tag":7}`)
	w.open("five", "mug")
	check("create-payment", 201, "POST", "/api/v1/orders/five/payments", "")
	check("create-payment", 200, "POST", "/api/v1/orders/five/payments", "")
	check("report-money", 200, "GET", "/api/v1/reports/money", "")
	dry := check("create-import", 202, "POST", "/api/v1/imports?kind=stock&dry_run=true", "sku,delta,reason\nmug,1,found\nnone,1,found\n", "Content-Type", "text/csv")
	bulk := w.fieldOf(dry, "id")
	w.await("the dry run", func() bool { return w.count(`SELECT count(*) FROM imports WHERE state = 'done'`) == 1 })
	check("show-import", 200, "GET", "/api/v1/imports/"+bulk, "")
	check("list-imports", 200, "GET", "/api/v1/imports?kind=stock&state=done", "")
	check("list-import-errors", 200, "GET", "/api/v1/imports/"+bulk+"/errors", "")
	w.must(w.db.InTx(w.t.Context(), func(tx database.Tx) error { return tx.Exec(`UPDATE imports SET state = 'stopped'`).Error }))
	check("cancel-import", 200, "DELETE", "/api/v1/imports/"+bulk, "")
	check("list-audit", 200, "GET", "/api/v1/audit?actor=admin:bootstrap&subject=order/one&from=2026-01-01T00:00:00Z", "")
	check("show-audit", 200, "GET", "/api/v1/audit/"+w.text(`SELECT id FROM audit_log WHERE operation = 'edit-shipment'`), "")
	for _, table := range dock.Tables {
		check("export-"+table.Name, 200, "GET", "/api/v1/exports/"+table.Name, "")
	}
}

// A list is read to its end page by page, each row that was there at the start
// once, however many come while it is read.
func TestAPIPagesWhileRowsCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 1000)
	for i := range 23 {
		o := w.open(fmt.Sprintf("first-%d", i), "mug")
		w.tell("payment.created", o)
		e := newEvent("payment.completed", o, "pay_"+o.ID)
		e.Data.Currency = "RLUSD"
		w.answered("200 OK", e)
	}
	w.quiet()
	for i := range 21 {
		w.stock(fmt.Sprintf("sku-%02d", 2*i), 1)
	}
	n := 0
	more := func() { // between two pages
		n++
		o := w.open(fmt.Sprintf("later-%d", n), "mug")
		w.tell("payment.created", o)
		w.stock(fmt.Sprintf("sku-%02d-later", n), 1)
	}
	for _, list := range []struct{ path, key string }{
		{"/api/v1/orders", "id"},
		{"/api/v1/orders?status=pending", "id"},
		{"/api/v1/orders?q=ada", "id"},
		{"/api/v1/products", "sku"},
		{"/api/v1/products/mug/movements", "id"},
		{"/api/v1/events", "id"},
		{"/api/v1/events?type=payment.completed", "id"},
		{"/api/v1/cases", "id"},
		{"/api/v1/orders/first-0/timeline", "seq"},
		{"/api/v1/audit", "id"},
		{"/api/v1/audit?operation=create-order", "id"},
	} {
		start := w.page(list.path, 200, "").keys(list.key)
		seen := map[string]int{}
		limit, pages := max(2, len(start)/4), 0
		for cursor := ""; ; more() {
			p := w.page(list.path, limit, cursor)
			pages++
			if len(p.Data) > limit {
				t.Errorf("%s: %d rows on a page of %d", list.path, len(p.Data), limit)
			}
			for _, k := range p.keys(list.key) {
				seen[k]++
			}
			if p.NextCursor == nil {
				break
			}
			cursor = *p.NextCursor
		}
		for _, k := range start {
			if seen[k] != 1 {
				t.Errorf("%s: %s was seen %d times", list.path, k, seen[k])
			}
		}
		for k, times := range seen {
			if times != 1 {
				t.Errorf("%s: %s was seen %d times", list.path, k, times)
			}
		}
		if len(start) < 3 || pages < 2 {
			t.Errorf("%s: %d rows on %d pages prove nothing", list.path, len(start), pages)
		}
	}
}

type page struct {
	Data       []map[string]any
	NextCursor *string `json:"next_cursor"`
}

func (w *world) page(path string, limit int, cursor string) (p page) {
	w.t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	path += fmt.Sprintf("%slimit=%d", sep, limit)
	if cursor != "" {
		path += "&after=" + url.QueryEscape(cursor)
	}
	w.must(w.shop.call(w.t.Context(), http.MethodGet, path, nil, &p))
	return p
}

func (p page) keys(key string) (keys []string) {
	for _, row := range p.Data {
		keys = append(keys, fmt.Sprint(row[key]))
	}
	return keys
}

// What stands beside the API answers too, without a key.
func TestAPISurroundings(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	for path, words := range map[string]string{
		"/docs": "<html", "/openapi.json": `"openapi":"3.1.0"`, "/healthz": "alive", "/readyz": `"database":"ok"`, "/metrics": "quayside_http_request_seconds",
	} {
		if r := w.ask(http.MethodGet, path, "", "Authorization", ""); r.status != 200 || !strings.Contains(r.body, words) {
			t.Errorf("%s: %d %.200s", path, r.status, r.body)
		}
	}
	if r := w.ask(http.MethodGet, "/readyz", ""); !strings.Contains(r.body, "events are stored and applied by the sweep") {
		t.Errorf("readyz hides that Redis is away: %s", r.body)
	}

	body := jsonOf(newEvent("payment.created", orders.View{ID: "x", Currency: "XRP"}, "pay_test_1"))
	for i, want := range []string{"OK", "Already processed"} {
		path := []string{"/webhooks/payqi/", "/webhooks/payqi"}[i]
		if r := w.ask(http.MethodPost, path, body, "X-PayQI-Signature", signed(body)); r.status != 200 || r.body != want {
			t.Errorf("POST %s: %d %q", path, r.status, r.body)
		}
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		r := w.ask(method, "/webhooks/payqi", "")
		if r.status != 405 || r.header.Get("Allow") != "POST" || !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d, Allow %q, %q", method, r.status, r.header.Get("Allow"), r.header.Get("Content-Type"))
		}
	}
}

// Nothing in the log tells who a customer is, what opens a page or the API, or
// what was signed, whatever goes right or wrong.
func TestLogsTellNoSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.env()
	env["LOG_LEVEL"] = "debug"
	p := process(t, env, "serve", "--with-worker")
	w.speakTo("http://" + p.said("serving")["addr"].(string))
	w.stock("mug", 100)
	canary := map[string]any{"email": "canary-mail@customers.example", "name": "CanaryName"}
	o := w.open("story", "mug", "customer", canary, "metadata", map[string]any{"note": "canary-metadata"})
	token := strings.TrimPrefix(o.StatusURL, w.cfg.PublicURL+"/o/")
	var signatures []string
	send := func(e eventOf, signature, timestamp string) {
		body := jsonOf(e)
		signatures = append(signatures, signed(body), webhooks.Sign("not the secret of this shop", []byte(body))) // player.go's bad one
		_, err := w.payqi.send(t.Context(), []byte(body), signature, timestamp)
		w.must(err)
	}
	e := newEvent("payment.created", o, "pay_story")
	e.Data.PayAddress, e.Data.Metadata["canary"] = "rCanaryAddress", "canary-in-the-body"
	send(e, signGood, now())
	send(e, signBad, now())
	send(e, signNone, now())
	e = newEvent("payment.completed", o, "pay_story")
	e.Data.PayAddress, e.Data.Metadata["canary"] = "rCanaryAddress", "canary-in-the-body"
	send(e, signGood, "1")
	send(e, signGood, now())
	e.Data.Amount = "11"
	send(e, signGood, now()) // contradicts
	for _, body := range []string{`{"canary-in-the-body"`, `{"id":"evt_c","type":"payment.completed","data":{"id":"canary-in-the-body\u0000"}}`} {
		signatures = append(signatures, signed(body))
		_, err := w.payqi.send(t.Context(), []byte(body), signGood, "")
		w.must(err)
	}
	w.letterTo("canary-mail@customers.example", "payment received")
	w.ask(http.MethodGet, "/o/"+token, "", "Authorization", "")
	w.ask(http.MethodHead, "/o/"+token, "", "Authorization", "")
	w.ask(http.MethodGet, "/o/"+token+"/status", "", "Authorization", "")
	w.openStream("/o/" + token + "/events").leave()
	w.ask(http.MethodGet, "/o/"+token+"x", "", "Authorization", "")
	w.ask(http.MethodGet, "/o/"+token+"x/events", "", "Authorization", "")
	w.ask(http.MethodGet, "/o/"+token+"/nothing", "", "Authorization", "")
	w.ask(http.MethodGet, "/api/v1/orders?email=canary-mail@customers.example", "")
	w.ask(http.MethodGet, "/api/v1/orders?q=canary-mail", "")
	w.ask(http.MethodGet, "/api/v1/orders?q=canary-mail&limit=0", "")
	w.ask(http.MethodGet, "/api/v1/orders?q=canary-mail&after=x", "")
	w.ask(http.MethodGet, "/api/v1/orders?canary-mail=1", "")
	w.ask(http.MethodGet, "/api/v1/orders/canary-mail@customers.example", "")
	w.ask(http.MethodDelete, "/api/v1/orders/canary-mail@customers.example", "")
	w.ask(http.MethodPost, "/api/v1/events/canary-mail@customers.example/replays", `{"note":"canary-metadata"}`)
	w.ask(http.MethodGet, "/api/v1/stats?from=canary-mail", "")
	w.ask(http.MethodGet, "/api/v1/orders?api_key="+worldKey, "")
	w.ask(http.MethodGet, "/api/v1/orders", "", "Authorization", "Bearer qs_canary_wrong_key")
	w.ask(http.MethodPost, "/api/v1/orders", `{"customer":{"email":"canary-mail@customers.example"`)
	w.ask(http.MethodPost, "/api/v1/orders", `{"customer":{"email":"canary-mail@@customers.example"},"currency":"XRP","items":[]}`)
	w.must(w.mail.SetFault(devstack.Reject)) // the server's answer names the mailbox
	w.tell("payment.expired", w.open("refused", "mug", "customer", canary))
	w.await("a letter to be refused", func() bool { return w.count(`SELECT count(*) FROM letters WHERE state = 'failed'`) == 1 })
	w.quiet()
	log := p.stderr.String() + p.stdout.String()
	if lines := strings.Count(log, "\n"); lines < 20 {
		t.Fatalf("only %d lines were logged", lines)
	}
	contains(t, "the log", log, `"route":"/o/:token"`, `"route":"/o/:token/status"`, `"route":"/o/:token/events"`)
	for _, secret := range append(signatures, "canary-mail", "CanaryName", "canary-metadata", "canary-in-the-body", "rCanaryAddress", token,
		worldSecret, worldKey, "qs_canary_wrong_key", "customers.example", w.cfg.DatabaseURL.reveal()) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, secret) {
				t.Errorf("the log tells %q: %s", secret, line)
				break
			}
		}
	}
}
