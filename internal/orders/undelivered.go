package orders

import (
	"fmt"

	"quayside/internal/database"
	"quayside/internal/notify"
)

// factEmail is the fact of a MAIL_DEAD case that names the letter which failed last.
const factEmail = "email_id"

// letterEnded opens a case when a letter to the customer of an order has failed
// for good, and closes it when a resend of that letter was sent. It holds
// nothing, so the order needs no lock. What the server said may quote the
// customer's address: it stays with the letter.
func (b *Book) letterEnded(tx database.Tx, l notify.Fate) error {
	alarm := Alarm{
		Code: MailDead, About: l.First.String(), OrderID: l.OrderID,
		Summary: fmt.Sprintf("The customer was not told %s: the mail server refused the letter, or took it in none of %d attempts.", l.Kind, l.Attempts),
		Facts:   map[string]string{factEmail: l.ID.String(), "kind": string(l.Kind)},
	}
	if l.State == notify.Sent {
		return b.Quiet(tx, []string{alarm.Key()})
	}
	var known bool
	if err := tx.Raw(`SELECT EXISTS (SELECT 1 FROM orders WHERE id = ?)`, l.OrderID).Row().Scan(&known); err != nil {
		return fmt.Errorf("order of letter %s: %w", l.ID, err)
	}
	if !known {
		return nil
	}
	return b.Raise(tx, []Alarm{alarm})
}

// writeAgain sends the letter of the case again, with what is true now.
func (r *ruling) writeAgain() error {
	l, err := r.b.outbox.Letter(r.tx, r.c.Facts[factEmail])
	if err != nil {
		return err
	}
	facts, err := r.f.retold(*l, r.d.now)
	if err != nil {
		return err
	}
	address := l.Address
	if r.Action == actReaddress {
		address = r.To.Address
	}
	_, err = r.b.outbox.Again(r.tx, *l, notify.Letter{Address: address, Facts: facts, PostedBy: r.actor, Note: r.Note})
	return err
}

// readdress notes the customer's right address, for all letters to come, and
// sends the one of the case there.
func (r *ruling) readdress() error {
	if err := r.tx.Exec(`UPDATE orders SET customer_email = ? WHERE id = ?`, r.To.Address, r.f.ID).Error; err != nil {
		return fmt.Errorf("address of order %s: %w", r.f.ID, err)
	}
	r.f.CustomerEmail = r.To.Address
	return r.writeAgain()
}

// checkTo refuses an address that the action has no use for, or cannot use.
func (r *ruling) checkTo() error {
	switch {
	case r.Action == actReaddress && (r.To == nil || r.To.Tag != nil):
		return refused("address", "must be the customer's right e-mail address, without a destination tag")
	case r.Action == actReaddress:
		if err := notify.ValidAddress(r.To.Address); err != nil {
			return refused("address", err.Error())
		}
	case r.To != nil && r.Action != actRefund:
		return refused("address", "says where a refund or an e-mail goes: only refund and readdress take it")
	case r.To != nil:
		return r.To.check()
	}
	return nil
}
