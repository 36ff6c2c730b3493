package orders

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"quayside/internal/database"
	"quayside/internal/inventory"
)

// model is a second, plain telling of what a shop does: one product, orders of
// two units over 10 XRP. It knows nothing of how Quayside does it: amounts are
// whole tenths of XRP, and every status is worked out from scratch.
type model struct {
	free   int // units nobody holds
	orders map[string]*modelOrder
}

type modelOrder struct {
	paid, cancelled bool // what sticks
	goods           string
	deadline        time.Time
	grace           bool
	payments        map[string]*modelPayment
	accepted        int // tenths; -1: nobody accepted anything
}

type modelPayment struct {
	seen  map[EventType]bool
	brung int // tenths, of the first completed event
	back  int // sent back or kept
	old   bool
}

func (o *modelOrder) got() (sum int) {
	for _, p := range o.payments {
		sum += p.brung - p.back
	}
	return sum
}

func (o *modelOrder) owed() int {
	if o.accepted >= 0 {
		return o.accepted
	}
	return 100
}

// settle works out where the order stands now.
func (m *model) settle(o *modelOrder, now time.Time) string {
	open, expired, failed, pending := false, false, false, false
	for _, p := range o.payments {
		pending = pending || p.seen[PaymentPendingEvent]
		switch {
		case p.seen[PaymentCompletedEvent], p.old:
		case p.seen[PaymentExpiredEvent]:
			expired = true
		case p.seen[PaymentFailedEvent]:
			failed = true
		default:
			open = true
		}
	}
	got := o.got()
	enough := got > 0 && got >= o.owed()
	if !o.grace && (pending || got > 0 && !enough) {
		o.grace, o.deadline = true, o.deadline.Add(30*time.Minute)
	}
	late := !now.Before(o.deadline)
	switch {
	case o.cancelled, o.paid:
	case enough:
		o.paid = true
		if o.goods == "reserved" || m.take(2) {
			o.goods = "committed"
		}
		return "paid"
	case !late && (open || got > 0):
		return m.unpaid(o, "pending")
	case late || expired:
		m.release(o)
		return "expired"
	case failed:
		return m.unpaid(o, "payment_failed")
	default:
		return m.unpaid(o, "pending")
	}
	return map[bool]string{true: "cancelled", false: "paid"}[o.cancelled]
}

// unpaid is an order that holds stock again, or stays expired for want of it.
func (m *model) unpaid(o *modelOrder, status string) string {
	if o.goods == "none" && !m.take(2) {
		return "expired"
	}
	o.goods = "reserved"
	return status
}

func (m *model) take(n int) bool {
	if m.free < n {
		return false
	}
	m.free -= n
	return true
}

func (m *model) release(o *modelOrder) {
	if o.goods != "none" {
		m.free += 2
	}
	o.goods = "none"
}

// play is a shop and its model, driven together.
type play struct {
	*shop
	m     model
	sku   string
	ids   []string
	heard []News
}

// A shop on a real database, driven at random by events (new, again, late, of
// too little and too much), sweeps, cancellations, adjustments, decisions and
// the clock, stands after every step where a plain model of it stands; and its
// books balance.
func TestModel(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue { // each step is several transactions
		defer func() { _ = f.Value.Set(f.DefValue) }()
		_ = f.Value.Set("20")
	}
	s, games := newShop(t), 0
	rapid.Check(t, func(t *rapid.T) {
		games++
		p := &play{shop: s, sku: fmt.Sprintf("mug%d", games), m: model{free: 5, orders: map[string]*modelOrder{}}}
		p.product(p.sku, 5)
		for i := range 3 {
			p.ids = append(p.ids, fmt.Sprintf("g%d-%d", games, i))
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": p.openOne, "event": p.event, "again": p.again, "clock": p.tick, "cancel": p.cancelOne,
			"reopen": p.reopenOne, "adjust": p.adjustStock, "decide": p.decideOne, "": p.compare,
		})
	})
}

func (p *play) pick(t *rapid.T) (string, *modelOrder) {
	id := rapid.SampledFrom(p.ids).Draw(t, "order")
	return id, p.m.orders[id]
}

func (p *play) openOne(t *rapid.T) {
	id, o := p.pick(t)
	d := draft(id, p.sku)
	err := p.try(func(tx database.Tx) error { _, err := p.book.Open(tx, d, "admin:test"); return err })
	if o != nil || !p.m.take(2) {
		if err == nil {
			t.Fatalf("order %s was opened", id)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	p.m.orders[id] = &modelOrder{goods: "reserved", deadline: p.clock.Now().Add(30 * time.Minute), payments: map[string]*modelPayment{}, accepted: -1}
}

func (p *play) event(t *rapid.T) {
	id, o := p.pick(t)
	payment := id + rapid.SampledFrom([]string{"-a", "-b"}).Draw(t, "payment")
	kind := rapid.SampledFrom([]EventType{PaymentCreatedEvent, PaymentPendingEvent, PaymentFailedEvent, PaymentExpiredEvent, PaymentCompletedEvent, PaymentCompletedEvent}).Draw(t, "type")
	n := news(kind, payment).at(100) // no regressions: they only hold
	tenths := rapid.SampledFrom([]int{40, 60, 100, 130}).Draw(t, "tenths")
	if o != nil && o.payments[payment] != nil && o.payments[payment].brung > 0 {
		tenths = o.payments[payment].brung // else it contradicts the first
	}
	if kind == PaymentCompletedEvent {
		n.Amount.Decimal = decimal.New(int64(tenths), -1)
	}
	p.hearOne(t, p.of(id, n), o)
}

func (p *play) again(t *rapid.T) {
	if len(p.heard) == 0 {
		t.Skip("nothing yet")
	}
	n := rapid.SampledFrom(p.heard).Draw(t, "event")
	p.hearOne(t, n, p.m.orders[n.OrderRef])
}

func (p *play) hearOne(t *rapid.T, n News, o *modelOrder) {
	v := p.hear(n)
	if o == nil {
		if v[0].State != Parked {
			t.Fatalf("an event before its order is %s", v[0].State)
		}
		return
	}
	p.heard = append(p.heard, n)
	of := o.payments[n.PaymentID]
	if of == nil {
		of = &modelPayment{seen: map[EventType]bool{}}
		o.payments[n.PaymentID] = of
	}
	if n.Type == PaymentCompletedEvent && !of.seen[n.Type] {
		of.brung = int(n.Amount.Decimal.Shift(1).IntPart())
	}
	of.seen[n.Type] = true
	p.m.settle(o, p.clock.Now())
}

func (p *play) tick(t *rapid.T) {
	p.clock.Add(time.Duration(rapid.SampledFrom([]int{1, 10, 29, 31}).Draw(t, "minutes")) * time.Minute)
	if _, err := p.book.Expire(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	for _, id := range p.ids {
		if o := p.m.orders[id]; o != nil && o.goods == "reserved" && !p.clock.Now().Before(o.deadline) {
			p.m.settle(o, p.clock.Now())
		}
	}
}

func (p *play) cancelOne(t *rapid.T) {
	id, o := p.pick(t)
	err := p.shop.cancel(id)
	if o == nil || o.cancelled {
		if err == nil {
			t.Fatalf("order %s was cancelled", id)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	o.cancelled, o.paid = true, false
	p.m.release(o)
}

func (p *play) reopenOne(t *rapid.T) {
	id, o := p.pick(t)
	err := p.try(func(tx database.Tx) error { _, err := p.book.Reopen(tx, id, "admin:test", "wanted"); return err })
	closed := o != nil && o.goods == "none" && !o.paid
	if !closed || !p.m.take(2) {
		if err == nil {
			t.Fatalf("order %s was reopened", id)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	o.cancelled, o.goods, o.grace, o.deadline = false, "reserved", false, p.clock.Now().Add(30*time.Minute)
	for _, of := range o.payments {
		of.old = of.old || !of.seen[PaymentCompletedEvent] && (of.seen[PaymentExpiredEvent] || of.seen[PaymentFailedEvent])
	}
	p.m.settle(o, p.clock.Now())
}

func (p *play) adjustStock(t *rapid.T) {
	delta := rapid.IntRange(-3, 3).Filter(func(n int) bool { return n != 0 }).Draw(t, "delta")
	err := p.try(func(tx database.Tx) error {
		_, err := inventory.Change(tx, p.sku, int64(delta), "admin:test", "counted")
		return err
	})
	if fits := p.m.free+delta >= 0; fits != (err == nil) {
		t.Fatalf("adjust by %d with %d free: %v", delta, p.m.free, err)
	} else if fits {
		p.m.free += delta
	}
}

// decideOne resolves a case about money: accept, refund or keep.
func (p *play) decideOne(t *rapid.T) {
	var open []Case
	err := p.db.Read(t.Context()).Raw(`SELECT * FROM cases WHERE state = 'open' AND order_id = ANY(?) AND code IN ('UNDERPAID', 'OVERPAID', 'DUPLICATE_PAYMENT', 'CANCELLED_PAID') ORDER BY key`,
		database.Array(p.ids)).Scan(&open).Error
	if err != nil {
		t.Fatal(err)
	}
	if len(open) == 0 {
		t.Skip("no case")
	}
	c := rapid.SampledFrom(open).Draw(t, "case")
	action := rapid.SampledFrom(slices.DeleteFunc(slices.Clone(Rules[c.Code].Actions), func(a string) bool { return a == actReopen })).Draw(t, "action")
	o := p.m.orders[*c.OrderID]
	err = p.try(func(tx database.Tx) error {
		_, err := p.book.Resolve(tx, c.ID, "admin:test", Decision{Action: action, Note: "because"})
		return err
	})
	due := o.got()
	if !o.cancelled && o.paid {
		due -= min(due, o.owed())
	}
	switch {
	case action == actWait:
	case action == actAccept:
		o.accepted = o.got()
	case c.Code == UnderpaidCase: // refund
		if o.goods != "none" {
			o.cancelled = true
			p.m.release(o)
		}
		p.m.back(o, nil, o.got())
	case c.Code == DuplicatePayment:
		of := o.payments[*c.PaymentID]
		if due = min(due, of.brung-of.back); due == 0 {
			if err == nil {
				t.Fatalf("%s of %s, and nothing is due", action, c.Key)
			}
			return
		}
		p.m.back(o, of, due)
	default:
		p.m.back(o, nil, due)
	}
	if err != nil {
		t.Fatalf("%s of %s: %v", action, c.Key, err)
	}
	p.m.settle(o, p.clock.Now())
}

// back takes n tenths out of a payment, or of all: which one does not matter to the order.
func (m *model) back(o *modelOrder, of *modelPayment, n int) {
	if of != nil {
		of.back += n
		return
	}
	for _, id := range slices.Backward(slices.Sorted(keysOf(o.payments))) {
		part := min(n, o.payments[id].brung-o.payments[id].back)
		o.payments[id].back, n = o.payments[id].back+part, n-part
	}
}

func keysOf(m map[string]*modelPayment) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// compare looks at every order and the stock, and balances the books.
func (p *play) compare(t *rapid.T) {
	var is, want []string
	reserved := 0
	for _, id := range p.ids {
		o := p.m.orders[id]
		if o == nil {
			continue
		}
		now := p.clock.Now()
		if o.goods == "reserved" {
			reserved += 2
		}
		is = append(is, one[string](p.shop, `SELECT id || ' ' || status || ' ' || stock || ' got ' || trim_scale(got) || ' due back ' || trim_scale(refund_due) FROM orders WHERE id = ?`, id))
		due := o.got()
		var status string
		switch {
		case o.cancelled:
			status = "cancelled"
		case o.paid:
			status, due = "paid", o.got()-min(o.got(), o.owed())
		case o.goods == "none":
			status = "expired"
		default:
			status, due = p.m.settle(o, now), 0
		}
		want = append(want, fmt.Sprintf("%s %s %s got %v due back %v", id, status, o.goods, decimal.New(int64(o.got()), -1), decimal.New(int64(due), -1)))
	}
	is = append(is, one[string](p.shop, `SELECT (on_hand - reserved) || ' free, ' || reserved || ' reserved' FROM products WHERE sku = ?`, p.sku))
	want = append(want, fmt.Sprintf("%d free, %d reserved", p.m.free, reserved))
	if fmt.Sprint(is) != fmt.Sprint(want) {
		t.Fatalf("the shop:\n  %s\nthe model:\n  %s", strings.Join(is, "\n  "), strings.Join(want, "\n  "))
	}
	for _, m := range p.account() {
		if !m.Balanced() {
			t.Fatalf("the money does not add up: %+v", m)
		}
	}
}
