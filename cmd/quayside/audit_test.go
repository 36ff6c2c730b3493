//go:build unix

package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// audited says what an operation must enter into the audit log: its subject, and
// a field that it changes or, for what was not there before, sets.
type audited struct {
	subject, changes string
	creates          bool
}

// auditedWrites is every operation that writes.
var auditedWrites = map[string]audited{
	"create-product":   {subject: `product/mug`, changes: "name", creates: true},
	"edit-product":     {subject: `product/mug`, changes: "low_stock_threshold"},
	"adjust-stock":     {subject: `product/mug`, changes: "on_hand"},
	"create-order":     {subject: `order/one`, changes: "total", creates: true},
	"cancel-order":     {subject: `order/(two|four)`, changes: "status"},
	"reopen-order":     {subject: `order/two`, changes: "status"},
	"ship-order":       {subject: `order/one`, changes: "shipments"},
	"edit-shipment":    {subject: `order/one`, changes: "shipments"},
	"deliver-shipment": {subject: `order/one`, changes: "fulfillment_status"},
	"return-goods":     {subject: `order/one`, changes: "returns"},
	"approve-refund":   {subject: `order/four`, changes: "refunds"},
	"waive-refund":     {subject: `order/four`, changes: "refunds"},
	"address-refund":   {subject: `refund/UUID`, changes: "address"},
	"dispatch-refund":  {subject: `refund/UUID`, changes: "tx_hash"},
	"confirm-refund":   {subject: `refund/UUID`, changes: "state"},
	"withdraw-refund":  {subject: `refund/UUID`, changes: "state"},
	"link-payment":     {subject: `order/three`, changes: "payments"},
	"create-payment":   {subject: `payment/pay_\w+`, changes: "order_id", creates: true},
	"resolve-case":     {subject: `case/UUID`, changes: "state"},
	"replay-event":     {subject: `event/UUID`, changes: "state"},
	"resend-email":     {subject: `email/UUID`, changes: "kind", creates: true},
	"create-key":       {subject: `key/UUID`, changes: "scopes", creates: true},
	"revoke-key":       {subject: `key/UUID`, changes: "state"},
	"create-import":    {subject: `import/UUID`, changes: "lines", creates: true},
	"cancel-import":    {subject: `import/UUID`, changes: "state"},
}

// Every operation that writes enters into the audit log, in its own
// transaction, who did what to what, and how that was before and is now. An
// answer that says that nothing was done enters nothing.
func TestAuditOfEveryWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withPayQI()
	w.serve()
	w.work()
	seen := map[string]bool{}
	var secrets []string
	w.playAPI(func(operation string, want int, method, path, body string, headers ...string) reply {
		t.Helper()
		before := w.count(`SELECT count(*) FROM audit_log`)
		r := w.ask(method, path, body, headers...)
		if r.status != want {
			t.Fatalf("%s: %d %s", operation, r.status, r.body)
		}
		entries := w.count(`SELECT count(*) FROM audit_log`) - before
		does, writes := auditedWrites[operation]
		idle := operation == "create-payment" && want == 200 || operation == "replay-event" && want == 200 // it is there already; a dry run, or nothing to do
		if method == http.MethodGet || idle {
			if entries != 0 || method == http.MethodGet && writes {
				t.Errorf("%s only reads, and enters %d", operation, entries)
			}
			return r
		}
		if !writes {
			t.Errorf("%s is not among auditedWrites", operation)
			return r
		}
		seen[operation] = true
		if entries != 1 {
			t.Errorf("%s enters %d", operation, entries)
			return r
		}
		w.checkEntry(operation, method, path, r.header.Get("X-Request-Id"), does)
		if operation == "create-key" {
			secrets = append(secrets, w.fieldOf(r, "key"))
		}
		return r
	})
	operations(w.document(), func(method, path string, op map[string]any) {
		if id := op["operationId"].(string); method != http.MethodGet && !seen[id] {
			t.Errorf("%s %s: nothing shows that %s is entered into the audit log", method, path, id)
		}
	})
	secrets = append(secrets, w.text(`SELECT status_token FROM orders WHERE id = 'one'`), worldKey)
	for _, secret := range secrets {
		if n := w.count(`SELECT count(*) FROM audit_log a WHERE strpos(a::text, '` + secret + `') > 0`); n != 0 || len(secret) < 8 {
			t.Errorf("%d entries hold the secret %q", n, secret)
		}
	}
}

// checkEntry looks at the newest entry of the audit log.
func (w *world) checkEntry(operation, method, path, request string, does audited) {
	w.t.Helper()
	path, _, _ = strings.Cut(path, "?")
	said := w.text(`SELECT concat_ws(' ', actor, key_id, operation, method, path, request_id) FROM audit_log ORDER BY id DESC LIMIT 1`)
	if want := strings.Join([]string{"admin:bootstrap bootstrap", operation, method, path, request}, " "); said != want {
		w.t.Errorf("entered %q, want %q", said, want)
	}
	subject := w.text(`SELECT subject FROM audit_log ORDER BY id DESC LIMIT 1`)
	if !regexp.MustCompile(`^` + strings.ReplaceAll(does.subject, "UUID", `[0-9a-f-]{36}`) + `$`).MatchString(subject) {
		w.t.Errorf("%s: the subject is %s", operation, subject)
	}
	changed := w.text(`SELECT CASE WHEN before IS NULL THEN 'created' WHEN before->'` + does.changes + `' IS DISTINCT FROM after->'` + does.changes + `' THEN 'changed' ELSE 'the same' END
		|| CASE WHEN after->'` + does.changes + `' IS NULL THEN ', missing' ELSE '' END FROM audit_log ORDER BY id DESC LIMIT 1`)
	if want := map[bool]string{true: "created", false: "changed"}[does.creates]; changed != want {
		w.t.Errorf("%s: its %s is %s, want %s: %s", operation, does.changes, changed, want, w.text(`SELECT concat_ws(' -> ', before, after) FROM audit_log ORDER BY id DESC LIMIT 1`))
	}
}

// A request that is repeated with its Idempotency-Key is entered once, and what
// the shell does as what its user does.
func TestAuditOnceAndFromTheShell(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	for range 2 {
		if r := w.ask("POST", "/api/v1/products", `{"sku":"mug","name":"Mug","on_hand":5}`, "Idempotency-Key", "k-1"); r.status != 201 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	env := map[string]string{"DATABASE_URL": w.cfg.DatabaseURL.reveal()}
	for _, args := range [][]string{{"keys", "create", "clerk"}, {"keys", "revoke", "clerk"}} {
		if code, _, stderr := quayside(t, env, args...); code != 0 {
			t.Fatalf("%v: exit %d\n%s", args, code, stderr)
		}
	}
	want := "POST create-product admin:bootstrap, shell create-key " + byShell() + ", shell revoke-key " + byShell()
	if got := w.text(`SELECT string_agg(concat_ws(' ', method, operation, actor), ', ' ORDER BY id) FROM audit_log`); got != want {
		t.Errorf("entered %s, want %s", got, want)
	}
}

// The API tells what was done, by each of its filters, and what of it has
// changed to who may also read customers' names; an operator may read neither.
func TestAuditOverHTTP(t *testing.T) {
	t.Parallel()
	w := stockroom(t)
	if r := w.ask("POST", "/api/v1/orders/open/cancellation", `{"reason":"no"}`, "X-Request-Id", "mine-1"); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	at := w.text(`SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM audit_log WHERE operation = 'cancel-order'`)
	for query, want := range map[string]string{
		"":                            "cancel-order create-order create-product",
		"actor=admin:bootstrap":       "cancel-order create-order create-product",
		"actor=admin:other":           "",
		"operation=create-order":      "create-order",
		"subject=order/open":          "cancel-order create-order",
		"subject=order/ope":           "",
		"request_id=mine-1":           "cancel-order",
		"from=" + at:                  "cancel-order",
		"to=" + at:                    "create-order create-product",
		"from=" + at + "&to=" + at:    "",
		"subject=order/open&to=" + at: "create-order",
	} {
		p := w.page("/api/v1/audit?"+query, 50, "")
		if got := strings.Join(p.keys("operation"), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	path := "/api/v1/audit/" + w.page("/api/v1/audit?request_id=mine-1", 1, "").keys("id")[0]
	var entry struct {
		Subject       string
		Before, After struct {
			Status   string
			Currency *string
		}
	}
	w.must(w.shop.call(t.Context(), http.MethodGet, path, nil, &entry))
	if entry.Subject != "order/open" || entry.Before.Status != "pending" || entry.After.Status != "cancelled" || entry.After.Currency != nil {
		t.Errorf("entry: %+v", entry)
	}
	for scopes, want := range map[string][2]int{`"admin"`: {200, 200}, `"operator"`: {403, 403}, `"audit:read"`: {200, 403}, `"pii:read"`: {403, 403}} {
		r := w.ask("POST", "/api/v1/keys", `{"name":"k`+randomHex(4)+`","scopes":[`+scopes+`]}`)
		key := "Bearer " + w.fieldOf(r, "key")
		if got := [2]int{w.ask("GET", "/api/v1/audit", "", "Authorization", key).status, w.ask("GET", path, "", "Authorization", key).status}; got != want {
			t.Errorf("%s: %d, want %d", scopes, got, want)
		}
	}
}
