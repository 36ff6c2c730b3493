package orders

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/inventory"
	"quayside/internal/notify"
	"quayside/internal/web"
)

// become moves the order to status s with all that a change of status means:
// stock, time, letters. When stock must be taken and is not there, an expired
// order stays expired, or is paid and holds none.
func (f *File) become(s Status, c change, d *desk) {
	if s == f.Status || !f.moveStock(s, c.cause, d) {
		return
	}
	f.Status = s
	switch s {
	case Paid:
		f.PaidAt = &d.now
		f.outgrow(notify.OrderReceived, notify.PaymentFailed, notify.OrderExpired)
		if f.Stock == StockCommitted {
			f.write(notify.PaymentConfirmed, "", d)
		} else {
			f.write(notify.GoodsGone, "", d)
		}
	case PaymentFailed: // the stock stays: the customer may try again
		f.write(notify.PaymentFailed, c.about, d)
	case Pending:
		f.outgrow(notify.PaymentFailed, notify.OrderExpired)
	case Expired:
		f.outgrow(notify.OrderReceived, notify.PaymentFailed)
		f.write(notify.OrderExpired, "", d)
	case Cancelled:
		f.CancelledAt = &d.now
		f.recall = true
		for i := range f.Items {
			f.Items[i].RequestID = nil
		}
		f.outgrow(notify.OrderReceived, notify.PaymentFailed, notify.PaymentConfirmed, notify.OrderExpired, notify.GoodsGone)
		f.write(notify.OrderCancelled, "", d, c.note)
	case Fulfilled:
		f.FulfilledAt = &d.now
	}
}

// mayMoveStock reports whether hearing n could change what the order holds, so
// that its stock must be locked. Most events of a quiet order cannot.
func (f *File) mayMoveStock(n News, now time.Time) bool {
	switch f.Status {
	case Paid, Fulfilled, Cancelled:
		return false
	case Expired:
		return true
	case Pending, PaymentFailed:
	}
	return n.Trouble != nil || f.funded() || !now.Before(f.Deadline) || (n.Type != PaymentCreatedEvent && n.Type != PaymentPendingEvent)
}

// moveStock brings the order's stock to what status s holds; false when the
// order cannot take that status for want of goods.
func (f *File) moveStock(s Status, cause string, d *desk) bool {
	lines, want := f.lines(), s.stock()
	switch {
	case f.Stock == want:
	case f.Stock == StockReserved && want == StockCommitted:
		d.shelf.Commit(f.ID, f.Reservation, lines, cause)
	case f.Stock == StockReserved && want == StockNone:
		d.shelf.Release(f.ID, f.Reservation, lines, cause)
	case f.Stock == StockCommitted && want == StockNone:
		d.shelf.Return(f.ID, f.Reservation, lines, cause)
	case f.Stock == StockNone:
		if short := d.shelf.Reserve(f.ID, f.Reservation+1, lines, cause); short != nil {
			return s == Paid
		}
		f.Reservation++
		if want == StockCommitted {
			d.shelf.Commit(f.ID, f.Reservation, lines, cause)
		}
	}
	f.Stock = want
	return true
}

func (f *File) lines() []inventory.Line {
	lines := make([]inventory.Line, 0, len(f.Items))
	for _, it := range f.Items {
		if !it.GivenUp {
			lines = append(lines, inventory.Line{SKU: it.SKU, Quantity: it.Quantity})
		}
	}
	return lines
}

// review opens the cases that the order's facts call for and closes those
// whose reason has gone. Cases that an event itself is the reason for are
// raised where it is heard.
func (f *File) review(d *desk) {
	money := map[string]string{"expected": Amount(f.owed()), "received": Amount(f.Got), "currency": f.Currency}
	f.keep(f.Got.IsPositive() && !f.funded() && f.Status.unpaid(), matter{
		code: UnderpaidCase, about: f.ID, facts: money,
		summary: fmt.Sprintf("%s of %s %s received; the rest is missing.", Amount(f.Got), Amount(f.owed()), f.Currency),
	}, d.now)
	excess := f.Got.Sub(f.owed()).Sub(f.duplicates())
	f.keep(f.Status.takesMoney() && excess.IsPositive(), matter{
		code: OverpaidCase, about: f.ID, facts: money,
		summary: fmt.Sprintf("%s of %s %s received; %s is due back.", Amount(f.Got), Amount(f.owed()), f.Currency, Amount(excess)),
	}, d.now)
	f.keep(f.Status == Cancelled && f.Got.IsPositive(), matter{
		code: CancelledPaid, about: f.ID, facts: money,
		summary: fmt.Sprintf("The order is cancelled and %s %s were received; they are due back.", Amount(f.Got), f.Currency),
	}, d.now)
	f.keep(f.Status == Paid && f.Stock == StockNone, matter{
		code: StockGone, about: f.ID, facts: money,
		summary: "The order is paid but the goods were gone by then; nothing was taken from stock.",
	}, d.now)
	f.reviewSilence(d.now)
	for _, p := range f.Payments {
		if c := f.Cases[matter{code: Regression, about: p.ID}.key()]; c != nil || p.regressed() {
			f.keep(p.regressed(), matter{
				code: Regression, about: p.ID, payment: p.ID,
				summary: fmt.Sprintf("PayQI said that payment %s completed and, by its own clock, later that it did not.", p.ID),
			}, d.now)
		}
	}
}

// unpaid reports whether the order could still be paid. A paid one stays paid,
// also when the shop becomes less tolerant.
func (s Status) unpaid() bool { return s == Pending || s == PaymentFailed || s == Expired }

// duplicates is the money left of payments that completed on a funded order.
func (f *File) duplicates() decimal.Decimal {
	total := decimal.Zero
	for _, p := range f.Payments {
		if f.Cases[matter{code: DuplicatePayment, about: p.ID}.key()] != nil && p.Counted == CountedMatched {
			total = total.Add(p.left())
		}
	}
	return total
}

// keep holds a case open exactly as long as its reason lasts.
func (f *File) keep(reason bool, m matter, now time.Time) {
	if reason {
		f.raise(m, now)
		return
	}
	if c := f.Cases[m.key()]; c != nil && c.open() {
		by, why := itself, "settled itself"
		c.State, c.ClosedAt, c.ClosedBy, c.Resolution = caseClosed, &now, &by, &why
		f.cases[c.Key] = c
		f.since.Closed = append(f.since.Closed, c.Key)
	}
}

// believe closes the cases of an event that could not be applied, once it is.
func (f *File) believe(n News, now time.Time) {
	for _, code := range []Code{UnreadableEvent, EventDead} {
		f.keep(false, matter{code: code, about: n.Key}, now)
	}
}

// raise opens a case, once per matter. One that settled itself opens again;
// one that a person has closed stays closed, unless what was decided had taken
// the reason away and there is a new one.
func (f *File) raise(m matter, now time.Time) {
	c := f.Cases[m.key()]
	switch {
	case c == nil:
		c = m.row(f.ID, now)
		f.since.Opened = append(f.since.Opened, c.Key)
	case c.open():
		if c.Summary == m.summary {
			return
		}
		c.Summary, c.Facts = m.summary, m.facts
	case *c.ClosedBy == itself || Rules[c.Code].Returns:
		c.State, c.ClosedAt, c.ClosedBy, c.Resolution = caseOpen, nil, nil, nil
		c.Summary, c.Facts = m.summary, m.facts
		f.since.Opened = append(f.since.Opened, c.Key)
	default:
		return
	}
	if m.code == Regression {
		c.Blocks = !slices.ContainsFunc(f.Items, Item.shipped)
	}
	if c.Facts == nil {
		c.Facts = map[string]string{}
	}
	f.Cases[c.Key], f.cases[c.Key] = c, c
}

func (f *File) raiseWrongAddress(p *Payment, n News, now time.Time) {
	f.raise(matter{
		code: WrongAddress, about: p.ID, payment: p.ID, inbox: n.inbox(),
		summary: fmt.Sprintf("An event of payment %s names another address or destination tag than the one recorded.", p.ID),
		facts: map[string]string{
			"recorded": place(p.PayAddress, p.DestinationTag), "told": place(&n.PayAddress, n.DestinationTag),
		},
	}, now)
}

func place(address *string, tag *int64) string {
	s := ""
	if address != nil {
		s = *address
	}
	if tag != nil {
		s += fmt.Sprintf(" tag %d", *tag)
	}
	return s
}

// held reports whether an open case blocks shipping.
func (f *File) held() bool {
	for _, c := range f.Cases {
		if c.hold() {
			return true
		}
	}
	return false
}

func (it Item) shipped() bool { return it.ShipmentID != nil }

// done reports whether nothing is left to do about the line.
func (it Item) done() bool { return it.shipped() || it.GivenUp }

// requestShipment asks the provider for the lines of a paid order that nothing
// holds, each line once.
func (f *File) requestShipment(d *desk) {
	if f.Status != Paid || f.Stock != StockCommitted || f.held() {
		return
	}
	r := ShipmentRequest{
		ID: uuid.Must(uuid.NewV7()), OrderID: f.ID, Provider: f.terms.Provider, State: requestQueued,
		NotBefore: d.now, RungAt: d.now, CreatedAt: d.now,
	}
	asked := false
	for i := range f.Items {
		if it := &f.Items[i]; it.RequestID == nil && !it.done() {
			it.RequestID, asked = &r.ID, true
		}
	}
	if asked {
		f.requests = append(f.requests, r)
		f.since.Requests = append(f.since.Requests, r.ID)
	}
}

// describe derives the two statuses people look at beside the main one, and
// what is due back.
func (f *File) describe() {
	applied := decimal.Zero
	if f.Status.takesMoney() {
		applied = decimal.Min(f.Got, f.owed())
	}
	f.RefundDue = f.Got.Sub(applied)
	paid := f.Status == Paid || f.Status == Fulfilled
	wentBack := slices.ContainsFunc(f.Payments, func(p *Payment) bool { return p.Counted == CountedMatched && p.Refunded.IsPositive() })
	pending := slices.ContainsFunc(f.Payments, func(p *Payment) bool { return p.stands() == StandsPending })
	switch {
	case wentBack && f.Got.IsZero():
		f.PaymentStatus = Refunded
	case paid && f.RefundDue.IsPositive():
		f.PaymentStatus = Overpaid
	case f.RefundDue.IsPositive():
		f.PaymentStatus = RefundDue
	case paid:
		f.PaymentStatus = PaidUp
	case f.Got.IsPositive():
		f.PaymentStatus = Underpaid
	case pending:
		f.PaymentStatus = AwaitingConfirmation
	default:
		f.PaymentStatus = Unpaid
	}
	f.FulfillmentStatus = f.whereGoods()
}

// whereGoods says how far the goods are.
func (f *File) whereGoods() FulfillmentStatus {
	shipped, done, arrived, back := 0, 0, 0, 0
	for _, it := range f.Items {
		if it.shipped() {
			shipped++
		}
		if it.done() {
			done++
		}
		if it.DeliveredAt != nil || it.ReturnID != nil {
			arrived++
		}
		if it.ReturnID != nil {
			back++
		}
	}
	switch {
	case shipped > 0 && done == len(f.Items) && back == shipped:
		return CameBack
	case shipped > 0 && done == len(f.Items) && arrived == shipped:
		return Delivered
	case shipped > 0 && done == len(f.Items):
		return AllShipped
	case shipped > 0:
		return Partial
	case f.Status != Paid:
		return NotYet
	case f.held():
		return OnHold
	default:
		return InQueue
	}
}

// outgrow drops letters of these kinds that were not sent yet, and those that
// an earlier event of the batch has just written.
func (f *File) outgrow(kinds ...notify.Kind) {
	f.outgrown = append(f.outgrown, kinds...)
	f.letters = slices.DeleteFunc(f.letters, func(l notify.Letter) bool { return slices.Contains(kinds, l.Kind) })
}

// write posts a letter to the customer, with what is true now.
func (f *File) write(kind notify.Kind, about string, d *desk, reason ...string) {
	if about == "" && f.Reopenings > 0 { // the customer is told anew
		about = fmt.Sprintf("reopening %d", f.Reopenings)
	}
	facts := f.facts()
	if len(reason) > 0 {
		facts.Reason = reason[0]
	}
	f.post(notify.Letter{OrderID: f.ID, Kind: kind, About: about, Address: f.CustomerEmail, Facts: facts, NotBefore: d.now})
}

func (f *File) post(l notify.Letter) {
	f.letters = append(f.letters, l)
	f.wrote = append(f.wrote, keyOf(l))
}

// facts are what a letter may say now.
func (f *File) facts() notify.Facts {
	due := f.Got
	if f.Status.takesMoney() {
		due = decimal.Max(f.Got.Sub(f.owed()), decimal.Zero)
	}
	deadline := f.Deadline
	facts := notify.Facts{
		OrderID: f.ID, CustomerName: f.CustomerName, Currency: f.Currency, Total: Amount(f.Total.Sub(f.GivenUp)), Got: some(f.Got),
		RefundDue: some(due), PayBy: &deadline, StatusURL: f.terms.PublicURL + "/o/" + f.StatusToken,
	}
	if f.Got.IsPositive() {
		facts.Missing = some(f.owed().Sub(f.Got))
	}
	if f.PayAddress != nil {
		facts.PayAddress = *f.PayAddress
	}
	if f.DestinationTag != nil {
		facts.DestinationTag = fmt.Sprint(*f.DestinationTag)
	}
	if f.TxHash != nil {
		facts.TxHash = *f.TxHash
	}
	for _, it := range f.Items {
		if it.GivenUp {
			continue
		}
		facts.Items = append(facts.Items, notify.Line{Name: it.Name, Quantity: it.Quantity, Price: Amount(it.UnitPrice.Mul(decimal.NewFromInt(it.Quantity)))})
	}
	return facts
}

// Amount prints money as people and the API read it: exact, at least two decimals.
func Amount(d decimal.Decimal) string { return web.Money{Decimal: d}.String() }

// some is Amount, or "" for nothing.
func some(d decimal.Decimal) string {
	if !d.IsPositive() {
		return ""
	}
	return Amount(d)
}
