package orders

import (
	"fmt"

	"github.com/google/uuid"

	"quayside/internal/database"
)

// LookAlikes finds, for money that comes with no order's name, the one open order
// that was told to be paid to the same address and tag (behaviour §2.3). It is a
// hint for the person who attaches the payment: nothing counts by it. The result
// is by inbox id; an event whose place fits none, or several, is not in it.
func (b *Book) LookAlikes(tx database.Tx, news []News) (map[uuid.UUID]string, error) {
	var addresses []string
	var tags []int64
	for _, n := range news {
		if n.PayAddress == "" {
			continue
		}
		addresses = append(addresses, n.PayAddress)
		if n.DestinationTag != nil {
			tags = append(tags, *n.DestinationTag)
		}
	}
	if addresses == nil {
		return nil, nil
	}
	var open []Order
	err := tx.Raw(`SELECT id, pay_address, destination_tag FROM orders WHERE status IN ('pending','payment_failed')
		AND pay_address = ANY(?) AND (destination_tag IS NULL OR destination_tag = ANY(?))`, database.Array(addresses), database.Array(tags)).Scan(&open).Error
	if err != nil {
		return nil, fmt.Errorf("find orders by address: %w", err)
	}
	alike := map[uuid.UUID]string{}
	for _, n := range news {
		var fits []string
		for _, o := range open {
			if *o.PayAddress == n.PayAddress && place(nil, o.DestinationTag) == place(nil, n.DestinationTag) {
				fits = append(fits, o.ID)
			}
		}
		if len(fits) == 1 {
			alike[n.InboxID] = fits[0]
		}
	}
	return alike, nil
}

// stranger reports whether n is money of a payment that nothing here knows and
// that names no order.
func (d *desk) stranger(n News) bool {
	return n.Trouble == nil && n.Type == PaymentCompletedEvent && d.orderOf(n) == "" && !d.strays[n.PaymentID]
}

// greet looks for whom the strangers among the news may be.
func (b *Book) greet(tx database.Tx, d *desk, news []News) (err error) {
	var strangers []News
	for _, n := range news {
		if d.stranger(n) {
			strangers = append(strangers, n)
		}
	}
	d.alike, err = b.LookAlikes(tx, strangers)
	return err
}

// park lets an event wait for its order. When its money looks like that of
// another, a person is told at once.
func (d *desk) park(n News) Verdict {
	order := d.alike[n.InboxID]
	if order == "" {
		return Verdict{State: Parked, Reason: "no such order yet"}
	}
	c := unknownOrder(n.PaymentID, n.InboxID, order).row("", d.now)
	d.loose[c.Key] = c
	return Verdict{State: Parked, Reason: c.Summary}
}

// unknownOrder is the case of money that nothing matches; order is the one it
// may be for, "" when there is none.
func unknownOrder(payment string, inbox uuid.UUID, order string) matter {
	m := matter{
		code: UnknownOrder, about: payment, payment: payment, inbox: &inbox,
		summary: fmt.Sprintf("Payment %s completed, but nothing here matches it.", payment),
	}
	if order != "" {
		m.summary = fmt.Sprintf("Payment %s completed and names no order we know. Its address and tag are those of order %s: attach it, if that is right.", payment, order)
		m.facts = map[string]string{"suggested_order": order}
	}
	return m
}
