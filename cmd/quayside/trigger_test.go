//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quayside/internal/notify"
	"quayside/internal/orders"
)

// trigger runs `quayside trigger` against what w speaks to.
func (w *world) trigger(args ...string) (code int, stdout, stderr string) {
	return w.triggerWith("", args...)
}

func (w *world) triggerWith(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := map[string]string{"PAYQI_WEBHOOK_SECRET": worldSecret + ",whsec_another_one_to_come", "ADMIN_API_KEY": worldKey, "PUBLIC_URL": w.shop.url}
	if w.api != nil {
		env["PAYQI_API_URL"], env["PAYQI_API_KEY"] = w.cfg.PayQIAPIURL, worldPayQIKey
	}
	code = run(context.Background(), append([]string{"trigger"}, args...), from(env), strings.NewReader(stdin), &out, &errs)
	for _, s := range []string{worldSecret, worldKey, worldPayQIKey} {
		if strings.Contains(out.String()+errs.String(), s) {
			w.t.Errorf("trigger %s says a secret:\n%s%s", args, &out, &errs)
		}
	}
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
		{"whole", "payment.completed", []string{"answered 200 OK, ", "10.00 of 10.00 XRP received"}, "paid/paid/queued", 1},
		{"short", "payment.completed --amount 4.50", []string{"answered 200 OK, ", "4.50 of 10.00 XRP received", "held      UNDERPAID: 4.50 of 10.00 XRP received"}, "pending/underpaid/none", 1},
		{"much", "payment.completed --amount 12", []string{"12.00 of 10.00 XRP received", "due back: 2.00 XRP"}, "paid/overpaid/queued", 1},
		{"currency", "payment.completed --currency RLUSD", []string{"held      WRONG_CURRENCY: "}, "pending/unpaid/none", 1},
		{"pending", "payment.pending", []string{"answered 200 OK, "}, "pending/awaiting_confirmation/none", 1},
		{"failed", "payment.failed", []string{"answered 200 OK, "}, "payment_failed/unpaid/none", 1},
		{"bad", "payment.completed --signature bad", []string{"answered 400 Invalid signature, ", "did not change"}, "pending/unpaid/none", 0},
		{"none", "payment.completed --signature none", []string{"answered 400 Invalid signature, ", "did not change"}, "pending/unpaid/none", 0},
		{"storm", "payment.completed --times 20 --parallel 20", []string{"200 OK", "19 × 200 Already processed"}, "paid/paid/queued", 1},
		{"no-id", "payment.completed --no-id", []string{"answered 200 OK, "}, "paid/paid/queued", 1},
		{"no-id-twice", "payment.completed --no-id --times 2", []string{"200 OK", "200 Already processed"}, "paid/paid/queued", 1},
		{"id", "payment.completed --id evt_mine --payment pay_mine --tx-hash MINE", []string{`"id":"evt_mine"`, `"id":"pay_mine"`, `"tx_hash":"MINE"`}, "paid/paid/queued", 1},
		{"no-timestamp", "payment.completed --timestamp none", []string{"answered 200 OK, "}, "paid/paid/queued", 1},
		{"old", "payment.completed --timestamp " + old, []string{"answered 400 Request too old, ", "the event is kept, refused: ", "stays pending/unpaid/none", "case      STALE_EVENT: "}, "pending/unpaid/none", 1},
		{"garbage", "payment.completed --timestamp yesterday", []string{"answered 400 Request too old, ", "the event is kept, refused: ", "stays pending/unpaid/none", "case      STALE_EVENT: "}, "pending/unpaid/none", 1},
		{"lie", "payment.completed --metadata order_id=somebody-else", []string{`"order_id":"somebody-else"`, "did not change"}, "pending/unpaid/none", 0},
		{"more", "payment.completed --metadata shelf=7", []string{`"shelf":"7"`}, "paid/paid/queued", 1},
		{"created-at", "payment.completed --created 1234567890", []string{`"created":1234567890`}, "paid/paid/queued", 1},
		{"upper", "payment.completed --signature upper", []string{"answered 200 OK, ", "signature upper"}, "paid/paid/queued", 1},
		{"prefix", "payment.completed --signature prefix", []string{"answered 400 Invalid signature, ", "nothing of it is kept"}, "pending/unpaid/none", 0},
		{"minutes", "payment.completed --timestamp -10m", []string{"answered 400 Request too old, ", "the event is kept, refused: timestamp outside the window", "case      STALE_EVENT: "}, "pending/unpaid/none", 1},
		{"ahead", "payment.completed --timestamp +4m", []string{"answered 200 OK, "}, "paid/paid/queued", 1},
		{"set", "payment.completed --set data.amount=2.50 --set data.destination_tag=0 --set data.metadata.note=hello --set data.more={\"a\":[1]}", []string{`"amount":2.50`, `"destination_tag":0`, `"note":"hello"`, `"more":{"a":[1]}`}, "pending/underpaid/none", 1},
		{"set-dot", `payment.completed --set data.metadata.a\.b=1`, []string{`"a.b":1`}, "paid/paid/queued", 1},
		{"unset", "payment.completed --unset data.amount", []string{"the event is kept, quarantined: data.amount is missing", "held      UNREADABLE_EVENT: "}, "pending/unpaid/none", 1},
		{"set-type", "payment.completed --set type=payment.failed", []string{"the event is kept, quarantined: type is payment.failed but data.status is completed"}, "pending/unpaid/none", 1},
		{"shown", "payment.completed --amount 11", []string{
			"order shown: pending/unpaid/none → paid/overpaid/queued\n", "goods     reserved → ready to ship\n", "stock     mug: ", "mail      payment_confirmed, sent\n",
			"timeline  ", "PayQI: payment pay_shown completed, 11.00 XRP", "case      OVERPAID: ", "page      https://shop.example/o/",
		}, "paid/overpaid/queued", 1},
		{"unknown", "payment.refunded", []string{"note: payment.refunded is none of PayQI's five events", "answered 200 OK, ", "the event is kept, ignored: unknown type payment.refunded", "case      UNKNOWN_TYPE: "}, "pending/unpaid/none", 1},
		{"raw", "--raw " + raw, []string{`{"id":"evt_raw"`, "answered 200 OK, ", "expired"}, "expired/unpaid/none", 1},
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
	if code, out, stderr := w.trigger("--raw", file); code != 0 || !strings.Contains(out, "answered 200 OK, ") {
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
		{"payment.completed --order here --url http://127.0.0.1:1", 1, "does not answer"},
		{"payment.completed --order here --amount ten", 2, `--amount "ten" is not a number`},
		{"payment.completed --order here --amount 1,2", 2, `--amount "1,2" is not a number`},
		{"--raw /no/such/file", 2, "no such file"},
		{"payment.completed --order here --url https://shop.example", 2, "is not this machine; an event sent there is real to it. Add --yes"},
		{"payment.completed --order here --url http://192.0.2.1:8080", 2, "is not this machine"},
		{"payment.completed --order here --url http://127.0.0.1.example", 2, "is not this machine"},
		{"late --url http://localhost.example", 2, "is not this machine"},
		{"payment.completed --order here --url http://localhost@shop.example", 2, "holds a user name"},
		{"payment.completed --order here --url localhost:8080", 2, "is not an address; write for instance http://127.0.0.1:8080"},
		{"payment.completed --order here --url http://192.0.2.1:1 --yes --nonsense", 2, "unknown flag"},
		{"", 2, "name one TYPE"},
		{"payment.completed payment.failed --order here", 2, "name one TYPE"},
		{"payment.completed --order here --raw x", 2, "name no TYPE"},
		{"late --list", 2, "--list takes no TYPE"},
		{"late --scenario late", 2, "--scenario names what is played: leave out TYPE"},
		{"--scenario lates", 2, "no scenario \"lates\" (a TYPE has a dot, as in payment.completed); did you mean late?"},
		{"--scenario payment.completed", 2, "'quayside trigger payment.completed' sends one event"},
		{"--scenario failed --amount 3", 2, "failed is a scenario and sends its own events: leave out --amount"},
		{"lates", 2, "no scenario \"lates\" (a TYPE has a dot, as in payment.completed); did you mean late?"},
		{"currency", 2, "did you mean wrong-currency?"},
		{"xyzzy", 2, "'quayside trigger --list' shows them"},
		{"late --order here", 2, "late opens its own order, because its order must expire within a second: leave out --order"},
		{"failed --amount 3", 2, "failed is a scenario and sends its own events: leave out --amount"},
		{"--raw x --amount 3", 2, "--raw sends a body as it is: leave out --amount"},
		{"--raw x --expect paid", 2, "--expect paid is about an order: name it with --order ID"},
		{"payment.completed --order here --signature ugly", 2, "good, bad, upper, prefix or none"},
		{"payment.completed --order here --times 0", 2, "--times is 1 to 10000"},
		{"payment.completed --order here --parallel 1000", 2, "--parallel 1 to 256"},
		{"payment.completed --order here --id x --no-id", 2, "leave one out"},
		{"payment.completed --order here --created yesterday", 2, "such as -1h"},
		{"payment.completed --order here --set data.amount", 2, "--set takes PATH=VALUE"},
		{"payment.completed --order here --set =3", 2, "take a PATH such as data.amount"},
		{"payment.completed --order here --unset data.*", 2, "take a PATH such as data.amount"},
		{"payment.completed --order here --expect payd", 2, `"payd" is none of pending, paid`},
		{"payment.completed --order here --expect paid/paid/here", 2, `"here" is none of none, on_hold`},
		{"payment.completed --print", 2, "name it with --order ID"},
		{"payment.completed --order here --print --times 2", 2, "leave out --times"},
		{"payment.completed --order here --print --expect 200", 2, "leave out --expect"},
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
		"http://localhost@shop.example": false, "http://127.0.0.1:80@shop.example": false, "http://u@127.0.0.1": false, "http://LOCALHOST": true,
		"http://[::ffff:127.0.0.1]": true, "http://127.1": false, "http://2130706433": false, "http://[::]": false, "http://0.0.0.0": false, "http://localhost.": false, "http://0.0.0.0.example": false, "": false, "%": false,
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

// Without --yes nothing leaves this machine, whatever a name resolves to and
// wherever an answer points.
func TestTriggerStaysHere(t *testing.T) {
	t.Parallel()
	c := http.Client{Transport: stayHere()}
	if _, err := c.Get("http://192.0.2.1:80/"); err == nil || !strings.Contains(err.Error(), "192.0.2.1:80 is not this machine; add --yes") {
		t.Errorf("an address elsewhere: %v", err)
	}
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(elsewhere.Close)
	pointing := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(pointing.Close)
	a, err := newPayQI(pointing.URL, worldSecret).send(t.Context(), []byte("{}"), signGood, now())
	if err != nil || a.Status != http.StatusTemporaryRedirect || reached {
		t.Errorf("a redirect: %v %v, followed: %v", a, err, reached)
	}
	if err := newShopClient(pointing.URL, worldKey).call(t.Context(), http.MethodGet, "/", nil, nil); !refused(err, http.StatusTemporaryRedirect) || reached {
		t.Errorf("a redirect of the API: %v, followed: %v", err, reached)
	}
}

// Every scenario ends as its story must: the words are checked here against
// the database, not against the scenario's own idea of its end.
func TestTriggerScenarios(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withPayQI()
	w.serve()
	w.work()
	played := map[string]bool{}
	for _, tc := range []struct {
		name    string
		answers string // in the order they are printed
		stands  string
		cases   string // open ones
		mails   string // sent ones, without order_received unless it is the point
	}{
		{"created", "200 OK", "pending/unpaid/none", "", "order_received"},
		{"pending", "200 OK|200 OK", "pending/awaiting_confirmation/none", "", "order_received"},
		{"completed", "200 OK|200 OK|200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"shipped", "200 OK|200 OK", "fulfilled/paid/fulfilled", "", "order_shipped payment_confirmed"},
		{"failed", "200 OK|200 OK", "payment_failed/unpaid/none", "", "payment_failed"},
		{"retry", "200 OK|200 OK|200 OK", "paid/paid/queued", "", "payment_confirmed payment_failed"},
		{"expired", "200 OK|200 OK", "expired/unpaid/none", "", "order_expired"},
		{"underpaid", "200 OK", "pending/underpaid/none", "UNDERPAID", ""},
		{"made-good", "200 OK|200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"overpaid", "200 OK", "paid/overpaid/queued", "OVERPAID", "payment_confirmed"},
		{"twice", "200 OK|200 OK", "paid/overpaid/queued", "DUPLICATE_PAYMENT", "payment_confirmed"},
		{"wrong-currency", "200 OK", "pending/unpaid/none", "WRONG_CURRENCY", ""},
		{"wrong-address", "200 OK|200 OK", "pending/unpaid/none", "WRONG_ADDRESS", ""},
		{"reused-hash", "200 OK", "pending/unpaid/none", "TX_REUSED", ""},
		{"amount-changed", "200 OK|200 OK", "paid/paid/on_hold", "AMOUNT_CHANGED", "payment_confirmed"},
		{"duplicate", "200 OK, 19 × 200 Already processed", "paid/paid/queued", "", "payment_confirmed"},
		{"forged", "400 Invalid signature", "pending/unpaid/none", "", ""},
		{"stale", "400 Request too old|200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"out-of-order", "200 OK|200 OK|200 OK|200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"no-id", "200 OK|200 Already processed", "paid/paid/queued", "", "payment_confirmed"},
		{"conflict", "200 OK|200 Already processed", "paid/paid/on_hold", "EVENT_CONFLICT", "payment_confirmed"},
		{"regression", "200 OK|200 OK", "paid/paid/on_hold", "REGRESSION", "payment_confirmed"},
		{"unreadable", "200 OK", "pending/unpaid/none", "UNREADABLE_EVENT", ""},
		{"unknown-type", "200 OK", "pending/unpaid/none", "", ""}, // its case names no order
		{"test-event", "200 OK", "pending/unpaid/none", "", ""},
		{"late", "200 OK", "paid/paid/queued", "LATE_PAID", "order_expired payment_confirmed"},
		{"goods-gone", "200 OK", "paid/paid/on_hold", "STOCK_GONE", "goods_gone order_expired"},
		{"cancelled-paid", "200 OK", "cancelled/refund_due/none", "CANCELLED_PAID", "order_cancelled"},
		{"unknown-order", "200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"nameless", "200 OK|200 OK", "pending/unpaid/none", "UNKNOWN_ORDER", ""},
		{"checkout", "200 OK|200 OK", "paid/paid/queued", "", "payment_confirmed"},
		{"silent", "", "paid/paid/queued", "LATE_PAID", "order_expired payment_confirmed"},
		{"mismatch", "200 OK|200 OK", "pending/unpaid/none", "ORDER_MISMATCH", ""},
		{"mail-dead", "200 OK", "paid/paid/queued", "MAIL_DEAD", ""},
	} {
		played[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.t = t
			code, out, stderr := w.trigger(tc.name)
			if code != 0 || stderr != "" {
				t.Fatalf("exit %d, %s%s", code, out, stderr)
			}
			m := regexp.MustCompile(`order (\S+) opened: 2 × `).FindStringSubmatch(out)
			if m == nil {
				t.Fatalf("no order was opened:\n%s", out)
			}
			var answers []string
			for _, a := range regexp.MustCompile(`(?m)^    answered (.*), [0-9.]+( to [0-9.]+)? ms$`).FindAllStringSubmatch(out, -1) {
				answers = append(answers, a[1])
			}
			if got := strings.Join(answers, "|"); got != tc.answers {
				t.Errorf("answered %s, want %s", got, tc.answers)
			}
			contains(t, "the output", out, "\norder "+m[1], tc.stands, "✓ "+tc.name+" ended as it should: "+tc.stands)
			w.stands(m[1], tc.stands)
			if got := w.text(`SELECT COALESCE(string_agg(code, ' ' ORDER BY code), '') FROM cases WHERE (order_id = @order OR facts->>'suggested_order' = @order) AND state = 'open'`, map[string]any{"order": m[1]}); got != tc.cases {
				t.Errorf("open cases: %q, want %q", got, tc.cases)
			}
			if tc.cases != "" {
				contains(t, "the output", out, tc.cases+": ")
			}
			mails := w.text(`SELECT COALESCE(string_agg(DISTINCT kind, ' ' ORDER BY kind), '') FROM letters WHERE order_id = ? AND state = 'sent' AND (kind <> 'order_received' OR ?)`,
				m[1], strings.Contains(tc.mails, "order_received"))
			if mails != tc.mails {
				t.Errorf("mails sent: %q, want %q", mails, tc.mails)
			}
		})
	}
	for _, s := range scenarios {
		if !played[s.name] {
			t.Errorf("scenario %s is not tested", s.name)
		}
	}
	code, out, _ := w.trigger("--list")
	for _, s := range scenarios {
		if code != 0 || !regexp.MustCompile(`(?m)^  `+s.name+` +\S`).MatchString(out) {
			t.Errorf("--list has no line for %s", s.name)
		}
	}
}

// A scenario takes an order that is there, if it is unpaid; and says so when
// it ends otherwise than it should.
func TestTriggerScenarioOfAnOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PayQITimestamp = timestampOff
	w.serve()
	w.work()
	w.stock("mug", 100)
	w.open("mine", "mug")
	if code, out, stderr := w.trigger("twice", "--order", "mine"); code != 0 || !strings.Contains(out, "order mine: pending/unpaid/none → paid/overpaid/queued") {
		t.Errorf("exit %d, %s%s", code, out, stderr)
	}
	if code, out, _ := w.trigger("forged", "--order", "mine"); code != 1 || !strings.Contains(out, "order mine is paid/overpaid/queued; a scenario begins with an unpaid one (pending/unpaid/none)") {
		t.Errorf("a paid order: exit %d, %s", code, out)
	}
	code, out, stderr := w.trigger("stale")
	if code != 1 || stderr != "" || !strings.Contains(out, "✗ stale did not end as it should:\n  payment.completed was answered 200 OK, it should be 400 Request too old\n") {
		t.Errorf("with PAYQI_TIMESTAMP=off: exit %d, %s%s", code, out, stderr)
	}
	var r performance
	code, out, _ = w.trigger("stale", "--json")
	if err := json.Unmarshal([]byte(out), &r); code != 1 || err != nil || r.OK || len(r.Wrong) != 1 || r.After == nil || r.After.Order.ID != r.OrderID {
		t.Errorf("as JSON: exit %d, %v, %s", code, err, out)
	}
}

// An ending is compared in all its parts.
func TestScenarioEnding(t *testing.T) {
	t.Parallel()
	paid := orders.View{Status: orders.Paid, PaymentStatus: orders.PaidUp, FulfillmentStatus: orders.InQueue}
	open := orders.CaseView{ID: "c", Code: orders.LatePaid, State: "open"}
	sent := letter{ID: "l", Kind: notify.PaymentConfirmed, State: notify.Sent}
	want := ending{state: paidState, cases: []orders.Code{orders.LatePaid}, mails: mails(notify.PaymentConfirmed)}
	other, failedMail, closed := paid, sent, open
	other.FulfillmentStatus, failedMail.State, closed.State = orders.OnHold, notify.Failed, "closed"
	extra := letter{ID: "x", Kind: notify.PaymentFailed, State: notify.Sent}
	first := letter{ID: "f", Kind: notify.OrderReceived, State: notify.Sent}
	for _, tc := range []struct {
		after snapshot
		wrong int
	}{
		{snapshot{Order: paid, Cases: []orders.CaseView{open}, Letters: []letter{first, sent}}, 0},
		{snapshot{Order: other, Cases: []orders.CaseView{open}, Letters: []letter{sent}}, 1},
		{snapshot{Order: paid, Cases: []orders.CaseView{closed}, Letters: []letter{sent}}, 1},
		{snapshot{Order: paid, Cases: []orders.CaseView{open, open}, Letters: []letter{sent}}, 1},
		{snapshot{Order: paid, Cases: []orders.CaseView{open}, Letters: []letter{failedMail}}, 1},
		{snapshot{Order: paid, Cases: []orders.CaseView{open}, Letters: []letter{sent, extra}}, 1},
		{snapshot{Order: other}, 3},
	} {
		if wrong := want.compare(&snapshot{}, &tc.after); len(wrong) != tc.wrong {
			t.Errorf("%+v: %q", tc.after, wrong)
		}
	}
}

// What was expected and did not come is exit code 1 and a sentence.
func TestTriggerExpect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	w.stock("mug", 100)
	for name, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"status":    {"payment.completed --signature bad --expect 400", 0, ""},
		"state":     {"payment.completed --expect paid", 0, ""},
		"all-three": {"payment.completed --expect 200 --expect paid/paid/queued", 0, ""},
		"two":       {"payment.completed --amount 11 --expect paid/overpaid", 0, ""},
		"refused":   {"payment.completed --signature bad --expect 200", 1, "expected every answer to be 200, but it was 400 Invalid signature"},
		"accepted":  {"payment.completed --times 3 --expect 400", 1, "expected every answer to be 400, but it was 200 OK, 2 × 200 Already processed"},
		"other":     {"payment.failed --expect paid", 1, "in vain for order other to be paid; it is payment_failed/unpaid/none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.t = t
			w.open(name, "mug")
			code, _, stderr := w.trigger(append(strings.Fields(tc.args), "--order", name)...)
			if code != tc.code || !strings.Contains(stderr, tc.says) || (tc.says == "") != (stderr == "") {
				t.Errorf("exit %d, want %d with %q: %s", code, tc.code, tc.says, stderr)
			}
		})
	}
}

// --json is one object and nothing else; without --order it opens one.
func TestTriggerJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.work()
	code, out, stderr := w.trigger("payment.completed", "--json", "--times", "3")
	var got outcome
	d := json.NewDecoder(strings.NewReader(out))
	if err := d.Decode(&got); code != 0 || stderr != "" || err != nil || d.More() {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, stderr)
	}
	if len(got.Answers) != 3 || got.Answers[0].Status != 200 || got.Event == nil || got.Event.State != "applied" || stateOf(got.Before.Order) != openState ||
		stateOf(got.After.Order) != paidState || got.Request.Headers[signatureHeader] != signed(got.Request.Body) || len(got.After.Letters) != 2 || len(got.After.Timeline) != 2 {
		t.Errorf("got %s", out)
	}
	if n := w.count(`SELECT count(*) FROM orders WHERE id = ? AND status = 'paid'`, got.After.Order.ID); n != 1 {
		t.Errorf("%s is not in the books", got.After.Order.ID)
	}
	if code, out, _ := w.trigger("test-event", "--json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("a scenario: exit %d, %s", code, out)
	}
}

// The curl command of --print sends exactly the bytes that were signed,
// whatever is in them, and is accepted; --print itself sends nothing.
func TestTriggerPrint(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test pastes a curl command into bash: %v", err)
		}
	}
	w := newWorldAway(t)
	w.serve()
	w.stock("mug", 100)
	w.open("printed", "mug")
	dir := t.TempDir()
	file := filepath.Join(dir, "it's a file.json")
	binary := "{\"id\":\"evt_bin\",\"type\":\"payment.\x00\xff'%d\\n\r\n\t\"}\n"
	if err := os.WriteFile(file, []byte(binary), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, stdin string
		args        []string
		answer      string
	}{
		{"plain", "", []string{"payment.completed", "--order", "printed"}, "OK"},
		{"quotes", "", []string{"payment.completed", "--order", "printed", "--set", "data.metadata.note=it's $HOME `id` \"x\" \\ ! é"}, "OK"},
		{"upper", "", []string{"payment.completed", "--order", "printed", "--signature", "upper"}, "OK"},
		{"file", "", []string{"--raw", file}, "OK"},
		{"stdin", binary + "2", []string{"--raw", "-"}, "OK"},
		{"at", "@/etc/passwd", []string{"--raw", "-"}, "OK"},
		{"empty", "", []string{"--raw", "-"}, "OK"},
		{"long", `{"id":"evt_long","type":"x","pad":"` + strings.Repeat("p", 140_000) + `"}`, []string{"--raw", "-"}, "OK"},
		{"no stamp", "", []string{"payment.completed", "--order", "printed", "--timestamp", "none"}, "OK"},
		{"bad", "", []string{"payment.completed", "--order", "printed", "--signature", "bad"}, "Invalid signature"},
		{"prefix", "", []string{"payment.completed", "--order", "printed", "--signature", "prefix"}, "Invalid signature"},
		{"stale", "", []string{"payment.completed", "--order", "printed", "--timestamp", "-10m"}, "Request too old"},
	} {
		before := w.count(`SELECT count(*) FROM inbox`)
		code, out, stderr := w.triggerWith(tc.stdin, append(tc.args, "--print")...)
		_, command, found := strings.Cut(out, "to paste into a shell:\n")
		if code != 0 || stderr != "" || !found || w.count(`SELECT count(*) FROM inbox`) != before {
			t.Fatalf("%s: exit %d, %.2000s%s", tc.name, code, out, stderr)
		}
		bash := exec.CommandContext(t.Context(), "bash", "-s")
		bash.Stdin = strings.NewReader(command)
		got, err := bash.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(got), "\r\n\r\n"+tc.answer) {
			t.Errorf("%s: %v: %s\n%.3000s", tc.name, err, got, command)
		}
		if stored := w.count(`SELECT count(*) FROM inbox`) - before; (stored == 1) != (tc.answer != "Invalid signature") {
			t.Errorf("%s: %d events were stored", tc.name, stored)
		}
		if tc.stdin != "" || tc.name == "file" {
			want := cmp.Or(tc.stdin, binary)
			if n := w.count(`SELECT count(*) FROM inbox WHERE body = ?::bytea`, []byte(want)); n != 1 {
				t.Errorf("%s: other bytes arrived", tc.name)
			}
		}
	}
	code, out, _ := w.trigger("payment.completed", "--order", "printed", "--print", "--json")
	var p struct{ Request requestMade }
	if err := json.Unmarshal([]byte(out), &p); code != 0 || err != nil || p.Request.Headers[signatureHeader] != signed(p.Request.Body) || !strings.Contains(p.Request.Curl, "--data-binary") {
		t.Errorf("as JSON: exit %d, %v, %s", code, err, out)
	}
	if code, out, stderr := w.trigger("payment.completed", "--order", "printed", "--print", "--metadata", "leak="+worldSecret); code != 2 || !strings.Contains(stderr, "holds a secret") {
		t.Errorf("a body with the secret: exit %d, %s%s", code, out, stderr)
	}
}

// A secret that got into an event is not repeated on the screen.
func TestTriggerSaysNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorldAway(t)
	w.serve()
	w.work()
	for _, how := range [][]string{nil, {"--json"}} {
		code, out, stderr := w.trigger(append([]string{"payment.created", "--metadata", "a=" + worldSecret, "--metadata", "b=" + worldKey}, how...)...)
		if code != 0 || stderr != "" || strings.Count(out, redacted) != 2 {
			t.Errorf("exit %d, %s%s", code, out, stderr)
		}
	}
}
