//go:build unix

package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// plants breaks each invariant by hand, below every constraint and trigger, on
// the database that played leaves behind. Keys are invariants' names.
var plants = map[string]string{
	"stock levels equal the sums of their ledger":                                           `UPDATE products SET on_hand = on_hand + 1 WHERE sku = 'mug'`,
	"checkpoints say what the ledger adds up to, and with it the levels":                    `INSERT INTO stock_checkpoints SELECT sku, max(entry), sum(on_hand_delta), sum(reserved_delta), now() FROM stock_movements GROUP BY sku; UPDATE stock_movements SET on_hand_delta = on_hand_delta + 1 WHERE kind = 'initial'`,
	"stock is never negative, and no more is reserved than is there":                        `ALTER TABLE products DROP CONSTRAINT no_more_is_reserved_than_is_there; UPDATE products SET reserved = on_hand + 1 WHERE sku = 'mug'`,
	"what is reserved is what orders hold":                                                  `UPDATE products SET reserved = reserved - 1 WHERE sku = 'mug'`,
	"each order moved exactly the stock that its state says":                                `UPDATE stock_movements SET on_hand_delta = on_hand_delta - 1, reserved_delta = reserved_delta - 1 WHERE kind = 'commit' AND order_id = 'paid'`,
	"what an order got is the sum of its matched payments, less what went back or was kept": `UPDATE payments SET amount = amount + 0.01 WHERE order_id = 'paid'`,
	"matched money is in the order's currency":                                              `UPDATE payments SET currency = 'RLUSD' WHERE order_id = 'paid'`,
	"what goes back of a payment is what its refunds say":                                   `UPDATE payments SET kept = 1 WHERE order_id = 'paid'`,
	"a refund is in the currency of its payment, and for its order":                         plantRefund("'open', 'RLUSD', 'approved', NULL"),
	"a transaction that sent a refund brought no money, and refunds one order":              plantRefund("'paid', 'XRP', 'sent', (SELECT tx_hash FROM payments WHERE order_id = 'shipped')"),
	"what a payment brought is what one of its events said":                                 `UPDATE payments SET amount = amount + 1 WHERE order_id = 'paid'`,
	"all money received is accounted for":                                                   `UPDATE orders SET got = got - 1 WHERE id = 'paid'`,
	"a paid order got its total, less the tolerance, or what a person accepted":             `UPDATE orders SET total = total + 0.01 WHERE id = 'paid'`,
	"an order costs less by what its returns say":                                           `UPDATE orders SET returned = 1, refund_due = 1 WHERE id = 'shipped'`,
	"what was got stands against goods or is due back":                                      `UPDATE orders SET refund_due = 1 WHERE id = 'paid'`,
	"a transaction counts once":                                                             `DROP INDEX a_transaction_counts_once; UPDATE payments SET tx_hash = lower((SELECT tx_hash FROM payments WHERE order_id = 'paid')) WHERE order_id = 'shipped'`,
	"a paid order that nothing holds was put up for shipment, every line once":              `DELETE FROM shipment_request_lines WHERE order_id = 'paid'`,
	"only goods of a paid order ship":                                                       `INSERT INTO shipment_lines SELECT 'open', 1, id FROM shipments LIMIT 1`,
	"a fulfilled order has shipped every line":                                              `DELETE FROM shipment_lines WHERE order_id = 'shipped'`,
	"the customer of a paid order was written to":                                           `DELETE FROM letters WHERE order_id = 'paid' AND kind = 'payment_confirmed'`,
	"a timeline has no gap and ends where its order stands":                                 `DELETE FROM timeline WHERE order_id = 'paid' AND seq = 1`,
	"every stored event waits or is settled, never both":                                    `INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) SELECT id, 'received', now(), now() FROM inbox WHERE order_ref = 'paid'`,
	"every stored body is the one that was signed":                                          `UPDATE inbox SET body = body || ' '::bytea WHERE order_ref = 'paid'`,
	"every applied completion is in the books":                                              `ALTER TABLE payments DROP CONSTRAINT completed_money_is_known; UPDATE payments SET completed_seen = NULL WHERE order_id = 'paid'`,
	"every change of an order by an event has its event":                                    `UPDATE timeline SET inbox_id = gen_random_uuid() WHERE order_id = 'paid' AND inbox_id IS NOT NULL`,
	"an unpaid order does not outlive its deadline":                                         `UPDATE orders SET deadline = now() - interval '3 minutes' WHERE id = 'open'`,

	"each seal of the audit log is the hash of its entry and of the seal before it, without a gap":                 `UPDATE audit_log SET actor = 'admin:nobody' WHERE id = (SELECT entry_id FROM audit_seals WHERE number = 2)`,
	"what an entry of the audit log says has changed is what it said when it was written":                          `UPDATE audit_log SET after = '{"sku": "mug"}' WHERE operation = 'create-product'`,
	"each entry of the audit log is sealed or waits for it, and none that came two minutes later is sealed before": `DELETE FROM audit_seals WHERE number = (SELECT max(number) FROM audit_seals)`,

	"each line of an import is applied, has an error or waits, once": `INSERT INTO imports (id, kind, format, dry_run, again, digest, layout, lines, applied, state, not_before, rung_at, created_at, created_by)
		VALUES (gen_random_uuid(), 'stock', 'csv', false, false, repeat('a', 64), '{}', 3, 2, 'waiting', now() + interval '1 day', now(), now(), 'admin:test')`,
	"a payment that was created for an order is that order's, unless a person moved it": `INSERT INTO checkouts (order_id, number, idempotency_key, amount, currency, state, leased_until, payment_id, asked_by, asked_at)
		SELECT 'open', 1, gen_random_uuid(), 10, 'XRP', 'linked', now(), id, 'admin:test', now() FROM payments WHERE order_id = 'paid'`,
	"every change of an order by an answer of PayQI has its question": `UPDATE timeline SET cause = 'poll:payqi' WHERE order_id = 'paid' AND seq = 2`,
}

// plantRefund writes a refund of the payment of order paid: order, currency, state, transaction.
func plantRefund(values string) string {
	return `INSERT INTO refunds (id, payment_id, order_id, currency, state, tx_hash, amount, address, decided_by, decided_at, sent_at)
		SELECT gen_random_uuid(), p.id, v.*, 1, 'rSomewhere', 'admin:test', now(), now() FROM payments p, (VALUES (` + values + `)) v WHERE p.order_id = 'paid'`
}

// A database that has seen some trade passes, and only the invariant that is
// broken is named, with the row, and makes the exit code 1.
func TestCheckFindsWhatIsBroken(t *testing.T) {
	w := newWorld(t)
	played(t, w)
	env := func(address string) map[string]string { return map[string]string{"DATABASE_URL": address} }
	healthy := copyOf(t, w.cfg.DatabaseURL.reveal())
	if code, out, stderr := quayside(t, env(healthy), "check", "--full"); code != 0 || !regexp.MustCompile(fmt.Sprintf(`^all %d invariants hold\nthe audit log: its last seal is [1-9]\d*:[0-9a-f]{64}\n$`, len(invariants))).MatchString(out) {
		t.Fatalf("healthy: exit %d\n%s%s", code, out, stderr)
	}
	for _, inv := range invariants {
		t.Run(inv.name, func(t *testing.T) {
			plant := plants[inv.name]
			if plant == "" {
				t.Fatal("no violation of it is planted: add one to plants")
			}
			address := copyOf(t, healthy)
			behindTheBack(t, address, plant)
			code, out, stderr := quayside(t, env(address), "check", "--full")
			if code != exitFail || !strings.Contains(out, "BROKEN: "+inv.name+"\n  ") || !strings.Contains(out, fmt.Sprintf("of %d invariants are broken\n", len(invariants))) {
				t.Errorf("exit %d\n%s%s", code, out, stderr)
			}
			if n := strings.Count(out, "BROKEN: "); n > 1 {
				t.Logf("it breaks %d others as well", n-1)
			}
		})
	}
	t.Run("seals", func(t *testing.T) { comparesSeals(t, copyOf(t, healthy)) })
	for name := range plants {
		if !strings.Contains(fmt.Sprint(invariants), name) {
			t.Errorf("planted for nobody: %q", name)
		}
	}
}

// comparesSeals shows that whoever may write to the database can cut the end off
// the audit log so that it holds in itself, but not so that it has a seal which
// was written down elsewhere.
func comparesSeals(t *testing.T, address string) {
	t.Helper()
	env := map[string]string{"DATABASE_URL": address}
	_, out, _ := quayside(t, env, "check")
	_, seal, _ := strings.Cut(strings.TrimSpace(out), "its last seal is ")
	if code, out, stderr := quayside(t, env, "check", "--seal", seal); code != 0 {
		t.Errorf("%s: exit %d\n%s%s", seal, code, out, stderr)
	}
	behindTheBack(t, address, `DELETE FROM audit_log WHERE id = (SELECT entry_id FROM audit_seals ORDER BY number DESC LIMIT 1);
		DELETE FROM audit_seals WHERE number = (SELECT max(number) FROM audit_seals)`)
	if code, out, _ := quayside(t, env, "check"); code != 0 {
		t.Errorf("cut off: exit %d\n%s", code, out)
	}
	if code, out, _ := quayside(t, env, "check", "--seal", seal); code != exitFail || !strings.Contains(out, "BROKEN: the audit log does not have seal "+seal) {
		t.Errorf("cut off, compared: exit %d\n%s", code, out)
	}
	behindTheBack(t, address, `DELETE FROM audit_log WHERE id = (SELECT entry_id FROM audit_seals WHERE number = 2);
		DELETE FROM audit_seals WHERE number = 2`)
	if code, out, _ := quayside(t, env, "check"); code != exitFail || !strings.Contains(out, "\n  seal 3 of entry ") {
		t.Errorf("one taken out: exit %d\n%s", code, out)
	}
	for _, wrong := range []string{"1", "0:" + strings.Repeat("a", 64), "1:zz", "x:" + strings.Repeat("a", 64)} {
		if code, _, _ := quayside(t, env, "check", "--seal="+wrong); code != exitUsage {
			t.Errorf("--seal=%s: exit %d", wrong, code)
		}
	}
}

// Stock that differs from its ledger is told with the correction; --repair
// alone writes nothing, with --yes it writes what it said, once, and a case
// that is closed.
func TestCheckRepairs(t *testing.T) {
	w := newWorld(t)
	played(t, w)
	address := w.cfg.DatabaseURL.reveal()
	env := map[string]string{"DATABASE_URL": address}
	if code, out, _ := quayside(t, env, "check", "--repair"); code != 0 || !strings.HasPrefix(out, "nothing to repair: ") {
		t.Errorf("healthy: exit %d\n%s", code, out)
	}
	behindTheBack(t, address, `UPDATE products SET on_hand = on_hand + 3 WHERE sku = 'mug'`)
	before := w.fingerprint()
	was := w.levels("mug")
	const correction = "mug correct on_hand_delta +3 reserved_delta +0 (level 99/2, ledger 96/2)\n"
	if code, out, _ := quayside(t, env, "check", "--repair"); code != exitFail || !strings.HasPrefix(out, "would write: "+correction+"nothing was written: ") {
		t.Errorf("proposed: exit %d\n%s", code, out)
	}
	if w.fingerprint() != before {
		t.Error("a proposal has changed something")
	}
	if code, out, _ := quayside(t, env, "check", "--repair", "--yes"); code != 0 || !strings.HasPrefix(out, "wrote: "+correction+"all ") {
		t.Errorf("repaired: exit %d\n%s", code, out)
	}
	if got := w.text(`SELECT concat_ws(' ', code, state, closed_by, facts->>'correction') FROM cases`); got != "STOCK_DRIFT closed cli:check +3/+0" || w.levels("mug") != was {
		t.Errorf("case %s, levels %s, were %s", got, w.levels("mug"), was)
	}
	if code, out, _ := quayside(t, env, "check", "--repair", "--yes"); code != 0 || !strings.HasPrefix(out, "nothing to repair: ") {
		t.Errorf("again: exit %d\n%s", code, out)
	}
	if code, _, _ := quayside(t, env, "check", "--yes"); code != exitUsage {
		t.Errorf("--yes alone: exit %d", code)
	}
}

// A worker finds by itself that stock and ledger have parted, and a person
// repairs it through the API.
func TestStockDriftOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.stock("mug", 10)
	w.tell("payment.completed", w.open("1001", "mug"))
	behindTheBack(t, w.cfg.DatabaseURL.reveal(), `UPDATE products SET on_hand = on_hand - 1 WHERE sku = 'mug'`)
	w.work()
	c := w.caseOf("STOCK_DRIFT")
	if c.Blocks || strings.Join(c.Actions, " ") != "repair" || c.Facts["correction"] != "-1/+0" {
		t.Errorf("case: %+v", c)
	}
	if after := w.resolve(c, map[string]string{"action": "repair", "note": "counted"}); after.State != "closed" {
		t.Errorf("decided: %+v", after)
	}
	var page struct {
		Data []struct {
			Kind, Cause, Reason string
			OnHandDelta         int64 `json:"on_hand_delta"`
		}
	}
	w.must(w.shop.call(t.Context(), http.MethodGet, "/api/v1/products/mug/movements?limit=1", nil, &page))
	if got := fmt.Sprint(page.Data); got != "[{correct admin:bootstrap counted -1}]" {
		t.Errorf("ledger: %s", got)
	}
	w.stands("1001", "paid/paid/queued")
	w.quiet()
}

// played makes one order of each kind, through the service, and stops it.
func played(t *testing.T, w *world) {
	t.Helper()
	t.Run("some trade", func(t *testing.T) {
		w := *w
		w.t = t
		w.serve()
		w.work()
		w.stock("mug", 100)
		w.open("open", "mug")
		w.tell("payment.completed", w.open("paid", "mug"))
		w.tell("payment.completed", w.open("shipped", "mug"))
		w.tell("payment.expired", w.open("expired", "mug"))
		w.stands("paid", "paid/paid/queued")
		w.stands("shipped", "paid/paid/queued")
		w.stands("expired", "expired/unpaid/none")
		w.must(w.shop.call(t.Context(), http.MethodPost, "/api/v1/orders/shipped/shipments", map[string]any{}, nil))
		w.await("the seals", func() bool { return w.count(`SELECT count(*) FROM audit_unsealed`) == 0 })
	})
}

// copyOf makes a copy of a database that is dropped when the test ends.
func copyOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	original := strings.TrimPrefix(u.Path, "/")
	duplicate := original + "_" + randomHex(3)
	u.Path = "/postgres"
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		t.Fatal(err)
	}
	do := func(statement string) {
		if _, err := db.ExecContext(context.Background(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	do(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '` + original + `'`)
	do(`CREATE DATABASE ` + duplicate + ` TEMPLATE ` + original)
	t.Cleanup(func() {
		do(`DROP DATABASE ` + duplicate + ` WITH (FORCE)`)
		_ = db.Close()
	})
	u.Path = "/" + duplicate
	return u.String()
}

// behindTheBack runs statements with triggers and foreign keys off.
func behindTheBack(t *testing.T, address, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tag, err := conn.Exec(t.Context(), `SET session_replication_role = replica`)
	for statement := range strings.SplitSeq(statements, ";") {
		if err == nil {
			tag, err = conn.Exec(t.Context(), statement)
		}
	}
	if err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %d rows, %v", statements, tag.RowsAffected(), err)
	}
}
