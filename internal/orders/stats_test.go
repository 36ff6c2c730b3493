package orders

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
)

// monday is the day most of which the statistics below are about.
var monday = time.Date(2030, 1, 7, 0, 0, 0, 0, time.UTC)

// stats returns the statistics of a period as JSON.
func (s *shop) stats(in statsInput) string {
	s.Helper()
	v, err := s.book.stats(s.Context(), &in)
	if err != nil {
		s.Fatal(err)
	}
	text, err := json.Marshal(v.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}

// ordered opens an order at a moment.
func (s *shop) ordered(id string, at time.Time, currency, price string) {
	s.Helper()
	s.clock.Set(at)
	d := draft(id, "mug")
	d.Currency, d.Items[0].Quantity, d.Items[0].UnitPrice = currency, 1, decimal.RequireFromString(price)
	s.open(d)
}

// paidAfter lets money come some seconds after the present moment.
func (s *shop) paidAfter(id string, seconds int, currency, amount string) {
	s.Helper()
	s.clock.Add(time.Duration(seconds) * time.Second)
	n := completed("pay_"+id, amount)
	n.Currency = currency
	s.hear(s.of(id, n))
}

// aWeekOfOrders are orders whose statistics were worked out by hand.
func aWeekOfOrders(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.clock.Set(monday.AddDate(0, 0, -1))
	s.product("mug", 100)
	s.ordered("before", monday.Add(-time.Second), "XRP", "7.123456") // created on Sunday, paid on Monday
	s.paidAfter("before", 2, "XRP", "7.123456")
	s.ordered("first", monday, "XRP", "10")
	s.paidAfter("first", 60, "XRP", "10")
	s.ordered("over", monday.Add(10*time.Hour), "XRP", "10")
	s.paidAfter("over", 120, "XRP", "10.000001") // a drop is due back
	s.ordered("coin", monday.Add(11*time.Hour), "BTC", "0.00000001")
	s.paidAfter("coin", 300, "BTC", "0.00000001")
	s.ordered("undone", monday.Add(12*time.Hour), "XRP", "10")
	s.paidAfter("undone", 600, "XRP", "10")
	s.must(func(tx database.Tx) error {
		_, err := s.book.Cancel(tx, "undone", "admin:test", "a mistake")
		return err
	})
	s.ordered("late", monday.Add(13*time.Hour), "XRP", "10")
	s.hear(s.of("late", News{Type: PaymentExpiredEvent, PaymentID: "pay_late"}))
	s.ordered("part", monday.Add(13*time.Hour), "XRP", "10")
	s.paidAfter("part", 60, "XRP", "9.999999") // never made good: no revenue
	s.ordered("never", monday.Add(14*time.Hour), "XRP", "10")
	if err := s.cancel("never"); err != nil {
		t.Fatal(err)
	}
	s.ordered("failed", monday.Add(15*time.Hour), "XRP", "10")
	s.hear(s.of("failed", News{Type: PaymentFailedEvent, PaymentID: "pay_failed"}))
	s.ordered("midnight", monday.Add(24*time.Hour-10*time.Minute), "XRP", "0.1")
	s.paidAfter("midnight", 600, "XRP", "0.1") // created on Monday, paid with the first stroke of Tuesday
	s.ordered("tuesday", monday.Add(24*time.Hour), "XRP", "10")
	s.clock.Set(monday.Add(36 * time.Hour))
	return s
}

// The figures of a day, to the last digit, are those worked out by hand. The
// begin of the period is inside it, its end is not.
func TestStats(t *testing.T) {
	s := aWeekOfOrders(t)
	s.want("monday", s.stats(statsInput{From: monday, To: monday.AddDate(0, 0, 1)}), strings.Join([]string{
		`{"from":"2030-01-07T00:00:00Z","to":"2030-01-08T00:00:00Z",`,
		// first, over, coin, midnight · late · undone, never · failed · part
		`"orders":{"created":9,"by_status":{"pending":1,"payment_failed":1,"paid":4,"fulfilled":0,"expired":1,"cancelled":2},`,
		`"paid":5,"decided":6,"success_rate":0.8333},`, // the four, and undone; and late
		`"revenue":[{"currency":"BTC","orders":1,"amount":"0.00000001"},{"currency":"XRP","orders":3,"amount":"27.123456"}],`, // 7.123456 + 10 + 10
		`"time_to_pay":{"orders":5,"median_seconds":120,"p95_seconds":540}}`,                                                  // 2 60 120 300 600; 300 + 0.8 × 300
	}, ""))
	s.want("an empty day", s.stats(statsInput{From: monday.AddDate(0, 0, -9), To: monday.AddDate(0, 0, -8)}),
		`{"from":"2029-12-29T00:00:00Z","to":"2029-12-30T00:00:00Z","orders":{"created":0,"by_status":{"pending":0,"payment_failed":0,"paid":0,"fulfilled":0,"expired":0,"cancelled":0},`+
			`"paid":0,"decided":0,"success_rate":null},"revenue":[],"time_to_pay":{"orders":0,"median_seconds":null,"p95_seconds":null}}`)
	var v StatsView
	if err := json.Unmarshal([]byte(s.stats(statsInput{})), &v); err != nil {
		t.Fatal(err)
	}
	s.want("usual period", fmt.Sprint(v.From, v.To, v.Orders.Created), fmt.Sprint(monday.Add(36*time.Hour-720*time.Hour), monday.Add(36*time.Hour), 11))
}

// The intervals of a period have no gaps, begin at full hours, at midnight and
// on Mondays, are cut at its ends, and add up to its whole.
func TestStatsSeries(t *testing.T) {
	s := aWeekOfOrders(t)
	for _, c := range []struct {
		interval, from, to string
		n                  int
		first, last        string // where the first ends and the last begins
	}{
		{"hour", "2030-01-07T00:00:00Z", "2030-01-08T00:00:00Z", 24, "2030-01-07T01:00:00Z", "2030-01-07T23:00:00Z"},
		{"hour", "2030-01-06T23:30:00.5Z", "2030-01-08T00:00:00.000001Z", 26, "2030-01-07T00:00:00Z", "2030-01-08T00:00:00Z"},
		{"day", "2030-01-05T23:59:59Z", "2030-01-08T12:00:00Z", 4, "2030-01-06T00:00:00Z", "2030-01-08T00:00:00Z"},
		{"day", "2030-01-07T13:00:00+02:00", "2030-01-07T14:00:00+02:00", 1, "2030-01-07T12:00:00Z", "2030-01-07T11:00:00Z"},
		{"week", "2029-12-30T00:00:00Z", "2030-01-14T00:00:01Z", 4, "2029-12-31T00:00:00Z", "2030-01-14T00:00:00Z"},
		{"week", "2030-01-06T00:00:00Z", "2030-01-09T00:00:00Z", 2, "2030-01-07T00:00:00Z", "2030-01-07T00:00:00Z"},
	} {
		in := statsInput{From: at3339(t, c.from), To: at3339(t, c.to), Interval: c.interval}
		out, err := s.book.stats(s.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		v := out.Body
		name := c.interval + " from " + c.from
		if len(v.Series) != c.n {
			t.Fatalf("%s: %d intervals, want %d", name, len(v.Series), c.n)
		}
		first, last := v.Series[0], v.Series[len(v.Series)-1]
		s.want(name, first.To.Format(time.RFC3339)+" "+last.From.Format(time.RFC3339), c.first+" "+c.last)
		var created, paid, decided int
		revenue, at := map[string]decimal.Decimal{}, in.From.UTC()
		for _, p := range v.Series {
			if !p.From.Equal(at) || !p.From.Before(p.To) {
				t.Errorf("%s: an interval from %s to %s comes after %s", name, p.From, p.To, at)
			}
			at = p.To
			created, paid, decided = created+p.Orders.Created, paid+p.Orders.Paid, decided+p.Orders.Decided
			for _, r := range p.Revenue {
				revenue[r.Currency] = revenue[r.Currency].Add(r.Amount.Decimal)
			}
		}
		s.want(name+" ends", at.String(), in.To.UTC().String())
		s.want(name+" counts", fmt.Sprint(created, paid, decided), fmt.Sprint(v.Orders.Created, v.Orders.Paid, v.Orders.Decided))
		for _, r := range v.Revenue {
			s.want(name+" "+r.Currency, revenue[r.Currency].String(), r.Amount.Decimal.String())
		}
		in.Interval = ""
		whole := s.stats(in)
		v.Series = nil
		divided, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s.want(name+" as a whole", string(divided), whole)
	}
	out, err := s.book.stats(s.Context(), &statsInput{From: monday, To: monday.AddDate(0, 0, 1), Interval: "hour"})
	if err != nil {
		t.Fatal(err)
	}
	noon := out.Body.Series[10]
	s.want("ten o'clock", fmt.Sprint(noon.Orders.Created, noon.Orders.Paid, *noon.Orders.SuccessRate, noon.Revenue), "1 1 1 [{XRP 1 10.00}]")
}

func at3339(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A period that is none, or too long to count, is refused by the parameter
// that would mend it; the longest ones are not.
func TestStatsPeriods(t *testing.T) {
	s := newShop(t)
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		in    statsInput
		field string // refused, "" when not
	}{
		"reversed":             {statsInput{From: monday, To: monday.Add(-1)}, "query.from"},
		"nothing":              {statsInput{From: monday, To: monday}, "query.from"},
		"in the future":        {statsInput{From: opening.AddDate(1, 0, 0)}, "query.from"},
		"366 days":             {statsInput{From: monday.Add(-366 * day), To: monday, Interval: "day"}, ""},
		"and a bit":            {statsInput{From: monday.Add(-366*day - 1), To: monday}, "query.from"},
		"a thousand years":     {statsInput{From: monday.AddDate(-1000, 0, 0), To: monday}, "query.from"},
		"a year long ago":      {statsInput{From: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC), To: time.Date(1, 12, 3, 0, 0, 0, 0, time.UTC)}, ""},
		"before the years":     {statsInput{To: time.Date(0, 1, 2, 0, 0, 0, 0, time.UTC)}, ""},
		"the end of the years": {statsInput{To: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), Interval: "week"}, ""},
		"31 days by the hour":  {statsInput{From: monday.Add(-31 * day), To: monday, Interval: "hour"}, ""},
		"more by the hour":     {statsInput{From: monday.Add(-31*day - 1), To: monday, Interval: "hour"}, "query.interval"},
	} {
		_, err := s.book.stats(s.Context(), &c.in)
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e := s.refused(err, fault.Unprocessable, "invalid_period"); len(e.Fields) != 1 || e.Fields[0].Location != c.field {
			t.Errorf("%s: %+v", name, e.Fields)
		}
	}
}

// The scans of the statistics have an index each.
func TestStatsIndexes(t *testing.T) {
	s := newShop(t)
	s.uses("orders_by_time", `SELECT status FROM orders WHERE created_at >= now() AND created_at < now()`)
	s.uses("orders_by_payment_time", `SELECT got FROM orders WHERE paid_at >= now() AND paid_at < now() AND status IN ('paid','fulfilled')`)
}

// uses fails the test when a query could not use an index. The tables are
// empty, where Postgres would not bother.
func (s *shop) uses(index, query string, args ...any) {
	s.Helper()
	s.must(func(tx database.Tx) error {
		var plan []string
		if err := tx.Exec(`SET LOCAL enable_seqscan = off`).Error; err != nil {
			return err
		}
		err := tx.Raw("EXPLAIN "+query, args...).Scan(&plan).Error
		if text := strings.Join(plan, "\n"); !strings.Contains(text, index) || !strings.Contains(text, "Index Cond") {
			s.Errorf("%s does not use %s:\n%s", query, index, text)
		}
		return err
	})
}
