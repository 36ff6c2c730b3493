package orders

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/notify"
)

// Events is how a decision about an event reaches the inbox, which is above
// this package.
type Events interface {
	// Take returns what an event says and whether it still waits; one that
	// does is locked until tx ends.
	Take(tx database.Tx, id uuid.UUID) (n News, waits bool, err error)
	// Release has an event that waits applied, as if it had just come.
	Release(tx database.Tx, id uuid.UUID) error
	// Settle ends the wait of an event: its state is Applied or Ignored.
	Settle(tx database.Tx, id uuid.UUID, v Verdict) error
}

// The actions a case may offer. The table of cases says which of them.
const (
	actAcknowledge = "acknowledge"       // seen; nothing to do
	actKeepFirst   = "keep_first"        // what was booked first stands
	actShip        = "ship"              // the money is there all the same
	actWait        = "wait"              // noted; the case stays open
	actAccept      = "accept"            // what came is full payment
	actKeep        = "keep"              // the money stays without goods, for a reason
	actRefund      = "refund"            // the money is to go back; an order not shipped is cancelled
	actIgnore      = "ignore"            // the event is settled unapplied; money in it is kept
	actMatch       = "match"             // the money is this order's
	actAttach      = "attach"            // the payment is that order's
	actRelease     = "release"           // the event is applied after all
	actReopen      = "reopen"            // the order is wanted again
	actRetryStock  = "retry_reservation" // the goods are back
	actPart        = "ship_available"    // what is there ships, the rest is due back
	actRetry       = "retry"             // the provider is asked again, or the letter is sent again
	actReaddress   = "readdress"         // the letter is sent again, to the right address
	actRepair      = "repair"            // the ledger is corrected to what the level says
	actReroute     = "reroute"           // people ship it
	actAskAgain    = "ask_again"         // PayQI is asked at once; the case stays open
)

// Decision is what a person chose for a case.
type Decision struct {
	Action  string
	Note    string       // why; the timeline keeps it
	OrderID string       // of attach
	To      *Destination // of refund, nil while nobody knows; of readdress, an e-mail address
	Lines   []int        // of ship_available: those that must be there; nil: whatever is
	Version int          // of the order, as it was shown to who decided; 0: any
}

// actions says what each does. An action that only closes its case has none.
var actions = map[string]func(*ruling) error{
	actAcknowledge: (*ruling).closeOnly, actKeepFirst: (*ruling).closeOnly, actShip: (*ruling).closeOnly, actWait: (*ruling).wait,
	actAccept: (*ruling).accept, actKeep: (*ruling).keep, actRefund: (*ruling).refund, actIgnore: (*ruling).ignore,
	actMatch: (*ruling).match, actAttach: (*ruling).attach, actRelease: (*ruling).release, actReopen: (*ruling).reopen,
	actRetryStock: (*ruling).retryReservation, actPart: (*ruling).shipAvailable, actRetry: (*ruling).retry, actReroute: (*ruling).reroute,
	actAskAgain:  (*ruling).askAgain,
	actReaddress: (*ruling).readdress, actRepair: (*ruling).repair,
}

// reasoned are the actions that give something up: they need a note.
var reasoned = []string{actKeep, actIgnore, actAccept, actMatch, actAttach}

// What the money of a case is: all that came for the order, the money of one
// payment that counts for nothing, or that of an event in no books. Of the
// others it is what is due back.
var (
	ofOrder   = []Code{UnderpaidCase, StockGone, Regression, AmountChanged, CancelledPaid}
	ofPayment = []Code{WrongAddress, WrongCurrency}
	ofEvent   = []Code{OrderMismatch, UnknownOrder}
)

// ruling is one decision being carried out: all its rows are locked.
type ruling struct {
	Decision
	tx    database.Tx
	b     *Book
	d     *desk
	f     *File // nil when the case is about no order that exists
	c     *Case
	actor string

	was   Status // of the order
	news  News   // of the event the case is about
	waits bool   // that event is not settled yet
	open  bool   // the case stays open
}

// Resolve carries out what a person decided about an open case. actor is
// admin:NAME, or customer. Errors: NotFound; Conflict when the case is closed
// or the decision cannot be carried out; Unprocessable naming the field.
func (b *Book) Resolve(tx database.Tx, id uuid.UUID, actor string, what Decision) (*Case, error) {
	r := &ruling{Decision: what, tx: tx, b: b, actor: actor}
	if err := r.lock(id); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := actions[what.Action](r); err != nil {
		return nil, err
	}
	return r.c, r.close()
}

// lock takes what the decision may touch in the order of all: the event, the
// orders with their payments and stock, the case.
func (r *ruling) lock(id uuid.UUID) error {
	peek, err := r.readCase(id, "")
	if err != nil {
		return err
	}
	var ids []string
	var news []News
	if peek.InboxID != nil && r.b.Events != nil {
		if r.news, r.waits, err = r.b.Events.Take(r.tx, *peek.InboxID); err != nil {
			return err
		}
		n := r.news
		n.Trouble = nil // what it says matters, not whether it was believed
		news = append(news, n)
	}
	for _, order := range []string{text(peek.OrderID), r.OrderID} {
		if order != "" {
			ids = append(ids, order)
		}
	}
	if r.d, err = r.b.lay(r.tx, ids, news); err != nil {
		return err
	}
	if r.f = r.d.files[text(peek.OrderID)]; r.f != nil {
		r.c, r.was = r.f.Cases[peek.Key], r.f.Status
		return nil
	}
	r.c, err = r.readCase(id, "FOR UPDATE")
	return err
}

func (r *ruling) readCase(id uuid.UUID, lock string) (*Case, error) {
	var rows []*Case
	if err := r.tx.Raw(`SELECT * FROM cases WHERE id = ? `+lock, id).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("case %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "case_not_found", "no case %s", id)
	}
	return rows[0], nil
}

// check refuses what this case does not offer.
func (r *ruling) check() error {
	offered := Rules[r.c.Code].Actions
	switch {
	case !r.c.open():
		return fault.New(fault.Conflict, "case_closed", "case %s is closed: %s, by %s", r.c.ID, text(r.c.Resolution), text(r.c.ClosedBy))
	case r.Version != 0 && r.f != nil && r.f.TimelineLength != r.Version:
		return changedMeanwhile(r.f.ID)
	case !slices.Contains(offered, r.Action):
		return refused("action", "must be one of "+strings.Join(offered, ", "))
	case !plain(r.Note, 500):
		return refused("note", "must be at most 500 characters without control characters")
	case r.Note == "" && slices.Contains(reasoned, r.Action):
		return refused("note", "must say why: the action gives something up")
	case (r.OrderID != "") != (r.Action == actAttach):
		return refused("order_id", "names the order to attach to: needed for attach, and for nothing else")
	}
	return r.checkTo()
}

func refused(field, message string) error {
	return fault.New(fault.Unprocessable, "invalid_decision", "the decision breaks a rule").With(fault.Field{Location: field, Message: message})
}

// close writes the decision down: in the case, in its order's timeline, and at
// the event, which has waited for it.
func (r *ruling) close() error {
	said := r.Action
	if r.Note != "" {
		said += ": " + r.Note
	}
	if !r.open {
		r.c.State, r.c.ClosedAt, r.c.ClosedBy, r.c.Resolution = caseClosed, &r.tx.Now, &r.actor, &said
	}
	if r.waits && !r.open {
		if err := r.b.Events.Settle(r.tx, *r.c.InboxID, Verdict{State: Ignored, Reason: "a person decided: " + said}); err != nil {
			return err
		}
	}
	if r.f == nil {
		if err := saveCases(r.tx, []*Case{r.c}); err != nil {
			return fmt.Errorf("close case %s: %w", r.c.ID, err)
		}
		return r.b.clear(r.tx, r.d) // the order attached to, if any
	}
	r.f.cases[r.c.Key] = r.c
	if !r.open {
		r.f.since.Closed = append(r.f.since.Closed, r.c.Key)
	}
	r.f.since.Decision = &Decided{Case: r.c.Key, Action: r.Action, Note: r.Note, OrderID: r.OrderID}
	r.f.settleFrom(r.was, change{kind: "decided", cause: r.actor, note: string(r.c.Code) + ": " + said, inbox: r.c.InboxID}, r.d)
	return r.b.clear(r.tx, r.d)
}

func (r *ruling) closeOnly() error { return nil }

func (r *ruling) wait() error {
	r.open = true
	if r.actor == customer {
		r.c.Facts[factChosen] = chooseWait
	}
	return nil
}

// accept takes what came as full payment. Money in another currency buys the
// order as it is: it is kept, and nothing more is owed.
func (r *ruling) accept() error {
	f := r.f
	if !f.Status.unpaid() {
		return fault.New(fault.Conflict, "order_"+string(f.Status), "order %s is %s: it waits for no money", f.ID, f.Status)
	}
	if r.c.Code == WrongCurrency {
		p := f.paymentOf(*r.c.PaymentID)
		f.giveBack([]*Payment{p}, p.left(), decision{state: RefundWaived, note: r.Note, actor: r.actor}, r.d.now)
		if f.PaymentID == nil {
			f.PaymentID, f.TxHash = &p.ID, p.TxHash
		}
	}
	f.Accepted = decimal.NewNullDecimal(f.Got)
	return nil
}

// keep lets money stay that no goods stand against.
func (r *ruling) keep() error { return r.settleMoney(RefundWaived) }

// refund lets money go back. An order that only waits, or is paid and has not
// shipped, is cancelled first where the case is about the whole order.
func (r *ruling) refund() error {
	if slices.Contains(ofOrder, r.c.Code) {
		if err := r.cancel(); err != nil {
			return err
		}
	}
	return r.settleMoney(RefundApproved)
}

func (r *ruling) cancel() error {
	f := r.f
	switch {
	case f.Status == Cancelled || f.Status == Expired:
		return nil
	case slices.ContainsFunc(f.Items, Item.shipped):
		return fault.New(fault.Conflict, "order_shipped", "order %s has shipped, at least in part: it cannot be cancelled", f.ID)
	}
	note := r.Note
	if note == "" {
		note = "Your money goes back to you."
	}
	f.become(Cancelled, change{kind: "cancelled", cause: r.actor, note: note}, r.d)
	return nil
}

// settleMoney decides about the money of the case: that of the payment it is
// about, or all that is due back for the order.
func (r *ruling) settleMoney(state RefundState) error {
	why := decision{state: state, to: r.To, note: r.Note, actor: r.actor}
	switch {
	case slices.Contains(ofPayment, r.c.Code):
		p := r.f.paymentOf(*r.c.PaymentID)
		if p.Counted != CountedUnmatched || !p.left().IsPositive() {
			return fault.New(fault.Conflict, "no_money", "no money of payment %s waits for a decision", p.ID)
		}
		return r.giveBack(p, why)
	case slices.Contains(ofEvent, r.c.Code):
		return r.settleStray(why)
	}
	r.f.addUp()
	r.f.describe()
	from, due := r.f.matched(), r.f.RefundDue
	if r.c.Code == DuplicatePayment {
		p := r.f.paymentOf(*r.c.PaymentID)
		from, due = []*Payment{p}, decimal.Min(due, p.left())
	}
	if !due.IsPositive() {
		if r.c.Code == CancelledPaid || r.c.Code == OverpaidCase || r.c.Code == DuplicatePayment {
			return fault.New(fault.Conflict, "no_refund_due", "nothing is due back for order %s", r.f.ID)
		}
		return nil // an expired order whose money went back before
	}
	r.f.giveBack(from, due, why, r.d.now)
	return nil
}

// settleStray books the money of an event that was not applied, as that of a
// payment that counts for nothing, and decides about it.
func (r *ruling) settleStray(why decision) error {
	p, err := r.setMoneyAside()
	if err != nil {
		return err
	}
	if p == nil {
		return fault.New(fault.Conflict, "no_money", "there is no money in this event that is not in the books: ignore it, or attach it")
	}
	return r.giveBack(p, why)
}

// giveBack decides about all that is left of a payment, also of one that
// belongs to no order.
func (r *ruling) giveBack(p *Payment, why decision) error {
	if r.f != nil {
		r.f.giveBack([]*Payment{p}, p.left(), why, r.d.now)
		return nil
	}
	refund := p.giveBack(p.left(), why, r.d.now)
	if err := r.tx.Exec(`UPDATE payments SET refunded = ?, kept = ? WHERE id = ?`, p.Refunded, p.Kept, p.ID).Error; err != nil {
		return fmt.Errorf("payment %s: %w", p.ID, err)
	}
	return saveRefunds(r.tx, []*Refund{refund})
}

// setMoneyAside books the money that the case's event tells of, if it is in no
// books yet, as received and unmatched. It returns nil when there is none.
func (r *ruling) setMoneyAside() (*Payment, error) {
	n := r.news
	_, used := r.d.claims[claim(n.TxHash)]
	if !r.waits || n.Type != PaymentCompletedEvent || !n.Amount.Valid || n.PaymentID == "" || r.d.strays[n.PaymentID] || (n.TxHash != "" && used) {
		return nil, nil
	}
	if r.f != nil {
		p := r.f.payment(n, r.d)
		if p.CompletedSeen != nil {
			return nil, nil
		}
		p.complete(n, CountedUnmatched, r.d.now)
		r.f.heard[p.ID] = p
		return p, nil
	}
	if r.d.links[n.PaymentID] != "" {
		return nil, nil
	}
	p := &Payment{ID: n.PaymentID, AttachedBy: &r.actor, FirstSeenAt: r.d.now}
	p.complete(n, CountedUnmatched, r.d.now)
	err := r.tx.Exec(`INSERT INTO payments (id, completed_seen, amount, currency, tx_hash, attached_by, counted, first_seen_at, completed_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, p.ID, *p.CompletedSeen, p.Amount, *p.Currency, p.TxHash, r.actor, p.Counted, p.FirstSeenAt, *p.CompletedAt).Error
	if database.Violates(err, "a_transaction_counts_once") || database.Violates(err, "payments_pkey") {
		return nil, fmt.Errorf("%w: %w", database.ErrAgain, err) // booked meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("payment %s of no order: %w", p.ID, err)
	}
	return p, nil
}

// ignore settles the event unapplied. Money in it that is in no books is kept.
func (r *ruling) ignore() error {
	if r.c.Code == StaleEvent { // it was never accepted
		return nil
	}
	p, err := r.setMoneyAside()
	if err != nil || p == nil {
		return err
	}
	return r.giveBack(p, decision{state: RefundWaived, note: r.Note, actor: r.actor})
}

// match counts a payment whose address differed towards its order.
func (r *ruling) match() error {
	p := r.f.paymentOf(*r.c.PaymentID)
	if p.Counted == CountedUnmatched && *p.Currency == r.f.Currency && p.left().Equal(p.Amount.Decimal) {
		p.Counted = CountedMatched
		r.f.heard[p.ID] = p
	}
	return nil
}

// attach links the payment to an order, whatever its events say, and lets
// those be applied.
func (r *ruling) attach() error {
	g := r.d.files[r.OrderID]
	if g == nil {
		return refused("order_id", "there is no order "+r.OrderID)
	}
	p := g.paymentOf(r.news.PaymentID)
	switch {
	case p != nil:
	case r.d.strays[r.news.PaymentID]:
		return fault.New(fault.Conflict, "payment_decided", "it was decided that payment %s belongs to no order", r.news.PaymentID)
	case r.d.links[r.news.PaymentID] != "":
		return r.relink(g)
	default:
		p = g.payment(r.news, r.d)
	}
	p.AttachedBy = &r.actor
	g.heard[p.ID] = p
	return r.attached(g)
}

// relink moves a payment of which no money is booked to another order.
func (r *ruling) relink(g *File) error {
	from := r.d.files[r.d.links[r.news.PaymentID]]
	p := from.paymentOf(r.news.PaymentID)
	if p.CompletedSeen != nil {
		return fault.New(fault.Conflict, "payment_completed", "payment %s has brought money to order %s already: decide that order's cases instead", p.ID, from.ID)
	}
	if err := r.tx.Exec(`UPDATE payments SET order_id = ? WHERE id = ?`, g.ID, p.ID).Error; err != nil {
		return fmt.Errorf("move payment %s: %w", p.ID, err)
	}
	from.Payments = slices.DeleteFunc(from.Payments, func(q *Payment) bool { return q == p })
	if from != r.f {
		from.settle(change{kind: "payment_attached", cause: r.actor, about: p.ID, note: fmt.Sprintf("payment %s belongs to order %s: %s", p.ID, g.ID, r.Note)}, r.d)
	}
	p.OrderID, p.AttachedBy = g.ID, &r.actor
	g.Payments, g.heard[p.ID] = append(g.Payments, p), p
	return r.attached(g)
}

func (r *ruling) attached(g *File) error {
	if r.f == nil {
		r.c.OrderID = &g.ID
	}
	if g != r.f {
		g.settle(change{kind: "payment_attached", cause: r.actor, about: r.news.PaymentID, note: fmt.Sprintf("payment %s belongs to this order: %s", r.news.PaymentID, r.Note)}, r.d)
	}
	return r.release()
}

// release has the event applied after all.
func (r *ruling) release() error {
	if !r.waits {
		return fault.New(fault.Conflict, "event_settled", "the event does not wait any more")
	}
	r.waits = false
	return r.b.Events.Release(r.tx, *r.c.InboxID)
}

// reopen takes a cancelled or expired order up again.
func (r *ruling) reopen() error { return r.f.reopen(r.actor, r.d) }

// retryReservation takes the goods of a paid order that were gone.
func (r *ruling) retryReservation() error { return r.f.takeGoods(r.actor, r.d) }

// shipAvailable gives up the lines whose goods are not there: their price is
// due back, the others ship.
func (r *ruling) shipAvailable() error {
	f, there := r.f, map[string]int64{}
	var ships []int
	if f.Stock != StockNone {
		return fault.New(fault.Conflict, "goods_taken", "order %s has its goods", f.ID)
	}
	for _, it := range f.Items {
		there[it.SKU] = r.d.shelf.Product(it.SKU).Available()
	}
	got := served(f.lines(), there)
	for i := range f.Items {
		it := &f.Items[i]
		if it.GivenUp {
			continue
		}
		has := got[0]
		if got = got[1:]; has {
			ships = append(ships, it.Line)
			continue
		}
		it.GivenUp = true
		f.givenUp = append(f.givenUp, it.Line)
		f.GivenUp = f.GivenUp.Add(it.UnitPrice.Mul(decimal.NewFromInt(it.Quantity)))
	}
	switch {
	case ships == nil:
		return fault.New(fault.Conflict, "insufficient_stock", "no line of order %s is to be had: wait, or refund", f.ID)
	case r.Lines != nil && !slices.Equal(ships, r.Lines):
		return changedMeanwhile(f.ID)
	}
	return f.takeGoods(r.actor, r.d)
}

// retry asks the provider again, from the first attempt, or sends the letter again.
func (r *ruling) retry() error {
	if r.c.Code == MailDead {
		return r.writeAgain()
	}
	return r.revive(`UPDATE shipment_requests SET state = 'queued', attempts = 0, not_before = @now, rung_at = @now WHERE id = @id AND state = 'dead' RETURNING *`)
}

// reroute leaves the shipment to people.
func (r *ruling) reroute() error {
	return r.revive(`UPDATE shipment_requests SET state = 'handed_over', provider = 'manual', handed_at = @now WHERE id = @id AND state = 'dead' RETURNING *`)
}

func (r *ruling) revive(statement string) error {
	_, id, _ := strings.Cut(r.c.Key, "/")
	var rows []ShipmentRequest
	if err := r.tx.Raw(statement, map[string]any{"now": r.tx.Now, "id": id}).Scan(&rows).Error; err != nil {
		return fmt.Errorf("revive shipment request %s: %w", id, err)
	}
	if len(rows) == 0 {
		return fault.New(fault.Conflict, "request_settled", "the shipment request does not wait for this any more: the order was cancelled or shipped")
	}
	if rows[0].State == requestQueued {
		r.b.ringFulfilment(r.tx, rows)
	}
	return nil
}

// Reopen takes a cancelled or expired order up again: a new deadline from now,
// its stock reserved. Errors: NotFound; Conflict when it is neither, or its
// goods are gone.
func (b *Book) Reopen(tx database.Tx, id, actor, reason string) (*File, error) {
	d, f, err := b.file(tx, id)
	if err != nil {
		return nil, err
	}
	was := f.Status
	if err := f.reopen(actor, d); err != nil {
		return nil, err
	}
	f.settleFrom(was, change{kind: "reopened", cause: actor, note: reason}, d)
	return f, b.clear(tx, d)
}

// reopen makes the order pending again. Payments that had failed or expired
// no longer speak against it.
func (f *File) reopen(actor string, d *desk) error {
	if f.Status != Cancelled && f.Status != Expired {
		return fault.New(fault.Conflict, "order_open", "order %s is %s: only a cancelled or expired one can be reopened", f.ID, f.Status)
	}
	if short := d.shelf.Reserve(f.ID, f.Reservation+1, f.lines(), actor); short != nil {
		return f.shortage(short)
	}
	f.Reservation++
	f.Reopenings++
	f.Status, f.Stock, f.CancelledAt = Pending, StockReserved, nil
	f.Deadline, f.Grace = d.now.Add(f.terms.TTL), false
	f.PayAddress, f.DestinationTag = nil, nil // of a payment that is over
	for _, p := range f.Payments {
		if s := p.stands(); s == StandsFailed || s == StandsExpired {
			p.Outlived = true
			f.heard[p.ID] = p
		}
	}
	f.outgrow(notify.OrderCancelled, notify.OrderExpired)
	f.write(notify.OrderReceived, "", d)
	f.letters[len(f.letters)-1].NotBefore = d.now.Add(detailsWait)
	return nil
}

// takeGoods takes what a paid order wants, now that it may be there again.
func (f *File) takeGoods(actor string, d *desk) error {
	if f.Status != Paid || f.Stock != StockNone {
		return fault.New(fault.Conflict, "goods_taken", "order %s wants no goods", f.ID)
	}
	if short := d.shelf.Reserve(f.ID, f.Reservation+1, f.lines(), actor); short != nil {
		return f.shortage(short)
	}
	f.Reservation++
	d.shelf.Commit(f.ID, f.Reservation, f.lines(), actor)
	f.Stock = StockCommitted
	f.outgrow(notify.GoodsGone)
	f.write(notify.PaymentConfirmed, "", d)
	return nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
