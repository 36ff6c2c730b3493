package webhooks

import (
	"testing"

	"quayside/internal/orders"
)

// at puts an event's payment at a place, and takes its order's name away when
// named is false.
func at(t *testing.T, body, address, tag string, named bool) string {
	t.Helper()
	body = inside(t, body, `"currency"`, `"pay_address":"`+address+`","destination_tag":`+tag+`,"currency"`)
	if !named {
		body = inside(t, body, `,"metadata":{"order_id":"1001"}`, "")
	}
	return body
}

const suggested = `SELECT COALESCE((SELECT facts->>'suggested_order' FROM cases WHERE key = 'UNKNOWN_ORDER/pay_x' AND state = 'open'), 'nothing')`

// Money that names no order but was sent where one open order told its customer
// to pay opens a case at once that suggests that order. It counts for nothing
// until a person attaches it (behaviour §2.3).
func TestLookAlike(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address, tag string
		before       func(s *shop)
		want         string
	}{
		"the same place":  {"rShop", "7", nil, "1001"},
		"another tag":     {"rShop", "8", nil, "nothing"},
		"another address": {"rOther", "7", nil, "nothing"},
		"no tag":          {"rShop", "null", nil, "nothing"},
		"two at one place": {"rShop", "7", func(s *shop) {
			s.accept(at(t, event("evt_2", "payment.created", "pay_2", "1002", "10.00"), "rShop", "7", true))
			s.work()
		}, "nothing"},
		"the order is paid": {"rShop", "7", func(s *shop) { s.accept(event("evt_2", "payment.completed", "pay_1", "1001", "10.00")); s.work() }, "nothing"},
	} {
		s := newShop(t, today)
		s.product("mug", 50)
		s.orders("mug", "1001", "1002")
		s.accept(at(t, event("evt_1", "payment.created", "pay_1", "1001", "10.00"), "rShop", "7", true))
		s.work()
		if c.before != nil {
			c.before(s)
		}
		s.accept(at(t, event("evt_x", "payment.completed", "pay_x", "1001", "10.00"), c.address, c.tag, false))
		s.work()
		is(t, name, one[string](s, suggested), c.want)
		is(t, name, s.state("evt_x"), "parked")
		if c.want == "nothing" {
			continue
		}
		is(t, name, s.status("1001"), "pending/unpaid/none/reserved")
		is(t, name, s.money(), "10 = 0 + 0 + 0 + 0 + 10")
		s.accept(at(t, event("evt_y", "payment.completed", "pay_x", "1001", "10.00"), c.address, c.tag, false)) // PayQI sends it twice
		s.work()
		is(t, "cases", s.cases(), "UNKNOWN_ORDER/pay_x")
		if err := s.decide("UNKNOWN_ORDER/pay_x", orders.Decision{Action: "attach", OrderID: "1001", Note: "the customer showed the transaction"}); err != nil {
			t.Fatal(err)
		}
		s.work()
		s.sweep()
		s.work()
		is(t, name, s.status("1001"), "paid/paid/queued/committed")
		is(t, name, s.money(), "10 = 10 + 0 + 0 + 0 + 0")
		is(t, "open cases", s.openCases(), 0)
		is(t, "states", s.state("evt_x")+" "+s.state("evt_y"), "applied applied")
		s.sound()
	}
}

// The suggestion goes when PayQI says whose payment it is.
func TestLookAlikeIsTold(t *testing.T) {
	t.Parallel()
	s := newShop(t, today)
	s.product("mug", 50)
	s.orders("mug", "1001", "1002")
	s.accept(at(t, event("evt_1", "payment.created", "pay_1", "1001", "10.00"), "rShop", "7", true))
	s.work()
	s.accept(at(t, event("evt_x", "payment.completed", "pay_x", "1001", "10.00"), "rShop", "7", false))
	s.work()
	is(t, "suggested", one[string](s, suggested), "1001")
	s.accept(inside(t, event("evt_z", "payment.pending", "pay_x", "1001", "10.00"), `"order_id":"1001"`, `"order_id":"1002"`))
	s.work()
	s.sweep()
	s.work()
	is(t, "first", s.status("1001"), "pending/unpaid/none/reserved")
	is(t, "second", s.status("1002"), "paid/paid/queued/committed")
	is(t, "open cases", s.openCases(), 0)
	s.sound()
}
