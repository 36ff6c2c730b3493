package orders

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
)

func (s *shop) parcel(order string, n int) uuid.UUID {
	s.Helper()
	return uuid.MustParse(one[string](s, `SELECT id::text FROM shipments WHERE order_id = ? ORDER BY shipped_at, id OFFSET ? LIMIT 1`, order, n))
}

func (s *shop) deliver(order string, n int, at time.Time) error {
	id := s.parcel(order, n)
	return s.try(func(tx database.Tx) error {
		_, err := s.book.Deliver(tx, order, id, "admin:test", at)
		return err
	})
}

func (s *shop) takeBack(order string, what Homecoming) error {
	what.Reason = "wrong colour"
	return s.try(func(tx database.Tx) error {
		_, err := s.book.TakeBack(tx, order, "admin:test", what)
		return err
	})
}

// stocked is a shop with ten mugs and ten tees.
func stocked(t *testing.T, conns int) *shop {
	s := newShopOf(t, conns, Terms{})
	s.product("mug", 10)
	s.product("tee", 10)
	return s
}

func amount(s string) *decimal.Decimal { d := decimal.RequireFromString(s); return &d }

// Parcels arrive one by one; the order is delivered with the last, and a parcel
// arrives once, not before it left and not tomorrow.
func TestDelivery(t *testing.T) {
	s := stocked(t, 2)
	s.open(draft("1001", "mug", "tee"))
	s.hear(s.of("1001", completed("a", "10")))
	s.must(func(tx database.Tx) error {
		_, err := s.book.Ship(tx, "1001", "admin:test", Dispatch{Lines: []int{1}})
		return err
	})
	if err := s.deliver("1001", 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	s.want("after the first parcel", s.status("1001"), "paid paid partial committed")
	s.must(func(tx database.Tx) error { _, err := s.book.Ship(tx, "1001", "admin:test", Dispatch{}); return err })
	s.want("with one on its way", s.status("1001"), "fulfilled paid fulfilled committed")
	s.refused(s.deliver("1001", 0, time.Time{}), fault.Conflict, "shipment_delivered")
	s.refused(s.deliver("1001", 1, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)), fault.Unprocessable, "invalid_delivery")
	s.refused(s.deliver("1001", 1, time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)), fault.Unprocessable, "invalid_delivery")
	if err := s.deliver("1001", 1, time.Time{}); err != nil {
		t.Fatal(err)
	}
	s.want("delivered", s.status("1001"), "fulfilled paid delivered committed")
	s.want("steps", one[string](s, `SELECT string_agg(kind, ' ' ORDER BY seq) FROM timeline WHERE order_id = '1001' AND kind LIKE '%d' AND seq > 2`), "shipped delivered shipped delivered")
	s.balance()
}

// The number on a parcel can be put right, one part at a time, also of no other order's parcel.
func TestLabel(t *testing.T) {
	s := stocked(t, 2)
	s.pay("1001", "mug")
	s.pay("1002", "tee")
	if err := s.ship("1001"); err != nil {
		t.Fatal(err)
	}
	id, carrier := s.parcel("1001", 0), "UPS"
	s.must(func(tx database.Tx) error {
		_, err := s.book.Label(tx, "1001", id, "admin:test", &carrier, nil)
		return err
	})
	s.want("label", one[string](s, `SELECT carrier || ' ' || tracking_number FROM shipments`), "UPS JD014600003")
	s.refused(s.try(func(tx database.Tx) error {
		_, err := s.book.Label(tx, "1002", id, "admin:test", &carrier, nil)
		return err
	}), fault.NotFound, "shipment_not_found")
	s.balance()
}

// Goods that come back go on the shelf or not; their price, or what a person
// says, is due back and can be refunded to the last of it.
func TestReturns(t *testing.T) {
	for name, c := range map[string]struct {
		what   Homecoming
		status string
		mugs   string
		money  string
	}{
		"restocked":      {Homecoming{Lines: []int{1}, Restock: true}, "fulfilled overpaid fulfilled committed", "10/0", "10 = 5 + 5 + 0 + 0 + 0"},
		"written off":    {Homecoming{Lines: []int{1}}, "fulfilled overpaid fulfilled committed", "9/0", "10 = 5 + 5 + 0 + 0 + 0"},
		"less for it":    {Homecoming{Lines: []int{1}, Refund: amount("2.5")}, "fulfilled overpaid fulfilled committed", "9/0", "10 = 7.5 + 2.5 + 0 + 0 + 0"},
		"nothing for it": {Homecoming{Lines: []int{1}, Refund: amount("0")}, "fulfilled paid fulfilled committed", "9/0", "10 = 10 + 0 + 0 + 0 + 0"},
		"all of it":      {Homecoming{Lines: []int{2, 1}, Restock: true}, "fulfilled overpaid returned committed", "10/0", "10 = 0 + 10 + 0 + 0 + 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := stocked(t, 2)
			s.open(draft("1001", "mug", "tee"))
			s.hear(s.of("1001", completed("a", "10")))
			if err := s.ship("1001"); err != nil {
				t.Fatal(err)
			}
			if err := s.takeBack("1001", c.what); err != nil {
				t.Fatal(err)
			}
			s.want("status", s.status("1001"), c.status)
			s.want("mugs", s.stock("mug"), c.mugs)
			s.want("money", s.money("XRP"), c.money)
			s.balance()
			if strings.Contains(c.status, "overpaid") {
				s.must(func(tx database.Tx) error {
					_, err := s.book.Settle(tx, "1001", "admin:test", Settlement{})
					return err
				})
				s.want("refund due", one[string](s, `SELECT trim_scale(refund_due)::text FROM orders`), "0")
				s.balance()
			}
			s.refused(s.takeBack("1001", c.what), fault.Conflict, "line_returned")
		})
	}
}

// What did not ship cannot come back, and an order never costs less than nothing.
func TestReturnsRefused(t *testing.T) {
	s := stocked(t, 2)
	s.open(draft("1001", "mug", "tee"))
	s.refused(s.takeBack("1001", Homecoming{Lines: []int{1}}), fault.Conflict, "line_not_shipped")
	s.hear(s.of("1001", completed("a", "10")))
	s.refused(s.takeBack("1001", Homecoming{Lines: []int{1}}), fault.Conflict, "line_not_shipped")
	if err := s.ship("1001", 1); err != nil {
		t.Fatal(err)
	}
	s.refused(s.takeBack("1001", Homecoming{Lines: []int{1, 2}}), fault.Conflict, "line_not_shipped")
	for _, lines := range [][]int{{0}, {3}, {1, 1}, {-1}} {
		s.refused(s.takeBack("1001", Homecoming{Lines: lines}), fault.Unprocessable, "unknown_line")
	}
	for _, much := range []string{"-0.01", "10.01"} {
		s.refused(s.takeBack("1001", Homecoming{Lines: []int{1}, Refund: amount(much)}), fault.Unprocessable, "invalid_refund")
	}
	s.refused(s.takeBack("none", Homecoming{Lines: []int{1}}), fault.NotFound, "order_not_found")
	if err := s.takeBack("1001", Homecoming{Lines: []int{1}, Restock: true}); err != nil {
		t.Fatal(err)
	}
	s.want("with a line still to ship", s.status("1001"), "paid overpaid partial committed")
	if err := s.ship("1001"); err != nil {
		t.Fatal(err)
	}
	s.want("with the other on its way", s.status("1001"), "fulfilled overpaid fulfilled committed")
	s.balance()
}

// Two people report the same return at the same moment: the goods are on the
// shelf once, and the money is due once.
func TestReturnedOnce(t *testing.T) {
	s := stocked(t, 8)
	s.pay("1001", "mug")
	if err := s.ship("1001"); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	failed := make(chan error, 8)
	for range 8 {
		done.Go(func() { failed <- s.takeBack("1001", Homecoming{Lines: []int{1}, Restock: true}) })
	}
	done.Wait()
	close(failed)
	good := 0
	for err := range failed {
		if err == nil {
			good++
		}
	}
	if good != 1 {
		t.Errorf("%d of 8 reports counted", good)
	}
	s.want("mugs", s.stock("mug"), "10/0")
	s.want("money", s.money("XRP"), "10 = 0 + 10 + 0 + 0 + 0")
	s.balance()
}
