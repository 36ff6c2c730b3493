//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trigger runs `quayside trigger` against what w speaks to.
func (w *world) trigger(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := map[string]string{"PAYQI_WEBHOOK_SECRET": worldSecret + ",whsec_another_one_to_come", "ADMIN_API_KEY": worldKey, "PUBLIC_URL": w.shop.url}
	code = run(context.Background(), append([]string{"trigger"}, args...), from(env), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// Each flag of trigger does what its help says, and the order shows it.
func TestTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 100)
	raw := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(raw, []byte(`{"id":"evt_raw","type":"payment.expired","data":{"id":"pay_raw","metadata":{"order_id":"raw"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	old := fmt.Sprint(time.Now().Add(-time.Hour).Unix())
	for _, tc := range []struct {
		name   string // and the order's id
		args   string
		says   []string
		stands string
		stored int // events about the order
	}{
		{"whole", "payment.completed", []string{"answered 200 OK\n", "10.00 of 10.00 XRP received"}, "paid/paid/queued", 1},
		{"short", "payment.completed --amount 4.50", []string{"answered 200 OK\n", "4.50 of 10.00 XRP received", "held: UNDERPAID"}, "pending/underpaid/none", 1},
		{"much", "payment.completed --amount 12", []string{"12.00 of 10.00 XRP received", "due back: 2.00 XRP"}, "paid/overpaid/queued", 1},
		{"currency", "payment.completed --currency RLUSD", []string{"held: WRONG_CURRENCY"}, "pending/unpaid/none", 1},
		{"pending", "payment.pending", []string{"answered 200 OK\n"}, "pending/awaiting_confirmation/none", 1},
		{"failed", "payment.failed", []string{"answered 200 OK\n"}, "payment_failed/unpaid/none", 1},
		{"bad", "payment.completed --signature bad", []string{"answered 400 Invalid signature\n", "did not change"}, "pending/unpaid/none", 0},
		{"none", "payment.completed --signature none", []string{"answered 400 Invalid signature\n", "did not change"}, "pending/unpaid/none", 0},
		{"storm", "payment.completed --times 20 --parallel 20", []string{"200 OK", "19 × 200 Already processed"}, "paid/paid/queued", 1},
		{"no-id", "payment.completed --no-id", []string{"answered 200 OK\n"}, "paid/paid/queued", 1},
		{"no-id-twice", "payment.completed --no-id --times 2", []string{"200 OK", "200 Already processed"}, "paid/paid/queued", 1},
		{"id", "payment.completed --id evt_mine --payment pay_mine --tx-hash MINE", []string{`"id":"evt_mine"`, `"id":"pay_mine"`, `"tx_hash":"MINE"`}, "paid/paid/queued", 1},
		{"no-timestamp", "payment.completed --timestamp none", []string{"answered 200 OK\n"}, "paid/paid/queued", 1},
		{"old", "payment.completed --timestamp " + old, []string{"answered 400 Request too old\n", "did not change"}, "pending/unpaid/none", 1},
		{"garbage", "payment.completed --timestamp yesterday", []string{"answered 400 Request too old\n", "did not change"}, "pending/unpaid/none", 1},
		{"lie", "payment.completed --metadata order_id=somebody-else", []string{`"order_id":"somebody-else"`, "did not change"}, "pending/unpaid/none", 0},
		{"more", "payment.completed --metadata shelf=7", []string{`"shelf":"7"`}, "paid/paid/queued", 1},
		{"unknown", "payment.refunded", []string{"note: payment.refunded is none of PayQI's five events", "answered 200 OK\n", "did not change"}, "pending/unpaid/none", 1},
		{"raw", "--raw " + raw, []string{`{"id":"evt_raw"`, "answered 200 OK\n", "expired"}, "expired/unpaid/none", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.t = t
			w.open(tc.name, "mug")
			code, out, stderr := w.trigger(append(strings.Fields(tc.args), "--order", tc.name)...)
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, %s", code, stderr)
			}
			contains(t, "the output", out, tc.says...)
			w.stands(tc.name, tc.stands)
			if n := w.count(`SELECT count(*) FROM inbox WHERE position(?::bytea in body) > 0`, `"order_id":"`+tc.name+`"`); n != tc.stored {
				t.Errorf("%d events were stored, want %d", n, tc.stored)
			}
		})
	}
}

// A raw body needs no order, and is sent to the byte.
func TestTriggerRawAlone(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	file := filepath.Join(t.TempDir(), "event")
	body := "{ \"type\" : \"payment.completed\",\r\n \"data\": {\"id\": \"pay_test_1\"} }\n\n"
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := w.trigger("--raw", file); code != 0 || !strings.Contains(out, "answered 200 OK\n") {
		t.Errorf("exit %d, %s%s", code, out, stderr)
	}
	if got := w.text(`SELECT convert_from(body, 'UTF8') FROM inbox`); got != body {
		t.Errorf("stored %q, want %q", got, body)
	}
}

// What cannot be done is said in one line: 1 when it failed, 2 when it was
// asked wrongly; nothing is sent to another machine unasked.
func TestTriggerRefusals(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.stock("mug", 10)
	w.open("here", "mug")
	before := w.fingerprint()
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"payment.completed --order nowhere", 1, "404 order_not_found: no such order"},
		{"payment.completed --order a/b?c", 1, "404"},
		{"payment.completed --order here --amount ten", 1, `--amount "ten" is not a number`},
		{"--raw /no/such/file", 1, "no such file"},
		{"payment.completed --order here --url https://shop.example", 1, "is not this machine"},
		{"payment.completed --order here --url http://192.0.2.1:8080", 1, "is not this machine"},
		{"payment.completed --order here --url http://127.0.0.1.example", 1, "is not this machine"},
		{"payment.completed --order here --url http://127.0.0.1:1", 1, "does not answer"},
		{"payment.completed --order here --url http://192.0.2.1:1 --yes --nonsense", 2, "unknown flag"},
		{"", 2, "name one TYPE"},
		{"payment.completed", 2, "--order ID"},
		{"payment.completed payment.failed --order here", 2, "name one TYPE"},
		{"payment.completed --order here --raw x", 2, "name no TYPE"},
		{"payment.completed --order here --signature ugly", 2, "good, bad or none"},
		{"payment.completed --order here --times 0", 2, "--times is 1 to 10000"},
		{"payment.completed --order here --parallel 1000", 2, "--parallel 1 to 256"},
	} {
		code, out, stderr := w.trigger(strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stderr, tc.says) || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "quayside: ") {
			t.Errorf("trigger %s: exit %d, want %d with %q: %s%s", tc.args, code, tc.code, tc.says, out, stderr)
		}
	}
	if after := w.fingerprint(); after != before {
		t.Errorf("something was sent all the same:\n%s\n\n%s", before, after)
	}
}

// Where trigger sends to is known to be this machine or not, however it is written.
func TestLoopback(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]bool{
		"http://localhost:8080": true, "http://127.0.0.1:8080": true, "http://127.1.2.3": true, "http://[::1]:8080": true,
		"https://shop.example": false, "http://127.0.0.1.example": false, "http://localhost.example": false, "http://192.0.2.1": false,
		"http://localhost@shop.example": false, "http://0.0.0.0.example": false, "": false, "%": false,
	} {
		if got := loopback(target); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}

// What listens on every interface is reached on this machine.
func TestHere(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":8080": "http://127.0.0.1:8080", "0.0.0.0:8080": "http://127.0.0.1:8080", "[::]:8080": "http://127.0.0.1:8080",
		"localhost:80": "http://localhost:80", "[::1]:80": "http://[::1]:80", "192.0.2.1:80": "http://192.0.2.1:80",
	} {
		if got := here(addr); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}
