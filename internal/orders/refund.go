package orders

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/notify"
)

// Refund is a row of refunds: money of one payment that goes back, or was
// decided to stay. What is due back is derived; a row is a person's decision
// about it. Quayside sends nothing: a person does, and tells by which
// transaction.
//
//	approved ─► sent ─► confirmed        waived: kept, with a reason
//	    └──────────────► withdrawn ◄───────┘
type Refund struct {
	ID             uuid.UUID       `json:"id"`
	PaymentID      string          `json:"payment_id"`
	OrderID        *string         `json:"order_id"` // nil: the payment belongs to no order
	Currency       string          `json:"currency"`
	Amount         decimal.Decimal `json:"amount"` // in Currency, exact
	State          RefundState     `json:"state"`
	Address        *string         `json:"address"` // where to; nil until it is known
	DestinationTag *int64          `json:"destination_tag"`
	TxHash         *string         `json:"tx_hash"` // of the transaction that sent it
	Note           string          `json:"note"`
	DecidedBy      string          `json:"decided_by"` // admin:NAME, customer
	DecidedAt      time.Time       `json:"decided_at"`
	SentAt         *time.Time      `json:"sent_at"`
	ConfirmedAt    *time.Time      `json:"confirmed_at"`
	WithdrawnAt    *time.Time      `json:"withdrawn_at"`
}

// RefundState is how far a refund is.
type RefundState string

// The states of a refund.
const (
	RefundApproved  RefundState = "approved"  // decided; somebody must send it
	RefundSent      RefundState = "sent"      // by the transaction it names
	RefundConfirmed RefundState = "confirmed" // the transaction was seen to be final
	RefundWaived    RefundState = "waived"    // the money stays, for the reason noted
	RefundWithdrawn RefundState = "withdrawn" // the decision was taken back before anything was sent
)

// Destination is where a refund goes.
type Destination struct {
	Address string
	Tag     *int64
}

var (
	// refundAddress is any account, wallet or bank address without spaces or controls.
	refundAddress = regexp.MustCompile(`^[\x21-\x7e]{8,128}$`)
	// refundHash is how ledgers name transactions: hex, or base 58 and its kin.
	refundHash = regexp.MustCompile(`^[0-9A-Za-z_-]{8,128}$`)
)

// check refuses a destination that cannot be one. Errors: Unprocessable.
func (to *Destination) check() error {
	var wrong []fault.Field
	if !refundAddress.MatchString(to.Address) {
		wrong = append(wrong, fault.Field{Location: "address", Message: "must be 8 to 128 printable characters without spaces"})
	}
	if to.Tag != nil && (*to.Tag < 0 || *to.Tag > maxTag) {
		wrong = append(wrong, fault.Field{Location: "destination_tag", Message: "must be 0 to 4294967295"})
	}
	if wrong != nil {
		return fault.New(fault.Unprocessable, "invalid_destination", "money cannot be sent there").With(wrong...)
	}
	return nil
}

const maxTag = 1<<32 - 1 // destination tags are uint32

// decision is what a person says when money goes back or stays.
type decision struct {
	state RefundState // RefundApproved or RefundWaived
	to    *Destination
	note  string
	actor string
}

// giveBack takes amount out of the payments given, the newest first, and
// writes a refund for each part. It must be there.
func (f *File) giveBack(from []*Payment, amount decimal.Decimal, why decision, now time.Time) {
	from = slices.Clone(from)
	slices.SortFunc(from, func(p, q *Payment) int { return q.before(p) })
	for _, p := range from {
		part := decimal.Min(p.left(), amount)
		if !part.IsPositive() {
			continue
		}
		amount = amount.Sub(part)
		r := p.giveBack(part, why, now)
		f.refunds, f.since.Refunds = append(f.refunds, r), append(f.since.Refunds, r.ID)
		f.heard[p.ID] = p
	}
}

// giveBack takes part of a payment's money out of the books.
func (p *Payment) giveBack(part decimal.Decimal, why decision, now time.Time) *Refund {
	r := &Refund{
		ID: uuid.Must(uuid.NewV7()), PaymentID: p.ID, Currency: *p.Currency, Amount: part, State: why.state,
		Note: why.note, DecidedBy: why.actor, DecidedAt: now,
	}
	if p.OrderID != "" {
		r.OrderID = &p.OrderID
	}
	if why.to != nil {
		r.Address, r.DestinationTag = &why.to.Address, why.to.Tag
	}
	if why.state == RefundWaived {
		p.Kept = p.Kept.Add(part)
	} else {
		p.Refunded = p.Refunded.Add(part)
	}
	return r
}

// matched are the payments whose money counts towards the order.
func (f *File) matched() []*Payment {
	return slices.DeleteFunc(slices.Clone(f.Payments), func(p *Payment) bool { return p.Counted != CountedMatched })
}

const refundColumns = `id, payment_id, order_id, currency, amount, state, address, destination_tag, tx_hash, note,
	decided_by, decided_at, sent_at, confirmed_at, withdrawn_at`

func saveRefunds(tx database.Tx, refunds []*Refund) error {
	return database.InsertOr(tx, "refunds", refundColumns, refunds, `ON CONFLICT (id) DO UPDATE SET state = excluded.state,
		address = excluded.address, destination_tag = excluded.destination_tag, tx_hash = excluded.tx_hash,
		sent_at = excluded.sent_at, confirmed_at = excluded.confirmed_at, withdrawn_at = excluded.withdrawn_at`)
}

// Settlement is a person's decision about money that is due back.
type Settlement struct {
	Amount decimal.Decimal // zero: all that is due
	Keep   bool            // it stays, for the reason in Note
	To     *Destination    // nil while nobody knows
	Note   string
}

// Settle decides about the refund due of an order: it is to go back, or stays.
// Errors: NotFound; Conflict when nothing, or less, is due; Unprocessable.
func (b *Book) Settle(tx database.Tx, orderID, actor string, what Settlement) ([]*Refund, error) {
	if what.To != nil {
		if err := what.To.check(); err != nil {
			return nil, err
		}
	}
	d, f, err := b.file(tx, orderID)
	if err != nil {
		return nil, err
	}
	amount := what.Amount
	if amount.IsZero() {
		amount = f.RefundDue
	}
	if !amount.IsPositive() || amount.GreaterThan(f.RefundDue) {
		return nil, fault.New(fault.Conflict, "no_refund_due", "%s %s are due back for order %s, no more: cancel the order, or decide its cases, to make money due",
			Amount(f.RefundDue), f.Currency, orderID)
	}
	why := decision{state: RefundApproved, to: what.To, note: what.Note, actor: actor}
	c := change{kind: "refund_approved", cause: actor, note: fmt.Sprintf("%s %s are to go back. %s", Amount(amount), f.Currency, what.Note)}
	if what.Keep {
		why.state, c.kind = RefundWaived, "refund_waived"
		c.note = fmt.Sprintf("%s %s are kept: %s", Amount(amount), f.Currency, what.Note)
	}
	f.giveBack(f.matched(), amount, why, d.now)
	f.settle(c, d)
	return f.refunds, b.clear(tx, d)
}

// refund locks the order, if any, and then the refund. f is nil for the
// refund of a payment that belongs to no order.
func (b *Book) refund(tx database.Tx, id uuid.UUID) (d *desk, f *File, r *Refund, err error) {
	var rows []*Refund
	if err := tx.Raw(`SELECT * FROM refunds WHERE id = ?`, id).Scan(&rows).Error; err != nil {
		return nil, nil, nil, fmt.Errorf("find refund %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, nil, nil, fault.New(fault.NotFound, "refund_not_found", "no refund %s", id)
	}
	if rows[0].OrderID != nil { // what it was about never changes
		if d, f, err = b.file(tx, *rows[0].OrderID); err != nil {
			return nil, nil, nil, err
		}
	}
	rows = nil
	if err := tx.Raw(`SELECT * FROM refunds WHERE id = ? FOR UPDATE`, id).Scan(&rows).Error; err != nil {
		return nil, nil, nil, fmt.Errorf("lock refund %s: %w", id, err)
	}
	return d, f, rows[0], nil
}

// record writes a changed refund and, in its order's timeline, why.
func (b *Book) record(tx database.Tx, d *desk, f *File, r *Refund, c change) error {
	if f == nil {
		return saveRefunds(tx, []*Refund{r})
	}
	f.refunds, f.since.Refunds = append(f.refunds, r), append(f.since.Refunds, r.ID)
	f.settle(c, d)
	return b.clear(tx, d)
}

// Address says where an approved refund is to go. Errors: NotFound; Conflict
// once it was sent; Unprocessable.
func (b *Book) Address(tx database.Tx, id uuid.UUID, actor string, to Destination) (*Refund, error) {
	if err := to.check(); err != nil {
		return nil, err
	}
	d, f, r, err := b.refund(tx, id)
	if err != nil {
		return nil, err
	}
	if r.State != RefundApproved {
		return nil, r.conflict("is %s: its address is settled")
	}
	r.Address, r.DestinationTag = &to.Address, to.Tag
	return r, b.record(tx, d, f, r, change{kind: "refund_addressed", cause: actor, about: r.PaymentID, note: fmt.Sprintf("%s %s will go to %s", Amount(r.Amount), r.Currency, place(r.Address, r.DestinationTag))})
}

func (r *Refund) conflict(format string) error {
	return fault.New(fault.Conflict, "refund_"+string(r.State), "refund %s "+format, r.ID, r.State)
}

// Dispatched is how a person says that a refund was sent.
type Dispatched struct {
	TxHash string
	To     *Destination // nil: where the refund says
}

// Send records by which transaction a refund was sent. Errors: NotFound;
// Conflict when it was sent before, or the transaction is known for something
// else; Unprocessable when nobody has said where to.
func (b *Book) Send(tx database.Tx, id uuid.UUID, actor string, how Dispatched) (*Refund, error) {
	if !refundHash.MatchString(how.TxHash) {
		return nil, fault.New(fault.Unprocessable, "invalid_tx_hash", "this is no transaction hash").
			With(fault.Field{Location: "tx_hash", Message: "must be 8 to 128 letters and digits, as the ledger shows it"})
	}
	d, f, r, err := b.refund(tx, id)
	if err != nil {
		return nil, err
	}
	if how.To != nil {
		if err := how.To.check(); err != nil {
			return nil, err
		}
		r.Address, r.DestinationTag = &how.To.Address, how.To.Tag
	}
	switch {
	case r.State != RefundApproved:
		return nil, r.conflict("is %s: only an approved one can be sent")
	case r.Address == nil:
		return nil, fault.New(fault.Unprocessable, "no_destination", "nobody has said where the money went").
			With(fault.Field{Location: "address", Message: "must be given: the refund has none"})
	}
	if err := freshHash(tx, r, how.TxHash); err != nil {
		return nil, err
	}
	r.State, r.TxHash, r.SentAt = RefundSent, &how.TxHash, &tx.Now
	if f != nil {
		f.tellRefund(r, d)
	}
	return r, b.record(tx, d, f, r, change{kind: "refund_sent", cause: actor, about: r.PaymentID, note: fmt.Sprintf("%s %s sent to %s by transaction %s", Amount(r.Amount), r.Currency, place(r.Address, r.DestinationTag), how.TxHash)})
}

// tellRefund writes to the customer that their money was sent.
func (f *File) tellRefund(r *Refund, d *desk) {
	facts := f.facts()
	facts.Refund = &notify.Repayment{Amount: Amount(r.Amount), Currency: r.Currency, Address: *r.Address, TxHash: *r.TxHash}
	if r.DestinationTag != nil {
		facts.Refund.DestinationTag = fmt.Sprint(*r.DestinationTag)
	}
	f.post(notify.Letter{
		OrderID: f.ID, Kind: notify.RefundSent, About: "refund " + r.ID.String(), Address: f.CustomerEmail, Facts: facts, NotBefore: d.now,
	})
}

// freshHash refuses a transaction that brought money in, or that sent a refund
// of another order: it cannot have sent this one.
func freshHash(tx database.Tx, r *Refund, hash string) error {
	if err := tx.Exec(`SELECT pg_advisory_xact_lock(hashtextextended('refund ' || upper(?), 0))`, hash).Error; err != nil {
		return fmt.Errorf("lock transaction %s: %w", hash, err)
	}
	var uses []string
	err := tx.Raw(`SELECT 'brought payment ' || id FROM payments WHERE upper(tx_hash) = upper(@hash)
		UNION ALL SELECT 'sent refund ' || id FROM refunds WHERE upper(tx_hash) = upper(@hash) AND order_id IS DISTINCT FROM @order
		UNION ALL SELECT 'sent refund ' || id FROM refunds WHERE upper(tx_hash) = upper(@hash) AND payment_id = @payment`,
		map[string]any{"hash": hash, "order": r.OrderID, "payment": r.PaymentID}).Scan(&uses).Error
	if err != nil {
		return fmt.Errorf("look up transaction %s: %w", hash, err)
	}
	if len(uses) > 0 {
		return fault.New(fault.Conflict, "transaction_used", "transaction %s %s: it cannot have sent this refund too", hash, uses[0])
	}
	return nil
}

// Confirm records that the transaction of a sent refund is final. Errors:
// NotFound; Conflict.
func (b *Book) Confirm(tx database.Tx, id uuid.UUID, actor string) (*Refund, error) {
	d, f, r, err := b.refund(tx, id)
	if err != nil {
		return nil, err
	}
	if r.State != RefundSent {
		return nil, r.conflict("is %s: only a sent one can be confirmed")
	}
	r.State, r.ConfirmedAt = RefundConfirmed, &tx.Now
	return r, b.record(tx, d, f, r, change{kind: "refund_confirmed", cause: actor, about: r.PaymentID, note: fmt.Sprintf("%s %s have arrived", Amount(r.Amount), r.Currency)})
}

// Withdraw takes back a decision of which nothing was sent yet: the money is
// due again, or unmatched. Errors: NotFound; Conflict.
func (b *Book) Withdraw(tx database.Tx, id uuid.UUID, actor, note string) (*Refund, error) {
	d, f, r, err := b.refund(tx, id)
	if err != nil {
		return nil, err
	}
	if r.State != RefundApproved && r.State != RefundWaived {
		return nil, r.conflict("is %s: only a decision of which nothing was sent can be withdrawn")
	}
	if f == nil {
		return nil, fault.New(fault.Conflict, "refund_final", "refund %s is of a payment that belongs to no order: send it, or keep the money by sending nothing", r.ID)
	}
	p := f.paymentOf(r.PaymentID)
	if r.State == RefundWaived && p.Counted == CountedUnmatched && f.Accepted.Valid {
		return nil, fault.New(fault.Conflict, "refund_accepted", "order %s was accepted as paid by this money", f.ID)
	}
	if r.State == RefundWaived {
		p.Kept = p.Kept.Sub(r.Amount)
	} else {
		p.Refunded = p.Refunded.Sub(r.Amount)
	}
	f.askAgain(p)
	f.heard[p.ID] = p
	r.State, r.WithdrawnAt = RefundWithdrawn, &tx.Now
	return r, b.record(tx, d, f, r, change{kind: "refund_withdrawn", cause: actor, about: r.PaymentID, note: cmp.Or(note, fmt.Sprintf("%s %s are not decided about any more", Amount(r.Amount), r.Currency))})
}

// askAgain opens the cases about a payment that counts for nothing: what was
// decided about its money no longer holds.
func (f *File) askAgain(p *Payment) {
	for _, c := range f.Cases {
		if p.Counted == CountedUnmatched && c.PaymentID != nil && *c.PaymentID == p.ID && !c.open() && slices.Contains(Rules[c.Code].Actions, actRefund) {
			c.State, c.ClosedAt, c.ClosedBy, c.Resolution = caseOpen, nil, nil, nil
			f.cases[c.Key] = c
			f.since.Opened = append(f.since.Opened, c.Key)
		}
	}
}
