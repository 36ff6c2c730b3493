package webhooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/orders"
)

// crowd opens n orders and stores a completed payment for each, ten XRP.
func (s *shop) crowd(n int) (keys []string) {
	s.t.Helper()
	s.product("mug", int64(10*n))
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("o%03d", i))
	}
	s.orders("mug", ids...)
	var done sync.WaitGroup
	for i, id := range ids {
		key := fmt.Sprintf("evt_%03d", i)
		done.Go(func() { s.accept(event(key, "payment.completed", "pay_"+id, id, "10.00")) })
		keys = append(keys, key)
	}
	done.Wait()
	return keys
}

// poison makes Postgres refuse a row of a table with an error of that class.
func (s *shop) poison(table, when, class string) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'poison' USING ERRCODE = '%s'; END $$`, class))
	s.exec(fmt.Sprintf(`CREATE OR REPLACE TRIGGER poison BEFORE INSERT OR UPDATE ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION poison()`, table, when))
}

// paid counts the orders that are.
func (s *shop) paid() int {
	s.t.Helper()
	return one[int](s, `SELECT count(*) FROM orders WHERE status = 'paid' AND stock = 'committed'`)
}

// sound fails the test when stock, ledger, money and open rows do not add up.
func (s *shop) sound() {
	s.t.Helper()
	is(s.t, "products that differ from their ledger", one[int](s, `SELECT count(*) FROM products p WHERE (on_hand, reserved) <>
		(SELECT sum(on_hand_delta), sum(reserved_delta) FROM stock_movements m WHERE m.sku = p.sku)`), 0)
	is(s.t, "orders that differ from their payments", one[int](s, `SELECT count(*) FROM orders o WHERE got <>
		(SELECT COALESCE(sum(amount - refunded - kept), 0) FROM payments p WHERE p.order_id = o.id AND counted = 'matched')`), 0)
	is(s.t, "events neither settled nor open", one[int](s, `SELECT count(*) FROM inbox i LEFT JOIN inbox_open o ON o.inbox_id = i.id WHERE (i.outcome IS NULL) = (o.inbox_id IS NULL)`), 0)
}

// A batch of many orders is applied in one call and one transaction, each event once.
func TestApplyBatch(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(64)
	for range 2 { // the second time there is nothing to do
		if err := s.apply(keys...); err != nil {
			t.Fatal(err)
		}
		is(t, "paid", s.paid(), 64)
		is(t, "stock", s.stock("mug"), "512/0")
		is(t, "transactions", one[int](s, `SELECT count(DISTINCT xmin::text) FROM payments`), 1)
	}
	s.sound()
}

// An event whose data the database refuses is set aside with a case and its
// order held; the 63 beside it are applied.
func TestPoisonIsQuarantined(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(64)
	s.poison("payments", "NEW.order_id = 'o017'", "check_violation")
	if err := s.apply(keys...); err != nil {
		t.Error(err)
	}
	is(t, "paid", s.paid(), 63)
	is(t, "event", s.state("evt_017"), "quarantined")
	is(t, "cases", s.cases(), "UNREADABLE_EVENT/evt_017 of o017!")
	is(t, "order", s.status("o017"), "pending/unpaid/none/reserved")
	s.sound()
}

// Even when the order itself cannot be written, not for the case either, the
// event is set aside, with a case that names the order.
func TestPoisonOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(8)
	s.poison("orders", "NEW.id = 'o003'", "check_violation")
	if err := s.apply(keys...); err != nil {
		t.Error(err)
	}
	is(t, "paid", s.paid(), 7)
	is(t, "event", s.state("evt_003"), "quarantined")
	is(t, "cases", s.cases(), "UNREADABLE_EVENT/evt_003 of o003!")
	s.sound()
}

// When what follows for the order cannot be written, here its stock because its
// time is over, the event is set aside all the same, and the order's timeline
// tells of its hold.
func TestPoisonStock(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(1)
	s.clock.Add(time.Hour)
	s.poison("stock_movements", "true", "check_violation")
	is(t, "apply", s.apply(keys...), nil)
	is(t, "event", s.state("evt_000"), "quarantined")
	is(t, "cases", s.cases(), "UNREADABLE_EVENT/evt_000 of o000!")
	is(t, "order", s.status("o000"), "pending/unpaid/none/reserved")
	is(t, "timeline", one[string](s, `SELECT string_agg(kind || ' ' || cause, ', ' ORDER BY seq) FROM timeline`), "opened admin:test, event_set_aside event:evt_000")
	s.exec(`DROP TRIGGER poison ON stock_movements`)
	s.replayed("evt_000", "the disk has room again")
	s.work()
	is(t, "later", s.status("o000")+" "+s.cases(), "paid/paid/queued/committed (UNREADABLE_EVENT/evt_000 of o000!)")
	s.sound()
}

// A dead event that names no order is revived by another delivery; when it is
// applied then, its case closes, although no order's lock covers it.
func TestDeadWithoutOrderRevived(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	body := inside(t, event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), `"order_id":"1001"`, "")
	s.accept(body)
	s.exec(`UPDATE inbox_open SET attempts = 12`)
	is(t, "bury", s.apply("evt_1"), nil)
	is(t, "dead", s.state("evt_1")+" "+s.cases(), "dead EVENT_DEAD/evt_1!")
	s.order("1001", "mug")
	s.accept(event("evt_2", "payment.created", "pay_1", "1001", "10.00"))
	s.work()
	is(t, "still dead", s.state("evt_1"), "dead")
	s.expect(body, "200 Already processed")
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "case", s.state("evt_1")+" "+s.cases(), "applied (EVENT_DEAD/evt_1!)")
	s.sound()
}

// An error nobody knows postpones its event alone, four times for 1 s and then
// four times longer each time, to 5 min; after 12 attempts it is dead, with a case. The
// others were applied at once. Replayed by a delivery, it works.
func TestPoisonDies(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(8)
	s.poison("payments", "NEW.order_id = 'o003'", "raise_exception")
	err := s.apply(keys...)
	if err == nil || !strings.Contains(err.Error(), "poison") {
		t.Errorf("error: %v", err)
	}
	is(t, "paid", s.paid(), 7)
	open := func() string {
		return one[string](s, `SELECT state || ' ' || attempts || ' ' || extract(epoch FROM not_before - ?::timestamptz)::int FROM inbox_open`, s.clock.Now())
	}
	for attempt := 1; attempt <= 12; attempt++ {
		wait := []int{1, 1, 1, 1, 4, 16, 64, 256, 300, 300, 300, 300}[attempt-1]
		is(t, "row", open(), fmt.Sprint("received ", attempt, " ", wait))
		is(t, "reason", strings.Contains(s.reason("evt_003"), "poison"), true)
		s.clock.Add(time.Duration(wait)*time.Second - time.Millisecond)
		is(t, "too early", s.apply("evt_003"), nil)
		is(t, "row", open()[:len("received 1")], fmt.Sprint("received ", attempt)[:len("received 1")])
		s.clock.Add(time.Millisecond)
		if err := s.apply("evt_003"); (err == nil) != (attempt == 12) {
			t.Errorf("attempt %d: %v", attempt+1, err)
		}
	}
	is(t, "state", s.state("evt_003"), "dead")
	is(t, "reason", s.reason("evt_003"), "12 attempts to apply it failed")
	is(t, "cases", s.cases(), "EVENT_DEAD/evt_003 of o003!")
	s.clock.Add(time.Hour)
	is(t, "nobody tries again", errors.Join(s.apply("evt_003"), s.in.Work(t.Context())), nil)
	is(t, "state", s.state("evt_003"), "dead")

	s.exec(`DROP TRIGGER poison ON payments`)
	s.expect(event("evt_003", "payment.completed", "pay_o003", "o003", "10.00"), "200 Already processed")
	s.work()
	is(t, "state", s.state("evt_003"), "applied")
	s.sound()
}

func (s *shop) reason(key string) string {
	s.t.Helper()
	return one[string](s, `SELECT reason FROM events WHERE key = ?`, key)
}

// An event that cannot even be buried beside its order is dead all the same,
// and its attempts never grow into a bound that stops others.
func TestPoisonOrderDies(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(8)
	s.poison("orders", "NEW.id = 'o003'", "raise_exception")
	_ = s.apply(keys...)
	s.exec(`UPDATE inbox_open SET attempts = 12`)
	s.clock.Add(time.Hour)
	is(t, "bury", s.apply("evt_003"), nil)
	is(t, "state", s.state("evt_003")+" "+s.cases(), "dead EVENT_DEAD/evt_003 of o003!")

	s.accept(event("evt_a", "payment.pending", "pay_a", "o001", "10"), event("evt_b", "payment.pending", "pay_b", "o002", "10"))
	s.exec(`UPDATE inbox_open SET attempts = 1000 WHERE state = 'received' AND inbox_id = $1`, s.inboxID("evt_a").String())
	is(t, "at the bound", s.apply("evt_a", "evt_b"), nil)
	is(t, "states", s.state("evt_a")+" "+s.state("evt_b"), "dead applied")
}

// While somebody else holds the order, its event waits a moment and is applied
// later; a wait is not a refusal, however often it comes.
func TestLockedOrderIsPostponed(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(4)
	release := s.hold(`SELECT 1 FROM orders WHERE id = 'o002' FOR UPDATE`)
	s.exec(`UPDATE inbox_open SET attempts = 11 WHERE inbox_id = $1`, s.inboxID("evt_002").String())
	for range 2 { // with an attempt that counts the second would make it dead
		s.clock.Add(time.Second)
		if err := s.apply(keys...); err == nil {
			t.Error("no error")
		}
	}
	release()
	is(t, "state", s.state("evt_002")+s.cases(), "received")
	is(t, "postponed", one[bool](s, `SELECT not_before > ? AND attempts = 11 AND reason <> '' FROM events WHERE key = 'evt_002'`, s.clock.Now()), true)
	s.work()
	is(t, "paid", s.paid(), 4)
	s.sound()
}

// An event that was tried before runs in a transaction of its own, so that one
// that ends its process takes no neighbours along; fresh ones share theirs.
func TestTriedBeforeRunsAlone(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(6)
	for _, key := range keys[2:4] {
		s.crash(key)
	}
	s.clock.Add(2 * time.Second)
	if err := s.apply(keys...); err != nil {
		t.Fatal(err)
	}
	is(t, "transactions", one[int](s, `SELECT count(DISTINCT xmin::text) FROM payments`), 3)
	is(t, "alone", one[string](s, `SELECT string_agg(ids, ' ' ORDER BY ids) FROM (SELECT string_agg(id, ',' ORDER BY id) AS ids FROM payments GROUP BY xmin::text) AS x`),
		"pay_o000,pay_o001,pay_o004,pay_o005 pay_o002 pay_o003")
}

// crash claims an event and gets no further, as a process does that is killed.
func (s *shop) crash(key string) {
	s.t.Helper()
	claimed, err := s.in.claim(context.Background(), []uuid.UUID{s.inboxID(key)})
	if err != nil || len(claimed) != 1 {
		s.t.Fatalf("claimed %v, %v", claimed, err)
	}
}

// A worker killed between claim and apply has used up an attempt, leaves no
// effect, and another one applies the event within two seconds; killed every
// time, the event is dead after 12.
func TestCrashAfterClaim(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(2)
	s.crash(keys[0])
	is(t, "attempts", one[string](s, `SELECT state || ' ' || attempts FROM events WHERE key = ?`, keys[0]), "received 1")
	is(t, "nothing applied", s.count("payments"), 0)
	s.work()
	is(t, "paid", s.paid(), 2)

	s.accept(event("evt_killer", "payment.pending", "pay_k", "o000", "10"))
	for range maxAttempts {
		s.crash("evt_killer")
		s.clock.Add(2 * time.Second)
	}
	s.work()
	is(t, "killer", s.state("evt_killer")+" "+s.cases(), "dead EVENT_DEAD/evt_killer of o000!")
	s.sound()
}

// A panic while an event is thought about is an error of that event alone.
func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	keys := s.crowd(3)
	book := s.in.book
	s.in.book = nil // a nil book panics
	err := s.apply(keys...)
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("error: %v", err)
	}
	is(t, "states", s.states(), "evt_000 received, evt_001 received, evt_002 received")
	is(t, "reason", strings.HasPrefix(s.reason("evt_001"), "panic: ") && !strings.Contains(s.reason("evt_001"), "\n"), true)
	s.in.book = book
	s.work()
	is(t, "paid", s.paid(), 3)
	if inUse, _, _ := s.db.Stats(); inUse != 0 {
		t.Errorf("%d connections were not given back", inUse)
	}
}

// Twenty workers that were rung for the same events at once: every effect once,
// no attempt wasted into a dead event.
func TestTwentyWorkers(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 20 })
	keys := s.crowd(40)
	var ids []uuid.UUID
	for _, key := range keys {
		ids = append(ids, s.inboxID(key))
	}
	var start, done sync.WaitGroup
	start.Add(1)
	for range 20 {
		done.Go(func() {
			start.Wait()
			if err := s.in.Apply(context.Background(), ids); err != nil {
				t.Error(err)
			}
		})
	}
	start.Done()
	done.Wait()
	s.work()
	is(t, "paid", s.paid(), 40)
	is(t, "steps", one[int](s, `SELECT count(*) FROM timeline WHERE kind = 'payment.completed'`), 40)
	is(t, "letters", one[int](s, `SELECT count(*) FROM letters WHERE kind = 'payment_confirmed'`), 40)
	is(t, "cases", s.cases(), "")
	s.sound()
}

// Two workers in one event at once: the second finds the row taken, does
// nothing and does not wait.
func TestRowInOtherHands(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	keys := s.crowd(2)
	release := s.hold(fmt.Sprintf(`SELECT 1 FROM inbox_open WHERE inbox_id = '%s' FOR UPDATE`, s.inboxID(keys[0])))
	defer release()
	start := time.Now()
	ids := []uuid.UUID{s.inboxID(keys[0]), s.inboxID(keys[1])}
	is(t, "apply", errors.Join(s.in.Apply(t.Context(), ids), s.in.apply(t.Context(), ids[:1])), nil)
	is(t, "bury", s.in.bury(t.Context(), ids[0]), nil)
	if took := time.Since(start); took > 2*time.Second { // lock_timeout
		t.Errorf("it waited %v", took)
	}
	is(t, "states", s.states(), "evt_000 received, evt_001 applied")
	release()
	s.work()
	is(t, "paid", s.paid(), 2)
	s.sound()
}

// Two transactions at once on one row, past the claim: the lock lets one in.
func TestRowLock(t *testing.T) {
	t.Parallel()
	s := newShop(t, func(s *setup) { s.conns = 4 })
	key := s.crowd(1)[0]
	ids := []uuid.UUID{s.inboxID(key)}
	err := s.db.InTx(t.Context(), func(tx database.Tx) error {
		mine, err := lockRows(tx, ids)
		is(t, "mine", len(mine), 1)
		return errors.Join(err, s.db.InTx(t.Context(), func(tx database.Tx) error {
			theirs, err := lockRows(tx, ids)
			is(t, "theirs", len(theirs), 0)
			return err
		}))
	})
	is(t, "error", err, nil)
}

// Events of one order in one batch are applied in the order of arrival, also
// when one makes the link that the next one needs.
func TestBatchOfOneOrder(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	var keys []string
	for i, typ := range []string{"created", "pending", "failed", "completed"} {
		body := event(fmt.Sprint("evt_", i), "payment."+typ, "pay_1", "1001", "10.00")
		if typ == "completed" {
			body = inside(t, body, `"order_id":"1001"`, "") // known by its payment only
		}
		s.accept(body)
		keys = append(keys, fmt.Sprint("evt_", i))
	}
	err := s.apply(keys...)
	is(t, "states", s.states(), "evt_0 applied, evt_1 applied, evt_2 applied, evt_3 applied")
	is(t, "error", err, nil)
	is(t, "order", s.status("1001")+" "+s.stock("mug"), "paid/paid/queued/committed 3/0")
	is(t, "timeline", one[string](s, `SELECT string_agg(kind || ' ' || became, ', ' ORDER BY seq) FROM timeline`),
		"opened pending, payment.created pending, payment.pending pending, payment.failed payment_failed, payment.completed paid")
}

// An unknown type raises a case only when it could be about money; a test
// event of PayQI never does, whatever its type, order and content.
func TestIgnored(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 5)
	s.order("1001", "mug")
	before := s.everything()
	for i, c := range []struct{ typ, payment string }{
		{"account.updated", "pay_1"},
		{"payment", "pay_1"},
		{"payments.completed", "pay_1"},
		{"payment.completed", "pay_test_1"},
		{"payment.refunded", "pay_test_1"},
		{"payment.failed", "pay_test_"},
		{"payment.expired", "pay_test_2"},
		{"ping", ""},
	} {
		s.accept(event(fmt.Sprint("evt_", i), c.typ, c.payment, "1001", "10.00"))
	}
	s.accept(inside(t, event("evt_odd", "payment.completed", "pay_test_9", "1001", "10.00"), "10.00", `"lots"`, `"completed"`, `"failed"`, `"XRP"`, "7"))
	s.expect(event("evt_3", "payment.failed", "pay_test_1", "1001", "10.00"), "200 Already processed") // contradicts, harmlessly
	s.work()
	is(t, "states", one[string](s, `SELECT string_agg(DISTINCT state, ',') FROM events`), "ignored")
	is(t, "order", s.everything(), before)

	for i, typ := range []string{"payment.refunded", "PAYMENT.Completed", "payment.completed ", "payment."} {
		s.accept(event(fmt.Sprint("evt_u", i), typ, "pay_1", "1001", "10.00"))
	}
	s.work()
	is(t, "cases", s.cases(), "UNKNOWN_TYPE/evt_u0, UNKNOWN_TYPE/evt_u1, UNKNOWN_TYPE/evt_u2, UNKNOWN_TYPE/evt_u3")
	is(t, "order", s.status("1001"), "pending/unpaid/none/reserved")
}

// Every body of the tables goes through HTTP and is applied, quarantined with
// its case, or ignored; what is not applied leaves no payment.
func TestReadingsApplied(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 1000)
	s.orders("mug", "12345", "012345", "-1", "0", "_", "A.b_c-9", "999999999999999999", strings.Repeat("1", 64))
	type expectation struct{ name, key, state, payment string }
	var want []expectation
	seen := map[string]bool{}
	for _, r := range allReadings(t) {
		e := parseEvent([]byte(r.body))
		if seen[e.Key] {
			continue
		}
		seen[e.Key] = true
		s.expect(r.body, "200 OK")
		x := expectation{r.name, e.Key, map[string]string{good: orders.Applied, damaged: orders.Quarantined, unknown: orders.Ignored}[r.want], e.PaymentID}
		if r.want == good && (e.OrderRef == "" || e.OrderRef == "no-such-order") {
			x.state = orders.Parked
		}
		want = append(want, x)
	}
	s.work()
	var rows []struct {
		Key, State     string
		Cases, Effects int
	}
	err := s.db.Read(t.Context()).Raw(`SELECT key, state, (SELECT count(*) FROM cases c WHERE c.key = 'UNREADABLE_EVENT/' || e.key) AS cases,
		(SELECT count(*) FROM timeline WHERE cause = 'event:' || e.key AND kind LIKE 'payment.%') AS effects FROM events e`).Scan(&rows).Error
	is(t, "read", err, nil)
	found := map[string]string{}
	for _, r := range rows {
		found[r.Key] = fmt.Sprint(r.State, " ", r.Cases, " ", r.Effects)
	}
	for _, x := range want {
		after := map[string]string{orders.Applied: " 0 1", orders.Quarantined: " 1 0"}[x.state]
		is(t, x.name, found[x.key], x.state+cmp.Or(after, " 0 0"))
	}
	is(t, "other codes", one[string](s, `SELECT string_agg(DISTINCT code, ' ' ORDER BY code) FROM cases`), "DUPLICATE_PAYMENT UNKNOWN_TYPE UNREADABLE_EVENT WRONG_CURRENCY")
	is(t, "wrong currency", one[int](s, `SELECT count(*) FROM cases WHERE code = 'WRONG_CURRENCY'`), 4) // MON 26, 27, 29, 30
	s.sound()
}

// One transaction counts once, for whichever payment names it first, also in
// other letters and also for two orders in one batch.
func TestTransactionReused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 50)
	s.orders("mug", "1001", "1002", "1003")
	for i, hash := range []string{"ABCDEF", "ABCDEF", "abcdef"} {
		s.accept(inside(t, event(fmt.Sprint("evt_", i), "payment.completed", fmt.Sprint("pay_", i), fmt.Sprint("100", i+1), "10.00"), fmt.Sprint("HASH-pay_", i), hash))
		if i == 1 {
			s.work()
		}
	}
	s.work()
	is(t, "orders", s.status("1001")+" "+s.status("1002")+" "+s.status("1003"), "paid/paid/queued/committed pending/unpaid/none/reserved pending/unpaid/none/reserved")
	is(t, "cases", s.cases(), "TX_REUSED/pay_1 of 1002!, TX_REUSED/pay_2 of 1003!")
	s.sound()
}

// Money for an order that cannot take it as planned: another customer's, a
// cancelled, a fulfilled, an expired one, and a payment that names another order.
func TestMoneyForOtherStates(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 50)
	s.orders("mug", "cancelled", "fulfilled", "expired", "linked", "other")
	s.accept(event("evt_f", "payment.completed", "pay_f", "fulfilled", "10.00"), event("evt_l", "payment.created", "pay_l", "linked", "10.00"))
	s.work()
	err := s.db.InTx(t.Context(), func(tx database.Tx) error {
		_, err := s.book.Cancel(tx, "cancelled", "admin:test", "no longer wanted")
		if err == nil {
			_, err = s.book.Ship(tx, "fulfilled", "admin:test", orders.Dispatch{Carrier: "DHL", TrackingNumber: "1"})
		}
		return err
	})
	is(t, "cancel and ship", err, nil)
	s.accept(event("evt_e", "payment.expired", "pay_e", "expired", "10.00"))
	s.work()
	is(t, "expired", s.status("expired"), "expired/unpaid/none/none")
	s.accept(
		event("evt_1", "payment.completed", "pay_c", "cancelled", "10.00"), event("evt_2", "payment.completed", "pay_g", "fulfilled", "10.00"),
		event("evt_3", "payment.completed", "pay_e", "expired", "10.00"), event("evt_4", "payment.completed", "pay_l", "other", "10.00"),
	)
	s.work()
	for order, want := range map[string]string{
		"cancelled": "cancelled/refund_due/none/none", "fulfilled": "fulfilled/overpaid/fulfilled/committed",
		"expired": "paid/paid/queued/committed", "linked": "pending/unpaid/none/reserved", "other": "pending/unpaid/none/reserved",
	} {
		is(t, order, s.status(order), want)
	}
	is(t, "cases", s.cases(), "CANCELLED_PAID/cancelled of cancelled, DUPLICATE_PAYMENT/pay_g of fulfilled, LATE_PAID/expired of expired, ORDER_MISMATCH/evt_4 of linked!")
	is(t, "mismatch", s.state("evt_4"), "quarantined")
	s.sound()
}
