package orders

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/notify"
)

// Terms are the shop's own rules.
type Terms struct {
	TTL       time.Duration   // how long an unpaid order holds stock
	Tolerance decimal.Decimal // how much less than the total is still paid, absolute
	PublicURL string          // base of the customer's links, without a slash at its end
	ShopName  string          // what the customer's page calls the shop; may be empty
	Provider  string          // name of the fulfilment provider
}

const (
	// grace is added once to the deadline of an order whose money is on its way.
	grace = 30 * time.Minute
	// detailsWait is how long the first letter waits for PayQI to say where to pay.
	detailsWait = 20 * time.Second
)

// File is all that a transaction has on its desk about one order. Its methods
// only think: they change the rows in memory and note what must follow.
type File struct {
	Order
	Items    []Item
	Payments []*Payment
	Cases    map[string]*Case // by key, closed ones too

	terms Terms
	follow
}

// follow is what a transaction must write besides the order itself.
type follow struct {
	heard      map[string]*Payment // payments to save
	cases      map[string]*Case    // cases to save, by key
	steps      []Step
	since      Details     // what was written since the latest step
	wrote      []letterKey // and which letters
	letters    []notify.Letter
	outgrown   []notify.Kind // queued letters to drop
	requests   []ShipmentRequest
	shipments  []Shipment
	refunds    []*Refund
	relabelled []Shipment // whose rows change
	returns    []Return
	inquiries  []Inquiry // payments to ask PayQI about
	givenUp    []int     // lines
	recall     bool      // withdraw what the provider was asked
	fresh      bool      // the order's own row is written already, as it is
}

// Verdict is what became of an event.
type Verdict struct {
	State  string // applied, ignored, parked or quarantined
	Reason string // for people; empty when there is nothing to add
}

// The verdicts' states, those of inbox and inbox_open.
const (
	Applied     = "applied"
	Ignored     = "ignored"
	Parked      = "parked"
	Quarantined = "quarantined"
)

// hear applies one event to its order. It reads like the guide's own
// process_webhook_event (docs/payqi-webhook-guide.txt, "Complete Handler
// Example"), except that an event changes its payment only; the order's status
// is derived from all payments, so that order and repetition do not matter.
func (f *File) hear(n News, d *desk) Verdict {
	p := f.payment(n, d)
	stood, knew := p.stands(), p.PayAddress != nil
	moved := p.learnAddress(n)
	if moved {
		f.raiseWrongAddress(p, n, d.now)
	}
	verdict := Verdict{State: Applied}
	switch {
	case n.Type == PaymentCompletedEvent && p.CompletedSeen == nil:
		verdict.Reason = f.credit(p, n, moved, d)
	case n.Type == PaymentCompletedEvent:
		verdict = f.creditAgain(p, n, d)
	}
	if verdict.State == Applied {
		f.believe(n, d.now)
	}
	p.hear(n.Type, n.Created)
	f.heard[p.ID] = p
	if n.Type == PaymentCreatedEvent || n.Type == PaymentPendingEvent {
		f.showWhereToPay(p, !knew && stood <= StandsCreated && n.Type == PaymentCreatedEvent, d)
	}
	was := f.Status
	f.settle(change{kind: string(n.Type), cause: n.cause(), note: n.note(), about: p.ID, inbox: n.inbox()}, d)
	if f.Status == Paid && was != Paid && f.Stock == StockCommitted && (was == Expired || stood >= StandsFailed) {
		f.raise(matter{
			code: LatePaid, about: f.ID, payment: p.ID, inbox: n.inbox(),
			summary: fmt.Sprintf("The money of payment %s came after the order had been given up; the goods were still there and it is paid.", p.ID),
		}, d.now)
		f.attribute()
	}
	return verdict
}

// credit books the money of a payment that completes for the first time.
func (f *File) credit(p *Payment, n News, wrongAddress bool, d *desk) (reason string) {
	funded := f.funded()
	p.learnMoney(n, d.now)
	facts := map[string]string{"expected": Amount(f.Total), "expected_currency": f.Currency, "received": Amount(n.Amount.Decimal), "received_currency": n.Currency}
	about := matter{about: p.ID, payment: p.ID, inbox: n.inbox(), facts: facts}
	other, taken := d.claims[claim(n.TxHash)]
	switch {
	case n.TxHash != "" && taken && other != p.ID:
		p.Counted = CountedReused
		about.code, about.facts["counts_for"] = TxReused, other
		about.summary = fmt.Sprintf("Payment %s names a transaction that already counts for payment %s; it counts nothing.", p.ID, other)
	case n.Currency != f.Currency:
		p.Counted = CountedUnmatched
		about.code = WrongCurrency
		about.summary = fmt.Sprintf("Payment %s brought %s %s, the order costs %s %s.", p.ID, Amount(n.Amount.Decimal), n.Currency, Amount(f.Total), f.Currency)
	case wrongAddress && !f.decided(WrongAddress, p.ID):
		p.Counted = CountedUnmatched // raiseWrongAddress has opened the case
	default:
		p.Counted = CountedMatched
	}
	if n.TxHash != "" && p.Counted != CountedReused {
		d.claims[claim(n.TxHash)] = p.ID
	}
	if about.code != "" {
		f.raise(about, d.now)
		return about.summary
	}
	if p.Counted == CountedMatched && funded && f.Status != Cancelled {
		about.code = DuplicatePayment
		about.summary = fmt.Sprintf("Payment %s completed although the order was paid already; all of it is due back.", p.ID)
		f.raise(about, d.now)
	}
	return ""
}

// creditAgain hears of a payment that has completed before. The first stands;
// only a transaction that was missing is filled in.
func (f *File) creditAgain(p *Payment, n News, d *desk) Verdict {
	if !p.Amount.Decimal.Equal(n.Amount.Decimal) || *p.Currency != n.Currency {
		m := matter{
			code: AmountChanged, about: p.ID, payment: p.ID, inbox: n.inbox(),
			summary: fmt.Sprintf("Payment %s completed with %s %s and later with %s %s; the first counts.", p.ID, Amount(p.Amount.Decimal), *p.Currency, Amount(n.Amount.Decimal), n.Currency),
			facts:   map[string]string{"first": Amount(p.Amount.Decimal) + " " + *p.Currency, "later": Amount(n.Amount.Decimal) + " " + n.Currency},
		}
		f.raise(m, d.now)
		return Verdict{State: Quarantined, Reason: m.summary}
	}
	if n.TxHash != "" && p.TxHash == nil {
		if other, taken := d.claims[claim(n.TxHash)]; taken && other != p.ID {
			m := matter{
				code: TxReused, about: p.ID, payment: p.ID, inbox: n.inbox(),
				summary: fmt.Sprintf("Payment %s names a transaction that already counts for payment %s.", p.ID, other),
				facts:   map[string]string{"counts_for": other},
			}
			f.raise(m, d.now)
			return Verdict{State: Quarantined, Reason: m.summary}
		}
		p.TxHash = &n.TxHash
		d.claims[claim(n.TxHash)] = p.ID
	}
	return Verdict{State: Applied}
}

// payment returns the payment n speaks of, new if this is the first news of it.
func (f *File) payment(n News, d *desk) *Payment {
	if p := f.paymentOf(n.PaymentID); p != nil {
		return p
	}
	p := &Payment{ID: n.PaymentID, OrderID: f.ID, Counted: CountedNo, FirstSeenAt: d.now}
	f.Payments = append(f.Payments, p)
	d.links[p.ID] = f.ID
	return p
}

// paymentOf returns the payment with this id, nil when the order has none.
func (f *File) paymentOf(id string) *Payment {
	for _, p := range f.Payments {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// decided reports whether a person has closed the case about a payment.
func (f *File) decided(code Code, payment string) bool {
	c := f.Cases[matter{code: code, about: payment}.key()]
	return c != nil && !c.open() && *c.ClosedBy != itself
}

// attached reports whether a person linked the payment to this order.
func (f *File) attached(payment string) bool {
	p := f.paymentOf(payment)
	return p != nil && p.AttachedBy != nil
}

// showWhereToPay keeps the address of the newest open payment and, the first
// time it is known, writes to the customer.
func (f *File) showWhereToPay(p *Payment, first bool, d *desk) {
	if p.PayAddress == nil || p.stands() > StandsPending || f.Status == Paid || f.Status == Fulfilled || f.Status == Cancelled {
		return
	}
	f.PayAddress, f.DestinationTag = p.PayAddress, p.DestinationTag
	if first && f.Status != Expired {
		f.outgrow(notify.OrderReceived)
		f.write(notify.OrderReceived, p.ID, d)
	}
}

// change is one thing that happened, on its way into the timeline.
type change struct {
	kind, cause, note string
	about             string // the payment or shipment, "" for the order itself
	inbox             *uuid.UUID
}

// settle derives all that follows from the facts and notes it: money, status,
// stock, letters, cases, shipment, timeline.
func (f *File) settle(c change, d *desk) { f.settleFrom(f.Status, c, d) }

// settleFrom is settle for a change that has begun to move the order's status.
func (f *File) settleFrom(was Status, c change, d *desk) {
	f.addUp()
	f.extend()
	f.become(f.derive(d.now), c, d)
	f.settled(c, was, d)
}

// settled notes what follows once the order's status is known.
func (f *File) settled(c change, was Status, d *desk) {
	f.review(d)
	f.requestShipment(d)
	f.describe()
	f.UpdatedAt = d.now
	f.note(c, &was, d.now)
}

func (f *File) note(c change, was *Status, now time.Time) {
	f.TimelineLength++
	f.steps = append(f.steps, Step{
		OrderID: f.ID, Seq: f.TimelineLength, At: now, Kind: c.kind, Cause: c.cause,
		Was: was, Became: f.Status, Note: c.note, InboxID: c.inbox,
	})
	f.attribute()
}

// addUp sums what was got and chooses the payment the order shows.
func (f *File) addUp() {
	f.Got = decimal.Zero
	var shown *Payment
	for _, p := range f.Payments {
		if p.Counted != CountedMatched {
			continue
		}
		f.Got = f.Got.Add(p.left())
		if shown == nil || p.before(shown) < 0 {
			shown = p
		}
	}
	if shown != nil {
		f.PaymentID, f.TxHash = &shown.ID, shown.TxHash
	}
}

// extend grants the one grace: money is on its way, or part of it is here.
func (f *File) extend() {
	if f.Grace {
		return
	}
	coming := slices.ContainsFunc(f.Payments, func(p *Payment) bool { return p.PendingSeen != nil })
	if coming || (f.Got.IsPositive() && !f.funded()) {
		f.Grace, f.Deadline = true, f.Deadline.Add(grace)
	}
}

// owed is what the order costs now: what a person accepted as full payment,
// else its total less the lines that were given up; less what came back.
func (o *Order) owed() decimal.Decimal {
	if o.Accepted.Valid {
		return o.Accepted.Decimal.Sub(o.Returned)
	}
	return o.Total.Sub(o.GivenUp).Sub(o.Returned)
}

// funded reports whether what was got covers what is owed. Nothing never does,
// however small the order and large the tolerance, unless a person said so.
func (f *File) funded() bool {
	if f.Accepted.Valid {
		return f.Got.GreaterThanOrEqual(f.Accepted.Decimal)
	}
	return f.Got.IsPositive() && f.Got.GreaterThanOrEqual(f.owed().Sub(f.terms.Tolerance))
}

// derive says where the order stands, by the first line that fits.
func (f *File) derive(now time.Time) Status {
	stands := func(s ...Standing) bool {
		return slices.ContainsFunc(f.Payments, func(p *Payment) bool { return !p.Outlived && slices.Contains(s, p.stands()) })
	}
	late := !now.Before(f.Deadline)
	switch {
	case f.Status == Cancelled, f.Status == Fulfilled, f.Status == Paid: // only people take it from there
		return f.Status
	case f.funded():
		return Paid
	case !late && (stands(StandsCreated, StandsPending) || f.Got.IsPositive()):
		return Pending
	case late || stands(StandsExpired):
		return Expired
	case stands(StandsFailed):
		return PaymentFailed
	}
	return Pending
}

// note says in plain words what an event told.
func (n News) note() string {
	what := strings.TrimPrefix(string(n.Type), "payment.")
	who := "PayQI"
	if strings.HasPrefix(n.Cause, "admin:") {
		who = "the shop"
	}
	s := fmt.Sprintf("%s: payment %s %s", who, n.PaymentID, what)
	if n.Type == PaymentCompletedEvent {
		s += fmt.Sprintf(", %s %s", Amount(n.Amount.Decimal), n.Currency)
	}
	if n.TxHash != "" {
		s += ", transaction " + n.TxHash
	}
	return s + n.again()
}
