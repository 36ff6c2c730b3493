package orders

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

const (
	statsPeriod = 30 * 24 * time.Hour // when the caller names none
	maxPeriod   = 366 * 24 * time.Hour
	maxHourly   = 31 * 24 * time.Hour
)

type statsInput struct {
	From     time.Time `query:"from" doc:"Begin of the period (RFC 3339), inside it; 30 days before its end when absent" example:"2026-01-01T00:00:00Z"`
	To       time.Time `query:"to" doc:"End of the period (RFC 3339), outside it; now when absent. At most 366 days after its begin" example:"2026-02-01T00:00:00Z"`
	Interval string    `query:"interval" enum:"hour,day,week" doc:"Also give the figures of each hour (for at most 31 days), day or week of the period; they begin at full hours, at midnight UTC, on Mondays"`
}

// StatsView is the body of GET /stats. What each figure means stands beside it.
type StatsView struct {
	From      time.Time     `json:"from" doc:"Begin of the period, inside it"`
	To        time.Time     `json:"to" doc:"End of the period, outside it"`
	Orders    OrderCounts   `json:"orders" doc:"The orders created in the period, as they stand now"`
	Revenue   []RevenueView `json:"revenue" doc:"What was earned by orders that became paid in the period, whenever they were created; one entry for each currency, by its code"`
	TimeToPay TimeToPay     `json:"time_to_pay" doc:"How long customers took, for all orders that became paid in the period, also those cancelled since"`
	Series    []StatsPoint  `json:"series,omitempty" doc:"The same counts and sums by interval, oldest first, without gaps; the first and last are cut at the ends of the period. Only when an interval was asked for"`
}

// StatsPoint is one interval of the period.
type StatsPoint struct {
	From    time.Time     `json:"from" doc:"Begin, inside it"`
	To      time.Time     `json:"to" doc:"End, outside it"`
	Orders  OrderCounts   `json:"orders" doc:"The orders created in the interval, as they stand now"`
	Revenue []RevenueView `json:"revenue" doc:"What was earned by orders that became paid in the interval"`
}

// OrderCounts counts orders by what became of them.
type OrderCounts struct {
	Created     int          `json:"created" doc:"How many there are: the sum of by_status"`
	ByStatus    StatusCounts `json:"by_status" doc:"How many stand in each status now"`
	Paid        int          `json:"paid" doc:"How many were ever paid in full, whatever became of them later"`
	Decided     int          `json:"decided" doc:"For how many it is known whether the customer pays: those in paid, and those that expired. Open ones may still be paid, and those cancelled unpaid were never decided"`
	SuccessRate *float64     `json:"success_rate" doc:"paid divided by decided, from 0 to 1, rounded to four decimals; null while nothing is decided" example:"0.9231"`
}

// StatusCounts is how many orders stand in each status.
type StatusCounts struct {
	Pending       int `json:"pending" doc:"Awaiting money"`
	PaymentFailed int `json:"payment_failed" doc:"A payment failed; the customer may try again"`
	Paid          int `json:"paid" doc:"Paid, not all shipped"`
	Fulfilled     int `json:"fulfilled" doc:"Every line shipped"`
	Expired       int `json:"expired" doc:"Not paid in time"`
	Cancelled     int `json:"cancelled" doc:"Taken back by a person"`
}

// RevenueView is what was earned in one currency.
type RevenueView struct {
	Currency string    `json:"currency" doc:"Its code" example:"XRP"`
	Orders   int       `json:"orders" doc:"From how many orders"`
	Amount   web.Money `json:"amount" doc:"The sum, exact: of each order that stands at paid or fulfilled now, what was received less what is due back. Money for cancelled, expired and unpaid orders is not in it"`
}

// TimeToPay says how long customers took from creating an order to the moment
// it was paid in full.
type TimeToPay struct {
	Orders        int      `json:"orders" doc:"How many orders became paid in the period"`
	MedianSeconds *float64 `json:"median_seconds" doc:"Half of them took at most so long, interpolated; null without any" example:"74.5"`
	P95Seconds    *float64 `json:"p95_seconds" doc:"19 of 20 took at most so long, interpolated; null without any" example:"412.25"`
}

func (b *Book) statsRoute(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "show-stats", Security: web.Needs("reports:read"), Method: http.MethodGet, Path: "/api/v1/stats", Tags: web.Tag(api, "Statistics", "How the shop is doing"),
		Summary: "Show counts and sums for a period",
		Description: "All figures are of one moment and agree with each other. Orders are counted by when they were created, revenue and " +
			"the time to pay by when orders became paid: the revenue of a period changes later only when an order of it is cancelled or money of it goes back.",
	}, b.stats)
}

// stats answers GET /stats from one snapshot.
func (b *Book) stats(ctx context.Context, in *statsInput) (*struct{ Body StatsView }, error) {
	var v *StatsView
	err := b.db.InSnapshot(ctx, func(tx database.Tx) error {
		p, err := in.period(tx.Now)
		if err != nil {
			return err
		}
		v, err = p.count(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &struct{ Body StatsView }{*v}, nil
}

// period is a half-open span of time, perhaps divided.
type period struct {
	from, to time.Time // UTC
	interval string    // "" for undivided
}

// period checks what was asked for. Errors: Unprocessable naming the parameter.
func (in *statsInput) period(now time.Time) (*period, error) {
	p := &period{from: in.From.UTC(), to: in.To.UTC(), interval: in.Interval}
	if in.To.IsZero() {
		p.to = now
	}
	if in.From.IsZero() {
		p.from = p.to.Add(-statsPeriod)
	}
	span := p.to.Sub(p.from)
	refuse := func(location, message string) (*period, error) {
		return nil, fault.New(fault.Unprocessable, "invalid_period", "There are no statistics for this period.").
			With(fault.Field{Location: location, Message: message})
	}
	switch {
	case span <= 0:
		return refuse("query.from", "must be before the end of the period, "+p.to.Format(time.RFC3339))
	case span > maxPeriod:
		return refuse("query.from", "must be at most 366 days before the end of the period, "+p.to.Format(time.RFC3339))
	case p.interval == "hour" && span > maxHourly:
		return refuse("query.interval", "must be day or week for a period of more than 31 days")
	}
	return p, nil
}

// start is the beginning of the interval that holds t.
func (p *period) start(t time.Time) time.Time {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch p.interval {
	case "hour":
		return t.Truncate(time.Hour)
	case "week":
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7) // back to Monday
	}
	return day
}

func (p *period) next(start time.Time) time.Time {
	switch p.interval {
	case "hour":
		return start.Add(time.Hour)
	case "week":
		return start.AddDate(0, 0, 7)
	}
	return start.AddDate(0, 0, 1)
}

// points are the intervals of the period, empty; none when it is undivided.
func (p *period) points() []StatsPoint {
	if p.interval == "" {
		return nil
	}
	var list []StatsPoint
	for at := p.start(p.from); at.Before(p.to); at = p.next(at) {
		from, to := at, p.next(at)
		if from.Before(p.from) {
			from = p.from
		}
		if to.After(p.to) {
			to = p.to
		}
		list = append(list, StatsPoint{From: from, To: to, Revenue: []RevenueView{}})
	}
	return list
}

// bucket is the SQL of the interval that column falls into.
func (p *period) bucket(column string) string {
	if p.interval == "" {
		return "NULL::timestamptz"
	}
	return fmt.Sprintf("date_trunc('%s', %s, 'UTC')", p.interval, column) // one of an enum
}

// count reads all figures. The wholes are sums of the parts.
func (p *period) count(tx database.Tx) (*StatsView, error) {
	v := &StatsView{From: p.from, To: p.to, Revenue: []RevenueView{}, Series: p.points()}
	at := map[int64]*StatsPoint{} // by the Unix time of the bucket
	for i := range v.Series {
		at[p.start(v.Series[i].From).Unix()] = &v.Series[i]
	}
	args := map[string]any{"from": p.from, "to": p.to}
	if err := p.countOrders(tx, args, v, at); err != nil {
		return nil, fmt.Errorf("count orders: %w", err)
	}
	if err := p.sumRevenue(tx, args, v, at); err != nil {
		return nil, fmt.Errorf("sum revenue: %w", err)
	}
	err := tx.Raw(`SELECT count(*) AS orders,
			percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM paid_at - created_at)) AS median_seconds,
			percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM paid_at - created_at)) AS p95_seconds
		FROM orders WHERE paid_at >= @from AND paid_at < @to`, args).Scan(&v.TimeToPay).Error
	if err != nil {
		return nil, fmt.Errorf("measure the time to pay: %w", err)
	}
	v.TimeToPay.MedianSeconds, v.TimeToPay.P95Seconds = rounded(v.TimeToPay.MedianSeconds, 1e3), rounded(v.TimeToPay.P95Seconds, 1e3)
	return v, nil
}

func (p *period) countOrders(tx database.Tx, args map[string]any, v *StatsView, at map[int64]*StatsPoint) error {
	var rows []struct {
		Bucket *time.Time
		Status Status
		Orders int
		Paid   int
	}
	err := tx.Raw(`SELECT `+p.bucket("created_at")+` AS bucket, status, count(*) AS orders, count(paid_at) AS paid
		FROM orders WHERE created_at >= @from AND created_at < @to GROUP BY 1, 2`, args).Scan(&rows).Error
	if err != nil {
		return err
	}
	for _, r := range rows {
		v.Orders.add(r.Status, r.Orders, r.Paid)
		if r.Bucket != nil {
			at[r.Bucket.Unix()].Orders.add(r.Status, r.Orders, r.Paid)
		}
	}
	v.Orders.rate()
	for i := range v.Series {
		v.Series[i].Orders.rate()
	}
	return nil
}

func (c *OrderCounts) add(s Status, orders, paid int) {
	*map[Status]*int{
		Pending: &c.ByStatus.Pending, PaymentFailed: &c.ByStatus.PaymentFailed, Paid: &c.ByStatus.Paid,
		Fulfilled: &c.ByStatus.Fulfilled, Expired: &c.ByStatus.Expired, Cancelled: &c.ByStatus.Cancelled,
	}[s] += orders
	c.Created += orders
	c.Paid += paid
	c.Decided += paid
	if s == Expired {
		c.Decided += orders - paid
	}
}

func (c *OrderCounts) rate() {
	if c.Decided > 0 {
		rate := float64(c.Paid) / float64(c.Decided)
		c.SuccessRate = rounded(&rate, 1e4)
	}
}

func rounded(f *float64, to float64) *float64 {
	if f == nil {
		return nil
	}
	r := math.Round(*f*to) / to
	return &r
}

func (p *period) sumRevenue(tx database.Tx, args map[string]any, v *StatsView, at map[int64]*StatsPoint) error {
	var rows []struct {
		Bucket   *time.Time
		Currency string
		Orders   int
		Amount   decimal.Decimal
	}
	err := tx.Raw(`SELECT `+p.bucket("paid_at")+` AS bucket, currency, count(*) AS orders, sum(got - refund_due) AS amount
		FROM orders WHERE paid_at >= @from AND paid_at < @to AND status IN ('paid','fulfilled') GROUP BY 1, 2 ORDER BY 1, 2`, args).Scan(&rows).Error
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Bucket != nil {
			point := at[r.Bucket.Unix()]
			point.Revenue = append(point.Revenue, RevenueView{Currency: r.Currency, Orders: r.Orders, Amount: web.Money{Decimal: r.Amount}})
		}
		i, known := slices.BinarySearchFunc(v.Revenue, r.Currency, func(e RevenueView, c string) int { return strings.Compare(e.Currency, c) })
		if !known {
			v.Revenue = slices.Insert(v.Revenue, i, RevenueView{Currency: r.Currency})
		}
		sum := &v.Revenue[i]
		sum.Orders += r.Orders
		sum.Amount = web.Money{Decimal: sum.Amount.Add(r.Amount)}
	}
	return nil
}
