package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/orders"
)

// decide resolves the open case with this key.
func (s *shop) decide(key string, what orders.Decision) error {
	s.t.Helper()
	id := one[string](s, `SELECT coalesce(max(id::text), '') FROM cases WHERE key = ? AND state = 'open'`, key)
	if id == "" {
		s.t.Fatalf("no open case %s, only: %s", key, s.cases())
	}
	what.Note = "because"
	return s.db.InTx(context.Background(), func(tx database.Tx) error {
		_, err := s.book.Resolve(tx, uuid.MustParse(id), "admin:ada", what)
		return err
	})
}

func (s *shop) openCases() int {
	s.t.Helper()
	return one[int](s, `SELECT count(*) FROM cases WHERE state = 'open'`)
}

func (s *shop) decided(key, action string) {
	s.t.Helper()
	if err := s.decide(key, orders.Decision{Action: action}); err != nil {
		s.t.Errorf("%s of %s: %v", action, key, err)
	}
}

// money is the report of XRP: received = applied + due + refunded + kept + unmatched.
func (s *shop) money() (line string) {
	s.t.Helper()
	err := s.db.InTx(context.Background(), func(tx database.Tx) error {
		rows, err := orders.Account(tx, time.Time{}, time.Time{})
		line = "none"
		for _, m := range rows {
			line = fmt.Sprintf("%v = %v + %v + %v + %v + %v", m.Received, m.Applied, m.RefundDue, m.Refunded, m.Kept, m.Unmatched)
			is(s.t, "balanced", m.Balanced(), true)
		}
		return err
	})
	is(s.t, "error", err, nil)
	return line
}

// lost is a shop with a completed payment of ten XRP that nothing matched for a day.
func lost(t *testing.T) *shop {
	s := newShop(t, today)
	s.product("mug", 50)
	s.accept(event("evt_1", "payment.completed", "pay_1", "9999", "10.00"))
	s.work()
	is(t, "while it waits", s.money(), "10 = 0 + 0 + 0 + 0 + 10")
	s.clock.Add(maxParked)
	s.sweep()
	is(t, "cases", s.cases(), "UNKNOWN_ORDER/pay_1")
	return s
}

// Money that nothing matches is attached to an order by a person, although its
// event names another, and counts there; a second delivery counts nothing.
func TestAttachUnknown(t *testing.T) {
	t.Parallel()
	s := lost(t)
	s.orders("mug", "1001")
	err := s.decide("UNKNOWN_ORDER/pay_1", orders.Decision{Action: "attach", OrderID: "nobody"})
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unprocessable || e.Fields[0].Location != "order_id" {
		t.Errorf("to an order that does not exist: %v", err)
	}
	if err := s.decide("UNKNOWN_ORDER/pay_1", orders.Decision{Action: "attach", OrderID: "1001"}); err != nil {
		t.Fatal(err)
	}
	s.work()
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	is(t, "event", s.state("evt_1"), "applied")
	is(t, "money", s.money(), "10 = 10 + 0 + 0 + 0 + 0")
	is(t, "open cases", s.openCases(), 0)
	s.accept(event("evt_2", "payment.completed", "pay_1", "9999", "10.00"))
	s.work()
	is(t, "money after another", s.money(), "10 = 10 + 0 + 0 + 0 + 0")
	s.sound()
}

// Money that belongs to no order is sent back or kept by a person's decision,
// and stays decided when its order comes after all.
func TestUnknownDecided(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]string{"refund": "10 = 0 + 0 + 10 + 0 + 0", "ignore": "10 = 0 + 0 + 0 + 10 + 0"} {
		s := lost(t)
		s.decided("UNKNOWN_ORDER/pay_1", action)
		is(t, "money", s.money(), want)
		is(t, "event", s.state("evt_1"), "ignored")
		s.accept(event("evt_2", "payment.completed", "pay_1", "9999", "10.00"))
		s.work()
		s.orders("mug", "9999")
		s.clock.Add(time.Minute)
		s.sweep()
		s.work()
		is(t, "order", s.status("9999"), "pending/unpaid/none/reserved")
		is(t, "the other event", s.state("evt_2"), "ignored")
		is(t, "money in the end", s.money(), want)
		s.sound()
	}
}

// An event that names another order than its payment's is applied to the one
// a person says, or its money goes back.
func TestMismatchDecided(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ action, to, one, two, money string }{
		{"attach", "1001", "paid/paid/queued/committed", "pending/unpaid/none/reserved", "10 = 10 + 0 + 0 + 0 + 0"},
		{"attach", "1002", "pending/unpaid/none/reserved", "paid/paid/queued/committed", "10 = 10 + 0 + 0 + 0 + 0"},
		{"refund", "", "pending/unpaid/none/reserved", "pending/unpaid/none/reserved", "10 = 0 + 0 + 10 + 0 + 0"},
		{"ignore", "", "pending/unpaid/none/reserved", "pending/unpaid/none/reserved", "10 = 0 + 0 + 0 + 10 + 0"},
	} {
		s := newShop(t, today)
		s.product("mug", 50)
		s.orders("mug", "1001", "1002")
		s.accept(event("evt_1", "payment.created", "pay_1", "1001", "10.00"))
		s.work()
		s.accept(event("evt_2", "payment.completed", "pay_1", "1002", "10.00"))
		s.work()
		is(t, "cases", s.cases(), "ORDER_MISMATCH/evt_2 of 1001!")
		is(t, "undecided", s.money(), "10 = 0 + 0 + 0 + 0 + 10")
		if err := s.decide("ORDER_MISMATCH/evt_2", orders.Decision{Action: tc.action, OrderID: tc.to}); err != nil {
			t.Errorf("%s %s: %v", tc.action, tc.to, err)
			continue
		}
		s.work()
		is(t, tc.action+" 1001", s.status("1001"), tc.one)
		is(t, tc.action+" 1002", s.status("1002"), tc.two)
		is(t, tc.action+" money", s.money(), tc.money)
		is(t, "open cases", s.openCases(), 0)
		is(t, "open events", one[int](s, `SELECT count(*) FROM inbox_open`), 0)
		s.sound()
	}
}

// A payment that has brought its money to one order is not moved to another.
func TestMismatchAfterMoney(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 50)
	s.orders("mug", "1001", "1002")
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.work()
	s.accept(event("evt_2", "payment.completed", "pay_1", "1002", "10.00"))
	s.work()
	err := s.decide("ORDER_MISMATCH/evt_2", orders.Decision{Action: "attach", OrderID: "1002"})
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "payment_completed" {
		t.Errorf("moved: %v", err)
	}
	err = s.decide("ORDER_MISMATCH/evt_2", orders.Decision{Action: "refund"})
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "no_money" {
		t.Errorf("the same money sent back: %v", err)
	}
	s.decided("ORDER_MISMATCH/evt_2", "ignore")
	is(t, "money", s.money(), "10 = 10 + 0 + 0 + 0 + 0")
	is(t, "order", s.status("1001"), "paid/paid/queued/committed")
	s.sound()
}

// An unreadable event that is released is read again: still unreadable, its
// case comes back; ignored, it is settled and its order free.
func TestUnreadableDecided(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 50)
	s.orders("mug", "1001")
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "0"))
	s.work()
	key := one[string](s, `SELECT key FROM cases WHERE code = 'UNREADABLE_EVENT' AND order_id = '1001' AND blocks`)
	s.decided(key, "release")
	is(t, "released", s.states(), strings.TrimPrefix(key, "UNREADABLE_EVENT/")+" received")
	s.work()
	is(t, "read again", s.states(), strings.TrimPrefix(key, "UNREADABLE_EVENT/")+" quarantined")
	is(t, "open cases", s.openCases(), 1)
	s.decided(key, "ignore")
	is(t, "ignored", s.states(), strings.TrimPrefix(key, "UNREADABLE_EVENT/")+" ignored")
	is(t, "open cases", s.openCases(), 0)
	is(t, "money", s.money(), "none")
}

// A dead event is tried again on a person's word; ignored, its money is kept.
func TestDeadDecided(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]string{"release": "20 = 20 + 0 + 0 + 0 + 0 applied", "ignore": "20 = 10 + 0 + 0 + 10 + 0 ignored"} {
		s := newShop(t)
		keys := s.crowd(2)
		s.poison("payments", "NEW.order_id = 'o001'", "raise_exception")
		s.exec(`UPDATE inbox_open SET attempts = 12 WHERE inbox_id = '` + s.inboxID("evt_001").String() + `'`)
		if err := s.apply(keys...); err != nil {
			t.Error(err)
		}
		is(t, "cases", s.cases(), "EVENT_DEAD/evt_001 of o001!")
		s.exec(`DROP TRIGGER poison ON payments`)
		s.decided("EVENT_DEAD/evt_001", action)
		s.work()
		is(t, action, s.money()+" "+s.state("evt_001"), want)
		is(t, "open cases", s.openCases(), 0)
	}
}

// A refused event is applied once a person releases it; ignored, it is none.
func TestStaleDecided(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]string{"release": "paid/paid/queued/committed applied", "ignore": "pending/unpaid/none/reserved ignored"} {
		s := newShop(t, today)
		s.product("mug", 50)
		s.orders("mug", "1001")
		s.expect(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"), "400 Request too old", tooOldHeaders...)
		is(t, "cases", s.cases(), "STALE_EVENT/evt_1 of 1001")
		is(t, "not accepted", s.money(), "none")
		s.decided("STALE_EVENT/evt_1", action)
		s.work()
		is(t, action, s.status("1001")+" "+s.state("evt_1"), want)
	}
}

// A contradiction is settled by a person: the first stands, and ships.
func TestConflictDecided(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 50)
	s.orders("mug", "1001")
	s.accept(event("evt_1", "payment.completed", "pay_1", "1001", "10.00"))
	s.expect(event("evt_1", "payment.completed", "pay_1", "1001", "99.00"), "200 Already processed")
	s.work()
	is(t, "held", s.status("1001"), "paid/paid/on_hold/committed")
	key := one[string](s, `SELECT key FROM cases WHERE code = 'EVENT_CONFLICT'`)
	s.decided(key, "keep_first")
	is(t, "free", s.status("1001"), "paid/paid/queued/committed")
	is(t, "money", s.money(), "10 = 10 + 0 + 0 + 0 + 0")
	is(t, "open events", one[int](s, `SELECT count(*) FROM inbox_open`), 0)
}
