//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quayside/internal/access"
	"quayside/internal/database"
)

// key makes a key with these scopes.
func (w *world) key(name string, scopes ...string) string {
	w.t.Helper()
	var made access.CreatedKey
	w.must(w.shop.call(w.t.Context(), http.MethodPost, "/api/v1/keys", map[string]any{"name": name, "scopes": scopes}, &made))
	return made.Key
}

// Every operation of the API declares the scopes it needs. Without a key, with
// one that is malformed, unknown, revoked or has expired, and with every other
// scope than the one it needs, it answers 401 or 403 and nothing of the shop.
func TestMatrixOfKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.TrustedProxies = []string{"127.0.0.1", "::1"} // each request is from elsewhere: an address has thirty failures
	w.serve()
	w.stock("canary-mug", 5)
	w.open("canary-order", "canary-mug")
	revoked, expired, all := w.key("revoked", "admin"), w.key("expired", "admin"), w.key("all", "admin")
	if r := w.ask(http.MethodDelete, "/api/v1/keys/revoked", ""); r.status != 200 || strings.Contains(r.body, revoked) {
		t.Fatalf("revoke: %d %s", r.status, r.body)
	}
	w.must(w.db.InTx(t.Context(), func(tx database.Tx) error {
		return tx.Exec(`UPDATE api_keys SET created_at = created_at - interval '2 days', expires_at = created_at - interval '1 day' WHERE name = 'expired'`).Error
	}))
	flipped := all[:len(all)-1] + string(all[len(all)-2])
	outside := map[string]string{"none": "", "malformed": flipped, "unknown": "qs_live_" + strings.Repeat("0", 43) + "000000", "revoked": revoked, "expired": expired, "lower case": strings.ToLower(all)}
	doc := w.document()
	const prefix = "Scope: `"
	operations, senders := 0, 0
	keys := map[string]string{}
	send := func(method, path, key string) reply {
		senders++
		return w.ask(method, path, "", "Authorization", map[bool]string{true: "", false: "Bearer " + key}[key == ""], "X-Forwarded-For", fmt.Sprintf("10.%d.%d.1", senders>>8, senders&255))
	}
	for path, item := range doc["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			operations++
			method := strings.ToUpper(method)
			target := regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(path, "canary-order")
			var needs []string
			for _, s := range op.(map[string]any)["security"].([]any)[0].(map[string]any)["bearer"].([]any) {
				needs = append(needs, s.(string))
			}
			if said, _ := op.(map[string]any)["description"].(string); len(needs) == 0 || !strings.Contains(said, prefix+strings.Join(needs, "`, `")) {
				t.Errorf("%s %s declares %q and says %q", method, path, needs, said)
			}
			for name, key := range outside {
				if r := send(method, target, key); r.status != 401 || strings.Contains(r.body, "canary") {
					t.Errorf("%s %s with a key that is %s: %d %s", method, target, name, r.status, r.body)
				}
			}
			for _, need := range needs {
				if keys[need] == "" { // everything but that
					var others []string
					for s := range access.Scopes {
						if s != need {
							others = append(others, s)
						}
					}
					keys[need] = w.key("without-"+strings.ReplaceAll(need, ":", "-"), others...)
				}
				if r := send(method, target, keys[need]); r.status != 403 || r.code() != "missing_scope" || !strings.Contains(r.body, need) || strings.Contains(r.body, "canary") {
					t.Errorf("%s %s without %s: %d %s", method, target, need, r.status, r.body)
				}
			}
		}
	}
	if operations < 30 || senders < 250 {
		t.Errorf("only %d operations and %d requests", operations, senders)
	}
	if n := w.count(`SELECT count(*) FROM orders`); n != 1 {
		t.Errorf("%d orders", n)
	}
}

// Who may not read personal data gets it masked, and cannot find it out by
// searching.
func TestPersonalDataIsMasked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 5)
	w.open("1001", "mug", "customer", map[string]any{"email": "canary@customers.example", "name": "Canary Bird"})
	w.tell("payment.completed", w.order("1001"))
	w.letterTo("canary@customers.example", "payment")
	viewer, operator := "Bearer "+w.key("eyes", "viewer"), "Bearer "+w.key("hands", "operator")
	for _, path := range []string{"/api/v1/orders", "/api/v1/orders/1001", "/api/v1/orders/1001/timeline", "/api/v1/orders/1001/explanation", "/api/v1/emails", "/api/v1/cases", "/api/v1/events", "/api/v1/refunds", "/api/v1/stats"} {
		if r := w.ask(http.MethodGet, path, "", "Authorization", viewer); r.status != 200 || strings.Contains(r.body, "anary") {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := w.ask(http.MethodGet, "/api/v1/orders/1001", "", "Authorization", operator); !strings.Contains(r.body, "canary@customers.example") {
		t.Errorf("an operator reads %s", r.body)
	}
	for _, path := range []string{"/api/v1/orders?email=canary@customers.example", "/api/v1/orders?q=canary", "/api/v1/emails?to=canary@customers.example", "/api/v1/emails/" + w.text(`SELECT id::text FROM letters LIMIT 1`)} {
		if r := w.ask(http.MethodGet, path, "", "Authorization", viewer); r.status != 403 || r.code() != "missing_scope" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
		if r := w.ask(http.MethodGet, path, "", "Authorization", operator); r.status != 200 {
			t.Errorf("%s: an operator gets %d %s", path, r.status, r.body)
		}
	}
}

// A key cannot make one that may do more than itself, and its calls are
// counted; the bootstrap key's are not.
func TestKeysOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	clerk := "Bearer " + w.key("clerk", "keys:admin", "orders:read")
	for body, status := range map[string]int{
		`{"name":"a","scopes":["orders:read"]}`: 201, `{"name":"b","scopes":["orders:write"]}`: 403, `{"name":"c","scopes":["admin"]}`: 403,
		`{"name":"a b","scopes":["orders:read"]}`: 422, `{"name":"d","scopes":[]}`: 422, `{"name":"e","scopes":["orders:burn"]}`: 422,
		`{"name":"f"}`: 422, `{"name":"g","scopes":["orders:read"],"expires_at":"2001-01-01T00:00:00Z"}`: 422, `{"name":"h","scopes":["orders:read"],"admin":true}`: 400,
	} {
		if r := w.ask(http.MethodPost, "/api/v1/keys", body, "Authorization", clerk); r.status != status {
			t.Errorf("%s: %d %s, want %d", body, r.status, r.body, status)
		}
	}
	if r := w.ask(http.MethodPost, "/api/v1/keys", `{"name":"a","scopes":["orders:read"]}`); r.status != 409 || r.code() != "key_exists" {
		t.Errorf("a name twice: %d %s", r.status, r.body)
	}
	r := w.ask(http.MethodGet, "/api/v1/keys", "")
	var list access.KeyList
	w.must(json.Unmarshal([]byte(r.body), &list))
	if len(list.Data) != 2 || list.Data[0].Name != "a" || list.Data[0].CreatedBy != "admin:clerk" || list.Data[0].State != "active" || strings.Contains(r.body, `"key"`) {
		t.Errorf("keys: %s", r.body)
	}
	for _, path := range []string{"/api/v1/keys/none", "/api/v1/keys/00000000-0000-0000-0000-000000000000"} {
		if r := w.ask(http.MethodDelete, path, ""); r.status != 404 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	statuses := map[int]int{}
	for began := time.Now(); statuses[429] == 0 && time.Since(began) < patience; {
		r := w.ask(http.MethodGet, "/api/v1/orders", "", "Authorization", clerk)
		statuses[r.status]++
		if r.status == 429 && (r.header.Get("Retry-After") == "" || r.code() != "too_many_requests") {
			t.Errorf("429: %v %s", r.header, r.body)
		}
	}
	if statuses[429] == 0 || statuses[200] < 50 {
		t.Errorf("answers %v", statuses)
	}
	for range 200 {
		if r := w.ask(http.MethodGet, "/api/v1/orders", ""); r.status != 200 {
			t.Fatalf("the bootstrap key: %d %s", r.status, r.body)
		}
	}
}

// The command makes, lists and revokes keys without a server, shows each once,
// and says what is wrong with a wish.
func TestKeysCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := map[string]string{"DATABASE_URL": w.cfg.DatabaseURL.reveal()}
	if code, out, _ := quayside(t, env, "keys", "list"); code != 0 || !strings.Contains(out, "quayside keys create") {
		t.Errorf("no keys: %d %s", code, out)
	}
	code, out, stderr := quayside(t, env, "keys", "create", "warehouse", "--scope", "viewer,stock:write", "--expires", "48h")
	key := regexp.MustCompile(`^qs_live_\w{49}\n`).FindString(out)
	if code != 0 || key == "" || !strings.Contains(out, "stock:write") || stderr != "" {
		t.Fatalf("create: %d %s%s", code, out, stderr)
	}
	key = strings.TrimSpace(key)
	w.cfg.AdminAPIKey = ""
	w.serve()
	if r := w.ask(http.MethodGet, "/api/v1/products", "", "Authorization", "Bearer "+key); r.status != 200 {
		t.Errorf("it opens nothing: %d %s", r.status, r.body)
	}
	if r := w.ask(http.MethodGet, "/api/v1/products", "", "Authorization", "Bearer "); r.status != 401 {
		t.Errorf("an empty key, where none is set: %d %s", r.status, r.body)
	}
	if code, out, _ := quayside(t, env, "keys", "list"); code != 0 || strings.Contains(out, key) || !regexp.MustCompile(`warehouse +`+key[:12]+` +active`).MatchString(out) {
		t.Errorf("list: %d %s", code, out)
	}
	for _, bad := range [][]string{{"create", "a b"}, {"create", "x", "--scope", "orders:burn"}, {"create", "x", "--expires", "9000h"}, {"create", "warehouse"}, {"revoke", "nobody"}} {
		if code, out, stderr := quayside(t, env, slices.Concat([]string{"keys"}, bad)...); code != 1 || out != "" || stderr == "" {
			t.Errorf("%v: %d %s%s", bad, code, out, stderr)
		}
	}
	if code, out, _ := quayside(t, env, "keys", "create", "robot", "--scope", "admin", "--json"); code != 0 || !json.Valid([]byte(out)) || !strings.Contains(out, `"key":"qs_live_`) {
		t.Errorf("--json: %d %s", code, out)
	}
	if code, out, stderr := quayside(t, env, "keys", "revoke", "warehouse"); code != 0 || !strings.Contains(out, "is revoked") {
		t.Errorf("revoke: %d %s%s", code, out, stderr)
	}
	w.await("the key to open nothing", func() bool {
		return w.ask(http.MethodGet, "/api/v1/products", "", "Authorization", "Bearer "+key).status == 401
	})
}
