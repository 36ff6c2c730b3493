//go:build linux

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

// The oracle is checked by hand: it must not share a mistake with the program.
func TestOracle(t *testing.T) {
	t.Parallel()
	now := time.Now()
	of := func(order, payment, kind, amount string) fact {
		a, err := decimal.NewFromString(amount)
		if err != nil {
			t.Fatal(err)
		}
		return fact{key: payment + kind, payment: payment, order: order, kind: kind, created: 100, amount: a, currency: "XRP", place: "r/1", tx: strings.ToUpper(payment)}
	}
	with := func(f fact, change func(*fact)) fact { change(&f); return f }
	late := func(o *told) { o.deadline = now.Add(-time.Second) }
	cancel := func(o *told) { o.cancelled = true }
	for _, c := range []struct {
		name  string
		facts []fact
		order func(*told)
		want  []string // of order "o": status payment got due stock holds
	}{
		{"nothing", nil, nil, []string{"pending unpaid 0 0 reserved "}},
		{"too late", nil, late, []string{"expired unpaid 0 0 none "}},
		{"paid", []fact{of("o", "p", "completed", "10.00")}, nil, []string{"paid paid 10 0 committed "}},
		{"paid late", []fact{of("o", "p", "completed", "10")}, late, []string{"paid paid 10 0 committed "}},
		{"under", []fact{of("o", "p", "completed", "9.999999")}, nil, []string{"pending underpaid 9.999999 0 reserved UNDERPAID"}},
		{"under gets grace", []fact{of("o", "p", "completed", "1")}, late, []string{"pending underpaid 1 0 reserved UNDERPAID"}},
		{"over", []fact{of("o", "p", "completed", "10.000000000000000001")}, nil, []string{"paid overpaid 10.000000000000000001 0.000000000000000001 committed "}},
		{"two halves", []fact{of("o", "p", "completed", "5"), of("o", "q", "completed", "5")}, nil, []string{"paid paid 10 0 committed "}},
		{"failed", []fact{of("o", "p", "created", "10"), of("o", "p", "failed", "10")}, nil, []string{"payment_failed unpaid 0 0 reserved "}},
		{"failed, then another", []fact{of("o", "p", "failed", "10"), of("o", "q", "pending", "10")}, nil, []string{"pending awaiting_confirmation 0 0 reserved "}},
		{"expired", []fact{of("o", "p", "expired", "10")}, nil, []string{"expired unpaid 0 0 none "}},
		{"cancelled and paid", []fact{of("o", "p", "completed", "10")}, cancel, []string{"cancelled refund_due 10 10 none "}},
		{"shipped", []fact{of("o", "p", "completed", "10")}, func(o *told) { o.shipped = true }, []string{"fulfilled paid 10 0 committed "}},
		{
			"other currency",
			[]fact{with(of("o", "p", "completed", "10"), func(f *fact) { f.currency = "DOGE" })},
			nil,
			[]string{"pending unpaid 0 0 reserved WRONG_CURRENCY"},
		},
		{
			"regression",
			[]fact{of("o", "p", "completed", "10"), with(of("o", "p", "failed", "10"), func(f *fact) { f.created = 101 })},
			nil,
			[]string{"paid paid 10 0 committed REGRESSION"},
		},
		{
			"other address",
			[]fact{of("o", "p", "created", "10"), with(of("o", "p", "completed", "10"), func(f *fact) { f.place = "r/2" })},
			nil,
			[]string{"paid paid 10 0 committed WRONG_ADDRESS", "pending unpaid 0 0 reserved WRONG_ADDRESS"},
		},
		{
			"two amounts",
			[]fact{of("o", "p", "completed", "10"), of("o", "p", "completed", "20")},
			nil,
			[]string{"paid paid 10 0 committed AMOUNT_CHANGED", "paid overpaid 20 10 committed AMOUNT_CHANGED"},
		},
		{
			"a transaction twice",
			[]fact{of("o", "p", "completed", "10"), with(of("o", "q", "completed", "10"), func(f *fact) { f.tx = "P" })},
			nil,
			[]string{"paid paid 10 0 committed TX_REUSED"},
		},
		{
			"two orders",
			[]fact{of("o", "p", "created", "10"), of("other", "p", "completed", "10")},
			nil,
			[]string{"pending unpaid 0 0 reserved ORDER_MISMATCH", "pending unpaid 0 0 reserved "},
		},
		{
			"lies",
			[]fact{with(of("o", "p", "completed", "10"), func(f *fact) { f.lie = unreadable }), with(of("o", "q", "completed", "10"), func(f *fact) { f.lie = testTool })},
			nil,
			[]string{"pending unpaid 0 0 reserved UNREADABLE_EVENT"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := told{id: "o", currency: "XRP", total: decimal.NewFromInt(10), deadline: now.Add(time.Hour)}
			if c.order != nil {
				c.order(&o)
			}
			other := told{id: "other", currency: "XRP", total: decimal.NewFromInt(10), deadline: now.Add(time.Hour)}
			got := map[string]bool{}
			for _, outcome := range expect(map[string]told{"o": o, "other": other}, c.facts, now) {
				s := outcome["o"]
				got[fmt.Sprintf("%s %s %s %s %s %s", s.status, s.payment, s.got, s.due, s.stock, s.holds)] = true
			}
			for _, w := range c.want {
				if !got[w] {
					t.Errorf("%q is missing", w)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("%d outcomes instead of %d: %v", len(got), len(c.want), got)
			}
		})
	}
}
