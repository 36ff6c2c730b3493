package orders

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

// end is what must not depend on the order of arrival.
func (c *counter) end() string {
	p := c.d.shelf.Product("mug")
	return fmt.Sprintf("%s got %s due back %s stock %d/%d held by %s", c.Status, Amount(c.Got), Amount(c.RefundDue), p.OnHand, p.Reserved, c.holds())
}

// Up to five events of one payment, in every order and with every repetition,
// end the same; before the deadline and after it. Sets of up to four may also
// hold a completed event that names no transaction.
func TestOrderOfArrival(t *testing.T) {
	for _, tc := range []struct {
		name, amount string
		failed       int64 // signed time of the failed event: after completed it is a regression
	}{{"under", "9.99", 300}, {"exact", "10.0", 300}, {"over, regressing", "10.01", 500}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			alphabet := []News{
				news(PaymentCreatedEvent, "a").to("rShop", 7), news(PaymentPendingEvent, "a"), news(PaymentFailedEvent, "a").at(tc.failed),
				news(PaymentExpiredEvent, "a"), completed("a", tc.amount).at(499), completed("a", tc.amount+"0").hash("").at(501),
			}
			ends := map[string]string{} // by set of events
			var walk func(word []int)
			walk = func(word []int) {
				set := slices.Sorted(slices.Values(word))
				if len(word) == 5 && slices.Contains(word, 5) {
					return
				}
				if len(word) > 0 {
					c := newCounter(10, Terms{})
					for _, i := range word {
						c.hear(alphabet[i])
					}
					if err := c.audit(10); err != nil {
						t.Fatalf("%v: %v", word, err)
					}
					end := c.end()
					c.sweep(opening.Add(2 * time.Hour))
					end += "; swept " + c.end()
					key := fmt.Sprint(set)
					if ends[key] == "" {
						ends[key] = end
					} else if ends[key] != end {
						t.Fatalf("%v ends: %s\n%v ends: %s", set, ends[key], word, end)
					}
				}
				if len(word) < 5 {
					for i := range alphabet {
						walk(append(word, i))
					}
				}
			}
			walk(nil)
			if want := 251 + 84; len(ends) != want { // C(10,5)-1 multisets of five, and C(9,3) of at most four with a sixth
				t.Errorf("%d sets of events, want %d", len(ends), want)
			}
		})
	}
}

// act is something that happens to an order: an event, its deadline, a cancellation.
type act struct {
	name string
	do   func(c *counter)
}

// acts draws some events of two payments that do not contradict each other,
// and perhaps the deadline and a cancellation.
func acts(t *rapid.T) (all []act, got decimal.Decimal) {
	for _, payment := range []string{"a", "b"} {
		amount := rapid.SampledFrom([]string{"0.000001", "4", "6", "9.999999", "10", "10.000001", "25"}).Draw(t, "amount")
		currency := rapid.SampledFrom([]string{"XRP", "XRP", "XRP", "BTC"}).Draw(t, "currency")
		counts := false
		for range rapid.IntRange(0, 5).Draw(t, "events of "+payment) {
			typ := rapid.SampledFrom([]EventType{PaymentCreatedEvent, PaymentPendingEvent, PaymentFailedEvent, PaymentExpiredEvent, PaymentCompletedEvent}).Draw(t, "type")
			n := news(typ, payment).at(rapid.SampledFrom([]int64{0, 100, 200, 300}).Draw(t, "created"))
			if typ == PaymentCompletedEvent {
				n.Amount.Decimal, n.Currency = decimal.RequireFromString(amount), currency
				counts = currency == "XRP"
			}
			all = append(all, act{fmt.Sprintf("%s %s %s@%d", payment, typ, n.Amount.Decimal, n.Created), func(c *counter) { c.hear(n) }})
		}
		if counts {
			got = got.Add(decimal.RequireFromString(amount))
		}
	}
	if rapid.Bool().Draw(t, "deadline passes") {
		after := rapid.SampledFrom([]time.Duration{30 * time.Minute, 59 * time.Minute, 60 * time.Minute}).Draw(t, "after")
		all = append(all, act{"sweep after " + after.String(), func(c *counter) { c.sweep(opening.Add(after)) }})
	}
	if rapid.IntRange(0, 4).Draw(t, "cancelled") == 0 {
		all = append(all, act{"cancel", (*counter).cancel})
	}
	return all, got
}

// Two payments, the deadline and a cancellation in any order end the same, and
// the money adds up to what PayQI sent after each step.
func TestTwoPaymentsInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, got := acts(t)
		run := func(label string) (string, string) {
			c := newCounter(10, Terms{})
			var names []string
			for _, a := range rapid.Permutation(all).Draw(t, label) {
				a.do(c)
				names = append(names, a.name)
				if len(c.steps) == 0 {
					continue // nothing to do
				}
				if err := c.audit(10); err != nil {
					t.Fatalf("after %v: %v", names, err)
				}
			}
			if !c.Got.Equal(got) {
				t.Fatalf("got %s, PayQI sent %s: %v", c.Got, got, names)
			}
			end := c.end()
			c.sweep(opening.Add(24 * time.Hour))
			return end + "; a day later " + c.end(), strings.Join(names, ", ")
		}
		one, how := run("one order")
		other, otherwise := run("another")
		if one != other {
			t.Fatalf("%s\n%s\nbut %s\n%s", how, one, otherwise, other)
		}
	})
}
