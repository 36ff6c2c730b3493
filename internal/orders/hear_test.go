package orders

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
)

// An event leaves its rows: the payment, the order, a step that names the
// event, a request to ship, a letter; bells ring after the commit.
func TestHear(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	created := s.of("1001", news(PaymentCreatedEvent, "a").to("rShop", 4294967295))
	paid := s.of("1001", completed("a", "12345678901234567.123456789012345678"))
	s.must(func(tx database.Tx) error {
		verdicts, err := s.book.Hear(tx, []News{created, paid})
		s.want("verdicts", fmt.Sprint(verdicts), "[{applied } {applied }]")
		if rung := s.bell.Rung(); len(rung) != 0 {
			t.Errorf("rang before the commit: %v", rung)
		}
		return err
	})
	s.want("order", s.status("1001")+" "+s.stock("mug"), "paid overpaid queued committed 8/0")
	s.want("row", one[string](s, `SELECT concat_ws(' ', got, refund_due, payment_id, tx_hash, pay_address, destination_tag, paid_at = ?) FROM orders`, opening),
		"12345678901234567.123456789012345678 12345678901234557.123456789012345678 a HASH-a rShop 4294967295 t")
	s.want("payment", one[string](s, `SELECT concat_ws(' ', id, order_id, created_seen, coalesce(pending_seen, -1), completed_seen, amount, currency, tx_hash, counted, completed_at = ?) FROM payments`, opening),
		"a 1001 100 -1 500 12345678901234567.123456789012345678 XRP HASH-a matched t")
	s.want("timeline", one[string](s, `SELECT string_agg(concat_ws(' ', seq, kind, cause, was, became, coalesce(inbox_id::text, '-')), ', ' ORDER BY seq) FROM timeline`),
		fmt.Sprintf("1 opened admin:test pending -, 2 payment.created event:%s pending pending %s, 3 payment.completed event:%s pending paid %s",
			created.Key, created.InboxID, paid.Key, paid.InboxID))
	s.want("request", one[string](s, `SELECT concat_ws(' ', r.provider, r.state, l.line) FROM shipment_requests r JOIN shipment_request_lines l ON l.request_id = r.id`), "carrier queued 1")
	s.want("bells", fmt.Sprint(s.bell.Rung()), "[notify.send orders.fulfil]")
}

// A transaction that is rolled back leaves nothing of what was heard.
func TestHearRolledBack(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	n := s.of("1001", completed("a", "11"))
	count := func() string {
		return one[string](s, `SELECT concat_ws(' ', (SELECT count(*) FROM payments), (SELECT count(*) FROM timeline), (SELECT count(*) FROM cases),
			(SELECT count(*) FROM letters), (SELECT count(*) FROM stock_movements), (SELECT count(*) FROM shipment_requests), (SELECT md5(o::text) FROM orders o))`)
	}
	before := count()
	err := s.try(func(tx database.Tx) error {
		if _, err := s.book.Hear(tx, []News{n}); err != nil {
			t.Error(err)
		}
		return errRollBack
	})
	if !errors.Is(err, errRollBack) || count() != before || len(s.bell.Rung()) != 0 {
		t.Errorf("%v; %s, before %s; rang %v", err, count(), before, s.bell.Rung())
	}
	s.hear(n)
	s.want("again", s.status("1001")+" "+s.stock("mug"), "paid overpaid queued committed 8/0")
}

// The same events again change nothing but the timeline.
func TestHearTwice(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", news(PaymentPendingEvent, "a")), s.of("1001", completed("a", "11")))
	state := func() string {
		return s.status("1001") + " " + s.stock("mug") + " " + s.letters("1001") + " " + s.cases("1001") +
			one[string](s, `SELECT concat_ws(' ', got, refund_due, (SELECT count(*) FROM shipment_requests)) FROM orders`)
	}
	before := state()
	s.hear(s.of("1001", completed("a", "11.0")), s.of("1001", news(PaymentPendingEvent, "a")))
	s.hear(s.of("1001", completed("a", "11.00")))
	s.want("again", state(), before)
}

// A batch is thought through event by event: an event may lean on the link
// that an earlier one of the batch has made, whatever it moves.
func TestBatch(t *testing.T) {
	s := newShop(t)
	s.product("mug", 2)
	s.open(draft("1001", "mug"))
	v := s.hear(s.of("1001", news(PaymentCreatedEvent, "a")), s.of("", completed("a", "10")), s.of("1002", news(PaymentFailedEvent, "a")))
	if v[0].State != Applied || v[1].State != Applied || v[2].State != Quarantined {
		t.Errorf("%+v", v)
	}
	s.want("paid by link", s.status("1001")+" "+s.cases("1001")+" "+s.stock("mug"), "paid paid on_hold committed ORDER_MISMATCH! 0/0")

	// The last mug of the batch goes to the event that comes first.
	s.product("pot", 2)
	s.open(draft("a", "pot"))
	s.hear(s.of("a", news(PaymentExpiredEvent, "pa")))
	s.open(draft("b", "pot"))
	s.hear(s.of("b", news(PaymentExpiredEvent, "pb")))
	s.hear(s.of("b", completed("pb", "10")), s.of("a", completed("pa", "10")))
	s.want("first", s.status("b"), "paid paid queued committed")
	s.want("second", s.status("a")+" "+s.cases("a"), "paid paid on_hold none STOCK_GONE!")
}

// An event whose data is not about any order here waits, and links nothing.
func TestParked(t *testing.T) {
	s := newShop(t)
	v := s.hear(s.of("1001", completed("a", "10")), s.of("", news(PaymentCreatedEvent, "a")))
	if v[0].State != Parked || v[1].State != Parked || one[int](s, `SELECT count(*) FROM payments`) != 0 {
		t.Errorf("%+v", v)
	}
}

// A shop that becomes more tolerant settles orders with whatever they hear next.
func TestToleranceRaised(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "9.5")))
	s.want("before", s.status("1001"), "pending underpaid none reserved")
	s.book.terms.Tolerance = decimal.NewFromInt(1)
	s.hear(s.of("1001", news(PaymentCreatedEvent, "a")))
	s.want("after", s.status("1001")+" "+s.stock("mug"), "paid paid queued committed 8/0")
}

// In one batch a transaction counts for the payment that names it first.
func TestOneTransactionInABatch(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	s.hear(s.of("1002", completed("b", "10").hash("ab12")), s.of("1001", completed("a", "10").hash("AB12")))
	s.want("first", s.status("1002"), "paid paid queued committed")
	s.want("second", s.status("1001")+" "+s.cases("1001"), "pending unpaid none reserved TX_REUSED!")
	s.hear(s.of("1001", completed("c", "10").hash("aB12")))
	s.want("and later", one[string](s, `SELECT string_agg(id || ' ' || counted, ', ' ORDER BY id) FROM payments`), "a reused, b matched, c reused")
}

// Two workers apply payments of two orders that name one transaction, neither
// seeing the other: exactly one counts, the other is a case.
func TestOneTransactionAtOnce(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	a, b := s.of("1001", completed("a", "10").hash("AB12")), s.of("1002", completed("b", "10").hash("ab12"))
	s.whileWaiting(
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{a}); return err },
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{b}); return err })
	s.want("first", s.status("1001")+" "+s.cases("1001"), "paid paid queued committed ")
	s.want("second", s.status("1002")+" "+s.cases("1002"), "pending unpaid none reserved TX_REUSED!")
}

// Two workers apply the first events of one payment, which name different
// orders: one makes the link, the other is a mismatch on that order; none is lost.
func TestTwoOrdersOfOnePaymentAtOnce(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	a, b := s.of("1001", completed("a", "10")), s.of("1002", completed("a", "10"))
	var second []Verdict
	s.whileWaiting(
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{a}); return err },
		func(tx database.Tx) (err error) { second, err = s.book.Hear(tx, []News{b}); return err })
	if len(second) != 1 || second[0].State != Quarantined {
		t.Errorf("second: %+v", second)
	}
	s.want("linked", s.status("1001")+" "+s.cases("1001"), "paid paid on_hold committed ORDER_MISMATCH!")
	s.want("other", s.status("1002")+" "+s.cases("1002"), "pending unpaid none reserved ")
}

// A payment may be linked after a batch looked and before it has its locks: the
// batch looks again.
func TestLinkedMeanwhile(t *testing.T) {
	s := newShopOf(t, 4, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	link, batch := s.of("1001", news(PaymentCreatedEvent, "a")), []News{s.of("1002", news(PaymentCreatedEvent, "b")), s.of("", completed("a", "10"))}
	s.whileWaiting(
		func(tx database.Tx) error { return tx.Exec(`SELECT FROM orders WHERE id = '1002' FOR UPDATE`).Error },
		func(tx database.Tx) error { _, err := s.book.Hear(tx, batch); return err },
		func() { s.hear(link) })
	s.want("linked", s.status("1001")+" "+s.stock("mug"), "paid paid queued committed 8/2")
}

// Two workers hear two payments of one order: the second sees what the first did.
func TestTwoPaymentsAtOnce(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	a, b := s.of("1001", completed("a", "4")), s.of("1001", completed("b", "6"))
	s.whileWaiting(
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{a}); return err },
		func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{b}); return err })
	s.want("order", s.status("1001")+" "+s.stock("mug")+" "+s.cases("1001"), "paid paid queued committed 8/0 ")
}

// The deadline passes at the very moment the money comes, again and again: the
// order is paid and has its goods, never expired with them nor paid without.
func TestExpireRacesCompleted(t *testing.T) {
	s := newShopOf(t, 4, Terms{})
	s.product("mug", 1000)
	const rounds = 200
	for i := range rounds {
		id := fmt.Sprint(i)
		s.open(draft(id, "mug"))
		n := s.of(id, completed("pay_"+id, "10"))
		s.clock.Add(30 * time.Minute)
		both(
			func() { s.hear(n) },
			func() {
				for range i % 5 { // so that either may come first
					_ = s.db.Ping(context.Background())
				}
				if _, err := s.book.Expire(context.Background(), 100); err != nil {
					t.Error(err)
				}
			})
		if got := s.status(id); got != "paid paid queued committed" {
			t.Fatalf("round %d: %s", i, got)
		}
	}
	s.want("stock", s.stock("mug"), "600/0")
	t.Logf("expired first in %d of %d rounds", one[int](s, `SELECT count(*) FROM cases WHERE code = 'LATE_PAID'`), rounds)
}

// Ten thousand orders meet their deadline while their money comes in batches:
// every one is paid and has its goods, whichever came first.
func TestTenThousandDeadlinesRaceTheirMoney(t *testing.T) {
	const orders, batch = 10_000, 50
	s := newShopOf(t, 6, Terms{})
	s.product("mug", 2*orders)
	var told []News
	var ids []uuid.UUID
	for i := 0; i < orders; i += batch {
		s.must(func(tx database.Tx) error {
			for j := i; j < i+batch; j++ {
				if _, err := s.book.Open(tx, draft(fmt.Sprint(j), "mug"), "admin:test"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range orders {
		n := completed(fmt.Sprint("pay_", i), "10")
		n.OrderRef, n.Key, n.InboxID = fmt.Sprint(i), fmt.Sprint("evt_", i), uuid.New()
		told, ids = append(told, n), append(ids, n.InboxID)
	}
	if _, err := s.db.Exec(t.Context(), `INSERT INTO inbox (id, key, body, digest, secret_label, received_at, last_seen_at)
		SELECT id, 'evt_' || id, '{}', sha256(id::text::bytea), 'test', $2, $2 FROM unnest($1::uuid[]) id`, ids, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	rand.Shuffle(orders, func(i, j int) { told[i], told[j] = told[j], told[i] })
	s.clock.Add(30 * time.Minute)
	batches := slices.Collect(slices.Chunk(told, batch))
	var all sync.WaitGroup
	for half := range 2 {
		all.Go(func() {
			for i := half; i < len(batches); i += 2 {
				s.hear(batches[i]...)
			}
		})
	}
	all.Go(func() {
		for n := 1; n > 0; {
			var err error
			if n, err = s.book.Expire(context.Background(), batch); err != nil {
				t.Error(err)
				return
			}
		}
	})
	all.Wait()
	s.want("orders", one[string](s, `SELECT string_agg(DISTINCT concat_ws(' ', status, payment_status, stock, trim_scale(got)), ', ') || ': ' || count(*) FROM orders`), "paid paid committed 10: 10000")
	s.want("stock", s.stock("mug"), "0/0")
	s.want("taken", one[string](s, `SELECT concat(-sum(on_hand_delta) FILTER (WHERE kind = 'commit'), ' ', sum(reserved_delta)) FROM stock_movements`), "20000 0")
	late := one[int](s, `SELECT count(*) FROM cases WHERE code = 'LATE_PAID'`)
	if late == 0 || late == orders {
		t.Errorf("%d of %d expired first: that was no race", late, orders)
	}
	t.Logf("%d of %d expired first", late, orders)
}

// Cancelling and paying at the same moment ends cancelled, with the money due back and the goods on the shelf.
func TestCancelRacesCompleted(t *testing.T) {
	s := newShopOf(t, 4, Terms{})
	s.product("mug", 10)
	for i := range 50 {
		id := fmt.Sprint(i)
		s.open(draft(id, "mug"))
		n := s.of(id, completed("pay_"+id, "10"))
		both(func() { s.hear(n) }, func() {
			if err := s.cancel(id); err != nil {
				t.Error(err)
			}
		})
		s.want(id, s.status(id)+" "+s.cases(id)+" "+s.stock("mug"), "cancelled refund_due none none CANCELLED_PAID 10/0")
	}
}

// An order may reserve, give back and reserve again; each time is a
// reservation of its own in the ledger.
func TestReservations(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	for _, payment := range []string{"a", "b"} {
		s.hear(s.of("1001", news(PaymentExpiredEvent, payment)))
		s.want("given back", s.status("1001")+" "+s.stock("mug"), "expired unpaid none none 10/0")
		s.hear(s.of("1001", news(PaymentCreatedEvent, payment+"2")))
		s.want("reserved again", s.status("1001")+" "+s.stock("mug"), "pending unpaid none reserved 10/2")
		s.hear(s.of("1001", news(PaymentFailedEvent, payment+"2"))) // an expired one remains
	}
	s.hear(s.of("1001", completed("c", "10")))
	if err := s.cancel("1001"); err != nil {
		t.Error(err)
	}
	s.want("ledger", one[string](s, `SELECT string_agg(split_part(effect_key, '/', 3) || ' ' || kind, ', ' ORDER BY id) FROM stock_movements WHERE order_id = '1001'`),
		"1 reserve, 1 release, 2 reserve, 2 release, 3 reserve, 3 release, 4 reserve, 4 commit, 4 return")
}

// Raising an alarm twice keeps one case; Quiet closes it, and a decided one stays decided.
func TestAlarms(t *testing.T) {
	s := newShop(t)
	alarm := Alarm{Code: UnknownOrder, About: "pay_1", PaymentID: "pay_1", InboxID: s.of("", completed("pay_1", "10")).InboxID, Summary: "Nobody knows it."}
	raise := func() {
		s.must(func(tx database.Tx) error { return s.book.Raise(tx, []Alarm{alarm, alarm}[:1]) })
	}
	state := func() string {
		return one[string](s, `SELECT string_agg(concat_ws(' ', key, severity, blocks, state, closed_by, resolution), ', ') FROM cases`)
	}
	raise()
	raise()
	s.want("raised", state(), "UNKNOWN_ORDER/pay_1 critical f open")
	s.must(func(tx database.Tx) error { return s.book.Quiet(tx, []string{alarm.Key(), "UNKNOWN_ORDER/other"}) })
	s.want("quiet", state(), "UNKNOWN_ORDER/pay_1 critical f closed quayside settled itself")
	raise()
	s.want("raised after", state(), "UNKNOWN_ORDER/pay_1 critical f closed quayside settled itself")
}

// Trouble about an order that does not exist yet holds it once it does.
func TestTroubleBeforeTheOrder(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	n := s.of("1001", news(PaymentFailedEvent, "a"))
	n.Trouble = &Trouble{UnreadableEvent, "nonsense"}
	s.hear(n)
	s.hear(s.of("", n)) // and one about nothing at all
	s.pay("1001", "mug")
	s.want("held", s.status("1001")+" "+s.cases("1001"), "paid paid on_hold committed UNREADABLE_EVENT!")
	s.want("cases", one[string](s, `SELECT count(*)::text FROM cases`), "2")
}
