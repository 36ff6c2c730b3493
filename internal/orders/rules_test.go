package orders

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/inventory"
	"quayside/internal/notify"
)

// The rules alone, without a database: what an order becomes when it hears of
// its payments.

var opening = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// counter is one order over 10 XRP for two mugs, with all its rules need, in
// memory. Whatever it hears is a transaction of its own.
type counter struct {
	*File
	d *desk
}

// newCounter opens the order in a shop that has so many mugs.
func newCounter(mugs int64, terms Terms) *counter {
	d := &desk{
		terms: terms, now: opening, files: map[string]*File{}, links: map[string]string{}, claims: map[string]string{},
		loose: map[string]*Case{}, shelf: inventory.NewShelf(inventory.Product{SKU: "mug", Name: "A mug", OnHand: mugs}),
	}
	f := d.newFile(Order{
		ID: "1001", Status: Pending, Currency: "XRP", Total: decimal.NewFromInt(10), Stock: StockReserved, Reservation: 1,
		Deadline: opening.Add(30 * time.Minute), CreatedAt: opening,
	})
	f.Items = []Item{{OrderID: "1001", Line: 1, SKU: "mug", Quantity: 2, UnitPrice: decimal.NewFromInt(5)}}
	if err := f.open(d, "admin:test"); err != nil {
		panic(err)
	}
	d.files["1001"] = f
	return &counter{f, d}
}

func (c *counter) fresh() {
	c.follow = follow{heard: map[string]*Payment{}, cases: map[string]*Case{}}
}

// hear applies events, each in a transaction of its own.
func (c *counter) hear(news ...News) (last Verdict) {
	for _, n := range news {
		c.fresh()
		last = c.d.hear(n)
	}
	return last
}

// cancel, ship and sweep do what Book's verbs of these names do.
func (c *counter) cancel() {
	c.fresh()
	if was := c.Status; was != Cancelled {
		by := change{kind: "cancelled", cause: "admin:test", note: "changed my mind"}
		c.become(Cancelled, by, c.d)
		c.settled(by, was, c.d)
	}
}

func (c *counter) ship() {
	c.fresh()
	was, by, id := c.Status, change{kind: "shipped", cause: "admin:test"}, uuid.New()
	c.Items[0].ShipmentID = &id
	c.become(Fulfilled, by, c.d)
	c.settled(by, was, c.d)
}

func (c *counter) sweep(at time.Time) {
	c.fresh()
	c.d.now = at
	if (c.Status == Pending || c.Status == PaymentFailed) && !at.Before(c.Deadline) {
		c.settle(change{kind: "deadline", cause: "sweep:deadline"}, c.d)
	}
}

// sellOut takes the mugs nobody has reserved.
func (c *counter) sellOut() {
	if err := c.d.shelf.Adjust("mug", -c.d.shelf.Product("mug").Available(), "admin:test", "sold over the counter"); err != nil {
		panic(err)
	}
}

// String is the order as a whole: status, payment, fulfilment, stock on hand/reserved.
func (c *counter) String() string {
	p := c.d.shelf.Product("mug")
	return fmt.Sprintf("%s %s %s %d/%d", c.Status, c.PaymentStatus, c.FulfillmentStatus, p.OnHand, p.Reserved)
}

// came is what the last transaction caused: cases opened (! blocks), -cases closed, letters.
func (c *counter) came() string {
	var cases, letters []string
	for _, k := range c.cases {
		s := string(k.Code)
		switch {
		case k.hold():
			s += "!"
		case !k.open():
			s = "-" + s
		}
		cases = append(cases, s)
	}
	for _, l := range c.letters {
		letters = append(letters, string(l.Kind))
	}
	slices.Sort(cases)
	return strings.TrimSpace(strings.Join(append(cases, letters...), " "))
}

// holds are the codes of the open cases that block shipping.
func (c *counter) holds() string {
	var codes []string
	for _, k := range c.Cases {
		if k.hold() {
			codes = append(codes, string(k.Code))
		}
	}
	slices.Sort(codes)
	return strings.Join(codes, " ")
}

// audit says what does not add up, by the words of the rules and not by their code.
func (c *counter) audit(mugs int64) error {
	sum, applied := decimal.Zero, decimal.Zero
	for _, p := range c.Payments {
		if p.Counted == CountedMatched {
			sum = sum.Add(p.Amount.Decimal)
		}
	}
	switch c.Status {
	case Pending, PaymentFailed, Paid, Fulfilled:
		if applied = sum; sum.GreaterThan(c.Total) {
			applied = c.Total
		}
	case Expired, Cancelled:
	}
	if !c.Got.Equal(sum) || !applied.Add(c.RefundDue).Equal(c.Got) {
		return fmt.Errorf("got %s, payments %s, applied %s, refund due %s", c.Got, sum, applied, c.RefundDue)
	}
	want := inventory.Product{OnHand: mugs}
	switch c.Stock {
	case StockReserved:
		want.Reserved = 2
	case StockCommitted:
		want.OnHand = mugs - 2
	case StockNone:
	}
	if p := c.d.shelf.Product("mug"); p.OnHand != want.OnHand || p.Reserved != want.Reserved {
		return fmt.Errorf("stock %s: %d/%d, want %d/%d", c.Stock, p.OnHand, p.Reserved, want.OnHand, want.Reserved)
	}
	if c.TimelineLength == 0 || c.steps[len(c.steps)-1].Seq != c.TimelineLength || c.steps[len(c.steps)-1].Became != c.Status {
		return fmt.Errorf("the timeline ends with %+v, the order is %s after %d steps", c.steps[len(c.steps)-1], c.Status, c.TimelineLength)
	}
	return nil
}

// stamps are signed times in the order PayQI would send the events.
var stamps = map[EventType]int64{
	PaymentCreatedEvent: 100, PaymentPendingEvent: 200, PaymentFailedEvent: 300, PaymentExpiredEvent: 400, PaymentCompletedEvent: 500,
}

// news is an event of a payment; a completed one brings 10 XRP by a transaction of its own.
func news(t EventType, payment string) News {
	n := News{InboxID: uuid.New(), Key: "evt_" + string(t) + "_" + payment, Type: t, Created: stamps[t], PaymentID: payment, OrderRef: "1001"}
	if t == PaymentCompletedEvent {
		n.Amount, n.Currency, n.TxHash = decimal.NewNullDecimal(decimal.NewFromInt(10)), "XRP", "HASH-"+payment
	}
	return n
}

// completed is a completed payment of amount XRP.
func completed(payment, amount string) News {
	n := news(PaymentCompletedEvent, payment)
	n.Amount.Decimal = decimal.RequireFromString(amount)
	return n
}

func (n News) with(change func(*News)) News { change(&n); return n }

func (n News) at(created int64) News { n.Created = created; return n }

func (n News) hash(h string) News { n.TxHash = h; return n }

func (n News) in(currency string) News { n.Currency = currency; return n }

func (n News) to(address string, tag int64) News {
	n.PayAddress, n.DestinationTag = address, &tag
	return n
}

// Every event in every status of an order, about the payment that brought the
// order there (pay_0) and about another (pay_1): status, money, goods, cases, letters.
func TestEveryStatusAndEvent(t *testing.T) {
	paid := news(PaymentCompletedEvent, "pay_0")
	situations := []struct {
		name  string
		reach func(c *counter)
		// in the order created, pending, failed, expired, completed
		same, other [5]string
	}{
		{"pending", func(c *counter) { c.hear(news(PaymentCreatedEvent, "pay_0")) }, [5]string{
			"pending unpaid none 10/2",
			"pending awaiting_confirmation none 10/2",
			"payment_failed unpaid none 10/2: payment_failed",
			"expired unpaid none 10/0: order_expired",
			"paid paid queued 8/0: payment_confirmed",
		}, [5]string{
			"pending unpaid none 10/2",
			"pending awaiting_confirmation none 10/2",
			"pending unpaid none 10/2",
			"pending unpaid none 10/2",
			"paid paid queued 8/0: payment_confirmed",
		}},
		{"payment_failed", func(c *counter) { c.hear(news(PaymentFailedEvent, "pay_0")) }, [5]string{
			"payment_failed unpaid none 10/2",
			"payment_failed unpaid none 10/2",
			"payment_failed unpaid none 10/2",
			"expired unpaid none 10/0: order_expired",
			"paid paid queued 8/0: LATE_PAID payment_confirmed",
		}, [5]string{
			"pending unpaid none 10/2",
			"pending awaiting_confirmation none 10/2",
			"payment_failed unpaid none 10/2",
			"expired unpaid none 10/0: order_expired",
			"paid paid queued 8/0: payment_confirmed", // a second try, in time
		}},
		{"expired", func(c *counter) { c.hear(news(PaymentExpiredEvent, "pay_0")) }, [5]string{
			"expired unpaid none 10/0",
			"expired unpaid none 10/0",
			"expired unpaid none 10/0",
			"expired unpaid none 10/0",
			"paid paid queued 8/0: LATE_PAID payment_confirmed",
		}, [5]string{
			"pending unpaid none 10/2",
			"pending awaiting_confirmation none 10/2",
			"expired unpaid none 10/0",
			"expired unpaid none 10/0",
			"paid paid queued 8/0: LATE_PAID payment_confirmed",
		}},
		{"expired, goods gone", func(c *counter) { c.hear(news(PaymentExpiredEvent, "pay_0")); c.sellOut() }, [5]string{
			"expired unpaid none 0/0",
			"expired unpaid none 0/0",
			"expired unpaid none 0/0",
			"expired unpaid none 0/0",
			"paid paid on_hold 0/0: STOCK_GONE! goods_gone",
		}, [5]string{
			"expired unpaid none 0/0",
			"expired awaiting_confirmation none 0/0",
			"expired unpaid none 0/0",
			"expired unpaid none 0/0",
			"paid paid on_hold 0/0: STOCK_GONE! goods_gone",
		}},
		{"paid", func(c *counter) { c.hear(paid) }, [5]string{
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid paid queued 8/0",
		}, [5]string{
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid paid queued 8/0",
			"paid overpaid queued 8/0: DUPLICATE_PAYMENT",
		}},
		{"paid, goods gone", func(c *counter) { c.hear(news(PaymentExpiredEvent, "pay_0")); c.sellOut(); c.hear(paid) }, [5]string{
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
		}, [5]string{
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid paid on_hold 0/0",
			"paid overpaid on_hold 0/0: DUPLICATE_PAYMENT",
		}},
		{"cancelled", func(c *counter) { c.hear(news(PaymentCreatedEvent, "pay_0")); c.cancel() }, [5]string{
			"cancelled unpaid none 10/0",
			"cancelled awaiting_confirmation none 10/0",
			"cancelled unpaid none 10/0",
			"cancelled unpaid none 10/0",
			"cancelled refund_due none 10/0: CANCELLED_PAID",
		}, [5]string{
			"cancelled unpaid none 10/0",
			"cancelled awaiting_confirmation none 10/0",
			"cancelled unpaid none 10/0",
			"cancelled unpaid none 10/0",
			"cancelled refund_due none 10/0: CANCELLED_PAID",
		}},
		{"fulfilled", func(c *counter) { c.hear(paid); c.ship() }, [5]string{
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
		}, [5]string{
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled paid fulfilled 8/0",
			"fulfilled overpaid fulfilled 8/0: DUPLICATE_PAYMENT",
		}},
	}
	events := [5]EventType{PaymentCreatedEvent, PaymentPendingEvent, PaymentFailedEvent, PaymentExpiredEvent, PaymentCompletedEvent}
	for _, s := range situations {
		for i, e := range events {
			for payment, want := range map[string]string{"pay_0": s.same[i], "pay_1": s.other[i]} {
				c := newCounter(10, Terms{})
				s.reach(c)
				v := c.hear(news(e, payment))
				if got := strings.TrimSuffix(c.String()+": "+c.came(), ": "); got != want {
					t.Errorf("%s hears %s of %s:\n got %s\nwant %s", s.name, e, payment, got, want)
				}
				if v.State != Applied {
					t.Errorf("%s hears %s of %s: %+v", s.name, e, payment, v)
				}
			}
		}
	}
}

// What one payment, or several, make of an order over 10 XRP.
func TestMoney(t *testing.T) {
	tolerant := Terms{Tolerance: decimal.RequireFromString("0.01")}
	for _, tc := range []struct {
		name  string
		terms Terms
		news  []News
		want  string // status, payment, fulfilment, stock; got, refund due; holds; what the last event caused
	}{
		{"exact", Terms{}, []News{completed("a", "10")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{"exact, 10.0", Terms{}, []News{completed("a", "10.0")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{"exact, six places", Terms{}, []News{completed("a", "10.000000")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{"exact, with an exponent", Terms{}, []News{completed("a", "1e1")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{"a drop under", Terms{}, []News{completed("a", "9.999999")}, "pending underpaid none 10/2; 9.999999, 0.00; UNDERPAID; UNDERPAID!"},
		{"1e-18 under", Terms{}, []News{completed("a", "9.999999999999999999")}, "pending underpaid none 10/2; 9.999999999999999999, 0.00; UNDERPAID; UNDERPAID!"},
		{"a drop over", Terms{}, []News{completed("a", "10.000001")}, "paid overpaid queued 8/0; 10.000001, 0.000001; ; OVERPAID payment_confirmed"},
		{"at the tolerance", tolerant, []News{completed("a", "9.99")}, "paid paid queued 8/0; 9.99, 0.00; ; payment_confirmed"},
		{"under the tolerance", tolerant, []News{completed("a", "9.989999")}, "pending underpaid none 10/2; 9.989999, 0.00; UNDERPAID; UNDERPAID!"},
		{"tolerant, and all came", tolerant, []News{completed("a", "10")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{
			"a tolerance larger than the order, and nothing came",
			Terms{Tolerance: decimal.NewFromInt(11)},
			[]News{news(PaymentPendingEvent, "a")},
			"pending awaiting_confirmation none 10/2; 0.00, 0.00; ; ",
		},
		{"two halves", Terms{}, []News{completed("a", "5"), completed("b", "5")}, "paid paid queued 8/0; 10.00, 0.00; ; -UNDERPAID payment_confirmed"},
		{
			"two halves and a drop",
			Terms{},
			[]News{completed("a", "5"), completed("b", "5.000001")},
			"paid overpaid queued 8/0; 10.000001, 0.000001; ; -UNDERPAID OVERPAID payment_confirmed",
		},
		{
			"half of it, then the payment fails",
			Terms{},
			[]News{completed("a", "5"), news(PaymentFailedEvent, "b")},
			"pending underpaid none 10/2; 5.00, 0.00; UNDERPAID; ",
		},
		{"a second full payment", Terms{}, []News{completed("a", "10"), completed("b", "10")}, "paid overpaid queued 8/0; 20.00, 10.00; ; DUPLICATE_PAYMENT"},
		{"overpaid, then a second", Terms{}, []News{completed("a", "11"), completed("b", "10")}, "paid overpaid queued 8/0; 21.00, 11.00; ; DUPLICATE_PAYMENT OVERPAID"},
		{"the same once more", Terms{}, []News{completed("a", "10"), completed("a", "10.00")}, "paid paid queued 8/0; 10.00, 0.00; ; "},
		{"another currency", Terms{}, []News{completed("a", "10").in("RLUSD")}, "pending unpaid none 10/2; 0.00, 0.00; WRONG_CURRENCY; WRONG_CURRENCY!"},
		{"a currency that only looks alike", Terms{}, []News{completed("a", "10").in("ХRP")}, "pending unpaid none 10/2; 0.00, 0.00; WRONG_CURRENCY; WRONG_CURRENCY!"},
		{
			"another currency, then the right one",
			Terms{},
			[]News{completed("a", "10").in("RLUSD"), completed("b", "10")},
			"paid paid on_hold 8/0; 10.00, 0.00; WRONG_CURRENCY; payment_confirmed",
		},
		{"the amount changes", Terms{}, []News{completed("a", "10"), completed("a", "100")}, "paid paid on_hold 8/0; 10.00, 0.00; AMOUNT_CHANGED; AMOUNT_CHANGED!"},
		{
			"the currency changes",
			Terms{},
			[]News{completed("a", "10"), completed("a", "10").in("BTC")},
			"paid paid on_hold 8/0; 10.00, 0.00; AMOUNT_CHANGED; AMOUNT_CHANGED!",
		},
		{
			"too little changes to enough",
			Terms{},
			[]News{completed("a", "1"), completed("a", "10")},
			"pending underpaid none 10/2; 1.00, 0.00; AMOUNT_CHANGED UNDERPAID; AMOUNT_CHANGED!",
		},
		{
			"one transaction for two payments",
			Terms{},
			[]News{completed("a", "5").hash("AB12"), completed("b", "5").hash("AB12")},
			"pending underpaid none 10/2; 5.00, 0.00; TX_REUSED UNDERPAID; TX_REUSED!",
		},
		{
			"one transaction in another case",
			Terms{},
			[]News{completed("a", "5").hash("AB12"), completed("b", "5").hash("ab12")},
			"pending underpaid none 10/2; 5.00, 0.00; TX_REUSED UNDERPAID; TX_REUSED!",
		},
		{
			"one transaction on a paid order",
			Terms{},
			[]News{completed("a", "10").hash("AB12"), completed("b", "10").hash("ab12")},
			"paid paid on_hold 8/0; 10.00, 0.00; TX_REUSED; TX_REUSED!",
		},
		{
			"a transaction that came in another currency stays taken",
			Terms{},
			[]News{completed("a", "10").in("BTC").hash("AB12"), completed("b", "10").hash("AB12")},
			"pending unpaid none 10/2; 0.00, 0.00; TX_REUSED WRONG_CURRENCY; TX_REUSED!",
		},
		{
			"two payments without a transaction",
			Terms{},
			[]News{completed("a", "5").hash(""), completed("b", "5").hash("")},
			"paid paid queued 8/0; 10.00, 0.00; ; -UNDERPAID payment_confirmed",
		},
		{
			"the transaction is told later, and used",
			Terms{},
			[]News{completed("a", "5").hash(""), completed("a", "5").hash("AB12"), completed("b", "5").hash("ab12")},
			"pending underpaid none 10/2; 5.00, 0.00; TX_REUSED UNDERPAID; TX_REUSED!",
		},
		{
			"a transaction told later that counts elsewhere",
			Terms{},
			[]News{completed("a", "5").hash("AB12"), completed("b", "4").hash(""), completed("b", "4").hash("ab12")},
			"pending underpaid none 10/2; 9.00, 0.00; TX_REUSED UNDERPAID; TX_REUSED!",
		},
		{
			"another address",
			Terms{},
			[]News{news(PaymentCreatedEvent, "a").to("rShop", 7), completed("a", "10").to("rThief", 7)},
			"pending unpaid none 10/2; 0.00, 0.00; WRONG_ADDRESS; WRONG_ADDRESS!",
		},
		{
			"another tag",
			Terms{},
			[]News{news(PaymentCreatedEvent, "a").to("rShop", 7), completed("a", "10").to("rShop", 0)},
			"pending unpaid none 10/2; 0.00, 0.00; WRONG_ADDRESS; WRONG_ADDRESS!",
		},
		{
			"the same address",
			Terms{},
			[]News{news(PaymentCreatedEvent, "a").to("rShop", 0), completed("a", "10").to("rShop", 0)},
			"paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed",
		},
		{"no address told", Terms{}, []News{news(PaymentCreatedEvent, "a").to("rShop", 7), completed("a", "10")}, "paid paid queued 8/0; 10.00, 0.00; ; payment_confirmed"},
		{
			"another address after the money",
			Terms{},
			[]News{completed("a", "10").to("rShop", 7), news(PaymentPendingEvent, "a").to("rThief", 7)},
			"paid paid on_hold 8/0; 10.00, 0.00; WRONG_ADDRESS; WRONG_ADDRESS!",
		},
	} {
		c := newCounter(10, tc.terms)
		c.hear(tc.news...)
		got := fmt.Sprintf("%s; %s, %s; %s; %s", c, Amount(c.Got), Amount(c.RefundDue), c.holds(), c.came())
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
		if err := c.audit(10); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A paid order stays paid when the shop becomes less tolerant, and nothing holds it.
func TestToleranceLowered(t *testing.T) {
	c := newCounter(10, Terms{Tolerance: decimal.NewFromInt(1)})
	c.hear(completed("a", "9.5"))
	c.terms.Tolerance = decimal.Zero
	c.hear(news(PaymentPendingEvent, "a"))
	c.sweep(opening.Add(time.Hour))
	if got := c.String() + " " + c.holds(); got != "paid paid queued 8/0 " {
		t.Error(got)
	}
}

// What contradicts an earlier event is set aside with a reason; what repeats it is not.
func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		news   []News
		want   string
		reason bool
	}{
		{"first", []News{completed("a", "10")}, Applied, false},
		{"again", []News{completed("a", "10"), completed("a", "10")}, Applied, false},
		{"transaction filled in", []News{completed("a", "10").hash(""), completed("a", "10")}, Applied, false},
		{"another amount", []News{completed("a", "10"), completed("a", "11")}, Quarantined, true},
		{"transaction filled in that is taken", []News{completed("a", "1"), completed("b", "1").hash(""), completed("b", "1").hash("HASH-a")}, Quarantined, true},
		{"another currency", []News{completed("a", "10").in("BTC")}, Applied, true},
		{"another order", []News{completed("a", "10"), completed("a", "10").with(func(n *News) { n.OrderRef = "1002" })}, Quarantined, true},
		{"the order not named again", []News{news(PaymentCreatedEvent, "a"), completed("a", "10").with(func(n *News) { n.OrderRef = "" })}, Applied, false},
		{"no order named", []News{completed("a", "10").with(func(n *News) { n.OrderRef = "" })}, Parked, true},
		{"no such order", []News{completed("a", "10").with(func(n *News) { n.OrderRef = "1002" })}, Parked, true},
		{"unreadable", []News{completed("a", "10").with(func(n *News) { n.Trouble = &Trouble{UnreadableEvent, "nonsense"} })}, Quarantined, true},
	} {
		c := newCounter(10, Terms{})
		if v := c.hear(tc.news...); v.State != tc.want || (v.Reason != "") != tc.reason {
			t.Errorf("%s: %+v, want %s, a reason: %v", tc.name, v, tc.want, tc.reason)
		}
	}
}

// An event for another order than its payment's changes neither, and holds the recorded one.
func TestOrderMismatch(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(news(PaymentCreatedEvent, "a"), completed("a", "10").with(func(n *News) { n.OrderRef = "1002" }))
	if got := c.String() + " " + c.holds(); got != "pending unpaid none 10/2 ORDER_MISMATCH" {
		t.Error(got)
	}
	c.hear(completed("a", "10"))
	if got := c.String(); got != "paid paid on_hold 8/0" {
		t.Errorf("then the right one: %s", got)
	}
}

// An event that cannot be believed holds the order it names or whose payment
// it is; without an order it is a case of its own.
func TestTrouble(t *testing.T) {
	trouble := func(n *News) { n.Trouble = &Trouble{EventConflict, "it says something else"} }
	for name, n := range map[string]News{
		"named":     news(PaymentFailedEvent, "b").with(trouble),
		"by link":   news(PaymentFailedEvent, "a").with(trouble).with(func(n *News) { n.OrderRef = "" }),
		"elsewhere": news(PaymentFailedEvent, "a").with(trouble).with(func(n *News) { n.OrderRef = "1002" }),
	} {
		c := newCounter(10, Terms{})
		c.hear(completed("a", "10"), n)
		if got := c.String() + " " + c.holds(); got != "paid paid on_hold 8/0 EVENT_CONFLICT" || len(c.Payments) != 1 {
			t.Errorf("%s: %s, %d payments", name, got, len(c.Payments))
		}
	}
	c := newCounter(10, Terms{})
	c.hear(news(PaymentFailedEvent, "b").with(trouble).with(func(n *News) { n.OrderRef = "" }))
	if len(c.d.loose) != 1 || c.holds() != "" {
		t.Errorf("without an order: %d cases, holds %q", len(c.d.loose), c.holds())
	}
}

// PayQI says failed or expired after completed, by its own clock, whichever
// arrives second: the order is held. An older one, or one of the same second, is late news.
func TestRegression(t *testing.T) {
	for _, typ := range []EventType{PaymentFailedEvent, PaymentExpiredEvent} {
		for created, want := range map[int64]string{499: "paid paid queued 8/0 ", 500: "paid paid queued 8/0 ", 501: "paid paid on_hold 8/0 REGRESSION"} {
			first, second := completed("a", "10"), news(typ, "a").at(created)
			for _, order := range [][]News{{first, second}, {second, first}} {
				c := newCounter(10, Terms{})
				c.hear(order...)
				if got := c.String() + " " + c.holds(); got != want {
					t.Errorf("%s at %d, %s first: %s, want %s", typ, created, order[0].Type, got, want)
				}
			}
		}
		c := newCounter(10, Terms{})
		c.hear(completed("a", "10").at(0), news(typ, "a").at(501))
		if c.holds() != "" {
			t.Errorf("completed without a time cannot be earlier: %s", c.holds())
		}
		c = newCounter(10, Terms{})
		c.hear(completed("a", "10"))
		c.ship()
		c.hear(news(typ, "a").at(501))
		if got := c.String() + " " + c.holds() + " " + c.came(); got != "fulfilled paid fulfilled 8/0  REGRESSION" {
			t.Errorf("%s after shipping blocks nothing any more: %s", typ, got)
		}
		c = newCounter(10, Terms{})
		c.hear(completed("a", "10"), news(typ, "b").at(501))
		if c.holds() != "" {
			t.Errorf("the %s of another payment: %s", typ, c.holds())
		}
		c.hear(news(typ, "a").at(501), completed("a", "10").at(502))
		if c.holds() != "" || !strings.Contains(c.came(), "-REGRESSION") {
			t.Errorf("completed said once more and later: holds %q, %s", c.holds(), c.came())
		}
	}
}

// A late event never takes an order back: once failed, created and pending of
// the same payment change nothing; a new payment opens the order again.
func TestLateNews(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(news(PaymentFailedEvent, "a"), news(PaymentPendingEvent, "a"), news(PaymentCreatedEvent, "a"))
	if c.Status != PaymentFailed {
		t.Errorf("late pending: %s", c.Status)
	}
	c.hear(news(PaymentCreatedEvent, "b"))
	if c.Status != Pending {
		t.Errorf("a new try: %s", c.Status)
	}
}

// Money for a cancelled order is due back, all of it, and a person is told.
func TestCancelledThenPaid(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(completed("a", "4"))
	c.cancel()
	if got := c.String() + " " + Amount(c.RefundDue) + " " + c.came(); got != "cancelled refund_due none 10/0 4.00 -UNDERPAID CANCELLED_PAID order_cancelled" {
		t.Error(got)
	}
	c.hear(completed("b", "10"))
	if got := c.String() + " " + Amount(c.RefundDue) + " " + c.holds(); got != "cancelled refund_due none 10/0 14.00 " {
		t.Error(got)
	}
	c.hear(completed("c", "10"))
	if got := c.String() + " " + Amount(c.RefundDue) + " " + c.came(); got != "cancelled refund_due none 10/0 24.00 CANCELLED_PAID" {
		t.Errorf("once more than enough: %s", got)
	}
}

// At its deadline an order that is not paid expires and gives its stock back;
// one that may be paid any moment has thirty minutes more, once.
func TestDeadline(t *testing.T) {
	deadline := opening.Add(30 * time.Minute)
	for _, tc := range []struct {
		name   string
		news   []News
		lasts  time.Time
		want   string
		silent int // payments that nobody knows the end of
	}{
		{"nothing heard", nil, deadline, "expired unpaid none 10/0", 0},
		{"created", []News{news(PaymentCreatedEvent, "a")}, deadline, "expired unpaid none 10/0", 1},
		{"failed", []News{news(PaymentFailedEvent, "a")}, deadline, "expired unpaid none 10/0", 0},
		{"pending", []News{news(PaymentPendingEvent, "a")}, deadline.Add(grace), "expired awaiting_confirmation none 10/0", 1},
		{"two pending", []News{news(PaymentPendingEvent, "a"), news(PaymentPendingEvent, "b")}, deadline.Add(grace), "expired awaiting_confirmation none 10/0", 2},
		{"pending, then failed", []News{news(PaymentPendingEvent, "a"), news(PaymentFailedEvent, "a")}, deadline.Add(grace), "expired unpaid none 10/0", 0},
		{"underpaid", []News{completed("a", "9.999999")}, deadline.Add(grace), "expired refund_due none 10/0", 0},
		{"underpaid, and more is coming", []News{completed("a", "9"), news(PaymentPendingEvent, "b")}, deadline.Add(grace), "expired refund_due none 10/0", 1},
		{"money of another kind", []News{completed("a", "10").in("BTC")}, deadline, "expired unpaid none 10/0", 0},
	} {
		c := newCounter(10, Terms{})
		c.hear(tc.news...)
		if !c.Deadline.Equal(tc.lasts) {
			t.Errorf("%s: lasts until %s, want %s", tc.name, c.Deadline, tc.lasts)
		}
		c.sweep(tc.lasts.Add(-time.Microsecond))
		if c.Stock != StockReserved || len(c.steps) > 0 {
			t.Errorf("%s, just before: %s", tc.name, c)
		}
		c.sweep(tc.lasts)
		if got := c.String(); got != tc.want {
			t.Errorf("%s, at the deadline: %s, want %s", tc.name, got, tc.want)
		}
		if came := c.came(); came != strings.Repeat("SILENT_PAYMENT ", tc.silent)+"order_expired" {
			t.Errorf("%s: %s", tc.name, came)
		}
		if err := c.audit(10); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// News that comes after the deadline counts all the same: a payment under way
// revives the order within its grace, money does so at any time.
func TestNewsAfterTheDeadline(t *testing.T) {
	late := opening.Add(31 * time.Minute)
	for _, tc := range []struct {
		name string
		at   time.Time
		news News
		want string
	}{
		{"created", late, news(PaymentCreatedEvent, "a"), "expired unpaid none 10/0"},
		{"pending, within the grace", late, news(PaymentPendingEvent, "a"), "pending awaiting_confirmation none 10/2"},
		{"pending, too late", opening.Add(60 * time.Minute), news(PaymentPendingEvent, "a"), "expired awaiting_confirmation none 10/0"},
		{"half, within the grace", late, completed("a", "5"), "pending underpaid none 10/2"},
		{"half, too late", opening.Add(60 * time.Minute), completed("a", "5"), "expired refund_due none 10/0"},
		{"all of it, a month later", opening.Add(720 * time.Hour), completed("a", "10"), "paid paid queued 8/0"},
	} {
		for _, swept := range []bool{true, false} {
			c := newCounter(10, Terms{})
			if swept {
				c.sweep(late)
			}
			c.d.now = tc.at
			c.hear(tc.news)
			if got := c.String(); got != tc.want {
				t.Errorf("%s, swept %v: %s, want %s", tc.name, swept, got, tc.want)
			}
			if late := c.Cases["LATE_PAID/1001"] != nil; late != (swept && c.Status == Paid) {
				t.Errorf("%s, swept %v: LATE_PAID %v", tc.name, swept, late)
			}
		}
	}
}

// An underpaid order that expires keeps its case; the rest of the money pays it after all.
func TestUnderpaidExpiresAndRevives(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(completed("a", "4"))
	c.sweep(opening.Add(time.Hour))
	if got := c.String() + " " + Amount(c.RefundDue) + " " + c.holds(); got != "expired refund_due none 10/0 4.00 UNDERPAID" {
		t.Error(got)
	}
	c.hear(completed("b", "6"))
	if got := c.String() + " " + Amount(c.RefundDue) + " " + c.holds(); got != "paid paid queued 8/0 0.00 " {
		t.Error(got)
	}
}

// The order shows the completed payment lowest by (created, id), however they arrive.
func TestShownPayment(t *testing.T) {
	a, b, x := completed("a", "10").at(700), completed("b", "10").at(600), completed("c", "10").at(600)
	for _, order := range [][]News{{a, b, x}, {a, x, b}, {b, a, x}, {b, x, a}, {x, a, b}, {x, b, a}} {
		c := newCounter(10, Terms{})
		c.hear(order...)
		if *c.PaymentID != "b" || *c.TxHash != "HASH-b" {
			t.Errorf("shows %s by %s", *c.PaymentID, *c.TxHash)
		}
	}
}

// A letter of one batch that a later event of it outgrows is never posted.
func TestBatchOutgrowsItsLetters(t *testing.T) {
	for _, tc := range []struct {
		news []News
		want string
	}{
		{[]News{news(PaymentFailedEvent, "a"), completed("a", "10")}, "LATE_PAID payment_confirmed"},
		{[]News{news(PaymentExpiredEvent, "a"), completed("a", "10")}, "LATE_PAID payment_confirmed"},
		{[]News{news(PaymentFailedEvent, "a"), news(PaymentExpiredEvent, "a")}, "order_expired"},
		{[]News{news(PaymentFailedEvent, "a"), news(PaymentCreatedEvent, "b")}, ""},
		{[]News{news(PaymentCreatedEvent, "a").to("rShop", 1), news(PaymentCreatedEvent, "b").to("rShop", 2)}, "order_received"},
		{[]News{news(PaymentCreatedEvent, "a").to("rShop", 1), completed("a", "10")}, "payment_confirmed"},
	} {
		c := newCounter(10, Terms{})
		c.fresh()
		for _, n := range tc.news {
			c.d.hear(n)
		}
		if got := c.came(); got != tc.want {
			t.Errorf("%s, %s: %q, want %q", tc.news[0].Type, tc.news[1].Type, got, tc.want)
		}
	}
}

// The customer is told where to pay once the first payment says so.
func TestWhereToPay(t *testing.T) {
	c := newCounter(10, Terms{PublicURL: "https://shop.example"})
	c.hear(news(PaymentCreatedEvent, "a").to("rShop", 0))
	if c.came() != "order_received" || !slices.Contains(c.outgrown, notify.OrderReceived) {
		t.Fatalf("%s, drops %v", c.came(), c.outgrown)
	}
	if l := c.letters[0]; l.About != "a" || l.Facts.PayAddress != "rShop" || l.Facts.DestinationTag != "0" || l.Facts.Total != "10.00" || l.Facts.Got != "" {
		t.Errorf("%+v", l)
	}
	c.hear(news(PaymentCreatedEvent, "a").to("rShop", 0))
	if c.came() != "" {
		t.Errorf("again: %s", c.came())
	}
	c.hear(news(PaymentCreatedEvent, "b").to("rOther", 5))
	if c.came() != "order_received" || *c.PayAddress != "rOther" || *c.DestinationTag != 5 {
		t.Errorf("a second try: %s, pay to %s", c.came(), *c.PayAddress)
	}
	c.hear(news(PaymentPendingEvent, "d"), news(PaymentCreatedEvent, "d").to("rSlow", 8))
	if c.came() != "" || *c.PayAddress != "rSlow" {
		t.Errorf("money is on its way already: %s, pay to %s", c.came(), *c.PayAddress)
	}
	c.hear(completed("b", "10"), news(PaymentCreatedEvent, "c").to("rLate", 6))
	if c.came() != "" || *c.PayAddress != "rSlow" {
		t.Errorf("paid: %s, pay to %s", c.came(), *c.PayAddress)
	}
}

// A case that a person has closed stays closed; one that settled itself opens again.
func TestClosedCases(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(completed("a", "10"), news(PaymentFailedEvent, "a").at(501))
	who, k := "admin:ada", c.Cases["REGRESSION/a"]
	k.State, k.ClosedAt, k.ClosedBy = caseClosed, &c.d.now, &who
	c.hear(news(PaymentFailedEvent, "a").at(502))
	if c.holds() != "" || c.FulfillmentStatus != InQueue {
		t.Errorf("decided by a person: holds %q, %s", c.holds(), c)
	}
	c = newCounter(10, Terms{})
	c.hear(completed("a", "10"), news(PaymentFailedEvent, "a").at(501), completed("a", "10").at(502), news(PaymentFailedEvent, "a").at(503))
	if c.holds() != "REGRESSION" || c.FulfillmentStatus != OnHold {
		t.Errorf("settled itself, and again: holds %q, %s", c.holds(), c)
	}
}

// Goods that were never taken from stock are not asked for, whoever closed the
// case; and as long as they are gone the case comes back.
func TestNothingTakenNothingShipped(t *testing.T) {
	c := newCounter(10, Terms{})
	c.hear(news(PaymentExpiredEvent, "a"))
	c.sellOut()
	c.hear(completed("a", "10"))
	who, k := "admin:ada", c.Cases["STOCK_GONE/1001"]
	k.State, k.ClosedAt, k.ClosedBy = caseClosed, &c.d.now, &who
	c.hear(news(PaymentPendingEvent, "a"))
	if c.holds() != "STOCK_GONE" || len(c.requests) != 0 {
		t.Errorf("held by %q, asked for %+v", c.holds(), c.requests)
	}
}

// Money prints exactly, with at least two decimals and no more than it has.
func TestAmount(t *testing.T) {
	for in, want := range map[string]string{
		"10": "10.00", "10.000000": "10.00", "10.5": "10.50", "0.000001": "0.000001", "1e-18": "0.000000000000000001",
		"12345678901234567.5": "12345678901234567.50", "999999999999999999.999999999999999999": "999999999999999999.999999999999999999",
		"0": "0.00", "1e3": "1000.00", "1.230": "1.23", "9007199254740993": "9007199254740993.00",
	} {
		if got := Amount(decimal.RequireFromString(in)); got != want {
			t.Errorf("%s prints as %s, want %s", in, got, want)
		}
	}
}
