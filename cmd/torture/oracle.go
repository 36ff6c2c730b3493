//go:build linux

package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// The oracle says where orders must stand, given what was accepted. It knows
// docs/payqi-webhook-guide.txt and the rules of the house, and shares no code
// with the program. Where the order of arrival may decide, it gives every
// outcome that is right.

// told is one order as the shop opened it.
type told struct {
	id, currency string
	total        decimal.Decimal
	goods        map[string]int64
	deadline     time.Time // without grace
	cancelled    bool
	shipped      bool
}

// standing is where an order stands, or must.
type standing struct {
	status, payment string
	got, due        string // canonical decimals
	stock           string
	holds           string // codes of open cases that block, sorted, with commas
}

// choice is one way in which arrival may have decided about a payment.
type choice struct {
	order  string          // the one it belongs to
	amount decimal.Decimal // of its completion that stands
	counts bool
}

// expectation of one story: each element is a whole outcome that is right.
type expectation []map[string]standing

// expect folds the accepted events of one story.
func expect(orders map[string]told, facts []fact, now time.Time) expectation {
	payments := map[string][]fact{}
	extra := map[string][]string{} // holds that follow from an event alone
	for _, f := range facts {
		switch {
		case f.lie == conflicting:
			extra[f.order] = append(extra[f.order], "EVENT_CONFLICT")
		case f.lie == unreadable:
			if o, named := orders[f.order]; named {
				extra[o.id] = append(extra[o.id], "UNREADABLE_EVENT")
			}
		case f.lie == truth && f.order != "":
			payments[f.payment] = append(payments[f.payment], f)
		}
	}
	ids := slices.Sorted(maps.Keys(payments))
	var all expectation
	shared := sharedTransactions(payments)
	each(ids, payments, shared, map[string]choice{}, func(chosen map[string]choice) {
		if !countOnce(chosen, payments, shared) {
			return
		}
		outcome := map[string]standing{}
		for id, o := range orders {
			outcome[id] = stand(o, payments, chosen, extra[id], now)
		}
		all = append(all, outcome)
	})
	return all
}

// each goes through every combination of choices.
func each(ids []string, payments map[string][]fact, shared map[string]bool, chosen map[string]choice, do func(map[string]choice)) {
	if len(ids) == 0 {
		do(chosen)
		return
	}
	for _, c := range choicesOf(payments[ids[0]], shared) {
		chosen[ids[0]] = c
		each(ids[1:], payments, shared, chosen, do)
	}
}

// choicesOf are the ways in which one payment may have been heard. shared are
// the transactions that several payments name.
func choicesOf(facts []fact, shared map[string]bool) (choices []choice) {
	doubtful := len(distinct(facts, func(f fact) string { return f.place })) > 1 ||
		slices.ContainsFunc(facts, func(f fact) bool { return shared[f.tx] })
	for _, order := range distinct(facts, func(f fact) string { return f.order }) {
		completed := slices.DeleteFunc(completions(facts), func(f fact) bool { return f.order != order })
		if len(completed) == 0 {
			choices = append(choices, choice{order: order})
		}
		for _, amount := range distinct(completed, func(f fact) string { return f.amount.String() }) {
			d, _ := decimal.NewFromString(amount) // it was one
			choices = append(choices, choice{order, d, true})
			if doubtful {
				choices = append(choices, choice{order, d, false})
			}
		}
	}
	return choices
}

// sharedTransactions are those that more than one payment names.
func sharedTransactions(payments map[string][]fact) map[string]bool {
	named, shared := map[string]bool{}, map[string]bool{}
	for _, facts := range payments {
		for _, tx := range distinct(completions(facts), func(f fact) string { return f.tx }) {
			shared[tx] = tx != "" && named[tx]
			named[tx] = true
		}
	}
	return shared
}

// countOnce reports whether each shared transaction counts for one payment.
func countOnce(chosen map[string]choice, payments map[string][]fact, shared map[string]bool) bool {
	counted := map[string]int{}
	for id, c := range chosen {
		for _, tx := range distinct(payments[id], func(f fact) string { return f.tx }) {
			if shared[tx] && c.counts {
				counted[tx]++
			}
		}
	}
	for tx, is := range shared {
		if is && counted[tx] != 1 {
			return false
		}
	}
	return true
}

func completions(facts []fact) []fact {
	return slices.DeleteFunc(slices.Clone(facts), func(f fact) bool { return f.kind != "completed" })
}

func distinct(facts []fact, of func(fact) string) (values []string) {
	for _, f := range facts {
		if v := of(f); !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	return values
}

// history is what one order has heard, folded.
type history struct {
	got                             decimal.Decimal
	open, failed, expired, onItsWay bool
	holds                           map[string]bool
}

// hear folds the payments that were chosen to belong to an order.
func hear(o told, payments map[string][]fact, chosen map[string]choice, extra []string) history {
	h := history{holds: map[string]bool{}}
	for _, code := range extra {
		h.holds[code] = true
	}
	for id, c := range chosen {
		if c.order != o.id {
			continue
		}
		h.hearPayment(o, payments[id], c)
		for other, d := range chosen {
			if other != id && d.counts != c.counts && sameTransaction(payments[id], payments[other]) {
				h.holds["TX_REUSED"] = true
			}
		}
	}
	return h
}

func sameTransaction(a, b []fact) bool {
	for _, tx := range distinct(a, func(f fact) string { return f.tx }) {
		if tx != "" && slices.ContainsFunc(b, func(f fact) bool { return f.tx == tx }) {
			return true
		}
	}
	return false
}

func (h *history) hearPayment(o told, facts []fact, c choice) {
	rank, newest := 0, map[string]int64{}
	ranks := map[string]int{"created": 1, "pending": 2, "failed": 3, "expired": 4, "completed": 5}
	amounts, foreign := map[string]bool{}, false
	for _, f := range facts {
		if f.order != c.order {
			h.holds["ORDER_MISMATCH"] = true
			continue
		}
		rank = max(rank, ranks[f.kind])
		newest[f.kind] = max(newest[f.kind], f.created)
		h.onItsWay = h.onItsWay || f.kind == "pending"
		if f.kind == "completed" {
			amounts[f.amount.String()] = true
			foreign = f.currency != o.currency
		}
	}
	switch {
	case foreign:
		h.holds["WRONG_CURRENCY"] = true
	case c.counts:
		h.got = h.got.Add(c.amount)
	}
	if len(amounts) > 1 {
		h.holds["AMOUNT_CHANGED"] = true
	}
	if len(distinct(facts, func(f fact) string { return f.place })) > 1 {
		h.holds["WRONG_ADDRESS"] = true
	}
	if newest["completed"] > 0 && max(newest["failed"], newest["expired"]) > newest["completed"] {
		h.holds["REGRESSION"] = true
	}
	h.open = h.open || rank == 1 || rank == 2
	h.failed, h.expired = h.failed || rank == 3, h.expired || rank == 4
}

// stand says where an order stands that has heard all this.
func stand(o told, payments map[string][]fact, chosen map[string]choice, extra []string, now time.Time) standing {
	h := hear(o, payments, chosen, extra)
	enough := h.got.IsPositive() && h.got.GreaterThanOrEqual(o.total)
	deadline := o.deadline
	if h.onItsWay || h.got.IsPositive() && !enough {
		deadline = deadline.Add(30 * time.Minute)
	}
	late := now.After(deadline)
	s := standing{status: "pending", stock: "reserved", payment: "unpaid"}
	switch {
	case o.cancelled:
		s.status, s.stock = "cancelled", "none"
	case enough && o.shipped:
		s.status, s.stock = "fulfilled", "committed"
	case enough:
		s.status, s.stock = "paid", "committed"
	case !late && (h.open || h.got.IsPositive()):
	case late || h.expired:
		s.status, s.stock = "expired", "none"
	case h.failed:
		s.status = "payment_failed"
	}
	due := h.got
	if s.stock != "none" {
		due = decimal.Max(decimal.Zero, h.got.Sub(o.total))
	}
	if h.got.IsPositive() && !enough && !o.cancelled {
		h.holds["UNDERPAID"] = true
	}
	switch {
	case enough && s.stock == "committed" && due.IsPositive():
		s.payment = "overpaid"
	case due.IsPositive():
		s.payment = "refund_due"
	case enough && s.stock == "committed":
		s.payment = "paid"
	case h.got.IsPositive():
		s.payment = "underpaid"
	case h.awaits(payments, chosen, o.id):
		s.payment = "awaiting_confirmation"
	}
	s.got, s.due = h.got.String(), due.String()
	s.holds = strings.Join(slices.Sorted(maps.Keys(h.holds)), ",")
	return s
}

// awaits reports whether a payment stands at pending.
func (h history) awaits(payments map[string][]fact, chosen map[string]choice, order string) bool {
	for id, c := range chosen {
		if c.order != order {
			continue
		}
		kinds := distinct(payments[id], func(f fact) string { return f.kind })
		if slices.Contains(kinds, "pending") && !slices.Contains(kinds, "failed") && !slices.Contains(kinds, "expired") && !slices.Contains(kinds, "completed") {
			return true
		}
	}
	return false
}

// gone is what becomes of a standing when late money found no goods.
func (s standing) gone() standing {
	if s.status != "paid" {
		return s
	}
	s.stock = "none"
	holds := append(strings.FieldsFunc(s.holds, func(r rune) bool { return r == ',' }), "STOCK_GONE")
	slices.Sort(holds)
	s.holds = strings.Join(holds, ",")
	return s
}

// fates are the states in which an accepted event may end.
func fates(f fact, orders map[string]told, siblings []fact) []string {
	switch {
	case f.lie == unknownType || f.lie == testTool:
		return []string{"ignored"}
	case f.lie == unreadable || f.lie == garbled || f.lie == conflicting:
		return []string{"quarantined"}
	}
	if _, known := orders[f.order]; !known {
		return []string{"parked"}
	}
	same := slices.DeleteFunc(slices.Clone(siblings), func(g fact) bool { return g.payment != f.payment || g.lie != truth })
	amounts := distinct(completions(same), func(g fact) string { return g.amount.String() })
	if len(distinct(same, func(g fact) string { return g.order })) > 1 || len(amounts) > 1 {
		return []string{"applied", "quarantined"}
	}
	return []string{"applied"}
}
