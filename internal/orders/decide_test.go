package orders

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
)

// decide resolves the open case of an order with this code.
func (s *shop) decide(order string, code Code, what Decision) error {
	s.Helper()
	id := one[string](s, `SELECT coalesce(max(id::text), '') FROM cases WHERE order_id = ? AND code = ? AND state = 'open'`, order, code)
	if id == "" {
		s.Fatalf("order %s has no open case %s, only: %s", order, code, s.cases(order))
	}
	return s.try(func(tx database.Tx) error {
		_, err := s.book.Resolve(tx, uuid.MustParse(id), "admin:ada", what)
		return err
	})
}

func (s *shop) decided(order string, code Code, action string) {
	s.Helper()
	if err := s.decide(order, code, Decision{Action: action, Note: "because"}); err != nil {
		s.Errorf("%s of %s: %v", action, code, err)
	}
}

// money is the report in one line: received = applied + due + refunded + kept + unmatched.
func (s *shop) money(currency string) string {
	s.Helper()
	for _, m := range s.account() {
		if m.Currency == currency {
			return fmt.Sprintf("%v = %v + %v + %v + %v + %v", m.Received, m.Applied, m.RefundDue, m.Refunded, m.Kept, m.Unmatched)
		}
	}
	return "none"
}

func (s *shop) refunds(order string) string {
	s.Helper()
	return one[string](s, `SELECT coalesce(string_agg(trim_scale(amount) || ' ' || currency || ' ' || state || coalesce(' to ' || address, ''), ', ' ORDER BY id), '') FROM refunds WHERE order_id = ?`, order)
}

// Each action of each case that is about an order's money or goods: from what
// happened to what it leaves. The books balance after every one (balance).
func TestDecisions(t *testing.T) {
	part := func(s *shop) { s.open(draft("1001", "mug")); s.hear(s.of("1001", completed("a", "4.5"))) }
	over := func(s *shop) { s.open(draft("1001", "mug")); s.hear(s.of("1001", completed("a", "10.25"))) }
	twice := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", completed("a", "10").hash("AA01")), s.of("1001", completed("b", "10").hash("BB01")))
	}
	dollars := func(s *shop) { s.open(draft("1001", "mug")); s.hear(s.of("1001", completed("a", "10").in("USD"))) }
	elsewhere := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", news(PaymentCreatedEvent, "a").to("rShop", 7)), s.of("1001", completed("a", "10").to("rOther", 7)))
	}
	late := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
		s.hear(s.of("1001", completed("a", "10")))
	}
	gone := func(s *shop) {
		s.open(draft("1001", "mug", "tee"))
		s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
		s.must(func(tx database.Tx) error {
			_, err := s.book.Open(tx, draft("other", "mug"), "admin:test") // takes 2 of the mugs
			return err
		})
		s.adjust("mug", -8)
		s.hear(s.of("1001", completed("a", "10")))
	}
	cancelled := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.must(func(tx database.Tx) error { _, err := s.book.Cancel(tx, "1001", "admin:test", "no"); return err })
		s.hear(s.of("1001", completed("a", "10")))
	}
	regressed := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", completed("a", "10").at(500)), s.of("1001", news(PaymentFailedEvent, "a").at(501)))
	}
	changed := func(s *shop) {
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", completed("a", "10")), s.of("1001", completed("a", "11")))
	}
	reused := func(s *shop) {
		s.pay("other", "mug")
		s.open(draft("1001", "mug"))
		s.hear(s.of("1001", completed("a", "10").hash("CC01")))
		s.open(draft("1002", "mug"))
		s.hear(s.of("1002", completed("b", "10").hash("cc01")))
	}
	for _, tc := range []struct {
		name   string
		given  func(*shop)
		code   Code
		action string
		order  string // 1001 when empty
		status string // afterwards
		cases  string
		money  string // of XRP
		stock  string // of mugs
	}{
		{"too little, accepted", part, UnderpaidCase, actAccept, "", "paid paid queued committed", "", "4.5 = 4.5 + 0 + 0 + 0 + 0", "8/0"},
		{"too little, refunded", part, UnderpaidCase, actRefund, "", "cancelled refunded none none", "", "4.5 = 0 + 0 + 4.5 + 0 + 0", "10/0"},
		{"too little, waiting", part, UnderpaidCase, actWait, "", "pending underpaid none reserved", "UNDERPAID!", "4.5 = 4.5 + 0 + 0 + 0 + 0", "10/2"},
		{"too much, the excess refunded", over, OverpaidCase, actRefund, "", "paid paid queued committed", "", "10.25 = 10 + 0 + 0.25 + 0 + 0", "8/0"},
		{"too much, kept", over, OverpaidCase, actKeep, "", "paid paid queued committed", "", "10.25 = 10 + 0 + 0 + 0.25 + 0", "8/0"},
		{"twice, refunded", twice, DuplicatePayment, actRefund, "", "paid paid queued committed", "", "20 = 10 + 0 + 10 + 0 + 0", "8/0"},
		{"twice, kept", twice, DuplicatePayment, actKeep, "", "paid paid queued committed", "", "20 = 10 + 0 + 0 + 10 + 0", "8/0"},
		{"wrong currency, accepted", dollars, WrongCurrency, actAccept, "", "paid paid queued committed", "", "none", "8/0"},
		{"wrong currency, refunded", dollars, WrongCurrency, actRefund, "", "pending unpaid none reserved", "", "none", "10/2"},
		{"wrong address, matched", elsewhere, WrongAddress, actMatch, "", "paid paid queued committed", "", "10 = 10 + 0 + 0 + 0 + 0", "8/0"},
		{"wrong address, refunded", elsewhere, WrongAddress, actRefund, "", "pending unpaid none reserved", "", "10 = 0 + 0 + 10 + 0 + 0", "10/2"},
		{"late, seen", late, LatePaid, actAcknowledge, "", "paid paid queued committed", "", "10 = 10 + 0 + 0 + 0 + 0", "8/0"},
		{"goods gone, the rest ships", gone, StockGone, actPart, "", "paid overpaid queued committed", "OVERPAID", "10 = 5 + 5 + 0 + 0 + 0", "2/2"},
		{"goods gone, refunded", gone, StockGone, actRefund, "", "cancelled refunded none none", "", "10 = 0 + 0 + 10 + 0 + 0", "2/2"},
		{"goods gone, waiting", gone, StockGone, actWait, "", "paid paid on_hold none", "STOCK_GONE!", "10 = 10 + 0 + 0 + 0 + 0", "2/2"},
		{"paid when cancelled, refunded", cancelled, CancelledPaid, actRefund, "", "cancelled refunded none none", "", "10 = 0 + 0 + 10 + 0 + 0", "10/0"},
		{"paid when cancelled, kept", cancelled, CancelledPaid, actKeep, "", "cancelled unpaid none none", "", "10 = 0 + 0 + 0 + 10 + 0", "10/0"},
		{"paid when cancelled, wanted again", cancelled, CancelledPaid, actReopen, "", "paid paid queued committed", "", "10 = 10 + 0 + 0 + 0 + 0", "8/0"},
		{"regressed, ships", regressed, Regression, actShip, "", "paid paid queued committed", "", "10 = 10 + 0 + 0 + 0 + 0", "8/0"},
		{"regressed, refunded", regressed, Regression, actRefund, "", "cancelled refunded none none", "", "10 = 0 + 0 + 10 + 0 + 0", "10/0"},
		{"amount changed, the first stands", changed, AmountChanged, actKeepFirst, "", "paid paid queued committed", "", "10 = 10 + 0 + 0 + 0 + 0", "8/0"},
		{"amount changed, refunded", changed, AmountChanged, actRefund, "", "cancelled refunded none none", "", "10 = 0 + 0 + 10 + 0 + 0", "10/0"},
		{"transaction reused, seen", reused, TxReused, actAcknowledge, "1002", "pending unpaid none reserved", "", "20 = 20 + 0 + 0 + 0 + 0", "6/2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.product("mug", 10)
			s.product("tee", 10)
			tc.given(s)
			order := tc.order
			if order == "" {
				order = "1001"
			}
			s.decided(order, tc.code, tc.action)
			s.want("status", s.status(order), tc.status)
			s.want("cases", s.cases(order), tc.cases)
			s.want("money", s.money("XRP"), tc.money)
			s.want("stock", s.stock("mug"), tc.stock)
			s.want("timeline", one[string](s, `SELECT cause || ' ' || note FROM timeline WHERE order_id = ? ORDER BY seq DESC LIMIT 1`, order),
				fmt.Sprintf("admin:ada %s: %s: because", tc.code, tc.action))
			if tc.action != actWait {
				s.want("decided by", one[string](s, `SELECT closed_by || ' ' || resolution FROM cases WHERE order_id = ? AND code = ?`, order, tc.code), "admin:ada "+tc.action+": because")
			}
		})
	}
}

// adjust changes what is on hand.
func (s *shop) adjust(sku string, delta int64) {
	s.Helper()
	s.must(func(tx database.Tx) error {
		_, err := inventory.Change(tx, sku, delta, "admin:test", "counted")
		return err
	})
}

// Every action that the table of cases offers exists, every one that exists is
// offered, and each case offers one that closes it.
func TestActionsOffered(t *testing.T) {
	offered := map[string]bool{}
	for code, rule := range Rules {
		if len(rule.Actions) == 0 {
			t.Errorf("%s offers nothing", code)
		}
		for _, a := range rule.Actions {
			offered[a] = true
			if actions[a] == nil {
				t.Errorf("%s offers %s, which does not exist", code, a)
			}
		}
	}
	for a := range actions {
		if !offered[a] {
			t.Errorf("no case offers %s", a)
		}
	}
}

// A decision that cannot be carried out says why, and changes nothing.
func TestRefusedDecisions(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "4.5")))
	before := one[int](s, `SELECT timeline_length FROM orders WHERE id = '1001'`)
	for _, tc := range []struct {
		what  Decision
		field string
	}{
		{Decision{Action: "burn"}, "action"},
		{Decision{}, "action"},
		{Decision{Action: actReopen}, "action"},
		{Decision{Action: actAccept}, "note"},
		{Decision{Action: actAccept, Note: "a\nb"}, "note"},
		{Decision{Action: actAccept, Note: strings.Repeat("x", 501)}, "note"},
		{Decision{Action: actWait, OrderID: "1001"}, "order_id"},
		{Decision{Action: actWait, To: &Destination{Address: "rSomewhere"}}, "address"},
		{Decision{Action: actRefund, To: &Destination{Address: "r x"}}, "address"},
		{Decision{Action: actRefund, To: &Destination{Address: "rSomewhere", Tag: ptr(int64(1) << 32)}}, "destination_tag"},
	} {
		e := s.refused(s.decide("1001", UnderpaidCase, tc.what), fault.Unprocessable, map[bool]string{true: "invalid_destination", false: "invalid_decision"}[tc.what.To != nil && tc.what.Action == actRefund])
		if len(e.Fields) != 1 || e.Fields[0].Location != tc.field {
			t.Errorf("%+v: %+v, want the field %s named", tc.what, e.Fields, tc.field)
		}
	}
	if after := one[int](s, `SELECT timeline_length FROM orders WHERE id = '1001'`); after != before || s.cases("1001") != "UNDERPAID!" {
		t.Errorf("%d steps before, %d after; cases %s", before, after, s.cases("1001"))
	}
	id := uuid.MustParse(one[string](s, `SELECT id::text FROM cases`))
	s.decided("1001", UnderpaidCase, actAccept)
	resolve := func(id uuid.UUID) error {
		return s.try(func(tx database.Tx) error {
			_, err := s.book.Resolve(tx, id, "admin:ada", Decision{Action: actWait})
			return err
		})
	}
	s.refused(resolve(id), fault.Conflict, "case_closed")
	s.refused(resolve(uuid.New()), fault.NotFound, "case_not_found")
}

// Twenty people who decide at once: one decision is carried out.
func TestTwentyDecideAtOnce(t *testing.T) {
	t.Parallel()
	s := newShopOf(t, 8, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "15")))
	id := uuid.MustParse(one[string](s, `SELECT id::text FROM cases`))
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.try(func(tx database.Tx) error {
				_, err := s.book.Resolve(tx, id, "admin:ada", Decision{Action: []string{actRefund, actKeep}[i%2], Note: "because"})
				return err
			})
		})
	}
	wg.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
			continue
		}
		s.refused(err, fault.Conflict, "case_closed")
	}
	if n := one[int](s, `SELECT count(*) FROM refunds`); done != 1 || n != 1 {
		t.Errorf("%d decisions carried out, %d refunds", done, n)
	}
}

// Money for a second time, or after the decision, is asked about again; what
// was decided about the first stays.
func TestDecidedAndThenMore(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "4.5").hash("AA01")))
	s.decided("1001", UnderpaidCase, actAccept)
	s.hear(s.of("1001", completed("b", "5.5").hash("BB01")))
	s.want("cases", s.cases("1001"), "DUPLICATE_PAYMENT")
	s.want("money", s.money("XRP"), "10 = 4.5 + 5.5 + 0 + 0 + 0")
	s.decided("1001", DuplicatePayment, actRefund)
	s.want("money", s.money("XRP"), "10 = 4.5 + 0 + 5.5 + 0 + 0")

	s.open(draft("1002", "mug"))
	s.hear(s.of("1002", completed("c", "11").hash("CC01")))
	s.decided("1002", OverpaidCase, actKeep)
	s.want("cases", s.cases("1002"), "")
	s.hear(s.of("1002", completed("d", "2").hash("DD01")))
	s.want("cases of a second excess", s.cases("1002"), "DUPLICATE_PAYMENT")
}

// A refund goes its way: approved, addressed, sent once, confirmed; it can be
// taken back until it is sent; and nothing in it can be changed behind its back.
func TestRefunds(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "6").hash("AA01")), s.of("1001", completed("b", "7.5").hash("BB01")))
	settle := func(what Settlement) (rs []*Refund, err error) {
		err = s.try(func(tx database.Tx) (err error) { rs, err = s.book.Settle(tx, "1001", "admin:ada", what); return err })
		return rs, err
	}
	_, err := settle(Settlement{Amount: decimal.RequireFromString("3.500001")})
	s.refused(err, fault.Conflict, "no_refund_due")
	rs, err := settle(Settlement{Amount: decimal.NewFromInt(1), Keep: true, Note: "a tip"})
	if err != nil || len(rs) != 1 || rs[0].PaymentID != "b" {
		t.Fatalf("%+v, %v", rs, err)
	}
	if _, err = settle(Settlement{Note: "too much"}); err != nil {
		t.Fatal(err)
	}
	s.want("refunds", s.refunds("1001"), "1 XRP waived, 2.5 XRP approved")
	s.want("money", s.money("XRP"), "13.5 = 10 + 0 + 2.5 + 1 + 0")
	_, err = settle(Settlement{})
	s.refused(err, fault.Conflict, "no_refund_due")

	id := uuid.MustParse(one[string](s, `SELECT id::text FROM refunds WHERE state = 'approved'`))
	send := func(hash string, to *Destination) error {
		return s.try(func(tx database.Tx) error {
			_, err := s.book.Send(tx, id, "admin:ada", Dispatched{TxHash: hash, To: to})
			return err
		})
	}
	confirm := func() error {
		return s.try(func(tx database.Tx) error { _, err := s.book.Confirm(tx, id, "admin:ada"); return err })
	}
	withdraw := func(id uuid.UUID) error {
		return s.try(func(tx database.Tx) error { _, err := s.book.Withdraw(tx, id, "admin:ada", ""); return err })
	}
	address := func(to Destination) error {
		return s.try(func(tx database.Tx) error { _, err := s.book.Address(tx, id, "admin:ada", to); return err })
	}
	s.refused(send("0F0F0F0F", nil), fault.Unprocessable, "no_destination")
	s.refused(confirm(), fault.Conflict, "refund_approved")
	s.refused(address(Destination{Address: "r\n"}), fault.Unprocessable, "invalid_destination")
	if err := address(Destination{Address: "rCustomer", Tag: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	s.refused(send("no", nil), fault.Unprocessable, "invalid_tx_hash")
	s.pay("other", "mug")
	s.must(func(tx database.Tx) error {
		return tx.Exec(`UPDATE payments SET tx_hash = 'FEEDFEED' WHERE order_id = 'other'`).Error
	})
	s.refused(send("feedfeed", nil), fault.Conflict, "transaction_used")
	if err := send("0F0F0F0F", nil); err != nil {
		t.Fatal(err)
	}
	s.want("letter", one[string](s, `SELECT string_agg(concat_ws(' ', address, state, facts->'refund'->>'amount', facts->'refund'->>'currency', facts->'refund'->>'address',
		facts->'refund'->>'destination_tag', facts->'refund'->>'tx_hash', about = 'refund ' || ?), ', ') FROM letters WHERE kind = 'refund_sent'`, id),
		"ada@example.com queued 2.50 XRP rCustomer 0 0F0F0F0F t")
	s.refused(send("0F0F0F0E", nil), fault.Conflict, "refund_sent")
	s.refused(withdraw(id), fault.Conflict, "refund_sent")
	s.refused(address(Destination{Address: "rElsewhere"}), fault.Conflict, "refund_sent")
	if err := confirm(); err != nil {
		t.Fatal(err)
	}
	s.want("refunds", s.refunds("1001"), "1 XRP waived, 2.5 XRP confirmed to rCustomer")
	waived := uuid.MustParse(one[string](s, `SELECT id::text FROM refunds WHERE state = 'waived'`))
	if err := withdraw(waived); err != nil {
		t.Fatal(err)
	}
	s.want("money", s.money("XRP"), "23.5 = 20 + 1 + 2.5 + 0 + 0")
	s.want("status", s.status("1001"), "paid overpaid queued committed")
	for _, statement := range []string{
		`UPDATE refunds SET amount = amount + 1`, `UPDATE refunds SET payment_id = 'a'`, `UPDATE refunds SET state = 'approved', tx_hash = NULL, confirmed_at = NULL WHERE state = 'confirmed'`,
		`DELETE FROM refunds`, `TRUNCATE refunds`, `UPDATE payments SET refunded = amount + 1`,
	} {
		if err := s.try(func(tx database.Tx) error { return tx.Exec(statement).Error }); err == nil {
			t.Errorf("%s is let through", statement)
		}
	}
}

// A refund that was decided for money that counts for nothing and is taken
// back leaves that money to be decided again, not forgotten.
func TestWithdrawnUnmatched(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", completed("a", "10").in("USD")))
	s.decided("1001", WrongCurrency, actRefund)
	s.want("money", s.money("USD"), "10 = 0 + 0 + 10 + 0 + 0")
	id := uuid.MustParse(one[string](s, `SELECT id::text FROM refunds`))
	s.must(func(tx database.Tx) error { _, err := s.book.Withdraw(tx, id, "admin:ada", "wrong button"); return err })
	s.want("money", s.money("USD"), "10 = 0 + 0 + 0 + 0 + 10")
	s.want("cases", s.cases("1001"), "WRONG_CURRENCY!")
	s.decided("1001", WrongCurrency, actAccept)
	s.want("money", s.money("USD"), "10 = 0 + 0 + 0 + 10 + 0")
	s.want("status", s.status("1001"), "paid paid queued committed")
}

// A reopened order waits anew: its own deadline, its stock, a letter, and the
// old payment's failure no longer counts; without stock nothing changes.
func TestReopen(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	reopen := func(id string) error {
		return s.try(func(tx database.Tx) error { _, err := s.book.Reopen(tx, id, "admin:ada", "it is wanted"); return err })
	}
	s.open(draft("1001", "mug"))
	s.refused(reopen("1001"), fault.Conflict, "order_open")
	s.refused(reopen("nobody"), fault.NotFound, "order_not_found")
	s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
	s.want("expired", s.status("1001"), "expired unpaid none none")
	s.clock.Add(time.Hour)
	if err := reopen("1001"); err != nil {
		t.Fatal(err)
	}
	s.want("reopened", s.status("1001"), "pending unpaid none reserved")
	s.want("deadline", one[string](s, `SELECT (deadline = ?)::text FROM orders`, s.clock.Now().Add(30*time.Minute)), "true")
	s.want("step", one[string](s, `SELECT was || ' ' || became FROM timeline ORDER BY seq DESC LIMIT 1`), "expired pending")
	s.hear(s.of("1001", news(PaymentExpiredEvent, "a"))) // again the old one
	s.want("old news", s.status("1001"), "pending unpaid none reserved")
	s.hear(s.of("1001", news(PaymentExpiredEvent, "b")))
	s.want("the new payment", s.status("1001"), "expired unpaid none none")
	s.want("letters", s.letters("1001"), "order_expired dropped, order_received dropped, order_expired queued, order_received dropped")

	s.pay("1002", "mug")
	if err := s.cancel("1002"); err != nil {
		t.Fatal(err)
	}
	s.want("cancelled", s.status("1002"), "cancelled refund_due none none")
	s.adjust("mug", -10)
	s.refused(reopen("1002"), fault.Conflict, "insufficient_stock")
	s.want("still cancelled", s.status("1002"), "cancelled refund_due none none")
	s.adjust("mug", 2)
	if err := reopen("1002"); err != nil {
		t.Fatal(err)
	}
	s.want("reopened with its money", s.status("1002"), "paid paid queued committed")
	if err := s.ship("1002"); err != nil {
		t.Fatal(err)
	}
	s.want("shipped", s.status("1002"), "fulfilled paid fulfilled committed")
}

// Goods that were gone and are there again are taken once a person says so,
// and not before; what is not there is refused with the shortage.
func TestRetryReservation(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 2)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
	s.open(draft("other", "mug"))
	s.hear(s.of("1001", completed("a", "10")))
	e := s.refused(s.decide("1001", StockGone, Decision{Action: actRetryStock}), fault.Conflict, "insufficient_stock")
	if len(e.Fields) != 1 || e.Fields[0].Message != "2 of mug wanted, 0 available" {
		t.Errorf("%+v", e.Fields)
	}
	s.refused(s.decide("1001", StockGone, Decision{Action: actPart}), fault.Conflict, "insufficient_stock")
	s.adjust("mug", 2)
	s.want("still held", s.status("1001"), "paid paid on_hold none")
	s.decided("1001", StockGone, actRetryStock)
	s.want("taken", s.status("1001"), "paid paid queued committed")
	s.want("stock", s.stock("mug"), "2/2")
	s.want("letters", s.letters("1001"), "goods_gone dropped, order_expired dropped, order_received dropped, payment_confirmed queued")
}

// What is there ships, what is not is due back, and the order is fulfilled then.
func TestShipAvailable(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 1)
	s.product("tee", 1)
	s.open(draft("1001", "mug", "tee"))
	s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
	s.adjust("tee", -1)
	s.hear(s.of("1001", completed("a", "10")))
	s.decided("1001", StockGone, actPart)
	s.want("part", s.status("1001"), "paid overpaid queued committed")
	s.refused(s.ship("1001", 2), fault.Conflict, "line_given_up")
	if err := s.ship("1001"); err != nil {
		t.Fatal(err)
	}
	s.want("shipped", s.status("1001"), "fulfilled overpaid fulfilled committed")
	s.want("stock", s.stock("mug")+" "+s.stock("tee"), "0/0 0/0")
	s.decided("1001", OverpaidCase, actRefund)
	s.want("money", s.money("XRP"), "10 = 5 + 0 + 5 + 0 + 0")
}

// A shipment request that nobody took is asked again from the first attempt,
// or left to people.
func TestDeadFulfilmentDecided(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]string{actRetry: "queued 0 carrier", actReroute: "handed_over 0 manual"} {
		s := newShop(t)
		s.product("mug", 10)
		s.pay("1001", "mug")
		s.must(func(tx database.Tx) error {
			r := ShipmentRequest{ID: uuid.MustParse(one[string](s, `SELECT id::text FROM shipment_requests`)), OrderID: "1001", Provider: "carrier", Attempts: 12}
			return s.book.giveUp(tx, &r, fmt.Errorf("on strike"))
		})
		s.want("held", s.status("1001"), "paid paid on_hold committed")
		s.decided("1001", FulfilmentDead, action)
		s.want(action, one[string](s, `SELECT state || ' ' || attempts || ' ' || provider FROM shipment_requests`), want)
		s.want("free", s.status("1001"), "paid paid queued committed")
	}
}
