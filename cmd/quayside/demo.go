package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
	"golang.org/x/sync/errgroup"

	"quayside/internal/notify"
	"quayside/internal/orders"
)

const (
	atOnceOnStage = 4                      // scenes played side by side
	actPause      = 650 * time.Millisecond // between two acts, when a person watches
	lookAgain     = 150 * time.Millisecond // between two looks at the shop
)

// demo plays customers and PayQI against a running service, over HTTP only.
type demo struct {
	shop  *shopClient
	payqi *player
	run   string // tells the orders of this run from earlier ones
	pace  bool   // a person watches

	mu    sync.Mutex
	rows  []*row
	stock []level
}

// row is a scene of the demo, as far as it has come.
type row struct {
	scenario
	order orders.View // as last seen; without an id until there is one
	beats []beat      // deliveries
	mails []letter
	begun bool
	done  *performance // once it is over
}

// newDemo takes the scenarios of the demo, in their order.
func newDemo(shop *shopClient, sender *player) *demo {
	d := &demo{shop: shop, payqi: sender, run: randomHex(2)}
	for _, s := range scenarios {
		if s.demo {
			d.rows = append(d.rows, &row{scenario: s})
		}
	}
	return d
}

// playDemo plays every scene, shows what becomes of each and checks the books;
// ok when all of it is as it should be.
func playDemo(ctx context.Context, w io.Writer, h *house, screen *theatre) (ok bool, err error) {
	cfg := h.cfg
	d := newDemo(newShopClient(cfg.PublicURL, cfg.AdminAPIKey.reveal()), newPayQI(cfg.PublicURL, cfg.PayQIWebhookSecrets[0].reveal()))
	defer d.shop.http.CloseIdleConnections()
	defer d.payqi.http.CloseIdleConnections()
	_, _ = fmt.Fprintf(w, "\nThe demo plays %d customers and PayQI; every event is signed and sent over HTTP.\n\n", len(d.rows))
	if screen != nil {
		d.pace = true
		err = d.playOn(ctx, screen)
	} else {
		err = d.play(ctx, d.printer(w))
	}
	if err != nil {
		return false, err
	}
	d.showFailures(w)
	_, _ = fmt.Fprintln(w)
	if err := d.summary(ctx, w); err != nil {
		return false, err
	}
	broken, err := checkInvariants(ctx, h.db, cfg.PaymentTolerance.String(), false)
	if err != nil {
		return false, err
	}
	return reportFindings(w, broken, len(invariantsOf(false))) && d.allWell(), nil
}

// play performs the scenes, a few at a time, and calls over after each.
func (d *demo) play(ctx context.Context, over func()) error {
	var g errgroup.Group
	g.SetLimit(atOnceOnStage)
	for _, r := range d.rows {
		g.Go(func() error {
			d.perform(ctx, r)
			over()
			return nil
		})
	}
	_ = g.Wait() // scenes report, they do not fail
	return ctx.Err()
}

func (d *demo) perform(ctx context.Context, r *row) {
	if ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	r.begun = true
	d.mu.Unlock()
	s := &stage{shop: d.shop, payqi: d.payqi, run: d.run}
	s.watch = func(b beat) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if b.Event != "" {
			r.beats = append(r.beats, b)
		}
	}
	if d.pace {
		s.pause = func(ctx context.Context) {
			select {
			case <-ctx.Done():
			case <-time.After(actPause):
			}
		}
	}
	rep := s.perform(ctx, r.scenario, "")
	if ctx.Err() != nil { // stopped, not over
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.done = &rep; rep.After != nil {
		r.order, r.mails = rep.After.Order, rep.After.Letters
	}
}

// look sees how the orders, mails and stock of this run stand.
func (d *demo) look(ctx context.Context) error {
	views, err := list[orders.View](ctx, d.shop, "/api/v1/orders", nil)
	if err != nil {
		return err
	}
	letters, err := list[letter](ctx, d.shop, "/api/v1/emails", nil)
	if err != nil {
		return err
	}
	stock, err := list[level](ctx, d.shop, "/api/v1/products", nil)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stock = slices.DeleteFunc(stock, func(l level) bool { return l.SKU != sampleSKU && l.SKU != "last-"+d.run })
	for _, r := range d.rows {
		if r.done != nil {
			continue // its end was looked at, and compared
		}
		i := slices.IndexFunc(views, func(o orders.View) bool { return o.ID == r.name+"-"+d.run })
		if i < 0 {
			continue
		}
		r.order, r.mails = views[i], nil
		for _, l := range letters {
			if l.OrderID == r.order.ID {
				r.mails = append(r.mails, l)
			}
		}
		slices.Reverse(r.mails)
	}
	return nil
}

// playOn performs on a terminal, where the table changes in place.
func (d *demo) playOn(ctx context.Context, screen *theatre) error {
	screen.open()
	defer screen.close()
	over := make(chan error, 1)
	go func() { over <- d.play(ctx, func() {}) }()
	for {
		select {
		case err := <-over:
			if err != nil { // stopped: what is on the screen stays
				return err
			}
			if err := d.look(ctx); err != nil {
				return err
			}
			screen.finish(d.table(max(screen.width(), minWidth), len(d.rows), screen.paint)) // the summary adds up
			return nil
		case <-time.After(lookAgain):
		}
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		screen.draw(d.frame(screen.width(), screen.height(), screen.paint))
	}
}

// printer prints finished scenes in the order of the programme.
func (d *demo) printer(w io.Writer) func() {
	printed := 0
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for ; printed < len(d.rows) && d.rows[printed].done != nil; printed++ {
			r := d.rows[printed]
			_, _ = fmt.Fprintf(w, "%s %-20s %s\n    PayQI got %s → order %s, money %s, goods %s; mails: %s%s\n", r.mark(), cmp.Or(r.order.ID, r.name), r.line,
				cmp.Or(r.got(), "no answer"), r.order.Status, r.order.PaymentStatus, goods(r.order), wordsOf(sentOf(r.mails)), r.openCases())
		}
	}
}

func (r *row) mark() string {
	switch {
	case r.done != nil && r.done.OK:
		return "✓"
	case r.done != nil:
		return "✗"
	case r.begun:
		return "▸"
	}
	return "·"
}

// got is what PayQI was answered so far, in the order of the deliveries.
func (r *row) got() string {
	var runs []string
	var counts []int
	for _, b := range r.beats {
		t := tally(b.Answers)
		if n := len(runs); n > 0 && runs[n-1] == t && len(b.Answers) == 1 {
			counts[n-1]++
			continue
		}
		runs, counts = append(runs, t), append(counts, 1)
	}
	for i, n := range counts {
		if n > 1 {
			runs[i] = fmt.Sprintf("%d × %s", n, runs[i])
		}
	}
	return strings.Join(runs, ", ")
}

func (r *row) openCases() string {
	if len(r.want.cases) == 0 {
		return ""
	}
	return "; case " + wordsOf(r.want.cases)
}

// showFailures says of each scene that went wrong in what.
func (d *demo) showFailures(w io.Writer) {
	for _, r := range d.rows {
		if r.done == nil || r.done.OK {
			continue
		}
		_, _ = fmt.Fprintf(w, "\n✗ %s did not end as it should:\n", r.name)
		for _, wrong := range r.done.Wrong {
			_, _ = fmt.Fprintf(w, "  %s\n", wrong)
		}
	}
}

func (d *demo) allWell() bool {
	return !slices.ContainsFunc(d.rows, func(r *row) bool { return r.done == nil || !r.done.OK })
}

// summary adds up what happened.
func (d *demo) summary(ctx context.Context, w io.Writer) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	open, err := list[orders.CaseView](ctx, d.shop, "/api/v1/cases", url.Values{"state": {"open"}})
	if err != nil {
		return err
	}
	var answers []answer
	got, due := decimal.Zero, decimal.Zero
	sent := 0
	for _, r := range d.rows {
		for _, b := range r.beats {
			answers = append(answers, b.Answers...)
		}
		got, due = got.Add(r.order.AmountPaid.Decimal), due.Add(r.order.RefundDue.Decimal)
		sent += len(sentOf(r.mails))
	}
	var codes []orders.Code
	for _, c := range open {
		if c.OrderID != nil && strings.HasSuffix(*c.OrderID, "-"+d.run) {
			codes = append(codes, c.Code)
		}
	}
	slices.Sort(codes)
	_, _ = fmt.Fprintf(w, "orders  %s\nevents  %d deliveries: %s\nmoney   %s XRP received, %s XRP of it due back\nstock   %s\nmails   %d sent\ncases   %d for a person to decide: %s\n",
		d.statuses(), len(answers), tally(answers), orders.Amount(got), orders.Amount(due), d.levels(), sent, len(codes), wordsOf(slices.Compact(codes)))
	return nil
}

// statuses counts the orders: "7 paid, 3 pending".
func (d *demo) statuses() string {
	count := map[orders.Status]int{}
	for _, r := range d.rows {
		if r.order.ID != "" {
			count[r.order.Status]++
		}
	}
	kinds := slices.SortedFunc(maps.Keys(count), func(a, b orders.Status) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	var words []string
	for _, k := range kinds {
		words = append(words, fmt.Sprintf("%d %s", count[k], k))
	}
	return cmp.Or(strings.Join(words, ", "), "none yet")
}

func (d *demo) levels() string {
	var words []string
	for _, l := range d.stock {
		words = append(words, fmt.Sprintf("%s %d on hand, %d reserved", l.SKU, l.OnHand, l.Reserved))
	}
	return cmp.Or(strings.Join(words, " · "), "not seen yet")
}

// mailCounts counts the letters of this run by state.
func (d *demo) mailCounts() string {
	count := map[notify.State]int{}
	for _, r := range d.rows {
		for _, l := range r.mails {
			count[l.State]++
		}
	}
	words := []string{fmt.Sprintf("%d sent", count[notify.Sent])}
	for _, s := range []notify.State{notify.Sending, notify.Queued, notify.Unknown, notify.Failed} {
		if count[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	return strings.Join(words, ", ")
}
