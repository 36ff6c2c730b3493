package main

import (
	"fmt"
	"slices"
	"strings"

	"quayside/internal/orders"
)

// columns of the table, in cells; sends and mails take what the terminal has.
const (
	sceneWidth = 15
	orderWidth = 33 // payment_failed · 0.00 · reserved
	gap        = "  "
	mailsFrom  = 156 // columns from which there is room for mails and cases
	mailsWidth = 46
	footerRows = 4
	minWidth   = 40
)

// frame is the table as it fits into a screen of this size, and what it adds up to.
func (d *demo) frame(width, height int, p paint) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	width = max(width, minWidth)
	return slices.Concat(d.table(width, height-footerRows-3, p), []string{""}, d.foot(width-1))
}

// table draws as many rows as there is room for.
func (d *demo) table(width, room int, p paint) []string {
	width-- // the last column makes some terminals wrap
	t := tableau{paint: p, width: width}
	both := width - 2 - sceneWidth - 2*len(gap)
	if width >= mailsFrom {
		t.mails = mailsWidth
		both -= mailsWidth + len(gap)
	}
	t.order = min(orderWidth, both*3/5)
	t.sends = both - t.order
	lines := []string{t.head()}
	for _, r := range visible(d.rows, room) {
		lines = append(lines, t.row(r))
	}
	return lines
}

// foot adds up what the table shows.
func (d *demo) foot(width int) []string {
	deliveries, over := 0, 0
	for _, r := range d.rows {
		if r.done != nil {
			over++
		}
		for _, b := range r.beats {
			deliveries += len(b.Answers)
		}
	}
	lines := []string{
		"orders  " + d.statuses(), "stock   " + d.levels(), "mails   " + d.mailCounts(),
		fmt.Sprintf("PayQI   %d deliveries, %d of %d scenes are over", deliveries, over, len(d.rows)),
	}
	for i, l := range lines {
		lines[i] = strings.TrimRight(fit(l, width), " ")
	}
	return lines
}

// tableau lays out one table.
type tableau struct {
	paint
	width, sends, order, mails int
}

func (t tableau) head() string {
	line := "  " + fit("scene", sceneWidth) + gap + fit("PayQI sends → gets", t.sends) + gap + fit("order · money · goods", t.order)
	if t.mails > 0 {
		line += gap + "mails · cases"
	}
	return t.strong(strings.TrimRight(fit(line, t.width), " "))
}

// visible are the rows for a screen that has no room for all: those that are
// over make way, the first ones first.
func visible(rows []*row, room int) []*row {
	room = max(room, 1)
	tooMany := len(rows) - room
	var shown []*row
	for _, r := range rows {
		if tooMany > 0 && r.done != nil {
			tooMany--
			continue
		}
		shown = append(shown, r)
	}
	return shown[:min(len(shown), room)]
}

func (t tableau) row(r *row) string {
	name := fit(r.name, sceneWidth)
	if !r.begun {
		return t.faint("· " + strings.TrimRight(fit(name+gap+r.line, t.width-2), " "))
	}
	order := ""
	if r.order.ID != "" {
		order = fmt.Sprintf("%s · %s · %s", r.order.Status, r.order.AmountPaid, goods(r.order))
	}
	line := t.marked(r.mark()) + " " + name + gap + t.sent(r) + gap + t.standing(r.order, fit(order, t.order))
	if t.mails > 0 {
		line += gap + strings.TrimRight(fit(r.wroteAndRaised(), t.mails), " ")
	}
	return line
}

// wroteAndRaised is what the customer was sent, and what a person must decide.
func (r *row) wroteAndRaised() string {
	var words []string
	if sent := sentOf(r.mails); len(sent) > 0 {
		words = append(words, wordsOf(sent))
	}
	if r.done != nil && len(r.want.cases) > 0 { // it has been compared
		words = append(words, wordsOf(r.want.cases))
	}
	return strings.Join(words, " · ")
}

func (t tableau) marked(mark string) string {
	switch mark {
	case "✓":
		return t.good(mark)
	case "✗":
		return t.bad(mark)
	}
	return t.warn(mark)
}

func (t tableau) standing(o orders.View, text string) string {
	switch o.Status {
	case orders.Paid, orders.Fulfilled:
		return t.good(text)
	case orders.PaymentFailed, orders.Expired, orders.Cancelled:
		return t.warn(text)
	case orders.Pending:
	}
	return text
}

// sent is what PayQI sent and was answered, in the words that fit: the answers
// matter more than the older events.
func (t tableau) sent(r *row) string {
	var events []string
	for _, b := range r.beats {
		e := strings.TrimPrefix(b.Event, "payment.")
		if b.Times > 1 {
			e = fmt.Sprintf("%d×%s", b.Times, e)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return strings.Repeat(" ", t.sends)
	}
	answers := r.got()
	text := func() string { return strings.Join(events, " ") + " → " + answers }
	if cells(text()) > t.sends {
		answers = brief.Replace(answers)
	}
	dots := ""
	for len(events) > 1 && cells(dots+text()) > t.sends {
		events, dots = events[1:], "… "
	}
	return fit(dots+text(), t.sends)
}

// brief shortens the answers where there is little room.
var brief = strings.NewReplacer("200 OK", "OK", "200 Already processed", "known", "400 Invalid signature", "400 forged", "400 Request too old", "400 old", " × ", "×")
