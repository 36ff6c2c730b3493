package orders

import (
	"fmt"
	"slices"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/notify"
)

// told are the statuses of an order in which a letter is true.
var told = map[notify.Kind][]Status{
	notify.OrderReceived:    {Pending, PaymentFailed},
	notify.PaymentFailed:    {PaymentFailed},
	notify.PaymentConfirmed: {Paid},
	notify.GoodsGone:        {Paid},
	notify.OrderExpired:     {Expired},
	notify.OrderCancelled:   {Cancelled},
	notify.OrderShipped:     {Paid, Fulfilled},
	notify.RefundSent:       {Pending, PaymentFailed, Paid, Expired, Cancelled, Fulfilled}, // it stays true
}

// Retell returns what letter l would say now and notes in the timeline that
// actor sends it again. The order stays locked, so that it cannot outgrow the
// letter before that is posted; later it drops it like any other. Errors:
// NotFound; Conflict when the letter would mislead the customer.
func (b *Book) Retell(tx database.Tx, l notify.Letter, actor string) (notify.Facts, error) {
	d, f, err := b.file(tx, l.OrderID)
	if err != nil {
		return notify.Facts{}, err
	}
	facts, err := f.retold(l, d.now)
	if err != nil {
		return facts, err
	}
	was := f.Status
	f.note(change{kind: "email_sent_again", cause: actor, note: fmt.Sprintf("e-mail %s sent again", l.Kind)}, &was, d.now)
	return facts, b.clear(tx, d)
}

// retold is what l would say now. Errors: Conflict when it would mislead the customer.
func (f *File) retold(l notify.Letter, now time.Time) (notify.Facts, error) {
	if why := f.misleads(l.Kind, now); why != "" {
		return notify.Facts{}, fault.New(fault.Conflict, "email_outgrown", "order %s %s: the e-mail %s would mislead the customer", f.ID, why, l.Kind)
	}
	facts := f.facts()
	facts.Reason, facts.Carrier, facts.TrackingNumber, facts.Parcel = l.Facts.Reason, l.Facts.Carrier, l.Facts.TrackingNumber, l.Facts.Parcel
	facts.Refund = l.Facts.Refund
	return facts, nil
}

// misleads says why a letter of this kind would not be true now, "" when it is.
func (f *File) misleads(kind notify.Kind, now time.Time) string {
	asksForMoney := kind == notify.OrderReceived || kind == notify.PaymentFailed
	switch {
	case !slices.Contains(told[kind], f.Status):
		return fmt.Sprintf("is %s by now", f.Status)
	case asksForMoney && !now.Before(f.Deadline):
		return "is past its deadline"
	case asksForMoney && slices.ContainsFunc(f.Payments, func(p *Payment) bool { return p.stands() == StandsPending }):
		return "has a payment on its way, and they might pay twice"
	case kind == notify.PaymentConfirmed && f.Stock == StockNone:
		return "is paid, but its goods are gone"
	case kind == notify.GoodsGone && f.Stock != StockNone:
		return "has its goods after all"
	}
	return ""
}
