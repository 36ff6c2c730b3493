//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// story is a kind of thing that happens to a shop.
type story struct {
	kind string
	tell func(*teller)
}

// ampleGoods never run out; after them come rareGoods that do.
const (
	ampleGoods = 20
	rareGoods  = 4
)

// stories are all kinds. Each begins by opening an order, unless it says otherwise.
var stories = []story{
	{"paid", func(t *teller) { t.simple("created", "pending", "completed") }},
	{"paid, and nothing said before", func(t *teller) { t.simple("completed") }},
	{"only announced", func(t *teller) { t.simple("created") }},
	{"on its way", func(t *teller) { t.simple("created", "pending") }},
	{"failed", func(t *teller) { t.simple("created", "failed") }},
	{"expired", func(t *teller) { t.simple("created", "expired") }},
	{"in any order", shuffled},
	{"underpaid", func(t *teller) { t.amounts("0.5") }},
	{"made good", func(t *teller) { t.amounts("0.25", "0.75") }},
	{"overpaid", func(t *teller) { t.amounts("1.5") }},
	{"paid twice", func(t *teller) { t.amounts("1", "1") }},
	{"in eight parts at once", inParts},
	{"to the last digit", toTheLastDigit},
	{"second attempt pays", secondAttempt("failed", "completed")},
	{"second attempt pays after the first expired", secondAttempt("expired", "completed")},
	{"second attempt is open", secondAttempt("failed", "created")},
	{"expired, then paid", func(t *teller) { t.simple("created", "expired", "completed") }},
	{"failed news comes late", lateNews},
	{"failed after it was paid", regression},
	{"too late", func(t *teller) { _, _ = t.open(time.Duration(1+t.rng.IntN(3)) * time.Second) }},
	{"too late, then paid", tooLateThenPaid},
	{"cancelled", cancelled(nil, nil)},
	{"cancelled, then paid", cancelled(nil, []string{"created", "completed"})},
	{"paid, then cancelled", cancelled([]string{"completed"}, nil)},
	{"shipped", shipped},
	{"the shop asks twice", askedTwice},
	{"each event many times", duplicates},
	{"the same in other bytes", inOtherBytes},
	{"forged", lied(forged)},
	{"unsigned", lied(unsigned)},
	{"prefixed signature", lied(prefixed)},
	{"wrong id", wrongID},
	{"no order id", noOrderID},
	{"event before its order", beforeItsOrder},
	{"event without id", withoutID},
	{"contradicts itself under one id", contradiction},
	{"completes with two amounts", amountChanged},
	{"other currency", otherCurrency},
	{"other address", otherAddress},
	{"one transaction twice", transactionTwice},
	{"one payment, two orders", onePaymentTwoOrders},
	{"unreadable", makesNoSense},
	{"unknown type", ofUnknownType},
	{"from the testing tool", fromTestingTool},
	{"stale", staleEvent(false)},
	{"stale, then in time", staleEvent(true)},
	{"an hour late", anHourLate},
	{"rare goods", rare},
}

// simple tells the events of one payment, one after the other.
func (t *teller) simple(kinds ...string) {
	if o, opened := t.open(0); opened {
		t.all(o, t.name("pay"), kinds)
	}
}

func (t *teller) all(o order, payment string, kinds []string) {
	for _, k := range kinds {
		if !t.tell(t.event(k, o, payment)) {
			return
		}
	}
}

// amounts pays shares of an order, each with a payment of its own.
func (t *teller) amounts(shares ...string) {
	o, opened := t.open(0)
	for _, s := range shares {
		share, _ := decimal.NewFromString(s) // a constant
		if opened {
			e := t.event("completed", o, t.name("pay"))
			e.Data.Amount = json.Number(o.total.Mul(share).String())
			opened = t.tell(e)
		}
	}
}

func shuffled(t *teller) {
	if o, opened := t.open(0); opened {
		pay, events := t.name("pay"), []event{}
		for _, k := range []string{"created", "pending", "failed", "completed"} {
			events = append(events, t.event(k, o, pay))
		}
		events[2].Created -= 60 // old news, whenever it comes
		t.rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		t.atOnce(events...)
	}
}

func inParts(t *teller) {
	if o, opened := t.open(0); opened {
		left, events := o.total, []event{}
		for i := range 8 {
			e := t.event("completed", o, t.name("pay"))
			part := o.total.Div(decimal.NewFromInt(8)).Truncate(9)
			if i == 7 {
				part = left
			}
			left = left.Sub(part)
			e.Data.Amount = json.Number(part.String())
			events = append(events, e)
		}
		t.atOnce(events...)
	}
}

func toTheLastDigit(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		e.Data.Amount = json.Number(o.total.Add(decimal.New(1, -18)).String())
		drop := t.event("completed", o, t.name("pay"))
		drop.Data.Amount = "1e-05"
		_ = t.tell(e) && t.tell(drop)
	}
}

func secondAttempt(first, second string) func(*teller) {
	return func(t *teller) {
		if o, opened := t.open(0); opened {
			one, two := t.event(first, o, t.name("pay")), t.event(second, o, t.name("pay"))
			if t.chance(50) {
				one, two = two, one
			}
			if t.chance(50) {
				t.atOnce(one, two)
			} else {
				t.tell(one, two)
			}
		}
	}
}

func lateNews(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		old := t.event("failed", o, pay)
		old.Created -= 600
		t.tell(t.event("completed", o, pay), old)
	}
}

func regression(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		later := t.event("failed", o, pay)
		later.Created += 600
		t.atOnce(t.event("completed", o, pay), later)
	}
}

func tooLateThenPaid(t *teller) {
	if o, opened := t.open(time.Second); opened && sleep(t.ctx, time.Duration(t.rng.IntN(3000))*time.Millisecond) == nil {
		t.tell(t.event("completed", o, t.name("pay")))
	}
}

func cancelled(before, after []string) func(*teller) {
	return func(t *teller) {
		if o, opened := t.open(0); opened {
			pay := t.name("pay")
			t.all(o, pay, before)
			t.cancel(o)
			t.all(o, pay, after)
		}
	}
}

func shipped(t *teller) {
	if o, opened := t.open(0); opened {
		_ = t.tell(t.event("completed", o, t.name("pay"))) && t.ship(o)
	}
}

// askedTwice repeats what the shop wants with the key it came with: a repeat is
// answered like the first, and done once.
func askedTwice(t *teller) {
	o, body := t.draft()
	together(2, func(int) { t.put(o, body, 0) })
	together(2, func(int) { t.cancel(o) })
}

func duplicates(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		for _, k := range []string{"created", "completed"} {
			e := t.event(k, o, pay)
			t.atOnce(slices.Repeat([]event{e}, 2+t.rng.IntN(20))...)
		}
	}
}

func inOtherBytes(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		_ = t.tell(e) && t.send(e.ID, e.respell(), respelled)
	}
}

func lied(l lie) func(*teller) {
	return func(t *teller) {
		if o, opened := t.open(0); opened {
			e := t.event("completed", o, t.name("pay"))
			t.send(e.ID, e.bytes(), l)
			if t.chance(50) { // and then PayQI itself, with the very id
				t.tell(e)
			}
		}
	}
}

func wrongID(t *teller) {
	o, _ := t.draft()
	t.tell(t.event([]string{"created", "completed"}[t.rng.IntN(2)], o, t.name("pay")))
}

func noOrderID(t *teller) {
	o, _ := t.draft()
	e := t.event("completed", o, t.name("pay"))
	e.Data.Metadata.OrderID = ""
	body := e.bytes()
	if t.chance(50) {
		body = bytes.Replace(body, []byte(`"metadata":{}`), []byte(`"metadata":{"order_id":""}`), 1)
	}
	t.send(e.ID, body, truth)
}

func beforeItsOrder(t *teller) {
	o, body := t.draft()
	_ = t.tell(t.event("completed", o, t.name("pay"))) && t.put(o, body, 0)
}

func withoutID(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		e.ID = ""
		t.tell(e, e)
	}
}

func contradiction(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		other := e
		other.Data.Amount = json.Number(o.total.Mul(decimal.NewFromInt(3)).String())
		_ = t.tell(e) && t.send(other.ID, other.bytes(), conflicting) && t.send(other.ID, other.bytes(), conflicting)
	}
}

func amountChanged(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		one, two := t.event("completed", o, pay), t.event("completed", o, pay)
		two.Data.Amount = json.Number(o.total.Mul(decimal.NewFromInt(2)).String())
		t.atOnce(one, two)
	}
}

func otherCurrency(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		e.Data.Currency = "DOGE"
		t.tell(e)
	}
}

func otherAddress(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		e := t.event("completed", o, pay)
		e.Data.Tag = "7"
		t.atOnce(t.event("created", o, pay), e)
	}
}

func transactionTwice(t *teller) {
	if o, opened := t.open(0); opened {
		one, two := t.event("completed", o, t.name("pay")), t.event("completed", o, t.name("pay"))
		two.Data.TxHash = strings.ToLower(one.Data.TxHash)
		t.atOnce(one, two)
	}
}

func onePaymentTwoOrders(t *teller) {
	o, opened := t.open(0)
	p, alsoOpened := t.open(0)
	if opened && alsoOpened {
		pay := t.name("pay")
		t.atOnce(t.event("created", o, pay), t.event("completed", p, pay))
	}
}

func makesNoSense(t *teller) {
	o, opened := t.open(0)
	if !opened {
		return
	}
	e := t.event("completed", o, t.name("pay"))
	body, l := e.bytes(), unreadable
	switch t.rng.IntN(5) {
	case 0:
		e.Data.Status = "failed"
		body = e.bytes()
	case 1:
		e.Data.Amount = "-1"
		body = e.bytes()
	case 2:
		body, l = bytes.Replace(body, []byte(`"type":`), []byte(`"type":"payment.created","type":`), 1), garbled
	case 3:
		body, l = append(body, "{}"...), garbled
	case 4:
		e.Data.Amount = "0"
		body = e.bytes()
	}
	t.send("", body, l)
}

func ofUnknownType(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, t.name("pay"))
		e.Type = []string{"payment.refunded", "payout.sent", "PAYMENT.COMPLETED"}[t.rng.IntN(3)]
		t.send(e.ID, e.bytes(), unknownType)
	}
}

func fromTestingTool(t *teller) {
	if o, opened := t.open(0); opened {
		e := t.event("completed", o, "pay_test_"+t.name("x"))
		t.send(e.ID, e.bytes(), testTool)
	}
}

func staleEvent(again bool) func(*teller) {
	return func(t *teller) {
		if o, opened := t.open(0); opened {
			e := t.event("completed", o, t.name("pay"))
			t.send(e.ID, e.bytes(), stale)
			if again {
				t.tell(e)
			}
		}
	}
}

func anHourLate(t *teller) {
	if o, opened := t.open(0); opened {
		pay := t.name("pay")
		for _, k := range []string{"completed", "created"} {
			e := t.event(k, o, pay)
			e.Created -= 3600
			t.tell(e)
		}
	}
}

// rare are bought by more people than there are, and paid for in time, too
// late, or never.
func rare(t *teller) {
	ttl := []time.Duration{0, time.Second, 2 * time.Second}[t.rng.IntN(3)]
	o, opened := t.open(ttl, t.goods[ampleGoods+t.rng.IntN(rareGoods)])
	if opened && sleep(t.ctx, time.Duration(t.rng.IntN(3000))*time.Millisecond) == nil && t.chance(70) {
		t.tell(t.event("completed", o, t.name("pay")))
	}
}

// storyOf is the story with this number, drawn by lot; the first ones are one
// of each kind.
func storyOf(seed uint64, number int) (story, *rand.Rand) {
	rng := rand.New(rand.NewPCG(seed, uint64(number))) //nolint:gosec // it must be the same again
	if number < len(stories) {
		return stories[number], rng
	}
	return stories[rng.IntN(len(stories))], rng
}

// shop is what is sold.
func shop(seed uint64) (goods []good) {
	rng := rand.New(rand.NewPCG(seed, 1<<40)) //nolint:gosec // it must be the same again
	for i := range ampleGoods + rareGoods {
		g := good{sku: fmt.Sprintf("good-%02d", i), stock: 1_000_000}
		if i >= ampleGoods {
			g = good{sku: fmt.Sprintf("rare-%d", i-ampleGoods), stock: 3 + rng.Int64N(15), rare: true}
		}
		goods = append(goods, g)
	}
	return goods
}
