package orders

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/payqi"
)

// Checkout is a row of checkouts: a payment that PayQI was, or is to be, asked
// to create.
type Checkout struct {
	OrderID        string          `json:"order_id"`
	Number         int             `json:"number"`          // of the order's checkouts, from 1
	IdempotencyKey uuid.UUID       `json:"idempotency_key"` // the same on every try
	Amount         decimal.Decimal `json:"amount"`          // what was still owed, in Currency
	Currency       string          `json:"currency"`
	State          checkoutState   `json:"state"`
	LeasedUntil    time.Time       `json:"leased_until"` // while asking: nobody else asks before
	PaymentID      *string         `json:"payment_id"`   // nil until PayQI has answered
	CheckoutURL    string          `json:"checkout_url"` // may be empty
	AskedBy        string          `json:"asked_by"`     // admin:NAME
	AskedAt        time.Time       `json:"asked_at"`
}

type checkoutState string

const (
	checkoutAsking    checkoutState = "asking"    // PayQI may or may not have created the payment
	checkoutLinked    checkoutState = "linked"    // it has
	checkoutRefused   checkoutState = "refused"   // it said no, or answered with something else
	checkoutAbandoned checkoutState = "abandoned" // another amount is owed by now
)

const (
	checkoutLease    = 30 * time.Second
	checkoutPatience = 12 * time.Second // with PayQI: our own server gives up at 15 s, the lease outlasts both

	causeCheckout = "checkout:payqi"
)

// WayToPay is by which payment an order can be paid now.
type WayToPay struct {
	PaymentID      string
	Amount         decimal.Decimal // in Currency
	Currency       string
	PayAddress     *string // PayAddress and DestinationTag: nil until PayQI names them
	DestinationTag *int64
	CheckoutURL    string // a page of PayQI's; may be empty
}

// Checkout returns the payment by which an order can be paid, and whether PayQI
// has created it just now. As long as one is open it is that one. The key that
// PayQI is asked with is committed before it is asked, so that a call which
// takes up what another left behind cannot create a second payment.
// Errors: NotFound; Conflict when nothing can be paid; NotImplemented without
// access to PayQI; those of payqi.Client.
func (b *Book) Checkout(ctx context.Context, id, actor string) (way *WayToPay, created bool, err error) {
	if b.PayQI == nil {
		return nil, false, fault.New(fault.NotImplemented, "no_payqi_key",
			"PAYQI_API_URL and PAYQI_API_KEY are not set: create the payment at PayQI yourself, with metadata.order_id, and record it with PUT /api/v1/orders/%s/payments/{payment_id}", id)
	}
	var c *Checkout
	err = b.db.InTx(ctx, func(tx database.Tx) (err error) {
		way, c, err = b.beginCheckout(tx, id, actor)
		return err
	})
	if err != nil || way != nil {
		return way, false, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkoutLease) // what was begun is noted, also when the caller hangs up
	defer cancel()
	p, asked := b.askForPayment(ctx, *c)
	if asked != nil {
		slog.WarnContext(ctx, "no payment was created at PayQI", "order_id", id, "error", asked)
	}
	var late error
	err = b.db.InTx(ctx, func(tx database.Tx) (err error) {
		if asked != nil {
			return c.giveUp(tx, asked)
		}
		if way, late, err = b.linkCheckout(tx, *c, p); err != nil || way == nil {
			return err
		}
		return access.Record(ctx, tx, access.Change{Subject: "payment/" + way.PaymentID, After: createdPayment{OrderID: id, WayToPayView: checkoutAnswer(way, true).Body}})
	})
	for _, err := range []error{asked, err, late} {
		if err != nil {
			return nil, false, err
		}
	}
	return way, true, nil
}

// beginCheckout finds the open payment of an order, or leases a checkout to ask with.
func (b *Book) beginCheckout(tx database.Tx, id, actor string) (*WayToPay, *Checkout, error) {
	d, err := b.lay(tx, nil, []News{{OrderRef: id, Type: PaymentCreatedEvent}})
	if err != nil {
		return nil, nil, err
	}
	f := d.files[id]
	if f == nil {
		return nil, nil, fault.New(fault.NotFound, "order_not_found", "no order %s", id)
	}
	left, err := f.payable(d.now)
	if err != nil {
		return nil, nil, err
	}
	var before []Checkout // the lock of the order covers them
	if err := tx.Raw(`SELECT * FROM checkouts WHERE order_id = ? ORDER BY number`, id).Scan(&before).Error; err != nil {
		return nil, nil, fmt.Errorf("checkouts of order %s: %w", id, err)
	}
	if way := f.wayToPay(before, left); way != nil {
		return way, nil, nil
	}
	c := Checkout{
		OrderID: id, Number: len(before) + 1, IdempotencyKey: uuid.New(), Amount: left, Currency: f.Currency, State: checkoutAsking,
		LeasedUntil: tx.Now.Add(checkoutLease), AskedBy: actor, AskedAt: tx.Now,
	}
	if i := slices.IndexFunc(before, func(c Checkout) bool { return c.State == checkoutAsking }); i >= 0 {
		switch was := before[i]; {
		case was.LeasedUntil.After(tx.Now):
			return nil, nil, fault.New(fault.Conflict, "payment_in_progress", "PayQI is being asked for a payment of order %s: ask again in a moment", id)
		case was.Amount.Equal(left):
			c.Number, c.IdempotencyKey = was.Number, was.IdempotencyKey
			return nil, &c, was.mark(tx, checkoutAsking, c.LeasedUntil)
		default:
			if err := was.mark(tx, checkoutAbandoned, was.LeasedUntil); err != nil {
				return nil, nil, err
			}
		}
	}
	err = database.Insert(tx, "checkouts", `order_id, number, idempotency_key, amount, currency, state, leased_until, checkout_url, asked_by, asked_at`, []Checkout{c})
	if err != nil {
		return nil, nil, fmt.Errorf("checkout %d of order %s: %w", c.Number, id, err)
	}
	return nil, &c, nil
}

// payable returns what is still owed. Errors: Conflict when the order takes no
// money now, or some came that a person must decide about.
func (f *File) payable(now time.Time) (decimal.Decimal, error) {
	left := f.owed().Sub(f.Got)
	switch {
	case f.Status == Cancelled || f.Status == Expired:
		return left, fault.New(fault.Conflict, "order_"+string(f.Status), "order %s is %s: reopen it first", f.ID, f.Status)
	case f.Status == Paid || f.Status == Fulfilled || !left.IsPositive():
		return left, fault.New(fault.Conflict, "order_paid", "order %s is paid", f.ID)
	case !now.Before(f.Deadline):
		return left, fault.New(fault.Conflict, "order_expired", "order %s is past its deadline", f.ID)
	case slices.ContainsFunc(f.Payments, func(p *Payment) bool { return p.Counted == CountedUnmatched && p.left().IsPositive() }):
		return left, fault.New(fault.Conflict, "money_undecided", "money came for order %s that a person must decide about first", f.ID)
	}
	return left, nil
}

// open reports whether the payment may still bring money that nobody has told of.
func (p *Payment) open() bool { return p.stands() <= StandsPending && !p.Outlived }

// wayToPay is the newest open payment, nil when there is none. One that asks
// for another amount than is owed counts only when its money is on its way.
func (f *File) wayToPay(checkouts []Checkout, left decimal.Decimal) *WayToPay {
	var way *WayToPay
	var newest *Payment
	for _, p := range f.Payments {
		if !p.open() || newest != nil && p.FirstSeenAt.Before(newest.FirstSeenAt) {
			continue
		}
		w := WayToPay{PaymentID: p.ID, Amount: left, Currency: f.Currency, PayAddress: p.PayAddress, DestinationTag: p.DestinationTag}
		for _, c := range checkouts {
			if c.PaymentID != nil && *c.PaymentID == p.ID {
				w.Amount, w.CheckoutURL = c.Amount, c.CheckoutURL
			}
		}
		if w.Amount.Equal(left) || p.stands() == StandsPending {
			newest, way = p, &w
		}
	}
	return way
}

// askForPayment asks PayQI to create the payment, and minds that it is the one asked for.
func (b *Book) askForPayment(ctx context.Context, c Checkout) (*payqi.Payment, error) {
	ctx, cancel := context.WithTimeout(ctx, checkoutPatience)
	defer cancel()
	p, err := b.PayQI.Create(ctx, payqi.Order{
		Key: c.IdempotencyKey.String(), ID: c.OrderID, Amount: Amount(c.Amount), Currency: c.Currency, Description: "Order " + c.OrderID,
	})
	switch {
	case err != nil:
		return nil, err
	case payqi.TestPayment(p.ID):
		return nil, fault.New(fault.NotImplemented, "payqi_test_key", "PayQI has created a test payment, whose events touch no order: PAYQI_API_KEY is one for tests")
	case p.OrderID != "" && p.OrderID != c.OrderID, p.Currency != "" && p.Currency != c.Currency, p.Amount.Valid && !p.Amount.Decimal.Equal(c.Amount):
		return nil, fault.New(fault.Conflict, "payqi_other_payment", "PayQI answered with payment %s over another order or amount than it was asked for: it was not recorded", p.ID)
	}
	return p, nil
}

// giveUp notes that there is no payment: the next call may try at once, with
// the same key unless PayQI has said no.
func (c Checkout) giveUp(tx database.Tx, why error) error {
	if fault.Permanent(why) {
		return c.mark(tx, checkoutRefused, tx.Now)
	}
	return c.mark(tx, checkoutAsking, tx.Now)
}

// mark changes a checkout that is being asked for.
func (c Checkout) mark(tx database.Tx, state checkoutState, leasedUntil time.Time) error {
	err := tx.Exec(`UPDATE checkouts SET state = ?, leased_until = ? WHERE order_id = ? AND number = ? AND state = ?`,
		state, leasedUntil, c.OrderID, c.Number, checkoutAsking).Error
	if err != nil {
		return fmt.Errorf("checkout %d of order %s: %w", c.Number, c.OrderID, err)
	}
	return nil
}

// linkCheckout records the payment that PayQI has created, by the way of an
// event that says so. late says why it is of no use any more all the same.
func (b *Book) linkCheckout(tx database.Tx, c Checkout, p *payqi.Payment) (way *WayToPay, late, err error) {
	n := News{
		Type: PaymentCreatedEvent, Cause: causeCheckout, PaymentID: p.ID, OrderRef: c.OrderID,
		PayAddress: p.PayAddress, DestinationTag: p.DestinationTag,
	}
	f, err := b.link(tx, n)
	if err != nil {
		if fault.KindOf(err) == fault.Conflict { // PayQI gave out a payment twice
			return nil, err, c.mark(tx, checkoutRefused, tx.Now)
		}
		return nil, nil, err
	}
	var rows []Checkout
	err = tx.Raw(`UPDATE checkouts SET state = ?, payment_id = ?, checkout_url = ? WHERE order_id = ? AND number = ? AND state = ? RETURNING *`,
		checkoutLinked, p.ID, p.CheckoutURL, c.OrderID, c.Number, checkoutAsking).Scan(&rows).Error
	if err != nil {
		return nil, nil, fmt.Errorf("checkout %d of order %s: %w", c.Number, c.OrderID, err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.Conflict, "payment_in_progress", "another request has asked for a payment of order %s meanwhile: ask again", c.OrderID), nil
	}
	if _, late = f.payable(tx.Now); late != nil {
		return nil, late, nil
	}
	q := f.paymentOf(p.ID)
	return &WayToPay{
		PaymentID: p.ID, Amount: c.Amount, Currency: c.Currency, PayAddress: q.PayAddress, DestinationTag: q.DestinationTag, CheckoutURL: p.CheckoutURL,
	}, nil, nil
}

// Link records that a payment, which the shop has created at PayQI itself, is
// for an order. To do so again changes nothing. Errors: NotFound; Conflict when
// it is another order's, or its address is known to be another.
func (b *Book) Link(tx database.Tx, id, actor string, payment, address string, tag *int64) error {
	_, err := b.link(tx, News{Type: PaymentCreatedEvent, Cause: actor, PaymentID: payment, OrderRef: id, PayAddress: address, DestinationTag: tag})
	return err
}

// link hears of a payment of which we are told outside of any event.
func (b *Book) link(tx database.Tx, n News) (*File, error) {
	d, err := b.lay(tx, nil, []News{n})
	if err != nil {
		return nil, err
	}
	f := d.files[n.OrderRef]
	switch {
	case d.strays[n.PaymentID]:
		return nil, fault.New(fault.Conflict, "payment_decided", "it was decided that payment %s belongs to no order", n.PaymentID)
	case d.links[n.PaymentID] != "" && d.links[n.PaymentID] != n.OrderRef:
		return nil, fault.New(fault.Conflict, "payment_linked", "payment %s belongs to another order", n.PaymentID)
	case f == nil:
		return nil, fault.New(fault.NotFound, "order_not_found", "no order %s", n.OrderRef)
	}
	if p := f.paymentOf(n.PaymentID); p != nil {
		if known := *p; known.learnAddress(n) {
			return nil, fault.New(fault.Conflict, "address_differs", "payment %s is known with another address or destination tag", p.ID)
		} else if p.CreatedSeen != nil && place(known.PayAddress, known.DestinationTag) == place(p.PayAddress, p.DestinationTag) {
			return f, nil // nothing new
		}
	}
	d.hear(n)
	return f, b.clear(tx, d)
}
