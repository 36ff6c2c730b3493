package orders

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/notify"
)

// ended lets the latest letter of a kind end in state, as the outbox would note it.
func (s *shop) ended(order string, kind notify.Kind, state notify.State) {
	s.Helper()
	s.must(func(tx database.Tx) error {
		var l notify.Letter
		if err := tx.Raw(`UPDATE letters SET state = @state, sent_at = CASE WHEN @state = 'sent' THEN now() END
			WHERE id = (SELECT id FROM letters WHERE order_id = @order AND kind = @kind ORDER BY id DESC LIMIT 1) RETURNING *`,
			map[string]any{"state": state, "order": order, "kind": kind}).Scan(&l).Error; err != nil {
			return err
		}
		first := l.ID
		for l.ResendOf != nil {
			first = *l.ResendOf
			before, err := s.book.outbox.Letter(tx, first.String())
			if err != nil {
				return err
			}
			l.ResendOf = before.ResendOf
		}
		return s.book.letterEnded(tx, notify.Fate{Letter: l, First: first})
	})
}

// A letter that failed for good is a case that holds nothing. Sending it again
// closes the case; when that fails too it is open again, and when somebody
// else's resend gets through it closes by itself.
func TestMailDead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.pay("1001", "mug")
	s.ended("1001", notify.PaymentConfirmed, notify.Failed)
	s.want("told", s.status("1001")+" "+s.cases("1001"), "paid paid queued committed MAIL_DEAD")
	s.decided("1001", MailDead, actRetry)
	s.want("retried", s.confirmations(), "failed ada@example.com, queued ada@example.com")
	s.want("closed", s.cases("1001"), "")
	s.ended("1001", notify.PaymentConfirmed, notify.Failed)
	s.want("failed again", s.cases("1001"), "MAIL_DEAD")

	s.must(func(tx database.Tx) error {
		c := one[uuid.UUID](s, `SELECT id FROM cases`)
		_, err := s.book.Resolve(tx, c, "admin:ada", Decision{Action: actReaddress, To: &Destination{Address: "ada@new.example"}})
		return err
	})
	s.want("readdressed", s.confirmations(), "failed ada@example.com, failed ada@example.com, queued ada@new.example")
	s.want("order", one[string](s, `SELECT customer_email FROM orders`), "ada@new.example")
	s.ended("1001", notify.PaymentConfirmed, notify.Failed)
	s.want("failed thrice", s.cases("1001")+" "+one[string](s, `SELECT count(*)::text FROM cases`), "MAIL_DEAD 1")
	s.must(func(tx database.Tx) error {
		l, err := s.book.outbox.Letter(tx, one[string](s, `SELECT id::text FROM letters WHERE kind = 'payment_confirmed' ORDER BY id LIMIT 1`))
		if err != nil {
			return err
		}
		_, err = s.book.outbox.Again(tx, *l, notify.Letter{Address: "x@y.example", Facts: l.Facts, PostedBy: "admin:ada"})
		return err
	})
	s.want("under way", s.cases("1001"), "MAIL_DEAD")
	s.ended("1001", notify.PaymentConfirmed, notify.Sent)
	s.want("sent after all", s.cases("1001")+" "+one[string](s, `SELECT closed_by FROM cases`), " quayside")
}

// confirmations is how the letters of payment_confirmed stand, the first one first.
func (s *shop) confirmations() string {
	s.Helper()
	return one[string](s, `SELECT string_agg(state || ' ' || address, ', ' ORDER BY id) FROM letters WHERE kind = 'payment_confirmed'`)
}

// What makes no sense is refused by name; a letter that is not true any more
// is not sent again; one about no order is nobody's case.
func TestMailDeadRefusals(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.product("mug", 10)
	s.open(draft("1001", "mug"))
	s.hear(s.of("1001", news(PaymentFailedEvent, "a")))
	s.ended("1001", notify.PaymentFailed, notify.Failed)
	tag := int64(7)
	for name, what := range map[string]Decision{
		"address": {Action: actReaddress}, "address ": {Action: actReaddress, To: &Destination{Address: "ada"}},
		"address  ":  {Action: actReaddress, To: &Destination{Address: "ada@new.example", Tag: &tag}},
		"address   ": {Action: actRetry, To: &Destination{Address: "ada@new.example"}},
		"action":     {Action: actReroute},
	} {
		err := s.try(func(tx database.Tx) error {
			_, err := s.book.Resolve(tx, one[uuid.UUID](s, `SELECT id FROM cases`), "admin:ada", what)
			return err
		})
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "invalid_decision" || len(e.Fields) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.hear(s.of("1001", completed("b", "10")))
	err := s.try(func(tx database.Tx) error {
		_, err := s.book.Resolve(tx, one[uuid.UUID](s, `SELECT id FROM cases`), "admin:ada", Decision{Action: actRetry})
		return err
	})
	s.refused(err, fault.Conflict, "email_outgrown")
	s.decided("1001", MailDead, actAcknowledge)
	s.want("acknowledged", s.cases("1001"), "")

	s.must(func(tx database.Tx) error {
		l := notify.Letter{ID: uuid.New(), OrderID: "nobody", Kind: notify.PaymentFailed, State: notify.Failed}
		return s.book.letterEnded(tx, notify.Fate{Letter: l, First: l.ID})
	})
	s.want("of no order", one[string](s, `SELECT count(*)::text FROM cases`), "1")
}
