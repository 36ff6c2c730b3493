package orders

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/inventory"
	"quayside/internal/notify"
)

// An order is opened with all its rows: reserved stock, its lines, the first
// step of its timeline, and a letter that waits 20 s for the payment details.
func TestOpen(t *testing.T) {
	s := newShop(t)
	s.product("mug", 5)
	d := draft("1001", "mug")
	d.Items = append(d.Items, DraftItem{SKU: "mug", Quantity: 1, UnitPrice: decimal.RequireFromString("0.000001")})
	d.Metadata = map[string]any{"basket": "b-7"}
	var woken string
	s.book.Opened = func(_ database.Tx, id string) { woken = id }
	s.open(d)
	s.want("order", s.status("1001"), "pending unpaid none reserved")
	s.want("row", one[string](s, `SELECT concat_ws(' ', trim_scale(total), currency, got, customer_email, customer_name, metadata->>'basket', length(status_token),
		reservation, timeline_length, deadline = created_at + interval '30 minutes', created_at = ?) FROM orders`, opening),
		"10.000001 XRP 0.000000000000000000 ada@example.com Ada b-7 32 1 1 t t")
	s.want("stock", s.stock("mug"), "5/3")
	s.want("lines", one[string](s, `SELECT string_agg(concat_ws(' ', line, sku, name, quantity, trim_scale(unit_price)), ', ' ORDER BY line) FROM order_items`),
		"1 mug A mug 2 5, 2 mug A mug 1 0.000001")
	s.want("ledger", one[string](s, `SELECT string_agg(concat_ws(' ', effect_key, on_hand_delta, reserved_delta, cause), ', ' ORDER BY id) FROM stock_movements WHERE order_id = '1001'`),
		"order/1001/1/reserve/mug 0 3 admin:test")
	s.want("timeline", one[string](s, `SELECT concat_ws(' ', seq, kind, cause, was, became) FROM timeline`), "1 opened admin:test pending")
	s.want("letter", one[string](s, `SELECT concat_ws(' ', kind, about, address, facts->>'total', facts->>'status_url' = 'https://shop.example/o/' || status_token,
		not_before - ?::timestamptz) FROM letters JOIN orders ON orders.id = letters.order_id`, opening), "order_received  ada@example.com 10.000001 t 00:00:20")
	s.want("woken", woken, "1001")
	if rung := s.bell.Rung(); len(rung) != 0 {
		t.Errorf("rang at once: %v", rung)
	}
}

// An order without an id gets one, and no two orders have the same link.
func TestOpenNamesTheOrder(t *testing.T) {
	s := newShop(t)
	s.product("mug", 5)
	s.open(draft("", "mug"))
	s.open(draft("", "mug"))
	if n := one[int](s, `SELECT count(DISTINCT id) + count(DISTINCT status_token) FROM orders WHERE id ~ '^ord_[0-9a-f]{32}$'`); n != 4 {
		t.Errorf("%d different ids and tokens, want 4", n)
	}
}

// A known id is refused and changes nothing, whatever else is asked.
func TestOpenTwice(t *testing.T) {
	s := newShop(t)
	s.product("mug", 5)
	s.open(draft("1001", "mug"))
	err := s.try(func(tx database.Tx) error { _, err := s.book.Open(tx, draft("1001", "mug"), "admin:test"); return err })
	s.refused(err, fault.Conflict, "order_exists")
	s.want("stock", s.stock("mug"), "5/2")
	s.want("letters", s.letters("1001"), "order_received queued")
}

// When some lines are short each of them is named, and nothing is reserved or kept.
func TestOpenShort(t *testing.T) {
	s := newShop(t)
	s.product("cup", 10)
	s.product("mug", 3)
	s.product("pot", 0)
	d := draft("1001", "cup")
	d.Items = append(d.Items, DraftItem{SKU: "mug", Quantity: 2}, DraftItem{SKU: "pot", Quantity: 1}, DraftItem{SKU: "mug", Quantity: 2})
	err := s.try(func(tx database.Tx) error { _, err := s.book.Open(tx, d, "admin:test"); return err })
	e := s.refused(err, fault.Conflict, "insufficient_stock")
	s.want("fields", fmt.Sprint(sorted(e.Fields)), "[items[1].quantity: 4 of mug wanted, 3 available items[2].quantity: 1 of pot wanted, 0 available items[3].quantity: 4 of mug wanted, 3 available]")
	s.want("stock", s.stock("cup")+" "+s.stock("mug"), "10/0 3/0")
	if n := one[int](s, `SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_items) + (SELECT count(*) FROM letters) + (SELECT count(*) FROM timeline)`); n != 0 {
		t.Errorf("%d rows kept", n)
	}
}

func sorted(fields []fault.Field) []string {
	var all []string
	for _, f := range fields {
		all = append(all, f.Location+": "+f.Message)
	}
	slices.Sort(all)
	return all
}

// Products that do not exist are named, each line.
func TestOpenUnknownProduct(t *testing.T) {
	s := newShop(t)
	s.product("mug", 5)
	d := draft("1001", "mug")
	d.Items = append(d.Items, DraftItem{SKU: "nothing", Quantity: 1}, DraftItem{SKU: "MUG", Quantity: 1})
	err := s.try(func(tx database.Tx) error { _, err := s.book.Open(tx, d, "admin:test"); return err })
	e := s.refused(err, fault.Unprocessable, "unknown_product")
	s.want("fields", fmt.Sprint(sorted(e.Fields)), "[items[1].sku: there is no product nothing items[2].sku: there is no product MUG]")
	s.want("stock", s.stock("mug"), "5/0")
}

// Every field that breaks a rule is named at once, and each bound is where it should be.
func TestDraftRules(t *testing.T) {
	b := &Book{terms: Terms{TTL: 30 * time.Minute}}
	money := decimal.RequireFromString
	all := Draft{
		ID: "a/b", Email: "ada", Name: "A\nda", Currency: "xrp", TTL: new(time.Duration),
		Items: []DraftItem{{SKU: "mug", Quantity: 0, UnitPrice: money("-1")}, {SKU: "mug", Quantity: 1, UnitPrice: money("0.123456789")}},
	}
	_, _, err := b.draft(all, opening)
	var named []string
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Kind == fault.Unprocessable && e.Code == "invalid_order" {
		for _, f := range e.Fields {
			named = append(named, f.Location)
		}
	}
	if got := strings.Join(named, " "); got != "customer.email id currency customer.name expires_in items[0].quantity items[0].unit_price items[1].unit_price" {
		t.Errorf("all wrong: %v: %s", err, got)
	}
	for name, tc := range map[string]struct {
		change func(d *Draft)
		wrong  string // field, "" when it is right
	}{
		"as it is":               {func(*Draft) {}, ""},
		"email empty":            {func(d *Draft) { d.Email = "" }, "customer.email"},
		"email of two":           {func(d *Draft) { d.Email = "a@b.example,c@d.example" }, "customer.email"},
		"name of 200":            {func(d *Draft) { d.Name = strings.Repeat("é", 200) }, ""},
		"name of 201":            {func(d *Draft) { d.Name = strings.Repeat("é", 201) }, "customer.name"},
		"name not UTF-8":         {func(d *Draft) { d.Name = "\xff" }, "customer.name"},
		"id of 64":               {func(d *Draft) { d.ID = strings.Repeat("x", 64) }, ""},
		"id of 65":               {func(d *Draft) { d.ID = strings.Repeat("x", 65) }, "id"},
		"id with a line break":   {func(d *Draft) { d.ID = "1001\n" }, "id"},
		"currency empty":         {func(d *Draft) { d.Currency = "" }, "currency"},
		"currency Cyrillic":      {func(d *Draft) { d.Currency = "ХRP" }, "currency"},
		"one second":             {func(d *Draft) { d.TTL = ptr(time.Second) }, ""},
		"less than a second":     {func(d *Draft) { d.TTL = ptr(time.Second - 1) }, "expires_in"},
		"seven days":             {func(d *Draft) { d.TTL = ptr(7 * 24 * time.Hour) }, ""},
		"more than seven days":   {func(d *Draft) { d.TTL = ptr(7*24*time.Hour + 1) }, "expires_in"},
		"no lines":               {func(d *Draft) { d.Items = nil }, "items"},
		"100 lines":              {func(d *Draft) { d.Items = slices.Repeat(d.Items, 100) }, ""},
		"101 lines":              {func(d *Draft) { d.Items = slices.Repeat(d.Items, 101) }, "items"},
		"a million":              {func(d *Draft) { d.Items[0].Quantity = 1_000_000 }, ""},
		"a million and one":      {func(d *Draft) { d.Items[0].Quantity = 1_000_001 }, "items[0].quantity"},
		"minus one":              {func(d *Draft) { d.Items[0].Quantity = -1 }, "items[0].quantity items"},
		"6 decimals of XRP":      {func(d *Draft) { d.Items[0].UnitPrice = money("0.000001") }, ""},
		"7 decimals of XRP":      {func(d *Draft) { d.Items[0].UnitPrice = money("1.0000001") }, "items[0].unit_price"},
		"7 decimals, the last 0": {func(d *Draft) { d.Items[0].UnitPrice = money("1.1234560") }, ""},
		"8 decimals of BTC":      {func(d *Draft) { d.Currency = "BTC"; d.Items[0].UnitPrice = money("0.00000001") }, ""},
		"9 decimals of BTC":      {func(d *Draft) { d.Currency = "BTC"; d.Items[0].UnitPrice = money("1.000000001") }, "items[0].unit_price"},
		"free":                   {func(d *Draft) { d.Items[0].UnitPrice = money("0") }, "items"},
		"free beside paid":       {func(d *Draft) { d.Items = append(d.Items, DraftItem{SKU: "gift", Quantity: 1}) }, ""},
		"18 digits":              {func(d *Draft) { d.Items[0] = DraftItem{"mug", 1, money("999999999999999999.999999")} }, ""},
		"19 digits":              {func(d *Draft) { d.Items[0] = DraftItem{"mug", 1, money("1000000000000000000")} }, "items"},
		"19 digits by quantity":  {func(d *Draft) { d.Items[0] = DraftItem{"mug", 10, money("100000000000000000")} }, "items"},
	} {
		d := draft("1001", "mug")
		tc.change(&d)
		_, _, err := b.draft(d, opening)
		var named []string
		if e, ok := errors.AsType[*fault.Error](err); ok {
			for _, f := range e.Fields {
				named = append(named, f.Location)
			}
		}
		if got := strings.Join(named, " "); got != tc.wrong || (err != nil) != (tc.wrong != "") {
			t.Errorf("%s: wrong is %q, want %q", name, got, tc.wrong)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// Two hundred buyers at once for the last one: one gets it, the others are told.
func TestOneUnitTwoHundredBuyers(t *testing.T) {
	s := newShopOf(t, 10, Terms{})
	s.product("mug", 1)
	var sold, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			d := draft(fmt.Sprint(i), "mug")
			d.Items[0].Quantity = 1
			err := s.try(func(tx database.Tx) error { _, err := s.book.Open(tx, d, "admin:test"); return err })
			switch e, _ := errors.AsType[*fault.Error](err); {
			case err == nil:
				sold.Add(1)
			case e != nil && e.Code == "insufficient_stock":
				refused.Add(1)
			default:
				t.Errorf("buyer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if sold.Load() != 1 || refused.Load() != 199 {
		t.Errorf("sold %d, refused %d", sold.Load(), refused.Load())
	}
	s.want("stock", s.stock("mug"), "1/1")
}

// A cancelled order gives back exactly what it held, whatever it held; one
// that has shipped, at least in part, cannot be cancelled.
func TestCancel(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.product("pot", 10)
	for _, tc := range []struct {
		id      string
		reach   func(id string)
		want    string
		cases   string
		refused string
	}{
		{"pending", func(id string) { s.open(draft(id, "mug", "pot")) }, "cancelled unpaid none none", "", ""},
		{"underpaid", func(id string) { s.open(draft(id, "mug", "pot")); s.hear(s.of(id, completed("u", "9"))) }, "cancelled refund_due none none", "CANCELLED_PAID", ""},
		{"failed", func(id string) { s.open(draft(id, "mug", "pot")); s.hear(s.of(id, news(PaymentFailedEvent, "f"))) }, "cancelled unpaid none none", "", ""},
		{"expired", func(id string) { s.open(draft(id, "mug", "pot")); s.hear(s.of(id, news(PaymentExpiredEvent, "e"))) }, "cancelled unpaid none none", "", ""},
		{"paid", func(id string) { s.pay(id, "mug", "pot") }, "cancelled refund_due none none", "CANCELLED_PAID", ""},
		{"twice", func(id string) { s.open(draft(id, "mug", "pot")); _ = s.cancel(id) }, "cancelled unpaid none none", "", "order_cancelled"},
	} {
		tc.reach(tc.id)
		err := s.cancel(tc.id)
		if tc.refused != "" {
			s.refused(err, fault.Conflict, tc.refused)
		} else if err != nil {
			t.Errorf("%s: %v", tc.id, err)
		}
		s.want(tc.id, s.status(tc.id), tc.want)
		s.want(tc.id, s.cases(tc.id), tc.cases)
		s.want(tc.id+": stock", s.stock("mug")+" "+s.stock("pot"), "10/0 10/0")
		if !strings.Contains(s.letters(tc.id), "order_cancelled queued") {
			t.Errorf("%s: letters %s", tc.id, s.letters(tc.id))
		}
	}
	s.want("letters of the paid one", s.letters("paid"), "order_cancelled queued, order_received dropped, payment_confirmed dropped")
	s.want("its request", one[string](s, `SELECT state FROM shipment_requests WHERE order_id = 'paid'`), "withdrawn")
	s.want("reason", one[string](s, `SELECT facts->>'reason' || ' ' || (facts->>'refund_due') FROM letters WHERE order_id = 'paid' AND kind = 'order_cancelled'`), "a mistake 10.00")

	s.pay("in-part", "mug", "pot")
	if err := s.ship("in-part", 1); err != nil {
		t.Error(err)
	}
	s.refused(s.cancel("in-part"), fault.Conflict, "order_shipped")
	s.want("in-part", s.status("in-part"), "paid paid partial committed")
	if err := s.ship("in-part"); err != nil {
		t.Error(err)
	}
	s.refused(s.cancel("in-part"), fault.Conflict, "order_shipped")
	s.want("whole", s.status("in-part")+" "+s.stock("mug"), "fulfilled paid fulfilled committed 9/0")
	s.refused(s.cancel("nowhere"), fault.NotFound, "order_not_found")
}

// A paid order whose goods were gone gives nothing back when it is cancelled: it took nothing.
func TestCancelWithoutGoods(t *testing.T) {
	s := newShop(t)
	s.product("mug", 2)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", news(PaymentExpiredEvent, "a")))
	s.pay("1002", "mug")
	s.hear(s.of("1001", completed("a", "10")))
	s.want("goods gone", s.status("1001")+" "+s.cases("1001"), "paid paid on_hold none STOCK_GONE!")
	s.want("letters", s.letters("1001"), "goods_gone queued, order_expired dropped, order_received dropped")
	if err := s.cancel("1001"); err != nil {
		t.Error(err)
	}
	s.want("cancelled", s.status("1001")+" "+s.cases("1001")+" "+s.stock("mug"), "cancelled refund_due none none CANCELLED_PAID 0/0")
}

// Lines ship together or one by one, each once; the last one makes the order
// fulfilled, and each parcel has its letter with tracking.
func TestShip(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.product("pot", 10)
	s.pay("whole", "mug", "pot")
	if err := s.ship("whole"); err != nil {
		t.Fatal(err)
	}
	s.want("whole", s.status("whole")+" "+s.stock("mug"), "fulfilled paid fulfilled committed 9/0")
	s.want("letter", one[string](s, `SELECT concat_ws(' ', l.facts->>'carrier', l.facts->>'tracking_number', l.about = s.id::text) FROM letters l
		JOIN shipments s USING (order_id) WHERE l.kind = 'order_shipped'`), "DHL JD014600003 t")
	s.want("shipment", one[string](s, `SELECT concat_ws(' ', carrier, tracking_number, shipped_by, shipped_at = ?, (SELECT string_agg(line::text, '+' ORDER BY line)
		FROM shipment_lines l WHERE l.shipment_id = s.id)) FROM shipments s`, opening), "DHL JD014600003 admin:test t 1+2")
	s.refused(s.ship("whole"), fault.Conflict, "order_not_paid")

	s.pay("1002", "mug", "pot")
	if err := s.ship("1002", 2); err != nil {
		t.Fatal(err)
	}
	s.want("first parcel", s.status("1002"), "paid paid partial committed")
	s.refused(s.ship("1002", 2), fault.Conflict, "line_shipped")
	s.refused(s.ship("1002", 1, 2), fault.Conflict, "line_shipped")
	e := s.refused(s.ship("1002", 1, 1), fault.Unprocessable, "unknown_line")
	s.want("twice in one parcel", fmt.Sprint(e.Fields), "[{items[1] must be a line from 1 to 2, named once}]")
	for _, line := range []int{0, -1, 3, 1 << 40} {
		s.refused(s.ship("1002", 1, line), fault.Unprocessable, "unknown_line")
	}
	s.refused(s.ship("1002", []int{}...), fault.Conflict, "line_shipped") // named, but none
	s.want("after all refusals", s.status("1002"), "paid paid partial committed")
	if err := s.ship("1002", 1); err != nil {
		t.Fatal(err)
	}
	s.want("second parcel", s.status("1002")+" "+s.letters("1002"), "fulfilled paid fulfilled committed "+
		"order_received dropped, order_shipped queued, order_shipped queued, payment_confirmed queued")
	s.want("what the letters say is in the parcels", one[string](s, `SELECT string_agg(order_id || ' ' || COALESCE(facts->'parcel'->0->>'name', 'all') ||
		COALESCE(facts->'parcel'->1->>'name', ''), ', ' ORDER BY posted_at, id) FROM letters WHERE kind = 'order_shipped'`), "whole all, 1002 A pot, 1002 A mug")
}

// Only a paid order that nothing holds is shipped.
func TestShipRefuses(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.refused(s.ship("nowhere"), fault.NotFound, "order_not_found")
	for id, news := range map[string][]News{
		"pending": nil, "failed": {news(PaymentFailedEvent, "f")}, "expired": {news(PaymentExpiredEvent, "e")}, "underpaid": {completed("u", "9.999999")},
	} {
		s.open(draft(id, "mug"))
		for _, n := range news {
			s.hear(s.of(id, n))
		}
		s.refused(s.ship(id), fault.Conflict, "order_not_paid")
	}
	s.pay("cancelled", "mug")
	if err := s.cancel("cancelled"); err != nil {
		t.Error(err)
	}
	s.refused(s.ship("cancelled"), fault.Conflict, "order_not_paid")
	s.pay("held", "mug")
	s.hear(s.of("held", completed("pay_held", "11")))
	s.want("held", s.status("held")+" "+s.cases("held"), "paid paid on_hold committed AMOUNT_CHANGED!")
	s.refused(s.ship("held"), fault.Conflict, "order_held")
	if n := one[int](s, `SELECT count(*) FROM shipments`); n != 0 {
		t.Errorf("%d shipments", n)
	}
}

// The verbs that name an order lock it: of two people who ship the same line
// at once one is told that it has shipped.
func TestShipAtOnce(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.pay("1001", "mug")
	var second error
	s.whileWaiting(func(tx database.Tx) error {
		_, err := s.book.Ship(tx, "1001", "admin:ada", Dispatch{})
		return err
	}, func(tx database.Tx) error {
		_, second = s.book.Ship(tx, "1001", "admin:bob", Dispatch{})
		return nil
	})
	s.refused(second, fault.Conflict, "order_not_paid")
	s.want("shipped by", one[string](s, `SELECT string_agg(shipped_by, ' ') FROM shipments`), "admin:ada")
}

// Several sweeps at once expire each order once and give its stock back.
func TestExpire(t *testing.T) {
	s := newShopOf(t, 6, Terms{})
	s.product("mug", 100)
	for i := range 30 {
		s.open(draft(fmt.Sprint(i), "mug"))
	}
	s.hear(s.of("0", completed("p0", "10")), s.of("1", news(PaymentPendingEvent, "p1")), s.of("2", news(PaymentFailedEvent, "p2")))
	s.clock.Add(30*time.Minute - time.Microsecond)
	if n, err := s.book.Expire(t.Context(), 100); n != 0 || err != nil {
		t.Errorf("too early: %d, %v", n, err)
	}
	s.clock.Add(time.Microsecond)
	var sum atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				n, err := s.book.Expire(context.Background(), 3)
				if err != nil {
					t.Error(err)
				}
				if sum.Add(int64(n)); n == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	if sum.Load() != 28 { // not the paid one nor the one whose money is on its way
		t.Errorf("expired %d", sum.Load())
	}
	s.want("once each", one[string](s, `SELECT concat_ws(' ', count(*), count(DISTINCT order_id)) FROM timeline WHERE kind = 'deadline' AND became = 'expired'`), "28 28")
	s.want("letters", one[string](s, `SELECT concat_ws(' ', count(*), count(DISTINCT order_id)) FROM letters WHERE kind = 'order_expired'`), "28 28")
	s.want("stock", s.stock("mug"), "98/2")
	s.want("paid", s.status("0"), "paid paid queued committed")
	s.want("coming", s.status("1"), "pending awaiting_confirmation none reserved")
	s.clock.Add(30 * time.Minute)
	if err := s.book.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	s.want("did not come", s.status("1"), "expired awaiting_confirmation none none")
}

// A sweep passes over an order that somebody is at, and is not kept from the rest.
func TestExpireDoesNotWait(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.open(draft("1002", "mug"))
	s.clock.Add(time.Hour)
	s.must(func(tx database.Tx) error {
		if err := tx.Exec(`SELECT FROM orders WHERE id = '1001' FOR UPDATE`).Error; err != nil {
			return err
		}
		n, err := s.book.Expire(context.Background(), 10)
		if n != 1 || err != nil {
			t.Errorf("expired %d, %v", n, err)
		}
		return nil
	})
	s.want("in hand", s.status("1001"), "pending unpaid none reserved")
	s.want("the rest", s.status("1002"), "expired unpaid none none")
}

// A sweep works off more orders than fit into one transaction.
func TestSweepExpiresAll(t *testing.T) {
	s := newShop(t)
	s.product("mug", 1000)
	s.must(func(tx database.Tx) error {
		for i := range sweepSize + 1 {
			if _, err := s.book.Open(tx, draft(fmt.Sprint(i), "mug"), "admin:test"); err != nil {
				return err
			}
		}
		return nil
	})
	s.clock.Add(time.Hour)
	if err := s.book.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	s.want("left", one[string](s, `SELECT count(*)::text FROM orders WHERE status <> 'expired'`), "0")
}

// Orders may take two products in opposite orders, in any number at once:
// locks are taken in the order of products, so nobody waits for each other.
func TestTwoProductsInOppositeOrders(t *testing.T) {
	s := newShopOf(t, 8, Terms{})
	s.product("mug", 1000)
	s.product("pot", 1000)
	var runs, calls atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 6 {
				id, skus := fmt.Sprintf("%d-%d", w, i), []string{"mug", "pot"}
				if w%2 == 1 {
					slices.Reverse(skus)
				}
				paid := s.of(id, completed("pay_"+id, "10"))
				for _, step := range []func(tx database.Tx) error{
					func(tx database.Tx) error { _, err := s.book.Open(tx, draft(id, skus...), "admin:test"); return err },
					func(tx database.Tx) error { _, err := s.book.Hear(tx, []News{paid}); return err },
					func(tx database.Tx) error { _, err := s.book.Cancel(tx, id, "admin:test", "enough"); return err },
				} {
					calls.Add(1)
					s.must(func(tx database.Tx) error { runs.Add(1); return step(tx) })
				}
			}
		})
	}
	wg.Wait()
	if runs.Load() != calls.Load() {
		t.Errorf("%d transactions took %d tries", calls.Load(), runs.Load())
	}
	s.want("stock", s.stock("mug")+" "+s.stock("pot"), "1000/0 1000/0")
}

// An inventory change while an order opens waits for it, and counts with it.
func TestOpenWhileStockChanges(t *testing.T) {
	s := newShopOf(t, 3, Terms{})
	s.product("mug", 2)
	var short error
	s.whileWaiting(func(tx database.Tx) error {
		_, err := s.book.Open(tx, draft("1001", "mug"), "admin:test")
		return err
	}, func(tx database.Tx) error {
		_, short = inventory.Change(tx, "mug", -1, "admin:test", "broken")
		return nil
	})
	s.refused(short, fault.Conflict, "insufficient_stock")
	s.want("stock", s.stock("mug"), "2/2")
}

// A letter is withdrawn when the order outgrows it, whatever came first.
func TestLetters(t *testing.T) {
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", news(PaymentCreatedEvent, "a").to("rShop", 7)))
	s.want("address known", s.letters("1001"), "order_received dropped, order_received queued")
	s.hear(s.of("1001", news(PaymentFailedEvent, "a")))
	s.want("failed", s.letters("1001"), "order_received dropped, order_received queued, payment_failed queued")
	s.hear(s.of("1001", completed("b", "10")))
	s.want("paid", s.letters("1001"), "order_received dropped, order_received dropped, payment_confirmed queued, payment_failed dropped")

	s.open(draft("1002", "mug"))
	s.hear(s.of("1002", news(PaymentFailedEvent, "c")), s.of("1002", completed("d", "10")))
	s.want("failed and paid in one batch", s.letters("1002"), "order_received dropped, payment_confirmed queued")
	if n := one[int](s, `SELECT count(*) FROM letters WHERE kind = ?`, notify.PaymentConfirmed); n != 2 {
		t.Errorf("%d confirmations", n)
	}
}
